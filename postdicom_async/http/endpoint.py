"""Where requests go, and as whom: the address of a service, its credentials, and the transport.

Credentials are Basic, a bearer token, a callable that returns one, or any ``httpx.Auth``. The transport is our own on
aiohttp, or one passed by the caller. Time-outs while a body is transferred are not set here: the session watches for
silence itself, alike for every transport.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import ipaddress
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.to_thread
import httpx

from postdicom_async.errors import AuthenticationFailed, UsageError
from postdicom_async.events import CredentialsRefreshed
from postdicom_async.face import translated
from postdicom_async.http.tls import tls_context
from postdicom_async.settings import Tls
from postdicom_async.watching import HTTP_LOG, tell

if TYPE_CHECKING:
    from postdicom_async.events import OnEvent
    from postdicom_async.http.aiohttp_transport import Edge
    from postdicom_async.settings import Settings

TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
Auth: TypeAlias = tuple[str, str] | str | TokenSource | httpx.Auth | None
"""``(user, password)``, a bearer token, a callable giving one (plain or async), an ``httpx.Auth``, or None."""


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


class _Refreshing(Credentials):
    """A token from a callable. However many requests see a 401, or wait for a failing refresh, the callable runs once.

    The task that holds the lock calls it. Tasks that waited for the lock take the result of that call: the token, or
    the failure; ``_failures`` counts failures, so that they can tell.
    """

    def __init__(self, source: TokenSource, on_event: OnEvent | None) -> None:
        super().__init__()
        self._source = source
        self._on_event = on_event
        self._lock = anyio.Lock()
        self._was_given = False
        self._failure: AuthenticationFailed | None = None
        self._failures = 0

    async def header(self) -> str:
        while (value := self._value) is None:  # another request may have it refused meanwhile
            await self.refresh(None)
        return value

    async def refresh(self, rejected: str | None) -> bool:
        """Get a new token; see the base class.

        Raises:
            AuthenticationFailed: there is none; ``temporary`` if the callable raised and may return one later.
        """
        before = self._failures
        async with self._lock:
            if self._failures != before and self._failure is not None:
                raise copy.copy(self._failure)  # the failure of the task that held the lock
            if self._value != rejected:
                return True  # another task has refreshed it meanwhile
            self._value, self._secrets = None, ()
            try:
                token = await self._ask()
            except AuthenticationFailed as failure:
                self._failure, self._failures = copy.copy(failure), self._failures + 1
                raise
            self._value, self._secrets = f"Bearer {token}", (token,)
            if self._was_given and self._value != rejected:
                HTTP_LOG.info("the token was refreshed")
                tell(self._on_event, CredentialsRefreshed())
            self._was_given, self._failure = True, None
            return self._value != rejected

    @property
    def present(self) -> bool:
        return True

    async def _ask(self) -> str:
        with translated(Exception, _no_token):
            token = self._source()
            found = await token if inspect.isawaitable(token) else token
        if not (isinstance(found, str) and _is_header_text(found)):
            raise AuthenticationFailed("the callable that gives the token did not return a token as text")
        return found


def _no_token(error: Exception) -> AuthenticationFailed:
    """Return the error for a failing callable, without its text, which may contain the secret."""
    temporary = error.temporary if isinstance(error, AuthenticationFailed) else True
    return AuthenticationFailed(f"the callable that gives the token raised {type(error).__name__}", temporary=temporary)


def _is_header_text(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


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


def credentials_from(auth: Auth, *, on_event: OnEvent | None = None) -> Credentials:
    """Return the credentials for an ``auth`` argument; ``on_event`` is called when a callable returned another token.

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
        if not _is_header_text(auth):
            raise UsageError("a bearer token must be printable ASCII without spaces", argument="auth")
        return Credentials(f"Bearer {auth}", (auth,))
    if callable(auth):
        return _Refreshing(auth, on_event)
    raise UsageError("give (user, password), a token, a callable that returns one, or an httpx.Auth", argument="auth")


# --- addresses --------------------------------------------------------------------------------------------------------


def checked_url(url: str) -> str:
    """Return the address without a trailing slash.

    Raises:
        UsageError: it is not an absolute http(s) address, or holds credentials or a query.
    """
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except (ValueError, AttributeError):
        raise UsageError(
            "not an address; give something like https://archive.example/dicom-web", argument="url"
        ) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise UsageError("give an absolute address such as https://archive.example/dicom-web", argument="url")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "leave user and password out of the address and give them as auth=(user, password)", argument="url"
        )
    if parts.query or parts.fragment:
        raise UsageError("leave out everything from '?' or '#' on", argument="url")
    if any(not char.isprintable() or char.isspace() for char in url):
        raise UsageError("the address holds a space or a control character", argument="url")
    return url.rstrip("/")


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, the only part of it that may be shown."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}"


def is_loopback(url: str) -> bool:
    """Return whether an address leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def refuse_open_credentials(url: str, credentials: Credentials, settings: Settings) -> None:
    """Refuse to send credentials over ``http://`` to another machine, unless the settings allow it."""
    open_road = urlsplit(url).scheme == "http" and not is_loopback(url)
    if open_road and credentials.present and not settings.allow_http_credentials:
        raise UsageError(
            f"credentials would travel unencrypted to {origin_of(url)}; use https://, "
            "or set allow_http_credentials if that network is trusted",
            argument="url",
        )


def same_origin(url: str, other: str) -> bool:
    """Return whether two absolute addresses lead to the same scheme, host and port."""
    return _origin(url) == _origin(other)


