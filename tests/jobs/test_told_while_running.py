"""A job that runs is told through its socket to pause, to go on, to go faster and to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import JobStopped, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.pace.control import NoJobRuns, ask, control_paths
from postdicom_async.jobs.states import State

WITHIN = 2.0  # seconds, by the promise


async def told(job: jobs.Job, do: str, **values: Any) -> dict[str, Any]:
    answer = await ask(control_paths(job.path), {"do": do, **values})
    assert answer["ok"], answer
    return answer


async def moved(job: jobs.Job) -> int:
    counts: dict[str, int] = (await told(job, "status"))["counts"]
    return counts.get("done", 0)


async def answering(job: jobs.Job) -> dict[str, Any]:
    """Wait until a job answers, and return what it says."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await told(job, "status")
        except NoJobRuns:
            assert job.is_running
            assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def slow_job(source: Path, target: EmbeddedArchive) -> jobs.Job:
    """Return a job that has moved something and will take hours for the rest."""
    job = await jobs.copy(source, target.url, pace=jobs.Pace(max_rate="1"))
    deadline = time.monotonic() + 60
    while True:
        try:
            status = await told(job, "status")
        except NoJobRuns:
            status = {}
        if status.get("phase") == "moving":
            return job
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_new_rate_holds_while_it_runs(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    async with await slow_job(folder, archive) as job:
        answer = await told(job, "set", max_rate="off", at_once=2, max_requests="1000/s")
        assert (answer["max_rate"], answer["at_once"], answer["max_requests"]) == ("off", 2, "1000/s")
        summary = await asyncio.wait_for(job.wait(), 60)
    assert summary.of(State.DONE).instances == len(files)
    with pytest.raises(NoJobRuns):
        await told(job, "status")


async def test_a_window_that_is_closed_lets_nothing_begin_and_one_that_opens_does(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    hour = (time.gmtime().tm_hour + 12) % 24
    closed = f"{hour:02}:00-{hour:02}:59 UTC"
    job = await jobs.copy(folder, archive.url, pace=jobs.Pace(windows=closed))
    async with job:
        answer = await answering(job)
        assert answer["open"] is False
        await asyncio.sleep(0.5)
        assert answer["windows"].endswith(closed)
        assert await moved(job) == 0
        await told(job, "set", windows="")
        summary = await asyncio.wait_for(job.wait(), 60)
    assert summary.of(State.DONE).instances == len(files)


async def test_a_job_is_paused_and_goes_on(folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]) -> None:
    async with await slow_job(folder, archive) as job:
        assert (await told(job, "pause"))["paused"] is True
        await told(job, "set", max_rate="off")
        await asyncio.sleep(WITHIN)  # what was under way comes to its end
        before = await moved(job)
        await asyncio.sleep(0.5)
        assert await moved(job) == before
        assert (await told(job, "resume"))["paused"] is False
        summary = await asyncio.wait_for(job.wait(), 60)
    assert summary.of(State.DONE).instances == len(files)


async def test_a_job_is_stopped_and_the_same_command_goes_on(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    async with await slow_job(folder, archive) as job:
        await told(job, "stop")
        with pytest.raises(JobStopped):
            await asyncio.wait_for(job.wait(), 10)
    summary = await (await jobs.copy(folder, archive.url)).wait()
    assert summary.of(State.DONE).instances == len(files)
    assert summary.facts.run == 1
