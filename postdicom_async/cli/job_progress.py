"""How far a job is: a picture in place on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from os import environ
from typing import TYPE_CHECKING, Self, TextIO

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.disk.background import in_background, outlasting
from postdicom_async.jobs.eta import Eta

if TYPE_CHECKING:
    from rich.live import Live

    from postdicom_async.jobs import Job, Summary

__all__ = ["JobProgress", "Picture"]

_EVERY_ON_TERMINAL, _EVERY = 1.0, 30.0  # seconds


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

    def show(self, summary: Summary) -> None:
        """Show it as it is now."""
        from postdicom_async.jobs.watch import draw, line

        pace = self._eta.note(summary, time.time())
        if not self.is_drawn:
            (output.write if self._stream is sys.stdout else output.note)(line(summary, pace))
            return
        live = self._live or self._started()
        live.update(draw(summary, pace, live.console.width), refresh=True)

    def _started(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, auto_refresh=False, transient=not self._stays)
        self._live.start()
        return self._live


class JobProgress:
    """Shows a job while the block runs."""

    def __init__(self, job: Job, *, quiet: bool) -> None:
        self._job = job
        self._quiet = quiet
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if not self._quiet:
            self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._showing is not None:
            self._showing.cancel()
            await outlasting(self._showing)

    async def _show(self) -> None:
        with Picture(sys.stderr, stays=False) as picture:
            while True:
                await asyncio.sleep(_EVERY_ON_TERMINAL if picture.is_drawn else _EVERY)
                with suppress(PostdicomError):
                    picture.show(await in_background(self._job.summary))
