"""Jobs that are begun wrongly, refused in the middle, or interrupted: one line, the right code, and they go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from postdicom_async import AuthenticationFailed, ConnectionFailed, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.pace import presets
from postdicom_async.jobs.states import State, reason_code
from postdicom_async.jobs.summary import Summary
from tests.cli.conftest import Cli, ended
from tests.faults.archive import is_search
from tests.faults.clients import FAST
from tests.jobs.faulty_archive import FaultyArchive
from tests.jobs.lying import adding_up, hurry
from tests.support.dicom_files import uid
from tests.support.exchange import Reply, Request
from tests.support.faulty_server import FaultyServer, unused_port


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(presets, "limited_settings", lambda *_, **__: FAST)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def source(files: Mapping[str, bytes]) -> FaultyArchive:
    return FaultyArchive(files.values())


@pytest.fixture
async def here(source: FaultyArchive) -> AsyncIterator[FaultyServer]:
    async with source.serve() as server:
        yield server


async def finished(job: jobs.Job) -> Summary:
    async with job:
        return await asyncio.wait_for(job.wait(), 30)


# --- a target that somebody has to correct ----------------------------------------------------------------------------

WEB_PAGE = Reply(200, {"Content-Type": "text/html"}, b"<html>Welcome</html>")


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("unknown host", 5, "target http://no-such-host.invalid: list studies: the host name is not known"),
        ("nobody there", 5, "target http://127.0.0.1:"),
        ("401", 4, "the archive refused the credentials (status 401)"),
        ("403", 4, "this account may not do that (status 403)"),
        ("a web site", 1, "the address is not that of its DICOMweb service"),
        ("below a file", 1, "target: the folder: something that is not a folder is in the way"),
        (
            "read-only",
            1,
            "target: the folder cannot be written to: the permission is missing, or",
        ),
    ],
)
async def test_a_target_to_be_corrected_ends_a_new_job_before_the_source_is_listed(
    how: str,
    code: int,
    words: str,
    cli: Cli,
    source: FaultyArchive,
    here: FaultyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names the end, no ledger is left, and the corrected command begins with the same ledger's name."""
    ledger, target = tmp_path / "jobs" / "move.ledger", FaultyArchive()
    ledger.parent.mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "read-only").mkdir()
    is_allowed = os.access  # what this says of a disk mounted read-only; the tests may run as root
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "read-only" and is_allowed(path, mode))
    answers = {"401": Reply(401), "403": Reply(403), "a web site": WEB_PAGE}
    target.fault = lambda _: answers.get(how)
    async with target.serve() as there:
        address = {
            "unknown host": "http://no-such-host.invalid/dicomweb",
            "nobody there": f"http://127.0.0.1:{unused_port()}",
            "below a file": str(tmp_path / "file" / "below"),
            "read-only": str(tmp_path / "read-only" / "below"),
        }
        ran = await cli.here("copy", here.url, address.get(how, there.url), "--job", ledger)
        assert ran.code == code, ran.err
        assert [line for line in ran.err.splitlines() if line.startswith("error: target") and words in line], ran.err
        assert len(ran.err.splitlines()) == 1
        assert source.requests == {"search": 1}, "nothing was listed"
        assert list(ledger.parent.iterdir()) == []
        answers.clear()
        ran = await cli.here("copy", here.url, there.url, "--job", ledger)
        assert ran.code == 0, ran.err
        assert target.held == source.held


@pytest.mark.parametrize("reply", [Reply(503), Reply(400)], ids=["busy", "refuses just such a search"])
async def test_what_may_pass_or_may_not_matter_does_not_keep_a_job_from_its_start(
    reply: Reply, source: FaultyArchive, here: FaultyServer
) -> None:
    target = FaultyArchive()
    target.fault = after(1, lambda one: "limit=1" in one.target and "StudyInstanceUID" not in one.target, reply)
    async with target.serve() as there:
        job = await jobs.copy(here.url, there.url)
        if reply.status == 503:
            while not any("waiting for it" in note for note in job.summary().notes):
                await asyncio.sleep(0.02)
            target.fault = lambda _: None
        assert adding_up(await finished(job)) == {State.DONE: 15}


async def test_a_job_that_cannot_begin_anew_loses_no_ledger(source: FaultyArchive, here: FaultyServer) -> None:
    target = FaultyArchive()
    async with target.serve() as there:
        job = await jobs.copy(here.url, there.url)
        await finished(job)
        target.fault = lambda _: Reply(401)
        with pytest.raises(AuthenticationFailed, match=r"^target "):
            await jobs.copy(here.url, there.url, new=True)
        assert adding_up(job.summary()) == {State.DONE: 15}


async def test_outside_its_window_a_job_asks_nothing_and_looks_first_when_that_opens(
    source: FaultyArchive, here: FaultyServer
) -> None:
    pace = jobs.Pace()
    pace.pause()
    async with await jobs.copy(here.url, "http://no-such-host.invalid", pace=pace) as job:
        await asyncio.sleep(0.05)
        assert source.requests == {}
        pace.resume()
        with pytest.raises(ConnectionFailed, match=r"^target .*: the host name is not known"):
            await asyncio.wait_for(job.wait(), 30)
        assert source.requests == {"search": 1}, "nothing was listed"


# --- refused in the middle --------------------------------------------------------------------------------------------


