"""Who may look at a job, and who may steer it.

It holds: the one-time token in the printed address; the session of the browser that used it, identified by a cookie;
the session's CSRF secret, which its own pages send with every command (another site's page would send the cookie, but
not that); and the bearer token of a monitoring system, which may read only the metrics. All of it is in memory and ends
with the process. Secrets are compared in constant time.

What can go wrong: any web page can make its own host name resolve to this machine (DNS rebinding), so ``Host`` must be
a known name; and it can make the browser send commands here, so ``Origin`` must be known too.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from postdicom_async.disk.files import explained
from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


_LEAST = 16  # characters of a bearer token
_MOST = 4096


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A browser that came with the token.

    Attributes:
        cookie: identifies the session.
        proof: the secret sent with its commands.
    """

    cookie: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(32))
    proof: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(32))


class PageAccess:
    """Decides who has access.

    Args:
        hosts: what ``Host`` may be, such as ``"127.0.0.1:8080"``.
        bearer: the token for the metrics; empty for none.
    """

    def __init__(self, hosts: Iterable[str], *, bearer: str = "") -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._bearer = bearer
        self._token = secrets.token_urlsafe(32)
        self._session: BrowserSession | None = None

    @property
    def token(self) -> str:
        """The one-time token; empty once used."""
        return self._token

    def enter(self, token: str) -> BrowserSession | None:
        """Exchange the one-time token for a session; None for a wrong or used token."""
        if not self._token or not _same(token, self._token):
            return None
        self._token = ""
        self._session = BrowserSession()
        return self._session

    def session(self, cookie: str) -> BrowserSession | None:
        """Return the session that a cookie belongs to."""
        known = self._session
        return known if known is not None and _same(cookie, known.cookie) else None

    def may_read_metrics(self, authorization: str) -> bool:
        """Return whether an ``Authorization`` header holds the bearer token."""
        kind, _, token = authorization.partition(" ")
        return bool(self._bearer) and kind.lower() == "bearer" and _same(token.strip(), self._bearer)

    def is_known_host(self, host: str) -> bool:
        """Return whether a ``Host`` header is a name of this server."""
        return host.lower() in self._hosts

    def is_own_origin(self, origin: str) -> bool:
        """Return whether an ``Origin`` header is a page of this server."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and not parts.path and self.is_known_host(parts.netloc)

    @staticmethod
    def is_proof(session: BrowserSession, given: str) -> bool:
        """Return whether a command comes from a page of this session."""
        return _same(given, session.proof)


def _same(given: str, known: str) -> bool:
    """Compare in constant time, without revealing a length."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, known))
    return hmac.compare_digest(*digests)


def bearer_of(path: Path) -> str:
    """Return the token that a file holds. Blocking.

    Raises:
        UsageError: others may read the file, or it holds no token.
        LocalFileError: it cannot be read.
    """
    with explained("the token file"):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            token = file.read(_MOST) if stat.S_ISREG(mode) else b""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise UsageError("the token file: others may read it; make it yours alone (chmod 600)")
    text = token.decode("ascii", "replace").strip()
    if not _LEAST <= len(text) < _MOST or not text.isprintable() or " " in text or not text.isascii():
        raise UsageError(f"the token file: write one line of {_LEAST} or more characters without blanks into it")
    return text
