"""The performance targets of this package, and whether they were reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.names import MIB
from benchmarks.sides import CURL, OURS, OURS_NO_FSYNC, OURS_ONE_STREAM, PEER, REQUESTS

if TYPE_CHECKING:
    from benchmarks.runner import Row

MET, MISSED, NOT_MEASURED = "met", "**missed**", "not measured"
MILLION = 1_000_000
TWO_PLACES = frozenset({"x", " s"})
LEAST_SCALE = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured: rows by case and side, single figures by name."""

    rows: Mapping[tuple[str, str], Row]
    figures: Mapping[str, float]


def found(rows: Sequence[Row], figures: Mapping[str, float]) -> Found:
    return Found({(row.case.name, row.side): row for row in rows}, figures)


Measure: TypeAlias = Callable[[Found], "float | None"]


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        name: what is looked at; with `rule` it is unique.
        rule: the requirement in words, without the figure.
        measure: takes the figure from the results; None if it was not measured.
        least, most: the bounds; one of them is given.
        unit: the figure's unit.
    """

    name: str
    rule: str
    measure: Measure
    least: float | None = None
    most: float | None = None
    unit: str = "x"

    @property
    def wanted(self) -> str:
        """The rule with its bound."""
        bound = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{self.rule}: {bound}{self.unit}"

    def verdict(self, figure: float | None) -> str:
        """Return whether a figure meets the target, in words."""
        if figure is None:
            return NOT_MEASURED
        below = self.least is not None and figure < self.least
        above = self.most is not None and figure > self.most
        return MISSED if below or above else MET

    def line(self, what: Found) -> tuple[str, str, str, str]:
        """Return name, what is wanted, the figure, and the verdict."""
        figure = self.measure(what)
        shown = "" if figure is None else f"{figure:.{2 if self.unit in TWO_PLACES else 0}f}{self.unit}"
        return self.name, self.wanted, shown, self.verdict(figure)


# --- how a figure comes of runs: each pair of rounds gives one, since a shared machine drifts -------------------------


def _pairs(case: str, one: str, other: str, cost: Callable[[Row], Sequence[float]]) -> Measure:
    def measure(what: Found) -> float | None:
        ours, theirs = what.rows.get((case, one)), what.rows.get((case, other))
        if ours is None or theirs is None:
            return None
        return median(b / a for a, b in zip(cost(ours), cost(theirs), strict=False))

    return measure


def _walls(row: Row) -> list[float]:
    return [run.wall for run in row.runs]


def _cpus(row: Row) -> list[float]:
    return [max(run.cpu, 1e-6) for run in row.runs]


def speed(case: str, other: str, one: str = OURS) -> Measure:
    """How many times as fast as another side."""
    return _pairs(case, one, other, _walls)


def cpu_saved(case: str, other: str) -> Measure:
    """How many times the processor time another side takes."""
    return _pairs(case, OURS, other, _cpus)


def cpu_taken(case: str, other: str) -> Measure:
    """How many times the processor time of another side is taken."""
    return _pairs(case, other, OURS, _cpus)


def over_idle(case: str) -> Measure:
    """MiB over idle at the peak."""

    def measure(what: Found) -> float | None:
        row = what.rows.get((case, OURS))
        return None if row is None or row.over_idle is None else row.over_idle / MIB

    return measure


def growth(way: str) -> Measure:
    """MiB that a million instances take over what a thousand take."""

    def measure(what: Found) -> float | None:
        most, least = (over_idle(f"scale-{way}-{count}")(what) for count in (MILLION, LEAST_SCALE))
        return None if most is None or least is None else most - least

    return measure


def figure(name: str) -> Measure:
    """Take a figure as it was measured."""
    return lambda what: what.figures.get(name)


def against_delay(case: str) -> Measure:
    """Compare with the rate that ``parallel_stores`` requests at once can have over a long line."""

    def measure(what: Found) -> float | None:
        row, possible = what.rows.get((case, OURS)), what.figures.get("stores-a-second")
        return None if row is None or possible is None else row.case.items / row.wall / possible

    return measure


CT, LARGE = "download 400 x 0.5 MB", "download 1 GB"
SINGLE = "upload, one instance a request"

TARGETS: tuple[Target, ...] = (
    Target(CT, "speed of curl", speed("plain-many", CURL), least=0.8),
    Target(CT, "speed of dicomweb-client", speed("plain-many", PEER), least=3.3),
    Target(CT, "processor time of curl (1.6x would be better)", cpu_taken("plain-many", CURL), most=2.0),
    Target(f"{CT}, TLS", "speed of curl", speed("tls-many", CURL), least=0.85),
    Target(f"{CT}, TLS", "speed of dicomweb-client", speed("tls-many", PEER), least=2.5),
    Target(LARGE, "speed of curl", speed("plain-large", CURL), least=0.9),
    Target(f"{LARGE}, TLS", "speed of curl", speed("tls-large", CURL), least=0.9),
    Target(f"{CT}, disk", "speed of our own without fsync", speed("disk-many", OURS_NO_FSYNC), least=0.8),
    Target("shaped network, 8 series", "speed of 8 curls at once", speed("shaped", CURL), least=0.75),
    Target(
        "Orthanc, 8 series", "speed of our own with one stream", speed("shaped-orthanc", OURS_ONE_STREAM), least=0.95
    ),
    Target("Orthanc down", "speed of dicomweb-client", speed("orthanc-download", PEER), least=3.0),
    Target(f"{SINGLE}, 0.5 MB", "speed of requests", speed("single-large", REQUESTS), least=1.2),
    Target(
        f"{SINGLE}, 0.5 MB", "processor time of requests, over ours", cpu_saved("single-large", REQUESTS), least=1.2
    ),
    Target(f"{SINGLE}, 10 kB", "speed of requests", speed("single-small", REQUESTS), least=1.2),
    Target(f"{SINGLE}, 10 kB", "processor time of requests, over ours", cpu_saved("single-small", REQUESTS), least=1.2),
    Target(f"{SINGLE}, 30 ms", "of parallel_stores / delay", against_delay("single-delay"), least=0.8),
    Target("16 streams, one of 4 GB, down", "over idle", over_idle("memory-download-16"), most=32, unit=" MiB"),
    Target("16 streams, one of 4 GB, up", "over idle", over_idle("memory-upload-16"), most=32, unit=" MiB"),
    Target("one instance of 1 GB, down", "over idle", over_idle("memory-download-1"), most=12, unit=" MiB"),
    Target("one instance of 1 GB, up", "over idle", over_idle("memory-upload-1"), most=12, unit=" MiB"),
    Target("1,000,000 x 1 kB, down", "over what 1,000 take", growth("download"), most=48, unit=" MiB"),
    Target("1,000,000 x 1 kB, up", "over what 1,000 take", growth("upload"), most=48, unit=" MiB"),
    Target("ten cancelled requests", "sockets after 1 s", figure("sockets"), most=0, unit=""),
    Target("200 processes that end after one", "clean exits", figure("clean-exits"), least=100, unit=" %"),
    Target("import and client, cold", "whole process", figure("start-client"), most=0.2, unit=" s"),
    Target("postdicom --version", "whole process", figure("start-version"), most=0.25, unit=" s"),
)
