"""Jobs on a machine whose disk is full, fails, or may not be written; and jobs that are stopped at any moment."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from postdicom_async import LedgerUnusable, LocalFileError, PostdicomError, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.ledger import file as ledger_file
from postdicom_async.jobs.ledger import ledger as ledger_writer
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Summary
from tests.faults.conftest import open_descriptors
from tests.jobs.lying import MemoryEnd, adding_up, hurry, instances
from tests.support.large import large

CALLS = ("open", "write", "writev", "fsync", "rename", "replace", "mkdir", "link")
CODES = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, patience=0.5)


async def ended(job: jobs.Job) -> Summary:
    async with job:
        return await asyncio.wait_for(job.wait(), 30)


class Failing:
    """Every call of a function of ``os`` that touches a folder fails from the so-and-so-many-th on, so many times.

    Attributes:
        met: how many failed.
    """

    def __init__(self, patch: pytest.MonkeyPatch, name: str, code: int, at: int, *, times: int = 1) -> None:
        self.met = 0
        real: Callable[..., Any] = getattr(os, name)
        calls, lock = [0], threading.Lock()

        def fails(*args: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():  # the loop, the archive and pytest
                return real(*args, **named)
            with lock:
                calls[0] += 1
                if at <= calls[0] < at + times:
                    self.met += 1
                    raise OSError(code, os.strerror(code))
            return real(*args, **named)

        patch.setattr(os, name, fails)


async def ended_somehow(url: str, out: Path) -> tuple[PostdicomError | None, Summary | None]:
    """Return what ended a job, or what it came to."""
    try:
        return None, await ended(await jobs.copy(url, out))
    except PostdicomError as problem:
        return problem, None


@pytest.mark.parametrize("places", [(1, 5), large((1, 2, 3, 5, 8, 13, 21))], ids=["some", "many"])
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", CALLS)
async def test_every_call_that_fails_leaves_a_job_that_goes_on(
    name: str,
    code: int,
    places: tuple[int, ...],
    folder: Path,
    files: Mapping[str, bytes],
    archive: EmbeddedArchive,
    tmp_path: Path,
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    met = 0
    for at in places:
        out = tmp_path / f"out-{at}"
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, name, code, at)
            problem, summary = await ended_somehow(archive.url, out)
            assert str(out) not in str(problem)
            assert summary is None or sum(adding_up(summary).values()) == 15
        if not failing.met:
            break
        met += failing.met
        assert adding_up(await ended(await jobs.copy(archive.url, out))).keys() <= {State.DONE, State.PRESENT}
        assert sorted(path.read_bytes() for path in out.rglob("*.dcm")) == sorted(files.values())
        assert not [path for path in out.rglob("*") if ".part" in path.name]
    if name in ("open", "fsync", "mkdir"):
        assert met, "nothing was met"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
async def test_a_full_disk_at_the_target_ends_the_job_once_and_it_goes_on(
    code: int, folder: Path, files: Mapping[str, bytes], archive: EmbeddedArchive, tmp_path: Path
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "writev", "pwrite"):
            Failing(patch, name, code, 4, times=1_000_000)
        with pytest.raises(LocalFileError) as caught:
            await ended(job := await jobs.copy(archive.url, out))
    assert caught.value.disk_full
    assert State.FAILED not in adding_up(job.summary()), "waiting for room costs nobody an attempt"
    assert adding_up(await ended(await jobs.resume(job.path))).keys() <= {State.DONE, State.PRESENT}
    assert sorted(path.read_bytes() for path in out.rglob("*.dcm")) == sorted(files.values())


def have_no_room_beyond(patch: pytest.MonkeyPatch, pages: int) -> None:
    """Let SQLite itself say that a ledger is full, so many pages after it was opened."""
    real = ledger_file.connected

    def connected(path: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
        database = real(path, mode)
        (now,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {now + pages}")
        return database

    patch.setattr(ledger_writer, "connected", connected)


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 4, 5])
async def test_a_ledger_that_has_no_room_ends_the_job_and_it_goes_on(pages: int) -> None:
    source, target = MemoryEnd("a", instances(6, 200)), MemoryEnd("b")
    with pytest.MonkeyPatch.context() as patch:
        have_no_room_beyond(patch, pages)
        with pytest.raises(LocalFileError) as caught:
            await ended(await jobs.copy(source, target))
        assert caught.value.disk_full
    summary = await ended(await jobs.copy(source, target))
    assert adding_up(summary).keys() <= {State.DONE, State.PRESENT}
    assert summary.discovered == 1200
    assert target.held == source.held


async def test_little_is_moved_while_nothing_can_be_written_down() -> None:
    source, target = MemoryEnd("a", instances(200, 20)), MemoryEnd("b")
    with pytest.MonkeyPatch.context() as patch:
        have_no_room_beyond(patch, 8)
        with pytest.raises(LocalFileError):
            await ended(await jobs.copy(source, target))
    assert len(target.held) < 2000


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
async def test_a_damaged_ledger_is_refused_and_left_as_it_is(
    damage: str, folder: Path, archive: EmbeddedArchive
) -> None:
    job = await jobs.copy(folder, archive.url)
    await ended(job)
    whole = bytearray(job.path.read_bytes())
    if damage == "flipped":
        for place in range(4096, len(whole), 512):
            whole[place] ^= 0x10
    damaged = bytes(whole) if damage == "flipped" else bytes(whole[: len(whole) // 3 if damage == "truncated" else 0])
    job.path.write_bytes(damaged)
    begins: list[Callable[[], Awaitable[jobs.Job]]] = [
        lambda: jobs.copy(folder, archive.url),
        lambda: jobs.resume(job.path),
        lambda: jobs.retry(job.path),
    ]
    for begin in begins:
        with pytest.raises(LedgerUnusable) as caught:
            await ended(await begin())
        assert "\n" not in str(caught.value)
        assert job.path.read_bytes() == damaged


# --- stopped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moments", [7, large(20)])
@pytest.mark.parametrize("way", ["stop", "leave", "cancel the reader"])
async def test_a_job_that_is_stopped_at_any_moment_leaves_nothing_behind_and_goes_on(
    way: str, moments: int, folder: Path, archive: EmbeddedArchive, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    chance = random.Random(way)
    before = 0
    for number in range(moments):
        out = tmp_path / f"out-{number}"
        moment = chance.random() * 0.25 if number else 0.0
        await asyncio.wait_for(_interrupted(way, archive.url, out, moment), 15)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and _is_ours(task)]
        before = before or open_descriptors()
        summary = await ended(await jobs.copy(archive.url, out))
        assert adding_up(summary).keys() <= {State.DONE, State.PRESENT}
        assert sorted(path.read_bytes() for path in out.rglob("*.dcm")) == sorted(files.values())
    assert open_descriptors() <= before + 8


def _is_ours(task: asyncio.Task[Any]) -> bool:
    return "jobs" in repr(task.get_coro())


async def _interrupted(way: str, url: str, out: Path, moment: float) -> None:
    job = await jobs.copy(url, out)
    if way == "cancel the reader":

        async def read() -> None:
            async with job:
                async for _ in job:
                    pass

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(moment)
        reading.cancel()
        await asyncio.wait([reading])
    elif way == "leave":
        async with job:
            if moment:
                await asyncio.sleep(moment)
    else:
        await asyncio.sleep(moment)
        await job.stop()
    assert not job.is_running
