"""Who we are to the archive: Basic, a bearer token, a callable that gives one, or any ``httpx.Auth``."""

from __future__ import annotations

import base64
import copy
import inspect
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

import anyio
import httpx

from postdicom_async.errors import AuthenticationFailed, UsageError
from postdicom_async.events import CredentialsRefreshed
from postdicom_async.face import translated
from postdicom_async.http.tell import tell

if TYPE_CHECKING:
    from postdicom_async.events import OnEvent

__all__ = ["Auth", "Credentials", "Unset", "credentials_from"]

TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
Auth: TypeAlias = tuple[str, str] | str | TokenSource | httpx.Auth | None
"""``(user, password)``, a bearer token, a callable giving one (plain or async), an ``httpx.Auth``, or None."""


class Unset(Enum):
    """Says that an argument was not given, where None says something of its own."""

    UNSET = auto()


class Credentials:
    """What goes into the Authorization header. This base class sends none.

    Attributes:
        httpx_auth: an ``httpx.Auth`` that handles the whole exchange instead, or None.
    """

    httpx_auth: httpx.Auth | None = None

    async def header(self) -> str | None:
        """Return the header's value for the next request."""
        return None

    async def refresh(self, rejected: str | None) -> bool:
        """Get a new value after ``rejected`` was answered with 401; return whether there is one."""
        del rejected
        return False

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must not show in a server's words."""
        return ()

    @property
    def present(self) -> bool:
        """Whether anything secret goes out with a request."""
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Anonymous(Credentials):
    @property
    def present(self) -> bool:
        return False


class _Fixed(Credentials):
    def __init__(self, value: str, secrets: tuple[str, ...]) -> None:
        self._value = value
        self._secrets = secrets

    async def header(self) -> str | None:
        return self._value

    def secrets(self) -> tuple[str, ...]:
        return self._secrets


class _Refreshing(Credentials):
    """A token from a callable. However many requests see a 401, or wait for one that fails, the callable runs once."""

    def __init__(self, source: TokenSource, on_event: OnEvent | None) -> None:
        self._source = source
        self._on_event = on_event
        self._token: str | None = None
        self._lock = anyio.Lock()
        self._was_given = False
        self._failure: AuthenticationFailed | None = None
        self._failures = 0

    async def header(self) -> str | None:
        while self._token is None:  # it may be refused while it is waited for
            await self.refresh(None)
        return f"Bearer {self._token}"

    async def refresh(self, rejected: str | None) -> bool:
        """Get a new token; see the base class.

        Raises:
            AuthenticationFailed: there is none; ``temporary`` where the callable raised: it may give one later.
        """
        before = self._failures
        async with self._lock:
            if self._failures != before and self._failure is not None:
                raise copy.copy(self._failure)  # of who asked while this one waited
            if self._header != rejected:
                return True  # somebody else has refreshed it meanwhile
            self._token = None
            try:
                self._token = await self._ask()
            except AuthenticationFailed as failure:
                self._failure, self._failures = copy.copy(failure), self._failures + 1
                raise
            if self._was_given and self._header != rejected:
                tell(self._on_event, CredentialsRefreshed())
            self._was_given, self._failure = True, None
            return self._header != rejected

    @property
    def _header(self) -> str | None:
        return None if self._token is None else f"Bearer {self._token}"

    async def _ask(self) -> str:
        with translated(Exception, _no_token):
            token = self._source()
            found = await token if inspect.isawaitable(token) else token
        if not (isinstance(found, str) and _is_header_text(found)):
            raise AuthenticationFailed("the callable that gives the token did not return a token as text")
        return found

    def secrets(self) -> tuple[str, ...]:
        return (self._token,) if self._token else ()


def _no_token(error: Exception) -> AuthenticationFailed:
    """Return what a caller's code raised, without its text, which may hold the secret it was after."""
    temporary = error.temporary if isinstance(error, AuthenticationFailed) else True
    return AuthenticationFailed(f"the callable that gives the token raised {type(error).__name__}", temporary=temporary)


class _Delegated(Credentials):
    def __init__(self, auth: httpx.Auth) -> None:
        self.httpx_auth = auth


def _is_header_text(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


def _is_unicode(value: str) -> bool:
    """Whether it can be encoded; the exception otherwise would hold it."""
    return value.encode("utf-8", "replace").decode("utf-8") == value


def _basic(user: str, password: str) -> Credentials:
    if not isinstance(user, str) or not isinstance(password, str):
        raise UsageError("user name and password must be text", argument="auth")
    if ":" in user:
        raise UsageError("a user name with a colon cannot be sent with HTTP Basic authentication", argument="auth")
    if not _is_unicode(user) or not _is_unicode(password):
        raise UsageError("user name and password must be valid Unicode text", argument="auth")
    # UTF-8 before base64 (RFC 7617 section 2.1; C# and Node sample).
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return _Fixed(f"Basic {encoded}", (password, user, encoded))


def credentials_from(auth: Auth, *, on_event: OnEvent | None = None) -> Credentials:
    """Return the credentials for an ``auth`` argument; ``on_event`` is told when a callable gave another token.

    Raises:
        UsageError: ``auth`` is none of the accepted kinds.
    """
    if auth is None:
        return _Anonymous()
    if isinstance(auth, httpx.Auth):
        return _Delegated(auth)
    if isinstance(auth, tuple) and len(auth) == 2:
        return _basic(*auth)
    if isinstance(auth, str):
        if not _is_header_text(auth):
            raise UsageError("a bearer token must be printable ASCII without spaces", argument="auth")
        return _Fixed(f"Bearer {auth}", (auth,))
    if callable(auth):
        return _Refreshing(auth, on_event)
    raise UsageError("give (user, password), a token, a callable that returns one, or an httpx.Auth", argument="auth")
