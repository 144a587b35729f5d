"""What is told of a job: events, lines of the log, spans of its chunks, here and on a worker."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from postdicom_async import ConnectionFailed, DicomWeb, PostdicomError, Settings, UsageError, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.events import (
    Event,
    InstanceEnded,
    JobEnded,
    JobPhase,
    JobStarted,
    OutageBegan,
    OutageEnded,
    RequestEnded,
)
from postdicom_async.jobs import State
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.pace.outages import Outages
from postdicom_async.jobs.plan import ChunkEnd
from postdicom_async.jobs.watch_job import JobWatch
from postdicom_async.watching import carried
from tests.faults.clients import FAST
from tests.jobs.chores import FakeSpec, chunks_of
from tests.jobs.conftest import _state_folder
from tests.support.dicom_files import study_files
from tests.support.faulty_server import unused_port
from tests.telemetry.conftest import Traced, id_of

__all__ = ["_state_folder"]


@pytest.fixture
async def archive() -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive(username=None, password=None) as archive:
        yield archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    for number, data in enumerate(study_files(4, series=2).values()):
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


def nowhere() -> DicomWeb:
    """Return a client of an archive that does not answer."""
    return DicomWeb(f"http://127.0.0.1:{unused_port()}", settings=FAST)


async def job_to_nowhere(folder: Path, **more: Any) -> jobs.Job:
    """Return a job that begins, since it is paused: one that may work looks at both ends before."""
    pace = jobs.Pace()
    pace.pause()
    job = await jobs.copy(folder, nowhere(), patience=0.01, pace=pace, **more)
    pace.resume()
    return job


async def test_events_of_a_copy(folder: Path, archive: EmbeddedArchive) -> None:
    told: list[Event] = []
    job = await jobs.copy(folder, archive.url, on_event=told.append)
    summary = await job.wait()
    name = job.path.stem
    of_job = [one for one in told if not isinstance(one, InstanceEnded | RequestEnded)]
    assert of_job[:-1] == [
        JobStarted(name, "copy", 1),
        *(JobPhase(name, phase) for phase in ("discovering", "moving", "verifying", "deleting")),
    ]
    (ended,) = of_job[-1:]
    assert isinstance(ended, JobEnded)
    assert (ended.job, ended.error) == (name, None)
    assert ended.counts == {"done": summary.counts[State.DONE].instances} == {"done": 4}
    instances = [one for one in told if isinstance(one, InstanceEnded)]
    assert Counter((one.operation, one.status) for one in instances) == {("copy", "done"): 4}
    assert sum(one.size for one in instances) == summary.counts[State.DONE].bytes
    assert "store instances" in {one.operation for one in told if isinstance(one, RequestEnded)}


async def test_an_archive_with_a_hook_of_its_own_keeps_it(folder: Path, archive: EmbeddedArchive) -> None:
    of_job: list[Event] = []
    of_client: list[Event] = []
    client = DicomWeb(archive.url, settings=Settings(on_event=of_client.append))
    await (await jobs.copy(folder, client, on_event=of_job.append)).wait()
    assert {type(one) for one in of_client} == {RequestEnded}
    assert RequestEnded not in {type(one) for one in of_job}


async def test_a_hook_that_fails_breaks_no_job(folder: Path, archive: EmbeddedArchive) -> None:
    def hook(_event: Event) -> None:
        raise RuntimeError("Doe^Jane was here")

    summary = await (await jobs.copy(folder, archive.url, on_event=hook)).wait()
    assert summary.counts[State.DONE].instances == 4


async def test_a_line_when_it_begins_and_one_when_it_ends(
    folder: Path, archive: EmbeddedArchive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "postdicom_async")
    job = await jobs.copy(folder, archive.url)
    await job.wait()
    begins, ends = [one for one in caplog.records if one.name == "postdicom_async.jobs"]
    assert begins.getMessage() == f"copy {job.path.stem}: run 1 begins"
    assert ends.getMessage().startswith(f"copy {job.path.stem}: complete; done 4; ")
    assert vars(ends)["counts"] == {"done": 4}
    assert (vars(ends)["error"], vars(begins)["run"]) == (None, 1)
    assert str(folder) not in caplog.text


async def test_a_job_that_fails_and_one_that_is_stopped(folder: Path, archive: EmbeddedArchive) -> None:
    told: list[Event] = []
    job = await job_to_nowhere(folder, on_event=told.append)
    with pytest.raises(ConnectionFailed):
        await job.wait()
    assert isinstance(told[-1], JobEnded)
    assert told[-1].error == "ConnectionFailed"
    began = asyncio.Event()

    def hook(event: Event) -> None:
        told.append(event)
        if isinstance(event, JobStarted):
            began.set()

    job = await jobs.copy(folder, archive.url, on_event=hook)
    await began.wait()
    await job.stop()
    assert isinstance(told[-1], JobEnded)
    assert told[-1].error == "JobStopped"


async def test_outages_are_told_when_they_begin_and_end(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, archive: EmbeddedArchive, folder: Path
) -> None:
    """An end that does not answer for ten minutes of a clock that somebody else moves."""
    now = 0.0

    class Probed:
        name = "/folder/of/Doe^Jane"

        async def probe(self) -> None:
            if now < 600:
                raise ConnectionFailed("gone")

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    class Ledger:
        path = tmp_path / "one.ledger"

        def fact(self, _name: str) -> str:
            return "sync"

    told: list[Event] = []
    source, target = Probed(), Probed()
    ends: Any = (source, target)
    watch = JobWatch(Ledger(), told.append)  # type: ignore[arg-type]  # its name is all that is asked for
    outages = Outages(*ends, patience=OutagePatience(outage=3600), watch=watch, clock=lambda: now, sleep=sleep)
    caplog.set_level(logging.INFO, "postdicom_async.jobs")
    assert await outages.outlasted(ends[1], ConnectionFailed("gone"))
    began, ended = told
    assert began == OutageBegan("one", "target", "ConnectionFailed")
    assert isinstance(ended, OutageEnded)
    assert (ended.job, ended.end) == ("one", "target")
    assert 600 <= ended.seconds <= 1200
    assert [one.levelno for one in caplog.records] == [logging.WARNING, logging.INFO]
    assert "Doe" not in caplog.text


# --- traces ----------------------------------------------------------------------------------------------------------


def above(traced: Traced, span: ReadableSpan) -> list[str]:
    """Return the names of the spans that a span lies below, from the outside in."""
    spans = {one.context.span_id: one for one in traced.ended if one.context}
    names: list[str] = []
    while span.parent is not None and span.parent.span_id in spans:
        span = spans[span.parent.span_id]
        names.insert(0, span.name)
    return names


async def test_spans_of_a_copy(traced: Traced, tracer: Any, folder: Path, archive: EmbeddedArchive) -> None:
    with tracer.start_as_current_span("night"):
        job = await jobs.copy(folder, archive.url)
        await job.wait()
    whole = traced.one("job copy")
    assert dict(whole.attributes or {}) == {
        "postdicom.operation": "job copy",
        "postdicom.job": job.path.stem,
        "postdicom.run": 1,
        "postdicom.instances.done": 4,
    }
    stores = traced.named("POST store instances")
    assert stores
    assert {tuple(above(traced, span)) for span in stores} == {("night", "job copy", "job chunk")}
    others = [span for span in traced.ended if span.kind is SpanKind.CLIENT and span not in stores]
    assert Counter(tuple(above(traced, span)) for span in others)[("night",)] == 1, "the first look, before the job"
    assert {tuple(above(traced, span)) for span in others} == {("night",), ("night", "job copy")}
    assert traced.sums("postdicom.client.instances", "postdicom.operation", "postdicom.status") == {("copy", "done"): 4}


async def test_a_chunk_on_a_worker_belongs_to_the_job(traced: Traced, tracer: Any) -> None:
    worker = pytest.importorskip("postdicom_async.jobs.machines.worker")

    class Quiet(FakeSpec):
        def open(self) -> Any:
            if self.name == "none":
                raise UsageError("profile: Doe^Jane has no password here")
            return asyncio.timeout(None)

    async def work(_source: Any, _target: Any, _parcel: Any) -> AsyncGenerator[ChunkEnd, None]:
        yield ChunkEnd()

    (chunk,) = chunks_of(1)
    with tracer.start_as_current_span("job copy") as job:
        trace = carried()
    assert set(trace) == {"traceparent"}
    parcel = worker.Parcel("one", chunk, Quiet("a"), Quiet("b"), trace=trace)
    try:
        await asyncio.to_thread(worker.carry_with, work, parcel)
        await asyncio.to_thread(worker.carry_with, work, worker.Parcel("one", chunk, Quiet("none"), Quiet("b")))
    finally:
        await worker.stop()
    carried_out, alone = traced.named("job chunk")
    assert carried_out.parent is not None
    assert id_of(traced.one("job copy")) == format(carried_out.parent.span_id, "016x")
    assert carried_out.context is not None
    assert carried_out.context.trace_id == job.get_span_context().trace_id
    assert alone.parent is None
    assert (alone.attributes or {})["postdicom.failed_with"] == "UsageError"
    assert "Doe" not in traced.everything()


async def test_a_job_that_fails_has_a_span_that_failed(traced: Traced, folder: Path) -> None:
    job = await job_to_nowhere(folder)
    with pytest.raises(PostdicomError):
        await job.wait()
    span = traced.one("job copy")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ConnectionFailed"


PRELOAD = """
import os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from postdicom_async import telemetry

