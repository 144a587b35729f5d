"""How far a job is, on a terminal in place, elsewhere a line now and then."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.disk.background import in_background, outlasting

if TYPE_CHECKING:
    from postdicom_async.jobs import Job, Summary

__all__ = ["JobProgress"]

_EVERY_ON_TERMINAL, _EVERY = 1.0, 30.0  # seconds


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
        every = _EVERY_ON_TERMINAL if sys.stderr.isatty() else _EVERY
        while True:
            await asyncio.sleep(every)
            with suppress(PostdicomError):
                output.note(_line(await in_background(self._job.summary)))


def _line(summary: Summary) -> str:
    counts = ", ".join(f"{count.instances} {state.name.lower()}" for state, count in sorted(summary.counts.items()))
    return f"{summary.facts.phase}: {counts}"
