"""Folders over the Cloud API: the same folders as on the DICOMweb side. Methods block.

Each method takes the fields of a general request and returns those of the answer. The root has a UUID here, the zero
GUID.
"""

from __future__ import annotations

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.orders import listed_orders
from postdicom_async.emulator.cloud.state import Cloud
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.folders import StoredFolder
from postdicom_async.emulator.vendor.parameters import ZERO_GUID, Given


class FolderRequests:
    """What general requests do to folders."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._account = cloud.vendor
        self._folders = cloud.vendor.folders

    def create(self, given: Given) -> Json:
        """Make a folder; a name with slashes makes those above it too."""
        name, description = given.text("FolderName"), given.text("FolderDescription")
        return self._told(self._folders.create(name, description, given.text("ParentFolderUuid")))

    def search(self, given: Given) -> Json:
        """Return a folder with those inside it; given a part of their names, with those anywhere below it."""
        parent, with_orders = self._folders.parent(given.text("ParentFolderUuid")), given.flag("GetOrdersInFolder")
        found = self._folders.search(parent.uuid, given.text("FolderName"))
        inside = [self._told(folder, with_orders=with_orders) for folder in found]
        return {"Folder": {**self._told(parent, with_orders=with_orders), "SubFolderList": inside}}

    def update(self, given: Given) -> Json:
        """Change a folder's name or description; values not given stay."""
        folder = self._folders.one(given.text("FolderUuid"))
        nested = given.mapping("JsonParameters")
        told = nested.get("IdentityInformation")
        if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
            raise Refusal(400, "JsonParameters: IdentityInformation must be an object of texts")
        extra = sorted({*(set(nested) - {"IdentityInformation"}), *(set(told) - {"Name", "Description"})})
        self._cloud.deviates("17/27", [f"JsonParameters: {name} is no place" for name in extra])
        name, description = told.get("Name") or folder.name, told.get("Description") or folder.description
        return self._told(self._folders.change(folder.uuid, name, description))

    def delete(self, given: Given) -> Json:
        """Delete a folder and those below it; their orders stay."""
        self._folders.delete(given.text("FolderUuid"))
        return {}

    def add_order(self, given: Given) -> Json:
        """Put an order into folders."""
        self._folders.add_order(self._account.named(given).uuid, given.items("FolderUuidList"))
        return {}

    def remove_orders(self, given: Given) -> Json:
        """Take orders out of a folder."""
        self._folders.remove_orders(given.text("FolderUuid"), given.items("PatientOrderUuidList"))
        return {}

    def _told(self, folder: StoredFolder, *, with_orders: bool = False) -> Json:
        orders, below = self._folders.order_uuids(folder.uuid), list(self._folders.below(folder.uuid))
        deeper = {uuid for one in below for uuid in self._folders.order_uuids(one.uuid)}
        fields = {
            **self._account.told_folder(folder),
            "FolderUuid": folder.uuid or ZERO_GUID,
            "ParentFolderUuid": folder.parent_uuid or ZERO_GUID,
            "AllSubOrderCount": len({*orders, *deeper}),
            "AllSubFolderCount": len(below),
        }
        if with_orders:
            fields["PatientOrderList"] = listed_orders(self._account, self._account.orders.some(orders))
        return fields
