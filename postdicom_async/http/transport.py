"""The fastest httpx transport this machine has, with every setting of ours mapped onto it.

pyreqwest (Rust) moves several times more bytes a second than httpx's own transport. It is used where it is installed
and can do what the settings ask; a setting it cannot do brings httpx's own transport, none is ever ignored.
Time-outs over a body are not set here: the session watches for silence itself, alike for every transport.
"""

from __future__ import annotations

import asyncio
import atexit
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from postdicom_async.errors import UsageError
from postdicom_async.http.pyreqwest_home import load_pyreqwest
from postdicom_async.settings import Tls

if TYPE_CHECKING:
    from pyreqwest.client import Client, ClientBuilder
    from pyreqwest.response import Response

    from postdicom_async.settings import Settings

__all__ = [
    "ChosenTransport",
    "choose_transport",
    "explain_connect_failure",
    "httpx_transport",
    "pyreqwest_transport",
    "tls_context",
]

_IDLE_CONNECTION_SECONDS = 5.0  # about the shortest keep-alive of common servers: a dead connection is rarely picked
READ_AHEAD = "postdicom_async.read_ahead"
"""Request extension: True where a large answer is expected."""

_NEVER_CONNECTED = "client error (Connect)"

_CONNECT_HINTS: tuple[tuple[str, str], ...] = (
    ("certificate", "the server's certificate could not be verified"),
    ("tls", "no secure connection could be agreed on; is this an https:// server?"),
    ("ssl", "no secure connection could be agreed on; is this an https:// server?"),
    ("invalidcontenttype", "no secure connection could be agreed on; is this an https:// server?"),
    ("dns", "the host name is not known"),
    ("name or service", "the host name is not known"),
    ("name resolution", "the host name is not known"),
    ("nodename", "the host name is not known"),
    ("refused", "the connection was refused; is the archive running at this address?"),
    ("unreachable", "the network or host cannot be reached"),
)
_CERTIFICATE_HINT = _CONNECT_HINTS[0][1]
_HINTS = frozenset(hint for _, hint in _CONNECT_HINTS)


def explain_connect_failure(text: str) -> tuple[str, bool]:
    """Turn a transport's text, which may hold the URL, into words of ours; and say whether a repeat can help."""
    if text in _HINTS:  # explained before, by our own transport
        return text, text != _CERTIFICATE_HINT
    lowered = text.lower()
    for word, hint in _CONNECT_HINTS:
        if word in lowered:
            return hint, hint != _CERTIFICATE_HINT
    return "no connection could be made", True


class ChosenTransport(NamedTuple):
    """A transport's name, ``"pyreqwest"``, ``"httpx"`` or ``"custom"``, and what makes it when a session opens."""

    name: str
    make: Callable[[], httpx.AsyncBaseTransport]


def choose_transport(url: str, settings: Settings) -> ChosenTransport:
    """Return pyreqwest's transport where it is installed and can do what the settings ask, else httpx's.

    Raises:
        UsageError: a certificate, key or proxy setting cannot be used.
    """
    # Made here where there are files to prove; it takes tens of milliseconds, and pyreqwest has its own.
    context = tls_context(settings.tls) if settings.tls != Tls() else None
    proxy = _proxy_for(url, settings)
    if _pyreqwest_can(settings, proxy):
        return ChosenTransport("pyreqwest", partial(pyreqwest_transport, settings, proxy=proxy))
    return ChosenTransport("httpx", partial(httpx_transport, settings, proxy=proxy, context=context))


def _pyreqwest_can(settings: Settings, proxy: str | None) -> bool:
    """Whether every setting can be mapped: it takes no encrypted keys, and no SOCKS proxies as we set it up."""
    load_pyreqwest()
    try:
        import pyreqwest.client  # noqa: F401
    except ImportError:
        return False
    return settings.tls.key_password is None and urlsplit(proxy or "").scheme in {"", "http", "https"}


