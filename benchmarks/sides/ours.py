"""Our library as its user gets it: whole studies to a folder, whole folders to the archive."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Measurement, Meter, Task, files_in
from postdicom_async import DicomWeb, Limits, PostDicom, Settings, Status, Tls

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine

    from postdicom_async import Outcome


# Otherwise it comes with the first request, inside of what is measured: every side has imported what it needs before
# the clock runs, and what it takes as idle. The section `start` shows what a first request costs.
import_module("postdicom_async.http.aiohttp_transport")


def run(task: Task) -> Measurement:
    return asyncio.run(_measured(task))


async def _measured(task: Task) -> Measurement:
    async with _archive(task) as archive:
        return await (_download(archive, task) if task.action == "download" else _upload(archive, task))


def _archive(task: Task) -> DicomWeb:
    settings = _settings(task)
    if task.dialect == "postdicom":
        return PostDicom(task.url, task.user, task.password, settings=settings)
    return DicomWeb(task.url, auth=(task.user, task.password) if task.user else None, settings=settings)


def _settings(task: Task) -> Settings:
    """Return the default settings, but for what the task names."""
    settings = Settings()
    if task.authority:
        settings = replace(settings, tls=Tls(ca_file=Path(task.authority)))
    if not task.fsync:
        settings = replace(settings, fsync=False)
    if task.one_stream:
        settings = replace(settings, limits=Limits(parallel_retrieves=1, parallel_stores=1))
    return settings


async def _at_once(move: Callable[[str], Coroutine[None, None, int]], things: tuple[str, ...]) -> int:
    return sum(await asyncio.gather(*map(move, things)))


async def _download(archive: DicomWeb, task: Task) -> Measurement:
    fetch = downloaded_each if task.each else downloaded
    with Meter() as meter:
        saved = await _at_once(lambda study: fetch(archive, study, task.target), task.studies)
    files, moved = files_in(task.target)
    if files != saved:
        raise RuntimeError(f"{saved} instances reported, {files} files found")
    return meter.result(saved, moved)


async def _upload(archive: DicomWeb, task: Task) -> Measurement:
    send = uploaded_each if task.each else uploaded
    with Meter() as meter:
        stored = await _at_once(lambda source: send(archive, source), task.sources)
    return meter.result(stored, sum(files_in(source)[1] for source in task.sources))


# --- what is called on the client, and what of its answer is kept -----------------------------------------------------


async def downloaded(archive: DicomWeb, study: str, target: str) -> int:
    """Download a study; return how many instances were saved."""
    report = await archive.download_study(study, to=target)
    return len(report.saved)


async def downloaded_each(archive: DicomWeb, study: str, target: str) -> int:
    """Do the same, and keep nothing of the outcomes."""
    return await _counted(archive.download_each(study, to=target), Status.SAVED)


async def uploaded(archive: DicomWeb, source: str) -> int:
    """Upload a folder; return how many instances were stored."""
    report = await archive.upload(Path(source))
    report.raise_for_failures()
    return report.counts[Status.STORED]


async def uploaded_each(archive: DicomWeb, source: str) -> int:
    """Do the same, and keep nothing of the outcomes."""
    return await _counted(archive.upload_each(Path(source)), Status.STORED)


async def _counted(outcomes: AsyncIterable[Outcome], status: Status) -> int:
    count = 0
    async for outcome in outcomes:
        count += outcome.status is status
    return count
