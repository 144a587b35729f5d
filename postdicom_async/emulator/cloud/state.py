"""The state of the Cloud API as tests see it (`EmbeddedArchive.cloud`); flags and documents.

Records of requests are bounded. Both the event loop and the archive's threads append to them, which needs no lock;
counting does, and has one in `Dispatch`.
"""

from __future__ import annotations

import hmac
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

from postdicom_async.emulator.cloud.oddities import CloudOddities, RequestKey
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.store.archive import ArchiveStore
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.account import VendorAccount

_REMEMBERED = 10_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cloud_flags (
    order_uuid TEXT NOT NULL, group_id INTEGER NOT NULL, flag_id INTEGER NOT NULL, PRIMARY KEY (order_uuid, group_id));
CREATE TABLE IF NOT EXISTS cloud_documents (
    id INTEGER PRIMARY KEY, order_uuid TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, size INTEGER NOT NULL,
    path TEXT NOT NULL);
CREATE TEMP TRIGGER IF NOT EXISTS flags_and_documents_of_a_deleted_order AFTER DELETE ON main.orders BEGIN
    DELETE FROM cloud_flags WHERE order_uuid = OLD.uuid;
    DELETE FROM cloud_documents WHERE order_uuid = OLD.uuid;
END;
"""


@dataclass(frozen=True)
class OrderDocument:
    """One document of an order; ``path`` is the archive's own."""

    name: str = field(repr=False)
    type: str
    size: int
    path: Path

    @property
    def content(self) -> bytes:
        """Its bytes; read from disk."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class ReceivedFrame:
    """One received request; ``parameters`` keep the order of keys, and ``FileBuffer`` holds only the length."""

    socket: int
    message_type: int
    message_id: int
    management_type: int
    parameters: Mapping[str, Any] = field(repr=False)
    data_length: int
    user_text: str = field(repr=False)
    trailing: bytes

    @property
    def key(self) -> RequestKey:
        """Message type and management type."""
        return self.message_type, self.management_type


@dataclass(frozen=True)
class HttpRequest:
    """One HTTP request of the bring-up."""

    step: str
    parameters: Mapping[str, Any] = field(repr=False)
    query: tuple[str, ...]


@dataclass(frozen=True)
class ShareMail:
    """A mail that a service would have sent."""

    management_type: int
    email: str = field(repr=False)
    password_email: str = field(repr=False)
    link: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True)
class FolderShare:
    """A folder shared with users or groups of the account."""

    folder_uuid: str
    user_uuids: tuple[str, ...]
    user_group_uuids: tuple[str, ...]
    expires: date | None


class Cloud:
    """The Cloud API's side of an archive: its oddities, its sessions, and a record of what happened.

    Attributes:
        socket_url: the WebSocket's address as the archive itself knows it; clients are told it by the host they used.
        oddities: to be changed at any time.
        recording: whether requests are remembered in `frames`.
        frames: the latest requests, the oldest first.
        http_requests: the latest requests of the bring-up.
        deviations: how requests differed from what the vendor's library sends, as texts without values.
        executed: how often each kind of request was carried out, by message type and management type.
        most_in_flight: how many parts of files were unanswered at once, by the number of their socket.
        mails: the shares by mail, of which none is sent.
        folder_shares: the folders shared inside the account.
        sockets: how many WebSockets are open.
    """

    def __init__(self, context: ArchiveContext, base_url: str) -> None:
        self.context = context
        self.vendor: VendorAccount = VendorAccount(context)
        self.socket_url: str = f"ws{base_url.removeprefix('http')}"
        self.oddities: CloudOddities = CloudOddities()
        self.recording = True
        self.frames: deque[ReceivedFrame] = deque(maxlen=_REMEMBERED)
        self.http_requests: deque[HttpRequest] = deque(maxlen=_REMEMBERED)
        self.deviations: deque[str] = deque(maxlen=_REMEMBERED)
        self.executed: Counter[RequestKey] = Counter()
        self.most_in_flight: Counter[int] = Counter()
        self.mails: deque[ShareMail] = deque(maxlen=_REMEMBERED)
        self.folder_shares: deque[FolderShare] = deque(maxlen=_REMEMBERED)
        self.sessions: set[str] = set()
        self.sockets = 0
        self.cut: Callable[[], object] = lambda: None

    def documents(self, order_uuid: str) -> list[OrderDocument]:
        """Return the documents attached to an order, in the order they came; blocks."""
        return documents_of(self.context.store, order_uuid)

    def drop_sockets(self) -> None:
        """Cut every WebSocket, without a closing handshake."""
        self.cut()

    def forget_sessions(self) -> None:
        """Drop every session, as if expired."""
        self.sessions.clear()

    def open_session(self) -> str:
        """Return the UUID of a new session."""
        uuid = str(uuid4())
        self.sessions.add(uuid)
        return uuid

    def deviates(self, where: str, how: list[str]) -> None:
        """Record a deviation of a request."""
        self.deviations.extend(f"{where}: {one}" for one in how)

    def sent(self, key: RequestKey) -> list[ReceivedFrame]:
        """Return the remembered requests of one kind."""
        return [frame for frame in self.frames if frame.key == key]

    def is_api_key(self, given: object) -> bool:
        """Return whether this is the caller's key, in upper or lower case."""
        return _is_key(given, self.context.options.cloud_keys[0])

    def is_account_key(self, given: object) -> bool:
        """Return whether this is the account's key, in upper or lower case."""
        return _is_key(given, self.context.options.cloud_keys[1])

    def account(self) -> Json:
        """Return the account as the answer to the opening of a session has it."""
        options = self.context.options
        institutions = [
            {"InstitutionUuid": uuid, "InstitutionName": name} for uuid, name in options.institutions.items()
        ]
        return {"UserList": [{**user, "InstitutionList": institutions} for user in users_of(options.users)]}


def _is_key(given: object, key: str) -> bool:
    """Compare in constant time."""
    return isinstance(given, str) and hmac.compare_digest(given.lower().encode("utf-8", "replace"), key.encode())


def users_of(users: Mapping[str, str]) -> list[Json]:
    """Return users as they are listed."""
    return [
        {"UserUuid": uuid, "FullName": name, "UserName": ".".join(name.lower().split())} for uuid, name in users.items()
    ]


def add_cloud_tables(store: ArchiveStore) -> None:
    """Make the tables unless they are there, and remove the files of documents that they do not name; blocks."""
    with store.transaction() as database:
        database.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        known = {store.folder / path for (path,) in database.execute("SELECT path FROM cloud_documents")}
    for file in [] if store.is_new else store.folder.glob("documents/*/*"):
        if file not in known:
            file.unlink()


def documents_of(store: ArchiveStore, order_uuid: str) -> list[OrderDocument]:
    """Return the documents attached to an order; blocks."""
    sql = "SELECT name, type, size, path FROM cloud_documents WHERE order_uuid = ? ORDER BY id"
    with store.transaction() as database:
        rows = database.execute(sql, (order_uuid.lower(),)).fetchall()
    return [OrderDocument(name, kind, size, store.folder / path) for name, kind, size, path in rows]
