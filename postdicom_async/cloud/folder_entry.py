"""Orders whose files an upload did not have to send are put into its folder all the same (17/8), each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from postdicom_async.errors import PostdicomError
from postdicom_async.face import translated
from postdicom_async.http.problems import Problem
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.vendor.answers import VendorAnswer

if TYPE_CHECKING:
    from postdicom_async.cloud.caller import CloudCaller
    from postdicom_async.cloud.existence import Held

__all__ = ["FolderEntry"]

_OPERATION = "add order to folder"
_MOST_TRIES = 3


class FolderEntry:
    """The folder of one upload."""

    def __init__(self, caller: CloudCaller, folder_uuid: str) -> None:
        self._caller = caller
        self._folder_uuid = folder_uuid
        self._asking = anyio.Lock()
        self._ends: dict[str, PostdicomError | None] = {}

    async def add_order(self, held: Held) -> PostdicomError | None:
        """Put the order of a file that is there into the folder; return why that was not possible."""
        async with self._asking:
            order = held.patient_order_uuid or ""
            if order not in self._ends:
                self._ends[order] = await self._added(held)
            return self._ends[order]

    async def _added(self, held: Held) -> PostdicomError | None:
        """Try a few times: that an order is put into a folder twice changes nothing."""

        async def attempt() -> None:
            with translated(PostdicomError, lambda error: Problem(Failure.REFUSED, error)):
                await self._caller.call(
                    "folders.add_order",
                    VendorAnswer,
                    {
                        "institution_uuid": held.institution_uuid,
                        "patient_order_uuid": held.patient_order_uuid,
                        "folder_uuids": [self._folder_uuid],
                    },
                )

        try:
            await self._caller.connection.repeats.run(_OPERATION, Repeat.READ, attempt, at_most=_MOST_TRIES)
        except PostdicomError as error:
            return error
        return None
