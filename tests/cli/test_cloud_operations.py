"""``postdicom cloud``: every operation of the Cloud API against the embedded archive."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from postdicom_async import CloudApi
from postdicom_async.cli.table import COMMANDS, CommandGroup
from postdicom_async.emulator.cloud.oddities import Drop
from tests.cli.conftest import Cli, told
from tests.cli.test_operations import NOBODY, _on_a_terminal
from tests.cloud.conftest import COLLEAGUE, GROUP, INSTITUTION, OTHER, USER
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid

SOON = str(datetime.now(UTC).date() + timedelta(days=7))
ORDER = ["--patient-name", "Święty^Łukasz", "--patient-id", "P-1", "--modality", "CT"]


async def ok(cli: Cli, *words: str | Path) -> str:
    """Run a command that must do what it is asked; return what it wrote."""
    ran = await cli.here("cloud", *words)
    assert ran.code == 0, ran.err
    return ran.out.strip()


@pytest.fixture
async def order(cloud_cli: Cli, cloud_archive: Any, tmp_path: Path) -> str:
    """Give the UUID of an order with an image."""
    path = tmp_path / "one.dcm"
    path.write_bytes(small_dicom(uid(9), uid(9, 1), uid(9, 1, 1)))
    await cloud_archive.add([path])
    return str(cloud_archive.order_uuid(uid(9)))


@pytest.fixture
async def folder(cloud_cli: Cli) -> str:
    return await ok(cloud_cli, "folders", "create", "--name", "Łódź", "--description", "for the conference")


def sent(archive: Any, management_type: int) -> Any:
    """Return the fields of the last request of a kind."""
    return archive.cloud.sent((17, management_type))[-1].parameters


def places_in(group: CommandGroup) -> list[str]:
    return [*group.commands.values(), *(place for one in group.groups.values() for place in places_in(one))]


def test_every_operation_has_a_command() -> None:
    made = {"folders.contents"}  # called without the table, which has it as a search
    for place in places_in(COMMANDS.groups["cloud"]):
        module, function, *api = place.split(".")
        if api == ["cloud"]:
            command = getattr(import_module(f"postdicom_async.cli.{module}"), function)
            assert callable(command.cloud)
            made.update(command.operations)
    missing = []
    for name, place in inspect.getmembers(CloudApi, lambda member: isinstance(member, property)):
        kind = get_type_hints(place.fget).get("return")
        if kind is not None and kind.__name__ == f"Cloud{name.title()}":
            methods = {method for method in vars(kind) if not method.startswith("_")}
            missing += [f"{name}.{method}" for method in methods if f"{name}.{method}" not in made]
    assert missing == ["shares.share_orders"], "which is create_link by another name"


# --- the account ----------------------------------------------------------------------------------------------------


async def test_account(cloud_cli: Cli, cloud_archive: Any) -> None:
    ran = await cloud_cli.here("cloud", "account", "--user", "")
    assert (ran.code, ran.err) == (0, "2 users\n")
    for words in ("Some Body", "other.body", USER, "North", INSTITUTION, "South", OTHER):
        assert words in ran.out
    raw = told(await ok(cloud_cli, "account", "--json"))
    assert [user["UserUuid"] for user in raw["UserList"]] == [USER, COLLEAGUE]
    assert [one["InstitutionName"] for one in raw["UserList"][0]["InstitutionList"]] == ["North", "South"]
    assert cloud_archive.cloud_account_key not in json.dumps(raw)


async def test_lists(cloud_cli: Cli) -> None:
    users = await cloud_cli.here("cloud", "users", "list")
    assert (users.code, users.err) == (0, "2 users\n")
    assert COLLEAGUE in users.out
    for words, row in (
        (["users", "groups"], "Readers"),
        (["users", "contacts"], "contact@example.org"),
        (["nodes", "list"], "Sample Scanner"),
    ):
        shown, raw = await ok(cloud_cli, *words), told(await ok(cloud_cli, *words, "--json"))
        assert row in shown
        assert row in raw[0].values()
    assert told(await ok(cloud_cli, "users", "list", "--json"))[0]["FullName"] == "Some Body"


# --- orders ---------------------------------------------------------------------------------------------------------


async def test_orders_from_first_to_last(cloud_cli: Cli, cloud_archive: Any) -> None:
    cli = cloud_cli
    details = {
        "institution-uuid": "south", "patient-birthdate": "1970-01-31", "other-patient-id": "A-2", "patient-sex": "F",
        "study-description": "Head", "accession-number": "ACC", "patient-complaints": "pain",
        "order-scheduled-datetime": "2031-02-03 04:05", "requested-procedure-id": "P",
        "requested-procedure-description": "Plain", "referring-physicians-name": "Wilson^J",
        "scheduled-equipment-uuid": NOBODY,
    }  # fmt: skip
    made = await cli.here(
        "cloud", "orders", "create", *ORDER, *(word for name, value in details.items() for word in (f"--{name}", value))
    )
    assert (made.code, made.err) == (0, "order made\n")
    uuid = made.out.strip()
    assert sent(cloud_archive, 7)["InstitutionUuid"] == OTHER
    assert sent(cloud_archive, 7)["PatientComplaints"] == "pain"
    assert sent(cloud_archive, 7)["UserUuid"] == USER
    simple = await ok(cli, "orders", "create", *ORDER, "--institution-uuid", OTHER, "--requesting-physician", "House")
    assert simple != uuid

    wanted = ["--patient-name", "Święty", "--modalities", "CT", "--institution-uuids", OTHER, "--patient-id", "P-1"]
    wanted += ["--other-patient-id", "A-2", "--accession-number", "ACC"]
    for dates in ("study-date", "2031-02-03"), ("patient-birthdate", "1970-01-31"):
        found = await cli.here(
            "cloud", "orders", "search", *wanted, f"--{dates[0]}-from", dates[1], f"--{dates[0]}-to", dates[1]
        )
        assert uuid in found.out
        assert (found.code, found.err) == (0, "1 order\n")
    raw = told(await ok(cli, "orders", "search", "--json", *wanted))
    assert [one["PatientOrderUuid"] for one in raw] == [uuid]

    names = ["--institution-uuid", "South", "--patient-order-uuid", uuid]
    assert re.search(r"^ ReferringPhysiciansName +Wilson\^J$", await ok(cli, "orders", "show", *names), re.MULTILINE)
    shown = told(await ok(cli, "orders", "show", "--json", *names))
    assert shown["PatientOrder"]["PatientId"] == "P-1"
    assert (await cli.here("cloud", "orders", "delete", "--yes", *names)).err == "order deleted\n"
    gone = await cli.here("cloud", "orders", "show", *names)
    assert (gone.code, gone.out) == (1, "")
    assert "the service said no" in gone.error_line
    assert (await cli.here("cloud", "orders", "search", *wanted)).err == "nothing matches\n"


async def test_an_order_from_json(cloud_cli: Cli, cloud_archive: Any, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    create = ["orders", "create-from-json", str(file), "--institution-uuid", "North"]
    file.write_text(json.dumps({"PatientName": "Doe^Jane", "PatientID": "4711", "OrderModality": "CR"}))
    uuid = await ok(cloud_cli, *create)
    (found,) = told(await ok(cloud_cli, "orders", "search", "--patient-id", "4711", "--json"))
    assert found["PatientOrderUuid"] == uuid
    cases = {
        '{"Colour": "red"}': "Colour: no such field of an order",
        "[1]": "one JSON object",
        "{": "not JSON",
        '{"OrderAccessionNumber": "12345678901234567"}': "OrderAccessionNumber: at most 16 characters",
    }
    for text, words in cases.items():
        file.write_text(text)
        ran = await cloud_cli.here("cloud", *create)
        assert (ran.code, ran.out) == (2, "")
        assert words in ran.error_line
    file.unlink()
    assert "does not exist" in (await cloud_cli.here("cloud", *create)).error_line
    assert cloud_archive.cloud.executed[17, 25] == 1


async def test_assignments(cloud_cli: Cli, cloud_archive: Any, order: str) -> None:
    one = ["--patient-order-uuid", order]
    for command, option, value, number in (
        ("assign", "user-uuid", COLLEAGUE, 28),
        ("unassign", "user-uuid", COLLEAGUE, 32),
        ("assign", "user-group-uuid", GROUP, 29),
        ("unassign", "user-group-uuid", GROUP, 33),
        ("assign", "institution-uuid", "South", 35),
    ):
        ran = await cloud_cli.here("cloud", "orders", command, *one, f"--{option}", value)
        assert (ran.code, ran.out, ran.err) == (0, "", f"order {command}ed\n")
        assert cloud_archive.cloud.executed[17, number] == 1
    assert told(await ok(cloud_cli, "orders", "search", "--institution-uuids", OTHER, "--json"))
    for command, wrong in (("assign", []), ("unassign", ["--user-uuid", USER, "--user-group-uuid", GROUP])):
        ran = await cloud_cli.here("cloud", "orders", command, *one, *wrong)
        assert ran.code == 2
        assert "one of them" in ran.error_line


async def test_groups_and_flags(cloud_cli: Cli, cloud_archive: Any, order: str) -> None:
    cli, institution = cloud_cli, ["--institution-uuid", "North"]
    two = await ok(cli, "orders", "create", *ORDER, *institution)
    group = await ok(cli, "groups", "create", "--patient-order-uuids", order, *institution)
    added = ["--connected-group-uuid", group, "--patient-order-uuids", two]
    assert (await cli.here("cloud", "groups", "add-orders", *added, *institution)).err == "orders added\n"
    grouped = told(await ok(cli, "orders", "search", "--json"))
    assert [one["ConnectedGroupUuid"] for one in grouped] == [group, group]
    await ok(cli, "groups", "remove-orders", "--patient-order-uuids", order, "--patient-order-uuids", two, *institution)

    flags = await cli.here("cloud", "flags", "list")
    assert (flags.code, flags.err) == (0, "5 flags\n")
    assert re.search("Priority +2 +Urgent", flags.out)
    assert "FlagGroupList" in told(await ok(cli, "flags", "list", "--json"))
    await ok(cli, "flags", "set", "--patient-order-uuid", order, "--group-id", "2", "--flag-id", "2")
    shown = await ok(cli, "orders", "show", "--patient-order-uuid", order, *institution)
    assert '[{"GroupId": 2, "FlagId": 2}]' in shown


async def test_flags_of_another_shape(cloud_cli: Cli, cloud_archive: Any) -> None:
    cloud_archive.cloud.oddities.envelope = answering({"Flags": {"1": "Urgent"}})
    assert re.search('Flags +{"1": "Urgent"}', await ok(cloud_cli, "flags", "list"))


# --- folders --------------------------------------------------------------------------------------------------------


async def test_folders(cloud_cli: Cli, cloud_archive: Any, order: str, folder: str) -> None:
    cli, one = cloud_cli, ["--folder-uuid", folder]
    below = told(await ok(cli, "folders", "create", "--name", "b", "--parent-folder-uuid", folder, "--json"))
    assert below["ParentFolderUuid"] == folder
    added = ["--patient-order-uuid", order, "--folder-uuids", folder, "--institution-uuid", "North"]
    assert (await cli.here("cloud", "folders", "add-order", *added)).err == "order added\n"
    found = await cli.here("cloud", "folders", "search", "--name", "ód", "--with-orders")
    assert found.err == "1 folder\n1 order\n"
    assert order in found.out
    raw = told(await ok(cli, "folders", "search", "--parent-folder-uuid", folder, "--json"))
    assert [one["FolderName"] for one in raw] == ["b"]
    inside = await cli.here("cloud", "folders", "contents", *one)
    assert (inside.code, inside.err) == (0, "1 folder\n1 order\n")
    assert order in inside.out
    assert below["FolderUuid"] in inside.out
    assert told(await ok(cli, "folders", "contents", *one, "--json"))["Folder"]["FolderName"] == "Łódź"
    assert (await cli.here("cloud", "folders", "contents")).err == "1 folder\nno orders\n"
    in_folder = await cli.here("cloud", "orders", "in-folder", *one)
    assert (in_folder.code, in_folder.err) == (0, "1 order\n")
    assert order in in_folder.out

    assert (await cli.here("cloud", "folders", "update", *one, "--name", "Warszawa")).err == "folder changed\n"
    assert (await cli.here("cloud", "folders", "update", *one)).error_line.endswith("a new description or both")
    assert "Warszawa" in await ok(cli, "folders", "search")
    assert (await cli.here("cloud", "folders", "remove-orders", *one, "--patient-order-uuids", order)).code == 0
    assert told(await ok(cli, "orders", "in-folder", *one, "--json")) == []
    assert (await cli.here("cloud", "folders", "delete", *one, "--yes")).err == "folder deleted\n"
    assert await ok(cli, "folders", "search") == ""


async def test_shared_folders(cloud_cli: Cli, cloud_archive: Any, folder: str) -> None:
    cli, one = cloud_cli, ["--folder-uuid", folder, "--expires", SOON]
    shown = ["--title", "T", "--description", "D", "--downloadable"]
    link = await cli.here("cloud", "folders", "share", *one, *shown)
    assert link.out.startswith(cloud_archive.url)
    assert link.err == "without a password: whoever has the address may look\n"
    assert sent(cloud_archive, 15)["ShareTitle"] == "T"
    upload = await cli.here("cloud", "folders", "share-to-upload", *one, "--institution-uuid", "South")
    assert upload.err == "without a password: whoever has the address may upload\n"
    assert sent(cloud_archive, 17)["InstitutionUuid"] == OTHER

    cli.environment["POSTDICOM_SHARE_PASSWORD"] = CANARIES["password"]
    for command, more, number in (
        ("share", [], 15),
        ("share-to-upload", ["--institution-uuid", "North"], 17),
        ("share-by-email", ["--email", "a@example.org", "--password-email", "b@example.org"], 14),
        ("share-to-upload-by-email", ["--email", "a@example.org", "--institution-uuid", "North"], 16),
    ):
        ran = await cli.here("cloud", "folders", command, *one, *more)
        assert ran.code == 0
        assert ran.err == ("link sent\n" if "email" in command else "")
        assert sent(cloud_archive, number)["SharePassword"] == CANARIES["password"]
        assert CANARIES["password"] not in ran.out
    assert [mail.password_email for mail in cloud_archive.cloud.mails] == ["b@example.org", "a@example.org"]
    cli.environment["POSTDICOM_SHARE_PASSWORD"] = ""
    assert "POSTDICOM_SHARE_PASSWORD is empty" in (await cli.here("cloud", "folders", "share", *one)).error_line
    del cli.environment["POSTDICOM_SHARE_PASSWORD"]
    assert (await cli.here("cloud", "folders", "share", *one, "--with-password")).code == 2


async def test_folders_shared_inside_the_account(cloud_cli: Cli, cloud_archive: Any, folder: str) -> None:
    share = ["folders", "share-with", "--folder-uuid", folder, "--expires", SOON]
    await ok(cloud_cli, *share, "--user-uuids", COLLEAGUE, "--user-uuids", USER)
    await ok(cloud_cli, *share, "--user-group-uuids", GROUP)
    shares = list(cloud_archive.cloud.folder_shares)
    assert [(one.user_uuids, one.user_group_uuids) for one in shares] == [((COLLEAGUE, USER), ()), ((), (GROUP,))]
    ran = await cloud_cli.here("cloud", *share)
    assert "--user-uuids or --user-group-uuids" in ran.error_line


# --- links ----------------------------------------------------------------------------------------------------------


async def test_links_to_orders(cloud_cli: Cli, cloud_archive: Any, order: str) -> None:
    cli, link = cloud_cli, ["share", "link", "--patient-order-uuids", order]
    ran = await cli.here("cloud", *link)
    assert ran.out.startswith(cloud_archive.url)
    assert ran.err == "without a password: whoever has the address may look\n"
    until = told(await ok(cli, *link, "--expires", SOON, "--downloadable", "--json"))
    assert until["Result"].startswith(cloud_archive.url)
    mail = ["share", "email", "--patient-order-uuids", order, "--email", "a@example.org"]
    assert (await cli.here("cloud", *mail)).err == "link sent\n"
    await ok(cli, *mail, "--password-email", "b@example.org", "--expires", SOON)
    assert [one.management_type for one in cloud_archive.cloud.mails] == [20, 36]

    cli.environment["POSTDICOM_SHARE_PASSWORD"] = CANARIES["password"]
    open_to_all = await cli.here("cloud", *link)
    assert (open_to_all.code, open_to_all.out) == (2, "")
    assert "no password for links to orders" in open_to_all.error_line
    assert cloud_archive.cloud.executed[17, 21] == 1
    assert "is not used" in (await cli.here("cloud", *mail)).err
    assert (await cli.here("cloud", *mail, "--quiet")).err == ""


async def test_links_to_the_viewer(cloud_cli: Cli, cloud_archive: Any, order: str, folder: str) -> None:
    patient = ["view", "patient", "--patient-name", "TEST^FILE"]
    for words in (
        ["view", "order", "--patient-order-uuid", order],
        patient,
        [*patient, "--patient-birthdate", "1970-01-01"],
        ["view", "folder", "--folder-uuid", folder],
    ):
        ran = await cloud_cli.here("cloud", *words)
        assert ran.out.startswith(cloud_archive.url)
        assert ran.err == "works only from the IP address that asked for it\n"
    cloud_archive.cloud.oddities.envelope = answering({"Success": True})
    ran = await cloud_cli.here("cloud", *patient)
    assert (ran.code, ran.json) == (1, {"Success": True})
    assert ran.error_line == "error: the service answered, but the answer holds no address; it is on standard output"
    ran = await cloud_cli.here("cloud", *patient, "--json")
    assert (ran.code, ran.json["answer"], ran.json["ok"]) == (1, {"Success": True}, False)


# --- mistakes and refusals ------------------------------------------------------------------------------------------


def answering(message: dict[str, Any]) -> Any:
    """Return an oddity: general requests are answered with this, the opening of a session as ever."""
    return lambda key, envelope: {**envelope, "ResponseMessage": message} if key[0] == 17 else envelope


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["orders"], "Missing command"),
        (["orders", "create"], "--patient-name"),
        (["orders", "show", "--institution-uuid", "South", "--patient-order-uuid", "x"], "--patient-order-uuid: not"),
        (["orders", "search", "--study-date-from", "1.1.2024"], "--study-date-from: give a date"),
        (["orders", "search", "--institution-uuids", "South"], "--institution-uuids: not a UUID"),
        (
            ["orders", "search", "--study-date-from", "2024-01-01", "--patient-birthdate-to", "2000-01-01"],
            "--study-date-from: the Cloud API searches by study dates or by birth dates",
        ),
        (["orders", "create", *ORDER], "--institution-uuid: the account has 2"),
        (["orders", "create", *ORDER, "--institution-uuid", "Nowhere"], "--institution-uuid: not in the account"),
        (["users", "list", "--user", "nobody"], "--user: not in the account"),
        (["users", "list", "--user", ""], "--user: the account has 2"),
        (["share", "email", "--patient-order-uuids", NOBODY, "--email", "x"], "--email: not an e-mail address"),
        (["share", "link", "--patient-order-uuids", NOBODY, "--expires", "2001-01-01"], "--expires: the date is in"),
        (["folders", "share", "--folder-uuid", NOBODY], "--expires"),
        (["flags", "set", "--patient-order-uuid", NOBODY, "--group-id", "x", "--flag-id", "1"], "--group-id"),
        (["view", "patient", "--patient-name", " "], "--patient-name: "),
        (["orders", "search", "--url", "http://127.0.0.1:1"], "No such option"),
        (["orders", "search", "--api-key", NOBODY], "No such option"),
    ],
)
async def test_usage(cloud_cli: Cli, cloud_archive: Any, arguments: list[str], words: str) -> None:
    ran = await cloud_cli.here("cloud", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.error_line
    assert not [frame for frame in cloud_archive.cloud.frames if frame.message_type == 17]


async def test_refusals_are_one_line(cloud_cli: Cli) -> None:
    for words in (
        ["orders", "delete", "--yes", "--institution-uuid", "North", "--patient-order-uuid", NOBODY],
        ["folders", "contents", "--folder-uuid", NOBODY],
        ["view", "order", "--patient-order-uuid", NOBODY],
        ["folders", "search", "--parent-folder-uuid", NOBODY],
    ):
        ran = await cloud_cli.here("cloud", *words)
        assert (ran.code, ran.out) == (1, "")
        assert "the service said no (server says: no such" in ran.error_line


async def test_an_unknown_outcome_is_one_line(cloud_cli: Cli, cloud_archive: Any) -> None:
    cloud_archive.cloud.oddities.drops.append(Drop("after", (17, 2)))
    ran = await cloud_cli.here("cloud", "folders", "create", "--name", "a")
    assert (ran.code, ran.out) == (1, "")
    assert "outcome unknown" in ran.error_line
    assert (await cloud_cli.here("cloud", "folders", "search")).err == "1 folder\n"


async def test_no_canary_in_any_output(cloud_cli: Cli, cloud_archive: Any) -> None:
    told = " ".join(CANARIES[name] for name in ("patient_name", "patient_id", "password"))
    oddities = cloud_archive.cloud.oddities
    oddities.refused = {(17, 1): 1, (17, 15): 1}
    oddities.refusal_text = f"unknown: {told} {cloud_archive.cloud_api_key} {cloud_archive.cloud_account_key}"
    cloud_cli.environment["POSTDICOM_SHARE_PASSWORD"] = CANARIES["password"]
    search = ["--patient-name", CANARIES["patient_name"], "--patient-id", CANARIES["patient_id"]]
    share = ["--folder-uuid", NOBODY, "--title", CANARIES["patient_name"], "--expires", SOON]
    watch = CanaryWatch({name: CANARIES[name] for name in ("patient_name", "patient_id")})
    searched = await cloud_cli.here("cloud", "orders", "search", *search)
    watch.feed_text(searched.out + searched.err)
    shared = await cloud_cli.here("cloud", "folders", "share", *share)
    assert CANARIES["password"] not in shared.error_line
    for ran in (searched, shared):
        assert ran.code == 1
        assert "server says: unknown" in ran.error_line
        assert cloud_archive.cloud_api_key not in ran.err
        assert cloud_archive.cloud_account_key not in ran.err
    watch.assert_clean()


async def test_hostile_answers_are_shown_as_text(cloud_cli: Cli, cloud_archive: Any) -> None:
    item = {"Name": "Evil\x1b[31m^[red]B[/red]\u202e", "Deep": [{"a": "\x9b"}], "\x1b[2J": "x"}
    cloud_archive.cloud.oddities.envelope = answering({"NodeList": [item]})
    for words in (["nodes", "list"], ["nodes", "list", "--json"], ["flags", "list"]):
        ran = await cloud_cli.here("cloud", *words)
        assert ran.code == 0
        assert not {char for char in ran.out + ran.err if not char.isprintable() and char != "\n"}
        assert "[red]B[/red]" in ran.out


async def test_deleting_asks_first(cloud_cli: Cli, cloud_archive: Any, order: str, folder: str) -> None:
    delete_order = ["cloud", "orders", "delete", "--institution-uuid", "North", "--patient-order-uuid", order]
    delete_folder = ["cloud", "folders", "delete", "--folder-uuid", folder]
    for words in (delete_order, delete_folder):
        ran = await cloud_cli.here(*words)
        assert (ran.code, ran.out) == (2, "")
        assert "--yes" in ran.error_line
    no, yes = await asyncio.gather(
        _on_a_terminal(cloud_cli, delete_order, [(b"to the recycle bin? [y/N] ", b"\n")]),
        _on_a_terminal(cloud_cli, delete_folder, [(b"[y/N] ", b"y\n")]),
    )
    assert (no[0], yes[0]) == (1, 0)
    assert (cloud_archive.cloud.executed[17, 6], cloud_archive.cloud.executed[17, 4]) == (0, 1)
