"""Which httpx transport a session has: ours on aiohttp, or the one that a caller passes; and the proxy it goes through.

Time-outs over a body are not set here: the session watches for silence itself, alike for every transport.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.to_thread
import httpx

from postdicom_async.errors import UsageError
from postdicom_async.http.tls import tls_context
from postdicom_async.settings import Tls

if TYPE_CHECKING:
    from postdicom_async.http.aiohttp_transport import Edge
    from postdicom_async.settings import Settings

__all__ = ["AiohttpTransport", "ChosenTransport", "choose_transport"]


class ChosenTransport(NamedTuple):
    """A transport's name, ``"aiohttp"`` or ``"custom"``, and what makes it when a session opens."""

    name: str
    make: Callable[[], httpx.AsyncBaseTransport]


def choose_transport(url: str, settings: Settings) -> ChosenTransport:
    """Return the transport of a session that was given none.

    Raises:
        UsageError: a certificate, key or proxy setting cannot be used.
    """
    # Made here only where there are files to prove: it takes tens of milliseconds.
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

    As httpx would behave: no redirects, no cookies, no decompression, no header that was not given, no proxies from the
    environment. No limit of connections is set inside, the session's stands in front.

    It can be made outside an event loop and costs nothing until the first request. That one imports aiohttp and reads
    the system's certificates, a tenth of a second and more, in a thread: the event loop goes on. Connections belong to
    the loop that made them; each loop has its own.

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
        """Send a request and return as soon as the answer's head is there; httpx's errors hold no URL."""
        secure = request.url.scheme == "https" or (self._proxy or "").startswith("https")
        make = self._make_edge
        if make is None or (secure and self._context is None):
            closings = self._closings
            # Not in asyncio's own threads: all of them may be at work that waits for this very request.
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
        """Do in a thread what takes long, once, however many requests wait for it."""
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
        """Let go of the connections of other event loops than the one that runs here."""
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
