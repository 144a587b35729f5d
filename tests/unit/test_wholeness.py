"""Whether a file is whole: a cut one is never called whole, a whole one never cut, and nothing hangs or swells."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import warnings
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID

from postdicom_async.dicom.wholeness import Doubt, what_is_missing
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG, small_dicom

SHIPPED = sorted(path for path in Path(pydicom.data.__file__).parent.rglob("*") if path.is_file())
CUT = {
    "MR_truncated.dcm": "cut off: its pixel data need 8192 bytes, 8130 are there",
    "rtplan_truncated.dcm": "cut off: BeamSequence (300A,00B0) needs 976 bytes, 711 are there",
}
WALKED = [path for path in SHIPPED if path.suffix == ".dcm" and path.name not in {*CUT, "meta_missing_tsyntax.dcm"}]
PADDINGS = [
    b"\0",
    b"\0\0",
    bytes(3),
    bytes(7),
    bytes(8),
    bytes(511),
    bytes(70_000),
    b"\n",
    b"\r\n",
    b"  ",
    b"\xff" * 100,
]
DEFLATED_HEAD = small_dicom(transfer_syntax=DEFLATED).partition(DEFLATED.encode())[0] + DEFLATED.encode()
TRAILING_PADDING = b"\xfc\xff\xfc\xffOB\0\0\x0a\0\0\0" + bytes(10)
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def missing(data: bytes, *, held: int = 64 * 1024) -> str | None:
    return what_is_missing(data[:held], len(data), lambda at, size: data[at : at + size])


# --- whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_no_false_alarm_on_what_pydicom_ships(path: Path) -> None:
    data = path.read_bytes()
    assert missing(data) == missing(data, held=140) == CUT.get(path.name)


@pytest.mark.parametrize("padding", PADDINGS, ids=lambda padding: f"{len(padding)} of {padding[:1]!r}")
def test_padding_behind_a_whole_file(padding: bytes) -> None:
    for path in SHIPPED:
        if path.name not in CUT:
            assert missing(path.read_bytes() + padding) is None, path.name


@pytest.mark.parametrize("behind", [b"", b"\0", bytes(600)])
def test_trailing_elements_behind_the_pixels(behind: bytes) -> None:
    for syntax in (EXPLICIT, JPEG):
        whole = small_dicom(transfer_syntax=syntax) + TRAILING_PADDING
        assert missing(whole + behind) is None
        for end in range(4, len(TRAILING_PADDING)):
            assert missing(whole[: len(whole) - len(TRAILING_PADDING) + end]), end


def test_random_bytes_behind_a_whole_file() -> None:
    """What some programs leave behind a file is not taken for the beginning of an element."""
    rng = random.Random(8)
    alarms = [
        (path.name, size)
        for path in SHIPPED
        if path.name not in CUT and path.read_bytes()[128:132] == b"DICM"
        for size in (1, 2, 5, 8, 13, 200)
        if missing(path.read_bytes() + rng.randbytes(size))
    ]
    assert len(alarms) <= 2


def test_implicit_where_it_says_explicit_and_the_other_way_round() -> None:
    explicit, implicit = small_dicom(transfer_syntax=EXPLICIT), small_dicom(transfer_syntax=IMPLICIT)
    at = explicit.index(b"\x08\x00\x16\x00"), implicit.index(b"\x08\x00\x16\x00")
    for whole in (explicit[: at[0]] + implicit[at[1] :], implicit[: at[1]] + explicit[at[0] :]):
        assert missing(whole) is None
        assert missing(whole[:-1]) == "cut off: its pixel data need 2048 bytes, 2047 are there"


def test_explicit_elements_inside_of_unknown_ones_are_no_alarm() -> None:
    """So UN was written before CP-246; as implicit, the length of the first reaches into the pixels of a large file."""
    inner = b"\x10\0\x10\0PN\x04\0A^B "
    unknown = b"\x11\0\x01\x10UN\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" + inner
    unknown += b"\xfe\xff\x0d\xe0\0\0\0\0" + SEQUENCE_END
    for value in range(1, 400):
        pixels = struct.pack("<H", value) * 150_000
        pixel_data = b"\xe0\x7f\x10\0OW\0\0" + struct.pack("<I", len(pixels)) + pixels
        assert missing(small_dicom(pixel_bytes=0) + unknown + pixel_data) is None


def with_length(tag: bytes, length: int) -> bytes:
    data = small_dicom()
    at = data.index(tag) + 8
    return data[:at] + struct.pack("<I", length) + data[at + 4 :]


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"no DICOM",
        small_dicom()[132:],
        small_dicom().replace(b"TM\x06\0", b"??\x06\0", 1),
        small_dicom().replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI", 1),
        with_length(b"\xe0\x7f\x10\x00OW", 0xFFFFFFFF),
        DEFLATED_HEAD + b"\xff" * 600,
        small_dicom() + SEQUENCE_END + b"\x10\0\x10\0PN\xff\xff",
    ],
    ids=["nothing", "text", "no preamble", "no VR", "no syntax", "no fragments", "damaged", "out of order"],
)
def test_what_is_not_understood_counts_as_whole(odd: bytes) -> None:
    assert missing(odd) is None


# --- cut files --------------------------------------------------------------------------------------------------------


def nested(deep: int, *, undefined: bool) -> Dataset:
    inner = Dataset()
    inner.PatientName = "INNER"
    for _ in range(deep):
        outer = Dataset()
        outer.CodeMeaning = "x"
        outer.ReferencedSeriesSequence = Sequence([inner, Dataset(), inner])
        outer["ReferencedSeriesSequence"].is_undefined_length = undefined
        for item in outer.ReferencedSeriesSequence:
            item.is_undefined_length_sequence_item = undefined
        inner = outer
    return inner


def content(pixels: str) -> Dataset:
    dataset = pydicom.dcmread(BytesIO(small_dicom(pixel_bytes=64)))
    dataset.add_new(0x00091001, "UN", b"private")
    dataset.add_new(0x00090010, "LO", "SOMEBODY")
    for tag, undefined in ((0x00081115, True), (0x00401012, False), (0x00189346, True)):
        dataset.add_new(tag, "SQ", Sequence([nested(2, undefined=undefined)]))
        dataset[tag].is_undefined_length = undefined
    dataset.add_new(0x00181150, "IS", "")
    dataset.LongCodeValue, dataset.PixelSpacing = "long " * 50, [1, 1]
    frames = [bytes(range(100)), b"x" * 30, b"y" * 50]
    if pixels != "native":
        dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=pixels == "offset table")
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
    if pixels == "extended":
        made = encapsulate_extended(frames)
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = made
    if pixels == "none":
        del dataset.PixelData
    dataset.add_new(0xFFFCFFFC, "OB", b"padding.")
    return dataset


@cache
def in_parts(syntax: str, pixels: str) -> tuple[bytes, frozenset[int]]:
    """Return a file, and where an element of its data set begins."""
    kind = UID(syntax)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    meta.TransferSyntaxUID = kind
    out = DicomBytesIO(bytes(128) + b"DICM")
    out.seek(132)
    write_file_meta_info(out, meta, enforce_standard=True)
    out.is_little_endian, out.is_implicit_VR = kind.is_little_endian, kind.is_implicit_VR
    starts = set()
    for element in content(pixels):
        starts.add(out.tell())
        write_data_element(out, element)
    return out.getvalue(), frozenset(starts)


FORMS = [
    (EXPLICIT, "native"),
    (IMPLICIT, "native"),
    (BIG_ENDIAN, "native"),
    (EXPLICIT, "none"),
    (IMPLICIT, "none"),
    (JPEG, "offset table"),
    (JPEG, "no offset table"),
    (JPEG, "extended"),
]


@pytest.mark.parametrize(("syntax", "pixels"), FORMS)
@pytest.mark.parametrize("held", [140, 64 * 1024])
def test_cut_at_every_byte(syntax: str, pixels: str, held: int) -> None:
    """Only an end between two elements, or where not even a tag has begun, can be taken for the end of the file."""
    data, starts = in_parts(syntax, pixels)
    unclear = {start + more for start in starts for more in range(4)}
    assert missing(data, held=held) is None
    for end in range(132, len(data)):
        found = missing(data[:end], held=held)
        assert found or end in unclear, end
        assert found is None or found.startswith("cut off: "), end


def test_cut_at_every_byte_of_a_deflated_file() -> None:
    data = small_dicom(transfer_syntax=DEFLATED)
    assert missing(data + b"\0") is None
    ends = [end for end in range(132, len(data) - 1) if missing(data[:end]) is None]
    assert not ends
    assert missing(data[:-500]) == "cut off: its deflated data set has no end"


def test_a_deflated_end_that_is_held_back() -> None:
    """Inflating gives no more than asked for at once: the input may be used up before the output is."""
    for size in [*range(64 * 1024 - 300, 64 * 1024 + 300, 7), *range(128 * 1024 - 260, 128 * 1024 + 260, 9)]:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = deflater.compress(bytes(size)) + deflater.flush()
        assert missing(DEFLATED_HEAD + packed) is None, size


@pytest.mark.parametrize("path", WALKED, ids=lambda path: path.name)
def test_cut_inside_the_pixels_of_shipped_files(path: Path) -> None:
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            element = pydicom.dcmread(BytesIO(data), force=True).get_item("PixelData")
        except Exception:
            return
    at = getattr(element, "value_tell", 0)
    if not at or data[128:132] != b"DICM" or b"1.2.840.10008.1.2.1.99" in data[:1000]:
        return
    end = at + len(element.value)
    assert data[at : at + 8] == element.value[:8]
    assert all(missing(data[:cut]) for cut in [at, at + 1, end - 1, *range(at, end, max(1, (end - at) // 50))])


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (-1, "its pixel data need 2048 bytes, 2047 are there"),
        (-2048, "its pixel data need 2048 bytes, 0 are there"),
        (-2050, "it ends inside the header of PixelData (7FE0,0010)"),
        (-2055, "it ends inside the header of an element"),
        (300, "SOPClassUID (0008,0016) needs 26 bytes, 20 are there"),
        (150, "it ends inside its file meta information"),
    ],
)
def test_words(end: int, words: str) -> None:
    data = small_dicom()
    if end == 300:
        end = data.index(b"\x08\x00\x16\x00") + 28
    assert missing(data[:end]) == f"cut off: {words}"


def test_words_for_fragments() -> None:
    data = small_dicom(transfer_syntax=JPEG, pixel_bytes=64)
    assert missing(data[:-8]) == "cut off: its pixel data have no end"
    assert missing(data[:-9]) == "cut off: fragment 1 of its pixel data needs 64 bytes, 63 are there"
    assert missing(data[:-81]) == "cut off: the offset table of its pixel data needs 4 bytes, 3 are there"


@given(data=st.data(), form=st.sampled_from(FORMS))
def test_damaged_files_never_raise(data: st.DataObject, form: tuple[str, str]) -> None:
    file = bytearray(in_parts(*form)[0])
    for at in data.draw(st.lists(st.integers(132, len(file) - 1), max_size=8)):
        file[at] = data.draw(st.integers(0, 255))
    missing(bytes(file[: data.draw(st.integers(0, len(file)))]), held=data.draw(st.sampled_from([0, 132, 500, 4000])))


# --- bounds -----------------------------------------------------------------------------------------------------------


class Reads:
    """A huge file that is not there: its beginning, and then whatever ``at`` makes of an offset."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.count = self.bytes = 0

    def __call__(self, at: int, size: int) -> bytes:
        self.count += 1
        self.bytes += size
        return (self.piece * (size // len(self.piece) + 2))[at % len(self.piece) :][:size]


HEAD = small_dicom(transfer_syntax=JPEG, pixel_bytes=64)
PIXELS_AT = HEAD.index(b"\xe0\x7f\x10\x00OB") + 12
EXPLICIT_HEAD = small_dicom(pixel_bytes=0)


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (HEAD[:PIXELS_AT], b"\xfe\xff\x00\xe0\0\0\0\0"),
        (HEAD[:PIXELS_AT], b"\xfe\xff\x00\xe0\x00\x20\0\0" + bytes(8192)),
        (EXPLICIT_HEAD, b"\x09\0\x10\0LO\0\0"),
        (EXPLICIT_HEAD, b"\x40\0\x12\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"),
        (EXPLICIT_HEAD, b"\xfe\xff\x00\xe0\xff\xff\xff\xff"),
        (EXPLICIT_HEAD, bytes(8)),
    ],
    ids=["empty fragments", "fragments", "elements", "ever deeper", "items", "zeros"],
)
def test_a_file_that_goes_on_and_on(beginning: bytes, piece: bytes) -> None:
    """However large it is, it costs a bounded look; then it counts as whole."""
    read = Reads(piece)
    tracemalloc.start()
    try:
        assert what_is_missing(beginning + read(0, 64 * len(piece)), 1 << 40, read) is None
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert read.count <= 200_001
    assert read.bytes <= 33 << 20


