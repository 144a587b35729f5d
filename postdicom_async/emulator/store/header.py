"""Read the header of a stored file: raw elements by pydicom, values decoded here.

pydicom validates a value when it is first touched and warns about odd ones. An archive must not care: it keeps
what it was given. So elements stay raw, and this module turns their bytes into the DICOM JSON model
(PS3.18 annex F) itself, without warnings and much faster. Only the walk over the file is pydicom's.
"""

from __future__ import annotations

import base64
import io
import math
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

from pydicom import dcmread
from pydicom.charset import decode_bytes, python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.values import convert_SQ

from postdicom_async.emulator.store.attributes import hex_tag, vr_of
from postdicom_async.emulator.store.files import IsDeflated, SizedFile, TooLarge, UnreadableHeader, inflate

T = TypeVar("T")
_Element: TypeAlias = DataElement | RawDataElement

Json: TypeAlias = dict[str, Any]
"""A data set in the DICOM JSON model: eight hexadecimal digits to ``{"vr": ..., "Value": [...]}``."""

BULK_LIMIT = 1024
"""Binary values above this many bytes are handed out as a ``BulkDataURI``."""

UNDEFINED_LENGTH = 0xFFFFFFFF
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"

_DEFERRED_ABOVE = 64 * 1024  # longer values stay in the file, and are handed out from there
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXT_BY_CHARSET = frozenset({"SH", "LO", "ST", "LT", "PN", "UC", "UT"})
_SINGLE_TEXT = frozenset({"ST", "LT", "UT", "UR"})
_NUMBER_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_DELIMITERS = {ord("\\"), ord("^"), ord("="), 0x0A, 0x0C, 0x0D, 0x09}
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_warnings_lock = threading.Lock()


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data are in the file; ``length`` is None for encapsulated data."""

    tag: int
    vr: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class Header:
    """The elements in front of the pixel data, raw, and what is needed to read them."""

    dataset: Dataset
    transfer_syntax: str
    pixels: PixelElement | None

    def json(self, bulk_uri: Callable[[str], str] | None = None) -> Json:
        """Return the elements as the DICOM JSON model; see `dataset_json`."""
        return dataset_json(self.dataset, bulk_uri=bulk_uri)

    def text(self, tag: int) -> str:
        """Return one value as plain text, empty when absent."""
        element = self.dataset.get_item(tag, keep_deferred=True)
        return "" if element is None else _raw_text(element.value)

    def number(self, tag: int, default: int = 0) -> int:
        """Return one unsigned short or integer string, ``default`` when absent or odd."""
        value = self.json_of(tag).get("Value", [default])[0]
        return value if isinstance(value, int) else default

    def json_of(self, tag: int) -> Json:
        """Return one element in the DICOM JSON model, empty when absent."""
        element = self.dataset.get_item(tag, keep_deferred=True)
        return {} if element is None else _element_json(element, _encodings(self.dataset, ()), None, "")


def read_header(path: Path, tags: Sequence[int] | None = None) -> Header:
    """Read a file up to its pixel data, only ``tags`` when given.

    Raises:
        UnreadableHeader: the file is not DICOM, or breaks off inside the header; `TooLarge` when it unpacks to more
            than is read at all.
    """
    try:
        with SizedFile(io.FileIO(path)) as file:
            return _read(file, list(tags) if tags is not None else None)
    except (OSError, TooLarge):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file makes pydicom raise almost anything
        raise UnreadableHeader(f"not a readable DICOM file ({type(error).__name__})") from None


def _read(file: BinaryIO, tags: list[int] | None) -> Header:
    def whole() -> Header:
        file.seek(0)
        dataset = dcmread(file, defer_size=_DEFERRED_ABOVE, stop_before_pixels=True, specific_tags=tags)
        element = dataset.file_meta.get_item(0x00020010)
        syntax = _raw_text(element.value) if element is not None else IMPLICIT
        return Header(dataset, syntax, _pixel_element(file, syntax))

    try:
        return quietly(whole)
    except IsDeflated as deflated:
        unpacked = io.BytesIO(inflate(file, deflated.start))

    def stop(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tags is not None and tag in _PIXEL_TAGS

    return Header(
        quietly(lambda: read_dataset(unpacked, False, True, stop_when=stop, specific_tags=tags)), DEFLATED, None
    )


def quietly(read: Callable[[], T]) -> T:
    """Read; where warnings are errors and pydicom has one to give, read again with them switched off.

    ``catch_warnings`` changes the whole process for a moment, so it is kept for the case that needs it.
    """
    try:
        return read()
    except Warning:
        pass
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read()


def _pixel_element(file: BinaryIO, syntax: str) -> PixelElement | None:
    """Read the element header at which ``stop_before_pixels`` leaves the file; None at its end."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    start = file.tell()
    raw = file.read(12)
    if len(raw) < 8:
        return None
    group, element = struct.unpack(f"{order}HH", raw[:4])
    tag = group << 16 | element
    if tag not in _PIXEL_TAGS:
        return None
    explicit = raw[4:6].isalpha() and len(raw) == 12
    vr = raw[4:6].decode("ascii") if explicit else vr_of(hex_tag(tag))[-2:]
    (length,) = struct.unpack(f"{order}I", raw[8:12] if explicit else raw[4:8])
    offset = start + (12 if explicit else 8)
    return PixelElement(tag, vr, offset, None if length == UNDEFINED_LENGTH else length)


