"""Which attributes belong to which level of a search: the tables of PS3.18 section 10.6.3, as DICOM keywords.

The index holds the attributes named here; a search that asks an instance for anything else reads its file.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword


class EntityLevel(StrEnum):
    """A level of the query/retrieve hierarchy; patient attributes belong to the study."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


_RETURNED = {
    EntityLevel.STUDY: """
        StudyDate StudyTime AccessionNumber InstanceAvailability ModalitiesInStudy ReferringPhysicianName
        TimezoneOffsetFromUTC RetrieveURL PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID
        StudyID NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances
    """,
    EntityLevel.SERIES: """
        Modality TimezoneOffsetFromUTC SeriesDescription RetrieveURL SeriesInstanceUID SeriesNumber
        NumberOfSeriesRelatedInstances PerformedProcedureStepStartDate PerformedProcedureStepStartTime
        RequestAttributesSequence
    """,
    EntityLevel.INSTANCE: """
        SOPClassUID SOPInstanceUID InstanceAvailability TimezoneOffsetFromUTC RetrieveURL InstanceNumber
        Rows Columns BitsAllocated NumberOfFrames
    """,
}
_ALSO_KEPT = {
    EntityLevel.STUDY: """
        StudyDescription PatientAge PatientSize PatientWeight PatientComments PatientBirthTime
        PatientBirthName OtherPatientIDs OtherPatientNames IssuerOfPatientID EthnicGroup
        PatientIdentityRemoved AdditionalPatientHistory Occupation NameOfPhysiciansReadingStudy
        PhysiciansOfRecord AdmittingDiagnosesDescription InstitutionName InstitutionalDepartmentName
        ProcedureCodeSequence RequestedProcedureDescription RequestedProcedureID
        AnatomicRegionsInStudyCodeSequence
    """,
    EntityLevel.SERIES: """
        SeriesDate SeriesTime BodyPartExamined Laterality ProtocolName PatientPosition
        PerformingPhysicianName OperatorsName Manufacturer ManufacturerModelName StationName
        FrameOfReferenceUID PerformedProcedureStepDescription PerformedProcedureStepID
    """,
    EntityLevel.INSTANCE: """
        ContentDate ContentTime AcquisitionDate AcquisitionTime AcquisitionNumber ImageType
        InstanceCreationDate InstanceCreationTime SamplesPerPixel PhotometricInterpretation
        PixelRepresentation SliceLocation ContentLabel ContentDescription
    """,
}
_COMPUTED = """
    InstanceAvailability ModalitiesInStudy RetrieveURL NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances
    NumberOfSeriesRelatedInstances
"""
_TAG = re.compile("[0-9A-Fa-f]{8}")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Return whether a text is a UID (PS3.5 section 9.1); it becomes part of addresses and file names.

    Leading zeros of a component are let through: they are wrong but found in the wild, and harmless here.
    """
    return len(text) <= 64 and bool(_UID.fullmatch(text))


def hex_tag(tag: int) -> str:
    """Return a tag as the eight upper-case hexadecimal digits of the DICOM JSON model."""
    return f"{tag:08X}"


def _tags(keywords: str) -> tuple[str, ...]:
    return tuple(hex_tag(keyword_dict[keyword]) for keyword in keywords.split())


RETURNED_BY_LEVEL = {level: _tags(keywords) for level, keywords in _RETURNED.items()}
"""What an answer holds without being asked (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""

KEPT_BY_LEVEL = {level: (*tags, *_tags(_ALSO_KEPT[level])) for level, tags in RETURNED_BY_LEVEL.items()}
"""What the index can match and return."""

INDEXED_TAGS = sorted(
    int(tag, 16) for tag in {tag for tags in KEPT_BY_LEVEL.values() for tag in tags} - set(_tags(_COMPUTED))
)
"""What is read from a file when it is stored."""


@lru_cache(8192)  # names come from clients
def vr_of(tag: str) -> str:
    """Return the value representation of a tag, ``UN`` when the dictionary does not know it."""
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "UN"


@lru_cache(8192)  # names come from clients
def resolve_attribute(name: str) -> str | None:
    """Return the eight hexadecimal digits for a keyword or a tag, None when it is neither."""
    if _TAG.fullmatch(name):  # `int` alone takes signs, underscores, spaces and digits of other scripts too
        return name.upper()
    tag = tag_for_keyword(name)
    return None if tag is None else hex_tag(tag)
