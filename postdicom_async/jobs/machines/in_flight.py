"""Which chunks are under way on other machines, and what is done when a worker, or the scheduler, is lost. Pure.

A chunk that was drawn is here until its `ChunkEnd` was given. It is handed out whole first. When it comes back because
it killed the workers that had it, it is halved, and its halves are handed out by themselves, down to single instances:
so one instance that no worker survives fails alone. An instance is condemned only for what happened while nothing
else was under way, since whatever shares a worker with such an instance dies with it, and is not to blame.

Every handing out has an attempt's number of its own, growing by chunk; what lands is taken once, from the attempt that
is under way, and never again: a copy that some worker still computes changes nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from postdicom_async.jobs.plan import Chunk, ChunkEnd, ItemEnd
from postdicom_async.jobs.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postdicom_async.jobs.ends.end import ListedInstance


AttemptKey: TypeAlias = tuple[int, int]
"""A chunk's number and the attempt."""
ChunkReport: TypeAlias = tuple[Chunk, ItemEnd | ChunkEnd]

CONDEMNED_AFTER: Final = 2
"""So often an instance must have killed its workers while it was alone under way."""


@dataclass(slots=True)
class _Whole:
    chunk: Chunk
    attempt: int
    open_parts: int = 1
    end: ChunkEnd = field(default_factory=ChunkEnd)


@dataclass(slots=True)
class _Part:
    whole: _Whole
    instances: Sequence[ListedInstance]
    kills_alone: int = 0


class InFlight:
    """What is under way; it decides, and touches nothing.

    ``_waiting`` is to be handed out; ``_suspects`` are single instances that came back from workers that died, each to
    be tried alone; ``_flying`` is what was handed out and has not landed. A part is in exactly one of the three, and
    ``open_parts`` of its chunk counts those that are.
    """

    def __init__(self) -> None:
        self._wholes: dict[int, _Whole] = {}
        self._waiting: deque[_Part] = deque()
        self._suspects: deque[_Part] = deque()
        self._flying: dict[AttemptKey, _Part] = {}
        self._alone: AttemptKey | None = None

    @property
    def flying(self) -> int:
        """How many are under way."""
        return len(self._flying)

    @property
    def empty(self) -> bool:
        """Every chunk that was drawn has ended."""
        return not self._wholes

    @property
    def has_waiting(self) -> bool:
        """Something is to be handed out before another chunk is drawn."""
        return bool(self._waiting or self._suspects)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk that was drawn."""
        if chunk.number in self._wholes:
            raise AssertionError(f"chunk {chunk.number} is under way")
        whole = self._wholes[chunk.number] = _Whole(chunk, chunk.attempt - 1)
        self._waiting.append(_Part(whole, chunk.wanted.instances))

    def take(self) -> Chunk | None:
        """Return what is handed out next, with its attempt; None while nothing may be."""
        suspect = bool(self._suspects)
        if self._alone is not None or (suspect and self._flying) or not self.has_waiting:
            return None
        part = (self._suspects if suspect else self._waiting).popleft()
        whole = part.whole
        whole.attempt += 1
        key = (whole.chunk.number, whole.attempt)
        self._flying[key] = part
        if suspect:
            self._alone = key
        wanted = whole.chunk.wanted
        if len(part.instances) != len(wanted.instances):
            wanted = replace(wanted, instances=part.instances, whole=False)
        return replace(whole.chunk, attempt=whole.attempt, wanted=wanted)

    def landed(self, key: AttemptKey, items: Iterable[ItemEnd], end: ChunkEnd) -> list[ChunkReport]:
        """Take what a worker made of a chunk; nothing of it counts unless that attempt is under way."""
        part = self._leave(key)
        return [] if part is None else self._ended(part, items, end)

    def killed(self, key: AttemptKey) -> list[ChunkReport]:
        """Take back what its workers did not survive: halved, to be tried alone, or condemned."""
        alone = key == self._alone
        part = self._leave(key)
        if part is None:
            return []
        count = len(part.instances)
        if count > 1:
            part.whole.open_parts += 1
            self._waiting.appendleft(_Part(part.whole, part.instances[count // 2 :]))
            self._waiting.appendleft(_Part(part.whole, part.instances[: count // 2]))
            return []
        part.kills_alone += alone
        if part.kills_alone < CONDEMNED_AFTER:
            self._suspects.append(part)
            return []
        condemned = [ItemEnd(one.series, one.uid, State.FAILED, Reason.UNEXPECTED) for one in part.instances]
        return self._ended(part, condemned, ChunkEnd())

    def lost(self, key: AttemptKey) -> None:
        """Take back what nobody computes any more, through no fault of its own."""
        suspect = key == self._alone
        part = self._leave(key)
        if part is not None:
            (self._suspects if suspect else self._waiting).appendleft(part)

    def lost_all(self) -> None:
        """Take back all that is under way: the scheduler has forgotten it."""
        for key in reversed(list(self._flying)):
            self.lost(key)

    def _leave(self, key: AttemptKey) -> _Part | None:
        if key == self._alone:
            self._alone = None
        return self._flying.pop(key, None)

    def _ended(self, part: _Part, items: Iterable[ItemEnd], end: ChunkEnd) -> list[ChunkReport]:
        whole = part.whole
        if end.error and (not whole.end.error or (whole.end.temporary and not end.temporary)):
            whole.end = end  # the worse one: what needs a person outranks what passes with time
        given: list[ChunkReport] = [(whole.chunk, item) for item in items]
        whole.open_parts -= 1
        if not whole.open_parts:
            del self._wholes[whole.chunk.number]
            given.append((whole.chunk, whole.end))
        return given
