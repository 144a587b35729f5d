"""The ledger of a job: an SQLite file with the state of every item, which survives any end of the process.

What it holds: the lock on the file, one connection, one writer thread, and the changes gathered for it. Who may change
it: one process at a time, which has the lock; in it the event loop gathers changes, and only the thread writes. A group
of changes is one transaction, durable once committed. Counts change in the same transaction as their items, so the sum
over the states always equals what was discovered, without a scan of the items.

What can go wrong: a group cannot be written (a full disk). It stays queued ahead of later changes, and automatic writes
stop: the next query tries again and raises the error to its caller. A killed process loses what was gathered and not
written: the ledger may lag behind what happened, but never claims what did not happen.

The tables: `schema`. Checks on opening, and damage: `file`. Changes of rows and counts: `book`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio.lowlevel

from postdicom_async.disk.files import explained, outlasting
from postdicom_async.disk.private_files import FileLock, keep_private, make_folder
from postdicom_async.errors import LedgerLocked, LedgerUnusable, PostdicomError, UsageError
from postdicom_async.jobs.ledger.book import Book, items_of
from postdicom_async.jobs.ledger.file import connected, examine, explained_by_sqlite, make
from postdicom_async.jobs.ledger.schema import BEFORE_ALL, ItemRow, Stage, StudyRow
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from postdicom_async.jobs.ends.end import ListedStudy
    from postdicom_async.jobs.plan import ItemEnd


_SLICE: Final = 100  # studies in one transaction, for bulk changes


class Ledger:
    """Writes a ledger. Use `create` or `open`, then ``async with``. Methods without ``async`` only gather.

    Gathered changes are committed by `commit`, by every method that reads (`items` only if some are of its study), and
    automatically after 64 changes or 200 ms.

    Attributes:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        """Keep the path; `create` and `open` do the rest."""
        self.path = path
        self._writer = Writer(path)
        self._facts: dict[str, Any] = {}

    @classmethod
    async def create(cls, path: Path, facts: Mapping[str, Any]) -> Ledger:
        """Create a ledger, readable for this user alone, and take its lock. Missing folders are created.

        Raises:
            LedgerLocked: another process is creating it.
            LedgerUnusable: it exists already.
            LocalFileError: it cannot be made.
        """
        texts = {name: json.dumps(value) for name, value in facts.items()}
        ledger = cls(path)
        await ledger._writer.start(lambda: ledger._make(texts))
        return ledger

    @classmethod
    async def open(cls, path: Path, *, identity: str | None = None) -> Ledger:
        """Open a ledger and take its lock; items left running become pending, and that attempt does not count.

        Args:
            path: its file.
            identity: the required value of its fact ``identity``.

        Raises:
            LedgerLocked: another process writes it.
            LedgerUnusable: it is damaged, of a newer version, of another job, or not a ledger. It was not touched.
            LocalFileError: it cannot be read or written.
        """
        ledger = cls(path)
        await ledger._writer.start(lambda: ledger._open(identity))
        return ledger

    def _make(self, facts: Mapping[str, str]) -> None:
        with explained("the ledger"), explained_by_sqlite():
            make_folder(self.path.parent)
            self._writer.take_lock()
            if self.path.exists() or self.path.is_symlink():
                raise LedgerUnusable("there is a file of that name; it was not touched")
            make(self.path, facts)
            self._facts = self._writer.connect().facts()

    def _open(self, identity: str | None) -> None:
        with explained("the ledger"), explained_by_sqlite():
            if not self.path.parent.is_dir():
                raise LedgerUnusable("there is no such ledger")
            self._writer.take_lock()
            examine(self.path, identity)
            keep_private(self.path)
            book = self._writer.connect()
            self._facts = book.facts()
            running = book.with_states([State.RUNNING])
            if running:
                book.done(lambda book: book.take_back(running))

    @property
    def problem(self) -> PostdicomError | None:
        """The error of the last automatic write; None if it succeeded."""
        return self._writer.problem

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit and release the lock.

        Raises:
            LocalFileError: the last group could not be written, and nothing else went wrong: see `commit`.
        """
        problem: PostdicomError | None = None
        try:
            await self._writer.end(self._writer.write)
        except PostdicomError as last:
            problem = last
        if error is None and problem is not None:
            raise problem

    async def commit(self) -> None:
        """Write all gathered changes durably.

        Raises:
            LocalFileError: the disk is full, or fails. Nothing of the group was written; it stays queued.
        """
        await self._writer.ask(lambda _: None)

    # --- facts -------------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """Return the JSON value stored under a name, or None."""
        return self._facts.get(name)

    def put(self, name: str, value: Any) -> None:
        """Gather a fact: ``phase``, ``run``, settings, cursors."""
        text = json.dumps(value)
        self._facts[name] = json.loads(text)
        self._writer.gather(lambda book: book.put(name, text))

    # --- studies -----------------------------------------------------------------------------------------------------

    async def note_studies(
        self, studies: Sequence[ListedStudy], *, at_target: bool, run: int, first: Mapping[str, int] | None = None
    ) -> None:
        """Record the studies that an end lists.

        New studies of the source become FOUND and get a position: those in ``first`` by the number there, then the
        newest month first, undated ones last. Known ones get the new count and run; their stage stays, and with
        ``first`` the position is set again. Studies that only the target lists are kept too, with ``seen`` 0.
        """
        noted = list(studies)
        await self._writer.ask(
            lambda book: book.done(lambda book: book.note_studies(noted, at_target=at_target, run=run, first=first))
        )

    async def studies(
        self,
        stage: Stage | None = None,
        *,
        limit: int = 1000,
        after: tuple[int, int] = BEFORE_ALL,
        run: int | None = None,
        unseen: bool = False,
    ) -> list[StudyRow]:
        """Return studies by position and id, after the given pair.

        Optionally of one stage, and then only those that the source ever listed; of those it listed in ``run``, or with
        ``unseen`` those it listed in earlier runs but not in ``run``.
        """
        where, values = ["1"], list[object]()
        if stage is not None:
            where += ["stage = ?", "seen > 0"]
            values += [int(stage)]
        if run is not None:
            where += ["seen > 0 AND seen < ?" if unseen else "seen = ?"]
            values += [run]
        condition = " AND ".join(where)
        return await self._writer.ask(lambda book: book.studies(after, limit, where=condition, values=values))

    async def study(self, uid: str) -> StudyRow | None:
        """Return a study. The UID "" stands for files that are not instances; no end lists it."""
        return await self._writer.ask(lambda book: book.study_of(uid))

    def set_stage(self, study_id: int, stage: Stage, *, planned: int | None = None) -> None:
        """Gather a new stage of a study; with EQUAL its ``planned`` instances count as PRESENT without rows.

        Rows that it has stay as they are, and only instances beyond them are counted so.
        """
        self._writer.gather(lambda book: book.set_stage(study_id, stage, planned), study=study_id)

    # --- items -------------------------------------------------------------------------------------------------------

    async def items(self, study_id: int, *, states: Sequence[State] | None = None) -> list[ItemRow]:
        """Return the items of a study, by series and UID.

        Raises:
            LedgerUnusable: rows are damaged, or their number differs from the count.
        """
        return await self._writer.ask(
            lambda book: items_of(book.database, book.study(study_id), states), study=study_id
        )

    def plan(self, study_id: int, rows: Iterable[ItemRow]) -> None:
        """Gather the planned states of items: new ones are added, known ones set.

        Instances that an EQUAL study counted without rows are no longer counted.
        """
        planned = list(rows)
        self._writer.gather(lambda book: book.plan(study_id, planned), len(planned), study=study_id)

    def forget(self, study_id: int, keys: Iterable[tuple[str, str]]) -> None:
        """Gather the removal of items (series, UID), such as placeholders."""
        forgotten = list(keys)
        self._writer.gather(lambda book: book.forget(study_id, forgotten), len(forgotten))

    def run_items(self, study_id: int, keys: Iterable[tuple[str, str]]) -> None:
        """Gather that items (series, UID) are RUNNING, with one more attempt each."""
        running = list(keys)
        self._writer.gather(lambda book: book.run_items(study_id, running), len(running), study=study_id)

    def settle(self, study_id: int, ends: Iterable[ItemEnd], *, attempt_counts: bool = True) -> None:
        """Gather the outcomes of items.

        ``attempt_counts`` False undoes the attempt, since an outage is not the item's fault.

        Items that are DONE are counted in the minute's `summary.Moment`.

        Raises:
            AssertionError: the transition is not in `states.MOVES` (checked on writing; then the group is not written).
        """
        settled, minute = list(ends), int(time.time()) // 60 * 60
        self._writer.gather(
            lambda book: book.settle(study_id, settled, attempt_counts=attempt_counts, minute=minute),
            len(settled),
            study=study_id,
        )

    async def reset(self, states: Sequence[State], *, reasons: Sequence[int] | None = None) -> int:
        """Make items pending again, with zero attempts, and their studies PLANNED; return the number of items."""
        numbers = await self._writer.ask(lambda book: book.with_states(states))
        reset = 0
        for start in range(0, len(numbers), _SLICE):
            change = partial(Book.reset, numbers=numbers[start : start + _SLICE], states=states, reasons=reasons)
            reset += await self._writer.ask(partial(Book.done, change=change))
        return reset

    def note_verified(self, study_id: int, instances: int) -> None:
        """Gather how many of a study's items were found at the target; replaces the earlier number."""
        self._writer.gather(lambda book: book.note_verified(study_id, instances), study=study_id)

    def note_coerced(self, tags: Iterable[str]) -> None:
        """Gather that the target coerced these elements (8 hexadecimal digits each) in an instance."""
        changed = list(tags)
        if changed:
            self._writer.gather(lambda book: book.note_coerced(changed), len(changed))

    def note(self, text: str) -> None:
        """Gather a line for people, with the time; it must hold nothing private."""
        at = time.time()
        self._writer.gather(lambda book: book.note(at, text))

    async def counts(self) -> Mapping[State, tuple[int, int]]:
        """Return instances and bytes by state."""
        return await self._writer.ask(lambda book: book.counts())


