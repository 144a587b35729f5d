"""What an instance is, from its first bytes: four UIDs by a bounded walk over the tags (PS3.5 section 7, PS3.10).

The walk takes tens of microseconds where a full parser takes a millisecond, and it never allocates the size that a
length field claims. Anything it does not understand is left to pydicom, on the same bounded bytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from enum import Enum, auto
from io import BytesIO

from postdicom_async.dicom import tags
from postdicom_async.dicom.silence import in_silence
from postdicom_async.dicom.tags import ITEM, ITEM_END, SEQUENCE_END, TAG, UNDEFINED
from postdicom_async.errors import UsageError
from postdicom_async.results import InstanceUids

HEADER_LIMIT = 1 << 20
"""No header is looked for beyond this many bytes."""

_TRANSFER_SYNTAX = TAG["TransferSyntaxUID"]
_SOP_CLASS = TAG["SOPClassUID"]
_INSTANCE_UIDS = (TAG["StudyInstanceUID"], TAG["SeriesInstanceUID"], TAG["SOPInstanceUID"])
_WANTED = frozenset({_TRANSFER_SYNTAX, _SOP_CLASS, *_INSTANCE_UIDS})

_BEFORE_PIXELS = 0x7FDFFFFF
_LONGEST_VALUE = 4096  # bytes of a wanted element; a longer value is truncated

_PLAIN = struct.Struct("<HH2sH")

_SHORT_VRS, _LONG_VRS = tags.SHORT_VR_BYTES, tags.LONG_VR_BYTES


# --- UIDs -------------------------------------------------------------------------------------------------------------

# They become parts of URLs and of file names, so nothing else may pass.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_LONGEST_UID = 64


def is_uid(value: object) -> bool:
    """Return whether a value is a UID: digits and single dots, at most 64 characters.

    Leading zeros of a component are accepted: they are wrong but occur in practice, and are harmless here.
    """
    return isinstance(value, str) and len(value) <= _LONGEST_UID and _UID.fullmatch(value) is not None


def checked_uid(value: object, argument: str) -> str:
    """Return the UID without surrounding white space.

    Raises:
        UsageError: it is not a UID; the message names ``argument``.
    """
    text = value.strip() if isinstance(value, str) else value
    if not is_uid(text):
        raise UsageError("not a DICOM UID (digits and dots, at most 64 characters)", argument=argument)
    return str(text)


# --- what is found ----------------------------------------------------------------------------------------------------


class HeaderGap(Enum):
    """Why there is no header."""

    INCOMPLETE = auto()
    """More bytes may show it."""
    NOT_DICOM = auto()
    """No ``DICM`` after the preamble (PS3.10 section 7.1)."""
    UNCLEAR = auto()
    """DICOM, but which instance it is cannot be told."""


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """The identity of an instance, from its header. All UIDs are valid; class and transfer syntax may be empty."""

    uids: InstanceUids
    sop_class_uid: str
    transfer_syntax_uid: str


def read_header(data: bytes, *, complete: bool) -> InstanceHeader | HeaderGap:
    """Return the header in ``data``, the first bytes of a file; ``complete`` says that there are no more.

    Everything after `HEADER_LIMIT` is ignored.
    """
    data = data[:HEADER_LIMIT]
    complete = complete or len(data) == HEADER_LIMIT
    if len(data) < 132 and not complete:
        return HeaderGap.INCOMPLETE
    if data[128:132] != b"DICM":
        return HeaderGap.NOT_DICOM
    values: dict[int, bytes] = {}
    try:
        _walk_file(data, values, _WANTED)
        found = _header_of(values)
    except (_Short, _Unclear):
        found = None
    if found is None and not complete:
        return HeaderGap.INCOMPLETE  # nothing is guessed from an incomplete beginning
    return found or _header_of(_with_pydicom(data, _WANTED)) or HeaderGap.UNCLEAR


def read_values(data: bytes, wanted: frozenset[int]) -> tuple[dict[int, bytes], bool]:
    """Return the values of elements as they stand in ``data``, and whether more bytes may show more of them.

    For what `read_header` reads; everything after `HEADER_LIMIT` is ignored. Elements of the data set must come in
    the order of their tags, as they have to.
    """
    data = data[:HEADER_LIMIT]
    found: dict[int, bytes] = {}
    try:
        _walk_file(data, found, wanted | {_TRANSFER_SYNTAX})
    except _Short:
        return found, True
    except _Unclear:
        return found | _with_pydicom(data, wanted), False
    return found, False


def data_set_start(data: bytes) -> tuple[str, int] | None:
    """Return the transfer syntax and where the data set begins, None where the file meta information does not say.

    ``data`` are the first bytes of a file; more of them may show it.
    """
    found: dict[int, bytes] = {}
    try:
        start = _walk_meta(data[:HEADER_LIMIT], found, frozenset({_TRANSFER_SYNTAX}))
    except (_Short, _Unclear):
        return None
    return _text(found[_TRANSFER_SYNTAX]), start


def pixels_start(data: bytes) -> int | None:
    """Return where the first element from group 7FE0 on begins, pixels as a rule; None where ``data`` do not show it.

    ``data`` are the first bytes of a file.
    """
    found: dict[int, bytes] = {}
    try:
        start = _walk_meta(data, found, frozenset({_TRANSFER_SYNTAX}))
        syntax = _text(found[_TRANSFER_SYNTAX])
        if syntax == tags.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            return None
        little, explicit = syntax != tags.EXPLICIT_VR_BIG_ENDIAN, syntax != tags.IMPLICIT_VR_LITTLE_ENDIAN
        return _walk(data, start, {}, frozenset(), little=little, explicit=explicit, last=_BEFORE_PIXELS)
    except (_Short, _Unclear):
        return None


class _Short(Exception):
    """The bytes end inside the header."""


class _Unclear(Exception):
    """The walk does not understand the bytes."""


def _header_of(found: dict[int, bytes]) -> InstanceHeader | None:
    texts = {tag: _text(value) for tag, value in found.items()}
    uids = InstanceUids(*(texts.get(tag, "") for tag in _INSTANCE_UIDS))
    if not all(is_uid(uid) for uid in uids):
        return None
    return InstanceHeader(uids, texts.get(_SOP_CLASS, ""), texts.get(_TRANSFER_SYNTAX, ""))


def _walk_file(data: bytes, found: dict[int, bytes], wanted: frozenset[int]) -> None:
    """Walk the file meta information, then the data set in the transfer syntax it names; fill ``found``."""
    start = _walk_meta(data, found, wanted)
    syntax = _text(found[_TRANSFER_SYNTAX])
    if syntax == tags.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        data, start = _inflated(data[start:]), 0
    _walk(
        data,
        start,
        found,
        wanted,
        little=syntax != tags.EXPLICIT_VR_BIG_ENDIAN,
        explicit=syntax != tags.IMPLICIT_VR_LITTLE_ENDIAN,
        last=max(wanted),
    )


def _walk_meta(data: bytes, found: dict[int, bytes], wanted: frozenset[int]) -> int:
    """Walk the file meta information; return where the data set begins."""
    # The group length (0002,0000) may be wrong, so the group ends where another group begins.
    start = _walk(data, 132, found, wanted, little=True, explicit=True, last=0x0002FFFF)
    if data[128:132] != b"DICM" or _TRANSFER_SYNTAX not in found:
        raise _Unclear
    return start


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, HEADER_LIMIT)
    except zlib.error:
        raise _Unclear from None


def _walk(
    data: bytes, at: int, found: dict[int, bytes], wanted: frozenset[int], *, little: bool, explicit: bool, last: int
) -> int:
    """Step from element to element until one lies beyond ``last``; return where it begins.

    Sequences of undefined length are walked through by counting their delimiters, without recursion.
    """
    short = struct.Struct("<HH" if little else ">HH")
    depth = 0
    end = len(data)
    while True:
        if little and explicit and not depth:
            at = _behind_plain(data, at, wanted, last)
        if at + 8 > end:
            raise _Short
        group, element = short.unpack_from(data, at)
        tag = group << 16 | element
        if depth == 0 and tag > last:
            return at
        length, value_at, may_nest = _length(data, at, tag, little=little, explicit=explicit)
        if nesting := _nesting(tag, length, may_nest=may_nest):
            depth += nesting
            at = value_at
            continue
        if depth == 0 and tag in wanted:
            if value_at + length > end:
                raise _Short
            found[tag] = data[value_at : value_at + min(length, _LONGEST_VALUE)]
        at = value_at + length
        if depth == 0 and tag == last:
            return at


def _behind_plain(data: bytes, at: int, wanted: frozenset[int], last: int) -> int:
    """Skip quickly over most of a header: unwanted elements with a 16-bit length."""
    unpack, end = _PLAIN.unpack_from, len(data) - 8
    while at <= end:
        group, element, vr, length = unpack(data, at)
        tag = group << 16 | element
        if tag >= last or vr not in _SHORT_VRS or tag in wanted:
            break
        at += 8 + length
    return at


def _nesting(tag: int, length: int, *, may_nest: bool) -> int:
    """Return +1 where a sequence or item of undefined length begins, -1 where one ends, else 0."""
    if tag in (ITEM_END, SEQUENCE_END):
        return -1
    if length != UNDEFINED:
        return 0
    if not may_nest:
        raise _Unclear
    return 1


def _length(data: bytes, at: int, tag: int, *, little: bool, explicit: bool) -> tuple[int, int, bool]:
    """Return an element's length, where its value begins, and whether it may be a sequence."""
    order = "<" if little else ">"
    if not explicit or tag in (ITEM, ITEM_END, SEQUENCE_END):
        (length,) = struct.unpack_from(order + "I", data, at + 4)
        return length, at + 8, True
    vr = data[at + 4 : at + 6]
    if not (vr.isalpha() and vr.isupper()):
        raise _Unclear
    if vr in _LONG_VRS:
        if at + 12 > len(data):
            raise _Short
        (length,) = struct.unpack_from(order + "I", data, at + 8)
        return length, at + 12, vr == b"SQ"
    (length,) = struct.unpack_from(order + "H", data, at + 6)
    return length, at + 8, False


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("latin-1").strip()


