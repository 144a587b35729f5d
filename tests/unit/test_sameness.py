"""Whether two files hold one instance, as it decides what an upload may claim."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from postdicom_async.dicom.header import data_set_start
from postdicom_async.dicom.sameness import Sameness, compare_files
from tests.support.dicom_files import DEFLATED, EXPLICIT, IMPLICIT, JPEG, small_dicom

if TYPE_CHECKING:
    from collections.abc import Callable

SAME, DIFFERENT, UNCLEAR = Sameness.SAME, Sameness.DIFFERENT, Sameness.UNCLEAR


def rewritten(data: bytes, change: Callable[[Any], None], **how: Any) -> bytes:
    """Return a file as pydicom writes it after a change."""
    dataset = pydicom.dcmread(BytesIO(data))
    change(dataset)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, **how)
    return buffer.getvalue()


def with_sequence(*, undefined: bool) -> bytes:
    item = Dataset()
    item.CodeValue = "T-04000"

    def change(dataset: Any) -> None:
        dataset.AnatomicRegionSequence = [item]
        dataset["AnatomicRegionSequence"].is_undefined_length = undefined
        item.is_undefined_length_sequence_item = undefined

    return rewritten(small_dicom(), change)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, JPEG, DEFLATED])
def test_the_same_bytes(syntax: str) -> None:
    data = small_dicom(transfer_syntax=syntax)
    assert compare_files(data, data) is SAME
    assert compare_files(data, b"\x01" * 128 + data[128:]) is SAME


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, JPEG, DEFLATED])
def test_another_file_meta_information(syntax: str) -> None:
    """Archives put their own implementation and source titles in."""

    def change(dataset: Any) -> None:
        dataset.file_meta.ImplementationVersionName = "ANOTHER"
        dataset.file_meta.SourceApplicationEntityTitle = "PACS"

    data = small_dicom(transfer_syntax=syntax)
    other = rewritten(data, change)
    assert other != data
    assert compare_files(data, other) is SAME


def test_lengths_of_sequences_and_padding_are_form() -> None:
    one, other = with_sequence(undefined=True), with_sequence(undefined=False)
    assert one != other
    assert compare_files(one, other) is SAME
    padded = rewritten(one, lambda dataset: dataset.add_new(0xFFFCFFFC, "OB", b"\0" * 10))
    assert compare_files(one, padded) is SAME


def test_another_uncompressed_syntax_holds_the_same() -> None:
    def implicit(dataset: Any) -> None:
        dataset.file_meta.TransferSyntaxUID = UID(IMPLICIT)

    data = small_dicom()
    assert compare_files(data, rewritten(data, implicit)) is SAME


@pytest.mark.parametrize("values", [{"patient_name": "OTHER^NAME"}, {"patient_id": "other"}, {"pixel_bytes": 300}])
def test_any_value_makes_the_difference(values: dict[str, Any]) -> None:
    assert compare_files(small_dicom(), small_dicom(**values)) is DIFFERENT


def test_every_flipped_bit_after_the_meta_information_is_seen() -> None:
    data = small_dicom(pixel_bytes=64)
    found = data_set_start(data)
    assert found is not None
    reserved = data.index(b"\xe0\x7f\x10\0OW") + 6  # two bytes that mean nothing (PS3.5 section 7.1.2)
    for at in {*range(found[1], len(data))} - {reserved, reserved + 1}:
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert compare_files(data, flipped) is not SAME


def test_compressed_on_one_side_cannot_be_told() -> None:
    assert compare_files(small_dicom(), small_dicom(transfer_syntax=JPEG)) is UNCLEAR
    other = small_dicom(transfer_syntax=DEFLATED, patient_id="other")
    assert compare_files(small_dicom(transfer_syntax=DEFLATED), other) is UNCLEAR


@pytest.mark.parametrize("other", [b"", b"<html>", b"\0" * 128 + b"DICM", b"\xff" * 5000])
def test_what_is_no_instance_cannot_be_told(other: bytes) -> None:
    assert compare_files(small_dicom(), other) is UNCLEAR


def test_every_cut_is_seen() -> None:
    data = small_dicom(pixel_bytes=64)
    for end in range(len(data)):
        assert compare_files(data, data[:end]) is not SAME


def with_text(raw: bytes) -> bytes:
    """Return a file in UTF-8 with a comment of these bytes, whether they are UTF-8 or not."""

    def change(dataset: Any) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.add_new("PatientComments", "LT", "x" * len(raw))

    return rewritten(small_dicom(), change).replace(b"x" * len(raw), raw)


def test_text_that_cannot_be_decoded_is_not_taken_for_other_text() -> None:
    """Replaced by U+FFFD all of it looks alike; some archives write it so, and then it is lost."""
    sent = with_text(b"caf\xe9")
    assert compare_files(sent, with_text(b"caf\xea")) is UNCLEAR
    assert compare_files(sent, with_text("caf\ufffd".encode())) is UNCLEAR
    assert compare_files(with_text("café".encode()), with_text("cafè".encode())) is DIFFERENT


@pytest.mark.parametrize("value", [math.nan, [1.0, math.nan]])
def test_no_number_is_the_same_as_no_number(value: Any) -> None:
    one = rewritten(small_dicom(), lambda dataset: dataset.add_new("RealWorldValueSlope", "FD", value))
    padded = rewritten(one, lambda dataset: dataset.add_new(0xFFFCFFFC, "OB", b"\0" * 10))
    assert compare_files(one, padded) is SAME
    assert compare_files(small_dicom(), padded) is DIFFERENT


def test_the_same_pixels_under_the_name_of_another_syntax_are_not_what_was_sent() -> None:
    data = small_dicom(transfer_syntax=JPEG)
    assert compare_files(data, data.replace(JPEG.encode(), b"1.2.840.10008.1.2.4.57")) is UNCLEAR
