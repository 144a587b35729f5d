"""What is to be done with a study, with its items, and in which chunks; and what a chunk is, and its end. Pure.

A study is compared by its counts first. Its instances are listed where the counts differ, where an end does not count,
or where everything is to be compared. So a second run over two archives that agree asks for two lists of studies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import blake2b
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from postdicom_async.jobs.ends.end import ListedInstance, Selection
from postdicom_async.jobs.ledger.schema import ItemRow, Stage, StudyRow
from postdicom_async.jobs.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


ItemKey: TypeAlias = tuple[str, str]
"""Series and SOP Instance UID."""

_NOT_HERE = frozenset({State.PENDING, State.RUNNING, State.FAILED, State.UNCONFIRMED})
_AT_TARGET = frozenset({State.DONE, State.PRESENT})
_LEFT_ALONE = frozenset({State.UNCONFIRMED, State.EXCLUDED, State.DELETED})
_EXCLUDED = frozenset({Reason.NOT_DICOM, Reason.FILTER, Reason.DUPLICATE_FILE})


class Decision(Enum):
    """What is to be done with a study."""

    NOTHING = auto()
    """It was moved, and nothing has changed since."""
    EQUAL = auto()
    """Equal by count: its instances are not listed."""
    LIST = auto()


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the ends are compared.

    Attributes:
        run: which one this is.
        target_lists: the target says what it has.
        full: list the instances of every study, whatever the counts.
        maps_uids: instances have other UIDs at the target.
        keeps_uids: instances are changed on the way and keep their UIDs: what the target lists may be the originals.
    """

    run: int
    target_lists: bool
    full: bool = False
    maps_uids: bool = False
    keeps_uids: bool = False


def decide(study: StudyRow, how: Comparison) -> Decision:
    """Return what is to be done with a study that the source lists in this run."""
    is_half_done = study.stage in (Stage.FOUND, Stage.PLANNED) and study.planned is not None
    if how.full or study.at_source is None or is_half_done:
        return Decision.LIST
    settled = study.stage in (Stage.EQUAL, Stage.MOVED, Stage.VERIFIED) and study.planned == study.at_source
    if not how.target_lists:
        return Decision.NOTHING if settled else Decision.LIST
    if expected_at_target(study, how) != study.at_source or study.at_source == 0:
        return Decision.LIST
    if settled:
        return Decision.NOTHING
    return Decision.LIST if how.keeps_uids else Decision.EQUAL


def expected_at_target(study: StudyRow, how: Comparison) -> int | None:
    """Return how many instances of a study the target says it has; 0 where its list does not name it."""
    return study.at_target if study.seen_at_target == how.run else 0


def planned_items(
    listed: Iterable[ListedInstance],
    held: Collection[str] | None,
    known: Mapping[ItemKey, ItemRow],
    how: Comparison,
    new_uid: Callable[[str], str] = str,
) -> Iterator[ItemRow]:
    """Yield how each item is to stand.

    Args:
        listed: what the source has now.
        held: the SOP Instance UIDs that the target lists in this study, None where it cannot be asked.
        known: what the ledger has of it.
        how: see `Comparison`.
        new_uid: what an instance's UID is at the target.
    """
    left = dict(known)
    for one in _told_apart(listed):
        before = left.pop((one.series, one.uid), None)
        state, reason = _state_of(one, None if held is None else new_uid(one.uid) in held, before, how)
        is_same = before is not None and before.state is state
        # What was listed again as it was keeps its attempts; what has changed state begins anew.
        attempts = before.attempts if before is not None and state is State.PENDING and is_same else 0
        digest = before.digest if before is not None and is_same else b""
        size = one.size or (before.size if before else 0)
        yield ItemRow(one.series, one.uid, state, reason, attempts, size, digest)
    for before in left.values():  # no longer at the source
        if before.state in _AT_TARGET and (held is None or new_uid(before.uid) in held):
            yield before._replace(reason=Reason.GONE)
        elif before.state not in _LEFT_ALONE:  # what no end has any more is not to be missed by verification
            yield before._replace(state=State.EXCLUDED, reason=Reason.GONE)


def _told_apart(listed: Iterable[ListedInstance]) -> Iterator[ListedInstance]:
    """Yield each instance once. One UID in two series is two, and no target's list or answer tells them apart."""
    series_of: dict[str, str] = {}
    for _, one in sorted({(one.series, one.uid): one for one in listed}.items()):
        is_twin = series_of.setdefault(one.uid, one.series) != one.series
        yield one._replace(flaw=int(Reason.OTHER_CONTENT)) if is_twin and not one.flaw else one


