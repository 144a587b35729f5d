"""What a download knows about every instance: whether it arrived, in which answer, and whether the archive lists it.

Memory holds counters and the latest instances; the rest is in a `Scratch` (see there). Passes over all instances run in
slices, between which the event loop continues. An instance that arrives during such a pass is counted once: by the pass
if the pass has not reached its key yet, otherwise by the arrival itself.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple

from postdicom_async.disk.scratch import Scratch, ScratchKey, ScratchMap
from postdicom_async.results import InstanceUids, ListingCheck, Outcome, Status
from postdicom_async.transfer.outcomes import MOST_KEPT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

    from postdicom_async.transfer.outcomes import Gathered

_SLICE = 1000
_BEGINNING: ScratchKey = (-1, "")
_END: ScratchKey = (1 << 62, "")
_MOST_SERIES = 4096  # whose numbers are kept in memory


class Taken(Enum):
    """Whether a part of an answer is to be kept."""

    NEW = auto()
    BEFORE = auto()
    """It is already here: another answer brought it, or the folder held it. Not needed, but no error."""
    AGAIN = auto()
    """This answer has already brought it."""


class Series(NamedTuple):
    """A series as far as it has been listed."""

    uid: str
    listed: int
    missing: int


class _Numbers:
    """Numbers for series, so that the series UID is not stored with each instance."""

    def __init__(self, scratch: Scratch) -> None:
        self._numbers: ScratchMap[int] = ScratchMap(scratch)
        self._uids: ScratchMap[str] = ScratchMap(scratch)
        self._at_hand: dict[str, int] = {}
        self._size = 0

    def of(self, series: str) -> int:
        number = self._at_hand.get(series)
        if number is None:
            number = self._numbers.get((0, series))
            if number is None:
                self._size += 1
                number = self._size
                self._numbers.put((0, series), number)
                self._uids.put((number, ""), series)
            if len(self._at_hand) >= _MOST_SERIES:
                self._at_hand.clear()
            self._at_hand[series] = number
        return number

    def uid(self, number: int) -> str:
        return self._uids.get((number, "")) or ""


class Listed:
    """The instances that an archive lists, or some of them.

    Attributes:
        size: number of instances.
    """

    def __init__(self, scratch: Scratch, numbers: _Numbers) -> None:
        self.size: int = 0
        self.keys: ScratchMap[int] = ScratchMap(scratch)
        self._numbers = numbers

    def update(self, some: Iterable[InstanceUids]) -> None:
        """Add instances."""
        for uids in some:
            key = (self._numbers.of(uids.series_instance_uid), uids.sop_instance_uid)
            if self.keys.get(key) is None:
                self.keys.put(key, 0)
                self.size += 1

    def drop(self) -> None:
        """Forget it."""
        self.keys.drop()
        self.size = 0


def listing_check(
    here: int, listed: int | None, outside: int, count: int | None, *, whole: bool
) -> tuple[ListingCheck, bool]:
    """Return how completeness was checked, and whether the archive's words contradict what arrived. Pure.

    Args:
        here: how many instances arrived or were already there.
        listed: how many the archive lists, None if it cannot be asked.
        outside: how many of those here are not listed.
        count: how many it says it has, None if it does not say.
        whole: whether the answer was complete and undamaged.
    """
    if listed and not outside:
        return "compared", False
    if whole and count == here:
        return "counted", False
    return "unavailable", bool(outside) or (count is not None and count < here)


class Arrivals:
    """The instances of one study, or of a part of one. Everything is called from the event loop.

    Attributes:
        here: number of instances that are whole in the folder.
        saved: how many of them arrived in this download.
        refused: parts that were not accepted.
        size: bytes of them.
        listed: what the archive lists; empty if it lists nothing, None if it cannot be asked; see `adopt`.
        outside: number of instances that are here but not in that list.
        present: instances that were in the folder before: all of them if every outcome is kept, otherwise some.
        states: by `key`, which answer brought an instance, and in the lowest bit whether it is here.
    """

    def __init__(self, study: str, gathered: Gathered) -> None:
        self.here: int = 0
        self.saved: int = 0
        self.refused: int = 0
        self.size: int = 0
        self.listed: Listed | None = None
        self.outside: int = 0
        self.present: list[InstanceUids] = []
        self._study = study
        self._gathered = gathered
        self._scratch = Scratch()
        self._numbers = _Numbers(self._scratch)
        self.states: ScratchMap[int] = ScratchMap(self._scratch)
        self._answers = 0
        self._counted_to = _BEGINNING  # up to this key, `outside` is counted
        self.names: ScratchMap[str] = ScratchMap(self._scratch)

    def close(self) -> None:
        """Discard everything but the counters."""
        self._scratch.close()

    def answer(self) -> OneAnswer:
        """Return the record of one answer, to be told of its parts."""
        self._answers += 1
        return OneAnswer(self, self._answers)

    def key(self, uids: tuple[str, str, str]) -> ScratchKey:
        """Return the key of an instance in `states` and in a list."""
        return self._numbers.of(uids[1]), uids[2]

    def has(self, uids: tuple[str, str, str]) -> bool:
        """Return whether an instance is here."""
        return bool((self.states.get(self.key(uids)) or 0) & 1)

    # --- arriving ----------------------------------------------------------------------------------------------------

    def note_saved(self, outcome: Outcome) -> None:
        """Count an instance that has just arrived, and report its outcome."""
        self.saved += 1
        self.size += outcome.size
        self._gathered.add(outcome)

    def note_present(self, uids: InstanceUids, where: str, size: int = 0) -> None:
        """Note that the folder holds an instance."""
        if self.arrive(uids, 0):
            if self._gathered.keeps_all or len(self.present) < MOST_KEPT:
                self.present.append(uids)
            self._gathered.add(Outcome(where, Status.PRESENT, uids, size))

    def note_refused(self, uids: InstanceUids | None, reason: str) -> None:
        """Note a part that was dropped."""
        self.refused += 1
        self._gathered.add(Outcome("", Status.REFUSED, uids, reason=reason))

    async def room(self) -> None:
        """Wait until another instance may begin."""
        await self._gathered.room()

    def arrive(self, uids: InstanceUids, number: int) -> bool:
        """Note that answer ``number`` brought a whole instance; return whether it was not here before."""
        key = self.key(uids)
        state = self.states.get(key) or 0
        self.states.put(key, number << 1 | 1)
        if state & 1:
            return False
        self.here += 1
        if self.listed is not None and key <= self._counted_to:
            self.outside += self.listed.keys.get(key) is None
        return True

    # --- compared with the list --------------------------------------------------------------------------------------

    def new_list(self) -> Listed:
        """Return an empty list, to be filled and adopted."""
        return Listed(self._scratch, self._numbers)

    async def adopt(self, listed: Listed | None) -> bool:
        """Take this as the archive's list; return whether it is not empty and contains everything that is here."""
        self.listed, self.outside, self._counted_to = listed, 0, _BEGINNING
        if listed is None:
            return False
        try:
            while self.here and (rows := self._slice(self.states, listed.keys, self._counted_to)):
                self.outside += sum(state & 1 and value is None for *_, state, value in rows)
                self._counted_to = rows[-1][:2]
                await asyncio.sleep(0)
        except BaseException:  # cancelled: a half-compared list would claim that everything is here
            self.listed, self.outside, self._counted_to = None, 0, _BEGINNING
            raise
        self._counted_to = _END
        return bool(listed.size and not self.outside)

    @property
    def missing(self) -> int:
        """How many listed instances are not here."""
        return 0 if self.listed is None else self.listed.size - (self.here - self.outside)

    async def missing_slices(self, series: str | None = None) -> AsyncGenerator[list[InstanceUids], None]:
        """Yield slices of the listed instances that are not here, by series; ``series`` restricts them to one."""
        only = None if series is None else self._numbers.of(series)
        async for rows in self._listed_slices(only):
            found = [(a, b) for a, b, _, state in rows if not (state or 0) & 1]
            if found:
                yield [InstanceUids(self._study, self._numbers.uid(a), str(b)) for a, b in found]

    async def series(self) -> AsyncGenerator[Series, None]:
        """Yield every listed series."""
        number, listed, missing = 0, 0, 0
        async for rows in self._listed_slices(None):
            for a, _, _, state in rows:
                if a != number:
                    if listed:
                        yield Series(self._numbers.uid(number), listed, missing)
                    number, listed, missing = a, 0, 0
                listed += 1
                missing += not (state or 0) & 1
        if listed:
            yield Series(self._numbers.uid(number), listed, missing)

    async def _listed_slices(
        self, only: int | None
    ) -> AsyncGenerator[list[tuple[int, str | bytes, int, int | None]], None]:
        listed = self.listed
        after: ScratchKey = _BEGINNING if only is None else (only, "")
        while listed is not None and listed.size:
            rows = [row for row in self._slice(listed.keys, self.states, after) if only in (None, row[0])]
            if not rows:
                return
            yield rows
            after = rows[-1][:2]
            await asyncio.sleep(0)

    def _slice(
        self, one: ScratchMap[int], other: ScratchMap[int], after: ScratchKey
    ) -> list[tuple[int, str | bytes, int, int | None]]:
        """Return the next entries of ``one``, each with the value ``other`` has for its key."""
        query = (
            f"SELECT x.a, x.b, x.value, y.value FROM {one.table()} x LEFT JOIN {other.table()} y "  # noqa: S608 - our own names
            f"ON y.a = x.a AND y.b = x.b WHERE (x.a, x.b) > (?, ?) ORDER BY x.a, x.b LIMIT {_SLICE}"
        )
        return self._scratch.rows(query, after)


