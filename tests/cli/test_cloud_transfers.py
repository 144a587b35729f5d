"""``postdicom cloud upload`` and ``documents`` against the embedded archive."""

from __future__ import annotations

import asyncio
import io
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pydicom
import pytest

from postdicom_async.emulator.cloud.oddities import HttpAnswer
from tests.cli.conftest import Cli, ended
from tests.cli.test_operations import NOBODY
from tests.cloud.conftest import COLLEAGUE, INSTITUTION, OTHER, USER
from tests.cloud.files import dicom_of_size, held_by, study_in
from tests.support.dicom_files import study_files, uid

PART = (23, 3)
NORTH = ["--institution-uuid", "north"]
ONCE = ["--attempts", "1"]
SECRET = "POSTDICOM_ANONYMIZE_SECRET"


async def orders_in(cli: Cli, folder: str) -> list[str]:
    found = await cli.here("cloud", "orders", "in-folder", "--folder-uuid", folder, "--json")
    return [order["PatientOrderUuid"] for order in found.told]


@pytest.fixture
async def folder(cloud_cli: Cli) -> str:
    return (await cloud_cli.here("cloud", "folders", "create", "--name", "a")).out.strip()


async def test_into_a_folder(cloud_cli: Cli, cloud_archive: Any, study_folder: Path, folder: str) -> None:
    order = cloud_archive.order_uuid(uid(1))
    ran = await cloud_cli("cloud", "upload", study_folder, *NORTH, "--folder", folder, "--sockets", "2", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["ok"] is True
    assert ran.json["error"] is None
    assert ran.json["summary"]["stored"] == 6
    assert ran.json["summary"]["not DICOM"] == 1
    assert ran.json["patient_order_uuids"] == [order]
    first = next(item for item in ran.json["items"] if item["status"] == "stored")
    assert Path(first["source"]).name == f"{first['sop_instance_uid']}.dcm"
    assert held_by(cloud_archive) == study_files(6, series=2)
    assert await orders_in(cloud_cli, folder) == [order]
    (announced,) = cloud_archive.cloud.sent((23, 1))
    assert announced.parameters["InstitutionUuid"] == INSTITUTION
    assert len(cloud_archive.cloud.sent((3, 2))) == 2


async def test_what_is_there_is_skipped_or_sent(cloud_cli: Cli, cloud_archive: Any, tmp_path: Path) -> None:
    study_in(tmp_path / "study", 3)
    upload = ["cloud", "upload", str(tmp_path / "study"), "--institution-uuid", OTHER]
    assert (await cloud_cli.here(*upload, "--quiet")).out == ""
    again = await cloud_cli.here(*upload)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("3 present; 0 B in ")
    assert again.out.splitlines()[1:] == [f"patient order {cloud_archive.order_uuid(uid(1))}"]
    sent = await cloud_cli.here(*upload, "--existing", "send", "--json")
    assert sent.json["summary"]["stored"] == 3
    assert cloud_archive.cloud.executed[PART] == 6


async def test_anonymised(cloud_cli: Cli, cloud_archive: Any, study_folder: Path) -> None:
    rules = ["--anonymize-profile", "vendor", "--anonymize", "PatientName=ANON^1", "--anonymize", "PatientBirthDate-"]
    ran = await cloud_cli.here("cloud", "upload", study_folder, *NORTH, *rules)
    assert ran.code == 0
    held = [pydicom.dcmread(io.BytesIO(content)) for content in held_by(cloud_archive).values()]
    assert len(held) == 6
    assert {str(dataset.PatientName) for dataset in held} == {"ANON^1"}
    assert not [dataset for dataset in held if "PatientBirthDate" in dataset]
    assert not [content for content in held_by(cloud_archive).values() if b"TEST^FILE" in content]
    bad = await cloud_cli.here("cloud", "upload", study_folder, *NORTH, "--anonymize", "PatientName")
    assert bad.code == 2
    assert "--anonymize: write TAG=VALUE" in bad.error_line


async def test_some_failed(cloud_cli: Cli, cloud_archive: Any, tmp_path: Path) -> None:
    study_in(tmp_path / "study", 3)
    upload = ["cloud", "upload", str(tmp_path / "study"), *NORTH, "--sockets", "1", *ONCE]
    cloud_archive.cloud.oddities.refused[PART] = 1
    ran = await cloud_cli.here(*upload)
    assert ran.code == 1
    assert ran.out.startswith(("1 failed, 2 stored; ", "2 stored, 1 failed; "))
    assert ran.err.startswith(str(tmp_path / "study"))
    assert ": failed: this refusal was asked for" in ran.err
    cloud_archive.cloud.oddities.refused[PART] = 1
    raw = await cloud_cli.here(*upload, "--existing", "send", "--json")
    assert (raw.code, raw.json["ok"], raw.json["summary"]["failed"]) == (1, False, 1)


async def test_an_upload_that_is_refused(cloud_cli: Cli, cloud_archive: Any, one_file: Path) -> None:
    cloud_archive.cloud.oddities.refused[23, 1] = 99
    ran = await cloud_cli.here("cloud", "upload", one_file, *NORTH)
    assert (ran.code, ran.out) == (1, "")
    assert "the service refused the upload (server says: this refusal was asked for" in ran.error_line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["upload", "study/notes.txt", *NORTH], "nothing to upload: none of 1 files is DICOM"),
        (["upload", "empty", *NORTH], "nothing to upload: no file was found"),
        (["documents", "empty", *NORTH, "--patient-order-uuid", NOBODY], "nothing to upload: no file was found"),
    ],
)
async def test_nothing_to_do(
    cloud_cli: Cli, study_folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(study_folder.parent)
    Path("empty").mkdir()
    ran = await cloud_cli.here("cloud", *arguments)
    assert (ran.code, ran.out, ran.err) == (0, "", f"{words}\n")
    if arguments[0] == "upload":
        ran = await cloud_cli.here("cloud", *arguments, "--error-if-nothing")
        assert (ran.code, ran.error_line) == (9, f"error: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["upload", "study"], "--institution-uuid: the account has 2"),
        (["upload", "study", "--institution-uuid", "Nowhere"], "--institution-uuid: not in the account"),
        (["upload", "study", "--institution-uuid", NOBODY], "--institution-uuid: not in the account"),
        (["upload", "study", *NORTH, "--folder", "a"], "--folder-uuid: not a UUID"),
        (["upload", "study", *NORTH, "--sockets", "65"], "--sockets: give a number from 1 to 64"),
        (["upload", "study", *NORTH, "--sockets", "0"], "--sockets"),
        (["upload", "study", *NORTH, "--existing", "keep"], "--existing"),
        (["upload", "missing", *NORTH], "missing: does not exist"),
        (["documents", "missing", "--patient-order-uuid", NOBODY], "missing: does not exist"),
        (["documents", "study/notes.txt", *NORTH], "--patient-order-uuid"),
        (["documents", "study/notes.txt", *NORTH, "--patient-order-uuid", "a"], "--patient-order-uuid: not a UUID"),
    ],
)
async def test_usage(
    cloud_cli: Cli,
    cloud_archive: Any,
    study_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    (study_folder.parent / "empty").mkdir()
    monkeypatch.chdir(study_folder.parent)
    ran = await cloud_cli.here("cloud", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.error_line
    assert not [frame for frame in cloud_archive.cloud.frames if frame.message_type == 23]


async def test_documents(cloud_cli: Cli, cloud_archive: Any, one_file: Path, tmp_path: Path) -> None:
    cli = cloud_cli
    await cli.here("cloud", "upload", one_file, *NORTH, "-q")
    order = cloud_archive.order_uuid(uid(9))
    report, photo, text = tmp_path / "Müller.pdf", tmp_path / "photo.png", tmp_path / "notes.pdf"
    report.write_bytes(b"%PDF-1.4 " + bytes(600_000))
    photo.write_bytes(b"\x89PNG\r\n\x1a\n")
    text.write_text("no PDF")
    attach = ["--patient-order-uuid", order, *NORTH]
    ran = await cli.here("cloud", "documents", report, photo, *attach)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("2 stored; 600.0 kB in ")
    held = cloud_archive.cloud.documents(order)
    assert [(one.name, one.path.read_bytes()) for one in held] == [
        ("Müller.pdf", report.read_bytes()),
        ("photo.png", photo.read_bytes()),
    ]
    mixed = await cli.here("cloud", "documents", text, photo, *attach, "--json")
    assert (mixed.code, mixed.err) == (1, "error: 1 of 2 files are not known to be stored\n")
    assert [item["status"] for item in mixed.json["items"]] == ["failed", "stored"]
    assert mixed.json["ok"] is False
    assert mixed.json["patient_order_uuids"] == [order]
    refused = await cli.here("cloud", "documents", photo, "--patient-order-uuid", NOBODY, *NORTH, *ONCE)
    assert refused.code == 1
    assert "photo.png: failed: " in refused.err


async def test_interrupted(cloud_cli: Cli, cloud_archive: Any, tmp_path: Path) -> None:
    study_in(tmp_path / "one", 40)
    study_in(tmp_path / "two", 40, study=2)
    cloud = cloud_archive.cloud
    cloud.oddities.latency = 0.1
    upload = ["cloud", "upload", *NORTH, "--sockets", "1"]
    told, raw = await asyncio.gather(
        cloud_cli.start(*upload, tmp_path / "one", cold=True),
        cloud_cli.start(*upload, tmp_path / "two", "--user", COLLEAGUE, "--existing", "send", "--json", cold=True),
    )
    async with asyncio.timeout(20):
        sent: Counter[str] = Counter()
        while min(sent[USER], sent[COLLEAGUE]) < 3:
            await asyncio.sleep(0.05)
            sent = Counter(part.parameters["UserUuid"] for part in cloud.sent(PART))
    for process in (told, raw):
        line = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert "upload" in line
        assert cloud_archive.cloud_api_key not in line
        assert cloud_archive.cloud_account_key not in line
        process.send_signal(signal.SIGINT)
    told_end, raw_end = await asyncio.gather(ended(told), ended(raw))
    assert (told_end.code, raw_end.code) == (130, 130)
    stopping, before, last = told_end.err.splitlines()
    assert (stopping, last) == ("stopping; Ctrl-C again ends at once", "error: interrupted")
    # What was under way left and was not answered.
    told_of = r"before it ended: \d+ stored(, 1 unconfirmed)?; the same command again sends only the rest"
    assert re.fullmatch(told_of, before)
    assert raw_end.json["ok"] is False
    assert raw_end.json["error"] == "interrupted"
    assert 0 < raw_end.json["summary"]["stored"] < 40
    (order,) = raw_end.json["patient_order_uuids"]
    stored = [item for item in raw_end.json["items"] if item["status"] == "stored"]
    assert {item["patient_order_uuid"] for item in stored} == {order}
    cloud.oddities.latency = 0
    await asyncio.sleep(0.2)
    rest = await cloud_cli.here(*upload, tmp_path / "one", "--json")
    assert (rest.code, rest.json["ok"]) == (0, True)
    assert rest.json["summary"]["present"] > 0
    assert len([one for one in held_by(cloud_archive) if one.startswith(uid(1) + ".")]) == 40


@pytest.mark.parametrize(
    ("options", "again"),
    [
        (["--anonymize", "PatientID=1"], "sends only the rest and fails for the others"),
        (["--anonymize", "PatientID=1", "--existing", "send"], "sends everything once more"),
        (["--anonymize-profile", "basic"], "sends everything once more under other UIDs, for want of " + SECRET),
        (["--anonymize-uids"], "sends everything once more under other UIDs, for want of " + SECRET),
    ],
)
async def test_what_the_same_command_again_would_do(
    cloud_cli: Cli, cloud_archive: Any, tmp_path: Path, options: list[str], again: str
) -> None:
    study_in(tmp_path / "study", 8)
    cloud = cloud_archive.cloud
    upload = ["cloud", "upload", str(tmp_path / "study"), *NORTH, *ONCE, "--sockets", "1", *options]

    async def interrupted() -> str:
        cloud.oddities.latency = 0.05
        before = len(cloud.sent(PART))
        running = await cloud_cli.start(*upload)
        async with asyncio.timeout(20):
            while len(cloud.sent(PART)) < before + 3:
                await asyncio.sleep(0.02)
        running.send_signal(signal.SIGINT)
        return (await ended(running)).err

    assert f"; the same command again {again}\n" in await interrupted()
    cloud.oddities.latency = 0
    if SECRET in again:
        cloud_cli.environment[SECRET] = "a secret of ours"
        assert "; the same command again sends only the rest\n" in await interrupted()
        cloud.oddities.latency = 0
        rest = await cloud_cli.here(*upload, "--json")
        assert rest.code == 0
        assert rest.json["summary"]["present"] >= 1
        assert rest.json["summary"]["present"] + rest.json["summary"]["stored"] == 8


@pytest.mark.parametrize("for_good", [False, True])
async def test_a_connection_that_drops(cloud_cli: Cli, cloud_archive: Any, tmp_path: Path, for_good: bool) -> None:
    (tmp_path / "study").mkdir()
    # Of one study, so that the second waits until the first was asked for, and follows it.
    (tmp_path / "study" / "one.dcm").write_bytes(dicom_of_size(2000, 1))
    (tmp_path / "study" / "two.dcm").write_bytes(dicom_of_size(10 << 20, 2))
    cloud = cloud_archive.cloud
    cloud.oddities.latency = 0.05
    upload = ["cloud", "upload", str(tmp_path / "study"), *NORTH, *ONCE, "--sockets", "1"]
    running = asyncio.gather(cloud_cli.here(*upload))
    async with asyncio.timeout(20):
        while cloud.executed[PART] < 4:
            await asyncio.sleep(0.02)
    if for_good:
        cloud.oddities.http["web-service"] = [HttpAnswer(503)] * 9
        cloud.forget_sessions()
    cloud.drop_sockets()
    (ran,) = await running
    if for_good:
        assert (ran.code, ran.out) == (5, "")
        before, last = ran.err.splitlines()
        assert before == "before it ended: 1 stored, 1 unconfirmed; the same command again sends only the rest"
        assert last.startswith("error: ")
    else:
        assert ran.code == 5
        assert ran.out.startswith("1 stored, 1 unconfirmed; ")
        assert ran.err.startswith(f"{tmp_path / 'study' / 'two.dcm'}: unconfirmed: ")
