"""What it costs to be told of requests and instances: ``python -m benchmarks.watching``.

Processor time of this process for searches, and for the instances of an upload, on a transport that answers
at once: nothing else of a request is in the figures, so that a difference of some microseconds shows. Each way runs in
turn, several times, and its least time counts: what runs beside it only adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx

from benchmarks.measure import cpu_seconds
from benchmarks.table import machine
from postdicom_async import DicomWeb, Limits, Settings, telemetry
from tests.support.bodies import stow_answer
from tests.support.dicom_files import small_dicom, uid

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCES = 1000


UIDS = [uid(1, 1, number + 1) for number in range(INSTANCES)]
FILES = [small_dicom(instance=one) for one in UIDS]
STORED = stow_answer(referenced=UIDS)
JSON = {"Content-Type": "application/dicom+json"}


def answering(request: httpx.Request) -> httpx.Response:
    """Answer a store or a search at once."""
    return httpx.Response(200, headers=JSON, content=STORED if request.method == "POST" else b"[]")


@contextmanager
def logged() -> Iterator[None]:
    """Log at DEBUG, to nobody: what a handler does is its own."""
    logger = logging.getLogger("postdicom_async")
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


@contextmanager
def traced() -> Iterator[None]:
    """Trace with OpenTelemetry's SDK, whose spans are dropped."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    telemetry.instrument(tracer_provider=TracerProvider(), meter_provider=MeterProvider())
    try:
        yield
    finally:
        telemetry.uninstrument()


WAYS: dict[str, tuple[Callable[[], AbstractContextManager[None]], Settings]] = {
    "off": (nullcontext, Settings()),
    "on_event": (nullcontext, Settings(on_event=lambda _: None)),
    "log at DEBUG": (logged, Settings()),
    "OpenTelemetry": (traced, Settings()),
}


async def searches(settings: Settings, count: int) -> float:
    """Return microseconds of processor time for a search."""
    async with DicomWeb("http://x", settings=settings, transport=httpx.MockTransport(answering)) as archive:
        before = cpu_seconds()
        for _ in range(count):
            await archive.search_for_studies(limit=1).all()
        return (cpu_seconds() - before) / count * 1e6


async def upload(settings: Settings) -> float:
    """Return microseconds of processor time for an instance of an upload in one request."""
    using = replace(settings, limits=Limits(batch_instances=INSTANCES))
    async with DicomWeb("http://x", settings=using, transport=httpx.MockTransport(answering)) as archive:
        before = cpu_seconds()
        report = await archive.upload(FILES)
        assert report.ok
        return (cpu_seconds() - before) / INSTANCES * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=500)
    parser.add_argument("--runs", type=int, default=7)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(given.runs):
        for name, (switched, settings) in WAYS.items():
            with switched():
                found[name].append((asyncio.run(searches(settings, given.searches)), asyncio.run(upload(settings))))
    print("| | a request, µs | an instance of an upload, µs |\n|---|---:|---:|")
    for name, pairs in found.items():
        print(f"| {name} | {min(one for one, _ in pairs):.0f} | {min(two for _, two in pairs):.1f} |")
    print(f"\n{json.dumps(given.__dict__)}; {machine()}")


if __name__ == "__main__":
    main()
