"""A table of patients from a file, for an anonymisation."""

from __future__ import annotations

import os

from postdicom_async.dicom.anonymize.identities import LONGEST_LINE, PatientRows
from postdicom_async.disk.files import path_of
from postdicom_async.disk.problems import explained
from postdicom_async.face import public_face

__all__ = ["PatientTable"]


@public_face
class PatientTable(PatientRows):
    """What each patient's elements become, from a CSV file.

    The first line names the columns, with ``,`` or ``;`` between them: ``PatientID``, and if wanted
    ``IssuerOfPatientID``, say who a patient is now; every other column is a keyword or tag, and what stands in it is
    the new value. The new IDs stand in a second column ``PatientID``. An empty value empties the element::

        PatientID,PatientID,PatientName,PatientBirthDate
        4711,S-001,STUDY^ONE,

    Without a column ``IssuerOfPatientID`` an ID is one patient, whoever issued it; with it, both must be as in the
    file. Spaces around a value do not count. Text is UTF-8.

    Attributes:
        columns: the tags of the elements that are set.
        by_issuer: a patient is known by Issuer of Patient ID too.
    """

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> PatientTable:
        """Read a file whole: 100,000 patients take one or two seconds and 20 MB.

        Raises:
            UsageError: it is no such table, a value does not fit its column, or a patient is in it twice. The message
                names line and column, and never a value.
            LocalFileError: it cannot be read.
        """
        with explained("the table of patients"), path_of(path).open("rb") as lines:
            return cls(iter(lambda: lines.readline(LONGEST_LINE + 1), b""))
