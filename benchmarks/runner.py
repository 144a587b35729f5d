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
from benchmarks.verify import Expected, WrongBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.data import Study

RUN_SECONDS = 900.0
OUTSIDE_SETTINGS = frozenset({
    "ALL_PROXY", "CURL_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "PYTHONDONTWRITEBYTECODE",
    "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE",
})  # fmt: skip
HOME = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Case:
    """One task that every side has to do.

    Attributes:
        section: of the benchmark.
        name: short, for looking it up.
        title: the heading for readers.
        task: without its target, and with the address left empty when `serve` gives one for each run.
        studies: what is to be moved.
        sides: who takes part.
        serve: a fresh server for each run; ``None`` when the task already has an address.
        confirm: for uploads, asks the server that is still up what it holds, and raises `WrongBytes`.
        place: where the target folder is made; ``None`` for the benchmark's own.
        sync: write what is cached to the disk before each run.
        repeat: runs of each side; ``None`` for as many as were asked for.
        seconds: a run may take.
    """

    section: str
    name: str
    title: str
    task: Task
    studies: tuple[Study, ...]
    sides: tuple[str, ...]
    serve: Callable[[], AbstractContextManager[str]] | None = None
    confirm: Callable[[str], None] | None = None
    place: Path | None = None
    sync: bool = False
    repeat: int | None = None
    seconds: float = RUN_SECONDS

    @property
    def items(self) -> int:
        """Instances a side has to prove."""
        return sum(study.instances for study in self.studies)

    @property
    def volume(self) -> int:
        """Bytes of pixel data moved."""
        return sum(study.volume for study in self.studies)


@dataclass(frozen=True, slots=True)
class Row:
    """One side's runs of one case."""

    case: Case
    side: str
    runs: Sequence[Measurement]

    @property
    def wall(self) -> float:
        """Seconds, the median."""
        return median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        """Processor seconds, the median."""
        return median(run.cpu for run in self.runs)

    @property
    def idle(self) -> int:
        """Resident bytes before the work; 0 where that is not known."""
        return int(median(run.idle_rss for run in self.runs))

    @property
    def over_idle(self) -> int | None:
        """The median of how far each run's memory rose over where it began; ``None`` where that is not known."""
        return int(median(run.peak_rss - run.idle_rss for run in self.runs)) if self.idle else None


@dataclass(frozen=True, slots=True)
class Lines:
    """A table that does not come of cases."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(slots=True)
class Bench:
    """A run of the benchmark: where its files are, how often it repeats, what it found.

    Attributes:
        root: a folder, in memory where there is room.
        disk: a folder on a disk.
        repeat: runs of each side.
        rows: of the cases.
        figures: single ones, by name.
        lines: tables of the sections without cases.
        notes: by section.
        wrong: results that failed verification; there must be none.
    """

    root: Path
    disk: Path
    repeat: int
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    lines: dict[str, Lines] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def note(self, section: str, text: str) -> None:
        notes = self.notes.setdefault(section, [])
        if text not in notes:
            notes.append(text)

    def run(self, case: Case) -> None:
        """Run every side of `case` in turn, again and again."""
        runs: dict[str, list[Measurement]] = {side: [] for side in case.sides if self._can_run(case, side)}
        for _ in range(case.repeat or self.repeat):
            for side, found in runs.items():
                tell(f"{case.section}: {case.title}: {side}")
                measured = self._run_once(case, side)
                found.extend([measured] if measured else [])
        self.rows += [Row(case, side, found) for side, found in runs.items() if found]

    def _can_run(self, case: Case, side: str) -> bool:
        why_not = missing(side)
        if why_not:
            self.note(case.section, f"{side} left out: {why_not}")
        return not why_not

    def _run_once(self, case: Case, side: str) -> Measurement | None:
        target = (case.place or self.root) / "target"
        target.mkdir()
        if case.sync:
            os.sync()
        try:
            with case.serve() if case.serve else nullcontext(case.task.url) as url:
                measured = run_side(side, replace(case.task, url=url, target=str(target)), case.seconds)
                if case.confirm:
                    case.confirm(url)
            self._check(case, measured, target)
        except WrongBytes as error:
            self.wrong.append(f"{side} at {case.title}: {error}")
            return None
        except RuntimeError as error:
            self.note(case.section, f"{side} failed at {case.title}: {error}")
            return None
        finally:
            rmtree(target)
        return measured

    def _check(self, case: Case, measured: Measurement, target: Path) -> None:
        """Compare what a side claims to have moved with what arrived."""
        download = case.task.action == "download"
        if measured.items != case.items and not (download and measured.items == 0):
            raise WrongBytes(f"{measured.items} of {case.items} instances")
        if measured.moved < case.volume:
            raise WrongBytes(f"{measured.moved} bytes, less than the {case.volume} of the pixels")
        if download:
            Expected(case.studies).check(target)


def tell(words: str) -> None:
    """Say what goes on."""
    print(f"{words} ...", file=sys.stderr, flush=True)


def run_side(side: str, task: Task, seconds: float = RUN_SECONDS) -> Measurement:
    """One run in a fresh interpreter.

    Raises:
        RuntimeError: the side failed; the text is its last line.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sides", side],
            input=json.dumps(asdict(task)),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"not done after {seconds:.0f} s") from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def environment() -> dict[str, str]:
    """Return the environment of a client's process: bytecode is kept, proxies and certificates are not."""
    kept = {name: value for name, value in os.environ.items() if name.upper() not in OUTSIDE_SETTINGS}
    return {**kept, "PYTHONPATH": str(HOME)}
