"""UIDs that become others: the same one always by the same one, in every element that names an instance."""

from __future__ import annotations

import hashlib
import hmac
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async import Anonymization
from postdicom_async.dicom.header import is_uid
from tests.support.anonymizing import Writer, anonymize, content_of, leaves, read
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG, small_dicom, uid

REMAP = Anonymization(remap_uids=True, secret="of the tests")
FRAME, REFERENCED, CLASS = 0x00200052, 0x00081155, 0x00081150
REGISTERED = [
    "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.4.1.1", "1.2.840.10008.1.20.1.1",
    "1.2.840.10008.1.5.1",
]  # fmt: skip


def made(value: str | bytes, tag: int = FRAME, vr: str = "UI", rules: Anonymization = REMAP) -> bytes:
    """Return what becomes of a value."""
    to = Writer()
    (found,) = [leaf for leaf in leaves(anonymize(to.file(to.element(tag, vr, value)), rules)) if leaf.tag == tag]
    return found.value


def test_the_uid_is_that_of_an_hmac() -> None:
    """2.25. and the number of a UUID, as PS3.5 annex B.2 wants it; computed here by hand."""
    remap = Anonymization(remap_uids=True, secret="shared secret")
    digest = bytearray(hmac.new(b"shared secret", uid(1).encode(), hashlib.sha256).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    expected = f"2.25.{int.from_bytes(digest, 'big')}"
    assert remap.new_uid(uid(1)) == expected
    assert uuid.UUID(int=int(expected[5:])).version == 4
    assert read(anonymize(small_dicom(), remap)).StudyInstanceUID == expected


@given(st.text(max_size=70))
def test_whatever_it_was_it_becomes_a_uid(old: str) -> None:
    new = REMAP.new_uid(old)
    assert new == REMAP.new_uid(old)
    assert not old or is_uid(new)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG])
def test_all_uids_of_a_file(syntax: str) -> None:
    data = small_dicom(transfer_syntax=syntax)
    out = read(anonymize(data, REMAP))
    assert out.StudyInstanceUID == REMAP.new_uid(uid(1))
    assert out.SeriesInstanceUID == REMAP.new_uid(uid(1, 1))
    assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID == REMAP.new_uid(uid(1, 1, 1))
    assert len({out.StudyInstanceUID, out.SeriesInstanceUID, out.SOPInstanceUID}) == 3
    assert out.SOPClassUID == out.file_meta.MediaStorageSOPClassUID == read(data).SOPClassUID
    assert out.file_meta.TransferSyntaxUID == syntax
    assert out.file_meta.ImplementationClassUID == read(data).file_meta.ImplementationClassUID
    assert uid(1).encode() not in content_of(anonymize(data, REMAP))


def test_the_same_secret_gives_the_same_uids() -> None:
    one, same, other, none, none_again = (
        Anonymization.basic_profile(secret="shared secret"),
        Anonymization(remap_uids=True, secret=b"shared secret"),
        Anonymization(remap_uids=True, secret="other secret"),
        Anonymization(remap_uids=True),
        Anonymization(remap_uids=True),
    )
    assert one.new_uid(uid(1)) == same.new_uid(uid(1))
    assert len({each.new_uid(uid(1)) for each in (one, other, none, none_again)}) == 4
    assert anonymize(small_dicom(), same) == anonymize(
        small_dicom(), Anonymization(remap_uids=True, secret="shared secret")
    )


def test_references_follow_however_deep() -> None:
    to = Writer()
    reference = to.element(CLASS, "UI", REGISTERED[1]) + to.element(REFERENCED, "UI", uid(1, 1, 2))
    private = to.element(0x00090010, "LO", "PRIVATE") + to.element(0x00091001, "UI", uid(1))
    deep = to.sequence(0x00081140, reference, reference, undefined=True)
    data = to.file(to.sequence(0x00081115, deep + private, undefined=False))
    out = read(anonymize(data, REMAP))
    (series,) = out.ReferencedSeriesSequence
    first, second = series.ReferencedImageSequence
    assert first.ReferencedSOPInstanceUID == second.ReferencedSOPInstanceUID == REMAP.new_uid(uid(1, 1, 2))
    assert first.ReferencedSOPClassUID == REGISTERED[1]
    assert series[0x00091001].value == out.StudyInstanceUID == REMAP.new_uid(uid(1))
    other = small_dicom(uid(1), uid(1, 1), uid(1, 1, 2))
    assert read(anonymize(other, REMAP)).SOPInstanceUID == first.ReferencedSOPInstanceUID


@pytest.mark.parametrize("value", REGISTERED)
def test_registered_uids_stay_to_the_byte(value: str) -> None:
    for written in (value, value.encode() + b" " * (1 + len(value) % 2)):
        raw = Writer().element(FRAME, "UI", written)[8:]
        assert made(written) == raw
    assert REMAP.new_uid(value) == value


def test_several_values_and_padding() -> None:
    new = [REMAP.new_uid(one).encode() for one in ("1.2.3", "1.2.4")]
    assert made("1.2.3\\1.2.4\\1.2.3").rstrip(b"\0") == b"\\".join([*new, new[0]])
    assert made(f"1.2.3\\{REGISTERED[0]}").rstrip(b"\0") == new[0] + b"\\" + REGISTERED[0].encode()
    for padded in (b"1.2.3\0", b"1.2.3 ", b" 1.2.3", b"1.2.3\0\0\0"):
        assert made(padded).rstrip(b"\0") == new[0]
    assert len(made("1.2.3")) % 2 == 0
    assert made("") == b""
    assert made("1.2.3\\").rstrip(b"\0") == new[0] + b"\\"


@pytest.mark.parametrize("value", [b"Quillfeather", b"1.2.3\xe9 x", b"1.2.840.10008.1.2\0Quillfeather"])
def test_what_is_no_uid_does_not_stay(value: bytes) -> None:
    assert made(value).startswith(b"2.25.")


@pytest.mark.parametrize("tag", [0x00080016, CLASS, 0x0008010C, 0x00080117, 0x00080118])
def test_what_says_what_something_is_stays(tag: int) -> None:
    """Classes, coding schemes, context groups, mapping resources."""
    assert made("1.2.3.4.5", tag) == b"1.2.3.4.5\0"


def test_a_rule_goes_before_it() -> None:
    rules = Anonymization({"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": None}, remap_uids=True)
    to = Writer()
    out = read(anonymize(to.file(to.element(FRAME, "UI", "1.2.4")), rules))
    assert (out.StudyInstanceUID, out.SeriesInstanceUID) == ("1.2.3", rules.new_uid(uid(1, 1)))
    assert "FrameOfReferenceUID" not in out


def test_only_at_the_top_where_sequences_are_left_alone() -> None:
    to = Writer()
    data = to.file(to.sequence(0x00081140, to.element(REFERENCED, "UI", uid(1, 1, 2)), undefined=True))
    rules = Anonymization(remap_uids=True, sequences=False)
    out = read(anonymize(data, rules))
    assert out.SOPInstanceUID == rules.new_uid(uid(1, 1, 1))
    assert out.ReferencedImageSequence[0].ReferencedSOPInstanceUID == uid(1, 1, 2)


def test_nothing_is_remapped_unless_asked_for() -> None:
    data = small_dicom()
    assert anonymize(data, Anonymization()) == data
    assert anonymize(data, Anonymization.vendor_tags()).count(uid(1, 1, 1).encode()) == 2