written = open(os.environ["SPANS"], "a", buffering=1)
provider = TracerProvider()
line = lambda span: f"{span.context.trace_id:032x} {span.name}\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=written, formatter=line)))
telemetry.instrument(tracer_provider=provider)
"""


@pytest.mark.large
async def test_workers_of_dask_go_on_with_the_trace(
    traced: Traced, tracer: Any, folder: Path, archive: EmbeddedArchive, tmp_path: Path
) -> None:
    """A file that the workers load first switches traces on there, as the page says."""
    pytest.importorskip("distributed")
    from tests.jobs.cluster import running_cluster

    preload, spans = tmp_path / "preload.py", tmp_path / "spans"
    preload.write_text(PRELOAD)
    (tmp_path / "cluster").mkdir()
    environment: Any = {"DASK_DISTRIBUTED__WORKER__PRELOAD": str(preload), "SPANS": str(spans)}
    with (
        running_cluster(tmp_path / "cluster", **environment) as cluster,
        tracer.start_as_current_span("night") as night,
    ):
        job = await jobs.copy(folder, archive.url, scheduler=jobs.Scheduler(cluster.address))
        summary = await job.wait()
    assert summary.counts[State.DONE].instances == 4
    trace = format(night.get_span_context().trace_id, "032x")
    assert set(spans.read_text().splitlines()) == {f"{trace} job chunk", f"{trace} POST store instances"}
