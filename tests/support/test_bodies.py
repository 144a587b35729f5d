"""The builders make what their names say, as pydicom and the standard library read it."""

from __future__ import annotations

import json
from email import message_from_bytes
from io import BytesIO
from xml.etree import ElementTree as ET

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.support.bodies import dicom_json, json_reply, multipart_related, stow_answer
from tests.support.dicom_files import JPEG, UNCOMPRESSED_SYNTAXES, small_dicom, study_files, uid

PARTS = [b"one\r\n\r\ntwo", b"", b"three"]


def read(content_type: str, body: bytes) -> list[bytes]:
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    return [bytes(part.get_payload(decode=True)) for part in message.get_payload()]  # type: ignore[union-attr]


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize(("preamble", "leading"), [(b"", False), (b"", True), (b"hello", True)])
def test_multipart_is_read_by_the_standard_library(quoted: bool, preamble: bytes, leading: bool) -> None:
    made = multipart_related(PARTS, quoted=quoted, preamble=preamble, leading_crlf=leading, epilogue=b"bye")
    assert read(made.content_type, made.body) == PARTS


def test_multipart_variants() -> None:
    assert multipart_related([b"x"], boundary="b", closing=False).body == (
        b"--b\r\nContent-Type: application/dicom\r\n\r\nx\r\n"
    )
    made = multipart_related([b"x"], boundary="b", final_crlf=False, part_headers={}, leading_crlf=True)
    assert made.body == b"\r\n--b\r\n\r\nx\r\n--b--"
    numbered = multipart_related([b"x", b"y"], part_headers=lambda n, part: [("N", f"{n}{len(part)}")])
    assert b"N: 01\r\n" in numbered.body
    assert numbered.reply(206).status == 206


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED_SYNTAXES, JPEG])
def test_files_are_read_by_pydicom(syntax: str) -> None:
    content = small_dicom(uid(1), uid(1, 2), uid(1, 2, 3), transfer_syntax=syntax, patient_name="DOE^J")
    dataset = dcmread(BytesIO(content))
    assert dataset.file_meta.TransferSyntaxUID == syntax
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == uid(1, 2, 3)
    assert dataset.PatientName == "DOE^J"
    assert len(dataset.PixelData) >= 2048


def test_studies_of_files() -> None:
    files = study_files(5, study=9, series=2, pixel_bytes=0)
    read_back = [dcmread(BytesIO(content)) for content in files.values()]
    assert [dataset.SOPInstanceUID for dataset in read_back] == list(files)
    assert {dataset.SeriesInstanceUID for dataset in read_back} == {uid(9, 1), uid(9, 2)}
    assert len(small_dicom(pixel_bytes=500_000)) >= 500_000


def test_dicom_json() -> None:
    assert dicom_json(PatientID="1") == {"00100020": {"vr": "LO", "Value": ["1"]}}
    assert json_reply([]).body == b"[]"


def test_store_answers_in_json() -> None:
    body = stow_answer(referenced=["1.2"], warned=["1.3"], failed=["1.4", ("1.5", 0xA700)], other_failures=[272])
    answer = Dataset.from_json(json.loads(body))
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == ["1.2", "1.3"]
    assert answer.ReferencedSOPSequence[1].WarningReason == 0xB000
    assert [item.FailureReason for item in answer.FailedSOPSequence] == [0x0110, 0xA700]
    assert answer.OtherFailuresSequence[0].FailureReason == 272


def test_store_answers_in_xml() -> None:
    root = ET.fromstring(stow_answer(referenced=["1.2"], failed=["1.4"], form="xml"))
    keywords = [element.get("keyword") for element in root]
    assert keywords == ["FailedSOPSequence", "ReferencedSOPSequence"]
    values = [element.text for element in root.iter("{http://dicom.nema.org/PS3.19/models/NativeDICOM}Value")]
    assert "1.2" in values
