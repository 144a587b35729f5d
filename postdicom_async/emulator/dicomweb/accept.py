"""Pure: read media types and ``Accept`` headers (RFC 9110 sections 8.3 and 12.5.1, PS3.18 section 8.7).

Linear time: input from clients is never matched by a backtracking regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
LONGEST = 4096
"""The longest header to parse; every range is compared with each part of an answer."""


@dataclass(frozen=True)
class MediaRange:
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


def parse_media_type(text: str) -> MediaRange:
    """Parse ``type/subtype; name=value; name="quoted value"``."""
    name, *parameters = _split(text, ";")
    found = (parameter.partition("=") for parameter in parameters)
    values = {key.strip().lower(): _unquote(value.strip()) for key, equals, value in found if equals and key.strip()}
    return MediaRange(name.strip().lower(), values)


def parse_accept(text: str) -> list[MediaRange]:
    """Parse an ``Accept`` header, best quality first, without those of quality 0; an empty header accepts anything."""
    ranges = [parse_media_type(part) for part in _split(text, ",") if part.strip()]
    wanted = [media for media in ranges or [MediaRange("*/*")] if media.quality > 0]
    return sorted(wanted, key=lambda media: -media.quality)


def wants_only(accept: list[MediaRange], name: str, *others: str) -> bool:
    """Return whether ``name`` is accepted by its own name and none of ``others`` is accepted at all."""
    named = any(media.name == name for media in accept)
    return named and not any(media.covers(other) for media in accept for other in others)


def _split(text: str, separator: str) -> list[str]:
    """Split a text at a character, but not inside quotes, where a backslash escapes the next character."""
    pieces, start, is_quoted, is_escaped = [], 0, False, False
    for at, char in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted and char == "\\":
            is_escaped = True
        elif char == '"':
            is_quoted = not is_quoted
        elif char == separator and not is_quoted:
            pieces.append(text[start:at])
            start = at + 1
    return [*pieces, text[start:]]


def _unquote(value: str) -> str:
    """Return what is between quotes, without the backslashes that escape characters."""
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return _ESCAPED.sub(r"\1", value[1:-1]) if is_quoted else value
