"""Media types of DICOMweb: what to ask for, and what an answer says it is (PS3.18 section 8.7). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

__all__ = ["ASKING_FOR_JSON", "DICOM_JSON", "FRAME_LADDER", "INSTANCE_LADDER", "MediaType", "parse_media_type"]

DICOM_JSON: Final = "application/dicom+json"

ASKING_FOR_JSON: Final = {"Accept": DICOM_JSON, "Accept-Encoding": "gzip"}
"""Headers that ask for results or metadata. They pack well; instances hardly do, and are asked for as they are."""

# What is asked for, best first. The first keeps the stored transfer syntax (PS3.18 section 8.7.3.5.2); without it a
# server decompresses an archive copy. Old Orthanc and dcm4chee refuse the parameter, so it is left out next.
_ANY_SYNTAX = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_QUOTED = 'multipart/related; type="application/dicom"'
_UNQUOTED = "multipart/related; type=application/dicom"

INSTANCE_LADDER: Final[tuple[str, ...]] = (_ANY_SYNTAX, _QUOTED, _UNQUOTED)
"""Accept headers for a study, series or instance."""

FRAME_LADDER: Final[tuple[str, ...]] = (
    'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    'multipart/related; type="application/octet-stream"',
    'multipart/related; type="image/jpeg"; transfer-syntax=*',
    "*/*",
)
"""Accept headers for frames and bulk data: as stored, then uncompressed, then whatever there is."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A parsed Content-Type: the lower-case type and its parameters by lower-case name."""

    essence: str
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def is_multipart(self) -> bool:
        """Whether it is multipart/related, or another multipart that some servers say instead."""
        return self.essence.startswith("multipart/")

    @property
    def is_json(self) -> bool:
        """Whether it is DICOM JSON or plain JSON; servers use either."""
        return self.essence in ("application/dicom+json", "application/json")

    @property
    def is_xml(self) -> bool:
        """Whether it is Native DICOM XML or plain XML."""
        return self.essence in ("application/dicom+xml", "application/xml", "text/xml")


# Laxer than the grammar: an unquoted value may hold what should have been quoted, as in type=application/dicom.
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_LONGEST = 4096


def parse_media_type(value: str | None) -> MediaType:
    """Return a Content-Type header taken apart; an absent or malformed one has an empty type."""
    text = (value or "")[:_LONGEST]
    essence = text.partition(";")[0].strip().lower()
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain.strip()
        for name, quoted, plain in _PARAMETER.findall(text)
    }
    return MediaType(essence, parameters)
