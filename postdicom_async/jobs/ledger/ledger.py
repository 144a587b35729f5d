"""The ledger of a job: one SQLite file that says of every item where it stands, and survives whatever ends the process.

What it holds: the lock on the file, one connection, one thread that writes, and the changes that are gathered for it.
Who may change it: one process at a time, which has the lock; in it the event loop gathers, and the thread alone writes.
A group of changes is one transaction, durable when it is committed, and counts change in the same transaction as their
items: the sum over the states is what was discovered at any instant, without a pass over the items.

What can go wrong: a group cannot be written (a full disk). It stays gathered, before what comes after it, and nothing
is written by itself any more: the next question to the ledger tries again, and its caller is told why not. A process
that is killed loses what was gathered and not written: the ledger may know less than is true, and never more.

What it holds, and may be relied on: `schema`. What is refused, and how damage is noticed: `file`. How lines and counts
change together: `book`.
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

from postdicom_async.disk.files import explained
from postdicom_async.disk.private_files import FileLock, keep_private, make_folder
from postdicom_async.disk.threads import outlasting
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


_SLICE: Final = 100  # studies in one transaction, where many change at once


class Ledger:
    """Writes a ledger. Use `create` or `open`, then ``async with``. Methods without ``async`` only gather.

    What is gathered is committed by `commit`, by every method that reads (`items` where some of it is that study's),
    and by itself when it is 64 changes or 200 ms old.

    Attributes:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        """Know a path; `create` and `open` do the rest."""
        self.path = path
        self._writer = Writer(path)
        self._facts: dict[str, Any] = {}

    @classmethod
    async def create(cls, path: Path, facts: Mapping[str, Any]) -> Ledger:
        """Make a new ledger, readable for this user alone, and take its lock. Folders that are missing are made.

        Raises:
            LedgerLocked: another process is making it.
            LedgerUnusable: there is one.
            LocalFileError: it cannot be made.
        """
        texts = {name: json.dumps(value) for name, value in facts.items()}
        ledger = cls(path)
        await ledger._writer.start(lambda: ledger._make(texts))
        return ledger

    @classmethod
    async def open(cls, path: Path, *, identity: str | None = None) -> Ledger:
        """Open a ledger and take its lock; what was running is pending again, without that attempt.

        Args:
            path: its file.
            identity: what its fact ``identity`` must be.

        Raises:
            LedgerLocked: another process writes it.
            LedgerUnusable: it is damaged, of a newer version, of another job, or no ledger. It was not touched.
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
        """Why what is gathered could not be written by itself; None while it could."""
        return self._writer.problem

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, and let the lock go.

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
        """Make everything durable that was gathered.

        Raises:
            LocalFileError: the disk is full, or fails. Nothing of the group was written; it is still gathered.
        """
        await self._writer.ask(lambda _: None)

    # --- facts -------------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """Return what was put under a name, of the kinds that JSON has; None where nothing was."""
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
        """Note what an end lists.

        New ones of the source become FOUND, with a position: those in ``first`` by the number there, then the newest
        month first, undated ones last. Of known ones the count and the run are noted; the stage stays, and with
        ``first`` the position is set anew. What only the target lists is kept too, with ``seen`` 0.
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
        """Return studies by position and id, after that pair.

        Of a stage, and then only those that the source ever listed; that it listed in ``run``, or with ``unseen`` that
        it listed before and not in ``run``.
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
        """Return one. Every ledger has one with the UID "", for what is no instance; no end lists it."""
        return await self._writer.ask(lambda book: book.study_of(uid))

    def set_stage(self, study_id: int, stage: Stage, *, planned: int | None = None) -> None:
        """Gather that a study goes on; with EQUAL its ``planned`` instances count as PRESENT, without rows.

        Where it has rows, they stay as they are, and what is beyond them counts.
        """
        self._writer.gather(lambda book: book.set_stage(study_id, stage, planned), study=study_id)

    # --- items -------------------------------------------------------------------------------------------------------

    async def items(self, study_id: int, *, states: Sequence[State] | None = None) -> list[ItemRow]:
        """Return the items of a study, by series and UID.

        Raises:
            LedgerUnusable: they are not what was written, or not as many as are counted.
        """
        return await self._writer.ask(
            lambda book: items_of(book.database, book.study(study_id), states), study=study_id
        )

    def plan(self, study_id: int, rows: Iterable[ItemRow]) -> None:
        """Gather items as they are to stand: new ones are added, known ones set.

        What a study that was EQUAL counted without rows no longer counts.
        """
        planned = list(rows)
        self._writer.gather(lambda book: book.plan(study_id, planned), len(planned), study=study_id)

    def forget(self, study_id: int, keys: Iterable[tuple[str, str]]) -> None:
        """Gather that items (series, UID) are none: they stood for what was not known."""
        forgotten = list(keys)
        self._writer.gather(lambda book: book.forget(study_id, forgotten), len(forgotten))

    def run_items(self, study_id: int, keys: Iterable[tuple[str, str]]) -> None:
        """Gather that items (series, UID) are RUNNING; each has one attempt more."""
        running = list(keys)
        self._writer.gather(lambda book: book.run_items(study_id, running), len(running), study=study_id)

    def settle(self, study_id: int, ends: Iterable[ItemEnd], *, attempt_counts: bool = True) -> None:
        """Gather what became of items. ``attempt_counts`` False takes the attempt back: an outage is not theirs.

        Items that are DONE are counted in the minute's `summary.Moment`.

        Raises:
            AssertionError: the move is not in `states.MOVES` (checked when it is written; the group is not written).
        """
        settled, minute = list(ends), int(time.time()) // 60 * 60
        self._writer.gather(
            lambda book: book.settle(study_id, settled, attempt_counts=attempt_counts, minute=minute),
            len(settled),
            study=study_id,
        )

    async def reset(self, states: Sequence[State], *, reasons: Sequence[int] | None = None) -> int:
        """Make items pending again, with no attempts, and their studies PLANNED; return how many."""
        numbers = await self._writer.ask(lambda book: book.with_states(states))
        reset = 0
        for start in range(0, len(numbers), _SLICE):
            change = partial(Book.reset, numbers=numbers[start : start + _SLICE], states=states, reasons=reasons)
            reset += await self._writer.ask(partial(Book.done, change=change))
        return reset

    def note_verified(self, study_id: int, instances: int) -> None:
        """Gather that so many of a study's items were found at the target; it replaces what was noted before."""
        self._writer.gather(lambda book: book.note_verified(study_id, instances), study=study_id)

    def note_coerced(self, tags: Iterable[str]) -> None:
        """Gather that the target changed these elements (8 hexadecimal digits) in an instance."""
        changed = list(tags)
        if changed:
            self._writer.gather(lambda book: book.note_coerced(changed), len(changed))

    def note(self, text: str) -> None:
        """Gather a line for people, without anything private, with the time."""
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
            return  # the next question writes it, or it follows the group that is being written
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
