"""Whether what an archive gives is what was sent: two streams of one instance, compared within bounded memory.

A small one is held twice and compared element by element where its bytes differ; a large one is compared byte by byte
as it comes.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from postdicom_async.dicom.header import data_set_start
from postdicom_async.dicom.sameness import Difference, Differences, differences

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postdicom_async.bodies import Body

__all__ = ["COMPARED_WHOLE", "compared"]

COMPARED_WHOLE: Final = 16 << 20
"""Bytes of an instance that is read by pydicom where its bytes differ."""
_MORE: Final = 1 << 20  # an archive may write the same data set this much longer
_META_BYTES: Final = 64 * 1024  # the file meta information is far smaller


async def compared(sent: Body, received: AsyncIterator[bytes]) -> Differences:
    """Return how what is received differs from what was sent.

    Memory: twice the instance and 1 MiB up to 16 MiB, that of a few pieces beyond; there a difference has no tags, and
    one in length cannot be told from another way of writing.

    Raises:
        LocalFileError: the source changed, or is gone.
        PostdicomError: as ``received`` raises it.
    """
    if sent.length <= COMPARED_WHOLE:
        return await _compare_whole(sent, received)
    return await _compare_streams(sent, received)


async def _compare_whole(sent: Body, received: AsyncIterator[bytes]) -> Differences:
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
    """Compare the data sets byte by byte, in flat memory; where they differ in length too, the encoding may have."""
    async with aclosing(body.open()) as pieces:
        sent, received = _Stream(pieces), _Stream(pieces_received)
        syntaxes = await sent.pass_meta(), await received.pass_meta()
        if None in syntaxes or syntaxes[0] != syntaxes[1]:
            return Differences(Difference.CANNOT_COMPARE)
        equal = True
        while await sent.filled() and await received.filled():
            size = min(len(sent.held), len(received.held))
            equal = sent.taken(size) == received.taken(size) and equal
        if await sent.filled() or await received.filled():
            return Differences(Difference.CANNOT_COMPARE)
        return Differences(Difference.SAME if equal else Difference.DIFFERENT)


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

    async def pass_meta(self) -> str | None:
        """Go to the beginning of the data set; return its transfer syntax, None where it does not show."""
        head = b""
        while len(head) < _META_BYTES and (piece := await anext(self._pieces, None)) is not None:
            head += piece
        found = data_set_start(head)
        self.held = memoryview(head)[found[1] :] if found else b""
        return found[0] if found else None
