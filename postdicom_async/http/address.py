"""Addresses of services: which are taken, which lead to this machine, which to the same server."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from postdicom_async.errors import UsageError
from postdicom_async.http.redaction import origin_of

if TYPE_CHECKING:
    from postdicom_async.http.credentials import Credentials
    from postdicom_async.settings import Settings

__all__ = ["checked_url", "is_loopback", "place_of", "refuse_open_credentials", "same_origin"]


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
    """Return one spelling for all the addresses of one service that differ in form alone.

    Case of scheme and host, the usual port, a slash at the end, characters that need not be encoded.
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
