"""The shared parts of Cloud API uploads: their session, the numbers of their files, and one attempt at a message.

An upload is announced under the account's session (23/1) and gets an id of its own. `UploadSession` holds both ids;
only `_entered` changes them, one caller at a time, when the account has a new session: the upload is then announced
again. An `Attempt` keeps the ids that it began with, so that no part of a file can reach a session that has not seen
its first part.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from postdicom_async.cloud.frames import FileUploadType
from postdicom_async.cloud.socket import Silence, own_problem, session_replaced
from postdicom_async.errors import ConnectionFailed, PostdicomError, ProtocolError, ServerError
from postdicom_async.face import translated
from postdicom_async.http.problems import Problem
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.repeat import Policy, RetryBudget, repeat
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.results import Status
from postdicom_async.vendor.answers import PatientOrder, choose
from postdicom_async.watching import CLOUD_LOG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from uuid import UUID

    from postdicom_async.cloud.connection import Connection
    from postdicom_async.cloud.frames import Envelope
    from postdicom_async.cloud.socket import FrameSocket

KIB = 1024
_REPEATS_OF_EACH = 4  # of the files under way at once, in a burst
_MOST_REFUSALS = 3  # of one file; few refusals are temporary, and each repeat costs a wait


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one file. Its parts cannot be mixed up with those of another attempt or session.

    Attributes:
        session_uuid: id of the upload when the attempt began.
        account_session_uuid: id of the account's session under which the upload was announced.
        file_index: a number unique within that session, across all uploads.
    """

    session_uuid: str
    account_session_uuid: str
    file_index: int


class UploadSession:
    """One upload, as the service knows it. Announced on first use, and again when the account has a new session.

    Attributes:
        connection: the account's session, and its sockets.
        operation: what error messages begin with.
        budget: the repeats left for all files together.
        institution_uuid: the institution that the uploaded files will belong to.
        total_bytes: the announced size of the upload.
        patient_order_uuids: the orders that answers have named, at most ``most_orders``.
    """

    def __init__(
        self, connection: Connection, user: UUID | str | None, institution: object, operation: str, *, at_once: int
    ) -> None:
        self.connection: Connection = connection
        self._user = connection.user_of(user)
        self.operation: str = operation
        self._opening = anyio.Lock()
        self._opened_under = ""
        self._session_uuid = ""
        # A budget of its own: when all sockets drop at once, that many files are repeated.
        self.budget: RetryBudget = RetryBudget(max(self.connection.settings.retry.budget, at_once * _REPEATS_OF_EACH))
        self._at_once = at_once
        self._silences: dict[FileUploadType, int] = {}
        self.institution_uuid: str = choose("institution_uuid", self._user.institutions, institution).identity
        self.total_bytes: int = 0
        self.most_orders: int = sys.maxsize
        self.patient_order_uuids: dict[str, None] = {}

    # --- the session ---------------------------------------------------------------------------------------------

    async def _entered(self) -> tuple[str, str]:
        """Return the session's id and that of the account's session, announcing the upload (23/1) if that is another.

        Raises:
            ServerError: the service refuses it.
            Problem: the service cannot be reached; nothing that waited for it was sent.
        """
        async with self._opening:
            account_session = await self.connection.session_uuid()
            if self._opened_under != account_session:
                envelope = await self._announced(account_session)
                given = envelope.text("SessionUniqueUuid") if self.connection.wire.upload_session_of_answer else None
                self._session_uuid, self._opened_under = given or account_session, account_session
                self.connection.keep_secret(self._session_uuid)
            return self._session_uuid, self._opened_under

    async def _announced(self, account_session: str) -> Envelope:
        size = self.total_bytes / KIB
        fields = {
            "UserUuid": self._user.identity,
            "InstitutionUuid": self.institution_uuid,
            "TotalFileSize": int(size) if size.is_integer() else size,
            "UploaderUuid": self._user.identity,
            "UploaderName": f"{self._user.full_name or ''} - API",
        }
        with translated(Problem, own_problem):
            envelope = await self._exchange(FileUploadType.INITIALIZE, fields, account_session)
        if envelope.refusal is not None:
            reason = self.shown(envelope.refusal)
            raise ServerError("the service refused the upload", operation=self.operation, reason=reason)
        return envelope

    async def attempt(self) -> Attempt:
        """Return the number of a new attempt at a file.

        Raises:
            ServerError: the service refuses the upload.
            Problem: the service cannot be reached; nothing was sent.
        """
        uuid, account_session = await self._entered()
        return Attempt(uuid, account_session, self.connection.next_file_index(uuid))

    # --- messages ------------------------------------------------------------------------------------------------

    async def send(
        self,
        attempt: Attempt,
        kind: FileUploadType,
        fields: Mapping[str, Any],
        *,
        data: bytes = b"",
        socket: FrameSocket | None = None,
    ) -> Envelope:
        """Send one message of this upload once; return its answer, a refusal included.

        Raises:
            Problem: there was no readable answer, or the session is gone.
        """
        head = {
            "SessionUniqueUuid": attempt.session_uuid,
            "InstitutionUuid": self.institution_uuid,
            "UserUuid": self._user.identity,
        }
        under = attempt.account_session_uuid
        envelope = await self._exchange(kind, {**head, **fields}, under, data=data, socket=socket)
        if envelope.refusal is None and kind is not FileUploadType.CHECK_FILE_EXIST:
            self.note_order(uuid_of(order_in(envelope)))
        return envelope

    def note_order(self, patient_order_uuid: str | None) -> None:
        """Note an order that holds something of this upload."""
        if patient_order_uuid and len(self.patient_order_uuids) < self.most_orders:
            self.patient_order_uuids.setdefault(patient_order_uuid)

    async def ask(self, kind: FileUploadType, fields: Mapping[str, Any]) -> Envelope:
        """Send a message that changes nothing, as often as the settings allow.

        Raises:
            PostdicomError: no answer came.
        """

        async def attempt() -> Envelope:
            return await self.send(Attempt(*await self._entered(), file_index=0), kind, fields)

        return await self.connection.repeated(self.operation, Repeat.READ, attempt)

    async def _exchange(
        self,
        kind: FileUploadType,
        fields: Mapping[str, Any],
        account_session: str,
        *,
        data: bytes = b"",
        socket: FrameSocket | None = None,
    ) -> Envelope:
        def problem_of(error: ProtocolError | Silence) -> Problem:
            if isinstance(error, Silence):
                self._silences[kind] = self._silences.get(kind, 0) + 1
                return error
            error.operation = self.operation
            return Problem(Failure.LOST, error)  # unreadable: it may or may not have been accepted

        with translated((ProtocolError, Silence), problem_of):
            envelope = await self.connection.upload_call(
                self.operation, kind, fields, user_uuid=self._user.identity, data=data, socket=socket
            )
        self._silences.pop(kind, None)
        if envelope.refusal is not None and await self.connection.was_renewed(account_session):
            raise session_replaced()
        return envelope

    @property
    def is_given_up(self) -> bool:
        """Whether so many files in a row met the same silence that there is no point in continuing."""
        most = self.connection.settings.retry.max_silences
        return any(
            times >= most * (self._at_once if kind is FileUploadType.PROCESS_FILE else 1)
            for kind, times in self._silences.items()
        )

    # --- results and errors --------------------------------------------------------------------------------------

    def refused(self, refusal: str, private: Iterable[str] = ()) -> Problem:
        """Return the problem of a part that the service refused; ``private`` must not appear in its message."""
        reason = self.shown(refusal, private)
        return Problem(Failure.REFUSED, ServerError("the service refused it", operation=self.operation, reason=reason))

    def shown(self, words: str, private: Iterable[str] = ()) -> str | None:
        """Return the service's message without anything private."""
        return safe_reason(words, (*self.connection.secrets, *self._user.private, *private))

    async def until_done(
        self, attempt: Callable[[], Awaitable[None]], *, may_repeat: Callable[[Problem], bool] = lambda _: True
    ) -> PostdicomError | None:
        """Run attempts at one file until one succeeds; return why there will be no other, None after a success.

        A refusal is repeated less often than a lost answer, and takes nothing from the budget of repeats: it is no sign
        of an outage. Only the waits between attempts count against ``retry.max_seconds``: a large file may take as long
        as its data keeps moving.

        Raises:
            PostdicomError: the service cannot be reached any more; other files would fail too.
        """
        policy = _FilePolicy(self, may_repeat)
        try:
            await repeat(attempt, policy)
        except PostdicomError as error:
            if policy.last is None or error is not policy.last.error or policy.ends_upload:
                raise
            return error
        return None


