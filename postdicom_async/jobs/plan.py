"""Decides what to do with a study and its items, and cuts the work into chunks; defines a chunk and its result. Pure.

Studies are compared by instance counts first. Instances are listed only if the counts differ, an end reports none, or
``full`` is set. So a second run over two equal archives needs just two lists of studies.
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
    """What to do with a study."""

    NOTHING = auto()
    """It was moved already and has not changed since."""
    EQUAL = auto()
    """Equal counts: its instances are not listed."""
    LIST = auto()


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the ends are compared.

    Attributes:
        run: the number of this run.
        target_lists: the target can list its content.
        full: list the instances of every study, even where the counts agree.
        maps_uids: instances have other UIDs at the target.
        keeps_uids: instances are anonymised but keep their UIDs, so a listed UID may be the original instance.
    """

    run: int
    target_lists: bool
    full: bool = False
    maps_uids: bool = False
    keeps_uids: bool = False


def decide(study: StudyRow, how: Comparison) -> Decision:
    """Return what to do with a study that the source lists in this run."""
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
    """Return the target's instance count of a study; 0 if its list lacks the study."""
    return study.at_target if study.seen_at_target == how.run else 0


def planned_items(
    listed: Iterable[ListedInstance],
    held: Collection[str] | None,
    known: Mapping[ItemKey, ItemRow],
    how: Comparison,
    new_uid: Callable[[str], str] = str,
) -> Iterator[ItemRow]:
    """Yield the planned state of each item.

    Args:
        listed: what the source has now.
        held: the SOP Instance UIDs that the target lists in this study, None where it cannot be asked.
        known: the ledger's items of it.
        how: see `Comparison`.
        new_uid: maps an instance's UID to that at the target.
    """
    left = dict(known)
    for one in _told_apart(listed):
        before = left.pop((one.series, one.uid), None)
        state, reason = _state_of(one, None if held is None else new_uid(one.uid) in held, before, how)
        is_same = before is not None and before.state is state
        # An unchanged item keeps its attempts; one whose state changes starts with none.
        attempts = before.attempts if before is not None and state is State.PENDING and is_same else 0
        digest = before.digest if before is not None and is_same else b""
        size = one.size or (before.size if before else 0)
        yield ItemRow(one.series, one.uid, state, reason, attempts, size, digest)
    for before in left.values():  # no longer at the source
        if before.state in _AT_TARGET and (held is None or new_uid(before.uid) in held):
            yield before._replace(reason=Reason.GONE)
        elif before.state not in _LEFT_ALONE:  # an item that no end has any more must not fail verification
            yield before._replace(state=State.EXCLUDED, reason=Reason.GONE)


def _told_apart(listed: Iterable[ListedInstance]) -> Iterator[ListedInstance]:
    """Yield each instance once.

    A UID in two series is a conflict: targets identify instances by SOP Instance UID alone.
    """
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
    """Whether an instance is in the sample of the given share, 0 to 1.

    Derived from its UID, so that every run chooses the same.
    """
    return int.from_bytes(blake2b(uid.encode(), digest_size=8).digest(), "big") < share * 2**64


def gone(items: Iterable[ItemRow], *, delete_all: bool) -> list[ItemRow]:
    """Return those items the source no longer has that may be deleted at the target."""
    states = _AT_TARGET if delete_all else frozenset({State.DONE})
    return [one for one in items if one.state in states and one.reason == Reason.GONE]


# --- chunks ---------------------------------------------------------------------------------------------------------


def may_go_unlisted(study: StudyRow, how: Comparison, *, most: int) -> bool:
    """Whether a study is moved whole without a list: the target has none of it, and the source says how many there are.

    Listing instances may cost an archive more than sending them. If as many arrive as it counts, none is missing.
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
        most: instances in a chunk. A series wanted whole may have more, since one request per series costs an archive
            least.
        numbers: yields the numbers of the chunks.
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
        attempt: how often it has been handed out; results of an earlier attempt are ignored.
        study_id: the study's number in the ledger.
        wanted: the instances to open at the source.
    """

    number: int
    attempt: int
    study_id: int
    wanted: Selection


class ItemEnd(NamedTuple):
    """The result of one item of a chunk.

    Attributes:
        series: its Series Instance UID at the source.
        uid: its SOP Instance UID at the source.
        state: where it stands now.
        reason: why; see `states.Reason`.
        temporary: another attempt may succeed.
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
    """The end of a chunk, and why it was not completed.

    Attributes:
        failed_end: the end that failed, ``"source"`` or ``"target"``; empty if neither did.
        error: the name of the exception's class, ``"ConnectionFailed"``; empty where there was none.
        temporary: the end may work again later, as after an outage; the items have used up no attempt.
        message: one line for people, without anything private.
        retry_after: seconds the archive asked to wait.
        disk_full: a disk is full: retrying is useless until there is space.
    """

    failed_end: str = ""
    error: str = ""
    temporary: bool = False
    message: str = ""
    retry_after: float | None = None
    disk_full: bool = False


class Dispatcher(Protocol):
    """Runs chunks, in this process or on other machines, and yields results as they arrive."""

    def run(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[tuple[Chunk, ItemEnd | ChunkEnd], None]:
        """Take chunks while there is room; yield the items' results, and last for each chunk its `ChunkEnd`."""
        ...
