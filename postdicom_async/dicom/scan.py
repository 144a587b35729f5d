"""The content of files: what the header of each says, arranged in one tree of patients, studies, series and instances.

The tree holds patient data and paths, and no ``repr`` shows any of it. Attributes are named as in the DICOM data
dictionary; their values are text as in the file, decoded and trimmed, and None if the file has none.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, TypeAlias

from postdicom_async.dicom.header import HeaderGap, InstanceHeader, read_header, read_values
from postdicom_async.dicom.tags import TAG
from postdicom_async.dicom.text import decode_text
from postdicom_async.face import public_face
from postdicom_async.markup import element, joined, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pandas import DataFrame

    from postdicom_async.results import InstanceUids

_SHOWN = 20

# --- the tree ---------------------------------------------------------------------------------------------------------


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
        patient_conflicts: how many of its files disagree (in ID, issuer, name or birth date) with the patient it is
            listed under. They belong to the study all the same; check them before they are sent.
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
    """A directory of other files (PS3.3 annex F), not an instance."""
    NOT_DICOM = "not DICOM"
    UNREADABLE = "unreadable"
    """It, or a folder, could not be read, or it is cut off or does not say which instance it is."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not among the instances, or a folder that could not be searched.

    Attributes:
        uids: the UIDs of a duplicate.
        duplicate_of: the file that came first.
    """

    path: Path = field(repr=False)
    status: ScanStatus
    reason: str
    size: int = 0
    uids: InstanceUids | None = None
    duplicate_of: Path | None = field(default=None, repr=False)


@public_face
@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scan; each file is either one instance below ``patients`` or one entry of ``skipped``.

    Attributes:
        patients: in the order they were read.
        skipped: duplicates, and files that are not instances or cannot be read.
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

    def to_pandas(self) -> DataFrame:
        """Return a data frame with a row for each instance (extra ``pandas``): patient data, and paths.

        Columns are named and typed as those of search results (`Results.to_pandas`), and besides there are
        ``TransferSyntaxUID``, ``size`` (``Int64``) and ``path`` (``string``). What is no date is empty.

        Raises:
            UsageError: pandas is not installed.
        """
        from postdicom_async.dicom.columns import frame_of_scan

        return frame_of_scan(self)

    def _repr_html_(self) -> str:
        studies = self.studies
        counts = [f"{len(self.patients):,} patients", f"{len(studies):,} studies", f"{len(self.instances):,} instances"]
        skipped = [f"{number:,} {status.value}" for status, number in self.counts.items()]
        rows = [
            [one.study_instance_uid, ", ".join(one.modalities_in_study), f"{len(one.series):,}",
             f"{len(one.instances):,}", f"{one.size:,}"]
            for one in studies[:_SHOWN]
        ]  # fmt: skip
        headings = ["Study Instance UID", "modalities", "series", "instances", "bytes"]
        words = f"Scan of {self.files:,} files: {', '.join([*counts, *skipped])}."
        return joined(element("p", words), table(headings, rows, of=len(studies)))


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """The progress of a scan; the total is None if it is not known beforehand (iterators)."""

    files_done: int
    files_total: int | None


# --- one file -------------------------------------------------------------------------------------------------------

_PATIENT = {
    "patient_name": TAG["PatientName"],
    "patient_id": TAG["PatientID"],
    "issuer_of_patient_id": TAG["IssuerOfPatientID"],
    "patient_birth_date": TAG["PatientBirthDate"],
    "patient_sex": TAG["PatientSex"],
    "other_patient_ids": TAG["OtherPatientIDs"],
    "other_patient_names": TAG["OtherPatientNames"],
}
_STUDY = {
    "study_date": TAG["StudyDate"],
    "accession_number": TAG["AccessionNumber"],
    "institution_name": TAG["InstitutionName"],
    "institution_address": TAG["InstitutionAddress"],
    "referring_physician_name": TAG["ReferringPhysicianName"],
    "study_description": TAG["StudyDescription"],
}
_SERIES = {
    "series_date": TAG["SeriesDate"],
    "modality": TAG["Modality"],
    "series_description": TAG["SeriesDescription"],
}
_NUMBERS = {"series_number": TAG["SeriesNumber"], "instance_number": TAG["InstanceNumber"]}
_ATTRIBUTES = _PATIENT | _STUDY | _SERIES | _NUMBERS

_MEDIA_STORAGE_CLASS = TAG["MediaStorageSOPClassUID"]
_CHARACTER_SET = TAG["SpecificCharacterSet"]
_WANTED = frozenset({_MEDIA_STORAGE_CLASS, _CHARACTER_SET, *_ATTRIBUTES.values()})
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"

_NAME_DELIMITERS = "^= "  # of names (PS3.5 section 6.2.1); nothing but these is no value

Texts: TypeAlias = dict[str, str]
"""Attributes by name; those without a value are absent."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the header of a file says.

    Attributes:
        checksum: of the bytes it was read from, to tell other content under the same UID.
    """

    header: InstanceHeader
    texts: Texts = field(repr=False)
    checksum: int


class NoInstance(Enum):
    """A valid DICOM file that is not an instance."""

    DICOMDIR = auto()


def read_facts(data: bytes, *, complete: bool) -> FileFacts | NoInstance | HeaderGap:
    """Return the facts in the first bytes of a file; ``complete`` as for `read_header`."""
    header = read_header(data, complete=complete)
    if header is HeaderGap.NOT_DICOM:
        return header
    values, short = read_values(data, _WANTED)
    if values.get(_MEDIA_STORAGE_CLASS, b"").rstrip(b"\0 ") == _DIRECTORY_CLASS:
        return NoInstance.DICOMDIR
    if isinstance(header, HeaderGap):
        return header
    if short and not complete:
        return HeaderGap.INCOMPLETE
    character_set = values.get(_CHARACTER_SET, b"")
    decoded = {name: decode_text(values[tag], character_set) for name, tag in _ATTRIBUTES.items() if tag in values}
    texts = {name: text for name, text in decoded.items() if text.strip(_NAME_DELIMITERS)}
    return FileFacts(header, texts, zlib.crc32(data))


# --- many files -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Series:
    texts: Texts
    instances: dict[str, tuple[ScannedInstance, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Study:
    patient: _Patient
    texts: Texts = field(default_factory=dict)
    series: dict[str, _Series] = field(default_factory=dict)
    conflicts: int = 0


@dataclass(slots=True)
class _Patient:
    texts: Texts = field(default_factory=dict)
    studies: dict[str, _Study] = field(default_factory=dict)


class Grouping:
    """Puts files into the tree, one by one; only one thread may.

    One patient is one Patient ID with its issuer; without an ID, one name with its birth date; with neither, each
    study is a patient of its own. Names are compared without regard to case. A study belongs to the patient of its
    first file; `ScannedStudy.patient_conflicts` counts its files that disagree.
    """

    def __init__(self) -> None:
        self._patients: dict[tuple[str, ...], _Patient] = {}
        self._studies: dict[str, _Study] = {}
        self._skipped: list[SkippedFile] = []
        self._files = 0
        self._shared: dict[str, str] = {}

    @property
    def files(self) -> int:
        """How many files there have been."""
        return self._files

    def skip(self, file: SkippedFile) -> None:
        """Note a file that is no instance."""
        self._files += 1
        self._skipped.append(file)

    def add(self, path: Path, size: int, facts: FileFacts) -> None:
        """Put an instance where it belongs; one that its series has already becomes a skipped duplicate."""
        uids = facts.header.uids
        series = self._series_of(facts)
        known = series.instances.get(uids.sop_instance_uid)
        if known is not None:
            self.skip(_duplicate(path, size, facts, *known))
            return
        self._files += 1
        instance = ScannedInstance(
            uids.sop_instance_uid,
            self._once(facts.header.sop_class_uid),
            self._once(facts.header.transfer_syntax_uid),
            _number(facts.texts.get("instance_number")),
            path,
            size,
        )
        series.instances[uids.sop_instance_uid] = instance, facts.checksum

    def scan(self) -> Scan:
        """Return the tree."""
        patients = tuple(map(_patient, self._patients.values()))
        return Scan(patients, tuple(self._skipped), self._files)

    def _series_of(self, facts: FileFacts) -> _Series:
        uids, texts = facts.header.uids, facts.texts
        study = self._studies.get(uids.study_instance_uid)
        if study is None:
            patient = self._patients.setdefault(_patient_key(uids.study_instance_uid, texts), _Patient())
            study = patient.studies[uids.study_instance_uid] = _Study(patient)
            self._studies[uids.study_instance_uid] = study
        of = study.patient.texts
        # Both have an identifying attribute, with different values; absence is no conflict.
        if any(name in texts and name in of and _comparable(texts[name]) != _comparable(of[name]) for name in _TELLING):
            study.conflicts += 1
        else:
            _fill(study.patient.texts, texts, _PATIENT)
        _fill(study.texts, texts, _STUDY)
        series = study.series.setdefault(uids.series_instance_uid, _Series({}))
        _fill(series.texts, texts, (*_SERIES, "series_number"))
        return series

    def _once(self, uid: str) -> str | None:
        """Return the same object for the same UID: there are few of them, and very many files."""
        return self._shared.setdefault(uid, uid) or None


def _duplicate(path: Path, size: int, facts: FileFacts, first: ScannedInstance, checksum: int) -> SkippedFile:
    alike = size == first.size and facts.checksum == checksum
    reason = "as large as the first one, and begins alike" if alike else "other content than the first one"
    return SkippedFile(path, ScanStatus.DUPLICATE, reason, size, facts.header.uids, first.path)


def _patient_key(study_instance_uid: str, texts: Texts) -> tuple[str, ...]:
    if "patient_id" in texts:
        return "id", texts["patient_id"], texts.get("issuer_of_patient_id", "")
    if name := _comparable(texts.get("patient_name", "")):
        return "name", name, texts.get("patient_birth_date", "")
    return "study", study_instance_uid


_TELLING = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date")


def _comparable(text: str) -> str:
    return text.casefold().rstrip(_NAME_DELIMITERS)


def _fill(into: Texts, texts: Texts, names: Iterable[str]) -> None:
    for name in names:
        if name in texts:
            into.setdefault(name, texts[name])


def _number(text: str | None) -> int | None:
    """Return an integer string (IS), None for anything else."""
    return int(text) if text and re.fullmatch(r"[+-]?[0-9]{1,12}", text) else None


def _patient(made: _Patient) -> ScannedPatient:
    studies = tuple(_study(uid, study) for uid, study in made.studies.items())
    return ScannedPatient(studies=studies, **{name: made.texts.get(name) for name in _PATIENT})


def _study(uid: str, made: _Study) -> ScannedStudy:
    series = tuple(_series(uid, one) for uid, one in made.series.items())
    return ScannedStudy(
        study_instance_uid=uid,
        modalities_in_study=tuple(sorted({one.modality for one in series if one.modality})),
        patient_conflicts=made.conflicts,
        series=series,
        **{name: made.texts.get(name) for name in _STUDY},
    )


def _series(uid: str, made: _Series) -> ScannedSeries:
    return ScannedSeries(
        series_instance_uid=uid,
        series_number=_number(made.texts.get("series_number")),
        instances=tuple(instance for instance, _ in made.instances.values()),
        **{name: made.texts.get(name) for name in _SERIES},
    )
