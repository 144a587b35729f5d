"""DICOM files to the Cloud API: in parts, over several sockets, one outcome each.

A file is read part by part as sockets become free, so that memory holds no more than a part for each socket, whatever
the size of the files. On the wire an upload looks like the JavaScript library's. How errors are handled is our
own:

- After a lost answer, the service is asked whether it has the file. Only if it has not is the file sent again, whole
  and under a new number, so that its parts cannot be mixed up with those of the first attempt.
- A yes proves that the file is there, not that this upload put it there. Where existing files are skipped, it was not
  there before, so it is STORED; where they are sent all the same, it is UNCONFIRMED.
- A service that takes files but never answers ends the upload after a few files in a row: each of them costs many
  times the time-out of one answer.
- However the upload ends, a file that may have been sent in part without an answer is UNCONFIRMED, never FAILED.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import anyio

from postdicom_async.cloud.existence import Existence, FolderEntry, Held, read_identity
from postdicom_async.cloud.frames import FileUploadType
from postdicom_async.cloud.socket import SocketPool, SocketSlot
from postdicom_async.cloud.upload_session import Attempt, UploadSession, order_in, status_after, uuid_of
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.http.problems import Problem
from postdicom_async.http.retry import Failure
from postdicom_async.results import Outcome, Status, UploadReport
from postdicom_async.transfer.at_once import for_each
from postdicom_async.transfer.intake import Intake, Numbered
from postdicom_async.transfer.outcomes import MOST_KEPT
from postdicom_async.vendor.values import ValueKind, check_value

if TYPE_CHECKING:
    from uuid import UUID

    from postdicom_async.bodies import Body
    from postdicom_async.cloud.connection import Connection
    from postdicom_async.cloud.socket import FrameSocket
    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.sources import Sources, Usable
    from postdicom_async.results import OnProgress
    from postdicom_async.transfer.outcomes import Gathered

_OPERATION = "upload"
_MOST_SOCKETS = 64
_MOST_LOST = 3  # files in a row, for each socket
_FILES_A_SOCKET = 2  # while one is sent, the service is asked whether it has the other


_PERHAPS_THE_ORIGINAL = (
    "the service has an instance with this SOP Instance UID, perhaps the original; not sent: "
    "anonymise the UIDs too (remap_uids=True), or give existing='send'"
)

_PERHAPS_AN_OLDER_ONE = (
    "the answer was lost; the service has an instance with this SOP Instance UID, this one or an older one"
)

_Part: TypeAlias = "tuple[SocketSlot, FrameSocket, int, bytes]"


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The outcome of a file, and the order that holds it if the service named one.

    ``temporary``: whether another try may end differently, as it may wherever an answer was lost.
    """

    status: Status
    reason: str | None = None
    patient_order_uuid: str | None = None
    temporary: bool = False


@dataclass(slots=True)
class _Sending:
    """One file on its way, by number: whether parts of it may have been sent without a conclusive answer."""

    number: int
    may_have_left: bool = False


