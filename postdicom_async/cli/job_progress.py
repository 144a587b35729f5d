"""How far a job is: a picture in place on a terminal, elsewhere lines; and what it waits for, said once."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from datetime import datetime
from os import environ
from typing import TYPE_CHECKING, Self, TextIO

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.jobs import SETTLED, Eta, State

if TYPE_CHECKING:
    from rich.live import Live

    from postdicom_async.jobs import Job, Summary


_TICK = 1.0  # seconds; a picture each
_FIRST_LINE, _LINES, _NEWS = 5, 30, 5  # ticks


class Picture:
    """Shows a job again and again, in a ``with`` block.

    Args:
        stream: where.
        stays: the last picture stays when the block ends.

    Attributes:
        is_drawn: it is drawn in place; else there are lines.
    """

    def __init__(self, stream: TextIO, *, stays: bool) -> None:
        self.is_drawn: bool = stream.isatty() and environ.get("TERM") != "dumb"
        self._stream = stream
        self._stays = stays
        self._eta = Eta()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, summary: Summary) -> bool:
        """Show it as it is now; return False when nobody reads any more."""
        from postdicom_async import jobs

        pace = self._eta.note(summary, time.time())
        if self.is_drawn:
            live = self._live or self._started()
            live.update(jobs.draw(summary, pace, live.console.width), refresh=True)
            return True
        text = jobs.line(summary, pace)
        if self._stream is sys.stdout:
            return output.write(text)
        output.note(text)
        return True

    def _started(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, auto_refresh=False, transient=not self._stays)
        self._live.start()
        return self._live


class JobProgress:
    """Shows a job while the block runs.

    Attributes:
        told: notes of the ledger that have been shown, or are of runs before.
        done_before: instances that had been moved before it was begun, or gone on with.
    """

    def __init__(self, job: Job, *, quiet: bool, says_name: bool = True) -> None:
        self.told: set[str] = set()
        self.done_before: int = 0
        self._job = job
        self._quiet = quiet
        self._says_name = says_name
        self._waits = ""
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        summary = await asyncio.to_thread(self._job.summary)
        self.told.update(summary.notes)
        self.done_before = summary.of(State.DONE).instances
        if not self._quiet:
            if self._says_name:
                output.note(_begins(self._job, summary))
            self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._showing is not None:
            self._showing.cancel()
            with suppress(asyncio.CancelledError):
                await self._showing

    async def _show(self) -> None:
        with Picture(sys.stderr, stays=False) as picture:
            ticks = 0
            while True:
                self._tell_what_it_waits_for()
                await asyncio.sleep(_TICK)
                ticks += 1
                is_time = picture.is_drawn or ticks == _FIRST_LINE or not ticks % _LINES
                if not is_time and ticks % _NEWS:
                    continue
                with suppress(PostdicomError):
                    summary = await asyncio.to_thread(self._job.summary)
                    self._tell_news(summary)
                    if is_time:
                        picture.show(summary)

    def _tell_what_it_waits_for(self) -> None:
        waits = _waits_for(self._job)
        if waits != self._waits:
            output.note(waits or "goes on")
        self._waits = waits

    def _tell_news(self, summary: Summary) -> None:
        for note in summary.notes:
            if note not in self.told:
                self.told.add(note)
                output.note(note)


def _begins(job: Job, summary: Summary) -> str:
    known, settled = summary.discovered, sum(summary.of(state).instances for state in SETTLED)
    if not known:
        words = "begins"
    elif summary.facts.phase in ("complete", "discovering"):
        words = f"looks again; {known:,} instances are known from before"
    else:
        words = f"goes on; {settled:,} of {known:,} instances are settled"
    return f"job {job.path.stem}: {words}"


def _waits_for(job: Job) -> str:
    """Return what a job waits for, as long as nothing but a person or the clock changes it."""
    pace = job.pace.snapshot()
    if pace["open"]:
        return ""
    if pace["paused"]:
        return f"paused; postdicom jobs continue {job.path.stem} lets it go on"
    opens = pace["next_change"]
    when = f"opens {datetime.fromisoformat(opens):%a %d %b, %H:%M %Z}" if opens else "does not open any more"
    return f"waiting: the window {when.rstrip()}"
