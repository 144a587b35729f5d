"""The benchmark's own DICOM: valid instances of a known size, made fast, with the bodies and listings around them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from benchmarks.names import BOUNDARY, FRAME, INSTANCE_PREFIX, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART_HEAD = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
CLOSING = f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True, slots=True)
class Study:
    """One study of one series.

    Attributes:
        number: three digits which tell this benchmark's studies apart.
        instances: how many it holds.
        frames: of `FRAME` bytes in each instance.
        folder: the instances as files.
        body: a file with the whole ``multipart/related`` body, for a retrieve answer and for a store request.
        listing: a file with the QIDO-RS answer that names every instance.
    """

    number: int
    instances: int
    frames: int
    folder: Path
    body: Path
    listing: Path

    @property
    def uid(self) -> str:
        """The Study Instance UID."""
        return f"{ROOT}1.{self.number}"

    @property
    def series_uid(self) -> str:
        """The Series Instance UID."""
        return f"{ROOT}2.{self.number}"

    @property
    def instance_uids(self) -> list[str]:
        """Every SOP Instance UID, in the order of the body."""
        return [instance_uid(self.number, index) for index in range(self.instances)]

    @property
    def pixel_bytes(self) -> int:
        """Bytes of pixel data in the study."""
        return self.instances * self.frames * FRAME


def instance_uid(study: int, index: int) -> str:
    return f"{INSTANCE_PREFIX}{study}.{100001 + index}"


def make_study(root: Path, number: int, instances: int, frames: int = 1, *, sparse: bool = False) -> Study:
    """Write a study's files, body and listing under `root`; `sparse` leaves holes for pixels, which cost nothing."""
    folder = root / f"study{number}"
    folder.mkdir()
    study = Study(number, instances, frames, folder, root / f"study{number}.body", root / f"study{number}.json")
    pixels = b"" if sparse else random.Random(number).randbytes(FRAME)
    with study.body.open("wb") as body:
        for uid, head in _heads(study):
            body.write(PART_HEAD)
            _write_instance(body, head, pixels, frames)
            body.write(b"\r\n")
            with (folder / f"{uid}.dcm").open("wb") as file:
                _write_instance(file, head, pixels, frames)
        body.write(CLOSING)
    study.listing.write_text(json.dumps([_listed(study, uid) for uid in study.instance_uids]))
    return study


def make_files(folder: Path, count: int, pixel_bytes: int) -> Path:
    """Write a study of files without a body or listing; no two blocks of half a megabyte of pixels are the same."""
    folder.mkdir()
    study = Study(int.from_bytes(folder.name.encode()[:2]), count, 1, folder, folder, folder)
    block = random.Random(study.number).randbytes(FRAME - 8)
    for uid, head in _heads(study):
        with (folder / f"{uid}.dcm").open("wb") as file:
            file.write(head[:-4] + pixel_bytes.to_bytes(4, "little"))
            for at in range(0, pixel_bytes, FRAME):
                file.write((at.to_bytes(8) + block)[: pixel_bytes - at])
    return folder


def _write_instance(file: BinaryIO, head: bytes, pixels: bytes, frames: int) -> None:
    file.write(head)
    if pixels:
        for _ in range(frames):
            file.write(pixels)
    else:
        file.truncate(file.tell() + frames * FRAME)
        file.seek(frames * FRAME, 1)


def _heads(study: Study) -> Iterator[tuple[str, bytes]]:
    """Each instance's UID and all its bytes before the pixels: encoded once, the UID then put in its place."""
    first = instance_uid(study.number, 0)
    template = _head(study, first)
    for uid in study.instance_uids:
        yield uid, template.replace(first.encode(), uid.encode())


def _head(study: Study, uid: str) -> bytes:
    sop_class = CTImageStorage if study.frames == 1 else MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset = _dataset(study.frames)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.uid, study.series_uid
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    encoded = BytesIO()
    dcmwrite(encoded, dataset, enforce_file_format=True)
    length = (study.frames * FRAME).to_bytes(4, "little")
    return encoded.getvalue() + b"\xe0\x7f\x10\x00OW\x00\x00" + length


def _dataset(frames: int) -> Dataset:
    """Make the header of an ordinary slice, about as long as scanners write it without private elements."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20200101"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = dataset.StudyID = "BENCHMARK"
    dataset.Modality = "CT" if frames == 1 else "OT"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Benchmark", "Made up"
    dataset.ReferringPhysicianName, dataset.InstitutionName = "Nobody^Nina", "Nowhere"
    dataset.StudyDescription, dataset.SeriesDescription = "Benchmark study", "Benchmark series"
    dataset.PatientName, dataset.PatientID = "Benchmark^Ben", "BENCH"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19700101", "O", "050Y"
    dataset.BodyPartExamined, dataset.PatientPosition, dataset.ProtocolName = "CHEST", "HFS", "Benchmark"
    dataset.SliceThickness, dataset.KVP, dataset.TableHeight = "1.0", "120", "150.0"
    dataset.ExposureTime, dataset.XRayTubeCurrent, dataset.ConvolutionKernel = "500", "200", "B30f"
    dataset.FrameOfReferenceUID = f"{ROOT}9.1"
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 1, 1, 1
    dataset.ImagePositionPatient, dataset.SliceLocation = ["-250", "-250", "0"], "0"
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 512
    dataset.PixelSpacing = ["0.97", "0.97"]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    if frames > 1:
        dataset.NumberOfFrames = frames
    return dataset


def _listed(study: Study, uid: str) -> dict[str, object]:
    sop_class = CTImageStorage if study.frames == 1 else MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    values = {"00080016": sop_class, "00080018": uid, "0020000D": study.uid, "0020000E": study.series_uid}
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}
