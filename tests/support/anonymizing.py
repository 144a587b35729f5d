"""Anonymised files, and checks of their content by an independent reader: pydicom, never the engine under test."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import warnings
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pydicom
import pydicom.data
import pytest
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_sequence
from pydicom.sequence import Sequence

from postdicom_async import Anonymization, Status
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import HeaderGap, InstanceHeader, read_header
from postdicom_async.disk.anonymized import AnonymizedBody, anonymized_now
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.results import InstanceUids
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, uid

__all__ = [
    "DATA",
    "SHIPPED",
    "Leaf",
    "Writer",
    "after",
    "anonymize",
    "content_of",
    "dataset_bytes",
    "dcmdump",
    "leaves",
    "meta_end",
    "meta_leaves",
    "quiet",
    "read",
    "refusal",
    "result_of",
    "sent",
    "strictly_invalid",
    "usable",
]

DATA = Path(pydicom.data.__file__).parent
SHIPPED = sorted(path for path in DATA.rglob("*") if path.is_file() and path.parent.name != "__pycache__")

REQUIRE_DCMTK = "POSTDICOM_REQUIRE_DCMTK"
_REQUIRED = os.environ.get(REQUIRE_DCMTK) == "1"  # read before the tests remove it from the environment
_LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_ITEM = b"\xfe\xff\x00\xe0"
_NO_UIDS = InstanceHeader(InstanceUids("1", "1", "1"), "", "")

Rules: TypeAlias = Mapping[str, str | None]


# --- anonymising ------------------------------------------------------------------------------------------------------


def usable(data: bytes) -> Usable:
    """Return bytes as a source, without any check."""
    header = read_header(data, complete=True)
    return Usable("bytes", _NO_UIDS if isinstance(header, HeaderGap) else header, BytesBody(data))


def result_of(data: bytes, rules: Rules | Anonymization) -> Usable | Unusable:
    """Anonymise bytes, whatever they are."""
    return anonymized_now(usable(data), rules if isinstance(rules, Anonymization) else Anonymization(rules))


def sent(result: Usable | Unusable) -> bytes:
    """Return the bytes that would be sent for a result, and check its length and header."""
    assert isinstance(result, Usable), result
    assert isinstance(result.body, AnonymizedBody)
    data = b"".join(result.body.pieces())
    assert len(data) == result.body.length
    assert read_header(data, complete=True) == result.header
    return data


def anonymize(data: bytes, rules: Rules | Anonymization) -> bytes:
    """Anonymise bytes and return what would be sent."""
    return sent(result_of(data, rules))


def refusal(result: Usable | Unusable) -> str:
    """Return why something is not sent."""
    assert isinstance(result, Unusable), result
    return result.reason if result.status is Status.UNREADABLE else f"{result.status}: {result.reason}"


# --- an independent reading -------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """An element that holds no others, or a sequence with the number of its items.

    Attributes:
        path: the tags of the sequences it lies in, each with the number of the item, and its own tag.
    """

    path: tuple[int, ...]
    vr: str
    value: bytes

    @property
    def tag(self) -> int:
        return self.path[-1]

    @property
    def tags(self) -> tuple[int, ...]:
        """The tags of the sequences it lies in and its own."""
        return self.path[::2]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress pydicom's warnings about files that are odd on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(data: bytes) -> Dataset:
    with quiet():
        return pydicom.dcmread(BytesIO(data))


def _meta(data: bytes) -> tuple[list[RawDataElement | DataElement], int]:
    file = BytesIO(data)
    file.seek(132)
    elements = list(data_element_generator(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2))
    return elements, file.tell()


def meta_end(data: bytes) -> int:
    """Return where the file meta information ends."""
    return _meta(data)[1]


def meta_leaves(data: bytes) -> dict[int, bytes]:
    """Return the file meta information, raw."""
    return {int(element.tag): element.value or b"" for element in _meta(data)[0]}


def dataset_bytes(data: bytes) -> bytes:
    """Return the bytes after the file meta information, inflated."""
    elements, start = _meta(data)
    syntax = next((element.value or b"" for element in elements if element.tag == 0x00020010), b"")
    if syntax.rstrip(b"\0 ") == DEFLATED.encode():
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:])
    return data[start:]


def content_of(data: bytes) -> bytes:
    """Return all bytes of a file, inflated where they are not readable as they are."""
    return data + dataset_bytes(data)


def leaves(data: bytes) -> list[Leaf]:
    """Return the elements of a file's data set, in order, with the bytes of their values."""
    implicit, little = _encoding(read(data))
    with quiet():
        found = list(data_element_generator(BytesIO(dataset_bytes(data)), implicit, little))
        return [leaf for element in found for leaf in _leaves_of(element, (), little)]


