"""A job as it is now, for everybody who looks: the ledger is read by one thread, and not oftener than it is worth.

What it holds: the last look, and how long it took to take. Whoever asks gets it while it is young; the ledger is looked
into for a tenth of the time at most, however many look. What can go wrong with the ledger is told to whoever asked.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from postdicom_async.disk.threads import outlasting
from postdicom_async.errors import PostdicomError
from postdicom_async.jobs.pages.eta import Eta
from postdicom_async.jobs.pages.serve_page import Look

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from postdicom_async.jobs.pages.report import Reader

__all__ = ["Watch"]

_T = TypeVar("_T")

_YOUNG = 1.0  # seconds
_WORTH = 10  # times as long as the last look took
_STATUS = 2.0  # seconds that the job's process has to answer


class Watch:
    """Looks at a job. Close it.

    Args:
        open_reader: opens the ledger; it is called in the thread that reads.
        ask: asks the process that runs the job; None where nobody is to be asked.
        version: of this program.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        ask: Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]] | None,
        version: str,
    ) -> None:
        self._open = open_reader
        self._ask = ask
        self._version = version
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger reader")
        self._reader: Reader | None = None
        self._file: tuple[int, int] | None = None
        self._eta = Eta()
        self._look: Look | None = None
        self._stale_at = 0.0
        self._turn = asyncio.Lock()

    async def look(self) -> Look:
        """Return the job as it is, or was a moment ago.

        Raises:
            PostdicomError: the ledger cannot be read.
        """
        async with self._turn:
            if self._look is not None and time.monotonic() < self._stale_at:
                return self._look
            begun = time.monotonic()
            summary = await self.read(lambda reader: reader.summary())
            took = time.monotonic() - begun
            pace = self._eta.note(summary, time.time())
            self._look = Look(summary, pace, await self._status(), self._version)
            self._stale_at = time.monotonic() + max(_YOUNG, took * _WORTH)
            return self._look

    async def _status(self) -> Mapping[str, Any]:
        if self._ask is None:
            return {}
        try:
            async with asyncio.timeout(_STATUS):
                return await self._ask({"do": "status"})
        except (PostdicomError, TimeoutError):
            return {"ok": False}

    async def read(self, question: Callable[[Reader], _T]) -> _T:
        """Put a question to the ledger, in its thread.

        Raises:
            PostdicomError: the ledger cannot be read.
        """

        def answer() -> _T:
            if self._reader is not None and _file_of(self._reader) != self._file:
                self._let_go()  # the job was begun afresh, and this is what it was before
            if self._reader is None:
                self._reader = self._open()
                self._file = _file_of(self._reader)
            try:
                return question(self._reader)
            except PostdicomError:
                self._let_go()  # the next who asks opens it anew
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    async def some(self, lines: Callable[[Reader], Iterable[_T]], page: int, size: int) -> tuple[list[_T], bool]:
        """Return a page of lines, from 1 on, and whether there are more.

        Raises:
            PostdicomError: the ledger cannot be read.
        """

        def take(reader: Reader) -> list[_T]:
            with closing(_generator(lines(reader))) as found:
                return list(islice(found, (page - 1) * size, page * size + 1))

        taken = await self.read(take)
        return taken[:size], len(taken) > size

    async def close(self) -> None:
        """Let go of the ledger, when the thread has done with it."""
        await outlasting(asyncio.get_running_loop().run_in_executor(self._thread, self._let_go))
        self._thread.shutdown(wait=False)


def _file_of(reader: Reader) -> tuple[int, int] | None:
    """Return what tells the file that lies at a ledger's path from others; None where that cannot be told."""
    path: Path | None = getattr(reader, "path", None)
    try:
        status = path.stat() if path else None
    except OSError:
        status = None
    if status is None:
        return None
    return status.st_dev, status.st_ino


def _generator(lines: Iterable[_T]) -> Any:
    """Return something that can be closed: a reader's generator holds a state of the ledger until it is."""
    return lines if hasattr(lines, "close") else (line for line in lines)
