"""Headers put into one tree: patients, studies, series, instances; duplicates and disagreements."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.sequence import Sequence

from postdicom_async.dicom.header import HeaderGap
from postdicom_async.dicom.scan import FileFacts, Grouping, NoInstance, Scan, ScanStatus, read_facts
from tests.support.dicom_files import EXPLICIT, UNCOMPRESSED_SYNTAXES, small_dicom, uid

PRIVATE: dict[str, Any] = {
    "PatientName": "QUILLFEATHER^J",
    "PatientID": "QUILL-1",
    "IssuerOfPatientID": "QUILL-ISSUER",
    "PatientBirthDate": "18991231",
    "PatientSex": "F",
    "OtherPatientNames": "QUILL^OTHER",
    "StudyDate": "20240102",
    "StudyDescription": "QUILL study",
    "AccessionNumber": "QUILL-A",
    "ReferringPhysicianName": "QUILL^Doctor",
    "InstitutionName": "QUILL hospital",
    "InstitutionAddress": "QUILL street 1\r\nQUILLTOWN",
    "SeriesDate": "20240103",
    "SeriesDescription": "QUILL series",
    "Modality": "MR",
    "SeriesNumber": 7,
    "InstanceNumber": 12,
}


def dicom(study: int = 1, series: int = 1, number: int = 1, *, syntax: str = EXPLICIT, **values: Any) -> bytes:
    """Build a file of this study, series and instance; a value of None leaves the attribute out."""
    data = small_dicom(
        uid(study), uid(study, series), uid(study, series, number), number=number, transfer_syntax=syntax
    )
    if not values:
        return data
    dataset = pydicom.dcmread(BytesIO(data))
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def facts(data: bytes) -> FileFacts:
    read = read_facts(data, complete=True)
    assert isinstance(read, FileFacts), read
    return read


def grouped(*files: bytes) -> Scan:
    grouping = Grouping()
    for number, data in enumerate(files):
        grouping.add(Path(f"/QUILL/{number}"), len(data), facts(data))
    return grouping.scan()


# --- one header -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", UNCOMPRESSED_SYNTAXES)
def test_every_field(syntax: str) -> None:
    scan = grouped(dicom(syntax=syntax, OtherPatientIDs=["QUILL-2", "QUILL-3"], **PRIVATE))
    (patient,) = scan.patients
    (study,) = patient.studies
    (series,) = study.series
    (instance,) = series.instances
    assert (patient.patient_name, patient.patient_id, patient.issuer_of_patient_id) == (
        "QUILLFEATHER^J",
        "QUILL-1",
        "QUILL-ISSUER",
    )
    assert (patient.patient_birth_date, patient.patient_sex) == ("18991231", "F")
    assert (patient.other_patient_ids, patient.other_patient_names) == ("QUILL-2\\QUILL-3", "QUILL^OTHER")
    assert (study.study_instance_uid, study.study_date, study.study_description) == (uid(1), "20240102", "QUILL study")
    assert (study.accession_number, study.referring_physician_name) == ("QUILL-A", "QUILL^Doctor")
    assert (study.institution_name, study.institution_address) == ("QUILL hospital", "QUILL street 1\r\nQUILLTOWN")
    assert study.modalities_in_study == ("MR",)
    assert (series.series_instance_uid, series.series_date) == (uid(1, 1), "20240103")
    assert (series.modality, series.series_description, series.series_number) == ("MR", "QUILL series", 7)
    assert (instance.sop_instance_uid, instance.instance_number) == (uid(1, 1, 1), 12)
    assert instance.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert instance.transfer_syntax_uid == syntax
    assert instance.path == Path("/QUILL/0")
    assert instance.size == study.size > 1000
    assert study.paths == scan.paths == (instance.path,)
    assert scan.ok


def test_nothing_private_shows() -> None:
    scan = grouped(dicom(**PRIVATE), dicom(**PRIVATE))
    study = scan.studies[0]
    shown = repr([scan, scan.patients, study, study.series, scan.instances, scan.skipped, facts(dicom(**PRIVATE))])
    assert "QUILL" not in shown
    assert "1899" not in shown
    assert uid(1, 1, 1) in shown


def test_what_is_missing_or_empty_is_none() -> None:
    empty: dict[str, Any] = {keyword: "" for keyword in PRIVATE if keyword not in ("SeriesNumber", "PatientName")}
    for values in ({**empty, "PatientName": "^^^^", "SeriesNumber": None}, dict.fromkeys(("PatientName", "Modality"))):
        (patient,) = grouped(dicom(**values)).patients
        assert patient.patient_name is None
        (study,) = patient.studies
        assert study.modalities_in_study == ()
        assert study.series[0].modality is None
    assert patient.issuer_of_patient_id is None
    (instance,) = grouped(dicom(**empty)).instances
    assert instance.instance_number is None


def test_values_after_sequences_and_within_them() -> None:
    item = pydicom.Dataset()
    item.PatientID, item.StudyDescription = "INNER", "INNER"
    data = dicom(ReferencedStudySequence=Sequence([item]), StudyDescription=None)
    dataset = pydicom.dcmread(BytesIO(data))
    dataset["ReferencedStudySequence"].is_undefined_length = True
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    for one in (data, buffer.getvalue()):
        (patient,) = grouped(one).patients
        assert patient.patient_id == "T-1"
        assert patient.studies[0].study_description is None


@pytest.mark.parametrize("number", ["1.5", "x", "999999999999999999999999"])
def test_numbers_that_are_none(number: str) -> None:
    data = dicom(InstanceNumber=1).replace(b"\x20\x00\x13\x00IS\x02\x001 ", b"\x20\x00\x13\x00IS%b%b" % (
        len(number.ljust(4)).to_bytes(2, "little"), number.ljust(4).encode()
    ))  # fmt: skip
    (instance,) = grouped(data).instances
    assert instance.instance_number is None


def test_more_is_read_for_values_that_the_first_bytes_cut() -> None:
    data = dicom(InstanceNumber=1)
    cut = data.index(b"\x20\x00\x11\x00IS") + 4
    assert read_facts(data[:cut], complete=False) is HeaderGap.INCOMPLETE
    assert facts(data[:cut]).texts["patient_id"] == "T-1"


def test_a_directory() -> None:
    data = dicom()
    directory = data.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0", 1)
    assert read_facts(directory, complete=True) is NoInstance.DICOMDIR


@pytest.mark.parametrize("data", [b"", b"hello", bytes(200), b"%PDF" + bytes(500)])
def test_what_is_not_dicom(data: bytes) -> None:
    assert read_facts(data, complete=True) is HeaderGap.NOT_DICOM


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_instances_go_where_they_belong() -> None:
    keys = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 2, 9)]
    scan = grouped(*(dicom(*key, PatientID=f"P{key[0]}") for key in keys))
    assert [patient.patient_id for patient in scan.patients] == ["P1", "P2"]
    first, second = scan.studies
    assert [series.series_instance_uid for series in first.series] == [uid(1, 1), uid(1, 2)]
    assert [len(series.instances) for series in first.series] == [2, 2]
    assert {one.sop_instance_uid for one in scan.instances} == {uid(*key) for key in keys}
    assert len(second.instances) == 1
    assert scan.files == 5
    assert scan.skipped == ()


def test_modalities_of_all_series() -> None:
    files = [dicom(1, series, Modality=modality) for series, modality in enumerate(("PR", "CT", "CT", ""), 1)]
    assert grouped(*files).studies[0].modalities_in_study == ("CT", "PR")


def test_a_value_is_of_the_first_file_that_has_one() -> None:
    described = [dicom(1, 1, number, StudyDescription=text) for number, text in enumerate(("", "first", "second"))]
    assert grouped(*described).studies[0].study_description == "first"


def test_duplicates_in_a_series() -> None:
    one = dicom()
    other = dicom(StudyDescription="something else")
    same_size = one[:-1] + bytes([one[-1] ^ 1])
    scan = grouped(one, one, other, same_size, dicom(1, 2, 1))
    assert len(scan.instances) == 2
    assert scan.counts == {ScanStatus.DUPLICATE: 3}
    assert [skipped.reason for skipped in scan.skipped] == [
        "as large as the first one, and begins alike",
        "other content than the first one",
        "other content than the first one",
    ]
    assert {skipped.duplicate_of for skipped in scan.skipped} == {Path("/QUILL/0")}
    assert {skipped.uids for skipped in scan.skipped} == {(uid(1), uid(1, 1), uid(1, 1, 1))}
    assert scan.ok
    assert scan.files == 5


@pytest.mark.parametrize(
    ("first", "second", "patients"),
    [
        ({}, {}, 1),
        ({"PatientName": "Doe^John"}, {"PatientName": "DOE^JOHN^^"}, 1),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, 2),
        ({"PatientID": "1"}, {"PatientID": "2"}, 2),
        ({"PatientID": ""}, {"PatientID": ""}, 1),
        ({"PatientID": "", "PatientName": "A"}, {"PatientID": "", "PatientName": "B"}, 2),
        ({"PatientID": "", "PatientBirthDate": "19000101"}, {"PatientID": "", "PatientBirthDate": "19000102"}, 2),
        ({"PatientID": "", "PatientName": ""}, {"PatientID": "", "PatientName": ""}, 2),
    ],
)
def test_which_studies_are_of_one_patient(first: Any, second: Any, patients: int) -> None:
    scan = grouped(dicom(1, **first), dicom(2, **second))
    assert len(scan.patients) == patients
    assert [study.patient_conflicts for study in scan.studies] == [0, 0]


def test_a_study_of_two_patients_is_listed_once_and_says_so() -> None:
    scan = grouped(
        dicom(1, 1, 1, PatientID="A", IssuerOfPatientID=""),
        dicom(1, 1, 2, PatientID="B"),
        dicom(1, 1, 3, PatientID="A", PatientName="OTHER^NAME"),
        dicom(1, 1, 4, PatientID="A", PatientName="test^file"),
        dicom(1, 1, 5, PatientID="", PatientName="", OtherPatientNames="added"),
    )
    (patient,) = scan.patients
    (study,) = patient.studies
    assert (patient.patient_id, patient.patient_name, patient.other_patient_names) == ("A", "TEST^FILE", "added")
    assert study.patient_conflicts == 2
    assert len(study.instances) == 5


def test_one_id_with_two_names_is_one_patient_with_a_conflict() -> None:
    scan = grouped(dicom(1, PatientName="A"), dicom(2, PatientName="B"))
    assert [patient.patient_name for patient in scan.patients] == ["A"]
    assert [study.patient_conflicts for study in scan.studies] == [0, 1]


def test_no_files() -> None:
    scan = grouped()
    assert (scan.patients, scan.skipped, scan.files, scan.ok, scan.paths) == ((), (), 0, True, ())
