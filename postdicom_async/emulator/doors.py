"""Access checks: known host names, allowed origins, and rate limits on guessing secrets.

Any web page can have its own host name resolve to this machine (DNS rebinding); the browser then takes the archive for
a part of that page's site. Only the name in ``Host`` gives it away.

Every attempt at a password or key takes a token from a bucket, and a right one gives it back: a burst is allowed, then
one attempt at a time. Without a token an attempt is not checked, so parallel attempts reveal no more than sequential
ones. Tokens refill with time. There is one bucket per client address and a larger one for all. The table of addresses
is bounded; the oldest entry is dropped.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from postdicom_async.errors import UsageError

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/@\[\]:\s?#]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_ALL_ADDRESSES = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on

_AT_ONCE = 50
_PER_SECOND = 1.0
_FOR_ALL = 10
"""All addresses together get this many times as much."""

_ADDRESSES = 4096


def is_known_host(header: str, hosts: Collection[str] | None) -> bool:
    """Return whether a ``Host`` names this machine.

    Args:
        header: the header; empty when there was none, which browsers never do.
        hosts: lower-case names and addresses besides those of the loopback interface; one that stands for all of the
            machine's addresses lets every address pass, since no page comes from one. None for any host.
    """
    if hosts is None or not header:
        return True
    name = _name_of(f"//{header}")
    if name in hosts or name == "localhost" or name.endswith(".localhost"):
        return True
    if not _is_address(name):
        return False
    return ip_address(name).is_loopback or not _ALL_ADDRESSES.isdisjoint(hosts)


def _is_address(name: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def may_connect(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Return whether a page may open a WebSocket: one of the same host (on any port), or of an allowed origin.

    Browsers open one without asking, and always name the page's origin; other clients mostly do not.
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
        UsageError: one is malformed.
    """
    origins = [value.strip().rstrip("/").lower() for value in _several("allow_origin", values)]
    for origin in origins:
        if origin not in {"*", "null"} and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"give origins such as https://viewer.example:8080, or *, not {origin!r}", argument="allow_origin"
            )
    return tuple(origins)


def checked_hosts(values: Iterable[str]) -> frozenset[str]:
    """Return names that an archive is known by, as they are compared with a ``Host``.

    Raises:
        UsageError: one is malformed.
    """
    names = frozenset(value.strip().strip("[]").lower() for value in _several("allow_host", values))
    for name in names:
        if "/" in name or "@" in name or (":" in name and not _is_address(name)):
            raise UsageError(f"give names without a port, such as archive.example, not {name!r}", argument="allow_host")
    return names


def _several(argument: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):  # whose letters would be meant
        raise UsageError("give a list of texts", argument=argument)
    return list(values)


@dataclass
class _Tokens:
    """Tokens left, and when they were counted."""

    left: float
    at: float


class Guesses:
    """The token buckets of one login; may be used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all = _Tokens(_AT_ONCE * _FOR_ALL, clock())
        self._by_address: OrderedDict[str, _Tokens] = OrderedDict()

    def begin(self, address: str) -> int:
        """Take a token for an attempt; return 0, or in how many seconds there will be one, having taken none."""
        with self._lock:  # HTTP is looked at in the event loop, the Cloud API's requests in threads
            now = self._clock()
            both = self._both(address)
            for tokens, times in both:
                grown = (now - tokens.at) * _PER_SECOND * times
                tokens.left, tokens.at = min(_AT_ONCE * times, tokens.left + grown), now
            wait = max((1 - tokens.left) / _PER_SECOND / times for tokens, times in both)
            if wait > 0:
                return math.ceil(wait)
            for tokens, _ in both:  # take from both or neither: a refused attempt costs nothing
                tokens.left -= 1
            return 0

    def right(self, address: str) -> None:
        """Give the token back: the attempt was not a guess."""
        with self._lock:
            for tokens, _ in self._both(address):
                tokens.left += 1

    def _both(self, address: str) -> tuple[tuple[_Tokens, int], tuple[_Tokens, int]]:
        own = self._by_address.setdefault(address, _Tokens(_AT_ONCE, self._clock()))
        self._by_address.move_to_end(address)
        while len(self._by_address) > _ADDRESSES:
            self._by_address.popitem(last=False)
        return (own, 1), (self._all, _FOR_ALL)
