"""Request bodies that can be opened again, so that a repeat can never send an empty or half body."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

_PIECE = 512 * 1024


class Body(Protocol):
    """A request body of known length.

    ``open`` starts from the first byte each time it is called and yields exactly ``length`` bytes or raises.
    """

    @property
    def length(self) -> int:
        """Bytes that ``open`` yields."""
        ...

    def open(self) -> AsyncGenerator[bytes, None]:
        """Return a fresh stream of the body; close it if it is not read to its end."""
        ...


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body that is in memory."""

    data: bytes = field(repr=False)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return len(self.data)

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield the data in pieces, so that progress can be reported."""
        for start in range(0, len(self.data), _PIECE):
            yield self.data[start : start + _PIECE]
