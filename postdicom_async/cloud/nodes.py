"""The account's DICOM nodes (``CloudApi.nodes``)."""

from __future__ import annotations

from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.messages import Name
from postdicom_async.face import public_face
from postdicom_async.vendor.answers import VendorAnswer

__all__ = ["CloudNodes"]


@public_face
class CloudNodes:
    """Operations on DICOM nodes."""

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller

    async def all(self) -> list[VendorAnswer]:
        """Return the account's DICOM nodes (JavaScript library: ``GetDicomNodeList``); their fields are in ``raw``."""
        return await self._caller.listed(Name.LIST_NODES, VendorAnswer)
