"""The ledger of a job: one SQLite file that says of every item where it stands, and survives whatever ends the process.

One process writes, and holds the lock while it does. What has become of items is gathered and committed in groups, each
durable when it is committed. Counts are kept by study and state in the same transaction, so that the sum over the
states is what was discovered at any instant, without a pass over the items.

What it holds, and may be relied on: `ledger_schema`. What is refused, and how damage is noticed: `ledger_file`. How
lines and counts change together: `ledger_book`. Here is when: changes are gathered in the event loop, in order, and
written by one thread, in that order. A group that cannot be written stays gathered, before what comes after it. Then
nothing is written by itself any more: `commit`, and whatever reads, tries again and says why not.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio.lowlevel

from postdicom_async.disk.background import outlasting
from postdicom_async.disk.private import FileLock, keep_private, make_folder
from postdicom_async.disk.problems import explained
from postdicom_async.errors import LedgerLocked, LedgerUnusable, PostdicomError, UsageError
from postdicom_async.jobs.ledger_book import Book
from postdicom_async.jobs.ledger_file import connected, examine, explained_by_sqlite, make
from postdicom_async.jobs.ledger_lines import items_of
from postdicom_async.jobs.ledger_reader import LedgerReader
from postdicom_async.jobs.ledger_schema import ItemRow, Stage, StudyRow
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from postdicom_async.jobs.chunks import ItemEnd
    from postdicom_async.jobs.ends import ListedStudy

__all__ = ["ItemRow", "Ledger", "LedgerReader", "Stage", "StudyRow"]

_T = TypeVar("_T")

_GROUP: Final = 64  # changes
_GROUP_AGE: Final = 0.2  # seconds
_SLICE: Final = 100  # studies in one transaction, where many change at once
_FROM_THE_BEGINNING: Final = (-(1 << 62), 0)


class Ledger:
    """Writes a ledger. Use `create` or `open`, then ``async with``. Methods without ``async`` only gather.

    What is gathered is committed by `commit`, by every method that reads, and by itself when it is 64 changes or 200
    ms old.

    Attributes:
        path: its file.
        problem: why what is gathered could not be written by itself; None while it could.
    """

    def __init__(self, path: Path) -> None:
        """Know a path; `create` and `open` do the rest."""
        self.path = path
        self.problem: PostdicomError | None = None
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._database: sqlite3.Connection | None = None
        self._book: Book | None = None
        self._facts: dict[str, Any] = {}
        self._gathered: deque[Callable[[Book], None]] = deque()
        self._size = 0
        self._ending = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

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
        await ledger._start(lambda: ledger._make(texts))
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
        await ledger._start(lambda: ledger._open(identity))
        return ledger

    async def _start(self, how: Callable[[], None]) -> None:
        try:
            await self._in_thread(how)
        except BaseException:
            await self._end(lambda: None)
            raise

    def _make(self, facts: Mapping[str, str]) -> None:
        with explained("the ledger"), explained_by_sqlite():
            make_folder(self.path.parent)
            self._take_lock()
            if self.path.exists() or self.path.is_symlink():
                raise LedgerUnusable("there is a file of that name; it was not touched")
            make(self.path, facts)
            self._connect()

    def _open(self, identity: str | None) -> None:
        with explained("the ledger"), explained_by_sqlite():
            if not self.path.parent.is_dir():
                raise LedgerUnusable("there is no such ledger")
            self._take_lock()
            examine(self.path, identity)
            keep_private(self.path)
            self._connect()
            book = self._open_book
            running = book.with_states([State.RUNNING])
            if running:
                book.done(lambda book: book.take_back(running))

    def _take_lock(self) -> None:
        if not self._lock.take():
            raise LedgerLocked("another process runs this job")

    def _connect(self) -> None:
        self._database = connected(self.path, "rw")
        self._book = Book(self._database)
        self._facts = self._book.facts()

    @property
    def _open_book(self) -> Book:
        if self._book is None:
            raise UsageError("the ledger is closed")
        return self._book

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, and let the lock go.

        Raises:
            LocalFileError: the last group could not be written, and nothing else went wrong: see `commit`.
        """
        try:
            await self._end(self._write)
        except PostdicomError as problem:
            self.problem = problem
        if error is None and self.problem is not None:
            raise self.problem

    async def _end(self, last: Callable[[], None]) -> None:
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        def end() -> None:
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

        try:
            await self._in_thread(end)
        finally:
            self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the thread of this ledger; a cancellation waits until it has been done."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        await outlasting(running)
        return running.result()

    def _must_be_open(self) -> None:
        if self._ending:
            raise UsageError("the ledger is closed")

    # --- groups ------------------------------------------------------------------------------------------------------

    def _gather(self, change: Callable[[Book], None], size: int = 1) -> None:
        self._must_be_open()
        self._gathered.append(change)
        self._size += size
        if self.problem is not None or self._writing is not None:
            return  # it is written when `commit` succeeds again, or after the group that is being written
        if self._size >= _GROUP:
            self._write_now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GROUP_AGE, self._write_now)

    def _write_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None:
            self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write)
            self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        if writing.cancelled():
            return
        problem = writing.exception()
        if problem is not None:
            self.problem = problem if isinstance(problem, PostdicomError) else LedgerUnusable("it was used wrongly")
        elif self._gathered and self.problem is None and not self._ending:
            if self._size >= _GROUP:
                self._write_now()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_GROUP_AGE, self._write_now)

    def _write(self) -> None:
        """Write what is gathered, in the thread; what cannot be written is gathered again, in its place."""
        group = []
        self._size = 0  # where the event loop adds to it just now, the next group is small: no harm
        while self._gathered:
            group.append(self._gathered.popleft())
        if not group:
            return
        try:
            with explained_by_sqlite():
                self._open_book.write(group)
        except BaseException:
            self._gathered.extendleft(reversed(group))
            raise

    async def commit(self) -> None:
        """Make everything durable that was gathered.

        Raises:
            LocalFileError: the disk is full, or fails. Nothing of the group was written; it is still gathered.
        """
        await self._read(lambda _: None)

    async def _read(self, question: Callable[[Book], _T]) -> _T:
        def work() -> _T:
            self._write()
            with explained_by_sqlite():
                return question(self._open_book)

        self._must_be_open()
        await anyio.lowlevel.checkpoint_if_cancelled()
        answer = await self._in_thread(work)
        self.problem = None
        return answer

    # --- facts -------------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """Return what was put under a name, of the kinds that JSON has; None where nothing was."""
        return self._facts.get(name)

    def put(self, name: str, value: Any) -> None:
        """Gather a fact: ``phase``, ``run``, settings, cursors."""
        text = json.dumps(value)
        self._facts[name] = json.loads(text)
        self._gather(lambda book: book.put(name, text))

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
        await self._read(
            lambda book: book.done(lambda book: book.note_studies(noted, at_target=at_target, run=run, first=first))
        )

    async def studies(
        self,
        stage: Stage | None = None,
        *,
        limit: int = 1000,
        after: tuple[int, int] = _FROM_THE_BEGINNING,
        run: int | None = None,
        unseen: bool = False,
    ) -> list[StudyRow]:
        """Return studies by position and id, after that pair.

        Of a stage, and then only those that the source ever listed; that it listed in ``run``, or with ``unseen`` that
        it listed before and not in ``run``.
        """
        where, values = ["(position, id) > (?, ?)"], list(after)
        if stage is not None:
            where += ["stage = ?", "seen > 0"]
            values += [int(stage)]
        if run is not None:
            where += ["seen > 0 AND seen < ?" if unseen else "seen = ?"]
            values += [run]
        found = await self._read(lambda book: book.studies(" AND ".join(where), values, limit))
        return [study.row for study in found]

    async def study(self, uid: str) -> StudyRow | None:
        """Return one. Every ledger has one with the UID "", for what is no instance; no end lists it."""
        found = await self._read(lambda book: book.study_of(uid))
        return None if found is None else found.row

    def set_stage(self, study_id: int, stage: Stage, *, planned: int | None = None) -> None:
        """Gather that a study goes on; with EQUAL its ``planned`` instances count as PRESENT, without rows.

        Where it has rows, they stay as they are, and what is beyond them counts.
        """
        self._gather(lambda book: book.set_stage(study_id, stage, planned))

    # --- items -------------------------------------------------------------------------------------------------------

    async def items(self, study_id: int, *, states: Sequence[State] | None = None) -> list[ItemRow]:
        """Return the items of a study, by series and UID.

        Raises:
            LedgerUnusable: they are not what was written, or not as many as are counted.
        """
        return await self._read(lambda book: items_of(book.database, book.study(study_id), states))

    def plan(self, study_id: int, rows: Iterable[ItemRow]) -> None:
        """Gather items as they are to stand: new ones are added, known ones set.

        What a study that was EQUAL counted without rows counts no more.
        """
        planned = list(rows)
        self._gather(lambda book: book.plan(study_id, planned), len(planned))

    def run_items(self, study_id: int, keys: Iterable[tuple[str, str]]) -> None:
        """Gather that items (series, UID) are RUNNING; each has one attempt more."""
        running = list(keys)
        self._gather(lambda book: book.run_items(study_id, running), len(running))

    def settle(self, study_id: int, ends: Iterable[ItemEnd], *, attempt_counts: bool = True) -> None:
        """Gather what became of items. ``attempt_counts`` False takes the attempt back: an outage is not theirs.

        Items that are DONE are counted in the minute's `summary.Moment`.

        Raises:
            AssertionError: the move is not in `states.MOVES` (checked when it is written; the group is not written).
        """
        settled, minute = list(ends), int(time.time()) // 60 * 60
        self._gather(
            lambda book: book.settle(study_id, settled, attempt_counts=attempt_counts, minute=minute), len(settled)
        )

    async def reset(self, states: Sequence[State], *, reasons: Sequence[int] | None = None) -> int:
        """Make items pending again, with no attempts, and their studies PLANNED; return how many."""
        numbers = await self._read(lambda book: book.with_states(states))
        reset = 0
        for start in range(0, len(numbers), _SLICE):
            some = numbers[start : start + _SLICE]
            reset += await self._read(lambda book, some=some: book.done(lambda book: book.reset(some, states, reasons)))  # type: ignore[misc]
        return reset

    def note_verified(self, study_id: int, instances: int) -> None:
        """Gather that so many of a study's items were found at the target; it replaces what was noted before."""
        self._gather(lambda book: book.note_verified(study_id, instances))

    def note_coerced(self, tags: Iterable[str]) -> None:
        """Gather that the target changed these elements (8 hexadecimal digits) in an instance."""
        changed = list(tags)
        self._gather(lambda book: book.note_coerced(changed), len(changed))

    def note(self, text: str) -> None:
        """Gather a line for people, without anything private, with the time."""
        at = time.time()
        self._gather(lambda book: book.note(at, text))

    async def counts(self) -> Mapping[State, tuple[int, int]]:
        """Return instances and bytes by state."""
        return await self._read(lambda book: book.counts())
