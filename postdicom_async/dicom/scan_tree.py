"""The tree of what lies in files: patients, their studies, series and instances.

It holds patient data and paths, and none of its ``repr`` shows any. Attributes are named as in the DICOM data
dictionary; their values are text as the file has it, decoded and trimmed, and None where the file has none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from postdicom_async.results import InstanceUids

__all__ = [
    "Scan",
    "ScanProgress",
    "ScanStatus",
    "ScannedInstance",
    "ScannedPatient",
    "ScannedSeries",
    "ScannedStudy",
    "SkippedFile",
]


@dataclass(frozen=True, slots=True)
class ScannedInstance:
    """A file that is an instance.

    Attributes:
        sop_class_uid: None where the file does not say.
        path: the file.
        size: its bytes.
    """

    sop_instance_uid: str
    sop_class_uid: str | None
    transfer_syntax_uid: str | None
    instance_number: int | None
    path: Path = field(repr=False)
    size: int


@dataclass(frozen=True, slots=True)
class ScannedSeries:
    """A series, its instances in the order they were read; each value is of the first file that has one."""

    series_instance_uid: str
    modality: str | None
    series_number: int | None
    series_date: str | None = field(repr=False)
    series_description: str | None = field(repr=False)
    instances: tuple[ScannedInstance, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScannedStudy:
    """A study, its series in the order they were read; each value is of the first file that has one.

    Attributes:
        study_date: as all dates, YYYYMMDD in files that keep to the standard.
        modalities_in_study: of its series, sorted.
        patient_conflicts: how many of its files name their patient otherwise (ID, issuer, name or birth date) than the
            patient it is listed with. They belong to the study all the same; look at them before they are sent.
    """

    study_instance_uid: str
    modalities_in_study: tuple[str, ...]
    patient_conflicts: int
    study_date: str | None = field(repr=False)
    study_description: str | None = field(repr=False)
    accession_number: str | None = field(repr=False)
    referring_physician_name: str | None = field(repr=False)
    institution_name: str | None = field(repr=False)
    institution_address: str | None = field(repr=False)
    series: tuple[ScannedSeries, ...] = field(repr=False)

    @property
    def instances(self) -> tuple[ScannedInstance, ...]:
        """The instances of all its series."""
        return tuple(instance for series in self.series for instance in series.instances)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files, as ``upload`` takes them."""
        return tuple(instance.path for instance in self.instances)

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(instance.size for instance in self.instances)


@dataclass(frozen=True, slots=True)
class ScannedPatient:
    """A patient, with studies in the order they were read; each value is of the first file that has one.

    Attributes:
        other_patient_ids: those of the retired element (0010,1000), several joined by backslashes, as all lists.
    """

    patient_name: str | None = field(repr=False)
    patient_id: str | None = field(repr=False)
    issuer_of_patient_id: str | None = field(repr=False)
    patient_birth_date: str | None = field(repr=False)
    patient_sex: str | None = field(repr=False)
    other_patient_ids: str | None = field(repr=False)
    other_patient_names: str | None = field(repr=False)
    studies: tuple[ScannedStudy, ...] = field(repr=False)


class ScanStatus(StrEnum):
    """Why a file is not among the instances."""

    DUPLICATE = "duplicate"
    """Another file of the series has the same SOP Instance UID; ``reason`` says whether they look the same."""
    DICOMDIR = "DICOMDIR"
    """A directory of other files (PS3.3 annex F), no instance."""
    NOT_DICOM = "not DICOM"
    UNREADABLE = "unreadable"
    """It, or a folder, could not be read, or it is cut off or does not say which instance it is."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not among the instances, or a folder that could not be searched.

    Attributes:
        uids: what a duplicate says it is.
        duplicate_of: the file that came first.
    """

    path: Path = field(repr=False)
    status: ScanStatus
    reason: str
    size: int = 0
    uids: InstanceUids | None = None
    duplicate_of: Path | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Scan:
    """What lies in files; each file given is either one instance below ``patients`` or one entry of ``skipped``.

    Attributes:
        patients: in the order they were read.
        skipped: duplicates and what is not, or not readable as, an instance.
        files: how many there were.
    """

    patients: tuple[ScannedPatient, ...] = field(repr=False)
    skipped: tuple[SkippedFile, ...] = field(repr=False)
    files: int

    @property
    def studies(self) -> tuple[ScannedStudy, ...]:
        """The studies of all patients."""
        return tuple(study for patient in self.patients for study in patient.studies)

    @property
    def instances(self) -> tuple[ScannedInstance, ...]:
        """The instances of all studies."""
        return tuple(instance for study in self.studies for instance in study.instances)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of all instances, as ``upload`` takes them."""
        return tuple(instance.path for instance in self.instances)

    @property
    def counts(self) -> Mapping[ScanStatus, int]:
        """Number of skipped files by status; statuses that did not occur are absent."""
        return Counter(one.status for one in self.skipped)

    @property
    def ok(self) -> bool:
        """True when nothing was unreadable; other files, directories and duplicates do not count against it."""
        return ScanStatus.UNREADABLE not in self.counts


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """How far reading files is; the total is None where it cannot be told beforehand (iterators)."""

    files_done: int
    files_total: int | None
