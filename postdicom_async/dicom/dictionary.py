"""Keywords, tags and value representations of DICOM attributes (PS3.6). Pure.

Those that searches are made of stand here; the thousands of others pydicom knows. Importing pydicom takes longer than
many a search, and it brings numpy along.
"""

from __future__ import annotations

from typing import Final

__all__ = ["keyword_of", "tag_of_keyword", "vr_of_tag"]

_COMMON: Final[dict[str, tuple[int, str]]] = {
    "SpecificCharacterSet": (0x00080005, "CS"),
    "InstanceCreationDate": (0x00080012, "DA"),
    "SOPClassUID": (0x00080016, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
    "StudyDate": (0x00080020, "DA"),
    "SeriesDate": (0x00080021, "DA"),
    "AcquisitionDate": (0x00080022, "DA"),
    "ContentDate": (0x00080023, "DA"),
    "AcquisitionDateTime": (0x0008002A, "DT"),
    "StudyTime": (0x00080030, "TM"),
    "SeriesTime": (0x00080031, "TM"),
    "AcquisitionTime": (0x00080032, "TM"),
    "ContentTime": (0x00080033, "TM"),
    "AccessionNumber": (0x00080050, "SH"),
    "RetrieveAETitle": (0x00080054, "AE"),
    "InstanceAvailability": (0x00080056, "CS"),
    "Modality": (0x00080060, "CS"),
    "ModalitiesInStudy": (0x00080061, "CS"),
    "SOPClassesInStudy": (0x00080062, "UI"),
    "Manufacturer": (0x00080070, "LO"),
    "InstitutionName": (0x00080080, "LO"),
    "InstitutionAddress": (0x00080081, "ST"),
    "ReferringPhysicianName": (0x00080090, "PN"),
    "CodeValue": (0x00080100, "SH"),
    "CodingSchemeDesignator": (0x00080102, "SH"),
    "CodeMeaning": (0x00080104, "LO"),
    "TimezoneOffsetFromUTC": (0x00080201, "SH"),
    "StationName": (0x00081010, "SH"),
    "StudyDescription": (0x00081030, "LO"),
    "ProcedureCodeSequence": (0x00081032, "SQ"),
    "SeriesDescription": (0x0008103E, "LO"),
    "InstitutionalDepartmentName": (0x00081040, "LO"),
    "PerformingPhysicianName": (0x00081050, "PN"),
    "NameOfPhysiciansReadingStudy": (0x00081060, "PN"),
    "OperatorsName": (0x00081070, "PN"),
    "ManufacturerModelName": (0x00081090, "LO"),
    "ReferencedSOPClassUID": (0x00081150, "UI"),
    "ReferencedSOPInstanceUID": (0x00081155, "UI"),
    "RetrieveURL": (0x00081190, "UR"),
    "PatientName": (0x00100010, "PN"),
    "PatientID": (0x00100020, "LO"),
    "IssuerOfPatientID": (0x00100021, "LO"),
    "PatientBirthDate": (0x00100030, "DA"),
    "PatientBirthTime": (0x00100032, "TM"),
    "PatientSex": (0x00100040, "CS"),
    "OtherPatientIDs": (0x00101000, "LO"),
    "PatientAge": (0x00101010, "AS"),
    "PatientSize": (0x00101020, "DS"),
    "PatientWeight": (0x00101030, "DS"),
    "EthnicGroup": (0x00102160, "SH"),
    "PatientComments": (0x00104000, "LT"),
    "PatientIdentityRemoved": (0x00120062, "CS"),
    "DeidentificationMethod": (0x00120063, "LO"),
    "ContrastBolusAgent": (0x00180010, "LO"),
    "BodyPartExamined": (0x00180015, "CS"),
    "SliceThickness": (0x00180050, "DS"),
    "DeviceSerialNumber": (0x00181000, "LO"),
    "ProtocolName": (0x00181030, "LO"),
    "PatientPosition": (0x00185100, "CS"),
    "ViewPosition": (0x00185101, "CS"),
    "StudyInstanceUID": (0x0020000D, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"),
    "StudyID": (0x00200010, "SH"),
    "SeriesNumber": (0x00200011, "IS"),
    "AcquisitionNumber": (0x00200012, "IS"),
    "InstanceNumber": (0x00200013, "IS"),
    "ImagePositionPatient": (0x00200032, "DS"),
    "ImageOrientationPatient": (0x00200037, "DS"),
    "FrameOfReferenceUID": (0x00200052, "UI"),
    "Laterality": (0x00200060, "CS"),
    "NumberOfStudyRelatedSeries": (0x00201206, "IS"),
    "NumberOfStudyRelatedInstances": (0x00201208, "IS"),
    "NumberOfSeriesRelatedInstances": (0x00201209, "IS"),
    "ImageComments": (0x00204000, "LT"),
    "SamplesPerPixel": (0x00280002, "US"),
    "PhotometricInterpretation": (0x00280004, "CS"),
    "NumberOfFrames": (0x00280008, "IS"),
    "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"),
    "PixelSpacing": (0x00280030, "DS"),
    "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"),
    "PixelRepresentation": (0x00280103, "US"),
    "LossyImageCompression": (0x00282110, "CS"),
    "RequestingPhysician": (0x00321032, "PN"),
    "RequestedProcedureDescription": (0x00321060, "LO"),
    "AdmissionID": (0x00380010, "LO"),
    "ScheduledProcedureStepStartDate": (0x00400002, "DA"),
    "ScheduledProcedureStepID": (0x00400009, "SH"),
    "ScheduledProcedureStepSequence": (0x00400100, "SQ"),
    "PerformedStationAETitle": (0x00400241, "AE"),
    "PerformedProcedureStepStartDate": (0x00400244, "DA"),
    "PerformedProcedureStepStartTime": (0x00400245, "TM"),
    "PerformedProcedureStepID": (0x00400253, "SH"),
    "PerformedProcedureStepDescription": (0x00400254, "LO"),
    "RequestAttributesSequence": (0x00400275, "SQ"),
    "RequestedProcedureID": (0x00401001, "SH"),
    "DocumentTitle": (0x00420010, "ST"),
    "EncapsulatedDocument": (0x00420011, "OB"),
    "MIMETypeOfEncapsulatedDocument": (0x00420012, "LO"),
    "PixelData": (0x7FE00010, "OB or OW"),
}
"""What is asked for and answered in searches (PS3.18 section 10.6) and worklists, and what viewers ask for besides."""

_BY_TAG: Final = {tag: (keyword, vr) for keyword, (tag, vr) in _COMMON.items()}


def tag_of_keyword(keyword: str) -> int | None:
    """Return the tag of a keyword, None for what is none."""
    if (known := _COMMON.get(keyword)) is not None:
        return known[0]
    from pydicom.datadict import tag_for_keyword

    return tag_for_keyword(keyword) if keyword else None  # the empty keyword is that of retired elements


def keyword_of(tag: int) -> str:
    """Return the keyword of a tag, nothing for one that is private, unknown or retired without a keyword."""
    if (known := _BY_TAG.get(tag)) is not None:
        return known[0]
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag)


def vr_of_tag(tag: int) -> str:
    """Return the VR of a tag, as the dictionary writes it; nothing for one that is private or unknown."""
    if (known := _BY_TAG.get(tag)) is not None:
        return known[1]
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""
