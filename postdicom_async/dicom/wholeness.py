"""Whether a file is whole, judged by the lengths it declares; no value is read (PS3.5 sections 7 and A.4, PS3.10).

A verdict of "cut off" keeps a file from being sent, so it is given only where the file itself says that more must
come: an element, item or fragment longer than what is left, a sequence or fragments without their delimiter, a
deflated stream without its end. Whatever is not understood, or would take too long, counts as whole. So does a file
that ends exactly between two elements of its data set, or up to three bytes after: such an end says nothing.

The walk is made for every file that is sent. The usual step, over an element of known length, is a tight loop over
bytes that were read anyway; everything else is rare.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from postdicom_async.dicom import tags
from postdicom_async.dicom.elements import Read
from postdicom_async.dicom.tags import ITEM, ITEM_END, PIXEL_DATA, SEQUENCE_END, TAG, UNDEFINED, dictionary_vr, tag_text

_TRANSFER_SYNTAX = TAG["TransferSyntaxUID"]
_META_AT = 132

_DELIMITER_GROUP = 0xFFFE

_SHORT_VRS, _LONG_VRS = tags.SHORT_VR_BYTES, tags.LONG_VR_BYTES
_FRAGMENT_VRS = frozenset(vr for vr in _LONG_VRS if vr.startswith(b"O"))
_VRS = _SHORT_VRS | _LONG_VRS

_PIECE = 4096  # bytes read after a jump; usually only a header is needed there
_DEFLATED_PIECE = 64 * 1024
_MOST_STEPS = 200_000  # some tenths of a second
_MOST_READ = 32 << 20
_MOST_INFLATED = 64 << 20


class Doubt(Exception):
    """Whether a file is whole cannot be determined, or not soon enough; ``read`` may raise it too."""


class _CutOff(Exception):
    """What is missing, in words."""


class _Form(NamedTuple):
    """How elements are written, with what reads them: explicit headers, implicit ones and items, 32-bit lengths."""

    explicit: bool
    long: struct.Struct
    header: struct.Struct
    plain: struct.Struct


def _form(order: str, *, explicit: bool) -> _Form:
    return _Form(explicit, struct.Struct(order + "I"), struct.Struct(order + "HH2sH"), struct.Struct(order + "HHI"))


_LITTLE = _form("<", explicit=True)
_BIG = _form(">", explicit=True)
_IMPLICIT = _form("<", explicit=False)


def what_is_missing(beginning: bytes, size: int, read: Read) -> str | None:
    """Return what a file of ``size`` bytes lacks, as "cut off: …"; None when it is whole or that cannot be told.

    Args:
        beginning: its first bytes, as many as are at hand.
        size: how many there are in all.
        read: gives bytes beyond the beginning. It is called for headers alone, and for a deflated data set.
    """
    walk = _Walk(beginning, size, read)
    try:
        walk.file()
    except _CutOff as cut:
        return f"cut off: {cut}"
    except (Doubt, zlib.error):
        pass
    return None


class _Walk:
    """One walk over one file.

    It holds the current piece, the enclosing sequences and items, and how many steps and bytes are left: a file crafted
    to be slow counts as whole, because it must not hold up an upload.
    """

    def __init__(self, beginning: bytes, size: int, read: Read) -> None:
        self._data, self._start = beginning[:size], 0
        self._size = size
        self._read = read
        self._steps_left = _MOST_STEPS
        self._bytes_left = _MOST_READ
        self._form = _LITTLE
        # The open sequences and items of undefined length, each with the encoding around it.
        self._inside: list[tuple[int, _Form]] = []
        self._last = 0  # tag of the last top-level element

    def file(self) -> None:
        """Walk the file meta information, then the data set in the transfer syntax it names."""
        if self._data[128:_META_AT] != b"DICM":
            raise Doubt
        at, syntax = self._meta()
        if syntax == tags.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            self._deflated(at)
            return
        vr = self._peek(at, 6)[4:]
        # Some files declare explicit VR but are implicit, or vice versa, and readers accept them.
        self._form = _BIG if syntax == tags.EXPLICIT_VR_BIG_ENDIAN else _LITTLE if vr in _VRS else _IMPLICIT
        self._data_set(at)

    def _meta(self) -> tuple[int, str]:
        """Return where the data set begins and its transfer syntax; the group length may lie, as in `read_header`."""
        at, syntax = _META_AT, ""
        while True:
            head = self._peek(at, 12)
            if len(head) < 8:
                raise _CutOff("it ends inside its file meta information")
            if head[:2] != b"\x02\x00":
                break
            tag, _, length, value_at = self._explicit(at, head)
            if length == UNDEFINED:
                raise Doubt
            self._require(value_at, length, tag)
            if tag == _TRANSFER_SYNTAX:
                syntax = self._peek(value_at, min(length, 64)).rstrip(b"\0 ").decode("latin-1")
            at = value_at + length
        if not syntax:
            raise Doubt
        return at, syntax

    # --- reading -------------------------------------------------------------------------------------------------

    def _hold(self, at: int, count: int) -> int:
        """Hold ``count`` bytes from ``at``, fewer only at the end of the file; return their offset in the piece."""
        offset = at - self._start
        held = len(self._data)
        if offset >= 0 and (offset + count <= held or self._start + held >= self._size > at):
            return offset
        wanted = max(0, min(max(count, _PIECE), self._size - at))
        self._bytes_left -= wanted
        if self._bytes_left < 0:
            raise Doubt
        self._data, self._start = self._read(at, wanted) if wanted else b"", at
        if len(self._data) < wanted:  # the file has become shorter; reading it for the upload will notice
            raise Doubt
        return 0

    def _peek(self, at: int, count: int) -> bytes:
        offset = self._hold(at, count)
        return self._data[offset : offset + count]

    def _count(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise Doubt

    # --- a data set ----------------------------------------------------------------------------------------------

    def _data_set(self, at: int) -> None:
        while True:
            at = self._plain(at)
            head = self._peek(at, 12)
            if len(head) < 8:
                self._rest(head)
                return
            self._count(1)
            group, number, length = self._form.plain.unpack_from(head)
            if group == 0:  # used in messages, never in files (PS3.7 section 6.3): zeros as padding
                raise Doubt
            tag = group << 16 | number
            at = self._delimiter(at, tag, length) if group == _DELIMITER_GROUP else self._element(at, tag, head)

    def _plain(self, at: int) -> int:
        """Step over elements of known length as far as the held bytes go; return where something else comes."""
        offset = self._hold(at, 12)
        data, limit = self._data, self._size - self._start
        step = _explicit_steps if self._form.explicit else _implicit_steps
        offset, tag, steps = step(data, offset, limit, self._form)
        self._count(steps)
        if steps and not self._inside:
            self._last = tag
        return self._start + offset

    def _element(self, at: int, tag: int, head: bytes) -> int:
        """Step over, or into, an element that is not plain; return where the next header is."""
        inside = bool(self._inside)
        if self._form.explicit:
            _, vr, length, value_at = self._explicit(at, head)
        else:
            vr, value_at = b"", at + 8
            (length,) = self._form.long.unpack_from(head, 4)
            # An explicit header read as an implicit one: its VR would be part of an absurd length.
            if length != UNDEFINED and value_at + length > self._size and head[4:6] in _VRS:
                raise Doubt
        if length != UNDEFINED:
            if value_at + length > self._size and not self._is_credible(tag):
                raise Doubt
            self._require(value_at, length, tag)
            value_at += length
        elif tag in PIXEL_DATA or vr in _FRAGMENT_VRS:
            value_at = self._fragments(value_at, tag)
        else:
            self._enter_sequence(value_at, vr)
        if not inside:
            self._last = tag
        return value_at

    def _explicit(self, at: int, head: bytes) -> tuple[int, bytes, int, int]:
        """Return tag, VR, length and where the value begins of an element in explicit VR."""
        group, number, vr, length = self._form.header.unpack_from(head)
        tag = group << 16 | number
        if vr in _SHORT_VRS:
            return tag, vr, length, at + 8
        if vr not in _LONG_VRS or length:  # reserved bytes, which must be zero
            raise Doubt
        if len(head) < 12:
            raise _CutOff(f"it ends inside the header of {tag_text(tag)}")
        return tag, vr, self._form.long.unpack_from(head, 8)[0], at + 12

    def _is_credible(self, tag: int) -> bool:
        """Return whether an element that does not fit is genuine, not padding or an effect of a wrong length."""
        in_order = bool(self._inside) or tag > self._last
        same_private_group = bool(tag >> 16 & 1) and tag >> 16 == self._last >> 16
        return in_order and (dictionary_vr(tag) != "UN" or same_private_group)

    def _require(self, value_at: int, length: int, tag: int) -> None:
        there = self._size - value_at
        if length > there:
            what = "its pixel data need" if tag in PIXEL_DATA else f"{tag_text(tag)} needs"
            raise _CutOff(f"{what} {length} bytes, {there} are there")

    def _rest(self, rest: bytes) -> None:
        """Judge bytes too few for a header: padding, or the beginning of an element."""
        if self._inside:
            raise _CutOff("a sequence has no end")
        if len(rest) < 4:
            return
        group, number = struct.unpack_from("<HH" if self._form is not _BIG else ">HH", rest)
        if self._is_credible(group << 16 | number):
            raise _CutOff("it ends inside the header of an element")

    # --- undefined lengths ---------------------------------------------------------------------------------------

    def _enter_sequence(self, at: int, vr: bytes) -> None:
        if self._form.explicit and vr not in (b"SQ", b"UN"):
            raise Doubt
        # Of unknown VR, it is written in implicit VR little endian (PS3.5 section 6.2.2).
        inner = _IMPLICIT if vr == b"UN" else self._form
        head = self._peek(at, 8)
        if len(head) == 8:
            group, number, _ = inner.plain.unpack_from(head)
            if group << 16 | number not in (ITEM, SEQUENCE_END):
                raise Doubt
        self._inside.append((SEQUENCE_END, self._form))
        self._form = inner

    def _delimiter(self, at: int, tag: int, length: int) -> int:
        """Step over an item, into it or out of it, or out of a sequence."""
        end, outer = self._inside[-1] if self._inside else (0, self._form)
        if tag == ITEM and end == SEQUENCE_END:
            if length == UNDEFINED:
                # Explicit VR after all, as UN was read before CP-246: a walk in implicit VR would go astray.
                if self._form is _IMPLICIT and self._peek(at + 12, 2) in _VRS:
                    raise Doubt
                self._inside.append((ITEM_END, self._form))
                return at + 8
            there = self._size - at - 8
            if length > there:
                raise _CutOff(f"an item of a sequence needs {length} bytes, {there} are there")
            return at + 8 + length
        if tag != end or length:
            raise Doubt
        self._inside.pop()
        self._form = outer
        return at + 8

    def _fragments(self, at: int, of: int) -> int:
        """Step from fragment to fragment to their delimiter; the first is the offset table (PS3.5 section A.4)."""
        whose = "its pixel data" if of in PIXEL_DATA else tag_text(of)
        number = 0
        while True:
            self._count(1)
            head = self._peek(at, 8)
            if len(head) < 8:
                raise _CutOff(f"{whose} have no end")
            group, element, length = self._form.plain.unpack_from(head)
            tag = group << 16 | element
            if tag == SEQUENCE_END:
                return at + 8
            if tag != ITEM or length == UNDEFINED:
                raise Doubt
            there = self._size - at - 8
            if length > there:
                part = f"fragment {number}" if number else "the offset table"
                raise _CutOff(f"{part} of {whose} needs {length} bytes, {there} are there")
            at += 8 + length
            number += 1

    def _deflated(self, at: int) -> None:
        """Inflate to the end of the stream, keeping nothing."""
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        packed, made = b"", 0
        while not inflater.eof:
            if not packed:
                packed = self._peek(at, _DEFLATED_PIECE)
                at += len(packed)
            at_end = not packed
            new = len(inflater.decompress(packed, _DEFLATED_PIECE))  # it may have more output without further input
            packed, made = inflater.unconsumed_tail, made + new
            if at_end and not new and not inflater.eof:
                raise _CutOff("its deflated data set has no end")
            if made > _MOST_INFLATED:
                raise Doubt


def _explicit_steps(data: bytes, offset: int, limit: int, form: _Form) -> tuple[int, int, int]:
    """Return where the first element that is not plain begins, the tag before it, and how many were stepped over."""
    header, long = form.header.unpack_from, form.long.unpack_from
    group = number = steps = 0
    end = len(data) - 12
    while offset <= end:
        here, element, vr, length = header(data, offset)
        if vr in _SHORT_VRS:
            after = offset + 8 + length
        elif vr in _LONG_VRS and not length:
            (length,) = long(data, offset + 8)
            after = offset + 12 + length
        else:
            break
        if after > limit or length == UNDEFINED:
            break
        offset, group, number = after, here, element
        steps += 1
    return offset, group << 16 | number, steps


def _implicit_steps(data: bytes, offset: int, limit: int, form: _Form) -> tuple[int, int, int]:
    """Do the same for implicit VR."""
    plain = form.plain.unpack_from
    group = number = steps = 0
    end = len(data) - 8
    while offset <= end:
        here, element, length = plain(data, offset)
        after = offset + 8 + length
        if after > limit or length == UNDEFINED or here in (0, _DELIMITER_GROUP):
            break
        offset, group, number = after, here, element
        steps += 1
    return offset, group << 16 | number, steps
