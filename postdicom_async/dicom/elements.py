"""A data set element by element, in bounded memory: headers are read, values are skipped (PS3.5 section 7).

The bytes come from a function, so that a file, bytes and an unpacked stream are read alike; only headers and what is
asked for is ever held.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from postdicom_async.dicom.dictionary import keyword_of

__all__ = [
    "EXPLICIT_LITTLE",
    "FRAGMENTS",
    "IMPLICIT_LITTLE",
    "ITEM",
    "ITEM_END",
    "SEQUENCE_END",
    "UNDEFINED",
    "DicomProblem",
    "Element",
    "Encoding",
    "Read",
    "Window",
    "as_written",
    "dictionary_vr",
    "encode_element",
    "encode_header",
    "items_encoding",
    "read_element",
    "tag_text",
]

ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
_DELIMITERS = frozenset({ITEM, ITEM_END, SEQUENCE_END})
_PIXEL_DATA = 0x7FE00010

_SHORT_VRS = frozenset(
    ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN",
    "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US")
)  # fmt: skip
_LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
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
        vr: as the file says, or as the dictionary does where it does not; ``UN`` where neither knows.
        length: bytes of the value, or `UNDEFINED`.
        at: where the header begins.
        value_at: where the value begins.
    """

    tag: int
    vr: str
    length: int
    at: int
    value_at: int


class Window:
    """A piece of a stream, read again where something else is looked at."""

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


def read_element(window: Window, at: int, end: int, encoding: Encoding) -> Element:
    """Return the element at ``at``, in something that ends at ``end``.

    Raises:
        DicomProblem: it is cut off, longer than what holds it, or no element.
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
    else:
        vr = data[4:6].decode("latin-1")
        length, value_at = _explicit_length(data, at, end, tag, vr, order)
    if length and tag in (ITEM_END, SEQUENCE_END):
        raise DicomProblem(f"{tag_text(tag)} has a length")  # some readers pass over it, others read on inside
    if length != UNDEFINED and value_at + length > end:
        raise DicomProblem(f"it ends inside {tag_text(tag)}")
    return Element(tag, vr, length, at, value_at)


def _explicit_length(data: bytes, at: int, end: int, tag: int, vr: str, order: str) -> tuple[int, int]:
    if vr in _SHORT_VRS:
        (length,) = struct.unpack_from(order + "H", data, 6)
        return length, at + 8
    if vr not in _LONG_VRS:
        raise DicomProblem(f"{tag_text(tag)} has no value representation of PS3.5")
    if at + 12 > end or len(data) < 12:
        raise DicomProblem("it ends inside an element")
    (length,) = struct.unpack_from(order + "I", data, 8)
    return length, at + 12


def as_written(window: Window, at: int, encoding: Encoding) -> Encoding:
    """Return how a data set is really written: some say explicit VR and have none, and readers take them."""
    vr = window.peek(at, 6)[4:].decode("latin-1")
    explicit = not vr or vr in _SHORT_VRS or vr in _LONG_VRS
    return encoding if explicit or not encoding.little else IMPLICIT_LITTLE


def items_encoding(window: Window, element: Element, encoding: Encoding) -> Encoding | None:
    """Return how the items of a sequence are written; `FRAGMENTS` for fragments; None when it is no sequence.

    An element of unknown VR may be a sequence, then written in implicit VR little endian (PS3.5 section 6.2.2).
    """
    if element.length == UNDEFINED:
        return _undefined(element, encoding)
    if element.length == 0:
        return None
    if element.vr == "SQ":
        return encoding
    if element.vr != "UN":
        return None
    inner = IMPLICIT_LITTLE if encoding.explicit else encoding
    return inner if _begins_with_item(window, element, inner) else None


def _undefined(element: Element, encoding: Encoding) -> Encoding:
    if element.tag == _PIXEL_DATA or (encoding.explicit and element.vr in ("OB", "OW")):
        return FRAGMENTS
    if element.vr == "UN" and encoding.explicit:
        return IMPLICIT_LITTLE
    if element.vr == "SQ" or not encoding.explicit:
        return encoding
    raise DicomProblem(f"{tag_text(element.tag)} has no length")


def _begins_with_item(window: Window, element: Element, encoding: Encoding) -> bool:
    data = window.peek(element.value_at, 8)
    if element.length < 8 or len(data) < 8:
        return False
    group, number = struct.unpack_from(encoding.order + "HH", data)
    return bool(group << 16 | number == ITEM)


def encode_header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Return the header of an element or item.

    Raises:
        DicomProblem: the length does not fit into it.
    """
    order = encoding.order
    start = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    short = encoding.explicit and tag not in _DELIMITERS and vr not in _LONG_VRS
    if length > (_SHORT_LIMIT if short else _LONG_LIMIT):
        raise DicomProblem(f"{tag_text(tag)} would become too long")
    if tag in _DELIMITERS or not encoding.explicit:
        return start + struct.pack(order + "I", length)
    if vr in _LONG_VRS:
        return start + vr.encode() + b"\0\0" + struct.pack(order + "I", length)
    return start + vr.encode() + struct.pack(order + "H", length)


def encode_element(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    """Return an element; its value is of even length already."""
    return encode_header(tag, vr, len(value), encoding) + value


def tag_text(tag: int) -> str:
    """Return a tag as PS3.6 writes it, with its keyword where it has one."""
    text = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    keyword = keyword_of(tag)
    return f"{keyword} {text}" if keyword else text


@lru_cache(maxsize=16384)
def dictionary_vr(tag: int) -> str:
    """Return the VR of a tag (PS3.6), the first where there is a choice, ``UN`` where it is not known."""
    from pydicom.datadict import dictionary_VR  # it takes long to import

    if tag & 0xFFFF == 0:
        return "UL"  # group length
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"  # private creators (PS3.5 section 7.8.1)
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    return "OW" if vr == "OB or OW" else vr[:2]
