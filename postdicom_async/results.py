"""What callers get back: outcomes per instance, reports per job, progress events. All frozen, none holds patient data.

A path may hold a patient's name, so paths are left out of every ``repr``; read ``.source`` or ``.path`` to see one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from postdicom_async.errors import TransferError
from postdicom_async.face import public_face

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BytesMoved",
    "DownloadReport",
    "InstanceFinished",
    "InstanceUids",
    "ListingCheck",
    "OnProgress",
    "ProgressEvent",
    "Rendered",
    "SavedInstance",
    "StoreOutcome",
    "StoreStatus",
    "Totals",
    "UploadReport",
]


class InstanceUids(NamedTuple):
    """The three UIDs that address an instance (PS3.18 section 10.1)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


class StoreStatus(StrEnum):
    """What became of one source of an upload."""

    STORED = "stored"
    WARNED = "warned"
    """Stored, and the archive says it changed or dropped something; see ``reason``."""
    DUPLICATE = "duplicate"
    """Byte for byte the same as another source of this upload; sent once."""
    PRESENT = "present"
    """The archive says that it has it already; not sent (Cloud API)."""
    FAILED = "failed"
    """The archive refused it, or it could not be sent; see ``reason_code`` and ``reason``."""
    UNCONFIRMED = "unconfirmed"
    """Sent, but nothing proves that the archive holds it; see ``reason``."""
    NOT_DICOM = "not DICOM"
    UNREADABLE = "unreadable"
    """It could not be read, changed while it was, is cut off, or does not say which instance it is; see ``reason``."""


_IN_ARCHIVE = frozenset({StoreStatus.STORED, StoreStatus.WARNED, StoreStatus.DUPLICATE, StoreStatus.PRESENT})
_ACCEPTABLE = _IN_ARCHIVE | {StoreStatus.NOT_DICOM}


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """The end of one source.

    Attributes:
        source: the path, or a label such as ``"dataset 3"``, as the caller would name it.
        status: see `StoreStatus`.
        uids: what the file says it is; None when it could not be read.
        size: bytes of the instance.
        reason_code: Failure Reason (0008,1197) or Warning Reason (0008,1196), when the archive gave one.
        reason: that code's name in PS3.18, or what went wrong here.
        patient_order_uuid: the order that holds it, when the service named it (Cloud API).
        temporary: whether the same source may make it later: the network or the archive was at fault, not the source.
    """

    source: str = field(repr=False)
    status: StoreStatus
    uids: InstanceUids | None = None
    size: int = 0
    reason_code: int | None = None
    reason: str | None = None
    patient_order_uuid: str | None = None
    temporary: bool = False

    @property
    def in_archive(self) -> bool:
        """Whether the archive is known to hold this instance."""
        return self.status in _IN_ARCHIVE


@public_face
@dataclass(frozen=True, slots=True)
class UploadReport:
    """Every source of an upload, with exactly one outcome each, in the order they were read.

    Attributes:
        outcomes: one entry a source.
        bytes_sent: instance bytes that reached the archive, repeats not counted.
        seconds: wall time.
        patient_order_uuids: the orders that hold them now, as far as the service named them (Cloud API).
    """

    outcomes: tuple[StoreOutcome, ...] = field(repr=False)
    bytes_sent: int
    seconds: float
    patient_order_uuids: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[StoreStatus, int]:
        """Number of outcomes by status; statuses that did not occur are absent."""
        return Counter(outcome.status for outcome in self.outcomes)

    @property
    def ok(self) -> bool:
        """True when every DICOM source is in the archive; files that are not DICOM do not count against it."""
        return all(outcome.status in _ACCEPTABLE for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[StoreOutcome, ...]:
        """The outcomes that need attention."""
        return tuple(outcome for outcome in self.outcomes if outcome.status not in _ACCEPTABLE)

    def raise_for_failures(self) -> None:
        """Raise `TransferError` unless `ok`."""
        if not self.ok:
            message = f"{len(self.failures)} of {len(self.outcomes)} instances are not known to be stored"
            raise TransferError(message, report=self)


@dataclass(frozen=True, slots=True)
class SavedInstance:
    """An instance that is whole on disk under its final name.

    Attributes:
        uids: read from the instance itself.
        path: the file, ``folder / layout``.
        size: bytes.
    """

    uids: InstanceUids
    path: Path = field(repr=False)
    size: int


ListingCheck: TypeAlias = Literal["compared", "counted", "unavailable", "not asked"]
"""How completeness was checked with the archive (QIDO-RS): against its list of instances, or against the number it has
of them, which is enough when as many different ones arrived in an undamaged answer. ``"unavailable"`` when it could not
be asked, or when its list or number contradicts what arrived (see `DownloadReport.contradicted`)."""


@dataclass(frozen=True, slots=True)
class DownloadReport:
    """What a download left on disk.

    Attributes:
        saved: instances written by this call.
        already_present: instances found whole in the folder, not fetched again.
        missing: instances the archive lists that did not arrive; empty unless `IncompleteDownload` was raised.
        refused: how many parts were not accepted (not DICOM, not what was asked for); their data was dropped.
        bytes_received: instance bytes written.
        seconds: wall time.
        listing: how completeness was checked with the archive; see `ListingCheck`.
        transfer_syntax_as_stored: False when the archive only answered to a request that lets it transcode.
        contradicted: the archive's own words are wrong: it lists nothing or not all of what arrived, or counts less.
            So whether it is all cannot be told, and `ok` is False. An archive that cannot be asked contradicts nothing.
        failed: an error ended it, the one that carries this report; nothing is then known to be complete.
    """

    saved: tuple[SavedInstance, ...] = field(repr=False)
    already_present: tuple[InstanceUids, ...] = field(repr=False)
    missing: tuple[InstanceUids, ...]
    refused: int
    bytes_received: int
    seconds: float
    listing: ListingCheck
    transfer_syntax_as_stored: bool = True
    contradicted: bool = False
    failed: bool = False

    @property
    def ok(self) -> bool:
        """True when it came to its end, nothing is missing or refused, and the archive's own list agrees."""
        return not (self.failed or self.missing or self.refused or self.contradicted)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered image, video or thumbnail (PS3.18 section 10.4.1.1.3)."""

    content: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class Totals:
    """How far a transfer is. Bytes only grow, and a repeat never counts a byte twice."""

    instances_done: int
    instances_total: int | None
    bytes_done: int
    bytes_total: int | None


@dataclass(frozen=True, slots=True)
class BytesMoved:
    """Some bytes went over the wire."""

    totals: Totals


@dataclass(frozen=True, slots=True)
class InstanceFinished:
    """One instance reached its outcome."""

    totals: Totals
    outcome: StoreOutcome | SavedInstance


ProgressEvent: TypeAlias = BytesMoved | InstanceFinished
OnProgress: TypeAlias = Callable[[ProgressEvent], None]
"""Called in the event loop; keep it short."""
