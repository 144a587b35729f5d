"""Whether what an archive gives is what was sent: two streams of one instance, compared within bounded memory.

A small one is held twice and compared element by element where its bytes differ. Of a large one that is done with what
stands before the pixels, and the rest is compared byte by byte as it comes.
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
"""Bytes of an instance that is read by pydicom where its bytes differ."""
_MORE: Final = 1 << 20  # an archive may write the same data set this much longer
_FIRST_LOOK: Final = 64 * 1024
_LONGEST_HEAD: Final = 4 << 20  # before the pixels of a large instance
_PIXEL_DATA: Final = JSON_TAG["PixelData"]


async def compared(sent: Body, received: AsyncIterator[bytes]) -> Differences:
    """Return how what is received differs from what was sent.

    Memory: twice the instance and 1 MiB up to 16 MiB, beyond that what stands before the pixels, and a few pieces. Of
    such a large one pixels of another length cannot be told from the same in another way of writing; and where more
    than 4 MiB stand before them, a difference has no tags.

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
    """Compare what stands before the pixels element by element, and the rest byte by byte as it comes."""
    cannot = Differences(Difference.CANNOT_COMPARE)
    async with aclosing(body.open()) as pieces:
        sent, received = _Stream(pieces), _Stream(pieces_received)
        one, other = await sent.pass_head(), await received.pass_head()
        if one is None or other is None or one.syntax != other.syntax or one.with_elements != other.with_elements:
            return cannot
        rest = await _equal_rest(sent, received)
    if rest is None:  # another length: perhaps the same pixels, only written in another way
        return cannot
    found = Differences(Difference.SAME)
    if one.with_elements:
        found = await anyio.to_thread.run_sync(differences, one.data, other.data)
    if rest or found.kind is Difference.CANNOT_COMPARE:
        return found
    changed = (*found.changed, _PIXEL_DATA) if one.with_elements else ()
    return replace(found, kind=Difference.DIFFERENT, changed=changed)


async def _equal_rest(sent: _Stream, received: _Stream) -> bool | None:
    """Return whether what is left is the same; None where one is longer."""
    equal = True
    while await sent.filled() and await received.filled():
        size = min(len(sent.held), len(received.held))
        equal = sent.taken(size) == received.taken(size) and equal
    return None if await sent.filled() or await received.filled() else equal


class _Head(NamedTuple):
    """The beginning of a file.

    Attributes:
        syntax: the transfer syntax.
        data: all before the pixels; where they do not come soon, all before the data set.
        with_elements: which of the two.
    """

    syntax: str
    data: bytes
    with_elements: bool


class _Stream:
    """Pieces of bytes, taken in other sizes than they come.

    Attributes:
        held: what has come and was not taken.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.held: memoryview | bytes = b""
        self._pieces = pieces

    async def filled(self) -> bool:
        """Wait until something is held; False at the end."""
        while not self.held:
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self.held = memoryview(piece)
        return True

    def taken(self, size: int) -> memoryview | bytes:
        """Take so much of what is held."""
        taken, self.held = self.held[:size], self.held[size:]
        return taken

    async def pass_head(self) -> _Head | None:
        """Go to the pixels, or else to the beginning of the data set; None where it does not show."""
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
