"""Anonymised sources: planned once, then read piecewise from the original, with the changed bytes inserted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.anonymize.pieces import Segment
from postdicom_async.dicom.anonymize.rules import CANNOT_ANONYMIZE
from postdicom_async.dicom.deflated import Inflated, deflate
from postdicom_async.dicom.elements import DicomProblem
from postdicom_async.dicom.header import HEADER_LIMIT, HeaderGap, InstanceHeader, read_header, read_values
from postdicom_async.dicom.tags import TAG
from postdicom_async.disk.files import (
    FileBody,
    HeldFile,
    Unusable,
    explain_os_error,
    explained,
    in_background,
    outlasting,
)
from postdicom_async.disk.sources import IdentifiedSource, Usable, require_anonymization
from postdicom_async.disk.spool import SpooledFile
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import translated
from postdicom_async.results import Status

if TYPE_CHECKING:
    from postdicom_async.dicom.anonymize import Anonymization

_PATIENT_ID = TAG["PatientID"]
_PIECE = 512 * 1024

_Read = Callable[[int, int], bytes]
Original: TypeAlias = FileBody | BytesBody | SpooledFile


@dataclass(frozen=True, slots=True)
class AnonymizedBody:
    """A file with some of its bytes replaced, read in pieces.

    ``open`` raises `LocalFileError` if the original has changed since the plan was made.

    Attributes:
        original: the source of unchanged bytes.
        parts: bytes, or offset and length in the original.
        length: bytes in all.
        deflated_at: where the original's deflated data set begins; None for another transfer syntax.
        deflated_parts: bytes, or offset and length in the inflated data set, deflated again after ``parts``.
    """

    original: Original = field(repr=False)
    parts: tuple[Segment, ...] = field(repr=False)
    length: int
    deflated_at: int | None = None
    deflated_parts: tuple[Segment, ...] = field(default=(), repr=False)

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield the anonymised file from its first byte, reading the next piece while one is being sent."""
        pieces = self.pieces()
        ahead = asyncio.ensure_future(asyncio.to_thread(next, pieces, b""))
        with explained("a source"), translated(DicomProblem, _changed):
            try:
                while data := await asyncio.shield(ahead):
                    ahead = asyncio.ensure_future(asyncio.to_thread(next, pieces, b""))
                    yield data
            finally:
                try:
                    await outlasting(ahead)  # a thread may be reading from what is closed next
                finally:
                    with suppress(ValueError):  # still running where the loop itself has ended: it closes itself later
                        pieces.close()

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield the file, reading it lazily; close the generator if it is not read to its end."""
        length = 0
        with _opened(self.original) as read:
            for piece in _gathered(self._runs(read), getattr(self.original, "piece", _PIECE)):
                length += len(piece)
                yield piece
        if length != self.length:
            raise _changed()

    def _runs(self, read: _Read) -> Iterator[bytes]:
        yield from _runs(self.parts, read)
        if self.deflated_at is not None:
            yield from deflate(_runs(self.deflated_parts, Inflated(read, self.deflated_at).read))


def _changed(_: DicomProblem | None = None) -> LocalFileError:
    return LocalFileError("a source changed while it was read")


def _opened(original: Original) -> AbstractContextManager[_Read]:
    if isinstance(original, FileBody | SpooledFile):
        return original.ranges()
    data = original.data

    def read(at: int, size: int) -> bytes:
        return data[at : at + size]

    return nullcontext(read)


def _runs(parts: Iterable[Segment], read: _Read) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        at, left = part
        while left:
            data = read(at, min(left, _PIECE))
            if not data:
                raise LocalFileError("a source ended early while it was read")
            yield data
            at, left = at + len(data), left - len(data)


def _gathered(runs: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Join runs of bytes, many of which may be small, into pieces of about ``size`` bytes."""
    held: list[bytes] = []
    length = 0
    for run in runs:
        held.append(run)
        length += len(run)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if length:
        yield b"".join(held)


async def anonymized(source: IdentifiedSource, anonymization: Anonymization) -> IdentifiedSource:
    """Return the anonymised source, with the UIDs and length it will have.

    A source that cannot be anonymised is returned as `Unusable` with the reason; it must not be sent. One that is
    `Unusable` already is returned as it is.

    Raises:
        UsageError: ``anonymization`` is something else.
    """
    return await in_background(lambda: anonymized_now(source, anonymization))


def anonymized_now(source: IdentifiedSource, anonymization: Anonymization) -> IdentifiedSource:
    """Do what `anonymized` does, in this thread."""
    require_anonymization(anonymization)
    if isinstance(source, Unusable):
        return source
    original = source.body.file if isinstance(source.body, HeldFile) else source.body
    if not isinstance(original, FileBody | BytesBody | SpooledFile):
        raise UsageError("a source is anonymised once", argument="anonymize")
    try:
        body = _planned(original, anonymization)
        header, patient_id = _header_of(body)
        if anonymization.uid_map is not None and isinstance(header, InstanceHeader):
            anonymization.uid_map.record(source.header.uids, header.uids)
    except (DicomProblem, LocalFileError) as problem:
        reason = problem.reason or str(problem)
    except OSError as error:
        reason = explain_os_error(error)
    else:
        if isinstance(header, InstanceHeader):
            keeps_uid = header.uids.sop_instance_uid == source.header.uids.sop_instance_uid
            return Usable(source.label, header, body, keeps_uid, patient_id)
        reason = "no valid Study, Series and SOP Instance UID would be in it"
    return Unusable(source.label, Status.UNREADABLE, f"{CANNOT_ANONYMIZE}: {reason}", source.body.length)


def _planned(original: Original, anonymization: Anonymization) -> AnonymizedBody:
    from postdicom_async.dicom.anonymize.plan import plan_file

    with _opened(original) as read:
        head, data_set, deflated_at = plan_file(read, original.length, anonymization)
        if deflated_at is not None:  # its length is known only after deflating it
            runs = _runs(data_set.parts, Inflated(read, deflated_at).read)
            length = head.length + sum(len(run) for run in deflate(runs))
            return AnonymizedBody(original, tuple(head.parts), length, deflated_at, tuple(data_set.parts))
    head.extend(data_set)
    return AnonymizedBody(original, tuple(head.parts), head.length)


def _header_of(body: AnonymizedBody) -> tuple[InstanceHeader | HeaderGap, bytes]:
    """Read the new header and Patient ID, from the bytes that will be sent."""
    pieces = body.pieces()
    data = b""
    try:
        for piece in pieces:
            data += piece
            header = read_header(data, complete=len(data) == body.length)
            if header is not HeaderGap.INCOMPLETE or len(data) >= HEADER_LIMIT:
                return header, read_values(data, frozenset({_PATIENT_ID}))[0].get(_PATIENT_ID, b"").strip(b"\0 ")
    finally:
        pieces.close()
    return HeaderGap.UNCLEAR, b""
