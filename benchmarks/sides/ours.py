"""Our library, on either transport: whole studies to a folder, whole folders to the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Measurement, Meter, Task, files_in
from postdicom_async import DicomWeb, Limits, Settings
from postdicom_async.http.transport import httpx_transport, pyreqwest_transport

if TYPE_CHECKING:
    from httpx import AsyncBaseTransport


Transport = Callable[[Settings], "AsyncBaseTransport"]


def _loop_factory(transport: Transport) -> Callable[[], asyncio.AbstractEventLoop]:
    """Uvloop under pyreqwest, as the command does it; under httpx's own transport it reads far ahead into memory."""
    if transport is not pyreqwest_transport:
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run_on_pyreqwest(task: Task) -> Measurement:
    return _run(task, pyreqwest_transport)


def run_on_httpx(task: Task) -> Measurement:
    return _run(task, httpx_transport)


def _run(task: Task, transport: Transport) -> Measurement:
    with asyncio.Runner(loop_factory=_loop_factory(transport)) as runner:
        return runner.run(_measure(task, transport))


async def _measure(task: Task, transport: Transport) -> Measurement:
    settings = Settings(fsync=False, limits=_limits(task.streams))
    auth = (task.user, task.password) if task.user else None
    async with DicomWeb(task.url, auth=auth, settings=settings, transport=transport(settings)) as archive:
        return await (_download(archive, task) if task.action == "download" else _upload(archive, task))


def _limits(streams: int) -> Limits:
    if not streams:
        return Limits()
    return Limits(connections=streams, parallel_stores=streams, parallel_retrieves=streams)


async def _download(archive: DicomWeb, task: Task) -> Measurement:
    with Meter() as meter:
        async with asyncio.TaskGroup() as group:
            jobs = [group.create_task(archive.download_study(uid, to=Path(task.target))) for uid in task.studies]
    saved = sum(len(job.result().saved) for job in jobs)
    files, moved = files_in(task.target)
    if files != saved or any(job.result().missing for job in jobs):
        raise RuntimeError(f"{saved} instances reported, {files} files found")
    return meter.result(saved, moved)


async def _upload(archive: DicomWeb, task: Task) -> Measurement:
    with Meter() as meter:
        report = await archive.upload([Path(source) for source in task.sources])
    report.raise_for_failures()
    return meter.result(len(report.outcomes), report.bytes_sent)
