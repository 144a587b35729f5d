from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from postdicom_async.emulator.store.attributes import INDEXED_TAGS
from postdicom_async.emulator.store.files import UnreadableHeader
from postdicom_async.emulator.store.header import read_header
from tests.emulator.support import TEST_FILES, encode, make_dataset, with_pixels

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_every_test_file_gives_json_without_a_warning(path: Path) -> None:
    header = read_header(path)

    json.dumps(header.json(lambda value_path: f"bulk/{value_path}"), allow_nan=False)
    assert header.text(0x00080018) == read_header(path, INDEXED_TAGS).text(0x00080018)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("chrArab.dcm", {"Alphabetic": "قباني^لنزار"}),
        ("chrFren.dcm", {"Alphabetic": "Buc^Jérôme"}),
        ("chrH31.dcm", {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}),
        ("chrH32.dcm", {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}),
        ("chrI2.dcm", {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"}),
        ("chrX2.dcm", {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}),
    ],
)
def test_character_sets(file: str, expected: dict[str, str]) -> None:
    (path,) = (path for path in TEST_FILES if path.name == file)

    assert read_header(path).json()["00100010"]["Value"] == [expected]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_values_are_the_same_in_every_encoding(tmp_path: Path, syntax: UID) -> None:
    item = Dataset()
    item.ScheduledProcedureStepID = "Łódź"
    ds = make_dataset(
        PatientName="Święty^Łukasz", Rows=512, PatientWeight="70.5", SeriesNumber=3, RequestAttributesSequence=[item]
    )
    ds.ImageType = ["ORIGINAL", "", "AXIAL"]
    ds.FrameIncrementPointer = 0x00181063
    ds.RealWorldValueSlope = 0.25
    ds.add_new(0x00091001, "OB", b"\x01\x02")
    path = tmp_path / "file.dcm"
    path.write_bytes(encode(ds, syntax))

    found = read_header(path).json()

    assert found["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Święty^Łukasz"}]}
    assert found["00280010"] == {"vr": "US", "Value": [512]}
    assert found["00101030"] == {"vr": "DS", "Value": [70.5]}
    assert found["00200011"] == {"vr": "IS", "Value": [3]}
    assert found["00080008"] == {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]}
    assert found["00280009"] == {"vr": "AT", "Value": ["00181063"]}
    assert found["00409225"] == {"vr": "FD", "Value": [0.25]}
    assert found["00091001"]["InlineBinary"] == "AQI="
    assert found["00400275"] == {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["Łódź"]}}]}


def test_odd_values_survive_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "file.dcm"
    data = encode(make_dataset(SeriesNumber=7777, PatientBirthDate="20000101", PatientWeight="88.5"))
    path.write_bytes(data.replace(b"7777", b"x7y ").replace(b"20000101", b"unknown!").replace(b"88.5", b"NaN "))

    found = read_header(path).json()

    assert found["00200011"]["Value"] == ["x7y"]
    assert found["00100030"]["Value"] == ["unknown!"]
    assert found["00101030"]["Value"] == ["NaN"]


def test_pixel_data_are_found_and_left_alone(tmp_path: Path) -> None:
    ds = with_pixels(frames=3)
    path = tmp_path / "file.dcm"
    path.write_bytes(encode(ds))

    pixels = read_header(path).pixels

    assert pixels is not None
    assert (pixels.tag, pixels.vr, pixels.length) == (0x7FE00010, "OW", 96)
    assert path.read_bytes()[pixels.offset :] == ds.PixelData


@pytest.mark.parametrize("length", [0, 100, 131])
def test_what_has_no_preamble_is_unreadable(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(encode(make_dataset())[:length])

    with pytest.raises(UnreadableHeader) as caught:
        read_header(path)

    assert str(tmp_path) not in str(caught.value)


@settings(deadline=None)
@given(st.integers(132, 400))
def test_what_breaks_off_is_unreadable_or_lacks_values(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.dcm"
    path.write_bytes(encode(make_dataset())[:length])

    with suppress(UnreadableHeader):
        header = read_header(path, INDEXED_TAGS)
        json.dumps(header.json(), allow_nan=False)


@settings(deadline=None)
@given(st.data())
def test_flipped_bytes_raise_nothing_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.dcm"
    content = bytearray(encode(with_pixels(PatientName="Święty^Łukasz", RequestAttributesSequence=[Dataset()])))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)

    with suppress(UnreadableHeader):
        json.dumps(read_header(path).json(lambda value_path: value_path), allow_nan=False)
