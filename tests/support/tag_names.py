"""Valid and invalid spellings of a tag: one table for every function that takes tags from a caller."""

from __future__ import annotations

from typing import Any

from postdicom_async.dicom.tags import tag_of

__all__ = ["NO_TAGS", "SPELLINGS", "json_tag_of"]

SPELLINGS = {
    "PatientName": "00100010",
    " PatientName ": "00100010",
    "00100010": "00100010",
    "x00100010": "00100010",
    "X00100010": "00100010",
    "0x00100010": "00100010",
    "0X00100010": "00100010",
    "(0010,0010)": "00100010",
    "(0010, 0010)": "00100010",
    "0010,0010": "00100010",
    "StudyInstanceUID": "0020000D",
    "0020000d": "0020000D",
    "0020000D": "0020000D",
    "(0020,000D)": "0020000D",
    "(0020, 000d)": "0020000D",
    "0020,000D": "0020000D",
    "BeamSequence": "300A00B0",  # none of those that are looked up without pydicom
    "300a00b0": "300A00B0",
    "x300A00b0": "300A00B0",
    "(300A,00B0)": "300A00B0",
    "00091001": "00091001",
}
"""Valid spellings with their tags."""

NO_TAGS: list[Any] = [
    "PatientNames", "NoSuchKeyword", "patientname", "Patient Name", "Patient's Name", "", " ", "0020", "0010001",
    "001000100", "0020000DX", "00100010x", "0020000G", "x0010", "00x00100010", "(0010,0010", "0010,0010)", "0010 0010",
    "\uff10020000D", "x&y=z", "x&limit=1", "x" * 5000, 0x00100010, 5, None, b"PatientName", ("PatientName",),
]  # fmt: skip
"""Texts that do not name a tag."""


def json_tag_of(name: str) -> str | None:
    """Return a tag in DICOM JSON's form, None if the text names none."""
    tag = tag_of(name)
    return None if tag is None else f"{tag:08X}"
