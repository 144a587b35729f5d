"""Every form in which PS3.5 lets a data set be written: it stays as it is, and what changes is written in it."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path

import pytest

from postdicom_async import Anonymization
from tests.support.anonymizing import (
    Writer,
    after,
    anonymize,
    content_of,
    dataset_bytes,
    dcmdump,
    leaves,
    meta_end,
    meta_leaves,
    read,
    refusal,
    result_of,
    strictly_invalid,
)
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG, small_dicom, uid

NAME, ID, TEXT = 0x00100010, 0x00100020, 0x0040A160
PRIVATE, OWNER = 0x00090010, 0x00091001
SECRET = "QUILLFEATHER^JOHN"
SYNTAXES = [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG]
FORMS = list(product(SYNTAXES, [True, False]))

# What becomes of a name of 17 characters, and of a text of unlimited length.
CHANGES: dict[str, tuple[str | None, str | None]] = {
    "longer": ("Q" * 63, "T" * 70_001),
    "shorter, odd": ("Q^R", "T"),
    "as long": ("Q" * 17, "T" * 8),
    "empty": ("", ""),
    "removed": (None, None),
    "multi-valued": ("A^B\\C^D\\E", "A\\B"),
}


def rich_file(syntax: str, *, undefined: bool) -> bytes:
    """Write a file that holds a name at the top, in sequences of sequences, in private ones and in those of VR UN."""
    to = Writer(syntax)
    unknown = Writer(IMPLICIT) if to.explicit else to
    name = to.element(NAME, "PN", SECRET)
    other = to.element(0x00080060, "CS", "CT")
    deep = to.sequence(0x00081140, other + name, name, b"", undefined=undefined)
    nested = to.sequence(0x00081115, to.group_length(0x0008, other, deep) + name, other, undefined=not undefined)
    private = to.sequence(OWNER, other + name, undefined=undefined)
    hidden = to.sequence(
        0x00091002,
        unknown.element(NAME, "PN", SECRET),
        # pydicom takes it for big endian, against PS3.5; and a header that is deflated is not looked for behind it.
        undefined=undefined and syntax not in (BIG_ENDIAN, DEFLATED),
        vr="UN",
        inside=unknown,
    )
    instance, study, series = to.uids()
    return to.file_as_given(
        to.group_length(0x0008, instance, other, nested),
        to.group_length(0x0009, to.element(PRIVATE, "LO", "PRIVATE"), private, hidden),
        to.group_length(0x0010, name, to.element(ID, "LO", "17")),
        to.group_length(0x0020, study, series),
        to.element(0x00280010, "US", struct.pack(to.order + "H", 7)),
        to.element(TEXT, "UT", "long text of QUILLFEATHER"),
        pixels(to),
    )


def pixels(to: Writer) -> bytes:
    if to.syntax != JPEG:
        return to.element(0x7FE00010, "OW", bytes(range(256)) * 2)
    fragments = [b"", b"\xff\xd8" + bytes(range(200)) + b"\xfe\xff\x00\xe0\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xd9"]
    value = b"".join(to.element(0xFFFEE000, "", fragment) for fragment in fragments)
    return to.element(0x7FE00010, "OB", value, length=0xFFFFFFFF) + to.element(0xFFFEE0DD, "", b"")


def padded(text: str) -> bytes:
    return text.encode() + b" " * (len(text) % 2)


# --- all forms by all changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("syntax", "undefined"), FORMS)
def test_every_form(syntax: str, undefined: bool, change: str, tmp_path: Path) -> None:
    data = rich_file(syntax, undefined=undefined)
    name, text = CHANGES[change]
    out = anonymize(data, {"PatientName": name, "TextValue": text})
    asked = {tag: None if one is None else padded(one) for tag, one in ((NAME, name), (TEXT, text))}
    before = leaves(data)
    assert leaves(out) == after(before, asked)
    assert len([leaf for leaf in before if leaf.tag == NAME]) == 6
    assert b"QUILLFEATHER" not in content_of(out)
    assert strictly_invalid(out) == set()
    complaints = dcmdump(tmp_path, {"x": out})
    assert not complaints or (undefined and "with VR UN and undefined length" in complaints["x"])


@pytest.mark.parametrize(("syntax", "undefined"), FORMS)
def test_sequences_can_be_left_alone(syntax: str, undefined: bool) -> None:
    data = rich_file(syntax, undefined=undefined)
    out = anonymize(data, Anonymization({"PatientName": "Q", "CodeMeaning": None}, sequences=False))
    before = [leaf for leaf in leaves(data) if leaf.path != (0x00100000,)]
    assert leaves(out) == [leaf._replace(value=b"Q ") if leaf.path == (NAME,) else leaf for leaf in before]


@pytest.mark.parametrize(("syntax", "undefined"), FORMS)
def test_private_elements_are_removed_however_deep(syntax: str, undefined: bool) -> None:
    to = Writer(syntax)
    private = to.element(PRIVATE, "LO", "PRIVATE") + to.element(OWNER, "LO", SECRET)
    inner = to.element(0x00080060, "CS", "CT") + private
    data = to.file(to.sequence(0x00081115, inner, undefined=undefined), to.group_length(0x0009, private))
    out = anonymize(data, Anonymization(remove_private=True))
    assert leaves(out) == [leaf for leaf in leaves(data) if not leaf.tag >> 16 & 1]
    assert leaves(anonymize(data, {f"{OWNER:08x}": None})) == after(leaves(data), {OWNER: None})


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_is_absent_is_inserted_where_it_belongs(syntax: str, tmp_path: Path) -> None:
    to = Writer(syntax)
    data = to.file(
        to.group_length(0x0008),
        to.group_length(0x0010, to.element(ID, "LO", "17"), to.element(0x00100040, "CS", "O")),
        to.sequence(0x00081115, to.element(0x00080060, "CS", "CT"), undefined=True),
        pixels(to),
    )
    rules = {
        "PatientBirthDate": "19700101", "StudyDate": "20200101", "PatientName": "", "Rows": "5", "PatientSex": "M",
        "ReferencedStudySequence": "", "DataSetTrailingPadding": None, "00091001": "Q", "AccessionNumber": None,
    }  # fmt: skip
    out = anonymize(data, Anonymization(rules, insert_absent=True))
    assert [
        (leaf.tag, leaf.value) for leaf in leaves(out) if len(leaf.path) == 1 and leaf.vr not in ("UI", "OB", "OW")
    ] == [
        (0x00080020, b"20200101"),
        (0x00081110, b"0"),
        (0x00081115, b"1"),
        (0x00100010, b""),
        (0x00100020, b"17"),
        (0x00100030, b"19700101"),
        (0x00100040, b"M "),
        (0x00280010, struct.pack(to.order + "H", 5)),
    ]
    assert leaves(out)[-1] == leaves(data)[-1]
    assert dcmdump(tmp_path, {"x": out}) == {}
    assert leaves(anonymize(data, rules | {"PatientSex": "O"})) == [
        leaf for leaf in leaves(data) if leaf.tag != 0x00100000
    ]


# --- what surrounds the data set --------------------------------------------------------------------------------------


def test_the_preamble_says_nothing() -> None:
    data = Writer().file(preamble=b"II*\0" + SECRET.encode().ljust(124, b"!"))
    assert anonymize(data, {})[:132] == bytes(128) + b"DICM"


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_padding_after_the_data_set_is_dropped(syntax: str) -> None:
    to = Writer(syntax)
    named = to.element(NAME, "PN", "A^B")
    padding = to.element(0xFFFCFFFC, "OB", SECRET)
    for after_it in (bytes(5000), bytes(2), padding, padding + bytes(70_000)):
        out = anonymize(to.file(named, after=after_it), {"PatientID": None})
        assert dataset_bytes(out) == dataset_bytes(to.file(named))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize(
    "rest", [b"garbage at the end", bytes(4000) + SECRET.encode(), bytes(8) + b"\x10\0\x10\0PN\0\0"]
)
def test_other_things_after_it_are_not_guessed(syntax: str, rest: bytes) -> None:
    reason = refusal(result_of(Writer(syntax).file(after=rest), {"PatientName": "Q"}))
    assert reason.startswith("cannot be anonymised: ")
    assert SECRET not in reason


def test_file_meta_is_changed_as_well() -> None:
    plain = Writer()
    meta = plain.element(0x00020016, "AE", "QUILLS_SCANNER") + plain.element(0x00020102, "OB", SECRET)
    data = plain.file(meta=meta)
    out = anonymize(data, {"SourceApplicationEntityTitle": "Q", "PrivateInformation": None})
    length = struct.pack("<I", meta_end(out) - 144)
    assert meta_leaves(out) == {
        0x00020000: length, 0x00020003: uid(1, 1, 1).encode() + b"\0", 0x00020010: b"1.2.840.10008.1.2.1\0",
        0x00020016: b"Q ",
    }  # fmt: skip
    assert dataset_bytes(out) == dataset_bytes(data)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_file_meta_names_the_new_instance(syntax: str) -> None:
    rules = {"SOPInstanceUID": "1.2.3", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}
    for data in (
        small_dicom(transfer_syntax=syntax),
        small_dicom(transfer_syntax=syntax).replace(b"\x02\0\3\0UI", b"\x02\0\4\0UI"),
    ):
        out = read(anonymize(data, rules))
        assert out.file_meta.MediaStorageSOPInstanceUID == out.SOPInstanceUID == "1.2.3"
        assert out.file_meta.MediaStorageSOPClassUID == out.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
