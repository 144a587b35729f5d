"""Folders over the Cloud API: the same that DICOMweb's side has. Methods block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.orders import listed_orders
from postdicom_async.emulator.cloud.parameters import ZERO_GUID
from postdicom_async.emulator.vendor.answers import folder_fields
from postdicom_async.emulator.vendor.folders import ROOT, Folder, Folders
from postdicom_async.emulator.vendor.orders import Orders
from postdicom_async.emulator.vendor.shares import Shares

if TYPE_CHECKING:
    import sqlite3

    from postdicom_async.emulator.cloud.parameters import Parameters
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["CloudFolders"]

_ROOT_FOLDER = Folder(ROOT, ROOT, "", "")


class CloudFolders:
    """What general requests do to folders; each takes the parameters and returns the fields of the answer."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._store = cloud.context.store
        self._options = cloud.context.options
        self._orders = Orders(self._store, self._options.institution_uuid)
        self._folders = Folders(self._store)
        self._shares = Shares(self._store)

    def create(self, given: Parameters) -> dict[str, Any]:
        """Make a folder; a name with slashes makes those above it too."""
        folder = self._folders.create(given.text("FolderName"), given.text("FolderDescription"), _parent(given))
        return self._fields(folder)

    def search(self, given: Parameters) -> dict[str, Any]:
        """Return a folder with those inside it; given a part of their names, with those anywhere below it."""
        parent = _parent(given)
        above = _ROOT_FOLDER if parent == ROOT else self._folders.one(parent)
        found = self._folders.search(parent, given.text("FolderName"))
        with_orders = given.flag("GetOrdersInFolder")
        inside = [self._fields(folder, with_orders=with_orders) for folder in found]
        return {"Folder": {**self._fields(above, with_orders=with_orders), "SubFolderList": inside}}

    def update(self, given: Parameters) -> dict[str, Any]:
        """Give a folder another name or description; what is not given stays."""
        folder = self._folders.one(given.text("FolderUuid"))
        nested = given.mapping("JsonParameters")
        told = nested.get("IdentityInformation")
        if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
            raise Refusal(400, "JsonParameters: IdentityInformation must be an object of texts")
        extra = sorted({*(set(nested) - {"IdentityInformation"}), *(set(told) - {"Name", "Description"})})
        self._cloud.deviates("17/27", [f"JsonParameters: {name} is no place" for name in extra])
        name, description = told.get("Name") or folder.name, told.get("Description") or folder.description
        with self._store.transaction() as database:
            database.execute(
                "UPDATE folders SET name = ?, description = ? WHERE uuid = ?", (name, description, folder.uuid)
            )
        return self._fields(self._folders.one(folder.uuid))

    def delete(self, given: Parameters) -> dict[str, Any]:
        """Delete a folder and those below it; their orders stay."""
        folder = self._folders.one(given.text("FolderUuid"))
        gone = [(one.uuid,) for one in (folder, *self._folders.below(folder.uuid))]

        def forget(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM folder_orders WHERE folder_uuid = ?", gone)
            database.executemany("DELETE FROM folders WHERE uuid = ?", gone)

        self._store.deleting(forget)
        return {}

    def add_order(self, given: Parameters) -> dict[str, Any]:
        """Put an order into folders."""
        order = self._orders.one(given.text("PatientOrderUuid"), given.text("PatientOrderInstitutionUuid"))
        self._folders.add_order(order.uuid, given.items("FolderUuidList"))
        return {}

    def remove_orders(self, given: Parameters) -> dict[str, Any]:
        """Take orders out of a folder."""
        folder, uuids = self._folders.one(given.text("FolderUuid")), given.items("PatientOrderUuidList")
        if not set(uuids) <= set(self._folders.order_uuids(folder.uuid)):
            raise Refusal(404, "an order is not in the folder")
        gone = [(folder.uuid, uuid) for uuid in uuids]
        sql = "DELETE FROM folder_orders WHERE folder_uuid = ? AND order_uuid = ?"
        self._store.deleting(lambda database: database.executemany(sql, gone))
        return {}

    def _fields(self, folder: Folder, *, with_orders: bool = False) -> dict[str, Any]:
        orders, below = self._folders.order_uuids(folder.uuid), list(self._folders.below(folder.uuid))
        deeper = {uuid for one in below for uuid in self._folders.order_uuids(one.uuid)}
        children = [one for one in below if one.parent_uuid == folder.uuid]
        fields = folder_fields(folder, self._shares.shared_folders(), len(orders), len(children))
        fields |= {
            "FolderUuid": folder.uuid or ZERO_GUID,
            "ParentFolderUuid": folder.parent_uuid or ZERO_GUID,
            "AllSubOrderCount": len({*orders, *deeper}),
            "AllSubFolderCount": len(below),
        }
        if with_orders:
            fields["PatientOrderList"] = listed_orders(self._store, self._options, self._orders.some(orders))
        return fields


def _parent(given: Parameters) -> str:
    uuid = given.text("ParentFolderUuid")
    return ROOT if uuid == ZERO_GUID else uuid
