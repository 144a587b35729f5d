"""When an archive is too slow, and when it has been silent too often. Pure: bytes and seconds in, verdicts out."""

from __future__ import annotations

from postdicom_async.http.retry import Repeat

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
    kind: an archive that answers searches may be silent to stores for ever.

    Attributes:
        left: seconds until the call's deadline, None without one.
        silences: how many were met, in a row or not. A request notes it when it begins.
    """

    def __init__(self, seconds: float | None, most_silences: int) -> None:
        self.left: float | None = seconds
        self.silences: int = 0
        self._most = most_silences
        self._in_a_row = dict.fromkeys(Repeat, 0)

    def spend(self, seconds: float) -> None:
        """Use up some of the time."""
        if self.left is not None:
            self.left = max(0.0, self.left - seconds)

    def met_silence(self, before: int) -> None:
        """Note that a request waited in vain which began when `silences` was ``before``."""
        if before == self.silences:
            self.silences += 1
            self._in_a_row = {kind: count + 1 for kind, count in self._in_a_row.items()}

    def heard(self, kind: Repeat) -> None:
        """Note that a request of this kind had a whole answer, or brought something all the same."""
        self._in_a_row[kind] = 0

    def is_over(self, kind: Repeat) -> bool:
        """Whether nothing of this kind is to be asked any more."""
        return self._in_a_row[kind] >= self._most
