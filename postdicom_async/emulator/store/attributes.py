"""Which attributes belong to which level of a search: the tables of PS3.18 section 10.6.3, as DICOM keywords.

The index holds the attributes named here; a search that asks an instance for anything else reads its file.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

__all__ = [
    "INDEXED_TAGS",
    "KEPT_BY_LEVEL",
    "RETURNED_BY_LEVEL",
    "Level",
    "hex_tag",
    "resolve_attribute",
    "vr_of",
]


class Level(StrEnum):
    """A level of the query/retrieve hierarchy; patient attributes belong to the study."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


_STUDY_RETURNED = (
    "StudyDate", "StudyTime", "AccessionNumber", "InstanceAvailability", "ModalitiesInStudy",
    "ReferringPhysicianName", "TimezoneOffsetFromUTC", "RetrieveURL", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)  # fmt: skip
_STUDY_KEPT = (
    *_STUDY_RETURNED,
    "StudyDescription", "PatientAge", "PatientSize", "PatientWeight", "PatientComments", "PatientBirthTime",
    "PatientBirthName", "OtherPatientIDs", "OtherPatientNames", "IssuerOfPatientID", "EthnicGroup",
    "PatientIdentityRemoved", "AdditionalPatientHistory", "Occupation", "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord", "AdmittingDiagnosesDescription", "InstitutionName", "InstitutionalDepartmentName",
    "ProcedureCodeSequence", "RequestedProcedureDescription", "RequestedProcedureID",
    "AnatomicRegionsInStudyCodeSequence",
)  # fmt: skip
_SERIES_RETURNED = (
    "Modality", "TimezoneOffsetFromUTC", "SeriesDescription", "RetrieveURL", "SeriesInstanceUID", "SeriesNumber",
    "NumberOfSeriesRelatedInstances", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
    "RequestAttributesSequence",
)  # fmt: skip
_SERIES_KEPT = (
    *_SERIES_RETURNED,
    "SeriesDate", "SeriesTime", "BodyPartExamined", "Laterality", "ProtocolName", "PatientPosition",
    "PerformingPhysicianName", "OperatorsName", "Manufacturer", "ManufacturerModelName", "StationName",
    "FrameOfReferenceUID", "PerformedProcedureStepDescription", "PerformedProcedureStepID",
)  # fmt: skip
_INSTANCE_RETURNED = (
    "SOPClassUID", "SOPInstanceUID", "InstanceAvailability", "TimezoneOffsetFromUTC", "RetrieveURL",
    "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames",
)  # fmt: skip
_INSTANCE_KEPT = (
    *_INSTANCE_RETURNED,
    "ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionNumber", "ImageType",
    "InstanceCreationDate", "InstanceCreationTime", "SamplesPerPixel", "PhotometricInterpretation",
    "PixelRepresentation", "SliceLocation", "ContentLabel", "ContentDescription",
)  # fmt: skip

_COMPUTED = frozenset(
    {
        "InstanceAvailability", "ModalitiesInStudy", "RetrieveURL", "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances",
    }
)  # fmt: skip


def hex_tag(tag: int) -> str:
    """Return a tag as the eight upper-case hexadecimal digits of the DICOM JSON model."""
    return f"{tag:08X}"


def _tags(keywords: tuple[str, ...]) -> tuple[str, ...]:
    tags = (tag_for_keyword(keyword) for keyword in keywords)
    return tuple(dict.fromkeys(hex_tag(tag) for tag in tags if tag is not None))


RETURNED_BY_LEVEL: dict[Level, tuple[str, ...]] = {
    Level.STUDY: _tags(_STUDY_RETURNED),
    Level.SERIES: _tags(_SERIES_RETURNED),
    Level.INSTANCE: _tags(_INSTANCE_RETURNED),
}
"""What an answer holds without being asked (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""

KEPT_BY_LEVEL: dict[Level, tuple[str, ...]] = {
    Level.STUDY: _tags(_STUDY_KEPT),
    Level.SERIES: _tags(_SERIES_KEPT),
    Level.INSTANCE: _tags(_INSTANCE_KEPT),
}
"""What the index can match and return."""

INDEXED_TAGS: tuple[int, ...] = tuple(
    sorted(
        {int(tag, 16) for tags in KEPT_BY_LEVEL.values() for tag in tags}
        - {keyword_dict[keyword] for keyword in _COMPUTED}
    )
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
    if len(name) == 8:
        try:
            return hex_tag(int(name, 16))
        except ValueError:
            pass
    tag = tag_for_keyword(name)
    return None if tag is None else hex_tag(tag)
