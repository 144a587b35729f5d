"""The ledger of a job: one SQLite file that says of every item where it stands, and survives whatever ends the process.

One process writes, and holds the lock while it does. What has become of items is gathered and committed in groups, each
durable when it is committed. Counts are kept by study and state in the same transaction, so that the sum over the
states is what was discovered at any instant, without a pass over the items.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from postdicom_async.jobs.chunks import ItemEnd
    from postdicom_async.jobs.ends import ListedStudy
    from postdicom_async.jobs.states import State
    from postdicom_async.jobs.summary import ItemLine, SeriesLine, StudyLine, Summary

__all__ = ["ItemRow", "Ledger", "LedgerReader", "Stage", "StudyRow"]


class Stage(IntEnum):
    """How far a study is in this run."""

    FOUND = 0
    """The source lists it; what is to be done with it is not decided."""
    EQUAL = 1
    """Equal by count at both ends, and not listed: its instances are in the counts, and there are no rows of them."""
    PLANNED = 2
    """Its items are in the ledger; some may be pending."""
    MOVED = 3
    """None of its items is pending or running."""
    VERIFIED = 4


class StudyRow(NamedTuple):
    """A study in the ledger.

    Attributes:
        id: its number here.
        uid: its Study Instance UID, "" for what is no instance.
        month: YYYYMM, 0 where it is undated. No day: that would be a patient's date.
        position: studies are taken in this order, the smallest first.
        at_source, at_target: how many instances each end says it has, None where it does not say or was not asked.
        planned: what ``at_source`` was when its items were listed, or found equal; None while they were not.
        stage: see `Stage`.
        seen: the run in which the source last listed it.
        seen_at_target: the run in which the target last listed it.
    """

    id: int
    uid: str
    month: int
    position: int
    at_source: int | None
    at_target: int | None
    planned: int | None
    stage: Stage
    seen: int
    seen_at_target: int


class ItemRow(NamedTuple):
    """An item in the ledger. ``uid`` is a digest, and ``series`` empty, for what is no instance."""

    series: str
    uid: str
    state: State
    reason: int = 0
    attempts: int = 0
    size: int = 0
    digest: bytes = b""


class LedgerReader:
    """Reads a ledger, also one that another process writes. Blocking calls; run them in a thread. Close it."""

    def __init__(self, path: Path) -> None: ...

    def summary(self) -> Summary: ...

    def studies(self, *, states: Sequence[State] | None = None) -> Iterator[StudyLine]: ...

    def series(self, study: str) -> Iterator[SeriesLine]: ...

    def items(self, *, states: Sequence[State] | None = None, study: str | None = None) -> Iterator[ItemLine]: ...

    def close(self) -> None: ...


class Ledger:
    """Writes a ledger. Use `create` or `open`, then ``async with``. Methods without ``async`` only gather.

    What is gathered is committed by `commit`, by every method that reads, and by itself when it is 64 changes or 200
    ms old (a task of its own in the event loop; SQLite works in a thread).
    """

    path: Path

    @classmethod
    async def create(cls, path: Path, facts: Mapping[str, Any]) -> Ledger:
        """Make a new ledger, readable for this user alone, and take its lock.

        Raises:
            LedgerUnusable: there is one, or it cannot be made.
        """
        raise NotImplementedError

    @classmethod
    async def open(cls, path: Path) -> Ledger:
        """Open a ledger and take its lock; what was running is pending again.

        Raises:
            LedgerLocked: another process writes it.
            LedgerUnusable: it is damaged, of a newer version, or no ledger. It was not touched.
        """
        raise NotImplementedError

    async def __aenter__(self) -> Ledger:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        """Commit, and let the lock go."""

    async def commit(self) -> None:
        """Make everything durable that was gathered.

        Raises:
            LocalFileError: the disk is full, or fails. Nothing of the group was written; it is still gathered.
        """

    def fact(self, name: str) -> Any:
        """Return what was put under a name, of the kinds that JSON has; None where nothing was."""

    def put(self, name: str, value: Any) -> None:
        """Gather a fact: ``phase``, ``run``, settings, cursors."""

    # --- studies -----------------------------------------------------------------------------------------------------

    async def note_studies(
        self, studies: Sequence[ListedStudy], *, at_target: bool, run: int, first: Mapping[str, int] | None = None
    ) -> None:
        """Note what an end lists. New ones of the source become FOUND, with a position: those in ``first`` by the
        number there, then the newest first, undated ones last. Of known ones the count and the run are noted; the
        stage stays. What only the target lists is kept too, with ``seen`` 0.
        """

    async def studies(
        self,
        stage: Stage | None = None,
        *,
        limit: int = 1000,
        after: tuple[int, int] = (-(1 << 62), 0),
        run: int | None = None,
        unseen: bool = False,
    ) -> list[StudyRow]:
        """Return studies by position and id, after that pair; of a stage; that the source listed in ``run``, or with
        ``unseen`` that it listed before and not in ``run``.
        """
        raise NotImplementedError

    async def study(self, uid: str) -> StudyRow | None:
        """Return one."""

    def set_stage(self, study_id: int, stage: Stage, *, planned: int | None = None) -> None:
        """Gather that a study goes on; with EQUAL its ``planned`` instances count as PRESENT, without rows."""

    # --- items -------------------------------------------------------------------------------------------------------

    async def items(self, study_id: int, *, states: Sequence[State] | None = None) -> list[ItemRow]:
        """Return the items of a study, by series and UID."""
        raise NotImplementedError

    def plan(self, study_id: int, rows: Iterable[ItemRow]) -> None:
        """Gather items as they are to stand: new ones are added, known ones set. What a study that was EQUAL counted
        without rows counts no more.
        """

    def run_items(self, study_id: int, keys: Iterable[tuple[str, str]]) -> None:
        """Gather that items (series, UID) are RUNNING; each has one attempt more."""

    def settle(self, study_id: int, ends: Iterable[ItemEnd], *, attempt_counts: bool = True) -> None:
        """Gather what became of items. ``attempt_counts`` False takes the attempt back: an outage is not theirs.

        Items that are DONE are counted in the minute's `summary.Moment`.

        Raises:
            AssertionError: the move is not in `states.MOVES` (checked when it is written; the group is not written).
        """

    async def reset(self, states: Sequence[State], *, reasons: Sequence[int] | None = None) -> int:
        """Make items pending again, with no attempts, and their studies PLANNED; return how many."""
        raise NotImplementedError

    def note_verified(self, study_id: int, instances: int) -> None:
        """Gather that so many of a study's items were found at the target."""

    def note_coerced(self, tags: Iterable[str]) -> None:
        """Gather that the target changed these elements (8 hexadecimal digits) in an instance."""

    def note(self, text: str) -> None:
        """Gather a line for people, without anything private, with the time."""

    async def counts(self) -> Mapping[State, tuple[int, int]]:
        """Return instances and bytes by state."""
        raise NotImplementedError
