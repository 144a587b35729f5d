"""The benchmark's own DICOM: valid instances of a known size, made fast, with the bodies and listings around them."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, BinaryIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from benchmarks.names import CLOSING, FRAME, PART_HEAD, instance_uid, series_uid, study_uid

if TYPE_CHECKING:
    pass

FILES_IN_A_FOLDER = 1000


@dataclass(frozen=True, slots=True)
class Study:
    """One study, whose instances are all of one size and go to its series in equal shares.

    Attributes:
        number: three digits, which tell this benchmark's studies apart.
        instances: how many it holds.
        side: rows and columns of a frame, 16 bits each.
        frames: in each instance.
        series: how many it has.
        sparse: the pixels are zeros, which take no room in a file.
    """

    number: int
    instances: int
    side: int = 512
    frames: int = 1
    series: int = 1
    sparse: bool = False

    @property
    def uid(self) -> str:
        """The Study Instance UID."""
        return study_uid(self.number)

    @property
    def pixels(self) -> int:
        """Bytes of pixel data in one instance."""
        return self.side * self.side * 2 * self.frames

    @property
    def volume(self) -> int:
        """Bytes of pixel data in the study."""
        return self.instances * self.pixels

    def uid_of(self, index: int) -> str:
        return instance_uid(self.number, index)

    def series_of(self, index: int) -> int:
        """Return which of the series an instance belongs to: the first share to the first one, and so on."""
        return index * self.series // self.instances

    def in_series(self, series: int) -> range:
        """Return the instances of a series."""
        return range(-(-series * self.instances // self.series), -(-(series + 1) * self.instances // self.series))


class Encoder:
    """All bytes before the pixels, encoded once; the UIDs are then put in their places."""

    def __init__(self, study: Study) -> None:
        self._study = study
        uid, series = study.uid_of(0).encode(), series_uid(study.number, 0).encode()
        template = _head(study, uid.decode(), series.decode())
        if template.count(series) != 1:
            raise RuntimeError("the template is not as expected")
        self._pieces = [template.replace(series, self._series(number)).split(uid) for number in range(study.series)]
        self.first_pixels: bytes = b"" if study.sparse else random.Random(study.number).randbytes(study.side**2 * 2)

    def _series(self, number: int) -> bytes:
        # Odd lengths are filled up to the same even one, so that the length before the value stays true.
        length = len(series_uid(self._study.number, 0))
        uid = series_uid(self._study.number, number)
        if len(uid) > length:
            raise RuntimeError("at most nine series")
        return uid.encode()

    def head(self, index: int) -> bytes:
        """Return what stands before the pixels of an instance."""
        return self._study.uid_of(index).encode().join(self._pieces[self._study.series_of(index)])

    def whole(self, index: int) -> bytes:
        """Return an instance of one frame."""
        return self.head(index) + self.first_pixels

    def write(self, file: BinaryIO, index: int) -> None:
        """Write an instance of any size."""
        file.write(self.head(index))
        if self._study.sparse:
            file.truncate(file.tell() + self._study.pixels)
            file.seek(0, os.SEEK_END)
            return
        for _ in range(self._study.frames):
            file.write(self.first_pixels)


@dataclass(frozen=True, slots=True)
class Written:
    """A study on disk.

    Attributes:
        study: what it is.
        root: below it, ``files<number>`` and, if it was asked for, ``www``.
    """

    study: Study
    root: Path

    @property
    def files(self) -> Path:
        """The folder of its instances."""
        return self.root / f"files{self.study.number}"

    @property
    def body(self) -> Path:
        """The whole ``multipart/related`` body of the study."""
        return self.root / "www" / "studies" / f"{self.study.uid}.body"

    def file_of(self, index: int) -> Path:
        return self.files / str(index // FILES_IN_A_FOLDER) / f"{self.study.uid_of(index)}.dcm"

    def remove(self) -> None:
        """Take everything of it away."""
        rmtree(self.files)
        rmtree(self.body.with_suffix(""), ignore_errors=True)
        for path in (self.root / "www").glob(f"**/*{self.study.uid}*"):
            path.unlink()


def write_study(root: Path, study: Study, *, served: bool = True) -> Written:
    """Write a study's files below ``root``; ``served`` adds ``www`` with what a static server answers.

    There ``X.body`` is the answer to a retrieve of ``X``, ``X.json`` that to a search, ``count/UID.json`` that to a
    search for one study or series.
    """
    written, encoder = Written(study, root), Encoder(study)
    for index in range(study.instances):
        path = written.file_of(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            encoder.write(file, index)
    if served:
        _write_bodies(written, encoder)
        _write_listings(written)
    return written


def _write_bodies(written: Written, encoder: Encoder) -> None:
    study, folder = written.study, written.body.with_suffix("")
    resources = [(written.body, range(study.instances))]
    for series in range(study.series):
        name = folder / "series" / series_uid(study.number, series)
        resources.append((name.with_name(f"{name.name}.body"), study.in_series(series)))
        resources += [
            (name / "instances" / f"{study.uid_of(index)}.body", range(index, index + 1))
            for index in study.in_series(series)
        ]
    made: dict[range, Path] = {}
    for path, indexes in resources:
        path.parent.mkdir(parents=True, exist_ok=True)
        if indexes in made:  # what has the same instances has the same body: a link takes no room
            path.hardlink_to(made[indexes])
            continue
        made[indexes] = path
        with path.open("wb") as body:
            for index in indexes:
                body.write(PART_HEAD)
                encoder.write(body, index)
                body.write(b"\r\n")
            body.write(CLOSING)


def _write_listings(written: Written) -> None:
    study, folder, count = written.study, written.body.with_suffix(""), written.root / "www" / "count"
    count.mkdir(exist_ok=True)
    series = [listed_series(study, number) for number in range(study.series)]
    instances = [listed_instance(study, index) for index in range(study.instances)]
    (count / f"{study.uid}.json").write_text(f"[{listed_study(study)}]")
    (folder / "series.json").write_text(_array(series))
    (folder / "instances.json").write_text(_array(instances))
    for number, item in enumerate(series):
        uid, indexes = series_uid(study.number, number), study.in_series(number)
        (count / f"{uid}.json").write_text(f"[{item}]")
        (folder / "series" / uid / "instances.json").write_text(_array(instances[indexes.start : indexes.stop]))


def _array(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def listed_study(study: Study) -> str:
    """Return a study as a search gives it, with the count of its instances."""
    return _listed({"0020000D": study.uid}, {"00201208": study.instances})


def listed_series(study: Study, series: int) -> str:
    """Return a series as a search gives it, with the count of its instances."""
    uids = {"0020000D": study.uid, "0020000E": series_uid(study.number, series)}
    return _listed(uids, {"00201209": len(study.in_series(series))})


def listed_instance(study: Study, index: int) -> str:
    """Return an instance as a search gives it."""
    series = series_uid(study.number, study.series_of(index))
    uids = {"00080016": _class_of(study), "00080018": study.uid_of(index), "0020000D": study.uid, "0020000E": series}
    return _listed(uids, {})


def _listed(uids: dict[str, str], counts: dict[str, int]) -> str:
    items: dict[str, dict[str, object]] = {tag: {"vr": "UI", "Value": [value]} for tag, value in uids.items()}
    items |= {tag: {"vr": "IS", "Value": [value]} for tag, value in counts.items()}
    return json.dumps(items)


def make_files(folder: Path, count: int, pixel_bytes: int) -> Path:
    """Write a study of files without a body or listing; no two blocks of half a megabyte of pixels are the same."""
    folder.mkdir()
    study = Study(int.from_bytes(folder.name.encode()[:2]), count)
    block, encoder = random.Random(study.number).randbytes(FRAME - 8), Encoder(study)
    for index in range(count):
        with (folder / f"{study.uid_of(index)}.dcm").open("wb") as file:
            file.write(encoder.head(index)[:-4] + pixel_bytes.to_bytes(4, "little"))
            for at in range(0, pixel_bytes, FRAME):
                file.write((at.to_bytes(8) + block)[: pixel_bytes - at])
    return folder


# --- one instance -----------------------------------------------------------------------------------------------------


def _class_of(study: Study) -> str:
    return str(CTImageStorage if study.frames == 1 else MultiFrameGrayscaleWordSecondaryCaptureImageStorage)


def _head(study: Study, uid: str, series: str) -> bytes:
    dataset = _scanner_attributes() if study.side >= _SMALL_SIDE else Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = _class_of(study), uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.uid, series
    dataset.PatientName, dataset.PatientID = "Benchmark^Ben", "BENCH"
    dataset.Modality = "CT" if study.frames == 1 else "OT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = study.side
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    if study.frames > 1:
        dataset.NumberOfFrames = study.frames
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    encoded = BytesIO()
    dcmwrite(encoded, dataset, enforce_file_format=True)
    return encoded.getvalue() + b"\xe0\x7f\x10\x00OW\x00\x00" + study.pixels.to_bytes(4, "little")


_SMALL_SIDE = 32


def _scanner_attributes() -> Dataset:
    """Make the header of an ordinary slice, about as long as scanners write it without private elements."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20200101"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = dataset.StudyID = "BENCHMARK"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Benchmark", "Made up"
    dataset.ReferringPhysicianName, dataset.InstitutionName = "Nobody^Nina", "Nowhere"
    dataset.StudyDescription, dataset.SeriesDescription = "Benchmark study", "Benchmark series"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19700101", "O", "050Y"
    dataset.BodyPartExamined, dataset.PatientPosition, dataset.ProtocolName = "CHEST", "HFS", "Benchmark"
    dataset.SliceThickness, dataset.KVP, dataset.TableHeight = "1.0", "120", "150.0"
    dataset.ExposureTime, dataset.XRayTubeCurrent, dataset.ConvolutionKernel = "500", "200", "B30f"
    dataset.FrameOfReferenceUID = study_uid(9)
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 1, 1, 1
    dataset.ImagePositionPatient, dataset.SliceLocation = ["-250", "-250", "0"], "0"
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelSpacing = ["0.97", "0.97"]
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    return dataset
