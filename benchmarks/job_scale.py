"""Whole jobs at full size, between ends that answer instantly: ``python -m benchmarks.job_scale [part] [options]``.

Every part runs in processes of its own, so that memory is its own: ``lists`` (a million studies at each end, planned),
``whole`` (a copy of ten million instances: killed half-way, resumed, reported), ``small`` (many small studies, and how
often the ledger is made durable for each), ``share`` (what the ledger costs a copy of files into an archive). Without a
part all of them, one after the other. ``--scale 0.1`` takes a tenth of everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from postdicom_async import DicomWeb, jobs
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.jobs.ends.end import Feature, Identified, ListedInstance, ListedStudy, Selection
from postdicom_async.jobs.ledger.book import Book
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.pages.report import report_lines
from postdicom_async.results import InstanceUids, Outcome, Status

ROOT = "1.2.826.0.1.3680043.8.498."  # with 34 digits below it: 60 characters, as most have
SIZE = 530_000
IN_A_SERIES, PAGE = 100, 1000
BODY = BytesBody(b"")


def uid(kind: int, study: int, number: int = 0) -> str:
    """Return a UID of 60 characters; the same in every process."""
    text = f"{kind}{study:012d}{number:08d}"
    return f"{ROOT}{kind}{study * 7919 % 10**12:012d}{text}"


@dataclass(frozen=True)
class Archive:
    """How many studies and instances an end has; ``has`` says how many of a study, None where it has it not."""

    studies: int
    has: Callable[[int], int | None]


class Synthetic:
    """An end that answers instantly and keeps nothing in memory; stored instances are discarded."""

    def __init__(self, name: str, archive: Archive, features: Feature) -> None:
        self.name: str = name
        self.identity: str = f"synthetic {name}"
        self.features: Feature = features
        self._archive = archive

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def studies(self, **_: str) -> AsyncGenerator[list[ListedStudy], None]:
        for start in range(0, self._archive.studies, PAGE):
            numbers = range(start, min(self._archive.studies, start + PAGE))
            counted = ((number, self._archive.has(number)) for number in numbers)
            yield [ListedStudy(uid(1, number), date_of(number), has) for number, has in counted if has is not None]

    async def study(self, study: str) -> ListedStudy | None:
        number = number_of(study)
        has = self._archive.has(number)
        return None if has is None else ListedStudy(study, date_of(number), has)

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        number = number_of(study)
        has = self._archive.has(number) or 0
        yield [ListedInstance(uid(2, number, one // IN_A_SERIES), uid(3, number, one), SIZE) for one in range(has)]

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        if "POSTDICOM_BENCH_FIRST_OPEN" in os.environ:
            os.write(1, b"open\n")
            os.environ.pop("POSTDICOM_BENCH_FIRST_OPEN")
        instances: Sequence[ListedInstance] = wanted.instances
        if not instances:
            instances = [one async for some in self.instances(wanted.study) for one in some]
        for number, one in enumerate(instances):
            if not number % 50:
                await asyncio.sleep(0)  # as one that waits for a network
            yield Usable(one.uid, InstanceHeader(InstanceUids(wanted.study, one.series, one.uid), "", ""), BODY)

    async def store(self, sources: AsyncIterator[Identified], **_: object) -> AsyncGenerator[Outcome, None]:
        async for one in sources:
            assert not isinstance(one, Unusable)
            yield Outcome(one.label, Status.STORED, one.header.uids, SIZE)

    async def delete(self, *_: object) -> None:
        raise AssertionError("nothing is deleted here")

    async def probe(self) -> None:
        pass


def date_of(number: int) -> str:
    return f"{2000 + number % 25}{number % 12 + 1:02}15"


def number_of(study: str) -> int:
    return int(study[-20:-8])


SOURCE = Feature.LISTS | Feature.OPENS
TARGET = Feature.LISTS | Feature.STORES


def ends(source: Archive, target: Archive, *, unlisted: bool = False) -> tuple[Any, Any]:
    """Return the two ends of a job."""
    features = SOURCE | Feature.UNLISTED if unlisted else SOURCE
    return Synthetic("source", source, features), Synthetic("target", target, TARGET)


# --- what is measured ------------------------------------------------------------------------------------------------


def now_mib() -> float:
    """Return what the process has resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Return the most it ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class LedgerTime:
    """What the ledger's thread did: groups made durable, seconds in them, and its processor time."""

    def __init__(self) -> None:
        self.groups = 0
        self.wall = 0.0
        self.cpu = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        written = Book.write

        def write(book: Book, changes: Any) -> None:
            self.groups += 1
            began = time.monotonic()
            try:
                written(book, changes)
            finally:
                self.wall += time.monotonic() - began
                self.cpu = time.thread_time()  # its questions are in it

        Book.write = write  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            Book.write = written  # type: ignore[method-assign]


