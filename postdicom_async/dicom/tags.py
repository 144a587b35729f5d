"""Tags, value representations and transfer syntaxes, each declared once (PS3.5, PS3.6), and how callers name a tag.

The attributes that searches, uploads and anonymisation use are listed here; for the thousands of others pydicom is
asked. Importing pydicom takes longer than many searches, and it imports numpy, so it is used only for those. Pure.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from postdicom_async.errors import UsageError

# --- how elements are written (PS3.5) ---------------------------------------------------------------------------------

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
"""Every other transfer syntax is written as explicit VR little endian (PS3.5 section A.4)."""

ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
UNDEFINED: Final = 0xFFFFFFFF
"""Undefined length: the value extends to its delimiter."""

SHORT_VRS: Final = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI",
     "UL", "US"}
)  # fmt: skip
"""Value representations with a length of 16 bits in explicit VR (PS3.5 table 7.1-2)."""
LONG_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""Those with two bytes of zeros and a length of 32 bits (PS3.5 table 7.1-1)."""
SHORT_VR_BYTES: Final = frozenset(vr.encode() for vr in SHORT_VRS)
LONG_VR_BYTES: Final = frozenset(vr.encode() for vr in LONG_VRS)
"""As they stand in a file: the walks over every file that is sent compare bytes, so that they decode nothing."""

# --- which attributes there are (PS3.6, PS3.7) ------------------------------------------------------------------------

# Attributes of searches (PS3.18 section 10.6) and worklists, those that viewers request besides, and all that this
# package names itself. A test compares every entry with pydicom's dictionary.
_TABLE = """
00020000 UL FileMetaInformationGroupLength  00020001 OB FileMetaInformationVersion
00020002 UI MediaStorageSOPClassUID  00020003 UI MediaStorageSOPInstanceUID  00020010 UI TransferSyntaxUID
00020016 AE SourceApplicationEntityTitle  00020017 AE SendingApplicationEntityTitle
00020018 AE ReceivingApplicationEntityTitle  00020026 UR SourcePresentationAddress
00020027 UR SendingPresentationAddress  00020028 UR ReceivingPresentationAddress
00020100 UI PrivateInformationCreatorUID  00020102 OB PrivateInformation  00080005 CS SpecificCharacterSet
00080012 DA InstanceCreationDate  00080015 DT InstanceCoercionDateTime  00080016 UI SOPClassUID
00080018 UI SOPInstanceUID  00080020 DA StudyDate  00080021 DA SeriesDate  00080022 DA AcquisitionDate
00080023 DA ContentDate  0008002A DT AcquisitionDateTime  00080030 TM StudyTime  00080031 TM SeriesTime
00080032 TM AcquisitionTime  00080033 TM ContentTime  00080050 SH AccessionNumber
00080051 SQ IssuerOfAccessionNumberSequence  00080054 AE RetrieveAETitle  00080056 CS InstanceAvailability
00080060 CS Modality  00080061 CS ModalitiesInStudy  00080062 UI SOPClassesInStudy  00080070 LO Manufacturer
00080080 LO InstitutionName  00080081 ST InstitutionAddress  00080090 PN ReferringPhysicianName
00080096 SQ ReferringPhysicianIdentificationSequence  00080100 SH CodeValue  00080102 SH CodingSchemeDesignator
00080104 LO CodeMeaning  00080201 SH TimezoneOffsetFromUTC  00081010 SH StationName  00081030 LO StudyDescription
00081032 SQ ProcedureCodeSequence  0008103E LO SeriesDescription  00081040 LO InstitutionalDepartmentName
00081050 PN PerformingPhysicianName  00081060 PN NameOfPhysiciansReadingStudy  00081070 PN OperatorsName
00081090 LO ManufacturerModelName  00081150 UI ReferencedSOPClassUID  00081155 UI ReferencedSOPInstanceUID
00081190 UR RetrieveURL  00081196 US WarningReason  00081197 US FailureReason  00081198 SQ FailedSOPSequence
00081199 SQ ReferencedSOPSequence  00100010 PN PatientName  00100020 LO PatientID  00100021 LO IssuerOfPatientID
00100024 SQ IssuerOfPatientIDQualifiersSequence  00100030 DA PatientBirthDate  00100032 TM PatientBirthTime
00100040 CS PatientSex  00101000 LO OtherPatientIDs  00101001 PN OtherPatientNames  00101010 AS PatientAge
00101020 DS PatientSize  00101030 DS PatientWeight  00101040 LO PatientAddress  00102154 SH PatientTelephoneNumbers
00102160 SH EthnicGroup  00104000 LT PatientComments  00120062 CS PatientIdentityRemoved
00120063 LO DeidentificationMethod  00120064 SQ DeidentificationMethodCodeSequence  00180010 LO ContrastBolusAgent
00180015 CS BodyPartExamined  00180050 DS SliceThickness  00181000 LO DeviceSerialNumber  00181030 LO ProtocolName
00185100 CS PatientPosition  00185101 CS ViewPosition  0020000D UI StudyInstanceUID  0020000E UI SeriesInstanceUID
00200010 SH StudyID  00200011 IS SeriesNumber  00200012 IS AcquisitionNumber  00200013 IS InstanceNumber
00200032 DS ImagePositionPatient  00200037 DS ImageOrientationPatient  00200052 UI FrameOfReferenceUID
00200060 CS Laterality  00201206 IS NumberOfStudyRelatedSeries  00201208 IS NumberOfStudyRelatedInstances
00201209 IS NumberOfSeriesRelatedInstances  00204000 LT ImageComments  00280002 US SamplesPerPixel
00280004 CS PhotometricInterpretation  00280008 IS NumberOfFrames  00280010 US Rows  00280011 US Columns
00280030 DS PixelSpacing  00280100 US BitsAllocated  00280101 US BitsStored  00280103 US PixelRepresentation
00280303 CS LongitudinalTemporalInformationModified  00282110 CS LossyImageCompression
00321032 PN RequestingPhysician  00321060 LO RequestedProcedureDescription  00380010 LO AdmissionID
00400002 DA ScheduledProcedureStepStartDate  00400009 SH ScheduledProcedureStepID
00400100 SQ ScheduledProcedureStepSequence  00400241 AE PerformedStationAETitle
00400244 DA PerformedProcedureStepStartDate  00400245 TM PerformedProcedureStepStartTime
00400253 SH PerformedProcedureStepID  00400254 LO PerformedProcedureStepDescription
00400275 SQ RequestAttributesSequence  00401001 SH RequestedProcedureID  00420010 ST DocumentTitle
00420011 OB EncapsulatedDocument  00420012 LO MIMETypeOfEncapsulatedDocument  04000550 SQ ModifiedAttributesSequence
04000561 SQ OriginalAttributesSequence  7FE00008 OF FloatPixelData  7FE00009 OD DoubleFloatPixelData
7FE00010 OB/OW PixelData  FFFCFFFC OB DataSetTrailingPadding
"""
_COMMON: Final[dict[str, tuple[int, str]]] = {
    keyword: (int(tag, 16), vr.replace("/", " or "))
    for tag, vr, keyword in re.findall(r"([0-9A-F]{8}) (\S+) (\w+)", _TABLE)
}
_BY_TAG: Final = {tag: (keyword, vr) for keyword, (tag, vr) in _COMMON.items()}

