"""Whether an archive holds what was sent: the instance is retrieved and compared.

A search proves that an instance of a UID exists, not that it is this one: an older one, or the original of an
anonymised copy, has the same UID. So what an answer leaves open is settled by the bytes alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from enum import Enum
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicom.sameness import Sameness
from postdicom_async.dicomweb.parts import Parts
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    LocalFileError,
    NotFound,
    PostdicomError,
)
from postdicom_async.transfer.comparing import COMPARED_WHOLE, compared

if TYPE_CHECKING:
    from postdicom_async.disk.sources import Usable

__all__ = ["Confirmation", "Holding"]

_OPERATION = "confirm"


class Holding(Enum):
    """What a look into the archive came to. The values complete the sentence "the archive …"."""

    SAME = "holds it"
    DIFFERENT = "holds another instance with this SOP Instance UID"
    ABSENT = "does not hold it"
    UNCLEAR = "gives it in a form that cannot be compared"
    UNREACHABLE = "cannot be asked for it"
    """For the moment, or with these credentials: asking for another one would end the same way."""


_HOLDINGS = {
    Sameness.SAME: Holding.SAME,
    Sameness.DIFFERENT: Holding.DIFFERENT,
    Sameness.UNCLEAR: Holding.UNCLEAR,
}


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
            async with self._in_memory if instance.body.length <= COMPARED_WHOLE else nullcontext():
                finding = _HOLDINGS[(await compared(instance.body, aiter(part))).sameness]
            if finding is not Holding.SAME:
                return finding
        return finding
