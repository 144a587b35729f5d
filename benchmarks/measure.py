"""The cost of one run: wall time, processor time and memory of the process that did the work."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.names import KIB

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Task:
    """What a side is to do. Travels to its process as JSON.

    Attributes:
        action: ``download`` or ``upload``.
        url: base address of the archive.
        studies: Study Instance UIDs to download, all at once.
        sources: folders to upload, all at once.
        bodies: for the sides that know no studies: the paths to download, all at once, or the file of a premade
            ``multipart/related`` body to upload.
        target: the folder downloads go to.
        user, password: Basic credentials; both empty for none.
        authority: PEM file of the authority to trust; empty for plain HTTP.
        dialect: ``dicomweb`` or ``postdicom``; in the second each instance has a request of its own.
        fsync: False to switch off what makes files durable; the default is what users get.
        each: True to take the outcomes one by one and keep none; the default has a report of all of them.
        one_stream: True to have one request at a time; the default is what users get.
    """

    action: str
    url: str = ""
    studies: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()
    target: str = ""
    user: str = ""
    password: str = ""
    authority: str = ""
    dialect: str = "dicomweb"
    fsync: bool = True
    each: bool = False
    one_stream: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. Seconds and bytes; `items` and `moved` are what the side can prove it moved."""

    wall: float
    cpu: float
    idle_rss: int
    peak_rss: int
    items: int
    moved: int


def memory(pid: int | str = "self") -> tuple[int, int]:
    """Resident bytes now and at their peak; the peak only, twice, where there is no ``/proc``."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)
        return peak, peak
    found = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM")))
    now, peak = (int(found.get(key, "0 kB").split()[0]) * KIB for key in ("VmRSS", "VmHWM"))
    return now, peak


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


@dataclass(slots=True)
class Meter:
    """``with Meter() as meter: ...`` around the work alone; then ``meter.result(items, moved)``."""

    _idle: int = 0
    _peak: int = 0
    _cpu: float = 0.0
    _wall: float = field(default=0.0)

    def __enter__(self) -> Self:
        gc.collect()
        with suppress(OSError):  # starts the kernel's peak anew, so that imports do not count
            Path("/proc/self/clear_refs").write_text("5")
        self._idle, _ = memory()
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = cpu_seconds() - self._cpu
        _, self._peak = memory()

    def result(self, items: int, moved: int) -> Measurement:
        return Measurement(self._wall, self._cpu, self._idle, self._peak, items, moved)


def files_in(folder: str) -> tuple[int, int]:
    """How many files are under `folder`, and their bytes."""
    count = total = 0
    for place, _, names in os.walk(folder):
        count += len(names)
        total += sum(os.stat(os.path.join(place, name)).st_size for name in names)  # noqa: PTH116, PTH118 - a million
    return count, total
