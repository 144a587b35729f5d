"""The figures as text: aligned columns for a terminal, Markdown for a file."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from shutil import which
from subprocess import run
from typing import TYPE_CHECKING

from benchmarks.names import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.runner import Row

HEADINGS = (
    "what", "side", "seconds", "fastest-slowest", "CPU seconds", "MB/s", "instances/s", "idle MiB", "over idle MiB"
)  # fmt: skip
TARGET_HEADINGS = ("what", "wanted", "measured", "")
PACKAGES = ("postdicom-async", "httpx", "aiohttp", "dicomweb-client", "requests")
PROGRAMS = (("curl", "--version"), ("nginx", "-v"), ("Orthanc", "--version"))


def machine() -> str:
    """Name the processor, memory, kernel and Python, and today."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()} "
        f"{'.'.join(platform.release().split('.')[:2])}, {platform.python_implementation()} "
        f"{platform.python_version()}, "
        f"{datetime.now().astimezone():%Y-%m-%d}"
    )


def versions() -> str:
    """Name what took part, as far as it is installed."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    for program, option in PROGRAMS:
        if which(program):
            done = run([program, option], capture_output=True, text=True, check=False)
            words = (done.stdout or done.stderr).split("\n")[0].replace("nginx version: nginx/", "nginx ").split()
            found.append(" ".join(words[:2]))
    return ", ".join(found)


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return a table of rows, its headings first; what is the same as in the line above is left out."""
    titles = [None, *(row.case.title for row in rows)]
    shown = [title if title != above else "" for above, title in pairwise(titles)]
    return [HEADINGS, *((title or "", *_cells(row)) for title, row in zip(shown, rows, strict=True))]


def _cells(row: Row) -> tuple[str, ...]:
    walls, over = [run.wall for run in row.runs], row.over_idle
    return (
        row.side,
        f"{row.wall:.2f}",
        f"{min(walls):.2f}-{max(walls):.2f}",
        f"{row.cpu:.2f}",
        f"{row.case.volume / row.wall / 1e6:.0f}",
        f"{row.case.items / row.wall:.0f}" if row.case.items > 1 else "",
        f"{row.idle / MIB:.0f}" if row.idle else "",
        "" if over is None else f"{over / MIB:.1f}",
    )


def aligned(table: Sequence[Sequence[str]], words: int = 2) -> str:
    """Return a table for a terminal; the first columns hold words, the others figures."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = (
        "  ".join(
            cell.rjust(width) if at >= words else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown(table: Sequence[Sequence[str]], words: int = 2) -> str:
    """Return a table as Markdown."""
    headings, *rows = ["| " + " | ".join(row) + " |" for row in table]
    rule = "|" + "---|" * words + "--:|" * (len(table[0]) - words)
    return "\n".join([headings, rule, *rows])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
