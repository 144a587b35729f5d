"""As whom requests are made: Basic, a bearer token, what gives one, or any ``httpx.Auth``.

A token that something gives is kept by a `TokenKeeper`, and there is one at a time. It is asked for by one request,
however many need it; early, while it is still good, if it is known how long it is; and again when it was refused.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self, TypeAlias
from weakref import WeakKeyDictionary

import anyio
import httpx

from postdicom_async.errors import AuthenticationFailed, UsageError
from postdicom_async.events import CredentialsRefreshed
from postdicom_async.face import public_face, translated
from postdicom_async.http.answer import start
from postdicom_async.watching import HTTP_LOG, say, tell

if TYPE_CHECKING:
    from postdicom_async.settings import Settings

EARLY = 60.0
"""Seconds before its end at which a token is asked for anew, if its source does not say otherwise."""

_RENEW_AGAIN = 10.0  # seconds after an early attempt that failed


def is_token_text(value: object) -> bool:
    """Whether a value can stand in a header as a token: printable ASCII without spaces."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable() and " " not in value


@public_face
@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, and how long it is good.

    Attributes:
        value: printable ASCII without spaces.
        expires_in: seconds from the moment it was asked for; None if that is not known, and it is used until refused.

    Raises:
        UsageError: the value cannot be sent, or the time is not a number above 0.
    """

    value: str = field(repr=False)
    expires_in: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if not is_token_text(self.value):
            raise UsageError("a bearer token must be printable ASCII without spaces", argument="value")
        seconds = self.expires_in
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0):
            raise UsageError("give seconds above 0, or None", argument="expires_in")


class Road(NamedTuple):
    """How a client's requests travel; what gives its tokens may go the same way.

    Attributes:
        settings: those of the client.
        transport: the transport passed to it, None for the built-in one.
    """

    settings: Settings
    transport: httpx.AsyncBaseTransport | None


class TokenIssuer(ABC):
    """Gives tokens to any number of clients, which share the one that is good.

    Event loops in different threads share none: a task in one could not be woken from another.
    """

    def __init__(self, *, early: float = EARLY) -> None:
        self._early = early
        self._keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, TokenKeeper] = WeakKeyDictionary()
        self._making = threading.Lock()

    def __reduce_ex__(self, protocol: object, /) -> NoReturn:
        """Refuse: a pickle would hold secrets."""
        raise TypeError(f"{type(self).__name__} holds a secret and is not pickled; make one where it is used")

    def __copy__(self) -> Self:
        """Return this object: a copy would not share the token."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return this object: a copy would not share the token."""
        return self

    @abstractmethod
    async def issue(self, road: Road) -> Token:
        """Return a new token.

        Raises:
            AuthenticationFailed: there is none; ``temporary`` if there may be one later.
        """

    def keeper(self) -> TokenKeeper:
        """Return the keeper of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._making:
            found = self._keepers.get(loop)
            if found is None:
                self._keepers[loop] = found = TokenKeeper(self._early)
            return found


TokenSource: TypeAlias = Callable[[], str | Token | Awaitable[str | Token]]
Auth: TypeAlias = tuple[str, str] | str | TokenSource | TokenIssuer | httpx.Auth | None
"""``(user, password)``, a bearer token, a callable giving one (plain or async; as text or `Token`), what gives tokens
(`ClientCredentials`), an ``httpx.Auth``, or None."""


class Unset(Enum):
    """Marks an argument that was not given, where None has a meaning of its own."""

    UNSET = auto()


class Credentials:
    """The value of the Authorization header, or none.

    Attributes:
        httpx_auth: an ``httpx.Auth`` that handles the whole exchange instead, or None.
    """

    def __init__(
        self, value: str | None = None, secrets: tuple[str, ...] = (), *, httpx_auth: httpx.Auth | None = None
    ) -> None:
        self.httpx_auth: httpx.Auth | None = httpx_auth
        self._value = value
        self._secrets = secrets

    async def header(self) -> str | None:
        """Return the header's value for the next request."""
        return self._value

    async def refresh(self, rejected: str | None) -> bool:
        """Get a new value after ``rejected`` was answered with 401; return whether there is one."""
        del rejected
        return False

    def secrets(self) -> tuple[str, ...]:
        """Return the values to be masked in a server's words."""
        return self._secrets

    @property
    def present(self) -> bool:
        """Whether anything secret is sent with a request."""
        return self._value is not None or self.httpx_auth is not None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


# --- tokens that are asked for ----------------------------------------------------------------------------------------