def _encoding(dataset: Dataset) -> tuple[bool, bool]:
    """Return the actual encoding, which may differ from the declared transfer syntax."""
    for element in _raw(dataset):
        if isinstance(element, RawDataElement):
            return element.is_implicit_VR, element.is_little_endian
    implicit, little = dataset.original_encoding
    return bool(implicit), bool(little)


def _leaves_of(element: RawDataElement | DataElement, path: tuple[int, ...], little: bool) -> Iterator[Leaf]:
    tag = int(element.tag)
    vr = "SQ" if isinstance(element, DataElement) else str(element.VR or _vr_of(tag))
    items = _items(element, vr, little)
    if items is None:
        yield Leaf((*path, tag), vr, bytes(element.value or b""))
        return
    yield Leaf((*path, tag), vr, str(len(items)).encode())
    for number, item in enumerate(items):
        for inner in item:
            yield from _leaves_of(inner, (*path, tag, number), little)


def _items(element: RawDataElement | DataElement, vr: str, little: bool) -> list[list[Any]] | None:
    if isinstance(element, DataElement):  # of undefined length
        assert isinstance(element.value, Sequence)
        return [_raw(item) for item in element.value]
    value = element.value or b""
    if vr == "SQ":
        implicit = element.is_implicit_VR
    elif vr == "UN" and value.startswith(_ITEM):
        implicit = little = True
    else:
        return None
    return [_raw(item) for item in read_sequence(BytesIO(value), implicit, little, len(value), "iso8859")]


def _raw(item: Dataset) -> list[Any]:
    return [item.get_item(tag, keep_deferred=True) for tag in item.keys()]  # noqa: SIM118 - no raw values in values()


def _vr_of(tag: int) -> str:
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        return "UL" if tag & 0xFFFF == 0 else "UN"


def after(before: list[Leaf], rules: Mapping[int, bytes | None]) -> list[Leaf]:
    """Return what is left when elements are replaced (``b""`` empties them) or removed (None).

    Group lengths of groups in which something changes are not in it.
    """
    touched = {
        (leaf.path[: 2 * depth], tag >> 16)
        for leaf in before
        if (hit := _hit(leaf, rules)) is not None
        for depth, tag in enumerate(leaf.tags[: hit + 1])
    }
    left = []
    for leaf in before:
        if not leaf.tag & 0xFFFF and (leaf.path[:-1], leaf.tag >> 16) in touched:
            continue
        hit = _hit(leaf, rules)
        if hit is None:
            left.append(leaf)
        elif hit == len(leaf.tags) - 1 and (value := rules[leaf.tag]) is not None:
            left.append(leaf._replace(value=b"0" if leaf.vr == "SQ" else value))
    return left


def _hit(leaf: Leaf, rules: Mapping[int, bytes | None]) -> int | None:
    """Return how deep the outermost rule is that an element falls under."""
    return next((depth for depth, tag in enumerate(leaf.tags) if tag in rules), None)


# --- writing, with every form that PS3.5 allows -----------------------------------------------------------------------