class CloudUpload:
    """One upload of DICOM files. Use it once."""

    def __init__(
        self,
        connection: Connection,
        user: UUID | str | None,
        *,
        institution_uuid: object,
        folder_uuid: object,
        anonymize: Anonymization | None,
        existing: str,
        send_truncated: bool = False,
        sockets: int,
        progress: OnProgress | None,
        gathered: Gathered | None = None,
    ) -> None:
        if existing not in ("skip", "send"):
            raise UsageError("give 'skip' or 'send'", argument="existing")
        if isinstance(sockets, bool) or not isinstance(sockets, int) or not 1 <= sockets <= _MOST_SOCKETS:
            raise UsageError(f"give a number from 1 to {_MOST_SOCKETS}", argument="sockets")
        folder = None if folder_uuid is None else str(check_value("folder_uuid", ValueKind.GUID, folder_uuid))
        self._folder_fields = {} if folder is None else {"FolderUuidList": [folder]}
        self._folder = None if folder is None else FolderEntry(connection, user, folder)
        self._session = UploadSession(connection, user, institution_uuid, _OPERATION, at_once=sockets)
        if gathered is not None and not gathered.keeps_all:
            self._session.most_orders = MOST_KEPT
        self._existence = Existence(self._session, folder, names_as_bytes=connection.wire.names_as_bytes)
        self._skips = existing == "skip"
        self._pool = SocketPool(connection, sockets)
        self._sending = anyio.Semaphore(sockets)
        self._lost_in_a_row = 0
        self._end: PostdicomError | None = None
        self._sockets = sockets
        self._part = connection.wire.part_bytes
        self._deadline = connection.settings.timeouts.deadline
        self._intake = Intake(
            piece=self._part,
            anonymize=anonymize,
            send_truncated=send_truncated,
            on_progress=progress,
            gathered=gathered,
        )

    async def run(self, sources: Sources) -> UploadReport:
        """Send everything; return one outcome a source.

        Raises:
            PostdicomError: the service cannot be used. Its ``report`` says what had been stored by then.
        """
        self._session.total_bytes = await self._intake.measure(sources)
        try:
            return self._with_orders(await self._intake.run(sources, self._send_all, _OPERATION, self._deadline))
        except PostdicomError as error:
            if isinstance(error.report, UploadReport):
                error.report = self._with_orders(error.report)
            raise
        finally:
            await self._pool.close()

    def _with_orders(self, report: UploadReport) -> UploadReport:
        return replace(report, patient_order_uuids=tuple(self._session.patient_order_uuids))

    async def _send_all(self, admitted: AsyncIterator[Numbered]) -> None:
        await for_each(admitted, self._deliver, at_once=_FILES_A_SOCKET * self._sockets)

    # --- one file ------------------------------------------------------------------------------------------------

    async def _deliver(self, file: Numbered) -> None:
        sending = _Sending(file.number)
        try:
            verdict = await self._verdict(file.instance, sending)
        except LocalFileError as error:
            verdict = _Verdict(Status.UNREADABLE, error.message)
        except PostdicomError as error:
            self._end = self._end or error
            self._settle(file, self._cut_short(sending))
            raise
        except BaseException:  # cancelled, by the caller or because another file's problem ends the upload
            if sending.may_have_left or self._end is not None:
                self._settle(file, self._cut_short(sending))
            raise
        self._settle(file, verdict)

    def _cut_short(self, sending: _Sending) -> _Verdict:
        """Return what is known of a file whose upload was cut short."""
        why = "the upload ended" if self._end is None else self._end.message
        if sending.may_have_left:
            return _Verdict(Status.UNCONFIRMED, f"not confirmed: {why}")
        return _Verdict(Status.FAILED, f"not sent: {why}", temporary=self._end is None or self._end.temporary)

    def _settle(self, file: Numbered, verdict: _Verdict) -> None:
        instance = file.instance
        if verdict.status is not Status.STORED:
            self._intake.expect_fewer_bytes(instance.body.length)
        outcome = Outcome(
            instance.label,
            verdict.status,
            instance.header.uids,
            instance.body.length,
            reason=verdict.reason,
            patient_order_uuid=verdict.patient_order_uuid,
            temporary=verdict.temporary or verdict.status is Status.UNCONFIRMED,
        )
        self._intake.settle(file.number, outcome)

    async def _verdict(self, instance: Usable, sending: _Sending) -> _Verdict:
        if self._skips:
            held = await self._existence.of(instance)
            if held is not None and instance.keeps_uid:
                return _Verdict(Status.FAILED, _PERHAPS_THE_ORIGINAL)
            if held is not None and (self._folder is None or held.patient_order_uuid):
                return await self._of_held(held, Status.PRESENT, "the service has it already; not sent")
        lost, ever_lost, found, order = False, False, None, None

        async def attempt() -> None:
            nonlocal lost, ever_lost, found, order
            found = await self._found(instance) if lost else None
            if found is None:
                lost = sending.may_have_left = False
                try:
                    async with self._sending:  # with one socket, a file starts when the one before it is done
                        order = await self._send_file(instance, sending)
                except Problem as problem:
                    # A part that was refused or never sent is missing, whatever became of the others.
                    lost = sending.may_have_left = problem.failure is Failure.LOST
                    ever_lost = ever_lost or lost
                    raise

        error = await self._session.until_done(attempt)
        if error is not None and ever_lost:  # it may refuse a file that it took before and lists only later
            found = await self._found(instance)
        self._give_up_after_many_lost(error if lost and found is None else None)
        if found is not None and not self._skips:
            return _Verdict(Status.UNCONFIRMED, _PERHAPS_AN_OLDER_ONE)
        if found is not None:
            return await self._of_held(found, Status.STORED, "confirmed by the service when asked")
        return _Verdict(Status.STORED, patient_order_uuid=order) if error is None else _verdict_after(error)

    async def _found(self, instance: Usable) -> Held | None:
        """Return what the service holds of a file whose answer was lost; None if it must be sent again."""
        held = await self._existence.asked(instance)
        needs_order = self._skips and self._folder is not None
        return None if held is None or (needs_order and not held.patient_order_uuid) else held

    def _give_up_after_many_lost(self, error: PostdicomError | None) -> None:
        """End the upload when the service takes files but never answers: each costs many answer time-outs."""
        self._lost_in_a_row = 0 if error is None else self._lost_in_a_row + 1
        if error is not None and self._lost_in_a_row >= _MOST_LOST * self._sockets:
            raise error

    async def _of_held(self, held: Held, status: Status, reason: str) -> _Verdict:
        self._session.note_order(held.patient_order_uuid)
        error = None if self._folder is None else await self._folder.add_order(held)
        return _Verdict(status, reason, held.patient_order_uuid) if error is None else _verdict_after(error)

    async def _send_file(self, instance: Usable, sending: _Sending) -> str | None:
        """Make one attempt at a file: every part once, under a new number. Return its order, if one was named.

        Raises:
            Problem: a part was refused, or its answer was lost.
            LocalFileError: the file cannot be read or has changed; its last part has then not been sent.
        """
        attempt = await self._session.attempt()
        body, total = instance.body, -(-instance.body.length // self._part)
        taken: set[SocketSlot] = set()
        acknowledged, named = 0, None

        async def send(part: _Part) -> None:
            nonlocal acknowledged, named
            slot, socket, number, data = part
            fields = {
                "FileIndex": attempt.file_index,
                "CurrentFilePartIndex": number,
                "CurrentFileTotalPartCount": total,
                **self._folder_fields,
            }
            sending.may_have_left = True
            envelope = await self._session.send(attempt, FileUploadType.PROCESS_FILE, fields, data=data, socket=socket)
            taken.discard(slot)
            self._pool.give_back(slot)
            if envelope.refusal is not None:
                raise self._session.refused(envelope.refusal, (await read_identity(body)).private)
            named = uuid_of(order_in(envelope)) or named
            acknowledged += len(data)
            self._intake.meter.reached(sending.number, acknowledged)

        try:
            async with aclosing(self._loaded(body, total, attempt, taken)) as parts:
                await for_each(parts, send, at_once=self._sockets)
        finally:
            for slot in taken:  # its part was not answered, so nothing else may use that socket
                slot.cut()
                self._pool.give_back(slot)
        return named

    async def _loaded(
        self, body: Body, total: int, attempt: Attempt, taken: set[SocketSlot]
    ) -> AsyncGenerator[_Part, None]:
        """Yield the parts of a file, each read once a slot is free for it."""
        async with aclosing(parts_of(body, self._part)) as parts:
            for number in range(total):
                slot, socket = await self._pool.take(attempt.account_session_uuid)
                taken.add(slot)
                data = await anext(parts)
                if number == total - 1:
                    await anext(parts, None)  # a changed file is noticed at its end, so it is never completed
                yield slot, socket, number, data


def _verdict_after(error: PostdicomError) -> _Verdict:
    return _Verdict(status_after(error), error.reason or error.message)


async def parts_of(body: Body, size: int) -> AsyncGenerator[bytes, None]:
    """Yield a body in parts of exactly ``size`` bytes; only the last may be shorter, and none is empty.

    Raises:
        LocalFileError: the body cannot be read, or its length is not the declared one.
    """
    held, left = bytearray(), body.length
    async with aclosing(body.open()) as pieces:
        async for piece in pieces:
            left -= len(piece)
            if not held and len(piece) == size:
                yield piece
                continue
            held += piece
            while len(held) >= size:
                yield bytes(held[:size])
                del held[:size]
    if left:
        raise LocalFileError("a source ended early while it was read")
    if held:
        yield bytes(held)