class OneAnswer:
    """The instances that one answer brings; each is taken once.

    Attributes:
        saved: how many instances it has brought so far that were not here.
        has: whether an instance is here, whichever answer brought it.
        note_refused: notes a part that was dropped.
        room: waits until another instance may begin.
    """

    def __init__(self, arrivals: Arrivals, number: int) -> None:
        self.saved: int = 0
        self.has: Callable[[tuple[str, str, str]], bool] = arrivals.has
        self.note_refused: Callable[[InstanceUids | None, str], None] = arrivals.note_refused
        self.room: Callable[[], Coroutine[Any, Any, None]] = arrivals.room
        self._arrivals = arrivals
        self._number = number

    def take(self, uids: InstanceUids) -> Taken:
        """Note that the answer brings an instance; return whether it is to be kept."""
        key = self._arrivals.key(uids)
        state = self._arrivals.states.get(key)
        if state is not None and state >> 1 == self._number:
            return Taken.AGAIN
        if state is not None and state & 1:
            return Taken.BEFORE
        self._arrivals.states.put(key, self._number << 1)
        return Taken.NEW

    def note_saved(self, outcome: Outcome, uids: InstanceUids) -> bool:
        """Note that an instance is on disk, whole and under its name; return whether it was not before."""
        is_new = self._arrivals.arrive(uids, self._number)
        if is_new:
            self.saved += 1
            self._arrivals.note_saved(outcome)
        return is_new