def place_of(url: str) -> str:
    """Return one canonical spelling for all addresses of a service that differ only in form.

    Normalised are the case of scheme and host, the default port, a trailing slash, and needless percent-encoding.
    """
    parts = urlsplit(url)
    scheme, host, port = _origin(url)
    host = host.rstrip(".")
    with suppress(ValueError):
        host = f"[{ipaddress.IPv6Address(host).compressed}]"
    path = _ENCODED.sub(_plainly, parts.path).rstrip("/")
    return f"{scheme}://{host}:{port}{path}"


_ENCODED = re.compile("%[0-9A-Fa-f]{2}")


def _plainly(found: re.Match[str]) -> str:
    char = chr(int(found[0][1:], 16))
    return char if char.isascii() and (char.isalnum() or char in "-._~") else found[0].upper()


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


# --- transports -------------------------------------------------------------------------------------------------------


class ChosenTransport(NamedTuple):
    """A transport's name, ``"aiohttp"`` or ``"custom"``, and the function that creates it when a session opens."""

    name: str
    make: Callable[[], httpx.AsyncBaseTransport]


def choose_transport(url: str, settings: Settings) -> ChosenTransport:
    """Return the transport for a session that was given none.

    Raises:
        UsageError: a certificate, key or proxy setting cannot be used.
    """
    # Made this early only if there are files to check: it takes tens of milliseconds.
    context = tls_context(settings.tls) if settings.tls != Tls() else None
    return ChosenTransport(
        "aiohttp", partial(AiohttpTransport, settings, proxy=_proxy_for(url, settings), context=context)
    )


_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})


def _proxy_for(url: str, settings: Settings) -> str | None:
    if settings.proxy or not settings.use_environment_proxies:
        return _checked_proxy(settings.proxy)
    parts = urlsplit(url)
    host, with_port = parts.hostname or "", parts.netloc.rpartition("@")[2]
    if proxy_bypass(host) or proxy_bypass(with_port):  # NO_PROXY may name a port
        return None
    proxies = getproxies()
    return _checked_proxy(proxies.get(parts.scheme) or proxies.get("all"))


def _checked_proxy(proxy: str | None) -> str | None:
    if not proxy:
        return None
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("give an address such as http://proxy.example:3128", argument="proxy")
    if parts.scheme.startswith("socks") and find_spec("aiohttp_socks") is None:
        raise UsageError(
            'SOCKS needs the package aiohttp-socks; pip install "postdicom-async[socks]"', argument="proxy"
        )
    return proxy


class AiohttpTransport(httpx.AsyncBaseTransport):
    """An httpx transport on aiohttp.

    It behaves as an httpx transport does: no redirects, no cookies, no decompression, no added headers, no proxies from
    the environment. It has no connection limit of its own; the session's limiter is in front of it.

    It can be created outside an event loop and costs nothing until the first request. That request imports aiohttp and
    reads the system's certificates, a tenth of a second or more, in a thread, so that the event loop continues.

    State: connections belong to the event loop that made them, so there is one `Edge` for each loop. ``_context`` and
    ``_make_edge`` are set once, under a lock, by the thread that prepares the first request. ``_closings`` counts calls
    of `aclose`: a request being prepared meanwhile must not open a connection that nobody would close.

    Raises:
        UsageError: a certificate or key cannot be used.
    """

    def __init__(self, settings: Settings, *, proxy: str | None = None, context: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._proxy = proxy
        self._context = tls_context(settings.tls) if context is None and settings.tls != Tls() else context
        self._edges: dict[asyncio.AbstractEventLoop, Edge] = {}
        self._make_edge: Callable[[], Edge] | None = None
        self._closings = 0
        self._preparing = threading.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return as soon as the answer's head has arrived; the httpx errors raised hold no URL."""
        secure = request.url.scheme == "https" or (self._proxy or "").startswith("https")
        make = self._make_edge
        if make is None or (secure and self._context is None):
            closings = self._closings
            # Not in asyncio's default executor: all its threads may be busy with work that waits for this very request.
            prepare = partial(self._prepare, secure=secure)
            make = await anyio.to_thread.run_sync(prepare, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
            if closings != self._closings:
                raise httpx.ConnectError("closed before there was a connection")
        loop = asyncio.get_running_loop()
        edge = self._edges.get(loop)
        if edge is None:
            self._leave([ended for ended in list(self._edges) if ended.is_closed()])
            self._edges[loop] = edge = make()
        return await edge.send(request, self._context)

    def _prepare(self, *, secure: bool) -> Callable[[], Edge]:
        """Do the slow preparation, in a thread, once, however many requests wait for it."""
        with self._preparing:
            if secure and self._context is None:
                self._context = tls_context(self._settings.tls)
            if self._make_edge is None:
                from postdicom_async.http.aiohttp_transport import Edge

                if (self._proxy or "").startswith("socks"):
                    import_module("postdicom_async.http.socks")
                self._make_edge = partial(Edge, connect=self._settings.timeouts.connect, proxy=self._proxy)
            return self._make_edge

    def _leave(self, loops: Iterable[asyncio.AbstractEventLoop]) -> None:
        """Close the connections that belong to event loops other than the running one."""
        for loop in loops:
            edge = self._edges.pop(loop, None)
            if edge is not None:
                edge.leave()

    async def aclose(self) -> None:
        """Close every connection."""
        self._closings += 1
        edge = self._edges.pop(asyncio.get_running_loop(), None)
        self._leave(list(self._edges))
        if edge is not None:
            await edge.close()
