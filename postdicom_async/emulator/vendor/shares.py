"""Shares: whoever has a link may look at orders or a folder. Methods block.

Of a link only the hash of its token is kept, of a password only a slow hash with a salt: whoever reads the index can
open nothing. A share is never changed; it ends with its last day.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from postdicom_async.emulator.store.archive import ArchiveStore

SHARE_PATH = "/share"
"""Where the pages of shares are, below the archive's address."""


@dataclass(frozen=True)
class StoredShare:
    """What one link opens, a folder or else some orders: a row of the index as it is kept."""

    token_hash: str = field(repr=False)
    folder_uuid: str
    order_list: str
    title: str = field(repr=False)
    description: str = field(repr=False)
    password_hash: str = field(repr=False)
    last_day: str
    downloadable: int

    @property
    def order_uuids(self) -> list[str]:
        """The orders it opens."""
        return list(json.loads(self.order_list))

    @property
    def expires(self) -> date | None:
        """Its last day, in UTC; None when it has none."""
        return date.fromisoformat(self.last_day) if self.last_day else None

    @property
    def has_expired(self) -> bool:
        """Whether its last day is over."""
        return self.expires is not None and datetime.now(UTC).date() > self.expires

    def opens_with(self, password: str) -> bool:
        """Compare a password in constant time; made slow on purpose."""
        salt = self.password_hash.partition("$")[0]
        return hmac.compare_digest(_password_hash(password, salt), self.password_hash)


class StoredShares:
    """The shares of an archive."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store

    def create(
        self,
        order_uuids: Sequence[str] = (),
        folder_uuid: str = "",
        *,
        title: str = "",
        description: str = "",
        password: str = "",
        expires: date | None = None,
        downloadable: bool = False,
    ) -> str:
        """Make a share and return its token, which is kept nowhere."""
        token = secrets.token_urlsafe(16)
        hashed = _password_hash(password, secrets.token_hex(16)) if password else ""
        orders, last_day = json.dumps(list(order_uuids)), expires.isoformat() if expires else ""
        row = (_token_hash(token), folder_uuid, orders, title, description, hashed, last_day, downloadable)
        with self._store.transaction() as database:
            database.execute("INSERT INTO shares VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return token

    def find(self, token: str) -> StoredShare | None:
        """Return the share of a token, expired or not; None when there is none."""
        return next(iter(self._select("WHERE token_hash = ?", _token_hash(token))), None)

    def shared_folders(self) -> set[str]:
        """Return the folders that have a link that still works."""
        return {share.folder_uuid for share in self._select("WHERE folder_uuid != ''") if not share.has_expired}

    def shared_orders(self) -> set[str]:
        """Return the orders that have a link of their own that still works."""
        shares = self._select("WHERE folder_uuid = ''")
        return {uuid for share in shares if not share.has_expired for uuid in share.order_uuids}

    def _select(self, where: str, *arguments: str) -> list[StoredShare]:
        with self._store.transaction() as database:
            return [StoredShare(*row) for row in database.execute(f"SELECT * FROM shares {where}", arguments)]  # noqa: S608


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _password_hash(password: str, salt: str) -> str:
    """Hash a password, in one form however its accents were typed."""
    text = unicodedata.normalize("NFC", password).encode("utf-8", "replace")
    raw = hashlib.scrypt(text, salt=salt.encode(), n=2**13, r=8, p=1)
    return f"{salt}${raw.hex()}"
