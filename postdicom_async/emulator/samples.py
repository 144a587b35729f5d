"""Sample studies, made with pydicom alone, and the same for the same seed.

Patients, names and institutions are invented. Pixel data are a simple phantom: a body, two organs, noise.
"""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import TypeAlias

import pydicom.data
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from postdicom_async.emulator.store.archive import parse_instance
from postdicom_async.emulator.store.attributes import is_uid
from postdicom_async.emulator.store.files import UnreadableHeader

_Shape: TypeAlias = tuple[int, float, float, float, float]
"""Stored value, centre x and y, half axes x and y; lengths in parts of the image."""

MEGABYTE = 1024 * 1024
AIR, TISSUE, BONE, LUNG = 24, 1064, 2024, 224
"""Stored values; the rescale intercept is -1024."""


@dataclass(frozen=True)
class SamplePatient:
    """An invented patient and the character set the name is written in."""

    name: str
    patient_id: str
    birth_date: str
    sex: str
    character_set: str = "ISO_IR 192"


PATIENTS: tuple[SamplePatient, ...] = (
    SamplePatient("Phantom^Ada", "SAMPLE-001", "19500101", "F"),
    SamplePatient("Święty^Łukasz", "SAMPLE-002", "19620229", "M"),
    SamplePatient("Yamada^Tarou=山田^太郎=やまだ^たろう", "SAMPLE-003", "19710703", "M"),
    SamplePatient("قباني^لنزار", "SAMPLE-004", "19890811", "O"),
    SamplePatient("Müller^Jérôme", "SAMPLE-005", "19331224", "M", "ISO_IR 100"),
)
"""A plain name, Polish, Japanese in three component groups, Arabic, and Western European in Latin-1."""


def make_uid(random: Random) -> str:
    """Return a UID under 2.25, the same for the same state of ``random``."""
    return f"2.25.{uuid.UUID(int=random.getrandbits(128), version=4).int}"


class _Study:
    """What all instances of a study share, and the numbers drawn so far."""

    def __init__(self, patient: SamplePatient, seed: str, description: str) -> None:
        self.patient = patient
        self.random = random = Random(seed)  # noqa: S311 - repeatable, no secret
        self.description = description
        self.study_uid = make_uid(random)
        self.frame_of_reference = make_uid(random)
        self.date = f"{random.randint(2015, 2024)}{random.randint(1, 12):02}{random.randint(1, 28):02}"

    def dataset(self, sop_class: str, modality: str, series_uid: str, series: int, number: int) -> Dataset:
        """Return an instance without pixels, its UID new."""
        ds = Dataset()
        ds.SpecificCharacterSet = self.patient.character_set
        ds.SOPClassUID = sop_class
        ds.SOPInstanceUID = make_uid(self.random)
        ds.StudyDate = ds.SeriesDate = ds.ContentDate = self.date
        ds.StudyTime = ds.SeriesTime = ds.ContentTime = f"10{series:02}{number % 60:02}"
        ds.AccessionNumber = f"A{self.date}"
        ds.Modality = modality
        ds.Manufacturer = "Sample"
        ds.InstitutionName = "Sample Institution"
        ds.ReferringPhysicianName = "Referrer^Rita"
        ds.StudyDescription = self.description
        ds.PatientName = self.patient.name
        ds.PatientID = self.patient.patient_id
        ds.PatientBirthDate = self.patient.birth_date
        ds.PatientSex = self.patient.sex
        ds.StudyInstanceUID = self.study_uid
        ds.SeriesInstanceUID = series_uid
        ds.StudyID = "1"
        ds.SeriesNumber = series
        ds.InstanceNumber = number
        ds.FrameOfReferenceUID = self.frame_of_reference
        return ds


def ct_like_study(
    patient: SamplePatient = PATIENTS[0], *, seed: int = 1, series: int = 3, slices: int = 20, size: int = 512
) -> Iterator[Dataset]:
    """Make a CT study, slice by slice.

    Args:
        patient: whose study it is.
        seed: the same seed gives the same UIDs and pixels.
        series: how many series.
        slices: how many instances in each.
        size: rows and columns; pixels have 16 bits.
    """
    study = _Study(patient, f"ct {seed}", "CT thorax sample")
    names = ("Thorax native", "Thorax arterial", "Thorax venous")
    for series_number in range(1, series + 1):
        series_uid = make_uid(study.random)
        noise = _noise_rows(study.random, size)
        for number in range(1, slices + 1):
            ds = study.dataset(CTImageStorage, "CT", series_uid, series_number, number)
            ds.SeriesDescription = names[(series_number - 1) % len(names)]
            _describe_slice(ds, number)
            _set_pixels(ds, size, size, _phantom(noise, size, number / (slices + 1)))
            yield ds