TAG: Final = {keyword: tag for keyword, (tag, _) in _COMMON.items()}
"""Keyword to tag, for code that names an attribute: a misspelt one fails when the file is imported."""
JSON_TAG: Final = {keyword: f"{tag:08X}" for keyword, tag in TAG.items()}
"""The same as DICOM JSON writes it (PS3.18 section F.2.2)."""


def tags_of(keywords: str) -> tuple[int, ...]:
    """Return the tags of keywords that stand here, with spaces between them, for code that names several."""
    return tuple(TAG[keyword] for keyword in keywords.split())


PIXEL_DATA: Final = frozenset(tags_of("FloatPixelData DoubleFloatPixelData PixelData"))


def tag_of_keyword(keyword: str) -> int | None:
    """Return the tag of a keyword, None for what is none."""
    if (known := TAG.get(keyword)) is not None:
        return known
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
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


@lru_cache(maxsize=16384)
def dictionary_vr(tag: int) -> str:
    """Return the VR that a tag is written with: the first where there is a choice, ``UN`` where none is known."""
    if tag & 0xFFFF == 0:
        return "UL"  # group length
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"  # private creators (PS3.5 section 7.8.1)
    vr = vr_of_tag(tag)
    return "OW" if vr == "OB or OW" else vr[:2] or "UN"


def tag_text(tag: int) -> str:
    """Return a tag as PS3.6 writes it, with its keyword where it has one."""
    return f"{keyword_of(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})".lstrip()


# --- how a caller names them ------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"(?:0?x)?([0-9a-f]{8})|(\()?([0-9a-f]{4}), ?([0-9a-f]{4})(?(2)\))", re.IGNORECASE | re.ASCII)
_LIKE_A_NAME = re.compile(r"\w{1,64}", re.ASCII)


def tag_of(name: str) -> int | None:
    """Return the tag that a text names, None where it names none.

    It is a keyword, or a number as ``GGGGEEEE``, ``xGGGGEEEE``, ``0xGGGGEEEE``, ``GGGG,EEEE`` or ``(GGGG,EEEE)``, in
    hexadecimal digits of either case; white space around it does not count, nor one space after the comma.
    """
    text = name.strip()
    if match := _NUMBER.fullmatch(text):
        return int(match[1] or match[3] + match[4], 16)
    return tag_of_keyword(text)


def checked_tag(name: object, argument: str) -> int:
    """Return the tag that an argument names; see `tag_of`.

    Raises:
        UsageError: it names none; the message names ``argument``.
    """
    tag = tag_of(name) if isinstance(name, str) else None
    if tag is not None:
        return tag
    # It may be a value that stands in the place of a name, and a patient's; only what looks like a name is shown.
    text = name.strip() if isinstance(name, str) else ""
    shown = repr(text) if _LIKE_A_NAME.fullmatch(text) else "a name"
    raise UsageError(f"{shown} is neither a DICOM keyword nor a tag (GGGGEEEE)", argument=argument)
