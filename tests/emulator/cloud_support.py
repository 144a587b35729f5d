"""A client of the Cloud API written by hand from what is known of its wire: struct, JSON, a WebSocket."""

from __future__ import annotations

import json
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from websockets.asyncio.client import connect

from tests.emulator.support import client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import httpx
    from websockets.asyncio.client import ClientConnection

    from postdicom_async.emulator import EmbeddedArchive

UNKNOWN = "99999999-9999-4999-8999-999999999999"
ZERO = "00000000-0000-0000-0000-000000000000"
PART = 512 * 1024


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

    async def part(self, session: str, data: bytes, index: int, total: int, file: int = 0, **more: Any) -> Answer:
        given = self.part_of(session, index, total, file, **more)
        return await self.ask(23, 3, given, data, self.archive.cloud_user_uuid)


def bring_up_url(base: str, kind: int, parameters: dict[str, Any], key: str, quoted: Any = quote) -> str:
    text = quoted(compact(parameters).decode())
    rest = urlencode({"ClientUniqueId": key, "Cache": int(time.time() * 1000)})
    return f"{base}?RequestType={kind}&Parameters={text}&{rest}"


async def told(client: httpx.AsyncClient, url: str) -> str:
    answer = await client.get(url)
    assert answer.status_code == 200
    envelope = answer.json()
    assert envelope["ResponseCode"] == 1, envelope
    message: str = envelope["ResponseMessage"]
    return message


def address_of(kind: str, account_key: str) -> dict[str, str]:
    return {"RouterKey": account_key, "AddressType": kind, "AdapterType": "2"}


async def bring_up(archive: EmbeddedArchive) -> tuple[str, str]:
    """Return the session and the WebSocket's address."""
    key, account = archive.cloud_api_key, archive.cloud_account_key
    async with client_of() as client:
        region = await told(client, bring_up_url(archive.router_url, 4, address_of("1", account), key))
        opening = {"TransactionType": "3", "AccountKey": account, "ApiKey": key}
        session = await told(client, bring_up_url(region, 7, opening, key))
        address = await told(client, bring_up_url(archive.router_url, 4, address_of("2", account), key))
    return session, address


@asynccontextmanager
async def raw_socket(
    archive: EmbeddedArchive, session: str = "", management: int = 4, numbers: Iterator[int] | None = None
) -> AsyncIterator[RawSocket]:
    """Give a WebSocket, with a session on it if one is given."""
    address = f"{archive.cloud.socket_url}/?ClientUniqueId={archive.cloud_api_key}"
    async with connect(address, compression=None, max_size=None, proxy=None, close_timeout=1) as connection:
        socket = RawSocket(archive, connection, numbers or count(1))
        if session:
            assert (await socket.session(session, management)).envelope["ResponseCode"] == 1
        yield socket


@asynccontextmanager
async def main_socket(archive: EmbeddedArchive) -> AsyncIterator[RawSocket]:
    """Give a WebSocket on which a session was created."""
    session, _ = await bring_up(archive)
    async with raw_socket(archive, session) as socket:
        yield socket
