"""One worker of dask against two, between archives that are far away: ``python -m benchmarks.machines [studies] [ms]``.

Two embedded archives stand behind lines of 30 ms, or as many as are given, on each of whose connections as much is
under way as a window of 128 KiB allows. A scheduler and its workers run on this machine, one chunk at a time each, as
on machines of their own. Counted is what arrives in a second from the first instance to the last, so that listing,
which the coordinator does alone, is left out.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.servers import _child, _wait_for_port, delay_line, free_port
from postdicom_async import DicomWeb, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs import Scheduler, State
from tests.support.dicom_files import study_files

STUDIES, EACH = 60, 4
ROUND_TRIP = 0.03
WINDOW = 128 << 10
PIXELS = 256 << 10


async def serve(port: int) -> None:
    async with EmbeddedArchive(username=None, password=None, port=port) as archive:
        await archive.serve_forever()


async def fill(url: str, studies: int) -> None:
    async with DicomWeb(url) as client:
        for study in range(1, studies + 1):
            await client.upload(list(study_files(EACH, study=study, pixel_bytes=PIXELS).values()))


async def moved_in_a_second(source: str, target: str, scheduler: Scheduler | None, ledger: Path) -> float:
    """Copy everything; return instances a second."""
    times: list[float] = []
    async with await jobs.copy(source, target, verify="none", scheduler=scheduler, job=ledger) as job:
        async for item in job:
            assert item.state is State.DONE
            times.append(time.monotonic())
    first = sum(when == times[0] for when in times) if times else 0
    return (len(times) - max(first, EACH)) / (times[-1] - times[0])


def measured(source: str, folder: Path, workers: int, round_trip: float) -> float:
    """Return instances a second with so many workers, into an archive that is empty."""
    port, dask = free_port(), free_port()
    with ExitStack() as stack:
        archive = stack.enter_context(_child([sys.executable, "-m", "benchmarks.machines", "serve", str(port)]))
        _wait_for_port(port, archive)
        far = stack.enter_context(
            delay_line(f"http://127.0.0.1:{port}", round_trip=round_trip, rate=WINDOW / round_trip)
        )
        scheduler = ["--host", "127.0.0.1", "--port", str(dask), "--no-dashboard"]
        stack.enter_context(_child([sys.executable, "-m", "distributed.cli.dask_scheduler", *scheduler]))
        for _ in range(workers):
            options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
            command = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{dask}", *options]
            stack.enter_context(_child([*command, "--local-directory", str(folder / "scratch")]))
        time.sleep(6)  # all of them are there
        return asyncio.run(
            moved_in_a_second(source, far, Scheduler(f"tcp://127.0.0.1:{dask}"), folder / f"{workers}.ledger")
        )


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2])))
        return
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    round_trip = float(sys.argv[2]) / 1000 if len(sys.argv) > 2 else ROUND_TRIP
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        port = free_port()
        archive = stack.enter_context(_child([sys.executable, "-m", "benchmarks.machines", "serve", str(port)]))
        _wait_for_port(port, archive)
        url = f"http://127.0.0.1:{port}"
        asyncio.run(fill(url, studies))
        far = stack.enter_context(delay_line(url, round_trip=round_trip, rate=WINDOW / round_trip))
        one, two = (measured(far, Path(name), workers, round_trip) for workers in (1, 2))
        print(f"{studies * EACH} instances, round trip {round_trip * 1000:.0f} ms")
        print(f"one worker {one:.1f}/s, two {two:.1f}/s: {two / one:.2f} x")


if __name__ == "__main__":
    main()
