"""New identities for anonymised files: UIDs and Patient IDs from a keyed hash, or a table of patients. Pure.

Under one secret the same UID or patient always gets the same replacement; without the secret nobody can tell which. A
patient is identified by Patient ID and issuer. Errors in a table name lines and columns but never a value: nearly all
values are patient data.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import json
import re
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn

from postdicom_async.dicom.anonymize.rules import NEEDED, Change, action_of, objection
from postdicom_async.dicom.elements import DicomProblem
from postdicom_async.dicom.tags import TAG, tag_of, tag_text
from postdicom_async.errors import UsageError
from postdicom_async.face import translated

PATIENT_ID: Final = TAG["PatientID"]
ISSUER: Final = TAG["IssuerOfPatientID"]
ISSUED_BY: Final = (ISSUER, TAG["IssuerOfPatientIDQualifiersSequence"])
"""The elements that say who issued a Patient ID: Issuer of Patient ID, and its qualifiers."""

NOT_IN_TABLE: Final = "its patient is not in the table of patients"
"""Why a source of a patient without a row is not sent."""

_APART: Final = "\x1f"  # joins values into one text, smaller than a tuple; no VR allows it
_ID_CHARACTERS: Final = 20
LONGEST_LINE: Final = 1 << 20
"""Bytes of a line of a table, with its line break."""
_LINES: Final = "give lines of bytes, or use from_csv"
_SPACES: Final = " \0\t\r\n\f"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_UTF_8: Final = re.compile("[\udc80-\udcff]")


# --- UIDs -------------------------------------------------------------------------------------------------------------

# UIDs that identify a kind of thing, not an individual one.
_KINDS = re.compile(
    r"ClassUID|SOPClass|TransferSyntax|CodingSchemeUID|ContextUID|MappingResource|TemplateUID|ImplementationClass"
    r"|PrivateDataElement"
)
_LEAST_SECRET = 8  # bytes


def key_of(secret: object) -> bytes:
    """Return the key for new UIDs: the secret's bytes, or unguessable ones without a secret.

    Raises:
        UsageError: it is not a secret, or is too short.
    """
    if secret is None:
        return uuid.uuid4().bytes + uuid.uuid4().bytes  # fresh for each object, so that nobody can guess the UIDs
    key = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    if not isinstance(key, bytes) or len(key) < _LEAST_SECRET:
        raise UsageError(f"secret: text or bytes, at least {_LEAST_SECRET} of them", argument="anonymize")
    return key


def new_uid(key: bytes, old: str) -> str:
    """Return the UID that replaces one; those of PS3.6 replace themselves."""
    if not old or _is_registered(old):
        return old
    digest = hmac.digest(key, old.encode("utf-8", "surrogateescape"), "sha256")
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


@lru_cache(maxsize=4096)
def says_which(tag: int) -> bool:
    """Return whether the UIDs of an element identify individual objects, not kinds."""
    from pydicom.datadict import keyword_for_tag

    return tag >> 16 > 2 and not _KINDS.search(keyword_for_tag(tag))  # file meta UIDs are copied from the data set


def _is_registered(value: str) -> bool:
    from pydicom._uid_dict import UID_dictionary

    return value in UID_dictionary


# --- patients ---------------------------------------------------------------------------------------------------------


class Patient(NamedTuple):
    """The patient that a file names; "" for what it lacks.

    Attributes:
        patient_id: Patient ID (0010,0020).
        issuer: Issuer of Patient ID (0010,0021).
    """

    patient_id: str = ""
    issuer: str = ""


def keyed_patient_id(key: bytes, patient: Patient) -> str:
    """Return the replacement of a Patient ID: 20 of A-Z and 2-7, 100 bits of HMAC-SHA256(key, issuer and ID).

    A patient without an ID gets none: all of them would become one patient.
    """
    plain = Patient(*map(_plain, patient))
    if not plain.patient_id:
        return ""
    what = json.dumps(["PatientID", plain.issuer, plain.patient_id]).encode()  # no UID begins with a bracket
    return base64.b32encode(hmac.digest(key, what, "sha256"))[:_ID_CHARACTERS].decode()


def _plain(text: str) -> str:
    """Return an ID normalised for comparison: Unicode composition and surrounding spaces are ignored."""
    return unicodedata.normalize("NFC", text).strip(_SPACES)


class PatientRows:
    """A table of patients: for each Patient ID, the new values of its elements.

    Attributes:
        columns: the tags of the elements that are set.
        by_issuer: whether patients are identified by Issuer of Patient ID too.
        digest: distinguishes this table from any with other values; not keyed with a secret, so never shown.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Read a table from the lines of a CSV file in UTF-8, each with its line break.

        Raises:
            UsageError: it is not a table, a value does not fit its column, or a patient is in it twice. The message
                names line and column.
        """
        reader = _TableReader(lines)
        self.columns: tuple[int, ...] = reader.columns
        self.by_issuer: bool = reader.issuer_at is not None
        self._rows: dict[str, str] = {}
        digest = hashlib.blake2b(repr((self.columns, self.by_issuer)).encode())
        for key, values in reader.rows():
            if key in self._rows:
                raise reader.problem("a patient who was there before")
            self._rows[key] = values
            digest.update(f"{key}\n{values}\n".encode())
        if not self._rows:
            raise UsageError("no patient is in the table", argument="patients")
        self.digest: bytes = digest.digest()

    def __repr__(self) -> str:
        """Show how many patients there are, and which elements they get."""
        columns = ", ".join(f"{tag:08X}" for tag in self.columns)
        return f"{type(self).__name__}({len(self._rows)} patients: {columns})"

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self._rows)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise UsageError("a table stays on its machine; make it from its file on the other one", argument="patients")

    def values_of(self, patient: Patient) -> dict[int, Change]:
        """Return the actions for a patient's elements, by tag.

        Raises:
            DicomProblem: the patient is not in the table.
        """
        values = self._rows.get(_key(patient, by_issuer=self.by_issuer))
        if values is None:
            raise DicomProblem(NOT_IN_TABLE)
        pairs = zip(self.columns, values.split(_APART), strict=True)
        return {tag: action_of(value, insert=True) for tag, value in pairs}


def _key(patient: Patient, *, by_issuer: bool) -> str:
    name = _plain(patient.patient_id)
    return f"{name}{_APART}{_plain(patient.issuer)}" if by_issuer else name


class _TableReader:
    """Reads a table line by line; the first one names the columns.

    Attributes:
        columns: the tags that the columns set, without those that identify the patient.
        issuer_at: the column of Issuer of Patient ID, None where there is none.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        if not isinstance(lines, Iterable):
            raise UsageError(_LINES, argument="patients")
        self._lines = iter(lines)
        self._line = 0
        first = next(self._texts(), "").removeprefix("\ufeff")
        for self._delimiter in ",;":
            names = self._cells(csv.reader([first], delimiter=self._delimiter, strict=True)) or []
            tags = [tag_of(name) for name in names]
            if PATIENT_ID in tags and len(names) > 1:
                break
        else:
            raise UsageError(
                "line 1 names no column PatientID and another one, with , or ; between them", argument="patients"
            )
        self._width = len(tags)
        self._id_at = tags.index(PATIENT_ID)
        self.issuer_at: int | None = tags.index(ISSUER) if ISSUER in tags else None
        self._places = [at for at in range(len(tags)) if at not in (self._id_at, self.issuer_at)]
        columns: list[int] = []
        for at in self._places:
            tag = tags[at]
            # Unknown names are not shown: if the heading line is missing, they are a patient's values.
            if tag is None:
                raise self.problem("no DICOM keyword or tag", str(at + 1))
            if tag in columns:
                raise self.problem(f"{tag_text(tag)} is there twice", str(at + 1))
            if found := objection(tag, ""):
                raise self.problem("no value of a patient" if tag in NEEDED else found, tag_text(tag))
            columns.append(tag)
        if not columns:
            raise self.problem("no column has new values; the new IDs stand in a second column PatientID")
        self.columns: tuple[int, ...] = tuple(columns)

    def problem(self, what: str, column: str = "") -> UsageError:
        """Return an error for the last line read."""
        where = f", column {column}" if column else ""
        return UsageError(f"line {self._line}{where}: {what}", argument="patients")

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield each patient's key and values, as they are kept."""
        reader = csv.reader(self._texts(), delimiter=self._delimiter, strict=True)
        while (cells := self._cells(reader)) is not None:
            if any(map(str.strip, cells)):
                yield self._row(cells)

    def _cells(self, reader: Iterator[list[str]]) -> list[str] | None:
        with translated(csv.Error, lambda _: self.problem("its quotes do not match, or a value is very long")):
            return next(reader, None)

    def _row(self, cells: list[str]) -> tuple[str, str]:
        if len(cells) != self._width:
            raise self.problem(f"{len(cells)} columns, where line 1 has {self._width}")
        issuer = cells[self.issuer_at] if self.issuer_at is not None else ""
        patient = Patient(_plain(cells[self._id_at]), _plain(issuer))
        if not patient.patient_id:
            raise self.problem("empty", "PatientID")
        if _CONTROL.search(patient.patient_id + patient.issuer):
            raise self.problem("control characters", "PatientID")
        values = [cells[at].strip(_SPACES) for at in self._places]
        for tag, value in zip(self.columns, values, strict=True):
            if not value and tag == PATIENT_ID:
                raise self.problem("the new one is empty", "PatientID")
            if found := objection(tag, value):
                raise self.problem(found, tag_text(tag))
        return _key(patient, by_issuer=self.issuer_at is not None), _APART.join(values)

    def _texts(self) -> Iterator[str]:
        for line in self._lines:
            self._line += 1
            if not isinstance(line, bytes | bytearray):  # of a data frame, the names of its columns
                raise UsageError(_LINES, argument="patients")
            if len(line) > LONGEST_LINE:
                raise self.problem("a very long line")
            text = line.decode("utf-8", "surrogateescape")
            if not text.isascii() and _NOT_UTF_8.search(text):
                raise self.problem("not UTF-8")
            yield text
