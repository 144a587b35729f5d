"""The figures as text: aligned columns for a terminal, or Markdown."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.runner import Row

MIB = 1 << 20
HEADINGS = (
    "side", "seconds", "fastest-slowest", "MB/s", "instances/s", "CPU seconds", "peak MiB", "MiB over idle"
)  # fmt: skip


def machine() -> str:
    """Name the processor, memory, kernel and Python, and today."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()} "
        f"{platform.release()}, {platform.python_implementation()} {platform.python_version()}, "
        f"{datetime.now().astimezone():%Y-%m-%d}"
    )


def render(rows: Sequence[Row], *, markdown: bool) -> str:
    """All rows, one block for each case."""
    blocks = []
    for title, group in groupby(rows, key=lambda row: row.case.title):
        cells = [HEADINGS, *(_cells(row) for row in group)]
        blocks.append(_markdown(title, cells) if markdown else _aligned(title, cells))
    return "\n\n".join(blocks)


def bullets(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{title}:", "", *(f"* {line}" for line in lines)])


def _cells(row: Row) -> tuple[str, ...]:
    middle, walls = row.middle, [run.wall for run in row.runs]
    over = row.over_idle
    return (
        row.side,
        f"{middle.wall:.2f}",
        f"{min(walls):.2f}-{max(walls):.2f}",
        f"{row.case.volume / middle.wall / 1e6:.0f}",
        f"{row.case.items / middle.wall:.0f}" if row.case.items > 1 else "",
        f"{middle.cpu:.2f}",
        f"{middle.peak_rss / MIB:.0f}",
        "" if over is None else f"{over / MIB:.1f}",
    )


def _aligned(title: str, cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    lines = ["  ".join(_justify(cell, widths, index) for index, cell in enumerate(row)) for row in cells]
    return "\n".join([title, *lines])


def _justify(cell: str, widths: Sequence[int], column: int) -> str:
    return cell.rjust(widths[column]) if column else cell.ljust(widths[column])


def _markdown(title: str, cells: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "|---|" + "--:|" * (len(HEADINGS) - 1)
    return "\n".join([f"**{title}**", "", lines[0], rule, *lines[1:]])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
