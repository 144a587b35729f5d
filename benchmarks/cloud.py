"""Uploads over the Cloud API, and reading of files: ``python -m benchmarks.cloud``.

The embedded archive runs in a process of its own, and so does each upload, so that memory is the client's alone. Every
file is compared with what the archive holds, and a figure stands for nothing else than a complete upload.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from statistics import median
from subprocess import PIPE, Popen, run
from tempfile import TemporaryDirectory

from benchmarks.data import make_files
from benchmarks.measure import Measurement, Meter
from benchmarks.names import MIB
from benchmarks.table import machine
from postdicom_async import CloudApi, read_files
from postdicom_async.emulator import EmbeddedArchive

PART = 512 * 1024
LATENCY = 0.02
LEAST_RATIO, MOST_MEMORY, LEAST_A_MINUTE = 3.0, 48 * MIB, 10_000
HUGE, QUICK_HUGE = 3 * 10**9, 3 * 10**8
SMALL, QUICK_SMALL = 5_000, 500
PARTS = 256
SCANNED, QUICK_SCANNED = 10_000, 1_000


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client process is to do."""

    router_url: str
    source: str
    sockets: int


async def serve(folder: Path, latency: float) -> None:
    async with EmbeddedArchive(folder) as archive:
        archive.cloud.oddities.latency = latency
        archive.cloud.recording = False
        print(archive.router_url, flush=True)
        await archive.serve_forever()


async def upload(work: Upload) -> Measurement:
    archive = EmbeddedArchive()
    keys = archive.cloud_api_key, archive.cloud_account_key
    async with CloudApi(*keys, user=archive.cloud_user_uuid, router_url=work.router_url) as api:
        with Meter() as meter:
            report = await api.upload(
                Path(work.source), institution_uuid=archive.institution_uuid, sockets=work.sockets
            )
    report.raise_for_failures()
    return meter.result(len(report.outcomes), report.bytes_sent)


async def scan(source: Path) -> Measurement:
    with Meter() as meter:
        found = await read_files(source)
    return meter.result(len(found.instances), 0)


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def archive(folder: Path, latency: float = 0.0) -> Iterator[str]:
    words = [sys.executable, "-m", "benchmarks.cloud", "--serve", str(folder), "--latency", str(latency)]
    with Popen(words, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait()


def measured(option: str, work: str) -> Measurement:
    words = [sys.executable, "-m", "benchmarks.cloud", option, work]
    done = run(words, stdout=PIPE, text=True, check=True, timeout=1800)
    return Measurement(**json.loads(done.stdout))


def uploaded(source: Path, folder: Path, *, sockets: int, latency: float = 0.0) -> Measurement:
    """Upload a file or folder into a new archive, and compare every byte."""
    rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with archive(folder, latency) as router_url:
        result = measured("--upload", json.dumps(asdict(Upload(router_url, str(source), sockets))))
    sent, held = (digests(place) for place in (source, folder / "studies"))
    if sent != held or len(sent) != result.items:
        raise RuntimeError("what the archive holds is not what was sent")
    rmtree(folder)
    return result


def digests(place: Path) -> list[str]:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sorted(digest(path) for path in files)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what is measured -------------------------------------------------------------------------------------------------


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def part_rate(root: Path, repeat: int) -> Iterator[str]:
    source = make_files(root / "parts", 1, PARTS * PART - 4096)
    rates: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(repeat):
        for sockets, found in rates.items():
            found.append(PARTS / uploaded(source, root / "archive", sockets=sockets, latency=LATENCY).wall)
    ratio = median(eight / one for one, eight in zip(rates[1], rates[8], strict=True))
    one, eight = median(rates[1]), median(rates[8])
    yield f"parts a second at {LATENCY * 1000:.0f} ms latency: {one:.0f} with one in flight, {eight:.0f} over 8 sockets"
    yield f"{verdict(ratio >= LEAST_RATIO)}: {ratio:.1f} times the rate; at least {LEAST_RATIO:g}"


def memory_line(what: str, result: Measurement) -> str:
    over = result.peak_rss - result.idle_rss
    rate = result.moved / result.wall / 1e6
    return (
        f"{verdict(over <= MOST_MEMORY)}: {what}: {over / MIB:.0f} MiB over idle, at most {MOST_MEMORY // MIB} MiB; "
        f"{rate:.0f} MB/s, {result.items / result.wall:.0f} files/s, {result.cpu:.1f} s of processor time"
    )


def huge_file(root: Path, size: int) -> Iterator[str]:
    source = make_files(root / "huge", 1, size)
    yield memory_line(f"one file of {size / 1e9:.1f} GB, 8 sockets", uploaded(source, root / "archive", sockets=8))
    rmtree(source)


def small_files(root: Path, count: int) -> Iterator[str]:
    source = make_files(root / "small", count, 10_000)
    yield memory_line(f"{count} small files, 8 sockets", uploaded(source, root / "archive", sockets=8))
    rmtree(source)


def scanned(root: Path, count: int) -> Iterator[str]:
    source = make_files(root / "scanned", count, 50_000)
    result = measured("--scan", str(source))
    a_minute = result.items / result.wall * 60
    met = verdict(a_minute >= LEAST_A_MINUTE and result.items == count)
    yield f"{met}: read_files: {result.items} files, {a_minute:.0f} a minute; at least {LEAST_A_MINUTE}"
    rmtree(source)


def main() -> int:
    options = _options()
    if options.serve:
        asyncio.run(serve(Path(options.serve), options.latency))
    elif options.upload:
        print(json.dumps(asdict(asyncio.run(upload(Upload(**json.loads(options.upload)))))))
    elif options.scan:
        print(json.dumps(asdict(asyncio.run(scan(Path(options.scan))))))
    else:
        _measure_all(options)
    return 0


def _measure_all(options: argparse.Namespace) -> None:
    quick = options.quick
    with TemporaryDirectory(prefix="cloud-bench-") as folder:
        root = Path(folder)
        for lines in (
            part_rate(root, options.repeat),
            small_files(root, QUICK_SMALL if quick else SMALL),
            huge_file(root, QUICK_HUGE if quick else HUGE),
            scanned(root, QUICK_SCANNED if quick else SCANNED),
        ):
            for line in lines:
                print(f"* {line}", flush=True)
    print(f"\n{machine()}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cloud", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data: a check that it runs, not a figure")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs for the part rate (3)")
    for hidden in ("--serve", "--upload", "--scan"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--latency", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
