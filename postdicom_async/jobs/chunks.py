"""A chunk of a job: what one worker does at once, here or on another machine, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from postdicom_async.jobs.ends.end import Wanted
    from postdicom_async.jobs.states import State

__all__ = ["Chunk", "ChunkEnd", "Dispatcher", "ItemEnd"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Instances of one study that are moved together; it may be pickled.

    Attributes:
        number: which chunk of the job, from 1 on.
        attempt: how often it has been given out: results of an earlier attempt do not count.
        study_id: the study's number in the ledger.
        wanted: what is to be opened at the source.
    """

    number: int
    attempt: int
    study_id: int
    wanted: Wanted


class ItemEnd(NamedTuple):
    """What became of one item of a chunk.

    Attributes:
        series: its Series Instance UID at the source.
        uid: its SOP Instance UID at the source.
        state: where it stands now.
        reason: why; see `states.Reason`.
        temporary: another attempt may end otherwise.
        size: bytes.
        digest: 16 bytes that tell the data set that was sent (see `verify.digest`), empty unless asked for.
    """

    series: str
    uid: str
    state: State
    reason: int = 0
    temporary: bool = False
    size: int = 0
    digest: bytes = b""


class ChunkEnd(NamedTuple):
    """That a chunk has ended, and why not all of it was done.

    Attributes:
        failed_end: ``"source"`` or ``"target"``: which end could not be worked with; empty where both could.
        error: the name of the exception's class, ``"ConnectionFailed"``; empty where there was none.
        temporary: the end may work again later: an outage. Its items have burned no attempt.
        message: one line for people, without anything private.
        retry_after: seconds the archive asked to wait.
        disk_full: space is used up: nothing helps but making room.
    """

    failed_end: str = ""
    error: str = ""
    temporary: bool = False
    message: str = ""
    retry_after: float | None = None
    disk_full: bool = False


class Dispatcher(Protocol):
    """Runs chunks, here or on other machines, and gives what becomes of them as it happens."""

    def run(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[tuple[Chunk, ItemEnd | ChunkEnd], None]:
        """Take chunks as there is room for them; yield their items' ends, and for each chunk one `ChunkEnd`, last."""
        ...
