"""Groups of connected orders (``CloudApi.groups``)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.messages import Name
from postdicom_async.face import public_face
from postdicom_async.vendor.answers import VendorAnswer

__all__ = ["CloudGroups"]


@public_face
class CloudGroups:
    """Operations on order groups. Every method raises as those of `CloudOrders` do.

    The orders belong to one institution: the user's only one, unless it is given.
    """

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller

    async def create(
        self, patient_order_uuids: Sequence[UUID | str], *, institution_uuid: UUID | str | None = None
    ) -> VendorAnswer:
        """Connect orders (JavaScript library: ``CreateOrderGroup``)."""
        return await self._caller.call(
            Name.CREATE_ORDER_GROUP,
            VendorAnswer,
            institution_uuid=institution_uuid,
            patient_order_uuids=patient_order_uuids,
        )

    async def add_orders(
        self,
        connected_group_uuid: UUID | str,
        patient_order_uuids: Sequence[UUID | str],
        *,
        institution_uuid: UUID | str | None = None,
    ) -> VendorAnswer:
        """Add orders to a group (JavaScript library: ``AddOrdersToOrderGroup``)."""
        return await self._caller.call(
            Name.ADD_ORDERS_TO_GROUP,
            VendorAnswer,
            institution_uuid=institution_uuid,
            connected_group_uuid=connected_group_uuid,
            patient_order_uuids=patient_order_uuids,
        )

    async def remove_orders(
        self, patient_order_uuids: Sequence[UUID | str], *, institution_uuid: UUID | str | None = None
    ) -> VendorAnswer:
        """Take orders out of the group they are in (JavaScript library: ``RemoveOrdersFromGroup``)."""
        return await self._caller.call(
            Name.REMOVE_ORDERS_FROM_GROUP,
            VendorAnswer,
            institution_uuid=institution_uuid,
            patient_order_uuids=patient_order_uuids,
        )
