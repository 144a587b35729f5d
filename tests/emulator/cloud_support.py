"""A client of the Cloud API written by hand from what is known of its wire: struct, JSON, a WebSocket."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import struct
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.emulator.support import client_of, make_instance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    import httpx
    from websockets.asyncio.client import ClientConnection

INSTITUTION = "5a1c0000-0000-4000-8000-000000000001"
OTHER_INSTITUTION = "5a1c0000-0000-4000-8000-000000000002"
USER = "5a1c0000-0000-4000-8000-000000000101"
COLLEAGUE = "5a1c0000-0000-4000-8000-000000000102"
GROUP = "5a1c0000-0000-4000-8000-000000000201"
UNKNOWN = "99999999-9999-4999-8999-999999999999"
ZERO = "00000000-0000-0000-0000-000000000000"
PART = 512 * 1024
LATER = "2099-12-31"
PATIENCE = 30
"""Seconds until a test fails for want of an answer."""

# What this client knows it may write; only what the archive logs is looked at.
_QUIET = logging.Logger("client of the tests", logging.CRITICAL)  # noqa: LOG001


@dataclass(frozen=True)
class Answer:
    """One response frame, taken apart."""

    message_type: int
    own_id: int
    requested_id: int
    success: int
    message: str
    management_type: int
    envelope: Any

    @property
    def told(self) -> dict[str, Any]:
        """What the caller of a general request gets; it must have worked."""
        assert self.envelope["ResponseCode"] == 1, self.envelope
        told: dict[str, Any] = self.envelope["ResponseMessage"]
        assert told["Success"] is True, told
        return told

    @property
    def reason(self) -> str:
        """Why a general request or an upload was refused."""
        told = self.envelope["ResponseMessage"] or self.envelope
        assert self.envelope["ResponseCode"] != 1 or told["Success"] is False
        reason: str = told["Message"]
        assert reason
        return reason


def parts(data: bytes) -> list[bytes]:
    """Cut a file as the library does."""
    return [data[at : at + PART] for at in range(0, len(data), PART)]


def dicom(size: int = 2_000, number: int = 1, study: str = "1.2.3", name: str = "Doe^Jane") -> bytes:
    """Return a DICOM file of exactly so many bytes."""
    start = make_instance(study, f"{study}.1", f"{study}.1.{number}", PatientName=name)
    body = size - len(start) - 12
    assert body >= 0
    noise = random.Random(number).randbytes(body)
    return start + b"\xe0\x7f\x10\x00OB\0\0" + body.to_bytes(4, "little") + noise


async def create(socket: RawSocket, **more: Any) -> str:
    """Create an order without images and return its UUID."""
    given = {"InstitutionUuid": socket.archive.institution_uuid, "PatientName": "Doe^Jane", "PatientID": "P1"}
    told = await socket.told(7, **{**given, "PerformedDatetime": "2024-01-02 03:04", **more})
    uuid: str = told["PatientOrderUuid"]
    return uuid


async def make(socket: RawSocket, name: str, parent: str = ZERO, **more: Any) -> str:
    """Make a folder and return its UUID."""
    uuid: str = (await socket.told(2, ParentFolderUuid=parent, FolderName=name, **more))["FolderUuid"]
    return uuid


async def found(socket: RawSocket, **filters: Any) -> list[str]:
    """Search for orders and return their UUIDs."""
    return [order["PatientOrderUuid"] for order in (await socket.told(1, **filters))["SearchResultList"]]


async def order_of(socket: RawSocket, uuid: str, institution: str = "") -> dict[str, Any]:
    """Return all that is told of an order."""
    institution = institution or socket.archive.institution_uuid
    told = await socket.told(13, PatientOrderInstitutionUuid=institution, PatientOrderUuid=uuid)
    order: dict[str, Any] = told["PatientOrder"]
    return order


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens beside the answers."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def compact(parameters: dict[str, Any]) -> bytes:
    return json.dumps(parameters, ensure_ascii=False, separators=(",", ":")).encode()


def encode(kind: int, number: int, management: int, text: bytes, data: bytes = b"", user: str = "") -> bytes:
    head = struct.pack("<HIii", kind, number, management, len(text)) + text
    if kind == 23:
        head += struct.pack("<i", len(data)) + data + bytes([len(user)]) + user.encode()
    return head if kind == 3 else head + b"\x00"


def decode(frame: bytes) -> Answer:
    kind, own_id, requested_id, success = struct.unpack_from("<HIIB", frame)
    at = 11
    (length,) = struct.unpack_from("<i", frame, at)
    message = frame[at + 4 : at + 4 + length].decode()
    at += 4 + length
    management, size = struct.unpack_from("<ii", frame, at)
    assert len(frame) == at + 8 + size
    return Answer(kind, own_id, requested_id, success, message, management, json.loads(frame[at + 8 :]))


class RawSocket:
    """One WebSocket; one request at a time unless `send` and `receive` are used apart."""

    def __init__(self, archive: EmbeddedArchive, connection: ClientConnection, numbers: Iterator[int]) -> None:
        self.archive = archive
        self.connection = connection
        self.numbers = numbers

    async def send(
        self, kind: int, management: int, parameters: dict[str, Any], data: bytes = b"", user: str = ""
    ) -> int:
        number = next(self.numbers)
        await self.connection.send(encode(kind, number, management, compact(parameters), data, user))
        return number

    async def receive(self) -> Answer:
        async with asyncio.timeout(PATIENCE):
            frame = await self.connection.recv()
        assert isinstance(frame, bytes)
        return decode(frame)

    async def ask(
        self, kind: int, management: int, parameters: dict[str, Any], data: bytes = b"", user: str = ""
    ) -> Answer:
        number = await self.send(kind, management, parameters, data, user)
        answer = await self.receive()
        assert answer.requested_id == number
        assert answer.management_type == management
        return answer

    async def session(self, uuid: str, management: int = 4) -> Answer:
        given = [f"Api={uuid}", f"ApiKey={self.archive.cloud_api_key}"]
        return await self.ask(3, management, {"SessionUuid": uuid, "OtherParameterList": given})

    def keyed(self, **parameters: Any) -> dict[str, Any]:
        """Return parameters in the name of the first user, with the keys behind them."""
        keys = {"ApiKey": self.archive.cloud_api_key, "AccountKey": self.archive.cloud_account_key}
        return {"UserUuid": self.archive.cloud_user_uuid, **parameters, **keys}

    async def general(self, management: int, **parameters: Any) -> Answer:
        return await self.ask(17, management, self.keyed(**parameters))

    async def told(self, management: int, **parameters: Any) -> dict[str, Any]:
        """Make a general request that must succeed, and return what its caller gets."""
        return (await self.general(management, **parameters)).told

    async def refused(self, management: int, **parameters: Any) -> str:
        """Insist that a general request is refused, and return why."""
        return (await self.general(management, **parameters)).reason

    async def answers(self, numbers: Iterable[int]) -> list[Answer]:
        """Return the answers to requests in the order they come, one each."""
        waiting, found = set(numbers), []
        while waiting:
            found.append(await self.receive())
            waiting.remove(found[-1].requested_id)
        return found

    async def closed(self) -> tuple[int, str]:
        """Wait for the end of the connection; return its code and reason."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE):
                async for _ in self.connection:
                    pass
        return self.connection.close_code or 0, self.connection.close_reason or ""

    async def upload(self, management: int, data: bytes = b"", **parameters: Any) -> Answer:
        given = self.keyed(**parameters)
        return await self.ask(23, management, given, data, str(given["UserUuid"]))

    async def begin_upload(self) -> str:
        """Begin an upload and return its session."""
        given = self.keyed(
            InstitutionUuid=self.archive.institution_uuid,
            TotalFileSize=1.5,
            UploaderUuid=self.archive.cloud_user_uuid,
            UploaderName="Sample User - API",
        )
        answer = await self.ask(23, 1, given, b"", self.archive.cloud_user_uuid)
        assert answer.envelope["ResponseCode"] == 1
        uuid: str = answer.envelope["SessionUniqueUuid"]
        return uuid

    def part_of(self, session: str, index: int, total: int, file: int = 0, **more: Any) -> dict[str, Any]:
        """Return the parameters of a part, in the order the library sends them."""
        return {
            "SessionUniqueUuid": session,
            "InstitutionUuid": self.archive.institution_uuid,
            "UserUuid": self.archive.cloud_user_uuid,
            "FileIndex": file,
            "CurrentFilePartIndex": index,
            "CurrentFileTotalPartCount": total,
            **more,
            "ApiKey": self.archive.cloud_api_key,
            "AccountKey": self.archive.cloud_account_key,
        }

    async def send_part(self, session: str, data: bytes, index: int, total: int, file: int = 0, **more: Any) -> int:
        given = self.part_of(session, index, total, file, **more)
        return await self.send(23, 3, given, data, self.archive.cloud_user_uuid)

    async def file(self, session: str, data: bytes, file: int = 0, **more: Any) -> Answer:
        """Send a file part by part, and return the last answer; the others must be without an order."""
        pieces = parts(data)
        for index, piece in enumerate(pieces[:-1]):
            answer = await self.part(session, piece, index, len(pieces), file, **more)
            assert answer.envelope["ResponseCode"] == 1, answer.envelope
            assert answer.envelope["ResponseMessage"]["PatientOrder"] is None
        return await self.part(session, pieces[-1], len(pieces) - 1, len(pieces), file, **more)

    async def part(self, session: str, data: bytes, index: int, total: int, file: int = 0, **more: Any) -> Answer:
        given = self.part_of(session, index, total, file, **more)
        return await self.ask(23, 3, given, data, self.archive.cloud_user_uuid)


