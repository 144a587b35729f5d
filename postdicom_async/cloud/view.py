"""Links that open the service's viewer (``CloudApi.view``)."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING
from uuid import UUID

from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.messages import Name
from postdicom_async.face import public_face
from postdicom_async.vendor.answers import ShareLink

if TYPE_CHECKING:
    from pydicom.valuerep import PersonName

__all__ = ["CloudView"]


@public_face
class CloudView:
    """Links to look at images. Each works only from the IP address that asked for it (documented).

    Every method raises as those of `CloudOrders` do.
    """

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller

    async def order(self, patient_order_uuid: UUID | str) -> ShareLink:
        """Return a link to an order (JavaScript library: ``GetViewUrl``)."""
        return await self._caller.call(Name.VIEW_ORDER, ShareLink, patient_order_uuid=patient_order_uuid)

    async def patient(
        self, patient_name: str | PersonName, *, patient_birthdate: date | str | None = None
    ) -> ShareLink:
        """Return a link to a patient (JavaScript library: ``GetViewUrlWithPatientName``, ``…AndBirthDate``)."""
        return await self._caller.call(
            Name.VIEW_PATIENT, ShareLink, patient_name=patient_name, patient_birthdate=patient_birthdate
        )

    async def folder(self, folder_uuid: UUID | str) -> ShareLink:
        """Return a link to a folder (JavaScript library: ``GetFolderViewUrl``)."""
        return await self._caller.call(Name.VIEW_FOLDER, ShareLink, folder_uuid=folder_uuid)
