"""What may be attached to an order: five kinds of files, known by content and by name (documented). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["DocumentType", "type_by_content", "type_by_name"]


@dataclass(frozen=True, slots=True)
class DocumentType:
    """A kind of document.

    Attributes:
        name: as people call it.
        media_type: as a browser names it, which is what the service is told.
        endings: of file names, in lower case.
    """

    name: str
    media_type: str
    endings: tuple[str, ...]


_BY_BEGINNING: Final = {
    re.compile(rb".{0,1019}%PDF-", re.DOTALL): DocumentType(
        "PDF", "application/pdf", ("pdf",)
    ),  # ISO 32000, note to 7.5.2
    re.compile(rb"\xff\xd8\xff"): DocumentType("JPEG", "image/jpeg", ("jpg", "jpeg")),
    re.compile(rb"\x89PNG\r\n\x1a\n"): DocumentType("PNG", "image/png", ("png",)),
    re.compile(rb"BM.{4}\0{4}", re.DOTALL): DocumentType("BMP", "image/bmp", ("bmp",)),
    re.compile(rb".{4}ftyp", re.DOTALL): DocumentType("MP4", "video/mp4", ("mp4",)),
}
_BY_ENDING: Final = {ending: kind for kind in _BY_BEGINNING.values() for ending in kind.endings}


def type_by_content(beginning: bytes) -> DocumentType | None:
    """Return what a file is that begins so (1 KiB is enough); None when it is no document."""
    return next((kind for form, kind in _BY_BEGINNING.items() if form.match(beginning)), None)


def type_by_name(name: str) -> DocumentType | None:
    """Return what a file is called to be; None when its name says nothing of the kind."""
    return _BY_ENDING.get(name.rpartition(".")[2].lower()) if "." in name else None
