"""Whether what an archive returns is what was sent: two streams of one instance, compared within bounded memory.

A small instance is held twice and, if its bytes differ, compared element by element. Of a large one, only what precedes
the pixel data is compared that way; the rest is compared byte by byte as it arrives.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio.to_thread

from postdicom_async.dicom.header import data_set_start, pixels_start
from postdicom_async.dicom.sameness import Difference, Differences, differences
from postdicom_async.dicom.tags import JSON_TAG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postdicom_async.bodies import Body

COMPARED_WHOLE: Final = 16 << 20
"""Bytes: up to this size an instance whose bytes differ is parsed by pydicom."""
_MORE: Final = 1 << 20  # bytes by which an archive's encoding of the same data set may be longer
_FIRST_LOOK: Final = 64 * 1024
_LONGEST_HEAD: Final = 4 << 20  # bytes before the pixel data of a large instance
_PIXEL_DATA: Final = JSON_TAG["PixelData"]


async def compared(sent: Body, received: AsyncIterator[bytes]) -> Differences:
    """Return how what is received differs from what was sent.

    Memory: for up to 16 MiB, twice the instance and 1 MiB; beyond that, what precedes the pixel data and a few pieces.
    For such a large instance, pixel data of another length cannot be told from the same pixels in another encoding; and
    if more than 4 MiB precede it, a difference is reported without tags.

    Raises:
        LocalFileError: the source changed, or is gone.
        PostdicomError: as ``received`` raises it.
    """
    if sent.length > COMPARED_WHOLE:
        return await _compare_streams(sent, received)
    limit = 2 * sent.length + _MORE
    got: list[bytes] = []
    size = 0
    async for piece in received:
        got.append(piece)
        size += len(piece)
        if size > limit:
            return Differences(Difference.CANNOT_COMPARE)
    async with aclosing(sent.open()) as pieces:
        original = b"".join([piece async for piece in pieces])
    return await anyio.to_thread.run_sync(differences, original, b"".join(got))


async def _compare_streams(body: Body, pieces_received: AsyncIterator[bytes]) -> Differences:
    """Compare what precedes the pixel data element by element, and the rest byte by byte as it arrives."""
    cannot = Differences(Difference.CANNOT_COMPARE)
    async with aclosing(body.open()) as pieces:
        sent, received = _Stream(pieces), _Stream(pieces_received)
        one, other = await sent.pass_head(), await received.pass_head()
        if one is None or other is None or one.syntax != other.syntax or one.with_elements != other.with_elements:
            return cannot
        rest = await _equal_rest(sent, received)
    if rest is None:  # another length: perhaps the same pixels in another encoding
        return cannot
    found = Differences(Difference.SAME)
    if one.with_elements:
        found = await anyio.to_thread.run_sync(differences, one.data, other.data)
    if rest or found.kind is Difference.CANNOT_COMPARE:
        return found
    changed = (*found.changed, _PIXEL_DATA) if one.with_elements else ()
    return replace(found, kind=Difference.DIFFERENT, changed=changed)


async def _equal_rest(sent: _Stream, received: _Stream) -> bool | None:
    """Return whether the remaining bytes are equal; None if one stream is longer."""
    equal = True
    while await sent.filled() and await received.filled():
        size = min(len(sent.held), len(received.held))
        equal = sent.taken(size) == received.taken(size) and equal
    return None if await sent.filled() or await received.filled() else equal


class _Head(NamedTuple):
    """The beginning of a file.

    Attributes:
        syntax: the transfer syntax.
        data: everything before the pixel data; if that does not come soon, everything before the data set.
        with_elements: whether ``data`` reaches to the pixel data.
    """

    syntax: str
    data: bytes
    with_elements: bool


class _Stream:
    """Pieces of bytes, taken in sizes other than those they arrive in.

    Attributes:
        held: bytes that have arrived and were not taken.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.held: memoryview | bytes = b""
        self._pieces = pieces

    async def filled(self) -> bool:
        """Wait until something is held; False at the end of the stream."""
        while not self.held:
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self.held = memoryview(piece)
        return True

    def taken(self, size: int) -> memoryview | bytes:
        """Take ``size`` of the held bytes."""
        taken, self.held = self.held[:size], self.held[size:]
        return taken

    async def pass_head(self) -> _Head | None:
        """Advance to the pixel data, or else to the beginning of the data set; None if neither can be found."""
        gathered, look, pixels = bytearray(), _FIRST_LOOK, None
        while len(gathered) < _LONGEST_HEAD and (piece := await anext(self._pieces, None)) is not None:
            gathered += piece
            if len(gathered) >= look:
                look = 2 * len(gathered)
                pixels = pixels_start(bytes(gathered))
                if pixels is not None:
                    break
        data = bytes(gathered)
        pixels = pixels_start(data) if pixels is None else pixels
        found = data_set_start(data)
        if found is None:
            return None
        syntax, start = found
        at = start if pixels is None else pixels
        self.held = memoryview(data)[at:]
        return _Head(syntax, data[:at], pixels is not None)
