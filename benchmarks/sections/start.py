"""How long it takes until something can be done: import and client, the first answered search, the command."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from shutil import which
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.data import Study, write_study
from benchmarks.measure import cpu_seconds
from benchmarks.runner import Bench, Lines, environment, tell
from benchmarks.servers import static_server

if TYPE_CHECKING:
    from benchmarks.sizes import Sizes

CLIENT = "import postdicom_async; postdicom_async.DicomWeb('http://127.0.0.1:9')"
SEARCH = """
import asyncio, postdicom_async
async def main():
    async with postdicom_async.DicomWeb({url!r}) as archive:
        found = await archive.search_for_studies({{"StudyInstanceUID": {uid!r}}}, limit=1){raw}.first()
    assert found is not None
asyncio.run(main())
"""
HEADINGS = ("what", "seconds", "fastest-slowest", "over `python -c pass`", "CPU seconds")


def run_start(bench: Bench, sizes: Sizes) -> None:
    written = write_study(bench.root, Study(101, 1))
    with static_server(bench.root) as url:
        took, cpu = _times(_commands(url, written.study.uid), sizes.starts)
    written.remove()
    nothing = median(took["nothing"])
    rows = []
    for name, words in _NAMES.items():
        middle = median(took[name])
        bench.figures[f"start-{name}"] = middle
        rows.append(
            (
                words,
                f"{middle:.3f}",
                f"{min(took[name]):.3f}-{max(took[name]):.3f}",
                f"{middle - nothing:.3f}",
                f"{median(cpu[name]):.3f}",
            )
        )
    bench.lines["start"] = Lines(HEADINGS, rows)
    bench.note("start", f"whole processes, median of {sizes.starts}, in turn; bytecode compiled, files cached")


_NAMES = {
    "nothing": "`python -c pass`",
    "client": "`import postdicom_async; DicomWeb(url)`",
    "search": "the same, and a first search answered, as JSON",
    "dataset": "the same, as a data set",
    "version": "`postdicom --version`",
}


def _commands(url: str, uid: str) -> dict[str, list[str]]:
    beside = Path(sys.executable).with_name("postdicom")
    command = str(beside) if beside.exists() else which("postdicom")
    return {
        "nothing": [sys.executable, "-c", "pass"],
        "client": [sys.executable, "-c", CLIENT],
        "search": [sys.executable, "-c", SEARCH.format(url=url, uid=uid, raw=".raw")],
        "dataset": [sys.executable, "-c", SEARCH.format(url=url, uid=uid, raw="")],
        "version": [*([command] if command else [sys.executable, "-m", "postdicom_async.cli"]), "--version"],
    }


def _times(commands: dict[str, list[str]], starts: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Start each once to compile the bytecode, then in turn; return seconds, and processor seconds."""
    took: dict[str, list[float]] = {name: [] for name in commands}
    spent: dict[str, list[float]] = {name: [] for name in commands}
    tell("start: processes")
    for round_ in range(starts + 1):
        for name, command in commands.items():
            before, started = cpu_seconds(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=os.sep, env=environment())
            if round_:
                took[name].append(time.perf_counter() - started)
                spent[name].append(cpu_seconds(resource.RUSAGE_CHILDREN) - before)
    return took, spent