_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})


def _proxy_for(url: str, settings: Settings) -> str | None:
    if settings.proxy or not settings.use_environment_proxies:
        return _checked_proxy(settings.proxy)
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
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
        raise UsageError("proxy: give an address such as http://proxy.example:3128")
    return proxy


# --- TLS ---------------------------------------------------------------------------------------------------------


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of these settings, which also proves that the files are usable for either transport."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if tls.accept_any_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.ca_file is not None:
        _loading("tls.ca_file", tls.ca_file, lambda: context.load_verify_locations(tls.ca_file))
    if tls.certificate is not None:
        certificate = tls.certificate
        _loading(
            "tls.certificate",
            certificate,
            lambda: context.load_cert_chain(certificate, tls.key, tls.key_password),
        )
    elif tls.key is not None:
        raise UsageError("tls.key: give tls.certificate too")
    return context


def _loading(argument: str, path: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ssl.SSLError) as error:
        kind = "is not a usable PEM file" if isinstance(error, ssl.SSLError) else "cannot be read"
        raise UsageError(f"{argument}: {path} {kind}") from None


# --- httpx's own ---------------------------------------------------------------------------------------------------


def httpx_transport(
    settings: Settings, *, proxy: str | None = None, context: ssl.SSLContext | None = None
) -> httpx.AsyncBaseTransport:
    """Return httpx's transport. Its pool has no limit of its own: ours stands in front."""
    try:
        return _HttpxTransport(
            verify=context or tls_context(settings.tls),
            trust_env=False,
            proxy=proxy,
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=settings.limits.connections,
                keepalive_expiry=_IDLE_CONNECTION_SECONDS,
            ),
        )
    except (ValueError, ImportError):
        raise UsageError("proxy: give http://host:port; SOCKS needs the package socksio") from None