# --- the thread that writes ------------------------------------------------------------------------------------------


_T = TypeVar("_T")

_GROUP: Final = 64  # changes
_GROUP_AGE: Final = 0.2  # seconds


class Writer:
    """The writer thread of a ledger, its lock, its connection, and the gathered changes.

    Attributes:
        problem: the error of the last automatic write; None if it succeeded.
    """

    def __init__(self, path: Path) -> None:
        """Keep the path; `start` does the rest."""
        self.problem: PostdicomError | None = None
        self._path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._database: sqlite3.Connection | None = None
        self._book: Book | None = None
        self._gathered: deque[tuple[int | None, Callable[[Book], None]]] = deque()  # each with its study
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
            raise LedgerLocked("this process or another runs this job already")

    def connect(self) -> Book:
        """Connect to the file, which has been checked."""
        self._database = connected(self._path, "rw")
        self._book = Book(self._database)
        return self._book

    @property
    def book(self) -> Book:
        """The open book."""
        if self._book is None:
            raise UsageError("the ledger is closed")
        return self._book

    def write(self) -> None:
        """Write the gathered changes; on failure they go back to the front of the queue."""
        group = []
        self._size = 0  # if the event loop adds a change right now, the next group is just smaller
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
        """Run ``how``, which opens the ledger, in the thread; close everything if it fails."""
        try:
            await self.in_thread(how)
        except BaseException:
            await self.end(lambda: None)
            raise

    async def end(self, last: Callable[[], None]) -> None:
        """Run ``last`` in the thread, then close everything and release the lock, even if it raises."""
        self._ending = True
        self._stop_timer()
        try:
            await self.in_thread(lambda: self._close(last))
        finally:
            self._thread.shutdown(wait=False)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the thread; a cancellation is delayed until it has finished."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        await outlasting(running)
        return running.result()

    async def ask(self, question: Callable[[Book], _T], *, study: int | None = None) -> _T:
        """Write the gathered changes, then run a query.

        If it is about a ``study`` without gathered changes, run it at once.

        So a job of many small studies pays one commit per group of changes, not one per study.
        """
        failed = self.problem is not None  # stops automatic writes

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
        """Queue a change of a study that counts as ``size`` changes, and schedule a write."""
        self._must_be_open()
        self._gathered.append((study, change))
        self._size += size
        self._plan_to_write()

    def _must_be_open(self) -> None:
        if self._ending:
            raise UsageError("the ledger is closed")

    def _plan_to_write(self) -> None:
        if self.problem is not None or self._writing is not None or self._ending:
            return  # the next query writes it, or it is written after the group in progress
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
