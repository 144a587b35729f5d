"""Which instance a file is, from its first bytes: right, or none, never wrong."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from postdicom_async.dicom.header import HEADER_LIMIT, HeaderGap, InstanceHeader, is_uid, read_header
from postdicom_async.results import InstanceUids
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG, UNCOMPRESSED_SYNTAXES, small_dicom
from tests.support.dicom_files import uid as own_uid

SHIPPED = sorted(path for path in Path(pydicom.data.__file__).parent.rglob("*") if path.is_file())
UIDS = InstanceUids(own_uid(1), own_uid(1, 1), own_uid(1, 1, 1))
CT = "1.2.840.10008.5.1.4.1.1.2"


def header_of(data: bytes, *, complete: bool = True) -> InstanceHeader:
    header = read_header(data, complete=complete)
    assert isinstance(header, InstanceHeader), header
    return header


# --- pydicom's own files -------------------------------------------------------------------------------------------


def as_pydicom_reads(path: Path) -> InstanceUids | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:
            return None
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        return InstanceUids(*(str(dataset.get(name, "")) for name in names))


def test_pydicom_ships_files() -> None:
    assert len([path for path in SHIPPED if path.suffix == ".dcm"]) > 50


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_reads_what_pydicom_reads(path: Path) -> None:
    data = path.read_bytes()
    expected = as_pydicom_reads(path) if data[128:132] == b"DICM" else None
    found = read_header(data, complete=True)
    if expected is not None and all(map(is_uid, expected)):
        assert isinstance(found, InstanceHeader)
        assert found.uids == expected
    else:
        assert isinstance(found, HeaderGap)


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.suffix == ".dcm"], ids=lambda path: path.name)
def test_every_prefix_of_shipped_files_is_never_wrong(path: Path) -> None:
    data = path.read_bytes()
    whole = read_header(data, complete=True)
    for end in [*range(100, min(len(data), 2200), 13), 64 * 1024]:
        found = read_header(data[:end], complete=False)
        assert found in (HeaderGap.INCOMPLETE, whole), end


# --- every syntax, every prefix ------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED_SYNTAXES, JPEG])
def test_every_syntax(syntax: str) -> None:
    header = header_of(small_dicom(transfer_syntax=syntax))
    assert header == InstanceHeader(UIDS, CT, syntax)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED_SYNTAXES, JPEG])
@pytest.mark.parametrize("complete", [False, True])
def test_every_prefix(syntax: str, complete: bool) -> None:
    """A prefix gives the header or says that there is none; a UID that is cut is never taken for one."""
    data = small_dicom(transfer_syntax=syntax, pixel_bytes=256)
    whole = header_of(data)
    found = [read_header(data[:end], complete=complete) for end in range(len(data) + 1)]
    assert found[-1] == whole
    gaps = {HeaderGap.INCOMPLETE} if not complete else {HeaderGap.NOT_DICOM, HeaderGap.UNCLEAR}
    assert set(found) <= {whole, *gaps}
    first = found.index(whole)
    assert all(one == whole for one in found[first:])


def with_element_before_the_uids(*, undefined: bool, deep: int, syntax: str = EXPLICIT, group: int = 0x0008) -> bytes:
    """Make a file whose sequences hold UIDs of other instances, before its own."""
    inner = Dataset()
    inner.SOPInstanceUID, inner.StudyInstanceUID, inner.SeriesInstanceUID = "9.9.9", "9.9", "9.9.1"
    for _ in range(deep):
        outer = Dataset()
        outer.add_new((group, 0x1140), "SQ", Sequence([inner, inner]))
        outer.StudyInstanceUID = "9.9.2"
        outer[group, 0x1140].is_undefined_length = undefined
        inner = outer
    dataset = pydicom.dcmread(BytesIO(small_dicom(transfer_syntax=syntax)))
    dataset.add(inner[group, 0x1140])
    for item in (inner, *inner[group, 0x1140].value):
        item.is_undefined_length_sequence_item = undefined
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("deep", [1, 2, 6])
def test_uids_inside_sequences_are_somebody_elses(syntax: str, undefined: bool, deep: int) -> None:
    data = with_element_before_the_uids(undefined=undefined, deep=deep, syntax=syntax)
    assert header_of(data) == InstanceHeader(UIDS, CT, syntax)


@pytest.mark.parametrize("undefined", [True, False])
def test_every_prefix_with_sequences(undefined: bool) -> None:
    data = with_element_before_the_uids(undefined=undefined, deep=2)
    whole = header_of(data)
    for end in range(len(data)):
        assert read_header(data[:end], complete=False) in (whole, HeaderGap.INCOMPLETE)


# --- built by hand ---------------------------------------------------------------------------------------------------


def element(group: int, number: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    claimed = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", group, number, vr, 0, claimed) + value
    return struct.pack("<HH2sH", group, number, vr, claimed) + value


def file_of(*elements: bytes, syntax: bytes = b"1.2.840.10008.1.2.1\0", meta: bytes | None = None) -> bytes:
    group2 = element(2, 0x10, b"UI", syntax) if meta is None else meta
    length = element(2, 0, b"UL", struct.pack("<I", len(group2)))
    return bytes(128) + b"DICM" + length + group2 + b"".join(elements)


SOP = element(8, 0x18, b"UI", b"1.2.3.4\0")
STUDY = element(0x20, 0x0D, b"UI", b"1.2\0")
SERIES = element(0x20, 0x0E, b"UI", b"1.2.3\0")
PIXELS = element(0x7FE0, 0x10, b"OW", bytes(8))


def test_smallest_file() -> None:
    expected = InstanceHeader(InstanceUids("1.2", "1.2.3", "1.2.3.4"), "", "1.2.840.10008.1.2.1")
    assert header_of(file_of(SOP, STUDY, SERIES)) == expected


def test_a_wrong_group_length_does_not_matter() -> None:
    data = file_of(SOP, STUDY, SERIES)
    for claimed in (0, 1, 7, 1000, 0xFFFFFFFF):
        lying = data[:140] + struct.pack("<I", claimed) + data[144:]
        assert header_of(lying).uids.sop_instance_uid == "1.2.3.4"


def test_spaces_and_nulls_around_uids() -> None:
    padded = element(8, 0x18, b"UI", b" 1.2.3.4 \0\0\0")
    assert header_of(file_of(padded, STUDY, SERIES)).uids.sop_instance_uid == "1.2.3.4"


@pytest.mark.parametrize(
    "elements",
    [
        (STUDY, SERIES),
        (SOP, SERIES),
        (SOP, STUDY),
        (SOP, STUDY, PIXELS),
        (element(8, 0x18, b"UI", b""), STUDY, SERIES),
        (element(8, 0x18, b"UI", b"../../etc/passwd"), STUDY, SERIES),
        (element(8, 0x18, b"UI", b"1.2.3\\4.5.6 "), STUDY, SERIES),
        (element(8, 0x18, b"UI", b"1." * 33), STUDY, SERIES),
        (SOP, element(0x20, 0x0D, b"UI", b"1..2"), SERIES),
        (SOP, element(0x20, 0x0D, b"UI", b"\xff\xfe"), SERIES),
        (SOP, STUDY, element(0x20, 0x0E, b"UI", b"1/2\0")),
        (),
    ],
)
def test_without_three_uids_it_is_unclear(elements: tuple[bytes, ...]) -> None:
    assert read_header(file_of(*elements), complete=True) is HeaderGap.UNCLEAR


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(131), bytes(132), bytes(4000), b"DICM" + bytes(200), b"%PDF-1.7" * 100, b"\x89PNG" * 100],
)
def test_not_dicom(data: bytes) -> None:
    assert read_header(data, complete=True) is HeaderGap.NOT_DICOM


def test_a_short_beginning_is_incomplete() -> None:
    for size in range(132):
        assert read_header(bytes(size), complete=False) is HeaderGap.INCOMPLETE


def test_declared_lengths_allocate_nothing() -> None:
    huge = [
        file_of(element(8, 0x05, b"UT", b"", length=0xFFFFFFFE), SOP, STUDY, SERIES),
        file_of(element(8, 0x05, b"OB", b"", length=0x7FFFFFFF), SOP, STUDY, SERIES),
        file_of(SOP, element(8, 0x1140, b"SQ", b"", length=0xFFFFFFFF), STUDY, SERIES),
        file_of(SOP, element(9, 1, b"UN", b"", length=0xFFFFFFFF), STUDY, SERIES),
        file_of(element(8, 0x18, b"UI", b"1.2", length=0xFFFF), STUDY, SERIES),
    ]
    tracemalloc.start()
    try:
        for data in huge:
            for complete in (False, True):
                assert isinstance(read_header(data, complete=complete), HeaderGap)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_deflated_bomb_unpacks_to_no_more_than_the_limit() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    filler = element(8, 0x05, b"UT", b"", length=300 << 20)
    bomb = packer.compress(filler) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    data = file_of(bomb, syntax=b"1.2.840.10008.1.2.1.99")
    assert len(data) < HEADER_LIMIT
    tracemalloc.start()
    try:
        assert read_header(data, complete=True) is HeaderGap.UNCLEAR
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_time_is_linear() -> None:
    """Files as large as are looked at, made of the smallest elements, items and nestings."""
    smallest = element(8, 0x05, b"CS", b"")
    nested = element(8, 0x1140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF), length=0xFFFFFFFF)
    for piece in (smallest, nested):
        data = file_of(piece * (2 * HEADER_LIMIT // len(piece)))
        started = time.process_time()
        assert isinstance(read_header(data, complete=False), HeaderGap)
        assert time.process_time() - started < 5.0


def test_the_header_must_begin_within_the_limit() -> None:
    filler = element(8, 0x05, b"UT", bytes(HEADER_LIMIT))
    assert read_header(file_of(filler, SOP, STUDY, SERIES), complete=False) is HeaderGap.UNCLEAR
    filler = element(8, 0x05, b"UT", bytes(HEADER_LIMIT - 1000))
    assert isinstance(read_header(file_of(filler, SOP, STUDY, SERIES), complete=False), InstanceHeader)


# --- left to pydicom --------------------------------------------------------------------------------------------------


def test_no_transfer_syntax() -> None:
    """Implicit little endian is what a data set without file meta information is written in."""
    data = small_dicom(transfer_syntax=IMPLICIT)
    at = data.index(b"\x02\x00\x10\x00UI")
    length = struct.unpack_from("<H", data, at + 6)[0]
    found = read_header(data[:at] + data[at + 8 + length :], complete=True)
    assert isinstance(found, HeaderGap) or found.uids == UIDS


@pytest.mark.parametrize("complete", [False, True])
def test_what_the_walk_cannot_read_is_not_guessed_from_a_prefix(complete: bool) -> None:
    """The data set is not in the transfer syntax that is named, so that pydicom is asked."""
    explicit = small_dicom(transfer_syntax=EXPLICIT, pixel_bytes=0)
    lying = explicit.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0", 1)
    whole = read_header(lying, complete=True)
    assert not isinstance(whole, InstanceHeader) or whole.uids == UIDS
    for end in range(132, len(lying)):
        found = read_header(lying[:end], complete=complete)
        assert isinstance(found, HeaderGap) or found.uids == UIDS, end


# --- mutations --------------------------------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(128, min(len(found), 900))
        match rng.randrange(4):
            case 0:
                found[at] = rng.randrange(256)
            case 1:
                found[at : at + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\x00\xe0", b"\x7f\xff\xff\xff"]
                )
            case 2:
                del found[at : at + rng.randint(1, 12)]
            case _:
                found[at:at] = rng.randbytes(rng.randint(1, 12))
    return bytes(found)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED_SYNTAXES, JPEG])
def test_mutated_files_raise_nothing(syntax: str) -> None:
    rng = random.Random(syntax)
    data = small_dicom(transfer_syntax=syntax, pixel_bytes=64)
    for _ in range(500):
        found = read_header(mutated(data, rng), complete=rng.random() < 0.5)
        assert isinstance(found, HeaderGap) or all(map(is_uid, found.uids))


def test_mutated_sequences_raise_nothing() -> None:
    rng = random.Random(1)
    data = with_element_before_the_uids(undefined=True, deep=4)
    for _ in range(500):
        assert isinstance(read_header(mutated(data, rng), complete=True), HeaderGap | InstanceHeader)


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_after_the_magic(tail: bytes, complete: bool) -> None:
    read_header(bytes(128) + b"DICM" + tail, complete=complete)


@given(st.binary(max_size=200), st.sampled_from([IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED]))
def test_any_data_set(tail: bytes, syntax: str) -> None:
    text = syntax.encode() + b"\0" * (len(syntax) % 2)
    read_header(file_of(tail, syntax=text), complete=True)


def test_file_meta_information_alone() -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(EXPLICIT)
    dataset = Dataset()
    dataset.file_meta = meta
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    assert isinstance(read_header(buffer.getvalue(), complete=True), HeaderGap)
