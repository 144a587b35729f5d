"""How often a password or a key may be guessed: some times at once, then once in a while.

Every attempt takes a token and gets it back when it was right. Without a token an attempt is not looked at, so that
many at once find out no more than one after the other. Tokens grow again with time. There is a store of them for each
address, and a larger one for all addresses together. What is known of addresses is bounded; the oldest is forgotten.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Guesses"]

_AT_ONCE = 50
_PER_SECOND = 1.0
_FOR_ALL = 10
"""So many times as much is granted to all addresses together."""

_ADDRESSES = 4096


@dataclass
class _Tokens:
    """Tokens left, and when they were counted."""

    left: float
    at: float


class Guesses:
    """The tokens of one door; may be used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all = _Tokens(_AT_ONCE * _FOR_ALL, clock())
        self._by_address: OrderedDict[str, _Tokens] = OrderedDict()

    def begin(self, address: str) -> int:
        """Take a token for an attempt; return 0, or in how many seconds there will be one, having taken none."""
        with self._lock:
            now = self._clock()
            both = self._both(address)
            for tokens, times in both:
                grown = (now - tokens.at) * _PER_SECOND * times
                tokens.left, tokens.at = min(_AT_ONCE * times, tokens.left + grown), now
            wait = max((1 - tokens.left) / _PER_SECOND / times for tokens, times in both)
            if wait > 0:
                return math.ceil(wait)
            for tokens, _ in both:
                tokens.left -= 1
            return 0

    def right(self, address: str) -> None:
        """Give the token of an attempt back, which was no guess."""
        with self._lock:
            for tokens, _ in self._both(address):
                tokens.left += 1

    def _both(self, address: str) -> tuple[tuple[_Tokens, int], tuple[_Tokens, int]]:
        own = self._by_address.setdefault(address, _Tokens(_AT_ONCE, self._clock()))
        self._by_address.move_to_end(address)
        while len(self._by_address) > _ADDRESSES:
            self._by_address.popitem(last=False)
        return (own, 1), (self._all, _FOR_ALL)
