"""Documents to the Cloud API: attached to an order, one file and one part at a time, on the main socket.

The messages are the JavaScript library's. That library repeats a large document's whole content with every part; here
each part is sent once, unless ``CloudWire.documents_as_script`` asks for the library's way (assumed: the service joins
the parts it receives).
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.cloud.frames import FileUploadType
from postdicom_async.cloud.upload import parts_of
from postdicom_async.cloud.upload_session import Attempt, UploadSession, status_after
from postdicom_async.disk.files import Beginning, FileBody, Unusable, read_beginning
from postdicom_async.disk.sources import read_paths
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.http.problems import Problem
from postdicom_async.http.retry import Failure
from postdicom_async.results import Outcome, Status, UploadReport
from postdicom_async.transfer.outcomes import Meter
from postdicom_async.vendor.values import ValueKind, check_value
from postdicom_async.watching import watch_instances

if TYPE_CHECKING:
    from uuid import UUID

    from postdicom_async.cloud.connection import Connection
    from postdicom_async.disk.scan import Files
    from postdicom_async.results import OnProgress

_OPERATION = "upload documents"


@dataclass(frozen=True, slots=True)
class _Document:
    name: str = field(repr=False)
    kind: DocumentType
    body: FileBody

    @property
    def path(self) -> str:
        """Its absolute path: a file both named and found in a folder is one document."""
        return os.path.abspath(self.body.path)  # noqa: PTH100 - Path has nothing that leaves links alone


class DocumentUpload:
    """One upload of documents. Use it once."""

    def __init__(
        self,
        connection: Connection,
        user: UUID | str | None,
        *,
        institution_uuid: object,
        patient_order_uuid: object,
        progress: OnProgress | None,
    ) -> None:
        if progress is not None and not callable(progress):
            raise UsageError("give a function that takes an event, or None", argument="progress")
        self._wire = connection.wire
        self._order = str(check_value("patient_order_uuid", ValueKind.GUID, patient_order_uuid))
        self._session = UploadSession(connection, user, institution_uuid, _OPERATION, at_once=1)
        self._meter = Meter(progress)
        self._on_outcome = watch_instances(_OPERATION, connection.settings.on_event)
        self._count = 0
        self._may_be_there = False

    async def run(self, sources: Files) -> UploadReport:
        """Send everything; return one outcome a file.

        Raises:
            PostdicomError: the service cannot be used. Its ``report`` says what had been attached by then.
        """
        started = time.monotonic()
        found = [one async for batch in read_paths(sources, self._look) for one in batch]
        documents = list({one.path: one for one in found if isinstance(one, _Document)}.values())
        self._count = len(documents)
        self._session.total_bytes = sum(document.body.length for document in documents)
        self._meter.expect(len(found), self._session.total_bytes)
        outcomes: list[Outcome] = []
        first_with: dict[str, Outcome] = {}
        problem: PostdicomError | None = None
        for one in found:
            if isinstance(one, Unusable):
                outcome = Outcome(one.label, one.status, size=one.size, reason=one.reason)
            elif (first := first_with.get(one.path)) is not None:
                twice = replace(first, status=Status.DUPLICATE, reason="given twice; attached once")
                outcome = twice if first.in_archive else replace(first, reason="as the one like it")
            else:
                outcome, problem = await self._settled(one, problem)
                first_with[one.path] = outcome
            outcomes.append(outcome)
            if self._on_outcome is not None:
                self._on_outcome(outcome)
            self._meter.finished(outcome, id(one))
            self._meter.check()
        orders = tuple(self._session.patient_order_uuids)
        counts = Counter(outcome.status for outcome in outcomes)
        report = UploadReport(tuple(outcomes), counts, self._meter.bytes_done, time.monotonic() - started, orders)
        if problem is None:
            return report
        problem.report = report
        raise problem

    def _look(self, path: Path) -> _Document | Unusable:
        """Return the document at a path, or why it cannot be sent; called in a thread."""
        found: Beginning[DocumentType | None] | Unusable = read_beginning(path, _told)
        if isinstance(found, Unusable):
            return Unusable(found.label, Status.UNREADABLE, found.reason, found.size)
        kind, status = found.told, found.status
        if path.name.encode(errors="replace").decode() != path.name:
            return Unusable(str(path), Status.UNREADABLE, "its name is not UTF-8", status.st_size)
        if kind is None or kind is not type_by_name(path.name):
            reason = (
                "no PDF, JPEG, PNG, BMP or MP4" if kind is None else f"it is {kind.name}, but its name does not say so"
            )
            return Unusable(str(path), Status.FAILED, reason, status.st_size)
        return _Document(path.name, kind, FileBody.of(path, status, self._wire.part_bytes))

    # --- one file ------------------------------------------------------------------------------------------------

    async def _settled(self, one: _Document, problem: PostdicomError | None) -> tuple[Outcome, PostdicomError | None]:
        """Return a document's outcome, and the error that ends the upload, if there is one by now."""
        if problem is not None:
            return _not_sent(one, problem), problem
        try:
            return await self._deliver(one), None
        except PostdicomError as error:
            return self._ended(one, error), error

    async def _deliver(self, one: _Document) -> Outcome:
        self._may_be_there = False

        async def attempt() -> None:
            self._may_be_there = False
            number = await self._session.attempt()
            async with aclosing(self._parts(one, number)) as parts:
                async for fields, data, is_last in parts:
                    self._may_be_there = is_last
                    await self._send(one, number, fields, data)

        def may_repeat(problem: Problem) -> bool:
            if problem.failure is Failure.NOT_SENT:
                self._may_be_there = False
            return not self._may_be_there

        error: PostdicomError | None
        try:
            # Once the last part has been sent, nothing is repeated: the document could be attached twice.
            error = await self._session.until_done(attempt, may_repeat=may_repeat)
        except LocalFileError as unreadable:
            return _outcome(one, Status.UNREADABLE, unreadable.message)
        if error is None:
            return replace(_outcome(one, Status.STORED, None), patient_order_uuid=self._order)
        return self._ended(one, error)

    def _ended(self, one: _Document, error: PostdicomError) -> Outcome:
        """Return the outcome of a document given up on: it is attached only with its last part."""
        if status_after(error) is Status.FAILED:
            return _outcome(one, Status.FAILED, error.reason or error.message)
        if self._may_be_there:
            return _outcome(one, Status.UNCONFIRMED, error.reason or error.message)
        return _not_sent(one, error)

    async def _parts(
        self, one: _Document, attempt: Attempt
    ) -> AsyncGenerator[tuple[dict[str, Any], bytes, bool], None]:
        """Yield each part's fields and data, and whether it is the last."""
        size, total = self._wire.part_bytes, -(-one.body.length // self._wire.part_bytes)
        whole = b"".join([piece async for piece in one.body.open()]) if self._wire.documents_as_script else None
        async with aclosing(parts_of(one.body, size)) as parts:
            for number in range(total):
                data = await anext(parts)
                is_last = number == total - 1
                if is_last:
                    await anext(parts, None)  # a changed file is noticed at its end, so it is never completed
                yield self._fields(one, attempt, number, total, data if whole else None), whole or data, is_last

    def _fields(
        self, one: _Document, attempt: Attempt, number: int, total: int, buffer: bytes | None
    ) -> dict[str, Any]:
        """Return a part's fields in the JavaScript library's order, which omits two if one part holds the file."""
        several = one.body.length >= self._wire.part_bytes
        fields: dict[str, Any] = {
            "FileIndex": attempt.file_index,
            "TotalFileCount": max(self._count, attempt.file_index + 1) if several else None,
            "CurrentFilePartIndex": number,
            "CurrentFileTotalPartCount": total,
            "FileBuffer": list(buffer) if several and buffer is not None else None,
            "PatientOrderUuid": self._order,
            "FileName": one.name,
            "FileType": one.kind.media_type,
            "IsDocument": True,
        }
        return {name: value for name, value in fields.items() if value is not None}

    async def _send(self, one: _Document, attempt: Attempt, fields: dict[str, Any], data: bytes) -> None:
        # All parts of a document must be sent in the session in which it was begun.
        socket = await self._session.connection.socket_of(attempt.account_session_uuid)
        envelope = await self._session.send(attempt, FileUploadType.PROCESS_DOCUMENTS, fields, data=data, socket=socket)
        if envelope.refusal is not None:
            raise self._session.refused(envelope.refusal, (one.name, one.name.rpartition(".")[0]))
        done = (fields["CurrentFilePartIndex"] + 1) * self._wire.part_bytes
        self._meter.reached(id(one), min(done, one.body.length))


def _told(data: bytes, *, complete: bool) -> DocumentType | None:  # noqa: ARG001 - complete or not, it is enough
    return type_by_content(data)


def _outcome(one: _Document, status: Status, reason: str | None) -> Outcome:
    return Outcome(str(one.body.path), status, size=one.body.length, reason=reason)


def _not_sent(one: _Document, problem: PostdicomError) -> Outcome:
    return _outcome(one, Status.FAILED, f"not sent: {problem.message}")


# --- types of documents ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DocumentType:
    """A kind of document.

    Attributes:
        name: as people call it.
        media_type: as a browser names it; sent to the service.
        endings: file name extensions, in lower case.
    """

    name: str
    media_type: str
    endings: tuple[str, ...]


_BY_BEGINNING: Final = {
    re.compile(rb".{0,1019}%PDF-", re.DOTALL): DocumentType(
        "PDF", "application/pdf", ("pdf",)
    ),  # ISO 32000, note to 7.5.2
    re.compile(rb"\xff\xd8\xff"): DocumentType("JPEG", "image/jpeg", ("jpg", "jpeg")),
    re.compile(rb"\x89PNG\r\n\x1a\n"): DocumentType("PNG", "image/png", ("png",)),
    re.compile(rb"BM.{4}\0{4}", re.DOTALL): DocumentType("BMP", "image/bmp", ("bmp",)),
    re.compile(rb".{4}ftyp", re.DOTALL): DocumentType("MP4", "video/mp4", ("mp4",)),
}
_BY_ENDING: Final = {ending: kind for kind in _BY_BEGINNING.values() for ending in kind.endings}


def type_by_content(beginning: bytes) -> DocumentType | None:
    """Return the type of a file that begins like this (1 KiB is enough); None if it is not a document."""
    return next((kind for form, kind in _BY_BEGINNING.items() if form.match(beginning)), None)


def type_by_name(name: str) -> DocumentType | None:
    """Return the type that a file's name claims; None if it claims none."""
    return _BY_ENDING.get(name.rpartition(".")[2].lower()) if "." in name else None