def _describe_slice(ds: Dataset, number: int) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    ds.KVP = "120"
    ds.SliceThickness = "2.5"
    ds.PixelSpacing = ["0.7", "0.7"]
    ds.ImagePositionPatient = ["-179.2", "-179.2", f"{number * 2.5:g}"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.SliceLocation = f"{number * 2.5:g}"
    ds.AcquisitionNumber = 1
    ds.RescaleIntercept = "-1024"
    ds.RescaleSlope = "1"
    ds.WindowCenter = "40"
    ds.WindowWidth = "400"


def _set_pixels(ds: Dataset, rows: int, columns: int, pixels: bytes, bits: int = 12) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = rows
    ds.Columns = columns
    ds.BitsAllocated = 16
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    ds["PixelData"] = pydicom.DataElement("PixelData", "OW", pixels)


def _noise_rows(random: Random, size: int) -> dict[int, list[bytes]]:
    """Return a few rows of each tissue, with noise: slices are put together from pieces of them."""
    rows: dict[int, list[bytes]] = {}
    for value in (AIR, TISSUE, LUNG, BONE):
        noise = [random.randbytes(size) for _ in range(7)]
        rows[value] = [array("H", [value + (byte >> 3) for byte in row]).tobytes() for row in noise]
    return rows


def _phantom(noise: dict[int, list[bytes]], size: int, height: float) -> bytes:
    """Return a slice: an ellipse of tissue with two lungs and a spine, the lungs widest in the middle of the body."""
    lung = 0.10 + 0.55 * height * (1 - height)
    shapes = (  # each covers the ones before
        (TISSUE, 0.5, 0.5, 0.44, 0.32),
        (LUNG, 0.31, 0.48, lung * 0.62, lung),
        (LUNG, 0.69, 0.48, lung * 0.62, lung),
        (BONE, 0.5, 0.72, 0.05, 0.05),
    )
    return b"".join(_row(noise, shapes, size, row) for row in range(size))


def _row(noise: dict[int, list[bytes]], shapes: Sequence[_Shape], size: int, row: int) -> bytes:
    pixels = bytearray(noise[AIR][row % 7])
    for value, x, y, half_x, half_y in shapes:
        distance = (row / size - y) / half_y
        if abs(distance) < 1:
            reach = half_x * (1 - distance * distance) ** 0.5
            start, end = 2 * int((x - reach) * size), 2 * int((x + reach) * size)
            pixels[start:end] = noise[value][row % 7][start:end]
    return bytes(pixels)


def multiframe_study(
    patient: SamplePatient = PATIENTS[0], *, seed: int = 1, frames: int = 12, size: int = 256
) -> Iterator[Dataset]:
    """Make a study of one multi-frame instance."""
    study = _Study(patient, f"multi-frame {seed}", "Multi-frame sample")
    series_uid = make_uid(study.random)
    sop_class = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    ds = study.dataset(sop_class, "OT", series_uid, 1, 1)
    ds.SeriesDescription = "Multi-frame"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.NumberOfFrames = frames
    ds.FrameIncrementPointer = 0x00181063
    ds.FrameTime = "40"
    noise = _noise_rows(study.random, size)
    _set_pixels(ds, size, size, b"".join(_phantom(noise, size, (n + 1) / (frames + 1)) for n in range(frames)))
    yield ds


def write_samples(
    folder: Path, *, seed: int = 1, series: int = 3, slices: int = 20, size: int = 512, patients: bool = True
) -> list[Path]:
    """Write sample studies below a folder and return their files.

    A CT study of ``series`` times ``slices`` instances, a multi-frame instance and, with ``patients``, a small study
    of each further patient of `PATIENTS`.
    """
    studies = [
        ct_like_study(seed=seed, series=series, slices=slices, size=size),
        multiframe_study(seed=seed, size=size // 2),
    ]
    if patients:  # whose names matter, not their pictures
        studies += [
            ct_like_study(patient, seed=seed + number, series=1, slices=2, size=64)
            for number, patient in enumerate(PATIENTS[1:], 1)
        ]
    paths = []
    for number, study in enumerate(studies, 1):
        for ds in study:
            path = folder / f"study{number}" / f"series{ds.SeriesNumber}" / f"{ds.InstanceNumber:04}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_encode(ds))
            paths.append(path)
    return paths


def _encode(ds: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta = meta
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_benchmark_series(folder: Path, count: int, size_bytes: int, *, seed: int = 1) -> list[Path]:
    """Write ``count`` valid instances of one series, each of exactly ``size_bytes`` (an even number).

    Only UIDs, numbers and pixels differ, so that writing is fast; files far larger than memory would be no problem.

    Raises:
        ValueError: the size is odd, too small for a header, or too large for one value.
    """
    study = _Study(PATIENTS[0], f"benchmark {seed}", "Benchmark sample")
    series_uid, paths = make_uid(study.random), [folder / f"{number:06}.dcm" for number in range(1, count + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    columns = 256 if size_bytes < 32 * MEGABYTE else 32768  # the number of rows has 16 bits
    for number, path in enumerate(paths, 1):
        ds = study.dataset(SecondaryCaptureImageStorage, "OT", series_uid, 1, number)
        _set_pixels(ds, 0, columns, b"", bits=16)
        around = len(_encode(ds)) + 12  # what is left over goes into Data Set Trailing Padding, which has a header
        rows, padding = divmod(size_bytes - around, 2 * columns)
        if size_bytes % 2 or not 1 <= rows <= 0xFFFF:
            raise ValueError(f"size_bytes must be even, at least {around + 2 * columns} and below 4 GiB")
        ds.Rows, length = rows, rows * 2 * columns
        with path.open("wb") as file:
            file.write(_encode(ds)[:-4] + length.to_bytes(4, "little"))
            for start in range(0, length, MEGABYTE):
                file.write(study.random.randbytes(min(MEGABYTE, length - start)))
            file.write(b"\xfc\xff\xfc\xffOB\0\0" + padding.to_bytes(4, "little") + bytes(padding))
    return paths


def pydicom_test_files() -> list[Path]:
    """Return the files installed with pydicom that are instances with the three UIDs, one for each SOP Instance UID.

    Only files that are there are looked at; nothing is fetched.
    """
    found: dict[str, Path] = {}
    for path in sorted(filter(Path.is_file, Path(pydicom.data.__file__).parent.rglob("*"))):
        with suppress(UnreadableHeader):
            uids = parse_instance(path).uids
            if all(is_uid(uid) for uid in uids):
                found.setdefault(uids.sop_instance_uid, path)
    return list(found.values())
