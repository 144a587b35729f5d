"""What callers get back: outcomes per instance, reports per transfer, progress events. None holds patient data.

A path may hold a patient's name, so paths are left out of every ``repr``; read ``.where`` to see one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from postdicom_async.errors import TransferError
from postdicom_async.face import public_face
from postdicom_async.frames import ColumnKind, ColumnValues, frame_of
from postdicom_async.markup import Html, element, joined, table

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "BytesMoved",
    "DownloadReport",
    "IncompleteDownload",
    "InstanceFinished",
    "InstanceUids",
    "ListingCheck",
    "OnProgress",
    "Outcome",
    "ProgressEvent",
    "Rendered",
    "Status",
    "Totals",
    "UploadReport",
]


class InstanceUids(NamedTuple):
    """The three UIDs that address an instance (PS3.18 section 10.1)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


class Status(StrEnum):
    """What became of one instance, or of one source of an upload."""

    STORED = "stored"
    WARNED = "warned"
    """Stored, but the archive says it changed or dropped something; see ``reason``."""
    DUPLICATE = "duplicate"
    """Byte for byte the same as another source of this upload; sent once at most."""
    PRESENT = "present"
    """Already there: the archive says that it has it, or the folder holds it whole. Not transferred."""
    SAVED = "saved"
    """Downloaded: whole under its final name, checked to be what was asked for, and durable (``settings.fsync``)."""
    FAILED = "failed"
    """The archive refused it, or it could not be sent; see ``reason_code`` and ``reason``."""
    UNCONFIRMED = "unconfirmed"
    """Sent, but nothing proves that the archive holds it; see ``reason``."""
    MISSING = "missing"
    """The archive lists it, but it did not arrive."""
    REFUSED = "refused"
    """A part of an answer that is not DICOM, not what was asked for, a second copy, or under the name of another
    instance's file; its data was dropped."""
    NOT_DICOM = "not DICOM"
    UNREADABLE = "unreadable"
    """It could not be read, changed meanwhile, is cut off, or does not say which instance it is; see ``reason``."""


