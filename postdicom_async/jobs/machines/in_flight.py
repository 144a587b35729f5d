"""The chunks under way on other machines, and what happens to them when a worker or the scheduler is lost. Pure.

A chunk is held here until its `ChunkEnd` was yielded. It is first handed out whole. If it comes back because its
workers died, it is halved, and the halves are handed out separately, down to single instances: so an instance that
kills its worker fails alone. An instance is condemned only for deaths while nothing else was under way, since other
chunks on the same worker die with it and are not to blame.

Every hand-out has its own attempt number, increasing per chunk; a result counts only once, and only from the attempt
under way: a copy that some worker still computes changes nothing.
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
"""An instance is condemned after it has killed its workers so often while it was alone under way."""


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
    """The chunks under way; it only decides, without I/O.

    ``_waiting`` holds parts to hand out; ``_suspects`` single instances whose workers died, each to be tried alone;
    ``_flying`` parts handed out without a result yet. A part is in exactly one of the three, and ``open_parts`` of its
    chunk counts them.
    """

    def __init__(self) -> None:
        self._wholes: dict[int, _Whole] = {}
        self._waiting: deque[_Part] = deque()
        self._suspects: deque[_Part] = deque()
        self._flying: dict[AttemptKey, _Part] = {}
        self._alone: AttemptKey | None = None

    @property
    def flying(self) -> int:
        """The number of parts handed out."""
        return len(self._flying)

    @property
    def empty(self) -> bool:
        """Whether every chunk has ended."""
        return not self._wholes

    @property
    def has_waiting(self) -> bool:
        """Whether a part must be handed out before another chunk is taken."""
        return bool(self._waiting or self._suspects)

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        if chunk.number in self._wholes:
            raise AssertionError(f"chunk {chunk.number} is under way")
        whole = self._wholes[chunk.number] = _Whole(chunk, chunk.attempt - 1)
        self._waiting.append(_Part(whole, chunk.wanted.instances))

    def take(self) -> Chunk | None:
        """Return the next part to hand out, with its attempt; None if nothing may be handed out now."""
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
        """Take a worker's results of a chunk; they are ignored unless that attempt is under way."""
        part = self._leave(key)
        return [] if part is None else self._ended(part, items, end)

    def killed(self, key: AttemptKey) -> list[ChunkReport]:
        """Take back a part that killed its workers: it is halved, tried alone, or condemned."""
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
        """Take back a part that was lost through no fault of its own."""
        suspect = key == self._alone
        part = self._leave(key)
        if part is not None:
            (self._suspects if suspect else self._waiting).appendleft(part)

    def lost_all(self) -> None:
        """Take back all parts handed out: the scheduler has forgotten them."""
        for key in reversed(list(self._flying)):
            self.lost(key)

    def _leave(self, key: AttemptKey) -> _Part | None:
        if key == self._alone:
            self._alone = None
        return self._flying.pop(key, None)

    def _ended(self, part: _Part, items: Iterable[ItemEnd], end: ChunkEnd) -> list[ChunkReport]:
        whole = part.whole
        if end.error and (not whole.end.error or (whole.end.temporary and not end.temporary)):
            whole.end = end  # keep the worse error: one that needs a person outranks a temporary one
        given: list[ChunkReport] = [(whole.chunk, item) for item in items]
        whole.open_parts -= 1
        if not whole.open_parts:
            del self._wholes[whole.chunk.number]
            given.append((whole.chunk, whole.end))
        return given
