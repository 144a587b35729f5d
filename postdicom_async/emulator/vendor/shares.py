"""Shares: who has a link may look at orders or a folder. Tokens and passwords are kept as hashes. Methods block."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postdicom_async.emulator.store.archive import ArchiveStore

__all__ = ["Share", "Shares"]

_TOKEN_BYTES = 16


@dataclass(frozen=True)
class Share:
    """What one link opens: a folder, or else some orders."""

    token_hash: str = field(repr=False)
    folder_uuid: str
    order_uuids: tuple[str, ...]
    title: str = field(repr=False)
    description: str = field(repr=False)
    password_hash: str = field(repr=False)
    expires: date | None
    downloadable: bool

    @property
    def has_expired(self) -> bool:
        """Whether its last day, in UTC, is over."""
        return self.expires is not None and datetime.now(UTC).date() > self.expires

    def opens_with(self, password: str) -> bool:
        """Compare a password in constant time; made slow on purpose."""
        salt = self.password_hash.partition("$")[0]
        return hmac.compare_digest(_password_hash(password, salt), self.password_hash)


class Shares:
    """The shares of an archive."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store

    def create(
        self,
        *,
        order_uuids: Sequence[str] = (),
        folder_uuid: str = "",
        title: str = "",
        description: str = "",
        password: str = "",
        expires: date | None = None,
        downloadable: bool = False,
    ) -> str:
        """Make a share and return its token, which is kept nowhere."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        row = (
            _token_hash(token),
            folder_uuid,
            json.dumps(list(order_uuids)),
            title,
            description,
            _password_hash(password, secrets.token_hex(16)) if password else "",
            expires.isoformat() if expires else "",
            downloadable,
        )
        with self._store.transaction() as database:
            database.execute("INSERT INTO shares VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return token

    def find(self, token: str) -> Share | None:
        """Return the share of a token, expired or not; None when there is none."""
        return next(iter(self._select("WHERE token_hash = ?", _token_hash(token))), None)

    def shared_folders(self) -> set[str]:
        """Return the folders that have a link that still works."""
        return {share.folder_uuid for share in self._select("WHERE folder_uuid != ''") if not share.has_expired}

    def shared_orders(self) -> set[str]:
        """Return the orders that have a link of their own that still works."""
        shares = self._select("WHERE folder_uuid = ''")
        return {uuid for share in shares if not share.has_expired for uuid in share.order_uuids}

    def _select(self, where: str, *arguments: str) -> list[Share]:
        with self._store.transaction() as database:
            rows = database.execute(f"SELECT * FROM shares {where}", arguments).fetchall()  # noqa: S608
        return [_share(*row) for row in rows]


def _share(
    token_hash: str, folder: str, orders: str, title: str, description: str, password: str, expires: str, download: int
) -> Share:
    last_day = date.fromisoformat(expires) if expires else None
    return Share(token_hash, folder, tuple(json.loads(orders)), title, description, password, last_day, bool(download))


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _password_hash(password: str, salt: str) -> str:
    """Hash a password, in one form however its accents were typed."""
    text = unicodedata.normalize("NFC", password).encode("utf-8", "replace")
    raw = hashlib.scrypt(text, salt=salt.encode(), n=2**13, r=8, p=1)
    return f"{salt}${raw.hex()}"