def after(number: int, which: Callable[[Request], bool], reply: Reply) -> Callable[[Request], Reply | None]:
    """Return a fault: from the so-and-so-many-th such request on, this is the answer to all of them."""
    seen = [0]

    def fault(request: Request) -> Reply | None:
        seen[0] += which(request)
        return reply if which(request) and seen[0] >= number else None

    return fault


def every(_: Request) -> bool:
    return True


@pytest.mark.parametrize("at_target", [False, True])
@pytest.mark.parametrize("number", [2, 3, 4, 5, 7])  # behind the first look
async def test_a_password_that_is_changed_meanwhile_ends_the_job_and_it_goes_on(
    number: int, at_target: bool, source: FaultyArchive, here: FaultyServer
) -> None:
    target = FaultyArchive()
    end = target if at_target else source
    async with target.serve() as there:
        end.fault = after(number, every, Reply(401))
        job = await jobs.copy(here.url, there.url)
        try:
            await finished(job)
        except AuthenticationFailed as problem:
            refused: AuthenticationFailed | None = problem
        else:
            refused = None
        if end.requests and sum(end.requests.values()) >= number:
            assert refused is not None
        summary = job.summary()
        assert State.FAILED not in adding_up(summary), "nobody is to blame but the password"
        end.fault = lambda _: None
        assert adding_up(await finished(await jobs.resume(job.path))).keys() <= {State.DONE, State.PRESENT}
        assert target.held == source.held


async def test_one_study_that_this_account_may_not_read_fails_alone(source: FaultyArchive, here: FaultyServer) -> None:
    target = FaultyArchive()
    source.fault = after(1, lambda one: uid(2) in one.path and not is_search(one), Reply(403))
    async with target.serve() as there:
        summary = await finished(job := await jobs.copy(here.url, there.url))
        assert adding_up(summary) == {State.DONE: 10, State.FAILED: 5}
        assert {one.reason for one in summary.reasons if one.state is State.FAILED} == {reason_code(status=403)}
        source.fault = lambda _: None
        assert adding_up(await finished(await jobs.retry(job.path))) == {State.DONE: 15}
        assert target.held == source.held


async def test_an_archive_that_takes_nothing_ends_the_job_with_one_line(
    source: FaultyArchive, here: FaultyServer, cli: Cli
) -> None:
    target = FaultyArchive()
    target.fault = after(1, lambda one: one.method == "POST", Reply(403))
    async with target.serve() as there:
        ran = await cli("copy", here.url, there.url)
        assert ran.code in (1, 4)
        assert [line for line in ran.err.splitlines() if line.startswith("error: ")] == ran.err.splitlines()[-1:]
        assert "403" in ran.err or "may not do that" in ran.err
        target.fault = lambda _: None
        await cli("copy", here.url, there.url, "--quiet")  # what was refused at first has failed in this run
        assert (await cli("copy", here.url, there.url, "--quiet")).code == 0
        assert target.held == source.held


# --- begun wrongly ----------------------------------------------------------------------------------------------------


async def test_what_is_begun_wrongly_is_told_in_one_line(
    cli: Cli, folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, tmp_path: Path
) -> None:
    ledger = tmp_path / "one.ledger"
    assert (await cli.here("copy", folder, archive.url, "--job", ledger, "--quiet")).code == 0
    notes = tmp_path / "notes.txt"
    notes.write_text("nothing of DICOM")
    for code, *arguments in (
        (2, "copy", "nowhere:", archive.url),
        (2, "copy", folder, folder),
        (2, "copy", archive.url, f"{archive.url}/"),
        (2, "copy", folder / "none", archive.url),
        (7, "copy", folder, other_archive.url, "--job", ledger),
        (7, "copy", folder, archive.url, "--job", notes),
        (7, "copy", folder, archive.url, "--job", notes, "--new"),
    ):
        ran = await cli.here(*map(str, arguments), "--quiet")
        assert ran.code == code, (arguments, ran.err)
        assert "unexpected" not in ran.error_line
    assert notes.read_text() == "nothing of DICOM"


async def test_a_damaged_ledger_is_code_7(cli: Cli, folder: Path, archive: EmbeddedArchive, tmp_path: Path) -> None:
    ledger = tmp_path / "one.ledger"
    assert (await cli.here("copy", folder, archive.url, "--job", ledger, "--quiet")).code == 0
    ledger.write_bytes(ledger.read_bytes()[:9000])
    ran = await cli.here("copy", folder, archive.url, "--job", ledger, "--quiet")
    assert ran.code == 7
    assert ran.error_line.startswith("error: the ledger is damaged")


# --- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupted_command_says_how_to_go_on(
    number: int, code: int, cli: Cli, source: FaultyArchive, here: FaultyServer
) -> None:
    target = FaultyArchive()
    target.fault = after(2, lambda one: one.method == "POST", Reply(silent=True))
    async with target.serve() as there:
        process = await cli.start("copy", here.url, there.url, "--at-once", "1")
        async with asyncio.timeout(30):
            while target.requests.get("store", 0) < 2:
                await asyncio.sleep(0.02)
        process.send_signal(number)
        began = time.monotonic()
        ran = await ended(process)
        assert time.monotonic() - began < 10
        assert ran.code == code
        assert "the same command again goes on from there" in ran.err
        assert ran.err.splitlines()[-1] == "error: interrupted"
        target.fault = lambda _: None
        assert (await cli("copy", here.url, there.url, "--quiet")).code == 0
        assert target.held == source.held
