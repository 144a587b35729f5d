"""The media types that a caller of the synchronous client names, as Accept headers (PS3.18 section 8.7.3). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

from postdicom_async.dicomweb.dialects import FRAME_LADDER
from postdicom_async.errors import UsageError

MediaTypes: TypeAlias = Iterable[str | tuple[str] | tuple[str, str]]
"""Media types, each alone or with a transfer syntax: ``("image/jpeg", ("application/octet-stream", "*"))``."""

_MEDIA_TYPE = re.compile(r"(application|image|text|video|\*)/([A-Za-z0-9.+-]+|\*)?")
_SYNTAX = re.compile(r"\*|[0-9.]+")
_DICOM = "application/dicom"

# Without a transfer syntax the archive converts to Explicit VR Little Endian, as the standard has it and callers of the
# incumbent expect; it asks for single instances as they are stored.
_CONVERTED: Final = ('multipart/related; type="application/dicom"', "multipart/related; type=application/dicom")
_AS_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def instances_ladder(media_types: MediaTypes | None, *, single: bool = False) -> tuple[str, ...]:
    """Return the Accept headers to try for instances, best first; ``single`` for one addressed by its own UID.

    Raises:
        UsageError: something else than ``application/dicom`` is wanted.
    """
    if media_types is None:
        return (_AS_STORED, *_CONVERTED) if single else _CONVERTED
    wanted = _checked(media_types)
    if any(kind != _DICOM for kind, _ in wanted):
        raise UsageError("instances come as application/dicom", argument="media_types")
    return (", ".join(map(_part, wanted)),)


def values_ladder(media_types: MediaTypes | None) -> tuple[str, ...]:
    """Return the Accept headers to try for frames or bulk data, best first.

    Raises:
        UsageError: something else than octets, pictures or videos is wanted.
    """
    if media_types is None:
        return ('multipart/related; type="*/*"', *FRAME_LADDER)
    wanted = _checked(media_types)
    if any(kind.startswith(("text/", "application/")) and kind != "application/octet-stream" for kind, _ in wanted):
        raise UsageError(
            "frames and bulk data come as application/octet-stream, image/* or video/*", argument="media_types"
        )
    return (", ".join(map(_part, wanted)),)


def rendered_accept(media_types: MediaTypes | None) -> str:
    """Return the Accept header for something rendered.

    Raises:
        UsageError: a media type is none that a rendering has, or has a transfer syntax.
    """
    if media_types is None:
        return "*/*"
    wanted = _checked(media_types)
    if any(syntax or (kind.startswith("application/") and kind != "application/pdf") for kind, syntax in wanted):
        raise UsageError("renderings come as image/*, video/*, text/* or application/pdf", argument="media_types")
    return ", ".join(kind for kind, _ in wanted)


def _checked(media_types: MediaTypes) -> list[tuple[str, str]]:
    if isinstance(media_types, str) or not isinstance(media_types, Collection) or not media_types:
        raise UsageError("give a tuple of media types", argument="media_types")
    return [_one(item) for item in media_types]


def _one(item: str | tuple[str] | tuple[str, str]) -> tuple[str, str]:
    texts = (item,) if isinstance(item, str) else tuple(item) if isinstance(item, tuple | list) else ()
    if (
        len(texts) not in (1, 2)
        or not all(isinstance(text, str) for text in texts)
        or not _MEDIA_TYPE.fullmatch(texts[0])
    ):
        wrong = "give media types such as image/jpeg, or pairs of one and a transfer syntax"
        raise UsageError(wrong, argument="media_types")
    kind, syntax = texts[0], texts[1] if len(texts) > 1 else ""
    if syntax and not _SYNTAX.fullmatch(syntax):
        raise UsageError("a transfer syntax is a UID, or * for any", argument="media_types")
    return kind + "*" if kind.endswith("/") else kind, str(syntax)


def _part(wanted: tuple[str, str]) -> str:
    kind, syntax = wanted
    return f'multipart/related; type="{kind}"' + (f"; transfer-syntax={syntax}" if syntax else "")
