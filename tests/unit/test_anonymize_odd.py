"""Forms that PS3.5 allows seldom or not at all, and values that depend on the file: understood, or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from postdicom_async import Anonymization
from postdicom_async.dicom.anonymize import plan as anonymize_plan
from postdicom_async.dicom.deflated import Inflated, deflate
from postdicom_async.dicom.elements import EXPLICIT_LITTLE, DicomProblem, encode_header
from tests.support.anonymizing import (
    Writer,
    anonymize,
    content_of,
    dataset_bytes,
    dcmdump,
    leaves,
    meta_end,
    read,
    refusal,
    result_of,
)
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, uid

NAME, ID, CHARACTER_SET = 0x00100010, 0x00100020, 0x00080005
SEQUENCE, INNER = 0x00081115, 0x00081140
PRIVATE = 0x00091001
SECRET = "QUILLFEATHER^JOHN"
ENDLESS = 0xFFFFFFFF


def why(data: bytes, **rules: str | None) -> str:
    return refusal(result_of(data, rules or {"PatientName": "Q"})).removeprefix("cannot be anonymised: ")


# --- unknown VR -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_a_known_element_of_unknown_vr(syntax: str, tmp_path: Path) -> None:
    """What is of VR UN is written as in implicit VR little endian (PS3.5 section 6.2.2)."""
    to = Writer(syntax)
    frame = to.element(0x00200052, "UN", "1.2.3.4")
    data = to.file(to.element(NAME, "UN", SECRET), to.element(0x00280010, "UN", b"\x01\x00"), frame)
    out = anonymize(data, Anonymization({"PatientName": "Q^R", "Rows": "258"}, remap_uids=True))
    values = {leaf.tag: (leaf.vr, leaf.value) for leaf in leaves(out)}
    assert values[NAME] == ("UN", b"Q^R ")
    assert values[0x00280010] == ("UN", b"\x02\x01")
    assert values[0x00200052][1].startswith(b"2.25.")
    assert dcmdump(tmp_path, {"x": out}) == {}
    emptied = anonymize(data, {"PatientName": ""})
    assert (NAME, "UN", b"") in [(leaf.tag, leaf.vr, leaf.value) for leaf in leaves(emptied)]


@pytest.mark.parametrize("undefined", [True, False])
def test_explicit_vr_where_only_implicit_is_allowed(undefined: bool) -> None:
    """What is in an element of VR UN; some software writes it so, and readers take it."""
    to = Writer()
    name, other = to.element(NAME, "PN", SECRET), to.element(0x00080060, "CS", "CT")
    inner = to.sequence(INNER, name, b"", undefined=not undefined)
    hidden = to.sequence(PRIVATE, inner + name, b"", other, undefined=undefined, vr="UN")
    out = anonymize(to.file(hidden), {"PatientName": "Q^R^S"})
    name = to.element(NAME, "PN", "Q^R^S")
    inner = to.sequence(INNER, name, b"", undefined=not undefined)
    expected = to.sequence(PRIVATE, inner + name, b"", other, undefined=undefined, vr="UN")
    assert dataset_bytes(out) == dataset_bytes(to.file(expected))


@pytest.mark.parametrize("undefined", [True, False])
def test_implicit_vr_inside_explicit(undefined: bool) -> None:
    """Items that begin another way than what they lie in; readers take them."""
    to, inside = Writer(), Writer(IMPLICIT)
    data = to.file(to.sequence(SEQUENCE, inside.element(NAME, "PN", SECRET), undefined=undefined, inside=inside))
    out = anonymize(data, {"PatientName": "Q"})
    expected = to.sequence(SEQUENCE, inside.element(NAME, "PN", "Q"), undefined=undefined, inside=inside)
    assert dataset_bytes(out) == dataset_bytes(to.file(expected))


def test_a_file_that_says_explicit_and_is_implicit() -> None:
    inside = Writer(IMPLICIT)
    data = inside.file(inside.element(NAME, "PN", SECRET)).replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.20")
    data = Writer().file_as_given(dataset_bytes(data))
    out = anonymize(data, Anonymization({"PatientName": "Q", "PatientID": "7"}, insert_absent=True))
    assert [(leaf.tag, leaf.value) for leaf in leaves(out)][1:3] == [(NAME, b"Q "), (ID, b"7 ")]


def test_a_value_that_only_looks_like_a_sequence_is_kept() -> None:
    to = Writer()
    for value in (b"\xfe\xff\x00\xe0", b"\xfe\xff\x00\xe0\x00", b"\xfe\xff\x00\xe1" + bytes(8)):
        data = to.file(to.element(PRIVATE, "UN", value))
        assert dataset_bytes(anonymize(data, {"PatientName": "Q"})) == dataset_bytes(data)


# --- what depends on the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_numbers_in_the_order_of_the_file(syntax: str) -> None:
    to = Writer(syntax)
    zero = bytes(8)
    data = to.file(
        to.element(0x00280010, "US", zero[:2]),
        to.element(0x00189073, "FD", zero),
        to.element(0x00280106, "US", zero[:2]),
    )
    out = anonymize(data, {"Rows": "258", "AcquisitionDuration": "0.5", "SmallestImagePixelValue": "3\\4"})
    values = {leaf.tag: leaf.value for leaf in leaves(out)}
    assert values[0x00280010] == struct.pack(to.order + "H", 258)
    assert values[0x00189073] == struct.pack(to.order + "d", 0.5)
    assert values[0x00280106] == struct.pack(to.order + "HH", 3, 4)


def test_a_value_is_checked_with_the_vr_of_the_file() -> None:
    to = Writer()
    short = to.file(to.element(NAME, "SH", SECRET[:12]))
    assert read(anonymize(short, {"PatientName": "Q" * 16})).PatientName == "Q" * 16
    assert (
        why(short, PatientName="Q" * 17)
        == "PatientName (0010,0010) cannot hold the value: VR SH: at most 16 characters"
    )
    strange = to.file(to.element(NAME, "OB", SECRET))
    assert "VR OB cannot be given as text" in why(strange)
    assert b"QUILL" not in anonymize(strange, {"PatientName": ""})


def test_more_than_a_short_length_can_say() -> None:
    """Explicit VR has 16 bits for it."""
    numbers = "\\".join(["1.23456"] * 9000)
    for syntax in (IMPLICIT, EXPLICIT):
        to = Writer(syntax)
        data = to.file(to.element(0x00181151, "IS", "1"), to.element(0x00189328, "FD", bytes(8)))
        data = to.file(to.element(0x00280030, "DS", "1"))
        if syntax == EXPLICIT:
            assert why(data, PixelSpacing=numbers) == "PixelSpacing (0028,0030) would become too long"
        else:
            assert leaves(anonymize(data, {"PixelSpacing": numbers}))[-1].value == numbers.encode() + b" "


def test_more_than_any_length_can_say() -> None:
    assert encode_header(SEQUENCE, "SQ", 0xFFFFFFFE, EXPLICIT_LITTLE).endswith(b"\xfe\xff\xff\xff")
    for tag, vr in ((SEQUENCE, "SQ"), (0xFFFEE000, "")):
        with pytest.raises(DicomProblem, match="would become too long"):
            encode_header(tag, vr, 0xFFFFFFFF, EXPLICIT_LITTLE)


def test_an_item_has_its_own_character_set_or_that_around_it() -> None:
    to = Writer()
    name, greek = to.element(NAME, "PN", SECRET), to.element(CHARACTER_SET, "CS", "ISO_IR 126")
    inner = to.sequence(INNER, name, undefined=True)
    data = to.file(
        to.element(CHARACTER_SET, "CS", "ISO_IR 192"),
        to.sequence(SEQUENCE, greek + inner + name, name, undefined=False),
        name,
    )
    out = anonymize(data, {"PatientName": "Διονυσιος"})
    in_greek, in_utf8 = "Διονυσιος".encode("iso8859-7") + b" ", "Διονυσιος".encode()
    assert [leaf.value for leaf in leaves(out) if leaf.tag == NAME] == [in_greek, in_greek, in_utf8, in_utf8]
    reason = why(data, PatientName="Святослав 山")
    assert reason == "PatientName (0010,0010): its Specific Character Set (0008,0005) cannot hold the value"


def test_a_later_element_of_the_same_tag_is_no_hiding_place() -> None:
    to = Writer()
    data = to.file(to.element(NAME, "PN", "A^B"), to.element(NAME, "PN", SECRET))
    assert content_of(anonymize(data, {"PatientName": "Q"})).count(b"Q ") == 4  # the data set is in it twice
    assert b"QUILL" not in content_of(anonymize(data, {"PatientName": None}))


# --- refused ----------------------------------------------------------------------------------------------------------


def refused() -> dict[str, tuple[bytes, str]]:
    to = Writer()
    name = to.element(NAME, "PN", SECRET)
    short = to.element(NAME, "PN", SECRET, length=40)
    undefined = to.element(SEQUENCE, "SQ", b"", length=ENDLESS)
    item, end = to.element(0xFFFEE000, "", b"", length=ENDLESS), to.element(0xFFFEE0DD, "", b"")
    item_end = to.element(0xFFFEE00D, "", b"")
    fragments = to.element(0x7FE00010, "OB", b"", length=ENDLESS)
    in_item = to.element(SEQUENCE, "SQ", to.element(0xFFFEE000, "", short))
    ended = to.element(SEQUENCE, "SQ", to.element(0xFFFEE000, "", item_end + name))
    no_sequence = to.element(PRIVATE, "UN", to.element(0xFFFEE000, "", b"\x10\0\x10\0" + b"\xff" * 8))
    lying = to.element(PRIVATE, "UN", to.element(0xFFFEE000, "", name, length=900))
    hiding = undefined + to.element(0xFFFEE0DD, "", name)
    in_end = undefined + item + to.element(0xFFFEE00D, "", name)
    many_sets = to.element(CHARACTER_SET, "CS", "\\" * 1026)
    text = struct.pack("<HH2sHI", 0x0040, 0xA160, b"UT", 0, ENDLESS) + SECRET.encode()
    cut, sequence, name_text = (
        "it ends inside an element",
        "ReferencedSeriesSequence (0008,1115)",
        "PatientName (0010,0010)",
    )
    return {
        "a sequence that never ends": (undefined, cut),
        "an item that never ends": (undefined + item + name, cut),
        "fragments that never end": (fragments + to.element(0xFFFEE000, "", b"1234"), cut),
        "no fragment": (fragments + item_end + end, "PixelData (7FE0,0010) holds something else than fragments"),
        "a fragment without a length": (fragments + item, "PixelData (7FE0,0010) holds something else than fragments"),
        "no item": (undefined + name + end, f"{sequence} holds something else than items"),
        "an end of an item too much": (undefined + item + item_end * 2, f"{sequence} holds something else than items"),
        "a sequence that ends twice": (undefined + end * 2, "a delimiter is out of place"),
        "an end in an item with a length": (ended + bytes(60), "a delimiter is out of place"),
        "an end without a beginning": (item_end, "a delimiter is out of place"),
        "an item anywhere": (to.element(0xFFFEE000, "", name), "a delimiter is out of place"),
        "more after the end": (to.element(SEQUENCE, "SQ", end + name), f"{sequence} goes on after its end"),
        "longer than the file": (short, f"it ends inside {name_text}"),
        "longer than its item": (in_item + bytes(60), f"it ends inside {name_text}"),
        "text without a length": (text, "TextValue (0040,A160) has no length"),
        "no VR": (name.replace(b"PN", b"QQ"), f"{name_text} has no value representation of PS3.5"),
        "half a header": (name[:6], cut),
        "half a long header": (to.element(0x0040A160, "UT", "x")[:10], cut),
        "a sequence of VR UN that is none": (no_sequence, cut),
        "an item of VR UN that is too long": (lying, "it ends inside Item (FFFE,E000)"),
        "something in the end of a sequence": (hiding, "SequenceDelimitationItem (FFFE,E0DD) has a length"),
        "something in the end of an item": (in_end, "ItemDelimitationItem (FFFE,E00D) has a length"),
        "endless character sets": (many_sets, "SpecificCharacterSet (0008,0005) is too long"),
    }  # fmt: skip


@pytest.mark.parametrize("what", refused())
def test_what_cannot_be_understood_is_refused(what: str) -> None:
    to = Writer()
    broken, reason = refused()[what]
    assert why(to.file_as_given(*to.uids(), broken)) == reason


def test_without_what_says_how_it_is_written() -> None:
    data = Writer().file()
    assert why(data.replace(b"\x02\0\x10\0UI", b"\x02\0\x11\0UI")) == "it names no transfer syntax"
    assert why(b"x" * 500) == "no DICOM file (PS3.10)"
    assert why(data[:160]) == "it ends inside MediaStorageSOPInstanceUID (0002,0003)"
    damaged = Writer(DEFLATED).file(Writer().element(NAME, "PN", SECRET))
    assert why(damaged[:-9]) == "its deflated data set ends early"
    start = meta_end(damaged)
    assert why(damaged[:start] + b"\x07" + damaged[start + 1 :]) == "its deflated data set is damaged"


def test_the_end_of_a_deflated_data_set_that_zlib_holds_back() -> None:
    """It gives no more than asked for at once, and may have used up its input before the output is all out."""
    for size in range(256 * 1024 - 300, 256 * 1024 + 300, 7):
        packed = b"".join(deflate([bytes(size)]))
        assert Inflated(lambda at, count, packed=packed: packed[at : at + count], 0).size() == size  # type: ignore[misc]


def test_uids_that_are_none() -> None:
    to = Writer()
    wide = Writer(IMPLICIT)
    long = wide.file(wide.element(0x00200052, "UI", "1.2.3\\" * 200_000))
    reason = refusal(result_of(long, Anonymization(remap_uids=True)))
    assert reason.endswith("FrameOfReferenceUID (0020,0052) is too long")
    profile = Anonymization.basic_profile()
    odd = to.file(to.element(0x00200052, "LO", "1.2.3"))
    assert refusal(result_of(odd, profile)).endswith("FrameOfReferenceUID (0020,0052) should hold UIDs")
    none = to.file_as_given(*to.uids()[:2])
    assert refusal(result_of(none, profile)).endswith("no valid Study, Series and SOP Instance UID would be in it")
    assert uid(1).encode() not in content_of(anonymize(to.file(), profile))


def nested(depth: int, *, undefined: bool) -> bytes:
    to = Writer()
    inner = to.element(NAME, "PN", SECRET)
    for _ in range(depth):
        inner = to.sequence(SEQUENCE, inner, undefined=undefined)
    return to.file(inner)


@pytest.mark.parametrize("undefined", [True, False])
def test_how_deep_sequences_may_lie(undefined: bool) -> None:
    deepest = anonymize_plan._DEEPEST
    out = anonymize(nested(deepest, undefined=undefined), {"PatientName": "Q^R"})
    assert b"QUILL" not in out
    assert b"Q^R " in out
    assert why(nested(deepest + 1, undefined=undefined)) == "its sequences are nested too deeply"
    assert why(nested(20_000, undefined=True), ReferencedSeriesSequence=None) == "its sequences are nested too deeply"


def test_too_much_of_it_would_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held for one file is bounded, whether it is written or left out."""
    to = Writer()
    kept = to.element(0x00080060, "CS", "CT")
    items = [kept + to.element(NAME, "PN", "A^B") + to.element(0x00280010, "US", b"\1\0")] * 100
    data = to.file(to.sequence(SEQUENCE, *items, undefined=True))
    for rules in ({"PatientName": "Q"}, {"PatientName": None}):
        assert len(anonymize(data, rules)) > 3000
        with monkeypatch.context() as patch:
            patch.setattr(anonymize_plan, "_MOST_HELD", 99 * anonymize_plan._PART_COST)
            assert why(data, **rules) == "too much of it would change"
    groups = [to.element(0x00080060 + 0x20000 * (number % 2), "CS", "CT") for number in range(20_100)]
    assert why(to.file_as_given(*groups, *to.uids())) == "it has too many elements"