def _state_of(one: ListedInstance, is_held: bool | None, before: ItemRow | None, how: Comparison) -> tuple[State, int]:
    was = before.state if before is not None else None
    if one.flaw:
        return (State.EXCLUDED if one.flaw in _EXCLUDED else State.FAILED), one.flaw
    if is_held is None:  # the ledger alone knows
        return (was, Reason.NONE) if was in _AT_TARGET else (State.PENDING, Reason.NONE)
    if not is_held:
        return State.PENDING, Reason.NONE
    if was is State.DONE:
        return State.DONE, Reason.NONE
    return (State.PENDING if how.keeps_uids else State.PRESENT), Reason.NONE


def is_sampled(uid: str, share: float) -> bool:
    """Whether an instance is among a share of all, 0 to 1: told by its UID, so that another run chooses the same."""
    return int.from_bytes(blake2b(uid.encode(), digest_size=8).digest(), "big") < share * 2**64


def gone(items: Iterable[ItemRow], *, delete_all: bool) -> list[ItemRow]:
    """Return which items may be deleted at the target, of those that the source no longer has."""
    states = _AT_TARGET if delete_all else frozenset({State.DONE})
    return [one for one in items if one.state in states and one.reason == Reason.GONE]


# --- chunks ---------------------------------------------------------------------------------------------------------


def may_go_unlisted(study: StudyRow, how: Comparison, *, most: int) -> bool:
    """Whether a study is moved whole without a list: the target has none of it, and the source says how many there are.

    Listing instances may cost an archive more than giving them. When as many came as it counts, none is missing.
    """
    is_new = study.planned is None and how.target_lists and expected_at_target(study, how) == 0
    return is_new and not how.full and 0 < (study.at_source or 0) <= most


def unlisted_chunk(study: StudyRow, number: int) -> Chunk:
    """Return a whole study as one chunk, whatever it holds."""
    return Chunk(number, 1, study.id, Selection(study.uid, None, (), whole=True))


def chunks_of(
    study: StudyRow, items: Sequence[ItemRow], *, most: int, numbers: Iterator[int], splits_series: bool = False
) -> list[Chunk]:
    """Return the pending items of a study in chunks: all of a small one together, of a larger one series by series.

    Args:
        study: whose.
        items: all its items in the ledger, by series.
        most: instances in a chunk. A series that is wanted whole may have more, since it costs an archive least when it
            is asked for as one.
        numbers: gives the chunks' numbers.
        splits_series: even then no chunk has more than ``most``.
    """
    sizes = {series: sum(1 for _ in some) for series, some in groupby(items, key=lambda one: one.series)}
    groups: list[list[ItemRow]] = [[]]
    for series, group in groupby((one for one in items if one.state is State.PENDING), key=lambda one: one.series):
        some = list(group)
        if not series:
            continue
        if len(groups[-1]) + len(some) <= most:
            groups[-1].extend(some)
        elif len(some) == sizes[series] and not splits_series:
            groups.insert(0, some)
        else:
            groups.extend(some[at : at + most] for at in range(0, len(some), most))
    return [_chunk(study, some, sizes, next(numbers)) for some in groups if some]


def _chunk(study: StudyRow, some: Sequence[ItemRow], sizes: Mapping[str, int], number: int) -> Chunk:
    all_series = {one.series for one in some}
    series = next(iter(all_series)) if len(all_series) == 1 else None
    wanted = Selection(
        study.uid,
        series,
        tuple(ListedInstance(one.series, one.uid, one.size) for one in some),
        whole=len(some) == (sum(sizes.values()) if series is None else sizes[series]),
    )
    return Chunk(number, 1, study.id, wanted)


# --- what a chunk is -------------------------------------------------------------------------------------------------


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
    wanted: Selection


class ItemEnd(NamedTuple):
    """What became of one item of a chunk.

    Attributes:
        series: its Series Instance UID at the source.
        uid: its SOP Instance UID at the source.
        state: where it stands now.
        reason: why; see `states.Reason`.
        temporary: another attempt may end otherwise.
        size: bytes.
        digest: 16 bytes that tell the data set that was sent (see `compare_bytes.digest_of`), empty unless asked for.
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
        temporary: the end may work again later: an outage. Its items have used up no attempt.
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
