"""A session of the Cloud API: brought up, kept, registered again or brought up anew when its connection drops.

It holds the session of one `CloudApi`, one main socket on which it is used, and the number of the last message. Only
the task `_reopening` replaces the session and the main socket; all who find none wait for that one task, so that a
service that comes back sees one opening and not one for each request.

| state | told by | a request | leaves it |
|---|---|---|---|
| new | ``_opened`` is None | is refused | by `open`: to *opening*, once |
| opening | ``_reopening`` runs | waits | to *open*; or to where it was, and all who waited get the problem |
| open | the main socket is open | is sent | its socket drops: *dropped*; the session proves to be gone: *forgotten* |
| dropped | the main socket is not open | *opening*: registers the session on a new socket, or brings up another | |
| forgotten | ``_opened`` is ``_forgotten`` | *opening*: brings up another session | |
| closed | ``_closed`` | is refused, and what is under way fails | never |

What can go wrong: how a service says that a session is gone is not known, so after a refusal it is asked, by
registering (`was_renewed`). A service may refuse to register even a session that it has just opened; from then on
``_registers`` is False, and its refusals say nothing about the session. A message that belongs to the former session
must not be sent in the new one: uploads name the session that they mean (`socket_of`).
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from postdicom_async.cloud.bring_up import OpenedSession, bring_up, require_router
from postdicom_async.cloud.frames import (
    LAST_MESSAGE_ID,
    Envelope,
    FileUploadType,
    Keys,
    MessageType,
    Response,
    SessionType,
    compact_json,
    encode_request,
    encode_upload,
    read_envelope,
    session_fields,
)
from postdicom_async.cloud.socket import FrameSocket, Silence, open_socket, own_problem, session_replaced
from postdicom_async.errors import AuthenticationFailed, PostdicomError, ProtocolError, UsageError
from postdicom_async.face import translated
from postdicom_async.http.problems import Problem, connection_failed, outcome_unknown
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.repeat import Policy, RetryBudget, repeat
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.vendor.answers import Account, User, choose
from postdicom_async.vendor.values import is_uuid
from postdicom_async.watching import CLOUD_LOG, say, watch_call

if TYPE_CHECKING:
    from uuid import UUID

    import httpx

    from postdicom_async.settings import Settings
    from postdicom_async.vendor.wire import CloudWire

_T = TypeVar("_T")
_PARSED_ASIDE = 1 << 20  # a larger answer is parsed in a thread, so that the event loop goes on


class Connection:
    """The session of one API object."""

    def __init__(
        self,
        keys: Keys,
        router_url: str,
        *,
        settings: Settings,
        wire: CloudWire,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        require_router(router_url, settings)
        self.keys = keys
        self.settings = settings
        self.wire = wire
        self._router_url = router_url
        self._transport = transport
        self._budget = RetryBudget(settings.retry.budget)
        self._opened: OpenedSession | None = None
        self._forgotten: OpenedSession | None = None  # the session that the service does not know any more
        self._registers = True
        self._asking = anyio.Lock()
        self._times_asked = 0
        self._main: FrameSocket | None = None
        self._former: list[FrameSocket] = []  # replaced, but requests are still in flight on them
        self._session_uuids: dict[str, None] = {}
        self._account: Account | None = None
        self._last_id = 0
        self._file_indices: dict[str, int] = {}  # by upload session, which two uploads may share
        self._reopening: asyncio.Task[FrameSocket | Problem | PostdicomError] | None = None
        self._closed = False

    # --- the session ---------------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """What the service said of the account when the session was opened."""
        if self._account is None:
            raise UsageError("the session is not open; use it inside 'async with'")
        return self._account

    def user_of(self, wanted: UUID | str | None) -> User:
        """Return the user of the account with this UUID or name; without either, the only one there is.

        Raises:
            UsageError: the account has several users and none was chosen, or it has none of that name.
            ProtocolError: the service gave it no UUID.
        """
        user = choose("user", self.account.users, wanted)
        if not is_uuid(user.identity):
            raise ProtocolError("the service gave a user without a UUID")
        return user

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values to be masked in the service's words: the keys, and the ids of all sessions so far."""
        return (self.keys.api_key, self.keys.account_key, *self._session_uuids)

    def keep_secret(self, session_uuid: str) -> None:
        """Note the id of a session."""
        self._session_uuids.setdefault(session_uuid)

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._opened is not None and not self._closed

    async def open(self) -> None:
        """Bring the session up."""
        if self._opened is not None or self._closed:
            raise UsageError("this session was opened already; make another one")
        try:
            await self.repeated("open a session", Repeat.READ, self._main_socket)
        except BaseException:
            await self.close()
            raise

    async def session_uuid(self) -> str:
        """Return the id of the session, which changes when a new session had to be opened.

        Raises:
            Problem: there is no connection to be had.
            PostdicomError: the session is lost and cannot be brought up anew.
        """
        self._require_opened()
        await self._main_socket()
        return self._require_opened().session_uuid

    async def close(self) -> None:
        """Close the connection. What is under way fails."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            if self._reopening is not None:
                self._reopening.cancel()
                await asyncio.wait([self._reopening])
            for socket in (*self._former, self._main):
                if socket is not None:
                    await socket.close()

    async def _main_socket(self) -> FrameSocket:
        """Return the main socket; one that dropped is replaced, once for all who wait for it.

        Raises:
            Problem: there is no connection to be had now; what was to be sent has not left.
            PostdicomError: there will be none.
        """
        if self._closed:
            raise UsageError("the session is closed")
        if self._main is not None and self._main.is_open and self._opened is not self._forgotten:
            return self._main
        if self._reopening is None:
            self._reopening = asyncio.create_task(self._reopen(), name="postdicom-async: session")
        reopening = self._reopening
        await asyncio.wait([reopening])
        if reopening.cancelled():
            raise UsageError("the session is closed")
        found = reopening.result()
        if isinstance(found, FrameSocket):
            return found
        raise copy.copy(found) if isinstance(found, PostdicomError) else own_problem(found)

    async def _reopen(self) -> FrameSocket | Problem | PostdicomError:
        """Return a new main socket, or why there is none: an exception would be the same object for all who wait."""
        with watch_call("open a session") as call:
            found = await self._reopened()
            call.failed(found if isinstance(found, PostdicomError) else getattr(found, "error", None))
            return found

    async def _reopened(self) -> FrameSocket | Problem | PostdicomError:
        try:
            socket = await self._revived()
            if socket is None:
                # The total time is bounded, however slowly the answers trickle in.
                async with asyncio.timeout(self.settings.timeouts.session):
                    socket = await self._brought_up()
            self._former = [one for one in (*self._former, self._main) if one is not None and one.is_open]
            self._main = socket
        except TimeoutError:
            late = connection_failed("open a session", "the session was not opened in time", sent=False)
            return Problem(Failure.FINAL, late)
        except (Problem, PostdicomError) as problem:
            return problem
        else:
            return socket
        finally:
            self._reopening = None

    async def _revived(self) -> FrameSocket | None:
        """Return a new socket for the existing session; None if there is none or the service refuses it."""
        opened = self._opened
        if opened is None or opened is self._forgotten or not self._registers or not self.wire.reuse_session:
            return None
        try:
            socket = await self._open_socket(opened)
            if await self._register(socket, opened):
                return socket
            socket.cut()
        except (Problem, ProtocolError):
            pass  # a session that cannot be registered again may be gone; a new one is no loss
        say(CLOUD_LOG, logging.INFO, {}, "the session is not taken up again; a new one is opened")
        return None

    async def _brought_up(self) -> FrameSocket:
        """Open a session anew and return its main socket."""
        opened = await bring_up(
            self.keys, self._router_url, settings=self.settings, wire=self.wire, transport=self._transport
        )
        self.keep_secret(opened.session_uuid)
        socket = await self._open_socket(opened)
        try:
            envelope = await self._session_message(socket, opened, SessionType.CREATE_API_SESSION)
            if envelope.refusal is not None:
                raise AuthenticationFailed(
                    "the service did not open the session; check the API key and the account key",
                    operation="open a session",
                    reason=safe_reason(envelope.refusal, self.secrets),
                )
            account = envelope.in_message("Account")
            if not isinstance(account, dict):
                raise ProtocolError("the answer holds no account", operation="open a session")
        except BaseException:
            socket.cut()
            raise
        self._opened, self._account = opened, Account(account)
        return socket

    async def was_renewed(self, session_uuid: str) -> bool:
        """Return whether a session in which a request was refused is gone; if so, it has been replaced by now.

        How such a refusal looks is not known, so the service is asked: a session that it does not register is gone. It
        is asked once for all requests refused meanwhile.

        Raises:
            PostdicomError: it is gone, and cannot be brought up anew.
        """
        opened, before = self._require_opened(), self._times_asked
        if opened.session_uuid == session_uuid:
            async with self._asking:
                if self._opened is opened and self._times_asked == before:
                    self._times_asked += 1
                    if self._registers and not await self._is_known(opened):
                        self._forgotten = opened
                        await self.repeated("open a session", Repeat.READ, self._main_socket)
                        # A service that does not know the new session either refuses all of them, and is not asked
                        # again.
                        self._registers = await self._is_known(self._require_opened())
        return self._require_opened().session_uuid != session_uuid

    async def _is_known(self, opened: OpenedSession) -> bool:
        """Ask, as a socket for parts does, whether the service knows a session; no answer says nothing against it."""
        try:
            socket = await self._open_socket(opened)
            is_known = await self._register(socket, opened)
            socket.cut()
        except (Problem, ProtocolError):
            return True
        return is_known

    async def socket_of(self, session_uuid: str) -> FrameSocket:
        """Return the main socket if the account's session still is this one.

        Raises:
            Problem: it is another one by now, or the socket cannot be had.
            PostdicomError: the session is lost and cannot be brought up anew.
        """
        socket = await self._main_socket()
        if self._require_opened().session_uuid != session_uuid:
            raise session_replaced()
        return socket

    async def upload_socket(self) -> tuple[FrameSocket, str]:
        """Return a new socket for parts of files, and the id of the session that it is registered with.

        Raises:
            Problem: it cannot be had now.
            PostdicomError: the session is lost and cannot be brought up anew.
        """
        await self._main_socket()
        opened = self._require_opened()
        socket = await self._open_socket(opened)
        if await self._register(socket, opened) or not self._registers:
            return socket, opened.session_uuid
        if self._forgotten is not None and opened is not self._forgotten:
            # Refused, although the session is new: this service always refuses. The vendor's library ignores the
            # answer.
            self._registers = False
            return socket, opened.session_uuid
        socket.cut()
        self._forgotten = opened  # requests in flight on the main socket may finish there
        raise Problem(Failure.NOT_SENT, connection_failed("open a session", "the session is not known", sent=False))

    async def _register(self, socket: FrameSocket, opened: OpenedSession) -> bool:
        """Say on a socket which session it belongs to; return whether the service knows that session."""
        within = self.settings.timeouts.connect
        try:
            envelope = await self._session_message(socket, opened, SessionType.REGISTER_SESSION, within=within)
        except BaseException:
            socket.cut()
            raise
        known = envelope.refusal is None
        if known:
            self._registers, self._forgotten = True, None
        return known

    async def _open_socket(self, opened: OpenedSession) -> FrameSocket:
        return await open_socket(opened.socket_url, settings=self.settings, wire=self.wire)

    async def _session_message(
        self, socket: FrameSocket, opened: OpenedSession, kind: SessionType, *, within: float | None = None
    ) -> Envelope:
        text = compact_json(session_fields(opened.session_uuid, self.keys))
        message_id = self._next_id()
        frame = encode_request(MessageType.SESSION, message_id, kind, text)
        return self._envelope(await socket.request("open a session", message_id, kind, frame, within=within))

    def _require_opened(self) -> OpenedSession:
        if self._closed:
            raise UsageError("the session is closed: its 'async with' has ended")
        if self._opened is None:
            raise UsageError("the session is not open; use it inside 'async with'")
        return self._opened

    # --- requests ------------------------------------------------------------------------------------------------

    async def call(self, operation: str, management_type: int, fields: Mapping[str, Any], repeat: Repeat) -> Envelope:
        """Make a general request (17) on the main socket and return its answer, a refusal included.

        Raises:
            PostdicomError: no answer came, or none that can be read.
        """
        text, session_uuid = compact_json(fields, self.keys), ""

        def problem_of(error: ProtocolError | Problem) -> Problem:
            if isinstance(error, Problem) and (error.failure is not Failure.LOST or repeat is not Repeat.CHANGE):
                return error
            became = error.error if isinstance(error, Problem) else error
            became.operation = operation
            return Problem(Failure.FINAL, outcome_unknown(became) if repeat is Repeat.CHANGE else became)

        async def attempt() -> Envelope:
            nonlocal session_uuid
            socket = await self._main_socket()
            session_uuid = self._require_opened().session_uuid
            message_id = self._next_id()
            zero = self.wire.trailing_zero
            frame = encode_request(MessageType.GENERAL, message_id, management_type, text, trailing_zero=zero)
            with translated((ProtocolError, Problem), problem_of):
                found = await socket.request(operation, message_id, management_type, frame)
                flag = self.wire.success_flag_decides
                read = partial(read_envelope, found, code_decides=False, flag_decides=flag)
                aside = len(found.result) > _PARSED_ASIDE
                return (await anyio.to_thread.run_sync(read) if aside else read()).require_clear()

        self._require_opened()
        envelope = await self.repeated(operation, repeat, attempt)
        if envelope.refusal is not None and await self.was_renewed(session_uuid):
            return await self.repeated(operation, repeat, attempt)  # nothing was done for a session that is gone
        return envelope

    def _envelope(self, response: Response) -> Envelope:
        return read_envelope(response, flag_decides=self.wire.success_flag_decides)

    async def repeated(
        self, operation: str, kind: Repeat, attempt: Callable[[], Awaitable[_T]], *, at_most: int | None = None
    ) -> _T:
        """Run attempts until one succeeds or there is to be no other; ``at_most`` so many, where that is given.

        Raises:
            PostdicomError: what became of the last one.
        """
        retry = self.settings.retry
        if at_most is not None:
            retry = replace(retry, max_attempts=min(at_most, retry.max_attempts))
        policy = _MessagePolicy(operation, kind, retry, self._budget, on_event=self.settings.on_event)
        return await repeat(attempt, policy)

    async def upload_call(
        self,
        operation: str,
        kind: FileUploadType,
        fields: Mapping[str, Any],
        *,
        user_uuid: str,
        data: bytes = b"",
        socket: FrameSocket | None = None,
    ) -> Envelope:
        """Make one attempt at a file upload request (23), on the main socket unless another is given.

        Raises:
            Problem: no answer came.
            ProtocolError: it cannot be read.
        """
        socket = socket or await self._main_socket()
        message_id = self._next_id()
        zero = self.wire.trailing_zero
        frame = encode_upload(message_id, kind, compact_json(fields, self.keys), data, user_uuid, trailing_zero=zero)
        envelope = self._envelope(await socket.request(operation, message_id, kind, frame))
        # The vendor's library does not look at the code of this one either: what is no yes is a no.
        return envelope if kind is FileUploadType.CHECK_FILE_EXIST else envelope.require_clear()

    def next_file_index(self, session_uuid: str) -> int:
        """Return the next number of a file, from 0 on for each upload session: uploads that share one do not meet."""
        index = self._file_indices.get(session_uuid, 0)
        self._file_indices[session_uuid] = index + 1
        return index

    def _next_id(self) -> int:
        self._last_id = self._last_id % LAST_MESSAGE_ID + 1
        return self._last_id


class _MessagePolicy(Policy):
    """Gives up too when the service was silent several times in a row."""

    log = CLOUD_LOG
    _silences = 0

    def wait_after(self, problem: Problem) -> float | None:
        self._silences = self._silences + 1 if isinstance(problem, Silence) else 0
        if self._silences:
            self.was_silent(self._silences)
        return None if self._silences == self._retry.max_silences else super().wait_after(problem)
