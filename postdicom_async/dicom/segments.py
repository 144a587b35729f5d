"""A new file as parts of an old one and bytes between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Segment", "Segments"]

Segment: TypeAlias = bytes | tuple[int, int]
"""Bytes to write, or offset and length in the original."""

_JOINED = 4096


@dataclass(slots=True)
class Segments:
    """Parts of the new file, in order; neighbours are joined."""

    parts: list[Segment] = field(default_factory=list)
    length: int = 0

    def keep(self, at: int, length: int) -> None:
        """Append a range of the original."""
        if not length:
            return
        last = self.parts[-1] if self.parts else None
        if isinstance(last, tuple) and last[0] + last[1] == at:
            self.parts[-1] = (last[0], last[1] + length)
        else:
            self.parts.append((at, length))
        self.length += length

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if not data:
            return
        last = self.parts[-1] if self.parts else None
        if isinstance(last, bytes) and len(last) < _JOINED:
            self.parts[-1] = last + data
        else:
            self.parts.append(data)
        self.length += len(data)

    def extend(self, other: Segments) -> None:
        """Append what another one holds."""
        if not other.parts:
            return
        first = other.parts[0]
        if isinstance(first, bytes):
            self.write(first)
        else:
            self.keep(*first)
        self.parts += other.parts[1:]
        self.length += other.length - _size(first)

    def is_range(self, at: int, end: int) -> bool:
        """Whether they are one range of the original, and which."""
        return self.parts == [(at, end - at)] or (at == end and not self.parts)


def _size(part: Segment) -> int:
    return len(part) if isinstance(part, bytes) else part[1]
