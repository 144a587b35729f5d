"""Progress of a transfer: a bar on a terminal, an occasional line elsewhere, nothing if not wanted.

`Progress` counts at every event; a separate task draws the latest totals at its own rate, so a slow terminal does not
slow down a fast transfer. If a transfer ends without a report, these counts are all that is known. Only the transfer
changes it, in the loop's thread; memory is bounded unless ``keeps_all``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from os import environ
from typing import TYPE_CHECKING, Self

from postdicom_async.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from postdicom_async import Outcome, ProgressEvent, Status, Totals


_WINDOW = 10.0
_MOST_KEPT = 10_000


# --- pure -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RecentPace:
    """Rate and time left, from the last seconds. Times are passed in."""

    _samples: deque[tuple[float, Totals]] = field(default_factory=deque)

    def note(self, now: float, totals: Totals) -> None:
        """Record the present totals."""
        self._samples.append((now, totals))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()

    @property
    def bytes_per_second(self) -> float:
        """Bytes moved per second."""
        return self._per_second([(moment, totals.bytes_done) for moment, totals in self._ends()])

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds left at this rate, by bytes if their total is known, else by instances."""
        ends = self._ends()
        if not ends:
            return None
        _, last = ends[-1]
        if last.bytes_total is not None:
            left, pace = last.bytes_total - last.bytes_done, self.bytes_per_second
        elif last.instances_total is not None:
            left = last.instances_total - last.instances_done
            pace = self._per_second([(moment, totals.instances_done) for moment, totals in ends])
        else:
            return None
        return max(0, left) / pace if pace > 0 else None

    def _ends(self) -> list[tuple[float, Totals]]:
        return [self._samples[0], self._samples[-1]] if self._samples else []

    @staticmethod
    def _per_second(ends: list[tuple[float, int]]) -> float:
        if not ends or ends[0][0] == ends[-1][0]:
            return 0.0
        return (ends[-1][1] - ends[0][1]) / (ends[-1][0] - ends[0][0])


def counts_text(totals: Totals) -> str:
    """Return instances and bytes, with their totals where those are known."""
    instances = f"{totals.instances_done}"
    if totals.instances_total is not None:
        instances += f"/{totals.instances_total}"
    size = output.size_text(totals.bytes_done)
    if totals.bytes_total is not None:
        size += f" of {output.size_text(totals.bytes_total)}"
    return f"{instances} instances, {size}"


def fraction_of(totals: Totals) -> float | None:
    """Return the fraction done, None if unknown."""
    if totals.bytes_total:
        return min(1.0, totals.bytes_done / totals.bytes_total)
    if totals.instances_total:
        return min(1.0, totals.instances_done / totals.instances_total)
    return None


# --- views ------------------------------------------------------------------------------------------------------------


class _Lines:
    interval = 5.0

    def __init__(self, title: str) -> None:
        self._title = title

    def open(self) -> None:
        """Write nothing: short transfers need no line."""

    def show(self, totals: Totals, pace: RecentPace) -> None:
        """Write a line."""
        rate = f", {output.size_text(pace.bytes_per_second)}/s"
        left = pace.seconds_left
        ending = "" if left is None else f", {output.time_text(left)} left"
        output.note(f"{self._title}: {counts_text(totals)}{rate}{ending}")

    def close(self) -> None:
        """Write nothing: the summary comes next."""


class _Bar:
    interval = 0.1

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def open(self) -> None:
        """Draw the bar; it is removed on closing, and the summary follows."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = ("{task.description}", "{task.fields[counts]}", "{task.fields[rate]}", "{task.fields[left]}")
        title, *texts = (TextColumn(column, markup=False) for column in columns)
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._bar = Progress(title, BarColumn(24), *texts, console=console, auto_refresh=False, transient=True)
        self._task = self._bar.add_task(self._title, total=None, counts="", rate="", left="")
        self._bar.start()

    def show(self, totals: Totals, pace: RecentPace) -> None:
        """Redraw the bar."""
        if self._bar is None or self._task is None:
            return
        fraction, left = fraction_of(totals), pace.seconds_left
        self._bar.update(
            self._task,
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            counts=counts_text(totals),
            rate=f"{output.size_text(pace.bytes_per_second)}/s",
            left="" if left is None else f"{output.time_text(left)} left",
            refresh=True,
        )

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()


def _view(title: str, *, quiet: bool) -> _Lines | _Bar | None:
    if quiet:
        return None
    if sys.stderr.isatty() and environ.get("TERM") != "dumb":
        return _Bar(title)
    return _Lines(title)


# --- the listener -----------------------------------------------------------------------------------------------------


class Progress:
    """Listens to a transfer and shows it; used as ``async with``, passed as ``progress=``.

    Attributes:
        counts: instances by outcome so far, which is all that is known after an early end.
        finished: their outcomes; without ``keeps_all`` those that need attention, at most 10,000.
        bytes_done: bytes moved.
    """

    def __init__(self, title: str, *, quiet: bool, keeps_all: bool = True) -> None:
        self.counts: Counter[Status] = Counter()
        self.finished: list[Outcome] = []
        self.bytes_done: int = 0
        self._keeps_all = keeps_all
        self._view = _view(title, quiet=quiet)
        self._pace = RecentPace()
        self._totals: Totals | None = None
        self._ticking: asyncio.Task[None] | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """Take an event of the transfer."""
        self._totals = event.totals
        self.bytes_done = event.totals.bytes_done
        outcome: Outcome | None = getattr(event, "outcome", None)
        if outcome is None:
            return
        self.counts[outcome.status] += 1
        if self._keeps_all or not (outcome.ok or len(self.finished) >= _MOST_KEPT):
            self.finished.append(outcome)

    async def __aenter__(self) -> Self:
        from postdicom_async import Totals

        self._pace.note(time.monotonic(), Totals(0, None, 0, None))
        if self._view is not None:
            self._view.open()
            self._ticking = asyncio.create_task(self._tick(self._view))
        return self

    async def __aexit__(self, *_error: object) -> None:
        ticking, self._ticking = self._ticking, None
        if ticking is not None:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
        if self._view is not None:
            self._view.close()

    async def _tick(self, view: _Lines | _Bar) -> None:
        while True:
            await asyncio.sleep(view.interval)
            if self._totals is not None:
                self._pace.note(time.monotonic(), self._totals)
                view.show(self._totals, self._pace)