class NotingBytes(BytesIO):
    """Bytes that note when a read hit their end: pydicom takes a truncated value for a whole one."""

    ran_short: bool = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and note whether there was less than was asked for."""
        data = super().read(size)
        self.ran_short |= size is not None and 0 < len(data) < size
        return data


def _with_pydicom(data: bytes, wanted: frozenset[int]) -> dict[int, bytes]:
    """Read the same bytes with pydicom; if it fails, nothing is found."""
    import pydicom  # slow to import, and seldom needed here

    if tags.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode() in data:
        return {}  # pydicom would inflate it without a bound
    source = NotingBytes(data)
    found: dict[int, bytes] = {}
    try:
        with in_silence():
            dataset = pydicom.dcmread(
                source, stop_before_pixels=True, force=True, specific_tags=[*wanted - {_TRANSFER_SYNTAX}]
            )
            values = {tag: dataset.get_item(tag).value for tag in wanted if tag in dataset}
            found = {tag: value[:_LONGEST_VALUE] for tag, value in values.items() if isinstance(value, bytes)}
            syntax = dataset.file_meta.get(_TRANSFER_SYNTAX, "") and dataset.file_meta.TransferSyntaxUID
            found[_TRANSFER_SYNTAX] = str(syntax).encode()
    except Exception:  # noqa: BLE001 - a parser on foreign bytes may raise anything
        return {}
    return {} if source.ran_short else found