def dataset_json(
    dataset: Dataset,
    *,
    bulk_uri: Callable[[str], str] | None = None,
    parent_encodings: Sequence[str] = (),
    prefix: str = "",
) -> Json:
    """Return a raw data set as the DICOM JSON model, text decoded by its Specific Character Set.

    Args:
        dataset: as `read_header` gives it, or an item of one of its sequences.
        bulk_uri: makes the ``BulkDataURI`` for the path of an element (tags and item numbers joined by ``/``).
            Without it large values are left out.
        parent_encodings: what an item without a character set of its own inherits.
        prefix: the path of the sequence item this data set is.
    """
    encodings = _encodings(dataset, parent_encodings)
    elements = (dataset.get_item(tag, keep_deferred=True) for tag in sorted(dataset.keys()))
    return {
        hex_tag(element.tag): _element_json(element, encodings, bulk_uri, prefix)
        for element in elements
        if element is not None and element.tag & 0xFFFF  # group lengths say nothing here
    }


def raw_element(dataset: Dataset, tag: int) -> RawDataElement | None:
    """Return an element as it stands in the file, None when absent or already decoded."""
    element: _Element | None = dataset.get_item(tag, keep_deferred=True)
    return element if isinstance(element, RawDataElement) else None


def _encodings(dataset: Dataset, inherited: Sequence[str]) -> Sequence[str]:
    element = dataset.get_item(0x00080005, keep_deferred=True)
    terms = [] if element is None else [term.strip() for term in _raw_text(element.value).split("\\")]
    if not any(terms):
        return inherited or ("iso8859",)
    return [python_encoding.get(term, "utf-8") for term in terms]


def _element_json(element: _Element, encodings: Sequence[str], uri: Callable[[str], str] | None, prefix: str) -> Json:
    path, vr, raw = f"{prefix}{hex_tag(element.tag)}", _plain_vr(element), element.value
    is_deferred = isinstance(element, RawDataElement) and raw is None and element.length != 0
    if not raw and not is_deferred:
        return {"vr": vr}
    if vr == "SQ":
        values = [
            dataset_json(item, bulk_uri=uri, parent_encodings=encodings, prefix=f"{path}/{number}/")
            for number, item in enumerate(_items(element, encodings), 1)
        ]
        return {"vr": vr, "Value": values} if values else {"vr": vr}
    value = raw if isinstance(raw, bytes) else _raw_text(raw).encode()
    if is_deferred or (vr in BINARY and len(value) > BULK_LIMIT):
        return {"vr": vr, "BulkDataURI": uri(path)} if uri else {"vr": vr}
    if vr in BINARY:
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode("ascii")}
    little = not isinstance(element, RawDataElement) or element.is_little_endian
    values = _values(vr, value, "<" if little else ">", encodings)
    return {"vr": vr, "Value": values} if any(value is not None for value in values) else {"vr": vr}


def _plain_vr(element: _Element) -> str:
    """Return one of the standard's VRs: from the file, else from the dictionary; the ambiguous ones decided."""
    vr = element.VR
    if vr is None or vr == "UN":
        vr = "LO" if element.tag.is_private_creator else vr_of(hex_tag(element.tag))
    return {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "US"}.get(vr, vr[:2])


def _items(element: _Element, encodings: Sequence[str]) -> Sequence[Dataset]:
    if not isinstance(element, RawDataElement) or element.value is None:
        return list(element.value or ())
    return list(
        convert_SQ(element.value, element.is_implicit_VR, element.is_little_endian, list(encodings), element.value_tell)
    )


def _values(vr: str, value: bytes, order: str, encodings: Sequence[str]) -> list[Any]:
    if vr in _NUMBER_FORMATS:
        code = _NUMBER_FORMATS[vr]
        count = len(value) // struct.calcsize(f"={code}")
        numbers = struct.unpack_from(f"{order}{count}{code}", value)
        return [number if math.isfinite(number) else str(number) for number in numbers]
    if vr == "AT":
        pairs = struct.iter_unpack(f"{order}HH", value[: len(value) // 4 * 4])
        return [f"{group:04X}{element:04X}" for group, element in pairs]
    text = _decode(value, encodings) if vr in _TEXT_BY_CHARSET else _raw_text(value)
    if vr in _SINGLE_TEXT:
        return [text.rstrip(" \0")]
    return [_typed(vr, part.strip(" \0")) for part in text.split("\\")]


def _typed(vr: str, text: str) -> Any:
    """Return a value in its type; a malformed number stays text, as PS3.18 F.2.3 allows."""
    if not text:
        return None
    if vr == "PN":
        groups = zip(_NAME_GROUPS, text.split("="), strict=False)
        return {name: group.rstrip(" \0") for name, group in groups if group.strip(" \0^")} or None
    if vr not in {"IS", "DS"}:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _raw_text(value: object) -> str:
    """Return text that needs no character set; pydicom itself has already decoded a few elements it looks at."""
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \0")
    if isinstance(value, str) or not isinstance(value, Iterable):
        return str(value or "")
    return "\\".join(str(item) for item in value)


def _decode(value: bytes, encodings: Sequence[str]) -> str:
    """Decode text; ISO 2022 escapes are left to pydicom, bytes that do not decode become U+FFFD."""
    if b"\x1b" in value:
        try:
            return decode_bytes(value, list(encodings), _DELIMITERS)
        except (Warning, UnicodeError, LookupError):
            pass
    try:
        return value.decode(encodings[0], "replace")
    except LookupError:
        return value.decode("utf-8", "replace")