def tell(**told: float) -> None:
    print(json.dumps({name.replace("_", " "): round(value, 2) for name, value in told.items()}), flush=True)


# --- the parts -------------------------------------------------------------------------------------------------------


async def lists(folder: Path, scale: float) -> None:
    """Plan a copy between two ends of a million studies: half equal by count, a quarter not, a quarter not there."""
    studies = int(1_000_000 * scale)
    source = Archive(studies, lambda _: 3)
    # the last quarter is the target's alone, so that it lists as many
    target = Archive(studies + studies // 4, lambda number: _at_target(number, studies))
    before, began, used = now_mib(), time.monotonic(), cpu()
    async with await jobs.copy(*ends(source, target, unlisted=True), job=folder / "lists.ledger") as job:
        ledger = job._parts.ledger  # noqa: SLF001
        while job.is_running and ledger.fact("phase") != "moving":
            await asyncio.sleep(0.05)
        tell(listed_s=time.monotonic() - began, cpu_s=cpu() - used, peak_MiB_over_start=peak_mib() - before)
        await asyncio.sleep(min(60.0, 600.0 * scale))  # and the instances of some of them
        summary = await asyncio.to_thread(job.summary)
        tell(
            studies=summary.studies,
            equal_by_count=summary.equal_by_count,
            planned_meanwhile=summary.discovered - 3 * summary.equal_by_count,
            peak_MiB_over_start=peak_mib() - before,
        )


def _at_target(number: int, studies: int) -> int | None:
    if number >= studies:
        return 3
    return (3, 3, 2, None)[number % 4]


async def whole(folder: Path, scale: float) -> None:
    """Copy ten million instances of 20,000 studies."""
    studies = int(20_000 * scale)
    before, began, used = now_mib(), time.monotonic(), cpu()
    source, target = ends(Archive(studies, lambda _: 500), Archive(0, lambda _: None))
    time_of = LedgerTime()
    with time_of.watched():
        job = await jobs.copy(source, target, verify="none", job=folder / "whole.ledger")
        first = await asyncio.to_thread(job.summary)
        async with job:
            while job.is_running and not (folder / "stop").exists():
                await asyncio.sleep(0.2)
            if not job.is_running:
                await job.wait()
    done = job.summary()
    instances = sum(count.instances for count in done.counts.values()) - first.discovered
    seconds, used = time.monotonic() - began, cpu() - used
    tell(
        instances=instances,
        seconds=seconds,
        instances_a_s=instances / seconds,
        cpu_us_an_instance=used / instances * 1e6,
        ledger_cpu_us_an_instance=time_of.cpu / instances * 1e6,
        peak_MiB_over_start=peak_mib() - before,
        bytes_a_row=(folder / "whole.ledger").stat().st_size / sum(c.instances for c in done.counts.values()),
    )


async def small(folder: Path, scale: float) -> None:
    """Copy many studies of three instances; count how often the ledger is made durable."""
    studies = int(100_000 * scale)
    for name, unlisted in (("unlisted", True), ("listed", False)):
        time_of, began, used = LedgerTime(), time.monotonic(), cpu()
        source, target = ends(Archive(studies, lambda _: 3), Archive(0, lambda _: None), unlisted=unlisted)
        with time_of.watched():
            async with await jobs.copy(source, target, verify="none", job=folder / f"{name}.ledger") as job:
                while (phase := job._parts.ledger.fact("phase")) in (None, "discovering"):  # noqa: SLF001
                    await asyncio.sleep(0.02)
                listing, groups = time.monotonic() - began, time_of.groups
                await job.wait()
                assert phase is not None
        seconds = time.monotonic() - began - listing
        print(name, end=" ")
        tell(
            studies_a_s=studies / seconds,
            groups_a_study=(time_of.groups - groups) / studies,
            cpu_ms_a_study=(cpu() - used) / studies * 1000,
            peak_MiB=peak_mib(),
        )


async def share(folder: Path, scale: float) -> None:
    """Copy files into an archive of this process and say what part of it the ledger was."""
    from benchmarks.data import Study, write_study  # with pydicom, which no other part needs
    from postdicom_async.emulator import EmbeddedArchive

    (folder / "files").mkdir()
    for number in range(max(1, int(20 * scale))):
        write_study(folder / "files", Study(500 + number, 100, side=512))
    async with EmbeddedArchive(username=None, password=None) as archive:
        time_of, used = LedgerTime(), cpu()
        with time_of.watched():
            began = time.monotonic()
            target = DicomWeb(archive.url)
            async with await jobs.copy(folder / "files", target, job=folder / "share.ledger") as job:
                done = await job.wait()
            seconds = time.monotonic() - began
    instances = done.discovered
    tell(
        instances=instances,
        instances_a_s=instances / seconds,
        ledger_cpu_percent_of_wall=time_of.cpu / seconds * 100,
        ledger_writing_percent_of_wall=time_of.wall / seconds * 100,
        ledger_cpu_us_an_instance=time_of.cpu / instances * 1e6,
        cpu_percent_of_all_cpu=time_of.cpu / (cpu() - used) * 100,
        groups=time_of.groups,
    )


def report(folder: Path) -> None:
    """Write the report as a command does."""
    before, began = now_mib(), time.monotonic()
    reader = LedgerReader(folder / "whole.ledger")
    size = lines = 0
    with (folder / "report.jsonl").open("w") as file:
        for text in report_lines(reader, "jsonl", version="0"):
            size += file.write(text)
            lines += text.count("\n")
    reader.close()
    seconds = time.monotonic() - began
    tell(report_lines=lines, seconds=seconds, lines_a_s=lines / seconds, peak_MiB_over_start=peak_mib() - before)


def apart(part: str, folder: Path, scale: float, **more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.job_scale", part, "--folder", str(folder), "--scale", str(scale)]
    return subprocess.Popen(command, stdout=subprocess.PIPE if more else None, env={**os.environ, **more})


def killed_and_resumed(folder: Path, scale: float) -> None:
    """Start a copy, kill it when half is done, resume it, and report."""
    ledger = folder / "whole.ledger"
    rows = int(20_000 * scale) * 500
    with apart("whole", folder, scale) as first:
        while first.poll() is None and _settled(ledger) < rows // 2:
            time.sleep(2)
        first.send_signal(signal.SIGKILL)
    tell(killed_at=_settled(ledger))
    began = time.monotonic()
    with apart("whole", folder, scale, POSTDICOM_BENCH_FIRST_OPEN="1") as again:
        assert again.stdout is not None
        assert again.stdout.readline() == b"open\n"
        tell(start_of_a_process_to_the_first_open_s=time.monotonic() - began)
        print(again.stdout.readline().decode(), end="", flush=True)
    apart("report", folder, scale).wait()


def _settled(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    reader = LedgerReader(ledger)
    try:
        return sum(count.instances for state, count in reader.summary().counts.items() if state is jobs.State.DONE)
    finally:
        reader.close()


PARTS: dict[str, Callable[[Path, float], Any]] = {"lists": lists, "whole": whole, "small": small, "share": share}


def main() -> None:
    """Run what was asked for."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("part", nargs="?", choices=[*PARTS, "resumed", "report"])
    options.add_argument("--scale", type=float, default=1.0)
    options.add_argument("--folder", type=Path, help="where the ledgers lie; a temporary one without it")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicomweb-bench-") as temporary:
        folder = given.folder or Path(temporary)
        os.environ.setdefault("POSTDICOM_STATE", temporary)
        if given.part == "resumed":
            killed_and_resumed(folder, given.scale)
        elif given.part == "report":
            report(folder)
        elif given.part:
            asyncio.run(PARTS[given.part](folder, given.scale))
        else:
            for part in ("lists", "small", "share"):
                print(part, flush=True)
                apart(part, folder, given.scale).wait()
            print("whole", flush=True)
            killed_and_resumed(folder, given.scale)


if __name__ == "__main__":
    main()
