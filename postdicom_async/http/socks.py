"""Connections through a SOCKS proxy, made by aiohttp-socks; the proxy looks up the names."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import aiohttp
import python_socks
from aiohttp_socks import ProxyConnector

from postdicom_async.face import translated
from postdicom_async.http.connections import Connecting, system_words
from postdicom_async.http.problems import NeverConnected, explain

if TYPE_CHECKING:
    import asyncio

    from aiohttp.client_proto import ResponseHandler

_PORT = 1080


def socks_connector(proxy: str) -> aiohttp.TCPConnector:
    """Return a connector that goes through ``socks5://user:password@host:port``."""
    parts = urlsplit(proxy)
    return _Connector(
        host=parts.hostname,
        port=parts.port or _PORT,
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.username is None else unquote(parts.password or ""),
        rdns=True,
        proxied=True,
    )


class _Connector(Connecting, ProxyConnector):
    async def _connect_via_proxy(
        self, host: str, port: int, ssl: ssl.SSLContext | None = None, timeout: float | None = None
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        with translated((python_socks.ProxyConnectionError, python_socks.ProxyError), _never_connected):
            transport, theirs = await super()._connect_via_proxy(host, port, ssl, timeout)
        ours: Any = self._factory()
        ours.stream = theirs  # keeps the stream alive: it would close the transport when collected
        transport.set_protocol(ours)
        ours.connection_made(transport)
        return transport, ours


def _never_connected(error: Exception) -> NeverConnected:
    if isinstance(error, python_socks.ProxyConnectionError):
        return NeverConnected(explain(system_words(error), proxied=True))
    return NeverConnected(explain(f"tunnel error: {error}"))
