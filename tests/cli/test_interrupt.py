"""Ctrl-C: code 130, one line, nothing half-written; a second one ends at once."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from tests.cli.conftest import Cli, ended
from tests.support.bodies import multipart_related
from tests.support.canaries import CANARIES
from tests.support.dicom_files import small_dicom, uid
from tests.support.exchange import Reply, Request
from tests.support.faulty_server import FaultyServer

DICOM_JSON = {"Content-Type": "application/dicom+json"}


async def test_during_an_upload(cli: Cli, study_folder: Path) -> None:
    cli.environment |= {"POSTDICOM_USERNAME": "u", "POSTDICOM_PASSWORD": CANARIES["password"]}
    async with FaultyServer(Reply(silent=True)) as server:
        process = await cli.start("upload", study_folder, "--json", "--url", server.url)
        await server.until(lambda one: bool(one.requests), timeout=20)
        assert CANARIES["password"] not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(signal.SIGINT)
        ran = await ended(process)
    assert ran.code == 130
    assert ran.err.splitlines() == ["stopping; Ctrl-C again ends at once", "error: interrupted"]
    assert ran.json["ok"] is False
    assert CANARIES["password"] not in ran.out + ran.err


async def test_during_a_download(cli: Cli, tmp_path: Path) -> None:
    """What arrived whole stays, of what did not nothing is left, not even a partial file."""
    files = [small_dicom(uid(1), uid(1, 1), uid(1, 1, number), pixel_bytes=300_000) for number in (1, 2)]
    multipart = multipart_related(files)

    def answer(request: Request) -> Reply:
        if request.path == "/studies" or request.path.endswith("/instances"):
            return Reply(204)
        return multipart.reply(stall_after=len(files[0]) + 150_000)

    to = tmp_path / "back"
    async with FaultyServer(answer) as server:
        process = await cli.start("download", "study", uid(1), "--to", to, "--url", server.url)
        while not list(to.rglob("*.dcm")):
            assert process.returncode is None
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        ran = await ended(process)
    assert ran.code == 130
    assert "before it ended: 1 saved" in ran.err
    assert ran.err.endswith("error: interrupted\n")
    assert [path.name for path in to.rglob("*") if path.is_file()] == [f"{uid(1, 1, 1)}.dcm"]
    assert next(to.rglob("*.dcm")).read_bytes() == files[0]


async def test_termination_ends_as_well(cli: Cli) -> None:
    async with FaultyServer(Reply(silent=True)) as server:
        process = await cli.start("search", "studies", "--url", server.url)
        await server.until(lambda one: bool(one.requests), timeout=20)
        process.send_signal(signal.SIGTERM)
        assert (await ended(process)).code == 143


STUBBORN = """
import asyncio
from postdicom_async.cli.loop import run_async

async def stubborn():
    print("running", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaning", flush=True)
        await asyncio.sleep(60)

run_async(stubborn)
"""


async def test_second_time_ends_at_once(cli: Cli) -> None:
    process = await cli.start(code=STUBBORN)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"running\n"
    process.send_signal(signal.SIGINT)
    assert await process.stdout.readline() == b"cleaning\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    assert time.monotonic() - started < 5
