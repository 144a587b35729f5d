"""When an archive is too slow, and when it has been silent too often. Pure: bytes and seconds in, verdicts out."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["LeastRate", "Patience"]


class LeastRate:
    """Tells a stream that moves too slowly from one that moves.

    Only the seconds spent waiting for the network are counted. When the bytes of a window have come, counting starts
    anew. So what is called slow had a whole window and less than the window's bytes in it. What is slow from its start
    is called so with the wait that fills the first window, and what becomes slow later before two have passed.

    Args:
        rate: bytes a second; 0 never calls anything slow.
        window: seconds.
    """

    def __init__(self, rate: float, window: float) -> None:
        self._enough = rate * window
        self._window = window
        self._size = 0
        self._waited = 0.0

    def is_too_slow(self, size: int, waited: float) -> bool:
        """Note that ``size`` bytes came after ``waited`` seconds; return whether that is too slow by now."""
        self._size += size
        if self._size >= self._enough:
            self._size = 0
            self._waited = 0.0
            return False
        self._waited += waited
        return self._waited >= self._window


class Patience:
    """What one call of the library has left of it, over all the requests that it makes.

    A call ends when its seconds are used up, and asks no more when it has met silence several times in a row. Requests
    side by side that all wait in vain have met one silence together. What a request can still expect is told by its
    kind: an archive that answers searches may be silent to stores for ever, and what was not silent itself is asked,
    whatever else was.

    Attributes:
        left: seconds until the call's deadline, None without one.
        silences: how many were met, in a row or not. A request notes it when it begins.
    """

    def __init__(self, seconds: float | None, most_silences: int) -> None:
        self.left: float | None = seconds
        self.silences: int = 0
        self._most = most_silences
        self._heard: dict[Hashable, int] = {}  # by kind: how many silences had been met when it was last answered
        self._silent: set[Hashable] = set()  # kinds that were silent since

    def spend(self, seconds: float) -> None:
        """Use up some of the time."""
        if self.left is not None:
            self.left = max(0.0, self.left - seconds)

    def met_silence(self, kind: Hashable, before: int) -> None:
        """Note that a request waited in vain which began when `silences` was ``before``."""
        self._silent.add(kind)
        if before == self.silences:
            self.silences += 1

    def heard(self, kind: Hashable) -> None:
        """Note that a request of this kind had a whole answer, or brought something all the same."""
        self._heard[kind] = self.silences
        self._silent.discard(kind)

    def is_over(self, kind: Hashable) -> bool:
        """Whether nothing of this kind is to be asked any more."""
        return kind in self._silent and self.silences - self._heard.get(kind, 0) >= self._most
