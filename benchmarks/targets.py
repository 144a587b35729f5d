"""What this package has to reach, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.sides import CURL, FLOOR, OURS_FAST, OURS_PLAIN, PEER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.runner import Row

MIB = 1 << 20
MEMORY_LIMIT = 32 * MIB


@dataclass(frozen=True, slots=True)
class Target:
    """At least `least` times as fast as `side` at a case."""

    case: str
    side: str
    least: float


TARGETS = (
    Target("download-many", PEER, 6.0),
    Target("download-many", CURL, 0.6),
    Target("download-large", PEER, 6.0),
    Target("download-large", CURL, 0.6),
    Target("upload-many", PEER, 3.0),
    Target("upload-large", PEER, 3.0),
    Target("upload-large", CURL, 0.6),
    Target("orthanc-download", PEER, 3.0),
    Target("orthanc-upload", PEER, 2.5),
)
MEMORY_CASES = ("memory-download", "memory-upload")


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One line for each target whose case ran."""
    found = {(row.case.name, row.side): row for row in rows}
    lines = [line for target in TARGETS if (line := _speed(target, found))]
    return lines + [_memory(row) for row in rows if row.case.name in MEMORY_CASES]


def _speed(target: Target, found: dict[tuple[str, str], Row]) -> str:
    other = found.get((target.case, target.side))
    ours = [row for side in (OURS_FAST, OURS_PLAIN) if (row := found.get((target.case, side)))]
    if other is None or not ours:
        return ""
    ratios = [ratio(row, other) for row in ours]
    figures = ", ".join(f"{times:.2f}x on {_transport(row.side)}" for row, times in zip(ours, ratios, strict=True))
    wanted = f"at least {target.least:g}x {target.side}"
    return f"{_word(ratios[0] >= target.least)}: {ours[0].case.title}: {figures}; {wanted}{_floor(target, found)}"


def _floor(target: Target, found: dict[tuple[str, str], Row]) -> str:
    """Say how far the machine and the server let anyone go."""
    floor, other = found.get((target.case, FLOOR)), found.get((target.case, target.side))
    return f" (a raw socket that parses nothing: {ratio(floor, other):.2f}x)" if floor and other else ""


def ratio(ours: Row, other: Row) -> float:
    """How many times as fast: the median of the ratios round by round, since a shared machine drifts."""
    return median(theirs.wall / mine.wall for mine, theirs in zip(ours.runs, other.runs, strict=False))


def _memory(row: Row) -> str:
    over = row.over_idle or 0
    return (
        f"{_word(over <= MEMORY_LIMIT)}: {row.case.title}: {over / MIB:.1f} MiB over idle on "
        f"{_transport(row.side)}; at most {MEMORY_LIMIT // MIB} MiB"
    )


def _transport(side: str) -> str:
    return side.partition("(")[2].rstrip(")")


def _word(met: bool) -> str:
    return "met" if met else "MISSED"
