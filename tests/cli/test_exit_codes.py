"""Every exit code, by what ends in it: the same failure ends the same way whatever the command does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.cli import paths
from postdicom_async.cli.exits import Exit
from tests.cli.conftest import Cli, Ran, ended
from tests.cli.test_failures import _small_disk
from tests.faults.archive import MemoryArchive, related
from tests.support.bodies import stow_answer
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port

FILE = small_dicom(uid(9), uid(9, 1), uid(9, 1, 1))
Start = Callable[[Path], list[str | Path]]
COMMANDS: dict[str, Start] = {
    "upload": lambda folder: ["upload", folder / "one.dcm"],
    "download": lambda folder: ["download", "study", uid(9), "--to", folder / "back"],
    "search": lambda _: ["search", "studies"],
}


def require_one_line(ran: Ran, *, as_json: bool) -> None:
    """Whatever is not 0 says why in one line, and in the document for programs too."""
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ran.err
    assert ran.err.splitlines()[-1] == errors[0]
    if as_json:
        assert ran.json["ok"] is False
        assert ran.json["error"] == errors[0].removeprefix("error: ")


async def both_ways(cli: Cli, *arguments: str | Path) -> int:
    """Run a command for people and for programs; return the code, which is the same."""
    codes = []
    for as_json in (False, True):
        ran = await cli.here(*arguments, "--quiet", *(["--json"] if as_json else []))
        if ran.code:
            require_one_line(ran, as_json=as_json)
        elif as_json:
            assert (ran.json["ok"], ran.json["error"]) == (True, None)
        codes.append(ran.code)
    assert len(set(codes)) == 1
    return codes[0]


@contextlib.asynccontextmanager
async def answered(cli: Cli, answer: Any) -> AsyncIterator[FaultyServer]:
    async with FaultyServer(answer) as server:
        cli.environment["POSTDICOM_URL"] = server.url
        yield server


def test_all_codes_are_tested() -> None:
    tested = {int(name.split("_")[1]) for name in globals() if name.startswith("test_") and name[5].isdigit()}
    assert tested == set(map(int, Exit))


@pytest.mark.parametrize("command", COMMANDS)
async def test_0_all_done(command: str, cli_with_archive: Cli, one_file: Path) -> None:
    await cli_with_archive.here("upload", one_file)
    assert await both_ways(cli_with_archive, *COMMANDS[command](one_file.parent)) == Exit.OK


@pytest.mark.parametrize("kind", ["empty", "no DICOM"])
async def test_0_nothing_to_upload(kind: str, cli_with_archive: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind != "empty":
        (folder / "notes.txt").write_text("nothing")
    ran = await cli_with_archive.here("upload", folder, "--json")
    assert (ran.code, ran.json["ok"]) == (Exit.OK, True)


REFUSED: dict[str, Callable[[Request], Reply]] = {
    "upload": lambda _: Reply(
        409, {"Content-Type": "application/dicom+json"}, stow_answer(failed=[(uid(9, 1, 1), 0xA900)])
    ),
    "download": lambda request: related([FILE, small_dicom()]).reply() if "." in request.path[-3:] else Reply(404),
    "search": lambda _: Reply(400),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_1_some_items_failed(command: str, cli: Cli, one_file: Path) -> None:
    async with answered(cli, REFUSED[command]):
        assert await both_ways(cli, *COMMANDS[command](one_file.parent)) == Exit.ITEMS_FAILED


@pytest.mark.parametrize("command", COMMANDS)
async def test_2_usage(command: str, cli: Cli, one_file: Path) -> None:
    arguments = COMMANDS[command](one_file.parent)
    assert await both_ways(cli, *arguments) == Exit.USAGE  # no address
    assert await both_ways(cli, *arguments, "--url", "http://127.0.0.1:1", "--attempts", "none") == Exit.USAGE


@pytest.mark.parametrize("command", COMMANDS)
async def test_3_not_found(command: str, cli: Cli, one_file: Path) -> None:
    async with answered(cli, Reply(404)):
        assert await both_ways(cli, *COMMANDS[command](one_file.parent)) == Exit.NOT_FOUND


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("status", [401, 403])
async def test_4_authentication(status: int, command: str, cli: Cli, one_file: Path) -> None:
    async with answered(cli, Reply(status)):
        assert await both_ways(cli, *COMMANDS[command](one_file.parent)) == Exit.AUTHENTICATION


TEMPORARY: dict[str, Reply] = {
    "503": Reply(503),
    "429": Reply(429, {"Retry-After": "9999"}),
    "500": Reply(500),
    "502": Reply(502),
    "no answer": Reply(drop_after_request=True),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("failure", TEMPORARY)
async def test_5_temporary(failure: str, command: str, cli: Cli, one_file: Path) -> None:
    """Also an upload whose answer was lost: it ends with an outcome and not with an exception."""
    async with answered(cli, TEMPORARY[failure]):
        arguments = [*COMMANDS[command](one_file.parent), "--attempts", "1"]
        assert await both_ways(cli, *arguments) == Exit.TEMPORARY


@pytest.mark.parametrize("command", COMMANDS)
async def test_5_nobody_there(command: str, cli: Cli, one_file: Path) -> None:
    cli.environment["POSTDICOM_URL"] = f"http://127.0.0.1:{unused_port()}"
    assert await both_ways(cli, *COMMANDS[command](one_file.parent), "--attempts", "1") == Exit.TEMPORARY


async def test_6_what_is_verified_differs(cli: Cli, one_file: Path, tmp_path: Path) -> None:
    cli.environment["POSTDICOM_STATE"] = str(tmp_path / "state")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    one_file.rename(tmp_path / "in" / "one.dcm")
    assert await both_ways(cli, "verify", tmp_path / "in", tmp_path / "out") == Exit.VERIFICATION


async def test_7_a_ledger_is_none(cli: Cli, one_file: Path, tmp_path: Path) -> None:
    cli.environment["POSTDICOM_STATE"] = str(tmp_path / "state")
    (tmp_path / "in").mkdir()
    one_file.rename(tmp_path / "in" / "one.dcm")
    (tmp_path / "letter").write_text("not a ledger")
    arguments: list[str | Path] = ["copy", tmp_path / "in", tmp_path / "out", "--job", tmp_path / "letter"]
    assert await both_ways(cli, *arguments) == Exit.LEDGER
    assert (tmp_path / "letter").read_text() == "not a ledger"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_8_no_space_for_files(cli_with_archive: Cli, tmp_path: Path) -> None:
    large = tmp_path / "large.dcm"
    large.write_bytes(small_dicom(uid(9), uid(9, 1), uid(9, 1, 1), pixel_bytes=100_000))
    await cli_with_archive.here("upload", large)
    with _small_disk(tmp_path / "disk") as to:
        assert await both_ways(cli_with_archive, "download", "study", uid(9), "--to", to) == Exit.LIMIT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", COMMANDS)
async def test_8_no_space_for_the_output(command: str, cli_with_archive: Cli, one_file: Path) -> None:
    await cli_with_archive.here("upload", one_file)
    with Path("/dev/full").open("wb") as full:
        ran = await cli_with_archive(*COMMANDS[command](one_file.parent), "--json", stdout=full)
    assert ran.code == Exit.LIMIT
    require_one_line(ran, as_json=False)


@pytest.mark.parametrize("command", COMMANDS)
async def test_9_nothing_to_do(command: str, cli_with_archive: Cli, one_file: Path) -> None:
    """Nothing found, nothing to send, nothing that is not there already."""
    cli, folder = cli_with_archive, one_file.parent
    arguments = COMMANDS[command](folder)
    if command == "upload":
        one_file.write_bytes(b"no DICOM")
    elif command == "download":
        await cli.here("upload", one_file)
        await cli.here(*arguments)
    assert await both_ways(cli, *arguments) == Exit.OK
    assert await both_ways(cli, *arguments, "--error-if-nothing") == Exit.NOTHING


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_130_interrupted(number: int, code: int, cli: Cli, one_file: Path) -> None:
    """And 143, as 128 and the number of the signal, where the system asks for the end."""
    async with FaultyServer(Reply(silent=True)) as server:
        process = await cli.start("search", "studies", "--json", "--url", server.url)
        await server.until(lambda it: it.in_flight > 0, timeout=20)
        process.send_signal(number)
        ran = await ended(process)
    assert ran.code == code
    assert (ran.json["ok"], ran.json["error"]) == (False, "interrupted")


# --- sources that are not there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["upload", "scan"])
async def test_a_disk_that_is_not_mounted_is_never_nothing(
    command: str, cli_with_archive: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mount point is an empty folder."""
    point = tmp_path / "the archive"
    (point / "below").mkdir(parents=True)
    table = tmp_path / "fstab"
    table.write_text(f"# a comment\n\nserver:/x {str(point).replace(' ', chr(92) + '040')} nfs ro 0 0\n")
    monkeypatch.setattr(paths, "_MOUNTS", table)
    for path in (point, point / "below"):
        ran = await cli_with_archive.here(command, path)
        assert ran.code == Exit.USAGE
        assert "is not mounted" in ran.error_line
    monkeypatch.setattr(paths, "_MOUNTS", tmp_path / "no such table")
    assert (await cli_with_archive.here(command, point)).code == Exit.OK


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_a_disk_that_is_mounted_is_read(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "fstab"
    table.write_text(f"tmpfs {tmp_path / 'disk'} tmpfs defaults 0 0\n")
    monkeypatch.setattr(paths, "_MOUNTS", table)
    with _small_disk(tmp_path / "disk") as disk:
        (disk / "one").write_bytes(small_dicom())
        assert (await cli.here("scan", disk)).code == Exit.OK
    assert subprocess.run(["mountpoint", "-q", str(disk)], check=False).returncode


async def test_an_upload_that_a_repeat_cannot_help_is_not_temporary(cli: Cli, tmp_path: Path) -> None:
    """One is refused for what it is, of the other the answer was lost."""
    folder = tmp_path / "two"
    folder.mkdir()
    other = small_dicom(uid(9), uid(9, 1), uid(9, 1, 2))
    for name, data in (("1", FILE), ("2", other)):
        (folder / name).write_bytes(data)
    refused = stow_answer(failed=[(uid(9, 1, 2), 0xA900)])
    archive = MemoryArchive(
        fault=lambda request: (
            Reply(202, {"Content-Type": "application/dicom+json"}, refused) if request.method == "POST" else Reply(500)
        )
    )
    async with answered(cli, archive):
        assert await both_ways(cli, "upload", folder, "--attempts", "1") == Exit.ITEMS_FAILED
