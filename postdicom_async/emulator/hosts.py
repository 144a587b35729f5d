"""Pure: by which names an archive is reached, and which pages may use it.

A page of anybody can make its own name mean this machine's address (DNS rebinding); to the browser the archive is then
part of that page's host. Only its name, in ``Host``, tells.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["is_known_host", "may_connect"]

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
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not _ALL_ADDRESSES.isdisjoint(hosts)


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
