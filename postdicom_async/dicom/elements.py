"""A data set element by element, in bounded memory: headers are read, values are skipped (PS3.5 section 7).

The bytes come from a function, so that a file, bytes in memory and an inflated stream are read alike; only headers, and
the values that are asked for, are ever held. This is the strict reader, for files that will be rewritten: anything it
does not understand is a `DicomProblem`, never a guess. ``header.py`` and ``wholeness.py`` have their own, faster
parsers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from postdicom_async.dicom.tags import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    SEQUENCE_END,
    SHORT_VRS,
    TAG,
    UNDEFINED,
    dictionary_vr,
    tag_text,
)

_DELIMITERS = frozenset({ITEM, ITEM_END, SEQUENCE_END})
_SHORT_LIMIT = 0xFFFE
_LONG_LIMIT = 0xFFFFFFFE

Read = Callable[[int, int], bytes]
"""``read(offset, size)``: that many bytes from there, less only at the end."""


class DicomProblem(Exception):
    """What is wrong with a file. ``reason`` names tags and never a value, so that it can be shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written (PS3.5 section 7.1 and annex A)."""

    little: bool
    explicit: bool

    @property
    def order(self) -> str:
        """The byte order, as `struct` writes it."""
        return "<" if self.little else ">"


IMPLICIT_LITTLE = Encoding(little=True, explicit=False)
EXPLICIT_LITTLE = Encoding(little=True, explicit=True)
FRAGMENTS = Encoding(little=True, explicit=False)
"""Stands for a value made of fragments, which hold no elements (PS3.5 section A.4); told by identity."""


class Element(NamedTuple):
    """The header of an element or item.

    Attributes:
        tag: group and element number in one.
        vr: from the file, or from the dictionary if the file has none; ``UN`` if neither has one.
        length: bytes of the value, or `UNDEFINED`.
        at: where the header begins.
        value_at: where the value begins.
    """

    tag: int
    vr: str
    length: int
    at: int
    value_at: int


class ReadWindow:
    """A window on a stream, read again when bytes outside it are needed."""

    _SIZE = 16 * 1024

    def __init__(self, read: Read) -> None:
        self._read = read
        self._start = 0
        self._data = b""

    def peek(self, at: int, count: int) -> bytes:
        """Return ``count`` bytes from ``at``, less only at the end."""
        offset = at - self._start
        if offset < 0 or offset + count > len(self._data):
            self._data, self._start, offset = self._read(at, max(self._SIZE, count)), at, 0
        return self._data[offset : offset + count]


def read_element(window: ReadWindow, at: int, end: int, encoding: Encoding) -> Element:
    """Return the element at ``at``, in something that ends at ``end``.

    Raises:
        DicomProblem: it is cut off, longer than its container, or not an element.
    """
    data = window.peek(at, 12)
    if at + 8 > end or len(data) < 8:
        raise DicomProblem("it ends inside an element")
    order = encoding.order
    group, number = struct.unpack_from(order + "HH", data)
    tag = group << 16 | number
    if tag in _DELIMITERS or not encoding.explicit:
        vr = "" if tag in _DELIMITERS else dictionary_vr(tag)
        (length,) = struct.unpack_from(order + "I", data, 4)
        value_at = at + 8
    elif (vr := data[4:6].decode("latin-1")) in SHORT_VRS:
        (length,) = struct.unpack_from(order + "H", data, 6)
        value_at = at + 8
    elif vr not in LONG_VRS:
        raise DicomProblem(f"{tag_text(tag)} has no value representation of PS3.5")
    elif at + 12 > end or len(data) < 12:
        raise DicomProblem("it ends inside an element")
    else:
        (length,) = struct.unpack_from(order + "I", data, 8)
        value_at = at + 12
    if length and tag in (ITEM_END, SEQUENCE_END):
        raise DicomProblem(f"{tag_text(tag)} has a length")  # some parsers skip over it, others continue inside
    if length != UNDEFINED and value_at + length > end:
        raise DicomProblem(f"it ends inside {tag_text(tag)}")
    return Element(tag, vr, length, at, value_at)


def as_written(window: ReadWindow, at: int, encoding: Encoding) -> Encoding:
    """Return how a data set is really encoded: some declare explicit VR but are implicit, and readers accept them."""
    vr = window.peek(at, 6)[4:].decode("latin-1")
    explicit = not vr or vr in SHORT_VRS or vr in LONG_VRS
    return encoding if explicit or not encoding.little else IMPLICIT_LITTLE


def items_encoding(window: ReadWindow, element: Element, encoding: Encoding) -> Encoding | None:
    """Return how the items of a sequence are encoded; `FRAGMENTS` for fragments; None if it is not a sequence.

    An element of unknown VR may be a sequence, then written in implicit VR little endian (PS3.5 section 6.2.2).
    """
    if element.length == UNDEFINED:
        if element.tag == TAG["PixelData"] or (encoding.explicit and element.vr in ("OB", "OW")):
            return FRAGMENTS
        if element.vr == "UN" and encoding.explicit:
            return IMPLICIT_LITTLE
        if element.vr != "SQ" and encoding.explicit:
            raise DicomProblem(f"{tag_text(element.tag)} has no length")
        return encoding
    if element.vr == "SQ":
        return encoding if element.length else None
    if element.vr != "UN" or element.length < 8:
        return None
    inner = IMPLICIT_LITTLE if encoding.explicit else encoding
    first = struct.pack(inner.order + "HH", ITEM >> 16, ITEM & 0xFFFF)
    return inner if window.peek(element.value_at, 8).startswith(first) else None


def encode_header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Return the header of an element or item.

    Raises:
        DicomProblem: the length does not fit into it.
    """
    order = encoding.order
    start = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    short = encoding.explicit and tag not in _DELIMITERS and vr not in LONG_VRS
    if length > (_SHORT_LIMIT if short else _LONG_LIMIT):
        raise DicomProblem(f"{tag_text(tag)} would become too long")
    if tag in _DELIMITERS or not encoding.explicit:
        return start + struct.pack(order + "I", length)
    if vr in LONG_VRS:
        return start + vr.encode() + b"\0\0" + struct.pack(order + "I", length)
    return start + vr.encode() + struct.pack(order + "H", length)


def encode_element(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    """Return an element; its value is of even length already."""
    return encode_header(tag, vr, len(value), encoding) + value