def bring_up_url(
    base: str, kind: int, parameters: dict[str, Any], key: str, quoted: Callable[[str], str] = quote
) -> str:
    text = quoted(compact(parameters).decode())
    rest = urlencode({"ClientUniqueId": key, "Cache": int(time.time() * 1000)})
    return f"{base}?RequestType={kind}&Parameters={text}&{rest}"


async def envelope_of(url: str) -> dict[str, Any]:
    status, body = await raw_get(url)
    assert status == 200
    envelope: dict[str, Any] = json.loads(body)
    return envelope


async def told(url: str) -> str:
    envelope = await envelope_of(url)
    assert envelope["ResponseCode"] == 1, envelope
    message: str = envelope["ResponseMessage"]
    return message


def address_of(kind: str, account_key: str) -> dict[str, str]:
    return {"RouterKey": account_key, "AddressType": kind, "AdapterType": "2"}


async def raw_get(url: str) -> tuple[int, bytes]:
    """Send an address as it is, with nothing escaped by the way; return status and body."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    target = url.removeprefix(f"{parts.scheme}://{parts.netloc}")
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    try:
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return int(head.split()[1]), body


async def bring_up(archive: EmbeddedArchive, quoted: Callable[[str], str] = quote) -> tuple[str, str]:
    """Return the session and the WebSocket's address."""
    key, account = archive.cloud_api_key, archive.cloud_account_key
    region = await told(bring_up_url(archive.router_url, 4, address_of("1", account), key, quoted))
    opening = {"TransactionType": "3", "AccountKey": account, "ApiKey": key}
    session = await told(bring_up_url(region, 7, opening, key, quoted))
    address = await told(bring_up_url(archive.router_url, 4, address_of("2", account), key, quoted))
    return session, address


