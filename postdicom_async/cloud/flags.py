"""Flags of patient orders (``CloudApi.flags``)."""

from __future__ import annotations

from uuid import UUID

from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.messages import Name
from postdicom_async.face import public_face
from postdicom_async.vendor.answers import VendorAnswer

__all__ = ["CloudFlags"]


@public_face
class CloudFlags:
    """Operations on flags. Every method raises as those of `CloudOrders` do."""

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller

    async def dictionary(self) -> VendorAnswer:
        """Return the account's flag groups and flags (JavaScript library: ``GetAccountFlagDictionary``).

        Its fields are not known; they are in ``raw``.
        """
        return await self._caller.call(Name.FLAG_DICTIONARY, VendorAnswer)

    async def set(self, patient_order_uuid: UUID | str, *, group_id: int | str, flag_id: int | str) -> VendorAnswer:
        """Set a flag on an order (JavaScript library: ``SetFlagToPatientOrder``); ids are those of the dictionary.

        They are documented as texts; that library takes and sends whole numbers, see ``CloudWire.flag_ids_as_text``.
        """
        return await self._caller.call(
            Name.SET_FLAG, VendorAnswer, patient_order_uuid=patient_order_uuid, group_id=group_id, flag_id=flag_id
        )
