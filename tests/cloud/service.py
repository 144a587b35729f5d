"""The Cloud API with no archive behind it: keeps what it is asked, byte for byte, and answers what it is told."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from postdicom_async import CloudApi
from postdicom_async.emulator.http_server import stop_listening
from tests.faults.clients import FAST

__all__ = [
    "ACCOUNT",
    "ACCOUNT_KEY",
    "API_KEY",
    "INSTITUTION",
    "SESSION",
    "USER",
    "Answering",
    "CloudService",
    "Received",
    "echo",
    "envelope_frame",
    "refusal",
    "success",
    "uuid",
    "views",
]

API_KEY = "0a0a0a0a-1111-4111-8111-aaaaaaaaaaaa"
ACCOUNT_KEY = "0b0b0b0b-2222-4222-8222-bbbbbbbbbbbb"
SESSION = "0c0c0c0c-3333-4333-8333-cccccccccccc"
USER = "0d0d0d0d-4444-4444-8444-dddddddddddd"
NEW = "0f0f0f0f-6666-4666-8666-ffffffffffff"
INSTITUTION = "0e0e0e0e-5555-4555-8555-eeeeeeeeeeee"
# This side may know everything; only what the client logs is looked at.
_QUIET = logging.Logger("service of the tests", logging.CRITICAL)  # noqa: LOG001

ROUTER = "http://127.0.0.1:1/router/"
REGION = "http://127.0.0.1:1/region/"

ACCOUNT = {
    "UserList": [
        {
            "UserUuid": USER,
            "FullName": "Somebody Somewhere",
            "UserName": "somebody@example.org",
            "InstitutionList": [{"InstitutionUuid": INSTITUTION, "InstitutionName": "North"}],
        }
    ]
}


@dataclass(frozen=True)
class Received:
    """A request, taken apart by hand.

    Attributes:
        socket: the how-many-th connection it came over, from 1 on.
        tail: what follows its last field.
    """

    socket: int
    message_type: int
    message_id: int
    management_type: int
    text: bytes = field(repr=False)
    data: bytes = field(repr=False)
    user: bytes
    tail: bytes

    @property
    def key(self) -> tuple[int, int]:
        """Message type and management type."""
        return self.message_type, self.management_type

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object."""
        found: dict[str, Any] = json.loads(self.text)
        return found


Answering = Callable[[Received], "bytes | list[bytes] | Awaitable[bytes | list[bytes] | None] | None"]


def taken_apart(frame: bytes, socket: int) -> Received:
    kind, number, management, length = struct.unpack_from("<HIii", frame)
    at = 14
    text, at = frame[at : at + length], at + length
    data = user = b""
    if kind == 23:
        (size,) = struct.unpack_from("<i", frame, at)
        data, at = frame[at + 4 : at + 4 + size], at + 4 + size
        user, at = frame[at + 1 : at + 1 + frame[at]], at + 1 + frame[at]
    return Received(socket, kind, number, management, text, data, user, frame[at:])


def _json(value: Any) -> bytes:
    """Write UTF-8, or escapes where half a character is in it."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def envelope_frame(
    request: Received,
    envelope: Any,
    *,
    message_type: int | None = None,
    flag: int = 1,
    message: bytes = b"",
    management_type: int | None = None,
) -> bytes:
    """Return a response frame; an envelope of bytes stands in it as it is."""
    result = envelope if isinstance(envelope, bytes) else _json(envelope)
    kind = message_type or {3: 4, 17: 18, 23: 6}[request.message_type]
    management = request.management_type if management_type is None else management_type
    head = struct.pack("<HIIBi", kind, 9, request.message_id, flag, len(message)) + message
    return head + struct.pack("<ii", management, len(result)) + result


def success(request: Received, **fields: Any) -> bytes:
    """Answer with success."""
    if request.key == (3, 4):
        fields = {"Account": ACCOUNT}
    if request.message_type == 17:
        fields = {"Result": NEW, **fields}  # the UUID of what was made
    top = {"SessionUniqueUuid": SESSION} if request.key == (23, 1) else {}
    return envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": {"Success": True, **fields}, **top})


def uuid(number: int) -> str:
    """Return the UUID of a number."""
    return f"{number:08x}-1111-4111-8111-111111111111"


def echo(request: Received) -> bytes:
    """Answer with what was asked for."""
    link = f"https://viewer.example/{request.fields.get('PatientOrderUuid')}"
    return success(request, Result=link, FolderUuid=NEW)


async def views(api: CloudApi, count: int) -> list[Any]:
    """Ask for so many links at once; return what came of each."""
    return await asyncio.gather(*(api.view.order(uuid(number)) for number in range(count)), return_exceptions=True)


def refusal(request: Received, text: str = "no") -> bytes:
    """Refuse."""
    return envelope_frame(request, {"ResponseCode": 0, "ResponseMessage": None, "Message": text})


class CloudService:
    """The service.

    Attributes:
        answer: makes the answer to each request but those for the session.
        received: the requests, as they came.
        asked: the parameters of the bring-up's requests.
        account: what is told of the account.
        session: the id of the session that is opened next.
        sockets: how many WebSockets were opened.
    """

    def __init__(self, answer: Answering = success) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.asked: list[httpx.URL] = []
        self.account: Any = ACCOUNT
        self.session = SESSION
        self.sockets = 0
        self.url = ""
        self.open: list[ServerConnection] = []
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self.admit,
            compression=None,
            max_size=None,
            logger=_QUIET,
        )
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.drop()
        await stop_listening(self._server)
        self.drop()
        await self._server.wait_closed()

    def admit(self, _connection: ServerConnection, _request: Request) -> Response | None:
        """Return an answer that refuses a WebSocket, None to let it in."""
        return None

    def client(self, **options: Any) -> CloudApi:
        """Return a client of it."""
        options = {"settings": FAST, "router_url": ROUTER, "transport": self.transport, **options}
        return CloudApi(API_KEY, ACCOUNT_KEY, **options)

    @property
    def transport(self) -> httpx.MockTransport:
        """What carries the bring-up."""
        return httpx.MockTransport(self._bring_up)

    def sent(self, message_type: int = 17) -> list[Received]:
        """Return the requests of a kind, the session's left out."""
        return [one for one in self.received if one.message_type == message_type]

    def drop(self) -> None:
        """Cut every connection."""
        for connection in self.open:
            connection.transport.abort()

    def _bring_up(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        given = json.loads(request.url.params["Parameters"])
        told = {"1": REGION, "2": self.url}.get(given.get("AddressType", ""), self.session)
        return httpx.Response(200, text=json.dumps({"ResponseCode": 1, "ResponseMessage": told}))

    async def _serve(self, connection: ServerConnection) -> None:
        self.sockets += 1
        number = self.sockets
        self.open.append(connection)
        try:
            async for frame in connection:
                assert isinstance(frame, bytes)
                request = taken_apart(frame, number)
                self.received.append(request)
                await self._reply(connection, request)
        except ConnectionClosed:
            pass
        finally:
            self.open.remove(connection)

    async def _reply(self, connection: ServerConnection, request: Received) -> None:
        if request.key == (3, 4):
            told = {"Success": True, "Account": self.account}
            await connection.send(envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": told}))
            return
        found = success(request) if request.message_type == 3 else self.answer(request)
        frames = await found if isinstance(found, Awaitable) else found
        for frame in [] if frames is None else [frames] if isinstance(frames, bytes) else frames:
            await connection.send(frame)
