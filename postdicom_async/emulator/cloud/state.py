"""The Cloud API's account and what tests see of it: `EmbeddedArchive.cloud`."""

from __future__ import annotations

import hmac
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from postdicom_async.emulator.cloud.oddities import CloudOddities
from postdicom_async.emulator.cloud.schema import documents_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import date

    from postdicom_async.emulator.cloud.oddities import Key
    from postdicom_async.emulator.cloud.schema import Document
    from postdicom_async.emulator.context import ArchiveContext

__all__ = ["ACCOUNT_KEY", "API_KEY", "Cloud", "FolderShare", "HttpRequest", "Mail", "ReceivedFrame"]

API_KEY = "1f0e5b6a-3c1d-4e57-9a10-00000000a001"
ACCOUNT_KEY = "1f0e5b6a-3c1d-4e57-9a10-00000000a002"
"""The keys of the demonstration's account."""

_REMEMBERED = 10_000


@dataclass(frozen=True)
class ReceivedFrame:
    """One request as it came; ``parameters`` keep the order of their keys, and ``FileBuffer`` is only its length."""

    socket: int
    message_type: int
    message_id: int
    management_type: int
    parameters: Mapping[str, Any] = field(repr=False)
    data_length: int
    user_text: str = field(repr=False)
    trailing: bytes

    @property
    def key(self) -> Key:
        """Message type and management type."""
        return self.message_type, self.management_type


@dataclass(frozen=True)
class HttpRequest:
    """One HTTP request of the bring-up."""

    step: str
    parameters: Mapping[str, Any] = field(repr=False)
    query: tuple[str, ...]


@dataclass(frozen=True)
class Mail:
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

    def __init__(self, context: ArchiveContext, base_url: str, keys: tuple[str, str] = (API_KEY, ACCOUNT_KEY)) -> None:
        self.context = context
        self.base_url = base_url
        self.socket_url = ""
        self.api_key: str = keys[0]
        self.account_key: str = keys[1]
        self.oddities: CloudOddities = CloudOddities()
        self.recording = True
        self.frames: deque[ReceivedFrame] = deque(maxlen=_REMEMBERED)
        self.http_requests: deque[HttpRequest] = deque(maxlen=_REMEMBERED)
        self.deviations: deque[str] = deque(maxlen=_REMEMBERED)
        self.executed: Counter[Key] = Counter()
        self.most_in_flight: Counter[int] = Counter()
        self.mails: deque[Mail] = deque(maxlen=_REMEMBERED)
        self.folder_shares: deque[FolderShare] = deque(maxlen=_REMEMBERED)
        self.sessions: set[str] = set()
        self.sockets = 0
        self.cut: Callable[[], object] = lambda: None

    def documents(self, order_uuid: str) -> list[Document]:
        """Return the documents attached to an order, in the order they came; blocks."""
        return documents_of(self.context.store, order_uuid)

    def drop_sockets(self) -> None:
        """Cut every WebSocket, without a closing handshake."""
        self.cut()

    def forget_sessions(self) -> None:
        """Let every session be unknown from now on, as if its time were over."""
        self.sessions.clear()

    def open_session(self) -> str:
        """Return the UUID of a new session."""
        uuid = str(uuid4())
        self.sessions.add(uuid)
        return uuid

    def deviates(self, where: str, how: list[str]) -> None:
        """Remember how a request differed."""
        self.deviations.extend(f"{where}: {one}" for one in how)

    def sent(self, key: Key) -> list[ReceivedFrame]:
        """Return the remembered requests of one kind."""
        return [frame for frame in self.frames if frame.key == key]

    def is_api_key(self, given: object) -> bool:
        """Return whether this is the caller's key, in any case of its letters."""
        return _is_key(given, self.api_key)

    def is_account_key(self, given: object) -> bool:
        """Return whether this is the account's key, in any case of its letters."""
        return _is_key(given, self.account_key)

    def account(self) -> dict[str, Any]:
        """Return the account as a session's opening tells it."""
        options = self.context.options
        institutions = [
            {"InstitutionUuid": uuid, "InstitutionName": name} for uuid, name in options.institutions.items()
        ]
        return {
            "UserList": [{**user, "InstitutionList": institutions} for user in users_of(options.users)],
        }


def _is_key(given: object, key: str) -> bool:
    """Compare in constant time, in any case of the letters."""
    return isinstance(given, str) and hmac.compare_digest(given.lower().encode("utf-8", "replace"), key.encode())


def users_of(users: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return users as they are listed."""
    return [
        {"UserUuid": uuid, "FullName": name, "UserName": ".".join(name.lower().split())} for uuid, name in users.items()
    ]