@asynccontextmanager
async def raw_socket(
    archive: EmbeddedArchive, session: str = "", management: int = 4, numbers: Iterator[int] | None = None
) -> AsyncIterator[RawSocket]:
    """Give a WebSocket, with a session on it if one is given."""
    address = f"{archive.cloud.socket_url}/?ClientUniqueId={archive.cloud_api_key}"
    async with connect_to(address) as connection:
        socket = RawSocket(archive, connection, numbers or count(1))
        if session:
            assert (await socket.session(session, management)).envelope["ResponseCode"] == 1
        yield socket


def connect_to(address: str) -> connect:
    return connect(address, compression=None, max_size=None, proxy=None, close_timeout=1, logger=_QUIET)


@asynccontextmanager
async def main_socket(archive: EmbeddedArchive) -> AsyncIterator[RawSocket]:
    """Give a WebSocket on which a session was created."""
    session, _ = await bring_up(archive)
    async with raw_socket(archive, session) as socket:
        yield socket


@dataclass(frozen=True)
class Account:
    """A running archive with several institutions and users, seen over the Cloud API, DICOMweb, and by a visitor."""

    archive: EmbeddedArchive
    socket: RawSocket
    client: httpx.AsyncClient
    visitor: httpx.AsyncClient


@pytest.fixture(name="account")
async def account_fixture() -> AsyncIterator[Account]:
    """Give an account with nothing in it."""
    archive = EmbeddedArchive(
        options=ArchiveOptions(
            institutions={INSTITUTION: "North", OTHER_INSTITUTION: "South"},
            users={USER: "Some Body", COLLEAGUE: "Other Body"},
            user_groups={GROUP: "Readers"},
        )
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(archive)
        socket = await stack.enter_async_context(main_socket(archive))
        client = await stack.enter_async_context(client_of(archive))
        visitor = await stack.enter_async_context(client_of())
        yield Account(archive, socket, client, visitor)
