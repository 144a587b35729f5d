"""Links to patient orders (``PostDicom.shares``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from postdicom_async.face import public_face
from postdicom_async.postdicom.caller import Caller
from postdicom_async.vendor.answers import ShareLink

__all__ = ["Shares"]


@public_face
class Shares:
    """Operations that share orders. Every method raises as those of `Orders` do."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create_link(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Create a link to orders (documented: ``createsharelink``); without a password whoever has it may look."""
        return await self._caller.call("shares.create_link", ShareLink, locals())

    async def share_orders(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Share orders by a link (documented: ``sharepatientorderwithurl``)."""
        return await self._caller.call("shares.share_orders", ShareLink, locals())
