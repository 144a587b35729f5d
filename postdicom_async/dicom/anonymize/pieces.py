"""The pieces of a plan: a new file as ranges of the old one with bytes in between, and the elements of one level.

A plan holds changes as bytes and everything else as ranges. Neighbours are joined, so that a file of very many
unchanged elements is one range; the number of pieces that remain is bounded by `_MOST_CHUNKS`. Pure.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from postdicom_async.dicom.elements import DicomProblem, Encoding

Segment: TypeAlias = bytes | tuple[int, int]
"""Bytes to write, or offset and length in the original."""

_JOINED = 4096
_MOST_CHUNKS = 20_000


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
        """Append the parts of another."""
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
        """Whether the parts are exactly this range of the original."""
        return self.parts == [(at, end - at)] or (at == end and not self.parts)


def _size(part: Segment) -> int:
    return len(part) if isinstance(part, bytes) else part[1]


class LevelMode(Enum):
    """How the elements of a level are treated."""

    RULES = auto()
    """What the rules say is done."""
    KEEP = auto()
    """Nothing is changed; the end of something is looked for."""
    DUMMY = auto()
    """They lie in a sequence that becomes a dummy, so that every value of them does."""


@dataclass(slots=True)
class LevelPlan:
    """The elements of one data set or item as they are planned; only its planner fills it.

    Attributes:
        above: the number of chunks in all enclosing levels.
        apart: tags that may be inserted between two elements, sorted; None if elements are never joined.
    """

    encoding: Encoding
    mode: LevelMode = LevelMode.RULES
    character_sets: tuple[str, ...] = ()
    depth: int = 0
    above: int = 0
    apart: list[int] | None = field(default_factory=list)
    chunks: list[tuple[int, Segments]] = field(default_factory=list)
    _changed_groups: set[int] = field(default_factory=set)
    _open: int | None = None
    """The last tag, while what follows can be joined to its chunk."""

    def add(self, tag: int, chunk: Segments, *, changed: bool) -> None:
        """Append an element as it will be; unchanged neighbours share a chunk."""
        if changed:
            self._changed_groups.add(tag >> 16)
        if not chunk.parts:
            return
        if not changed and self._joins(tag):
            self.chunks[-1][1].extend(chunk)
        else:
            self.chunks.append((tag, chunk))
        # A group length is never joined: whether it stays is known only at the end of its group.
        self._open = None if changed or tag & 0xFFFF == 0 else tag
        if self.above + len(self.chunks) > _MOST_CHUNKS:
            raise DicomProblem("it has too many elements")

    def _joins(self, tag: int) -> bool:
        if self._open is None or self.apart is None or self._open >> 16 != tag >> 16 or not tag & 0xFFFF:
            return False
        return bisect(self.apart, self._open) == bisect(self.apart, tag)

    def insert(self, tag: int, data: bytes) -> None:
        """Insert an element at its place by tag order."""
        place = next((n for n, (other, _) in enumerate(self.chunks) if other > tag), len(self.chunks))
        chunk = Segments()
        chunk.write(data)
        self.chunks.insert(place, (tag, chunk))
        self._changed_groups.add(tag >> 16)

    def joined(self) -> Segments:
        """Return all elements, without group lengths that are no longer correct."""
        whole = Segments()
        for tag, chunk in self.chunks:
            if tag & 0xFFFF or tag >> 16 not in self._changed_groups:
                whole.extend(chunk)
        return whole
