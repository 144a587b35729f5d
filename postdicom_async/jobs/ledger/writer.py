"""When a ledger is written: changes are gathered in the event loop, and one thread writes them in groups, in order.

A group that cannot be written stays gathered, before what comes after it. Then nothing is written by itself any more:
who asks something of the ledger tries again, and is told why not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import anyio.lowlevel

from postdicom_async.disk.private_files import FileLock
from postdicom_async.disk.threads import outlasting
from postdicom_async.errors import LedgerLocked, LedgerUnusable, PostdicomError, UsageError
from postdicom_async.jobs.ledger.book import Book
from postdicom_async.jobs.ledger.file import connected, explained_by_sqlite

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Writer"]

_T = TypeVar("_T")

_GROUP: Final = 64  # changes
_GROUP_AGE: Final = 0.2  # seconds


class Writer:
    """The thread of a ledger, its lock and its connection, and what is gathered for it.

    Attributes:
        problem: why what is gathered could not be written by itself; None while it could.
    """

    def __init__(self, path: Path) -> None:
        """Know a path; what `start` runs does the rest."""
        self.problem: PostdicomError | None = None
        self._path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._database: sqlite3.Connection | None = None
        self._book: Book | None = None
        self._gathered: deque[tuple[int | None, Callable[[Book], None]]] = deque()  # with the study it is about
        self._size = 0
        self._ending = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    # --- in the thread -----------------------------------------------------------------------------------------------

    def take_lock(self) -> None:
        """Take the lock.

        Raises:
            LedgerLocked: another process has it.
        """
        if not self._lock.take():
            raise LedgerLocked("another process runs this job")

    def connect(self) -> Book:
        """Open the file, which has been looked at."""
        self._database = connected(self._path, "rw")
        self._book = Book(self._database)
        return self._book

    @property
    def book(self) -> Book:
        """What is written to."""
        if self._book is None:
            raise UsageError("the ledger is closed")
        return self._book

    def write(self) -> None:
        """Write what is gathered; what cannot be written is gathered again, in its place."""
        group = []
        self._size = 0  # where the event loop adds to it just now, the next group is small: no harm
        while self._gathered:
            group.append(self._gathered.popleft())
        if not group:
            return
        try:
            with explained_by_sqlite():
                self.book.write([change for _, change in group])
        except BaseException:
            self._gathered.extendleft(reversed(group))
            raise

    def _close(self, last: Callable[[], None]) -> None:
        try:
            if self._database is not None:
                last()
        finally:
            database, self._database, self._book = self._database, None, None
            try:
                if database is not None:
                    with explained_by_sqlite():
                        database.close()
            finally:
                self._lock.let_go()

    # --- in the event loop -------------------------------------------------------------------------------------------

    async def start(self, how: Callable[[], None]) -> None:
        """Run what opens the ledger; close what it opened where it fails."""
        try:
            await self.in_thread(how)
        except BaseException:
            await self.end(lambda: None)
            raise

    async def end(self, last: Callable[[], None]) -> None:
        """Run ``last`` in the thread, then close everything and let the lock go, whatever it raises."""
        self._ending = True
        self._stop_timer()
        try:
            await self.in_thread(lambda: self._close(last))
        finally:
            self._thread.shutdown(wait=False)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the thread; a cancellation waits until it has been done."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        await outlasting(running)
        return running.result()

    async def ask(self, question: Callable[[Book], _T], *, study: int | None = None) -> _T:
        """Write what is gathered, then answer a question; one about a ``study`` of which nothing is gathered at once.

        So a job of many small studies pays for a group of changes, and not for each study.
        """
        failed = self.problem is not None  # then nothing is written by itself

        def work() -> _T:
            if study is None or failed or any(about == study for about, _ in tuple(self._gathered)):
                self.write()
            with explained_by_sqlite():
                return question(self.book)

        self._must_be_open()
        await anyio.lowlevel.checkpoint_if_cancelled()
        answer = await self.in_thread(work)
        if study is None or failed:
            self.problem = None
        return answer

    def gather(self, change: Callable[[Book], None], size: int = 1, *, study: int | None = None) -> None:
        """Gather a change, of a study, that counts as so many; see that it is written before long."""
        self._must_be_open()
        self._gathered.append((study, change))
        self._size += size
        self._plan_to_write()

    def _must_be_open(self) -> None:
        if self._ending:
            raise UsageError("the ledger is closed")

    def _plan_to_write(self) -> None:
        if self.problem is not None or self._writing is not None or self._ending:
            return  # it is written by who asks next, or after the group that is being written
        if self._size >= _GROUP:
            self._write_now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GROUP_AGE, self._write_now)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write_now(self) -> None:
        self._stop_timer()
        if self._writing is None:
            self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self.write)
            self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        problem = None if writing.cancelled() else writing.exception()
        if isinstance(problem, PostdicomError):
            self.problem = problem
        elif problem is not None:
            self.problem = LedgerUnusable("the ledger was used wrongly")
        elif self._gathered:
            self._plan_to_write()