def test_a_deflated_bomb() -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = DEFLATED_HEAD + b"".join(deflater.compress(bytes(1 << 20)) for _ in range(300))
    tracemalloc.start()
    try:
        assert missing(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_pixels_are_not_read() -> None:
    data = small_dicom(pixel_bytes=3 << 20)
    encapsulated = small_dicom(transfer_syntax=JPEG, pixel_bytes=3 << 20)
    for whole, most in ((data, 0), (encapsulated, 4096)):
        sizes: list[int] = []

        def read(at: int, size: int, whole: bytes = whole, sizes: list[int] = sizes) -> bytes:
            sizes.append(size)
            return whole[at : at + size]

        assert what_is_missing(whole[:65536], len(whole), read) is None
        assert sum(sizes) <= most


def test_a_reader_that_has_had_enough() -> None:
    def tired(at: int, size: int) -> bytes:
        raise Doubt

    whole = small_dicom(transfer_syntax=JPEG, pixel_bytes=300_000)
    assert what_is_missing(whole[:65536], len(whole) - 1, tired) is None


def test_a_file_that_becomes_shorter_meanwhile() -> None:
    whole = small_dicom(transfer_syntax=JPEG, pixel_bytes=300_000)
    assert what_is_missing(whole[:65536], len(whole), lambda *_: b"") is None


def test_the_walk_takes_no_time() -> None:
    """The beginning of a file costs some tens of microseconds; this allows a hundred times that."""
    data = small_dicom()
    started = time.process_time()
    for _ in range(100):
        missing(data)
    assert (time.process_time() - started) / 100 < 0.005
