"""Request bodies that can be opened again, so that a repeat can never send an empty or half body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Body", "BytesBody"]

_PIECE = 512 * 1024


class Body(Protocol):
    """A request body of known length.

    ``open`` starts from the first byte each time it is called and yields exactly ``length`` bytes or raises.
    """

    @property
    def length(self) -> int:
        """Bytes that ``open`` yields."""
        ...

    def open(self) -> AsyncIterator[bytes]:
        """Return a fresh stream of the body."""
        ...


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body that is in memory."""

    data: bytes = field(repr=False)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return len(self.data)

    async def open(self) -> AsyncIterator[bytes]:
        """Yield the data in pieces, so that its progress is seen."""
        for start in range(0, len(self.data), _PIECE):
            yield self.data[start : start + _PIECE]
