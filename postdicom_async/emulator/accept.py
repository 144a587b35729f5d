"""Pure: read media types and ``Accept`` headers (RFC 9110 sections 8.3 and 12.5.1, PS3.18 section 8.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MediaType", "parse_accept", "parse_media_type", "wants_only"]

_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"]*)')
_RANGE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')


@dataclass(frozen=True)
class MediaType:
    """A media type or range in lower case, its parameters by lower-case name, quotes removed."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """The ``q`` parameter; 1 when absent or odd."""
        try:
            return float(self.parameters.get("q", "1"))
        except ValueError:
            return 1.0

    def covers(self, name: str) -> bool:
        """Return whether this range (``*/*``, ``application/*``, or a full name) includes a media type."""
        return self.name in {name, "*/*", f"{name.partition('/')[0]}/*"}


def parse_media_type(text: str) -> MediaType:
    """Parse ``type/subtype; name=value; name="quoted value"``."""
    name = text.partition(";")[0].strip().lower()
    found = _PARAMETER.findall(text[text.find(";") :]) if ";" in text else []
    return MediaType(name, {key.lower(): _unquote(value.strip()) for key, value in found})


def parse_accept(text: str) -> list[MediaType]:
    """Parse an ``Accept`` header, best quality first, those with quality 0 left out; nothing given means anything."""
    ranges = [parse_media_type(part) for part in _RANGE.findall(text) if part.strip()]
    wanted = [media for media in ranges or [MediaType("*/*")] if media.quality > 0]
    return sorted(wanted, key=lambda media: -media.quality)


def wants_only(accept: list[MediaType], name: str, *others: str) -> bool:
    """Return whether ``name`` is accepted by its own name and none of ``others`` is accepted at all."""
    named = any(media.name == name for media in accept)
    return named and not any(media.covers(other) for media in accept for other in others)


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