class _FilePolicy(Policy):
    """Decides after each attempt at one file.

    Attributes:
        last: the error of the last attempt, once there will be no other.
        ends_upload: whether there is no point in trying other files.
    """

    log = CLOUD_LOG

    def __init__(self, session: UploadSession, may_repeat: Callable[[Problem], bool]) -> None:
        settings = session.connection.settings
        super().__init__(
            session.operation, Repeat.READ, settings.retry, session.budget, on_event=settings.on_event, waits_only=True
        )
        self.last: Problem | None = None
        self.ends_upload: bool = False
        self._session = session
        self._may_repeat = may_repeat
        self._refused = 0

    def wait_after(self, problem: Problem) -> float | None:
        """Return the seconds until the next attempt; None after enough refusals or silences."""
        is_refusal = problem.failure is Failure.REFUSED
        self._refused += is_refusal
        is_over = not is_refusal and self._session.is_given_up
        self.ends_upload = is_over or problem.failure in {Failure.NOT_SENT, Failure.FINAL}
        if is_over or self._refused == _MOST_REFUSALS or not self._may_repeat(problem):
            return None
        return self._wait_after(problem, free=is_refusal)

    def give_up(self, problem: Problem) -> None:
        """Note that there will be no other attempt."""
        self.last = problem
        super().give_up(problem)


def status_after(error: PostdicomError) -> Status:
    """Return the status of a file whose last attempt ended with this error."""
    if isinstance(error, ConnectionFailed | ProtocolError):
        return Status.UNCONFIRMED
    return Status.FAILED


def order_in(envelope: Envelope) -> PatientOrder:
    """Return the order that an answer names; an order without fields if it names none."""
    order = envelope.in_message("PatientOrder")
    return PatientOrder(order if isinstance(order, dict) else {})


def uuid_of(order: PatientOrder) -> str | None:
    """Return an order's UUID, None where the answer has none."""
    return order.patient_order_uuid if order.is_named else None
