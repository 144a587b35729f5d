"""Media types: those to request, and those that an answer declares (PS3.18 section 8.7). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

DICOM_JSON: Final = "application/dicom+json"

ASKING_FOR_JSON: Final = {"Accept": DICOM_JSON, "Accept-Encoding": "gzip"}
"""Headers for search results or metadata. Those compress well; instances hardly do, and are requested uncompressed."""

# Accept headers to try, best first. The first keeps the stored transfer syntax (PS3.18 section 8.7.3.5.2); without it a
# server decompresses an archive copy. Old Orthanc and dcm4chee refuse the parameter, so the next one omits it.
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
"""Accept headers for frames and bulk data: as stored, then uncompressed, then anything."""


@dataclass(frozen=True, slots=True)
class ContentType:
    """A parsed Content-Type: the lower-case type and its parameters by lower-case name."""

    essence: str
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def is_multipart(self) -> bool:
        """Whether it is multipart/related, or another multipart type that some servers declare instead."""
        return self.essence.startswith("multipart/")

    @property
    def is_json(self) -> bool:
        """Whether it is DICOM JSON or plain JSON; servers use either."""
        return self.essence in ("application/dicom+json", "application/json")

    @property
    def is_xml(self) -> bool:
        """Whether it is Native DICOM XML or plain XML."""
        return self.essence in ("application/dicom+xml", "application/xml", "text/xml")


# Laxer than the grammar: an unquoted value may hold characters that need quotes, as in type=application/dicom.
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_LONGEST = 4096


def parse_media_type(value: str | None) -> ContentType:
    """Return a parsed Content-Type header; an absent or malformed one has an empty type."""
    text = (value or "")[:_LONGEST]
    essence = text.partition(";")[0].strip().lower()
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain.strip()
        for name, quoted, plain in _PARAMETER.findall(text)
    }
    return ContentType(essence, parameters)
