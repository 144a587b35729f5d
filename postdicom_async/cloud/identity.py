"""Whose file it is, as it will be sent: for the question whether the service has it, and for masking its answers."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from postdicom_async.dicom.header import HEADER_LIMIT, read_values
from postdicom_async.dicom.text import decode_text
from postdicom_async.vendor.values import private_texts

if TYPE_CHECKING:
    from postdicom_async.bodies import Body

__all__ = ["Identity", "read_identity"]

_CHARACTER_SET, _PATIENT_NAME, _PATIENT_ID = 0x00080005, 0x00100010, 0x00100020

# What may tell who a patient is and is short enough to be repeated in the reason of a refusal.
_PRIVATE = frozenset(
    {
        0x00080050,  # Accession Number
        0x00080080,  # Institution Name
        0x00080081,  # Institution Address
        0x00080090,  # Referring Physician's Name
        0x00081030,  # Study Description
        _PATIENT_NAME,
        _PATIENT_ID,
        0x00100030,  # Patient's Birth Date
        0x00101000,  # Other Patient IDs
        0x00101001,  # Other Patient Names
        0x00101040,  # Patient's Address
        0x00102154,  # Patient's Telephone Numbers
    }
)


_SCRIPT_SPACE = "\t\n\v\f\r \xa0"  # what JavaScript trims, as far as Latin-1 has it


@dataclass(frozen=True, slots=True)
class Identity:
    """Patient's Name and Patient ID, empty where there is none.

    Attributes:
        name_bytes: Patient's Name as the JavaScript library reads it: bytes as Latin-1, whatever the character set.
        id_bytes: Patient ID, likewise.
        private: what must not show in the service's words.
    """

    patient_name: str = field(repr=False)
    patient_id: str = field(repr=False)
    name_bytes: str = field(repr=False)
    id_bytes: str = field(repr=False)
    private: tuple[str, ...] = field(repr=False)


def _as_a_line(text: str) -> str:
    """Return it as a reason would show it: bytes read as Latin-1 may be control characters."""
    return " ".join("".join([char if char.isprintable() else " " for char in text]).split())


async def read_identity(body: Body) -> Identity:
    """Return whose file it is, from the beginning of what will be sent.

    Raises:
        LocalFileError: it cannot be read, or is not what it was.
    """
    beginning, values = b"", dict[int, bytes]()
    async with aclosing(body.open()) as pieces:
        async for piece in pieces:
            beginning += piece
            values, more = read_values(beginning, _PRIVATE | {_CHARACTER_SET})
            if not more or len(beginning) >= HEADER_LIMIT:
                break
    characters = values.get(_CHARACTER_SET, b"")
    texts = {tag: decode_text(values[tag], characters) for tag in _PRIVATE if tag in values}
    name_bytes, id_bytes = (_bytes_as_text(values.get(tag, b"")) for tag in (_PATIENT_NAME, _PATIENT_ID))
    spelled = [*texts.values(), name_bytes, id_bytes, _as_a_line(name_bytes), _as_a_line(id_bytes)]
    private = private_texts({str(at): text.split("\\") for at, text in enumerate(spelled) if text})
    return Identity(texts.get(_PATIENT_NAME, ""), texts.get(_PATIENT_ID, ""), name_bytes, id_bytes, private)


def _bytes_as_text(value: bytes) -> str:
    """Return bytes as the script's DICOM parser does: up to a zero byte, without white space around them."""
    return value.partition(b"\0")[0].decode("latin-1").strip(_SCRIPT_SPACE)