class _HttpxTransport(httpx.AsyncHTTPTransport):
    """httpx's transport, with a pool that loses no connection.

    A request that is cancelled in one of the few turns between the connecting and the first byte leaves its connection
    in httpcore's pool (1.0), neither idle nor in use, for good; with as many as there are slots everything would wait.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except BaseException:
            self._drop_the_lost()
            raise

    def _drop_the_lost(self) -> None:
        requests, connections = getattr(self._pool, "_requests", ()), getattr(self._pool, "_connections", [])
        in_use = {id(request.connection) for request in requests}
        for connection in list(connections):
            if id(connection) not in in_use and not connection.is_idle() and not connection.is_closed():
                connections.remove(connection)
                closing = asyncio.get_running_loop().create_task(connection.aclose())
                _closing.add(closing)
                closing.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


# --- pyreqwest -----------------------------------------------------------------------------------------------------


def pyreqwest_transport(settings: Settings, *, proxy: str | None = None) -> httpx.AsyncBaseTransport:
    """Return pyreqwest's client behind httpx's interface.

    As httpx would behave: no redirects, no decompression, no Referer, no proxies from the environment. No limit of
    connections is set inside, ours stands in front.
    """
    load_pyreqwest()
    from pyreqwest.client import ClientBuilder
    from pyreqwest.exceptions import BuilderError

    builder = (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .referer(False)
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .http1_only()
        .connect_timeout(timedelta(seconds=settings.timeouts.connect))
        .pool_idle_timeout(timedelta(seconds=_IDLE_CONNECTION_SECONDS))
        .pool_max_idle_per_host(settings.limits.connections)
    )
    _let_pyreqwest_end()
    client: Client | None = None
    with suppress(BuilderError, ValueError):  # their text may hold the proxy's password
        client = _with_proxy(_with_tls(builder, settings.tls), proxy).build()
    if client is None:
        raise UsageError("proxy or tls: the settings cannot be used; check the proxy, the PEM files and SSL_CERT_FILE")
    return PyreqwestTransport(client)


def _with_tls(builder: ClientBuilder, tls: Tls) -> ClientBuilder:
    if tls.ca_file is not None:
        builder = builder.add_root_certificate_pem(tls.ca_file.read_bytes())
    if tls.certificate is not None:
        pem = tls.certificate.read_bytes() + (b"\n" + tls.key.read_bytes() if tls.key else b"")
        builder = builder.identity_pem(pem)
    if tls.accept_any_certificate:
        builder = builder.danger_accept_invalid_certs(True)
    return builder


def _with_proxy(builder: ClientBuilder, proxy: str | None) -> ClientBuilder:
    if proxy is None:
        return builder
    from pyreqwest.proxy import ProxyBuilder

    return builder.proxy(ProxyBuilder.all(proxy))


@cache
def _let_pyreqwest_end() -> None:
    """Give pyreqwest's thread a moment before the interpreter goes.

    When a process ends right after a request has failed, that thread may still hold the interpreter's lock while it is
    taken down, and the process aborts (pyreqwest 0.15, in about one of three such ends).
    """
    atexit.register(time.sleep, 0.02)


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """A pyreqwest client as an httpx transport, its errors mapped to httpx's without their texts (they hold URLs)."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return as soon as the answer's head is there."""
        builder = self._client.request(request.method, str(request.url)).headers(request.headers.multi_items())
        # By default it reads 64 KiB ahead, and gives the head only with them: a cut among them would lose them all.
        # Reading ahead saves a change of thread for each piece that a server sends (Orthanc: 8 KiB).
        if not request.extensions.get(READ_AHEAD):
            builder = builder.streamed_read_buffer_limit(0)
        try:
            builder = builder.body_bytes(request.content)
        except httpx.RequestNotRead:
            builder = builder.body_stream(request.stream)
        stack = AsyncExitStack()
        problem: httpx.TransportError | None = None
        try:
            answer = await stack.enter_async_context(builder.build_streamed())
        except BaseException as error:
            await stack.aclose()
            problem = _mapped(error)
            if problem is None:
                raise
        if problem is not None:
            raise problem
        return httpx.Response(answer.status, headers=list(answer.headers.items()), stream=_AnswerStream(answer, stack))


class _AnswerStream(httpx.AsyncByteStream):
    """The answer's body as it arrives, in the sizes the socket gives (up to a few hundred KiB)."""

    def __init__(self, answer: Response, stack: AsyncExitStack) -> None:
        self._reader = answer.body_reader
        self._stack = stack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # read(n) would gather small chunks, but it loses what it holds when the answer is cut, and is slower at times.
        read_chunk = self._reader.read_chunk
        while True:
            problem: httpx.TransportError | None = None
            try:
                chunk = await read_chunk()
            except Exception as error:
                problem = _mapped(error)
                if problem is None:
                    raise
            if problem is not None:
                raise problem
            if chunk is None:
                return
            yield bytes(chunk)

    async def aclose(self) -> None:
        await self._stack.aclose()


def _mapped(error: BaseException) -> httpx.TransportError | None:
    """Return httpx's error for a pyreqwest error, with words of ours; None for any other exception."""
    from pyreqwest import exceptions

    if not isinstance(error, exceptions.PyreqwestError):
        return None
    details = getattr(error, "details", None) or {}
    causes = [cause["message"] for cause in details.get("causes") or []]
    # Its ConnectError and ConnectTimeoutError also stand for connections that broke after the request had left. Only
    # this cause says that there never was one.
    if _NEVER_CONNECTED in causes:
        if isinstance(error, exceptions.RequestTimeoutError):
            return httpx.ConnectTimeout("no connection in time")
        words = " ".join(cause for cause in causes if " url (" not in cause)  # a host may be called anything
        return httpx.ConnectError(explain_connect_failure(words)[0])
    if isinstance(error, exceptions.RequestTimeoutError):
        return httpx.ReadTimeout("no answer in time")
    return httpx.ReadError("the connection broke")