class TokenKeeper:
    """One token at a time. However many requests see a 401, or wait for a failing refresh, it is asked for once.

    The task that holds the lock asks. Tasks that waited for the lock take the result: the token, or the failure;
    ``_failures`` counts failures, so that they can tell. Early, a task of its own asks, and all go on with the token
    that is still good.

    A token that was just given is used at least once, whatever it says of its end: the clock of who gave it may be
    wrong, and asking again would give the same.
    """

    def __init__(self, early: float) -> None:
        self.value: str | None = None
        self._early = early
        self._renew_at = self._ends_at = math.inf
        self._lock = anyio.Lock()
        self._was_given = False
        self._failure: AuthenticationFailed | None = None
        self._failures = 0

    async def get(self, ask: Callable[[], Awaitable[Token]], renewed: Callable[[], None]) -> str:
        """Return the token for the next request.

        Raises:
            AuthenticationFailed: there is none.
        """
        now = monotonic()
        if now >= self._ends_at:
            self.value, self._ends_at = None, math.inf
        if self.value is not None and now >= self._renew_at:
            self._renew_at = now + _RENEW_AGAIN
            start(self._renew(self.value, ask, renewed))
        while (value := self.value) is None:  # another request may have it refused meanwhile
            await self.refresh(None, ask, renewed)
        return value

    async def _renew(self, value: str, ask: Callable[[], Awaitable[Token]], renewed: Callable[[], None]) -> None:
        with suppress(AuthenticationFailed):  # the token is still good
            await self.refresh(value, ask, renewed, early=True)

    async def refresh(
        self,
        rejected: str | None,
        ask: Callable[[], Awaitable[Token]],
        renewed: Callable[[], None],
        *,
        early: bool = False,
    ) -> bool:
        """Get a token in place of ``rejected``; return whether there is another one.

        Raises:
            AuthenticationFailed: there is none.
        """
        before = self._failures
        async with self._lock:
            if self._failures != before and self._failure is not None:
                raise copy.copy(self._failure)  # the failure of the task that held the lock
            if self.value != rejected:
                return True  # another task has refreshed it meanwhile
            if not early:
                self.value = None
            asked_at = monotonic()
            try:
                token = await ask()
            except AuthenticationFailed as failure:
                self._failure, self._failures = copy.copy(failure), self._failures + 1
                raise
            self._keep(token, asked_at)
            is_another = token.value != rejected
            if self._was_given and is_another:
                renewed()
            self._was_given, self._failure = True, None
            return is_another

    def _keep(self, token: Token, asked_at: float) -> None:
        self.value, left = token.value, token.expires_in
        if left is None:
            self._renew_at = self._ends_at = math.inf
        else:
            self._ends_at = asked_at + left
            self._renew_at = asked_at + max(left - self._early, left / 2)  # one of a minute is not asked for each time


class _Refreshing(Credentials):
    """A bearer token that something gives."""

    def __init__(
        self, keeper: Callable[[], TokenKeeper], ask: Callable[[], Awaitable[Token]], settings: Settings
    ) -> None:
        super().__init__()
        self._keeper = keeper
        self._ask = ask
        self._settings = settings

    async def header(self) -> str:
        return f"Bearer {await self._keeper().get(self._ask, self._renewed)}"

    async def refresh(self, rejected: str | None) -> bool:
        """Get a new token; see the base class.

        Raises:
            AuthenticationFailed: there is none; ``temporary`` if there may be one later.
        """
        before = None if rejected is None else rejected.removeprefix("Bearer ")
        return await self._keeper().refresh(before, self._ask, self._renewed)

    def secrets(self) -> tuple[str, ...]:
        value = self._keeper().value
        return () if value is None else (value,)

    @property
    def present(self) -> bool:
        return True

    def _renewed(self) -> None:
        say(HTTP_LOG, logging.INFO, {}, "the token was refreshed")
        tell(self._settings.on_event, CredentialsRefreshed())


async def _asked(source: TokenSource) -> Token:
    """Return what a callable gives.

    Raises:
        AuthenticationFailed: it raised, or gave no token.
    """
    with translated(Exception, _no_token):
        token = source()
        found = await token if inspect.isawaitable(token) else token
    if isinstance(found, Token):
        return found
    if not is_token_text(found):
        raise AuthenticationFailed("the callable that gives the token did not return a token as text")
    return Token(found)


def _no_token(error: Exception) -> AuthenticationFailed:
    """Return the error for a failing callable, without its text, which may contain the secret."""
    temporary = error.temporary if isinstance(error, AuthenticationFailed) else True
    return AuthenticationFailed(f"the callable that gives the token raised {type(error).__name__}", temporary=temporary)


# --- from an argument -------------------------------------------------------------------------------------------------


def _basic(user: str, password: str) -> Credentials:
    if not isinstance(user, str) or not isinstance(password, str):
        raise UsageError("user name and password must be text", argument="auth")
    if ":" in user:
        raise UsageError("a user name with a colon cannot be sent with HTTP Basic authentication", argument="auth")
    # Checked this way, because the exception of a strict encoder would hold the password.
    if any(text.encode("utf-8", "replace").decode("utf-8") != text for text in (user, password)):
        raise UsageError("user name and password must be valid Unicode text", argument="auth")
    # UTF-8 before base64 (RFC 7617 section 2.1; C# and Node sample).
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return Credentials(f"Basic {encoded}", (password, user, encoded))


def _no_token_text(text: str) -> str:
    """Return what is wrong with a text that cannot be a token."""
    if not text.strip():
        return "the token is empty; give None for no credentials"
    if text.lower().startswith("bearer "):
        return "give the token alone: leave out 'Bearer '"
    return "a bearer token must be printable ASCII without spaces"


def credentials_from(auth: Auth, road: Road) -> Credentials:
    """Return the credentials for an ``auth`` argument of a client whose requests travel like this.

    Raises:
        UsageError: ``auth`` is none of the accepted kinds.
    """
    if auth is None:
        return Credentials()
    if isinstance(auth, httpx.Auth):
        return Credentials(httpx_auth=auth)
    if isinstance(auth, tuple) and len(auth) == 2:
        return _basic(*auth)
    if isinstance(auth, str):
        if not is_token_text(auth):
            raise UsageError(_no_token_text(auth), argument="auth")
        return Credentials(f"Bearer {auth}", (auth,))
    if isinstance(auth, TokenIssuer):
        issuer = auth
        return _Refreshing(issuer.keeper, lambda: issuer.issue(road), road.settings)
    if callable(auth):
        source, keeper = auth, TokenKeeper(EARLY)
        return _Refreshing(lambda: keeper, lambda: _asked(source), road.settings)
    raise UsageError(
        "give (user, password), a token, a callable that returns one, ClientCredentials, or an httpx.Auth",
        argument="auth",
    )
