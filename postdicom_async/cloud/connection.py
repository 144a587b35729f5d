"""A session of the Cloud API: brought up, kept, registered again or brought up anew when its connection drops.

Everything of it belongs to one object; two of them, for two accounts, do not meet.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from postdicom_async.cloud.account import Account
from postdicom_async.cloud.bring_up import OpenedSession, bring_up, refuse_open_road
from postdicom_async.cloud.envelope import Envelope, read_envelope
from postdicom_async.cloud.frames import LAST_MESSAGE_ID, MessageType, Response, encode_request, encode_upload
from postdicom_async.cloud.messages import FileUploadType, Keys, SessionType, compact_json, session_fields
from postdicom_async.cloud.socket import FrameSocket, open_socket
from postdicom_async.errors import AuthenticationFailed, PostdicomError, ProtocolError, UsageError
from postdicom_async.http.problems import Problem, outcome_unknown
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.retry import Attempts, Failure, Repeat, RetryBudget, decide

if TYPE_CHECKING:
    import httpx

    from postdicom_async.cloud.wire import CloudWire
    from postdicom_async.settings import Settings

__all__ = ["Connection"]

_log = logging.getLogger("postdicom_async")
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
        refuse_open_road(router_url, settings)
        self.keys = keys
        self.settings = settings
        self.wire = wire
        self._router_url = router_url
        self._transport = transport
        self._budget = RetryBudget(settings.retry.budget)
        self._opened: OpenedSession | None = None
        self._main: FrameSocket | None = None
        self._account: Account | None = None
        self._last_id = 0
        self._opening = asyncio.Lock()
        self._closed = False

    # --- the session ---------------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """What the service said of the account when the session was opened."""
        if self._account is None:
            raise UsageError("the session is not open; use it inside 'async with'")
        return self._account

    @property
    def session_uuid(self) -> str:
        """The session's id."""
        return self._require_opened().session_uuid

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not show in the service's words."""
        session = (self._opened.session_uuid,) if self._opened is not None else ()
        return (self.keys.api_key, self.keys.account_key, *session)

    async def open(self) -> None:
        """Bring the session up."""
        if self._opened is not None or self._closed:
            raise UsageError("this session was opened already; make another one")
        await self.repeated("open a session", Repeat.READ, self._main_socket)

    async def close(self) -> None:
        """Close the connection. What is under way fails."""
        self._closed = True
        main, self._main = self._main, None
        if main is not None:
            with anyio.CancelScope(shield=True):
                await main.close()

    async def _main_socket(self) -> FrameSocket:
        """Return the main socket; one that dropped is replaced, once for all who wait for it."""
        async with self._opening:
            if self._closed:
                raise UsageError("the session is closed")
            if self._main is None or not self._main.is_open:
                self._main = await self._revived() or await self._brought_up()
        return self._main

    async def _revived(self) -> FrameSocket | None:
        """Return a new socket of the session there was; None when there is none or the service refuses it."""
        if self._opened is None or not self.wire.reuse_session:
            return None
        try:
            return await self._registered(self._opened)
        except (Problem, ProtocolError):
            _log.debug("the session is not taken up again; a new one is opened")
            return None

    async def _brought_up(self) -> FrameSocket:
        opened = await bring_up(
            self.keys, self._router_url, settings=self.settings, wire=self.wire, transport=self._transport
        )
        socket = await self._open_socket(opened)
        try:
            envelope = await self._session_message(socket, opened, SessionType.CREATE_API_SESSION)
            if envelope.refusal is not None:
                known = (*self.secrets, opened.session_uuid)
                raise AuthenticationFailed(
                    "the service did not open the session; check the API key and the account key",
                    operation="open a session",
                    reason=safe_reason(envelope.refusal, known),
                )
            account = envelope.in_message("Account")
            if not isinstance(account, dict):
                raise ProtocolError("the answer holds no account", operation="open a session")
        except BaseException:
            socket.cut()
            raise
        self._opened, self._account = opened, Account(account)
        return socket

    async def upload_socket(self) -> FrameSocket:
        """Return a new socket of this session, for parts of files.

        Raises:
            Problem: it cannot be had.
            PostdicomError: the session is lost and cannot be brought up anew.
        """
        await self._main_socket()  # where the service has forgotten the session, there is a new one after this
        return await self._registered(self._require_opened())

    async def _registered(self, opened: OpenedSession) -> FrameSocket:
        socket = await self._open_socket(opened)
        try:
            envelope = await self._session_message(socket, opened, SessionType.REGISTER_SESSION)
            if envelope.refusal is not None:
                reason = safe_reason(envelope.refusal, self.secrets)
                refused = AuthenticationFailed("the service does not know the session any more", reason=reason)
                raise Problem(Failure.FINAL, refused)
        except BaseException:
            socket.cut()
            raise
        return socket

    async def _open_socket(self, opened: OpenedSession) -> FrameSocket:
        return await open_socket(opened.socket_url, settings=self.settings, response_types=self.wire.response_types)

    async def _session_message(self, socket: FrameSocket, opened: OpenedSession, kind: SessionType) -> Envelope:
        text = compact_json(session_fields(opened.session_uuid, self.keys))
        message_id = self._next_id()
        frame = encode_request(MessageType.SESSION, message_id, kind, text)
        return self._envelope(await socket.request("open a session", message_id, frame))

    def _require_opened(self) -> OpenedSession:
        if self._opened is None or self._closed:
            raise UsageError("the session is not open; use it inside 'async with'")
        return self._opened

    # --- requests ------------------------------------------------------------------------------------------------

    async def call(self, operation: str, management_type: int, fields: Mapping[str, Any], repeat: Repeat) -> Envelope:
        """Make a general request (17) on the main socket and return its answer, a refusal included.

        Raises:
            PostdicomError: no answer came, or none that can be read.
        """
        text = compact_json(fields, self.keys)

        async def attempt() -> Envelope:
            socket = await self._main_socket()
            message_id = self._next_id()
            zero = self.wire.trailing_zero
            frame = encode_request(MessageType.GENERAL, message_id, management_type, text, trailing_zero=zero)
            problem: PostdicomError
            try:
                return await self._read(await socket.request(operation, message_id, frame))
            except ProtocolError as error:
                problem = error
            except Problem as lost:
                if lost.failure is not Failure.LOST or repeat is not Repeat.CHANGE:
                    raise
                problem = lost.error
            problem.operation = operation
            raise Problem(Failure.FINAL, outcome_unknown(problem) if repeat is Repeat.CHANGE else problem)

        self._require_opened()
        return await self.repeated(operation, repeat, attempt)

    async def _read(self, response: Response) -> Envelope:
        if len(response.result) > _PARSED_ASIDE:
            return await anyio.to_thread.run_sync(self._envelope, response)
        return self._envelope(response)

    def _envelope(self, response: Response) -> Envelope:
        return read_envelope(response, success_flag_counts=self.wire.success_flag_counts)

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
        return self._envelope(await socket.request(operation, message_id, frame))

    def _next_id(self) -> int:
        self._last_id = self._last_id % LAST_MESSAGE_ID + 1
        return self._last_id

    async def repeated(self, operation: str, repeat: Repeat, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Run attempts until one succeeds or `decide` gives up, as a DICOMweb session does."""
        started = time.monotonic()
        made = 0
        while True:
            made += 1
            problem: Problem | None = None
            try:
                result = await attempt()
            except Problem as caught:
                problem = caught
            if problem is None:
                self._budget.earn()
                return result
            spent = Attempts(made, time.monotonic() - started)
            chance = random.random()  # noqa: S311 - jitter
            wait = decide(repeat, problem.failure, spent, self.settings.retry, chance=chance)
            if wait is None or not self._budget.spend():
                raise problem.final(attempts=made)
            _log.debug("%s: attempt %d failed (%s), next in %.1f s", operation, made, problem.failure.name, wait)
            await anyio.sleep(wait)
