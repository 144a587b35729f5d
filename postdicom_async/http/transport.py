"""The fastest httpx transport this machine has, with every setting of ours mapped onto it.

pyreqwest (Rust) moves several times more bytes a second than httpx's own transport. It is used where it is installed
and can do what the settings ask; a setting it cannot do brings httpx's own transport, none is ever ignored.
Time-outs over a body are not set here: the session watches for silence itself, alike for every transport.
"""

from __future__ import annotations

import atexit
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from postdicom_async.errors import UsageError
from postdicom_async.http import tasks
from postdicom_async.http.pyreqwest_home import load_pyreqwest
from postdicom_async.http.tls import may_be_a_server_s_own, prove_files, tls_context
from postdicom_async.http.unreached import NeverConnected, explain, words_of
from postdicom_async.settings import Tls

if TYPE_CHECKING:
    from pyreqwest.client import Client, ClientBuilder
    from pyreqwest.response import Response

    from postdicom_async.settings import Settings

__all__ = [
    "READ_AHEAD",
    "ChosenTransport",
    "PyreqwestTransport",
    "choose_transport",
    "httpx_transport",
    "pyreqwest_transport",
]

_IDLE_CONNECTION_SECONDS = 5.0  # about the shortest keep-alive of common servers: a dead connection is rarely picked
READ_AHEAD = "postdicom_async.read_ahead"
"""Request extension: True where a large answer is expected."""

_NEVER_CONNECTED = "client error (Connect)"


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
    if _has_pyreqwest() and _beyond_pyreqwest(settings, proxy) is None:
        return ChosenTransport("pyreqwest", partial(pyreqwest_transport, settings, proxy=proxy))
    return ChosenTransport("httpx", partial(httpx_transport, settings, proxy=proxy, context=context))


def _has_pyreqwest() -> bool:
    load_pyreqwest()
    try:
        import pyreqwest.client  # noqa: F401
    except ImportError:
        return False
    return True


def _beyond_pyreqwest(settings: Settings, proxy: str | None) -> str | None:
    """Return which setting pyreqwest cannot do, None if it can do all of them."""
    tls = settings.tls
    if tls.certificate is not None and tls.key_password is not None:
        return "tls.key_password: pyreqwest takes no encrypted key"
    if urlsplit(proxy or "").scheme not in {"", "http", "https"}:
        return "proxy: pyreqwest takes no SOCKS proxy as it is set up here"
    # What httpx's transport and curl accept: a server's own certificate as its own authority. rustls does not, and it
    # cannot be known before the handshake which certificate a server shows.
    if tls.ca_file is not None and may_be_a_server_s_own(tls.ca_file):
        return "tls.ca_file: pyreqwest takes only authorities, not a server's own certificate"
    return None


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
        raise UsageError("proxy: give an address such as http://proxy.example:3128")
    return proxy


# --- httpx's own ---------------------------------------------------------------------------------------------------


def httpx_transport(
    settings: Settings, *, proxy: str | None = None, context: ssl.SSLContext | None = None
) -> httpx.AsyncBaseTransport:
    """Return httpx's transport. Its pool has no limit of its own: ours stands in front.

    Raises:
        UsageError: a certificate, key or proxy setting cannot be used.
    """
    verify = context or tls_context(settings.tls)
    try:
        return _HttpxTransport(
            proxied=proxy is not None,
            verify=verify,
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
    """httpx's transport, with errors that say why there was no connection, and a pool that loses none.

    A request that is cancelled in one of the few turns between the connecting and the first byte leaves its connection
    in httpcore's pool (1.0), neither idle nor in use, for good; with as many as there are slots everything would wait.
    """

    def __init__(self, *, proxied: bool, **options: Any) -> None:
        super().__init__(**options)
        self._proxied = proxied

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        problem: httpx.TransportError
        try:
            return await super().handle_async_request(request)
        except (httpx.ConnectError, httpx.ProxyError) as error:
            problem = NeverConnected(explain(words_of(error), proxied=self._proxied))
        except ssl.SSLError as error:  # httpx lets those through that come after the handshake
            problem = _refused_by_alert(str(error)) or httpx.ReadError("the connection broke")
        except BaseException:
            self._drop_the_lost()
            raise
        self._drop_the_lost()
        raise problem

    def _drop_the_lost(self) -> None:
        requests, connections = getattr(self._pool, "_requests", ()), getattr(self._pool, "_connections", [])
        in_use = {id(request.connection) for request in requests}
        for connection in list(connections):
            if id(connection) not in in_use and not connection.is_idle() and not connection.is_closed():
                connections.remove(connection)
                tasks.start(connection.aclose())


def _refused_by_alert(text: str) -> NeverConnected | None:
    """Return the error for a server that wants another client certificate, None if a text says nothing of it.

    Since TLS 1.3 a server says so when the request is on its way already; it has not read it.
    """
    cause = explain(text) if "alert" in text.lower() else None
    return NeverConnected(cause) if cause is not None and cause.credentials else None


# --- pyreqwest -----------------------------------------------------------------------------------------------------


def pyreqwest_transport(settings: Settings, *, proxy: str | None = None) -> httpx.AsyncBaseTransport:
    """Return pyreqwest's client behind httpx's interface.

    As httpx would behave: no redirects, no decompression, no Referer, no proxies from the environment. No limit of
    connections is set inside, ours stands in front.

    Raises:
        UsageError: a certificate, key or proxy setting cannot be used, or not by pyreqwest.
    """
    if settings.tls != Tls():
        prove_files(settings.tls)
    lacking = _beyond_pyreqwest(settings, proxy)
    if lacking is not None:
        raise UsageError(f"{lacking}; leave the transport to the library, or give httpx_transport(settings)")
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
    return PyreqwestTransport(client, proxied=proxy is not None)


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

    def __init__(self, client: Client, *, proxied: bool = False) -> None:
        self._client = client
        self._proxied = proxied

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
            problem = _mapped(error, proxied=self._proxied)
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


def _mapped(error: BaseException, *, proxied: bool = False) -> httpx.TransportError | None:
    """Return httpx's error for a pyreqwest error, with words of ours; None for any other exception."""
    from pyreqwest import exceptions

    if not isinstance(error, exceptions.PyreqwestError):
        return None
    details = getattr(error, "details", None) or {}
    causes = [cause["message"] for cause in details.get("causes") or []]
    words = " ".join(cause for cause in causes if " url (" not in cause)  # a host may be called anything
    # Its ConnectError and ConnectTimeoutError also stand for connections that broke after the request had left. Only
    # this cause says that there never was one.
    if _NEVER_CONNECTED in causes:
        if isinstance(error, exceptions.RequestTimeoutError):
            return httpx.ConnectTimeout("no connection in time")
        return NeverConnected(explain(words, proxied=proxied))
    if isinstance(error, exceptions.RequestTimeoutError):
        return httpx.ReadTimeout("no answer in time")
    return _refused_by_alert(words) or httpx.ReadError("the connection broke")
