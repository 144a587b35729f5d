"""The rules that are there already: the vendor's nine tags and the Basic Profile of PS3.15 annex E, on real files."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from postdicom_async import Anonymization, UsageError
from postdicom_async.dicom.anonymize import rules as anonymize_profile
from tests.support.anonymizing import (
    DATA,
    SHIPPED,
    Leaf,
    after,
    anonymize,
    content_of,
    dcmdump,
    leaves,
    meta_leaves,
    read,
    refusal,
    result_of,
    strictly_invalid,
)
from tests.support.dicom_files import small_dicom
from tests.unit.test_anonymize_files import COMPLAINTS, GOOD, PADDING, TRUNCATED

_TABLE = import_module(anonymize_profile._TABLE)

VENDORS_NINE: dict[int, bytes | None] = {
    0x00100010: b"ANONYMOUS ",
    0x00100020: b"ANONYMOUS ",
    **dict.fromkeys((0x00101000, 0x00101001, 0x00081030, 0x00080090, 0x00080080, 0x00080081, 0x00080050), b""),
}

# Of table E.1-1 of PS3.15, as its Basic Profile column has it: nothing of an original value stays in any of these.
IDENTIFYING = {
    "AccessionNumber", "AdditionalPatientHistory", "AdmissionID", "AdmittingDiagnosesDescription",
    "CurrentPatientLocation", "EthnicGroup", "ImageComments", "InstitutionAddress", "InstitutionName",
    "InstitutionalDepartmentName", "IssuerOfPatientID", "MedicalRecordLocator", "NameOfPhysiciansReadingStudy",
    "Occupation", "OperatorsName", "OtherPatientIDs", "OtherPatientNames", "PatientAddress", "PatientAge",
    "PatientBirthDate", "PatientBirthName", "PatientBirthTime", "PatientComments", "PatientID",
    "PatientMotherBirthName", "PatientName", "PatientReligiousPreference", "PatientSex", "PatientSize",
    "PatientTelephoneNumbers", "PatientWeight", "PerformingPhysicianName", "PhysiciansOfRecord",
    "ReferringPhysicianAddress", "ReferringPhysicianName", "ReferringPhysicianTelephoneNumbers",
    "RequestingPhysician", "ResponsiblePerson", "ReviewerName", "SeriesDescription", "StationName", "StudyComments",
    "StudyDate", "StudyDescription", "StudyID", "StudyTime", "VerifyingObserverName",
}  # fmt: skip
EMPTIED = {
    "AccessionNumber", "PatientBirthDate", "PatientName", "PatientSex", "ReferringPhysicianName", "StudyDate",
    "StudyID",
}  # fmt: skip
SAYS_NOTHING = {b"", b"ANONYMIZED", b"19000101", b"000000 ", b"000000", b"000Y", b"0 ", b"0"}
NEW_UIDS = {
    "ConcatenationUID", "DimensionOrganizationUID", "FrameOfReferenceUID", "InstanceCreatorUID",
    "IrradiationEventUID", "ReferencedFrameOfReferenceUID", "ReferencedSOPInstanceUID",
    "RelatedFrameOfReferenceUID", "SOPInstanceUID", "SeriesInstanceUID", "StorageMediaFileSetUID",
    "StudyInstanceUID", "SynchronizationFrameOfReferenceUID",
}  # fmt: skip
MARKS = {
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "Basic Application Confidentiality Profile",
    "LongitudinalTemporalInformationModified": "REMOVED",
}
# What they refer to gets other UIDs, the rest of them may stay (X/Z/U*).
REFERENCES = {(0x0008, 0x1140), (0x0008, 0x2112)}
CHANGED = {tuple(entry) for entry in _TABLE.ALL_TAGS if len(entry) == 2} - REFERENCES
NOT_INSTANCES = {"SOPClassUID", "ReferencedSOPClassUID", "CodingSchemeUID", "ContextUID"}


@cache
def changed(name: str) -> tuple[bytes, bytes]:
    data = (DATA / name).read_bytes()
    return data, anonymize(data, PROFILE)


PROFILE = Anonymization.basic_profile(secret=b"of the tests")


def is_instance(leaf: Leaf) -> bool:
    registered = leaf.value.strip(b"\0 ").decode() in UID_dictionary
    return leaf.vr == "UI" and keyword_for_tag(leaf.tag) not in NOT_INSTANCES and not registered


def stays(leaf: Leaf) -> bool:
    """Whether the Basic Profile leaves an element and all it lies in as they are; marks are looked at on their own."""
    for tag in leaf.tags:
        group, number = divmod(tag, 0x10000)
        if group & 1 or (group, number) in CHANGED or group & 0xFF00 == 0x5000 or tag == PADDING:
            return False
        if (group & 0xFF00 == 0x6000 and number in (0x3000, 0x4000)) or tag >> 16 == 0x0012:
            return False
    return (
        not is_instance(leaf) if leaf.vr == "UI" else leaf.tag & 0xFFFF != 0 and keyword_for_tag(leaf.tag) not in MARKS
    )


# --- the vendor's nine tags -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_vendors_nine_tags(name: str) -> None:
    data = (DATA / name).read_bytes()
    out = anonymize(data, Anonymization.vendor_tags())
    assert leaves(out) == after(leaves(data), VENDORS_NINE | {PADDING: None})
    assert strictly_invalid(out) <= strictly_invalid(data)


def test_own_rules_over_the_vendors() -> None:
    data = small_dicom()
    rules = Anonymization.vendor_tags({"00100010": "Q^R", "(0008,0050)": None, "StudyID": "7"})
    out = read(anonymize(data, rules))
    assert (out.PatientName, out.PatientID, out.StudyID) == ("Q^R", "ANONYMOUS", "7")
    assert "AccessionNumber" not in out
    with pytest.raises(UsageError, match="mapping"):
        Anonymization.vendor_tags(["PatientName"])  # type: ignore[arg-type]


# --- the Basic Profile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_nothing_that_identifies_is_left(name: str) -> None:
    data, out = changed(name)
    before, left = leaves(data), leaves(out)
    assert not [leaf for leaf in left if leaf.tag >> 16 & 1]
    for leaf in left:
        keyword = keyword_for_tag(leaf.tag)
        assert keyword not in IDENTIFYING or leaf.value in SAYS_NOTHING, keyword
        assert keyword not in EMPTIED or len(leaf.path) > 1 or not leaf.value, keyword
        assert keyword not in NEW_UIDS or not leaf.value or leaf.value.startswith(b"2.25."), keyword
    kept = b"\xff".join([leaf.value for leaf in before if stays(leaf)] + list(meta_leaves(out).values()))
    values = {leaf.value.strip(b" \0") for leaf in before if leaf.tag & 0xFFFF and not stays(leaf)}
    values -= {leaf.value.strip(b"\0") for leaf in before if leaf.vr == "UI" and not is_instance(leaf)}
    content = content_of(out)
    meant = {one for one in values - SAYS_NOTHING if len(one) >= 6 and one.strip(b"\0") and one not in kept}
    assert not [one for one in meant if one in content]


@pytest.mark.parametrize("name", GOOD)
def test_all_that_does_not_identify_is_left(name: str) -> None:
    data, out = changed(name)
    assert [leaf for leaf in leaves(out) if stays(leaf)] == [leaf for leaf in leaves(data) if stays(leaf)]
    dataset = read(out)
    assert {keyword: dataset[keyword].value for keyword in MARKS} == MARKS
    (code,) = dataset.DeidentificationMethodCodeSequence
    assert [code.CodeValue, code.CodingSchemeDesignator] == ["113100", "DCM"]
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    assert not {0x00020016, 0x00020017, 0x00020018, 0x00020100, 0x00020102} & meta_leaves(out).keys()
    assert strictly_invalid(out) <= strictly_invalid(data)


def test_dcmdump_takes_it(tmp_path: Path) -> None:
    files = {f"{number} {Path(name).name}": changed(name)[1] for number, name in enumerate(GOOD)}
    complaints = {name.partition(" ")[2]: text for name, text in dcmdump(tmp_path, files).items()}
    assert complaints == {
        name: text for name, text in COMPLAINTS.items() if name not in ("UN_sequence.dcm", "winter.dcm")
    }


def test_uids_are_consistent_over_all_files() -> None:
    """One UID becomes one other, whichever file and sequence it stands in; no two become the same."""
    new_of: dict[bytes, bytes] = {}
    for name in GOOD:
        data, out = changed(name)
        old, new = (
            [leaf for leaf in leaves(one) if leaf.vr == "UI" and keyword_for_tag(leaf.tag) in NEW_UIDS]
            for one in (data, out)
        )
        found = {leaf.path: leaf.value for leaf in new}
        for leaf in old:
            if leaf.path in found and leaf.value:
                assert new_of.setdefault(leaf.value, found[leaf.path]) == found[leaf.path]
    assert len(new_of) > 100
    assert max(Counter(new_of.values()).values()) == 1


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.suffix == ".dcm" and "truncated" in name.name])
def test_cut_files_are_not_sent(name: Path) -> None:
    assert refusal(result_of(name.read_bytes(), PROFILE)) == TRUNCATED[name.relative_to(DATA).as_posix()]


# --- what pydicom's files do not hold ---------------------------------------------------------------------------------


def made(dataset: Dataset) -> Dataset:
    """Add elements to a small file, write and anonymise it by the Basic Profile."""
    whole = read(small_dicom(pixel_bytes=0))
    whole.update(dataset)
    data = BytesIO()
    whole.save_as(data)
    return read(anonymize(data.getvalue(), PROFILE))


def test_curves_and_overlays() -> None:
    dataset = Dataset()
    dataset.add_new(0x50020010, "US", 2)
    dataset.add_new(0x50023000, "OW", b"DRAWN TEXT")
    dataset.add_new(0x60020010, "US", 8)
    dataset.add_new(0x60023000, "OW", b"DRAWN TEXT")
    dataset.add_new(0x60024000, "LT", "COMMENT")
    out = made(dataset)
    assert [element.tag for element in out if element.tag.group >= 0x5000] == [0x60020010]


def test_what_must_not_be_empty_becomes_a_value_that_says_nothing() -> None:
    dataset = Dataset()
    dataset.ContentDate, dataset.AcquisitionDateTime, dataset.PersonName = "20200102", "20200102030405.5", "Doe^John"
    dataset.FlowIdentifier, dataset.AnnotationGroupUID = b"flow of John", "1.2.3"
    out = made(dataset)
    assert (out.ContentDate, out.AcquisitionDateTime, out.PersonName) == ("19000101", "19000101000000", "ANONYMIZED")
    assert out.FlowIdentifier == bytes(8)
    assert out.AnnotationGroupUID.startswith("2.25.")


def test_everything_in_a_report_says_nothing() -> None:
    """What a report is about lies in sequences of sequences; their structure stays."""
    date, name, image = Dataset(), Dataset(), Dataset()
    date.ValueType, date.Date = "DATE", "20200102"
    name.ValueType, name.PersonName, name.ContentSequence = "PNAME", "Doe^John", [date]
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3"
    name.ReferencedSOPSequence = [image]
    name.private_block(0x0041, "PRIVATE", create=True).add_new(1, "LO", "Doe")
    dataset = Dataset()
    dataset.ContentSequence = [name, date]
    one, two = made(dataset).ContentSequence
    assert (one.ValueType, one.PersonName, two.Date) == ("ANONYMIZED", "ANONYMIZED", "19000101")
    assert (one.ContentSequence[0].ValueType, one.ContentSequence[0].Date) == ("ANONYMIZED", "19000101")
    assert one.ReferencedSOPSequence[0].ReferencedSOPClassUID == CTImageStorage
    assert one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == PROFILE.new_uid("1.2.3")
    assert not [element for element in one if element.tag.is_private]


def test_marks_of_an_earlier_profile_are_replaced() -> None:
    dataset = Dataset()
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "NO", "by hand of J. Doe"
    dataset.DeidentificationMethodCodeSequence = []
    out = made(dataset)
    assert {keyword: out[keyword].value for keyword in MARKS} == MARKS
    assert len(out.DeidentificationMethodCodeSequence) == 1


def test_own_rules_go_before_it_and_are_inserted() -> None:
    profile = Anonymization.basic_profile(
        {"00100020": "S-001", "ClinicalTrialSubjectID": "17", "SeriesDescription": "kept short", "Modality": None}
    )
    out = read(anonymize(small_dicom(), profile))
    assert (out.PatientID, out.ClinicalTrialSubjectID, out.SeriesDescription) == ("S-001", "17", "kept short")
    assert "Modality" not in out
    assert out.PatientIdentityRemoved == "YES"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anonymize_profile, "_TABLE", "dicomanonymizer.not_there")
    with pytest.raises(UsageError, match=r"postdicom-async\[anonymize\]"):
        Anonymization.basic_profile()
    with pytest.raises(UsageError, match="mapping"):
        Anonymization.basic_profile("PatientID")  # type: ignore[arg-type]
