"""``postdicom orders``, ``folders`` and ``share`` against the embedded archive."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import NO_KEYRING, Cli
from tests.cli.test_password import _read_until
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid
from tests.support.exchange import Reply
from tests.support.faulty_server import FaultyServer

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def order(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> list[str]:
    """Give an order with images, as the options that name it."""
    path = tmp_path / "one.dcm"
    path.write_bytes(small_dicom(uid(9), uid(9, 1), uid(9, 1, 1), patient_name="Müller^Jürgen"))
    await embedded_archive.add([path])
    institution, uuid = embedded_archive.institution_uuid, embedded_archive.order_uuid(uid(9))
    return ["--institution-uuid", institution, "--patient-order-uuid", uuid]


async def test_orders_from_first_to_last(cli_with_archive: Cli, embedded_archive: Any) -> None:
    cli, institution = cli_with_archive, embedded_archive.institution_uuid
    new = {
        "institution-uuid": institution, "patient-name": "山田^太郎", "patient-id": "A-1",
        "patient-birthdate": "1970-01-31", "modality": "CT", "other-patient-id": "A-2", "patient-sex": "M",
        "study-description": "Head", "accession-number": "ACC", "patient-complaints": "pain",
        "order-scheduled-datetime": "2031-02-03 04:05", "requested-procedure-id": "P",
        "requested-procedure-description": "Plain", "requesting-physician": "House^G",
        "referring-physicians-name": "Wilson^J", "scheduled-equipment-uuid": NOBODY,
    }  # fmt: skip
    made = await cli.here("orders", "create", *(word for name, value in new.items() for word in (f"--{name}", value)))
    assert made.code == 0
    assert made.err == "order made\n"
    sent = dict(embedded_archive.vendor_calls[-1].parameters)
    assert sent["PatientName"] == "山田^太郎"
    assert sent["ScheduledEquipmentUuid"] == NOBODY
    assert len([value for value in sent.values() if value]) == len(new)

    wanted = ["--patient-name", "山田*", "--modalities", "CT", "--modalities", "MR", "--institution-uuids", institution]
    wanted += ["--study-date-from", "2031-02-01", "--study-date-to", "2031-02-28", "--patient-id", "A-1"]
    wanted += ["--other-patient-id", "A-2", "--accession-number", "ACC"]
    wanted += ["--patient-birthdate-from", "1970-01-31", "--patient-birthdate-to", "1970-01-31"]
    found = await cli.here("orders", "search", *wanted)
    assert made.out.strip() in found.out
    assert "山田^太郎" in found.out
    assert found.err == "1 order\n"
    raw = (await cli.here("orders", "search", "--json", *wanted)).told
    assert [one["PatientOrderUuid"] for one in raw] == [made.out.strip()]

    names = ["--institution-uuid", institution, "--patient-order-uuid", made.out.strip()]
    shown = await cli.here("orders", "show", *names)
    assert "Plain" in shown.out
    assert (await cli.here("orders", "show", "--json", *names)).told["PatientId"] == "A-1"
    assert (await cli.here("orders", "delete", "--yes", *names)).err == "order deleted\n"
    gone = await cli.here("orders", "show", *names)
    assert (gone.code, gone.out) == (3, "")
    assert (await cli.here("orders", "search", *wanted)).err == "nothing matches\n"


async def test_assign(cli_with_archive: Cli, embedded_archive: Any, order: list[str]) -> None:
    cli, one = cli_with_archive, order[2:]
    assert (await cli.here("orders", "assign", *one, "--user-uuid", embedded_archive.user_uuid)).code == 0
    group = await cli.here("orders", "assign", *one, "--user-group-uuid", embedded_archive.user_group_uuid, "--json")
    assert group.told["Success"] is True
    for wrong in ([], ["--user-uuid", NOBODY, "--user-group-uuid", NOBODY]):
        assert (await cli.here("orders", "assign", *one, *wrong)).code == 2


async def test_tags(cli_with_archive: Cli, embedded_archive: Any, order: list[str]) -> None:
    series = ["--series-uuid", embedded_archive.series_uuid(uid(9), uid(9, 1))]
    shown = await cli_with_archive.here("orders", "tags", *order, *series, "--tags", "00100010", "--tags", "00080060")
    assert "Müller^Jürgen" in shown.out
    assert shown.err == "2 tags\n"
    raw = (await cli_with_archive.here("orders", "tags", *order, "--tags", "00100010", "--json")).told
    assert raw[0]["DicomTagList"][0]["Value"] == "Müller^Jürgen"


async def test_folders(cli_with_archive: Cli, embedded_archive: Any, order: list[str]) -> None:
    cli = cli_with_archive
    made = await cli.here("folders", "create", "--name", "Łódź", "--description", "for the conference")
    assert made.code == 0
    below = await cli.here("folders", "create", "--name", "b", "--parent-folder-uuid", made.out.strip(), "--json")
    assert below.told["ParentFolderUuid"] == made.out.strip()
    added = await cli.here("folders", "add-order", *order[2:], "--folder-uuids", made.out.strip())
    assert (added.code, added.out, added.err) == (0, "", "order added\n")
    found = await cli.here("folders", "search", "--name", "ód", "--with-orders")
    assert "Łódź" in found.out
    assert order[3] in found.out
    assert found.err == "1 folder\n1 order\n"
    raw = await cli.here("folders", "search", "--parent-folder-uuid", made.out.strip(), "--json")
    assert [one["FolderName"] for one in raw.told] == ["b"]
    link = await cli.here(
        "folders", "share", "--folder-uuid", made.out.strip(), "--title", "T", "--description", "D",
        "--expires", "2099-01-01", "--downloadable",
    )  # fmt: skip
    assert link.out.startswith(embedded_archive.url)
    assert "without a password" in link.err
    assert embedded_archive.vendor_calls[-1].parameters["ShareTitle"] == "T"


@pytest.mark.parametrize("operation", ["orders", "link"])
async def test_shares(cli_with_archive: Cli, embedded_archive: Any, order: list[str], operation: str) -> None:
    cli = cli_with_archive
    words = ["share", operation, "--patient-order-uuids", order[3], "--expires", "2099-01-01", "--downloadable"]
    cli.environment["POSTDICOM_SHARE_PASSWORD"] = CANARIES["password"]
    made = await cli.here(*words)
    assert made.code == 0
    assert made.out.startswith(embedded_archive.url)
    assert made.err == ""
    assert embedded_archive.vendor_calls[-1].parameters["SharePassword"] == CANARIES["password"]
    cli.environment["POSTDICOM_SHARE_PASSWORD"] = ""
    empty = await cli.here(*words)
    assert empty.code == 2
    assert "POSTDICOM_SHARE_PASSWORD is empty" in empty.error_line
    del cli.environment["POSTDICOM_SHARE_PASSWORD"]
    assert (await cli.here(*words, "--json")).told["Result"].startswith(embedded_archive.url)
    asked = await cli.here(*words, "--with-password")
    assert asked.code == 2
    assert "--with-password" in asked.error_line
    assert (await cli.here(*words, "--password", "x")).code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["orders", "create"], "--institution-uuid"),
        (["orders"], "Missing command"),
        (["orders", "show", "--institution-uuid", "x", "--patient-order-uuid", NOBODY], "--institution-uuid: not a UU"),
        (["orders", "search", "--study-date-from", "1.1.2024"], "--study-date-from: give a date"),
        (["orders", "search", "--modalities", " "], "--modalities: "),
        (["folders", "create", "--name", " "], "--name: "),
        (["share", "link", "--patient-order-uuids", NOBODY, "--expires", "2001-01-01"], "--expires: "),
        (["orders", "search", "--dialect", "postdicom"], "No such option"),
    ],
)
async def test_usage(cli: Cli, arguments: list[str], words: str) -> None:
    cli.environment |= {"POSTDICOM_URL": "http://127.0.0.1:1", "POSTDICOM_USERNAME": "u", "POSTDICOM_PASSWORD": "p"}
    ran = await cli.here(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.error_line


async def test_they_ask_for_a_user(cli: Cli) -> None:
    cli.environment |= {"POSTDICOM_URL": "http://127.0.0.1:1", "POSTDICOM_TOKEN": "abc"}
    ran = await cli.here("folders", "search")
    assert ran.code == 2
    assert "--username" in ran.error_line


async def test_an_unknown_outcome_is_one_line(cli_with_archive: Cli, embedded_archive: Any) -> None:
    embedded_archive.fault("createfolder", "cut-after")
    ran = await cli_with_archive.here("folders", "create", "--name", "a")
    assert (ran.code, ran.out) == (1, "")
    assert "outcome unknown" in ran.error_line
    assert "search for it before doing it again" in ran.error_line
    assert (await cli_with_archive.here("folders", "search")).err == "1 folder\n"


async def test_answers_in_plain_text(cli: Cli) -> None:
    cli.environment |= {"POSTDICOM_USERNAME": "u", "POSTDICOM_PASSWORD": "p"}
    share = ["share", "link", "--patient-order-uuids", NOBODY, "--expires", "2099-01-01"]
    cases = [
        (b"Success", ["folders", "create", "--name", "a"], (1, "", "error: create folder: outcome unknown")),
        (NOBODY.encode(), ["folders", "create", "--name", "a"], (0, f"{NOBODY}\n", "folder made\n")),
        (b"Success", share, (1, '"Success"\n', "error: shared, but")),
        (b"see https://x.example/1.", share, (0, "https://x.example/1\n", "without a password")),
        (b"\x1b[31m", ["orders", "show", "--institution-uuid", NOBODY, "--patient-order-uuid", NOBODY],
         (0, '"\\u001b[31m"\n', "")),
    ]  # fmt: skip
    for body, arguments, (code, out, err) in cases:
        async with FaultyServer(Reply(200, body=body)) as server:
            ran = await cli.here(*arguments, "--url", server.url)
        assert (ran.code, ran.out) == (code, out)
        assert ran.err.startswith(err)


async def test_hostile_orders_are_shown_as_text(cli: Cli) -> None:
    cli.environment |= {"POSTDICOM_USERNAME": "u", "POSTDICOM_PASSWORD": "p"}
    order = {"PatientName": "Evil\x1b[31m^[red]B[/red]\u202e", "PatientOrderUuid": NOBODY, "Deep": [{"a": "\x9b"}]}
    async with FaultyServer(Reply(200, body=json.dumps({"PatientOrderList": [order]}).encode())) as server:
        found = await cli.here("orders", "search", "--url", server.url)
        names = ["--institution-uuid", NOBODY, "--patient-order-uuid", NOBODY]
        shown = await cli.here("orders", "show", *names, "--url", server.url)
    assert "[red]B[/red]" in found.out
    for ran in (found, shown):
        assert ran.code == 0
        assert not {char for char in ran.out + ran.err if not char.isprintable() and char != "\n"}


async def test_no_canary_in_any_output(cli: Cli) -> None:
    cli.environment |= {"POSTDICOM_USERNAME": CANARIES["username"], "POSTDICOM_PASSWORD": CANARIES["password"]}
    cli.environment["POSTDICOM_SHARE_PASSWORD"] = CANARIES["token"]
    search = ["orders", "search", "--patient-name", CANARIES["patient_name"], "--patient-id", CANARIES["patient_id"]]
    share = ["share", "orders", "--patient-order-uuids", NOBODY, "--expires", "2099-01-01"]
    watch = CanaryWatch()
    for arguments, names in ((search, ("patient_name", "patient_id", "username")), (share, ("token", "password"))):
        said = {"X-Error-Reason": " ".join(CANARIES[name] for name in names)}
        async with FaultyServer(Reply(400, headers=said)) as server:
            ran = await cli.here(*arguments, "--url", server.url)
        assert ran.code == 1
        assert ran.error_line
        watch.feed_text(ran.out + ran.err)
    watch.assert_clean()


# --- on a terminal --------------------------------------------------------------------------------------------------


async def _on_a_terminal(cli: Cli, arguments: list[str], talk: list[tuple[bytes, bytes]]) -> tuple[int, str]:
    """Run the command with a terminal as input and standard error, and say what is to be said."""
    terminal, other_end = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "postdicom_async.cli", *arguments, stdin=other_end, stdout=subprocess.PIPE,
        stderr=other_end, env={**os.environ, **NO_KEYRING, **cli.environment}, start_new_session=True,
    )  # fmt: skip
    os.close(other_end)
    for words, said in talk:
        await asyncio.to_thread(_read_until, terminal, words)
        await asyncio.sleep(0.1)
        os.write(terminal, said)
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    os.close(terminal)
    return process.returncode or 0, out.decode()


async def test_delete_asks_first(cli_with_archive: Cli, embedded_archive: Any, order: list[str]) -> None:
    cli = cli_with_archive
    ran = await cli.here("orders", "delete", *order)
    assert (ran.code, ran.out) == (2, "")
    assert "--yes" in ran.error_line
    no, yes = await asyncio.gather(
        _on_a_terminal(cli, ["orders", "delete", *order], [(b"[y/N] ", b"\n")]),
        _on_a_terminal(cli, ["orders", "delete", order[0], NOBODY, *order[2:]], [(b"[y/N] ", b"y\n")]),
    )
    assert (no[0], yes[0]) == (1, 3)
    assert [call.operation for call in embedded_archive.vendor_calls] == ["deleteorder"]
    assert (await cli.here("orders", "show", *order)).code == 0


async def test_a_password_is_asked_for_twice(cli_with_archive: Cli, embedded_archive: Any, order: list[str]) -> None:
    words = ["share", "link", "--patient-order-uuids", order[3], "--expires", "2099-01-01", "--with-password"]
    ask, again = b"Password of the link: ", b"Once more: "
    same, other = await asyncio.gather(
        _on_a_terminal(cli_with_archive, words, [(ask, b"typed\n"), (again, b"typed\n")]),
        _on_a_terminal(cli_with_archive, words, [(ask, b"typed\n"), (again, b"types\n")]),
    )
    assert (same[0], other) == (0, (2, ""))
    assert same[1].startswith(embedded_archive.url)
    assert [call.parameters["SharePassword"] for call in embedded_archive.vendor_calls] == ["typed"]