_IN_ARCHIVE = frozenset({Status.STORED, Status.WARNED, Status.DUPLICATE, Status.PRESENT})
_ACCEPTABLE = _IN_ARCHIVE | {Status.SAVED, Status.NOT_DICOM}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one instance, or of one source that is not an instance.

    Attributes:
        where: of an upload the source: a path, or a label such as ``"dataset 3"``, as the caller would name it; of a
            download the file that holds it now; empty where there is none.
        status: see `Status`.
        uids: the UIDs in the instance; None if it could not be read.
        size: bytes of the instance.
        reason_code: Failure Reason (0008,1197) or Warning Reason (0008,1196), when the archive gave one.
        reason: that code's name in PS3.18, or what went wrong here.
        patient_order_uuid: the order that holds it, when the service named it (Cloud API).
        temporary: whether the same source may succeed later: the network or the archive was at fault, not the source.
    """

    where: str = field(repr=False)
    status: Status
    uids: InstanceUids | None = None
    size: int = 0
    reason_code: int | None = None
    reason: str | None = None
    patient_order_uuid: str | None = None
    temporary: bool = False

    @property
    def path(self) -> Path:
        """``where`` as a path."""
        return Path(self.where)

    @property
    def in_archive(self) -> bool:
        """Whether the archive is known to hold this instance (uploads)."""
        return self.status in _IN_ARCHIVE

    @property
    def ok(self) -> bool:
        """Whether it is where it should be, or there was nothing to transfer; otherwise it needs attention."""
        return self.status in _ACCEPTABLE


def _frame_of(outcomes: Sequence[Outcome], *, without_size: int = 0) -> DataFrame:
    """Return a row for each outcome; the size of the last ones is unknown."""
    uids = [outcome.uids or (None, None, None) for outcome in outcomes]
    known = len(outcomes) - without_size
    text, integer, flag = ColumnKind.TEXT, ColumnKind.INTEGER, ColumnKind.FLAG
    return frame_of(
        {
            "status": ColumnValues(text, [outcome.status.value for outcome in outcomes]),
            "ok": ColumnValues(flag, [outcome.ok for outcome in outcomes]),
            "study_instance_uid": ColumnValues(text, [one[0] for one in uids]),
            "series_instance_uid": ColumnValues(text, [one[1] for one in uids]),
            "sop_instance_uid": ColumnValues(text, [one[2] for one in uids]),
            "size": ColumnValues(integer, [*(outcome.size for outcome in outcomes[:known]), *[None] * without_size]),
            "reason_code": ColumnValues(integer, [outcome.reason_code for outcome in outcomes]),
            "reason": ColumnValues(text, [outcome.reason for outcome in outcomes]),
            "temporary": ColumnValues(flag, [outcome.temporary for outcome in outcomes]),
            "patient_order_uuid": ColumnValues(text, [outcome.patient_order_uuid for outcome in outcomes]),
            "where": ColumnValues(text, [outcome.where or None for outcome in outcomes]),
        }
    )


def _page_of(
    verdict: str, counts: Mapping[Status, int], troubled: Sequence[Outcome], troubles: int, note: str = ""
) -> str:
    """Return a report for a notebook: nothing of it is private, and no path is in it."""
    rows = [[status.value, f"{number:,}"] for status, number in counts.items()]
    parts: list[Html] = [element("p", verdict), table(["status", "instances"], rows)]
    if troubled:
        lines = [[one.status.value, one.uids[2] if one.uids else "", one.reason or ""] for one in troubled[:_SHOWN]]
        headings = ["status", "SOP Instance UID", "reason"]
        parts.append(table(headings, lines, caption="What needs attention", of=troubles))
        if note:
            parts.append(element("p", "Which files they are: ", element("code", note)))
    return joined(*parts)


_SHOWN = 10


def _amount(bytes_moved: int, seconds: float) -> str:
    return f"{bytes_moved:,} bytes in {seconds:.1f} s"


@public_face
@dataclass(frozen=True, slots=True)
class UploadReport:
    """Every source of an upload, with exactly one outcome each, in the order they were read.

    Attributes:
        outcomes: one entry per source; with ``report=`` they are in that file, and only those that need attention are
            here, at most 10,000 of them.
        counts: number of outcomes by status; statuses that did not occur are absent.
        bytes_sent: instance bytes that reached the archive, repeats not counted.
        seconds: wall time.
        patient_order_uuids: the orders that hold them now, as far as the service named them (Cloud API); with
            ``report=`` at most 10,000, and that of each source is in the file.
    """

    outcomes: tuple[Outcome, ...] = field(repr=False)
    counts: Mapping[Status, int]
    bytes_sent: int
    seconds: float
    patient_order_uuids: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The number of sources."""
        return sum(self.counts.values())

    @property
    def ok(self) -> bool:
        """True when every DICOM source is in the archive; files that are not DICOM do not count against it."""
        return _ACCEPTABLE.issuperset(self.counts)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes that need attention."""
        return tuple(outcome for outcome in self.outcomes if not outcome.ok)

    def raise_for_failures(self) -> None:
        """Raise `TransferError` unless `ok`."""
        if not self.ok:
            failed = sum(number for status, number in self.counts.items() if status not in _ACCEPTABLE)
            message = f"{failed} of {self.total} instances are not known to be stored"
            raise TransferError(message, report=self)

    def to_pandas(self) -> DataFrame:
        """Return a data frame with a row for each of ``outcomes`` (extra ``pandas``); its paths may name patients.

        Columns are the fields of `Outcome`, the UIDs each in one: ``string``, ``Int64`` and ``boolean``.

        Raises:
            UsageError: pandas is not installed.
        """
        return _frame_of(self.outcomes)

    def _repr_html_(self) -> str:
        troubles = sum(number for status, number in self.counts.items() if status not in _ACCEPTABLE)
        verdict = "Everything is in the archive" if self.ok else f"{troubles:,} need attention"
        moved = _amount(self.bytes_sent, self.seconds)
        page = f"Upload of {self.total:,}: {verdict}. {moved}."
        return _page_of(page, self.counts, self.failures, troubles, 'report.to_pandas()["where"]')


ListingCheck: TypeAlias = Literal["compared", "counted", "unavailable", "not asked"]
"""How completeness was checked with the archive (QIDO-RS): against its list of instances, or against the number it has
of them, which is enough when as many different ones arrived in an undamaged answer. ``"unavailable"`` when it could not
be asked, or when its list or number contradicts what arrived (see `DownloadReport.contradicted`)."""


@public_face
@dataclass(frozen=True, slots=True)
class DownloadReport:
    """What a download left on disk.

    Attributes:
        saved: instances written by this call, in the order of their UIDs; with ``report=`` they are in that file, and
            this is empty.
        counts: number of instances by status; statuses that did not occur are absent.
        already_present: instances found whole in the folder, not fetched again. With ``report=`` and in
            ``download_each`` at most 10,000 of them are kept, as of those that need attention; ``counts`` tells of all.
        missing: instances the archive lists that did not arrive, as many of them as of ``already_present``; empty
            unless `IncompleteDownload` was raised.
        refused: how many parts were not accepted (not DICOM, not what was asked for, or under the name of another
            instance's file); their data was dropped.
        bytes_received: instance bytes written.
        seconds: wall time.
        listing: how completeness was checked with the archive; see `ListingCheck`.
        transfer_syntax_as_stored: False when the archive only answered to a request that lets it transcode.
        contradicted: the archive's own list or count is wrong: it lists nothing or not all of what arrived, or counts
            less. So completeness is unknown, and `ok` is False. An archive that cannot be asked contradicts nothing.
        failed: the error that carries this report ended the download; it is not known to be complete.
    """

    saved: tuple[Outcome, ...] = field(repr=False)
    counts: Mapping[Status, int]
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
        """True if the download finished, nothing is missing or refused, and the archive's own list agrees."""
        return not (self.failed or self.missing or self.refused or self.contradicted)

    def to_pandas(self) -> DataFrame:
        """Return a data frame with a row for each instance that is listed here (extra ``pandas``).

        They are ``saved``, then ``already_present``, then ``missing``, with the columns of `UploadReport.to_pandas`.
        The size of those that were not saved by this call is not known here: it is empty.

        Raises:
            UsageError: pandas is not installed.
        """
        others = [*self._without_file(Status.PRESENT), *self._without_file(Status.MISSING)]
        return _frame_of([*self.saved, *others], without_size=len(others))

    def _without_file(self, status: Status) -> list[Outcome]:
        uids = self.already_present if status is Status.PRESENT else self.missing
        return [Outcome("", status, one) for one in uids]

    def _repr_html_(self) -> str:
        wrong = {
            "it broke off": self.failed,
            f"{self.counts.get(Status.MISSING, len(self.missing)):,} are missing": bool(self.missing),
            f"{self.refused:,} parts were refused": bool(self.refused),
            "the archive's own list contradicts it": self.contradicted,
        }
        verdict = ", ".join(words for words, is_so in wrong.items() if is_so) or f"whole; listing {self.listing}"
        moved = _amount(self.bytes_received, self.seconds)
        missing = self._without_file(Status.MISSING)
        return _page_of(f"Download: {verdict}. {moved}.", self.counts, missing, len(missing))


class IncompleteDownload(TransferError):
    """Instances are missing after every repeat; those that arrived whole are on disk, under ``report.saved``."""

    report: DownloadReport


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered image, video or thumbnail (PS3.18 section 10.4.1.1.3)."""

    content: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class Totals:
    """How far a transfer is. Bytes never decrease, and a repeat never counts a byte twice."""

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
    """One instance has its outcome."""

    totals: Totals
    outcome: Outcome


ProgressEvent: TypeAlias = BytesMoved | InstanceFinished
OnProgress: TypeAlias = Callable[[ProgressEvent], None]
"""Called in the event loop; keep it short."""
