"""Rendered frames that were asked for in several requests, as the one answer they would have been. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from postdicom_async.dicomweb.multipart import MultipartDamage, PartEnd, PartEvents, PartStart, reader_for
from postdicom_async.results import Rendered

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RenderedPiece", "joined"]

_KEPT = {"content-type": "Content-Type", "content-location": "Content-Location"}


class RenderedPiece(NamedTuple):
    """The answer to one request for ``frames`` frames."""

    frames: int
    content_type: str
    body: bytes


def joined(pieces: Iterable[RenderedPiece], boundary: str) -> Rendered:
    """Return the pictures of all pieces in order, as multipart/related (PS3.18 section 8.6.1.2).

    Raises:
        MultipartDamage: an answer is damaged, or does not have one picture for each frame: a video or an animation of
            some frames cannot be put together with that of others.
    """
    body = bytearray()
    for piece in pieces:
        count = 0
        events = PartEvents()
        reader = reader_for(piece.content_type, events, end_is_marked=True, max_parts=piece.frames)
        reader.feed(piece.body)
        reader.close()
        for event in events:
            if isinstance(event, PartStart):
                count += 1
                lines = [f"{_KEPT[name]}: {value}\r\n" for name, value in event.headers.items() if name in _KEPT]
                body += f"--{boundary}\r\n{''.join(lines)}\r\n".encode("latin-1", "replace")
            elif isinstance(event, PartEnd):
                body += b"\r\n"
            else:
                body += event
        if count != piece.frames:
            raise MultipartDamage(
                f"the archive answered with {count} picture{'s' * (count != 1)} for {piece.frames} frames"
            )
    body += f"--{boundary}--\r\n".encode()
    return Rendered(bytes(body), f'multipart/related; boundary="{boundary}"')
