"""What one run cost: wall time, processor time and memory of the process that did the work."""

from __future__ import annotations

import gc
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

KIB = 1024


@dataclass(frozen=True, slots=True)
class Task:
    """What a side is to do. Travels to its process as JSON.

    Attributes:
        action: ``download`` or ``upload``.
        url: base address of the archive.
        studies: Study Instance UIDs to download, all at once.
        sources: folders to upload.
        body: the premade multipart body, for sides which send one.
        target: the folder downloads go to.
        boundary: of `body`.
        user, password: Basic credentials; both empty for none.
        streams: transfers at once, where the side lets that be set; 0 leaves its default.
    """

    action: str
    url: str
    studies: list[str]
    sources: list[str]
    body: str
    target: str
    boundary: str
    user: str = ""
    password: str = ""
    streams: int = 0


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
    sizes = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)
