"""The states of a job's items, and the reasons for them. Pure.

An item is an instance of the source, or a file there that is not an instance. Each item is in exactly one state, so the
number discovered is always the sum over the states.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from postdicom_async.dicom.anonymize.rules import CANNOT_ANONYMIZE
from postdicom_async.dicomweb.store_answer import TWO_PATIENTS
from postdicom_async.results import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(IntEnum):
    """The state of an item. The numbers are stored in the ledger."""

    PENDING = 0
    RUNNING = 1
    DONE = 2
    """Moved by this job, and confirmed as stored by the target, or durably written."""
    PRESENT = 3
    """The target had it before: it is listed there, or the study had equal counts and was not listed."""
    EXCLUDED = 4
    """Not for this job: not DICOM, or outside a filter."""
    FAILED = 5
    UNCONFIRMED = 6
    """Sent, but nothing confirms that the target holds it."""
    DELETED = 7
    """At the target and no longer at the source; deleted by this job."""


SETTLED: Final = frozenset(State) - {State.PENDING, State.RUNNING}

MOVES: Final[Mapping[State, frozenset[State]]] = MappingProxyType({
    State.PENDING: frozenset({State.RUNNING, State.PRESENT, State.EXCLUDED, State.FAILED}),
    State.RUNNING: frozenset({State.PENDING, *SETTLED} - {State.DELETED}),
    # found by verification, or in a list
    State.DONE: frozenset({State.DELETED, State.FAILED, State.UNCONFIRMED, State.PENDING, State.EXCLUDED}),
    State.PRESENT: frozenset({State.DELETED, State.FAILED, State.UNCONFIRMED, State.PENDING, State.EXCLUDED}),
    State.EXCLUDED: frozenset({State.PENDING}),
    State.FAILED: frozenset({State.PENDING, State.PRESENT, State.EXCLUDED, State.DELETED}),
    State.UNCONFIRMED: frozenset({State.PENDING, State.DONE, State.PRESENT, State.FAILED, State.DELETED}),
    State.DELETED: frozenset({State.PENDING, State.PRESENT}),
})  # fmt: skip
"""The allowed transitions between states."""


class Reason(IntEnum):
    """Why, in numbers below 100; see `reason_code` for those of HTTP and of DICOM."""

    NONE = 0
    NOT_DICOM = 1
    FILTER = 2
    UNREADABLE = 3
    DUPLICATE_FILE = 4
    OTHER_CONTENT = 5
    NOT_ARRIVED = 6
    NOT_CONFIRMED = 7
    REFUSED = 8
    CONNECTION = 9
    GONE = 10
    NOT_LISTED = 11
    DIFFERENT = 12
    CANNOT_COMPARE = 13
    EQUAL_BY_COUNT = 14
    ANONYMIZE = 15
    NOT_FROM_HERE = 16
    LOCAL_FILE = 17
    UNEXPECTED = 18
    CANNOT_LIST = 19
    TWO_PATIENTS = 20


_TEXTS: Final = MappingProxyType({
    Reason.NONE: "",
    Reason.NOT_DICOM: "not DICOM",
    Reason.FILTER: "outside the filter",
    Reason.UNREADABLE: "cannot be read, or is cut off",
    Reason.DUPLICATE_FILE: "the same bytes as another file",
    Reason.OTHER_CONTENT: "another file has its SOP Instance UID and other content",
    Reason.NOT_ARRIVED: "the source lists it and did not send it",
    Reason.NOT_CONFIRMED: "sent, and nothing proves that it is there",
    Reason.REFUSED: "the target refused it",
    Reason.CONNECTION: "the network, or a server that was out of order",
    Reason.GONE: "no more at the source",
    Reason.NOT_LISTED: "the target does not list it",
    Reason.DIFFERENT: "the target holds another instance with its UID",
    Reason.CANNOT_COMPARE: "the target gives it in a form that cannot be compared",
    Reason.EQUAL_BY_COUNT: "equal by count, not listed",
    Reason.ANONYMIZE: "cannot be anonymised",
    Reason.NOT_FROM_HERE: "not copied by this job, so not deleted",
    Reason.LOCAL_FILE: "a file or folder of this machine",
    Reason.UNEXPECTED: "unexpected",
    Reason.TWO_PATIENTS: "the target has its study under more than one Patient ID, and may return it under none",
    Reason.CANNOT_LIST: "its instances cannot be listed, or the lists contradict each other",
})  # fmt: skip
_HTTP, _DICOM = 1000, 0x10000


def reason_code(*, status: int | None = None, dicom: int | None = None) -> int:
    """Return the number for an HTTP status or a reason code of PS3.4 annex GG."""
    return _DICOM + dicom if dicom is not None else _HTTP + (status or 0)


def is_reason(code: int) -> bool:
    """Return whether a number is that of a reason: one of `Reason`, an HTTP status, or a code of a store's answer."""
    return code >= _HTTP or code in set(Reason)


def reason_text(code: int) -> str:
    """Return a reason in words; unknown numbers of a newer version as such."""
    if code >= _DICOM:
        return f"the target's reason {code - _DICOM:04X}"
    if code >= _HTTP:
        return f"HTTP status {code - _HTTP}"
    return _TEXTS[Reason(code)] if code in _TEXTS else f"reason {code}"


class ItemVerdict(NamedTuple):
    """What an outcome means for an item; ``temporary`` if another attempt may succeed."""

    state: State
    reason: int = Reason.NONE
    temporary: bool = False


_BY_STATUS: Final[Mapping[Status, ItemVerdict]] = MappingProxyType({
    Status.STORED: ItemVerdict(State.DONE),
    Status.WARNED: ItemVerdict(State.DONE),
    Status.SAVED: ItemVerdict(State.DONE),
    Status.DUPLICATE: ItemVerdict(State.DONE),
    Status.PRESENT: ItemVerdict(State.PRESENT),
    Status.FAILED: ItemVerdict(State.FAILED, Reason.REFUSED),
    Status.UNCONFIRMED: ItemVerdict(State.UNCONFIRMED, Reason.NOT_CONFIRMED),
    Status.MISSING: ItemVerdict(State.FAILED, Reason.NOT_ARRIVED, temporary=True),
    Status.REFUSED: ItemVerdict(State.FAILED, Reason.NOT_ARRIVED, temporary=True),
    Status.NOT_DICOM: ItemVerdict(State.EXCLUDED, Reason.NOT_DICOM),
    Status.UNREADABLE: ItemVerdict(State.FAILED, Reason.UNREADABLE),
})  # fmt: skip


def verdict_of(outcome: Outcome) -> ItemVerdict:
    """Return what the outcome of a transfer means for its item."""
    found = _BY_STATUS[outcome.status]
    reason = found.reason
    if outcome.reason_code is not None:
        reason = reason_code(dicom=outcome.reason_code)
    elif outcome.temporary and outcome.status is Status.FAILED:
        reason = Reason.CONNECTION
    elif outcome.status is Status.UNREADABLE and (outcome.reason or "").startswith(CANNOT_ANONYMIZE):
        reason = Reason.ANONYMIZE
    elif outcome.status is Status.UNCONFIRMED and (outcome.reason or "").startswith(TWO_PATIENTS):
        reason = Reason.TWO_PATIENTS
    return ItemVerdict(found.state, int(reason), found.temporary or outcome.temporary)
