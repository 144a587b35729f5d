"""Runs each side of a case in a process of its own, sides in turn, and checks what they say they moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.measure import Measurement, Task
from benchmarks.sides import missing

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Case:
    """One thing every side is asked to do.

    Attributes:
        name: short, for looking it up.
        title: what a reader is told.
        task: without its target, and with the address left empty when `serve` gives one for each run.
        items: instances a side has to prove.
        volume: bytes of pixel data moved.
        sides: who takes part.
        serve: a fresh server for each run; ``None`` when the task already has an address.
    """

    name: str
    title: str
    task: Task
    items: int
    volume: int
    sides: tuple[str, ...]
    serve: Callable[[], AbstractContextManager[str]] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One side's runs of one case."""

    case: Case
    side: str
    runs: list[Measurement]

    @property
    def middle(self) -> Measurement:
        """The median of each figure."""
        figures = {name: median(getattr(run, name) for run in self.runs) for name in ("wall", "cpu", "items", "moved")}
        memory = {name: int(median(getattr(run, name) for run in self.runs)) for name in ("idle_rss", "peak_rss")}
        return Measurement(
            figures["wall"], figures["cpu"], **memory, items=int(figures["items"]), moved=int(figures["moved"])
        )

    @property
    def over_idle(self) -> int | None:
        """The median of how far each run's memory rose over where it began; ``None`` where that is not known."""
        return int(median(run.peak_rss - run.idle_rss for run in self.runs)) if self.runs[0].idle_rss else None


@dataclass(slots=True)
class Bench:
    """A run of the benchmark: where its files are, how often it repeats, what it found."""

    root: Path
    repeat: int
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def run(self, case: Case) -> None:
        """Run every side of `case` in turn, `repeat` times over."""
        runs: dict[str, list[Measurement]] = {side: [] for side in case.sides if self._can_run(side)}
        for _ in range(self.repeat):
            for side, found in runs.items():
                print(f"{case.title}: {side} ...", file=sys.stderr, flush=True)
                measured = self._run_once(case, side)
                found.extend([measured] if measured else [])
        self.rows += [Row(case, side, found) for side, found in runs.items() if found]

    def _can_run(self, side: str) -> bool:
        why_not = missing(side)
        if why_not:
            self.note(f"{side} left out: {why_not}")
        return not why_not

    def _run_once(self, case: Case, side: str) -> Measurement | None:
        target = self.root / "target"
        target.mkdir()
        try:
            with case.serve() if case.serve else nullcontext(case.task.url) as url:
                measured = run_side(side, replace(case.task, url=url, target=str(target)))
        except RuntimeError as error:
            self.note(f"{side} failed at {case.title}: {error}")
            return None
        finally:
            rmtree(target)
        proven = measured.items == case.items or (measured.items == 0 and case.task.action == "download")
        if not proven or measured.moved < case.volume:
            self.note(f"{side} moved {measured.items} instances, {measured.moved} bytes at {case.title}: left out")
            return None
        return measured


def run_side(side: str, task: Task) -> Measurement:
    """One run in a fresh interpreter.

    Raises:
        RuntimeError: the side failed; the text is its last line.
    """
    home = Path(__file__).parent.parent
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sides", side],
            input=json.dumps(asdict(task)),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": str(home)},
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"not done after {RUN_SECONDS:.0f} s") from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))
