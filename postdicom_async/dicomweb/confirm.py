"""Whether an archive holds what was sent: the instance is retrieved and compared.

A search proves that an instance of a UID exists, not that it is this one: an older one, or the original of an
anonymised copy, has the same UID. So what an answer leaves open is settled by the bytes alone.
"""

from __future__ import annotations

from contextlib import aclosing
from enum import Enum
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from postdicom_async.dicom.header import data_set_start
from postdicom_async.dicom.sameness import Sameness, compare_files
from postdicom_async.dicomweb.parts import Part, Parts
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    LocalFileError,
    NotFound,
    PostdicomError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postdicom_async.disk.sources import Usable

__all__ = ["Confirmation", "Holding"]

_OPERATION = "confirm"
_COMPARED_WHOLE = 16 << 20  # bytes of an instance that is read by pydicom where its bytes differ
_MORE = 1 << 20  # an archive may write the same data set this much longer
_META_BYTES = 64 * 1024  # the file meta information is far smaller


class Holding(Enum):
    """What a look into the archive came to. The values complete the sentence "the archive …"."""

    SAME = "holds it"
    DIFFERENT = "holds another instance with this SOP Instance UID"
    ABSENT = "does not hold it"
    UNCLEAR = "gives it in a form that cannot be compared"
    UNREACHABLE = "cannot be asked for it"
    """For the moment, or with these credentials: asking for another one would end the same way."""


class Confirmation:
    """Looks into the archive for instances that were sent."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval
        self._in_memory = anyio.Semaphore(1)  # uploads run in parallel; this is rare, and may hold two copies

    async def look(self, instance: Usable) -> Holding:
        """Retrieve an instance and compare it with what was sent; everything but a cancellation is a finding."""
        target = Target(*instance.header.uids)
        parts = Parts(
            [(lambda: self._retrieval.open(target, operation=_OPERATION), None)],
            operation=f"{_OPERATION} instance",
            max_parts=self._retrieval.session.settings.limits.parts,
        )
        try:
            async with parts:
                return await self._compared(parts, instance)
        except NotFound:
            return Holding.ABSENT
        except (AuthenticationFailed, ConnectionFailed):
            return Holding.UNREACHABLE
        except LocalFileError:
            return Holding.UNCLEAR  # the source changed, or is gone
        except PostdicomError as error:
            return Holding.UNREACHABLE if error.temporary else Holding.UNCLEAR

    async def _compared(self, parts: Parts, instance: Usable) -> Holding:
        finding = Holding.UNCLEAR
        count = 0
        async for part in parts:
            count += 1
            if count > 1:  # which of them is it?
                return Holding.UNCLEAR
            if instance.body.length <= _COMPARED_WHOLE:
                async with self._in_memory:
                    finding = await _compare_whole(instance, part)
            else:
                finding = await _compare_streams(instance, part)
            if finding is not Holding.SAME:
                return finding
        return finding


_HOLDINGS = {
    Sameness.SAME: Holding.SAME,
    Sameness.DIFFERENT: Holding.DIFFERENT,
    Sameness.UNCLEAR: Holding.UNCLEAR,
}


async def _compare_whole(instance: Usable, part: Part) -> Holding:
    limit = 2 * instance.body.length + _MORE
    received: list[bytes] = []
    size = 0
    async for piece in part:
        received.append(piece)
        size += len(piece)
        if size > limit:
            return Holding.UNCLEAR
    async with aclosing(instance.body.open()) as pieces:
        sent = b"".join([piece async for piece in pieces])
    return _HOLDINGS[await anyio.to_thread.run_sync(compare_files, sent, b"".join(received))]


async def _compare_streams(instance: Usable, part: Part) -> Holding:
    """Compare the data sets byte by byte, in flat memory; where they differ in length too, the encoding may have."""
    async with aclosing(instance.body.open()) as pieces:
        sent, received = _Stream(pieces), _Stream(aiter(part))
        syntaxes = await sent.pass_meta(), await received.pass_meta()
        if None in syntaxes or syntaxes[0] != syntaxes[1]:
            return Holding.UNCLEAR
        equal = True
        while await sent.filled() and await received.filled():
            size = min(len(sent.held), len(received.held))
            equal = sent.taken(size) == received.taken(size) and equal
        if await sent.filled() or await received.filled():
            return Holding.UNCLEAR
        return Holding.SAME if equal else Holding.DIFFERENT


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
