"""Pure: by which names an archive is reached, and which pages may use it.

A page of anybody can make its own name mean this machine's address (DNS rebinding); to the browser the archive is then
part of that page's host. Only its name, in ``Host``, tells.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["checked_hosts", "checked_origins", "is_address", "is_known_host", "may_connect"]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/@\[\]:\s?#]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_ALL_ADDRESSES = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on


def is_known_host(header: str, hosts: Collection[str] | None) -> bool:
    """Return whether a ``Host`` names this machine.

    Args:
        header: the header; empty when there was none, as browsers never do.
        hosts: lower-case names and addresses besides those of the loopback interface; one that stands for all of the
            machine's addresses lets every address pass, since no page comes from one. None for any host.
    """
    if hosts is None or not header:
        return True
    name = _name_of(f"//{header}")
    if name in hosts or name == "localhost" or name.endswith(".localhost"):
        return True
    if not is_address(name):
        return False
    return ip_address(name).is_loopback or not _ALL_ADDRESSES.isdisjoint(hosts)


def is_address(name: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def may_connect(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Return whether a page may open a WebSocket: one of the same host (on any port), or of an allowed origin.

    Browsers ask nobody before they open one, and always name the page's origin; what is no browser mostly does not.
    """
    if origin is None or "*" in allowed or origin in allowed:
        return True
    name = _name_of(origin)
    return bool(name) and name == _name_of(f"//{host}")


def _name_of(address: str) -> str:
    """Return the host of an address in lower case, without a port; empty when there is none."""
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def checked_origins(values: Iterable[str]) -> tuple[str, ...]:
    """Return origins as browsers write them: lower case, no path.

    Raises:
        UsageError: one is no origin.
    """
    origins = [value.strip().rstrip("/").lower() for value in _several("allow_origin", values)]
    for origin in origins:
        if origin not in {"*", "null"} and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"give origins such as https://viewer.example:8080, or *, not {origin!r}", argument="allow_origin"
            )
    return tuple(origins)


def checked_hosts(own: str, values: Iterable[str]) -> frozenset[str]:
    """Return the names an archive is known by besides the loopback interface's.

    Raises:
        UsageError: one is no name.
    """
    names = frozenset(value.strip().strip("[]").lower() for value in (own, *_several("allow_host", values)))
    for name in names:
        if "/" in name or "@" in name or (":" in name and not is_address(name)):
            raise UsageError(f"give names without a port, such as archive.example, not {name!r}", argument="allow_host")
    return names


def _several(argument: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):  # whose letters would be meant
        raise UsageError("give a list of texts", argument=argument)
    return list(values)
