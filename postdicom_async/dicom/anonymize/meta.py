"""The plan for the file meta information (PS3.10 section 7.1): it follows what becomes of the data set."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from postdicom_async.dicom.anonymize.pieces import Level, Segments
from postdicom_async.dicom.anonymize.plan import Planner
from postdicom_async.dicom.elements import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    DicomProblem,
    Encoding,
    Window,
    encode_element,
    read_element,
)
from postdicom_async.dicom.tags import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postdicom_async.dicom.anonymize import Anonymization

__all__ = ["MetaPlan", "plan_meta"]

_GROUP_LENGTH = TAG["FileMetaInformationGroupLength"]
# Media Storage SOP Class and Instance UID say what the data set says.
_COPIES = {
    TAG["MediaStorageSOPClassUID"]: TAG["SOPClassUID"],
    TAG["MediaStorageSOPInstanceUID"]: TAG["SOPInstanceUID"],
}


@dataclass(frozen=True, slots=True)
class MetaPlan:
    """The file meta information as read.

    Attributes:
        transfer_syntax_uid: how the data set is written.
        end: where the data set begins.
    """

    transfer_syntax_uid: str
    end: int
    _level: Level = field(repr=False)

    @property
    def encoding(self) -> Encoding:
        """How elements of the data set are written, once it is inflated."""
        if self.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
            return IMPLICIT_LITTLE
        if self.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
            return Encoding(little=False, explicit=True)
        return EXPLICIT_LITTLE

    def finished(self, written: Mapping[int, str]) -> Segments:
        """Return everything before the data set, which has these new values.

        The preamble becomes zeros: it may hold anything, and what a TIFF reader finds by it has moved.
        """
        for tag, original in _COPIES.items():
            if original in written:
                value = written[original].encode("latin-1")
                self._level.chunks[:] = [chunk for chunk in self._level.chunks if chunk[0] != tag]
                self._level.insert(tag, encode_element(tag, "UI", value + b"\0" * (len(value) % 2), EXPLICIT_LITTLE))
        self._level.chunks[:] = [chunk for chunk in self._level.chunks if chunk[0] != _GROUP_LENGTH]
        rest = self._level.joined()
        whole = Segments()
        whole.write(b"\0" * 128 + b"DICM")
        whole.write(encode_element(_GROUP_LENGTH, "UL", struct.pack("<I", rest.length), EXPLICIT_LITTLE))
        whole.extend(rest)
        return whole


def plan_meta(window: Window, end: int, anonymization: Anonymization) -> MetaPlan:
    """Read the file meta information of a file that ends at ``end``.

    Raises:
        DicomProblem: it cannot be understood, or names no transfer syntax.
    """
    if window.peek(128, 4) != b"DICM":
        raise DicomProblem("no DICOM file (PS3.10)")
    planner = Planner(window, anonymization)
    level = Level(EXPLICIT_LITTLE, apart=None)
    syntax, at = "", 132
    while at < end and window.peek(at, 2) == b"\x02\0":
        element = read_element(window, at, end, EXPLICIT_LITTLE)
        if element.tag == TAG["TransferSyntaxUID"]:
            syntax = window.peek(element.value_at, min(element.length, 128)).strip(b"\0 ").decode("latin-1")
        at = planner.element(element, end, level)
    if not syntax:
        raise DicomProblem("it names no transfer syntax")
    return MetaPlan(syntax, at, level)
