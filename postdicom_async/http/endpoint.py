"""Where requests go: the address of a service and the transport. As whom is in `credentials`.

The transport is our own on aiohttp, or one passed by the caller. Time-outs while a body is transferred are not set
here: the session watches for silence itself, alike for every transport.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from postdicom_async.errors import UsageError
from postdicom_async.http.tls import tls_context
from postdicom_async.settings import Tls

if TYPE_CHECKING:
    import ssl

    import httpx

    from postdicom_async.http.credentials import Credentials
    from postdicom_async.settings import Settings


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
    secret = credentials.present or bool(settings.headers)  # a header may be a key: that cannot be told
    if open_road and secret and not settings.allow_http_credentials:
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
    """A transport's name, ``"aiohttp"`` or ``"custom"``, and the function that makes it for the first request."""

    name: str
    make: Callable[[], httpx.AsyncBaseTransport]


def choose_transport(url: str, settings: Settings) -> ChosenTransport:
    """Return the transport for a session that was given none.

    Raises:
        UsageError: a certificate, key or proxy setting cannot be used.
    """
    # Made this early only if there are files to check: it takes tens of milliseconds.
    context = tls_context(settings.tls) if settings.tls != Tls() else None
    return ChosenTransport("aiohttp", partial(_on_aiohttp, settings, _proxy_for(url, settings), context))


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


def _on_aiohttp(settings: Settings, proxy: str | None, context: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
    """Import aiohttp, which takes a tenth of a second or more, and return a transport on it; called in a thread."""
    from postdicom_async.http.aiohttp_transport import AiohttpTransport

    if (proxy or "").startswith("socks"):
        import_module("postdicom_async.http.socks")
    return AiohttpTransport(settings, proxy=proxy, context=context)
