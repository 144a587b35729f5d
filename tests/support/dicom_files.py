"""Small valid DICOM files, made quickly and the same each time."""

from __future__ import annotations

import random
import zlib
from functools import lru_cache
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

__all__ = [
    "BIG_ENDIAN",
    "DEFLATED",
    "EXPLICIT",
    "IMPLICIT",
    "JPEG",
    "UNCOMPRESSED_SYNTAXES",
    "small_dicom",
    "study_files",
    "uid",
]

IMPLICIT: str = ImplicitVRLittleEndian
EXPLICIT: str = ExplicitVRLittleEndian
BIG_ENDIAN: str = ExplicitVRBigEndian
DEFLATED: str = DeflatedExplicitVRLittleEndian
JPEG: str = JPEGBaseline8Bit
UNCOMPRESSED_SYNTAXES = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)

ROOT = "1.2.826.0.1.3680043.10.1453"
WIDTH = 32


def uid(*numbers: int) -> str:
    """Make a UID of the tests' own from numbers."""
    return ".".join([ROOT, *map(str, numbers)])


@lru_cache(maxsize=512)
def small_dicom(
    study: str = uid(1),
    series: str = uid(1, 1),
    instance: str = uid(1, 1, 1),
    *,
    pixel_bytes: int = 2048,
    patient_name: str = "TEST^FILE",
    patient_id: str = "T-1",
    transfer_syntax: str = EXPLICIT,
    sop_class: str = CTImageStorage,
    number: int = 1,
) -> bytes:
    """Build one Part 10 file.

    ``pixel_bytes`` is rounded up to whole rows of 16-bit pixels, and 0 leaves the pixels out. The pixels are
    noise that depends on the instance UID. With a compressed transfer syntax they are one fragment of it,
    which is valid DICOM but not a valid image.
    """
    dataset = _header(study, series, instance, sop_class, patient_name, patient_id, number)
    if pixel_bytes:
        _add_pixels(dataset, instance, pixel_bytes, UID(transfer_syntax))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def study_files(count: int, *, study: int = 1, series: int = 1, pixel_bytes: int = 2048) -> dict[str, bytes]:
    """Build a study of that many instances, dealt out evenly to its series; SOP Instance UID -> file."""
    files: dict[str, bytes] = {}
    for number in range(1, count + 1):
        of_series = 1 + (number - 1) % series
        instance = uid(study, of_series, number)
        files[instance] = small_dicom(
            uid(study), uid(study, of_series), instance, pixel_bytes=pixel_bytes, number=number
        )
    return files


def _header(
    study: str, series: str, instance: str, sop_class: str, patient_name: str, patient_id: str, number: int
) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.StudyDate, dataset.StudyTime = "20200102", "030405"
    dataset.AccessionNumber, dataset.StudyID = "A-1", "1"
    dataset.Modality = "CT"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription, dataset.SeriesDescription = "Study of the tests", "Series of the tests"
    dataset.PatientName, dataset.PatientID = patient_name, patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    return dataset


def _add_pixels(dataset: Dataset, instance: str, wanted: int, syntax: UID) -> None:
    width = WIDTH if wanted < 65536 else 16 * WIDTH
    rows = -(-wanted // (2 * width))
    noise = random.Random(zlib.crc32(instance.encode())).randbytes(2 * width * rows)
    dataset.Rows, dataset.Columns = rows, width
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.add_new("PixelData", "OB" if syntax.is_encapsulated else "OW", noise)
    if syntax.is_encapsulated:
        dataset.PixelData = encapsulate([noise])
        dataset["PixelData"].is_undefined_length = True