class Writer:
    """Writes elements and files byte by byte, as no library would."""

    def __init__(self, syntax: str = EXPLICIT) -> None:
        self.syntax = syntax
        self.explicit = syntax != IMPLICIT
        self.order = ">" if syntax == BIG_ENDIAN else "<"

    def element(self, tag: int, vr: str, value: bytes | str, *, length: int | None = None) -> bytes:
        """Return an element, padded to an even length."""
        data = value.encode("latin-1") if isinstance(value, str) else value
        data += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(data) % 2)
        claimed = len(data) if length is None else length
        start = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        if tag >> 16 == 0xFFFE or not self.explicit:
            return start + struct.pack(self.order + "I", claimed) + data
        if vr in _LONG_VRS:
            return start + vr.encode() + b"\0\0" + struct.pack(self.order + "I", claimed) + data
        return start + vr.encode() + struct.pack(self.order + "H", claimed) + data

    def sequence(self, tag: int, *items: bytes, undefined: bool, vr: str = "SQ", inside: Writer | None = None) -> bytes:
        """Return a sequence, it and its items of undefined length or not; ``inside`` writes the items."""
        inner = inside or self
        value = b"".join(inner._item(item, undefined) for item in items)
        if not undefined:
            return self.element(tag, vr, value)
        return self.element(tag, vr, value, length=0xFFFFFFFF) + inner.element(0xFFFEE0DD, "", b"")

    def _item(self, item: bytes, undefined: bool) -> bytes:
        if not undefined:
            return self.element(0xFFFEE000, "", item)
        return self.element(0xFFFEE000, "", item, length=0xFFFFFFFF) + self.element(0xFFFEE00D, "", b"")

    def group_length(self, group: int, *elements: bytes) -> bytes:
        """Return the elements of a group, the retired group length before them."""
        body = b"".join(elements)
        return self.element(group << 16, "UL", struct.pack(self.order + "I", len(body))) + body

    def file(self, *elements: bytes, preamble: bytes = bytes(128), meta: bytes = b"", after: bytes = b"") -> bytes:
        """Return a file of these elements and its own UIDs, in order of tags; ``after`` follows."""
        return self.file_as_given(
            *sorted([*elements, *self.uids()], key=self._place), after, preamble=preamble, meta=meta
        )

    def file_as_given(self, *elements: bytes, preamble: bytes = bytes(128), meta: bytes = b"") -> bytes:
        """Return a file of these elements and nothing else."""
        plain = Writer()
        meta = plain.element(0x00020003, "UI", uid(1, 1, 1)) + plain.element(0x00020010, "UI", self.syntax) + meta
        meta = plain.element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta
        body = b"".join(elements)
        if self.syntax == DEFLATED:
            packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            body = packer.compress(body) + packer.flush()
            body += b"\0" * (len(body) % 2)
        return preamble + b"DICM" + meta + body

    def uids(self) -> list[bytes]:
        """Return SOP, Study and Series Instance UID."""
        own = {0x00080018: uid(1, 1, 1), 0x0020000D: uid(1), 0x0020000E: uid(1, 1)}
        return [self.element(tag, "UI", value) for tag, value in own.items()]

    def _place(self, element: bytes) -> tuple[int, ...]:
        return struct.unpack_from(self.order + "HH", element)


# --- strict readers ---------------------------------------------------------------------------------------------------


def strictly_invalid(data: bytes) -> set[tuple[int, ...]]:
    """Return the paths of the elements that pydicom does not accept when it is strict."""
    dataset = read(data)
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.RAISE
    try:
        with quiet():
            return set(_invalid(dataset, ()))
    finally:
        config.settings.reading_validation_mode = before


def _invalid(dataset: Dataset, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for tag in dataset.keys():  # noqa: SIM118 - iterating reads the values
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                for number, item in enumerate(element.value):
                    yield from _invalid(item, (*path, int(tag), number))
        except Exception:
            yield (*path, int(tag))


def dcmdump(folder: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Return what DCMTK's dcmdump says of files that it does not take, or not gladly; skip where there is no dcmdump.

    Of an error the last line is returned, without the path; of warnings the first.
    """
    program = shutil.which("dcmdump")
    if program is None:
        reason = "the program dcmdump (DCMTK) is not installed"
        if _REQUIRED:
            pytest.fail(f"{reason}, and {REQUIRE_DCMTK} is set")
        pytest.skip(reason)
    complaints = {}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        done = subprocess.run([program, "-M", folder / name], capture_output=True, check=False, timeout=60)
        lines = done.stderr.decode("latin-1").splitlines()
        if done.returncode:
            complaints[name] = lines[-1].partition(": reading file")[0]
        elif lines:
            complaints[name] = lines[0]
    return complaints
