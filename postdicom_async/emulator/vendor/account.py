"""The account that both of PostDICOM's APIs work on: its orders, folders and shares, and how answers list them. Blocks.

The answers are not documented. The names are those of the JavaScript library for the same objects, and of this
archive's choice where that says nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pydicom.datadict import keyword_for_tag

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.context import ArchiveContext, ArchiveOptions
from postdicom_async.emulator.store.archive import ArchiveStore, IndexRow, StoredInstance
from postdicom_async.emulator.store.attributes import EntityLevel
from postdicom_async.emulator.store.files import UnreadableHeader
from postdicom_async.emulator.store.header import BINARY, Json, read_header
from postdicom_async.emulator.store.schema import series_uuid_of
from postdicom_async.emulator.vendor.folders import StoredFolder, StoredFolders
from postdicom_async.emulator.vendor.orders import StoredOrder, StoredOrders, value_text
from postdicom_async.emulator.vendor.parameters import Given
from postdicom_async.emulator.vendor.shares import SHARE_PATH, StoredShares

WITHOUT_IMAGES, WITH_IMAGES = 10, 70
"""``OrderStatus``: numbers of this archive's choice."""


class VendorAccount:
    """The account's orders, folders and shares; has no state of its own."""

    def __init__(self, context: ArchiveContext) -> None:
        self.store: ArchiveStore = context.store
        self.options: ArchiveOptions = context.options
        self.orders: StoredOrders = StoredOrders(context.store, context.options.institution_uuid)
        self.folders: StoredFolders = StoredFolders(context.store)
        self.shares: StoredShares = StoredShares(context.store)

    def named(self, given: Given) -> StoredOrder:
        """Return the order that a request names, perhaps with its institution."""
        return self.orders.one(given.text("PatientOrderUuid"), given.text("PatientOrderInstitutionUuid"))

    def create_order(self, given: Given, values: Mapping[str, object]) -> StoredOrder:
        """Make an order without images."""
        institution = given.text("InstitutionUuid")
        require(institution, self.options.institutions, "institution")
        return self.orders.create(institution, values)

    def assign(self, given: Given) -> Json:
        """Assign an order to a user or a group, in place of the one before."""
        user, group = given.text("AssignedUserUuid"), given.text("AssignedUserGroupUuid")
        if user:
            require(user, self.options.users, "user")
        else:
            require(group, self.options.user_groups, "user group")
        self.orders.change(given.text("PatientOrderUuid"), "user_uuid" if user else "group_uuid", user or group)
        return {}

    def share(self, given: Given, orders: Collection[str] = (), folder: str = "") -> Json:
        """Share orders or a folder by a link; what is in a folder is looked up when somebody opens it."""
        for uuid in orders:
            self.orders.one(uuid)
        token = self.shares.create(
            list(orders),
            folder and self.folders.one(folder).uuid,
            title=given.text("ShareTitle"),
            description=given.text("ShareDescription"),
            password=given.text("SharePassword"),
            expires=given.day("ExpireDate"),
            downloadable=given.flag("UserCanDownloadStudies") or given.flag("Downloadable"),
        )
        return {"Result": f"{given.base}{SHARE_PATH}/{token}"}

    def told_orders(self, orders: Iterable[StoredOrder]) -> list[Json]:
        """Return orders as searches list them, their fields under their own names."""
        shared, institutions = self.shares.shared_orders(), self.options.institutions
        return [
            {
                "PatientOrderUuid": order.uuid,
                "PatientOrderInstitutionUuid": order.institution_uuid,
                "InstitutionName": institutions.get(order.institution_uuid, ""),
                **order.fields,
                "OrderModality": "\\".join(order.modalities),
                "OrderStatus": WITH_IMAGES if order.study_uid else WITHOUT_IMAGES,
                "StudyInstanceUid": order.study_uid,
                "SeriesCount": order.series_count,
                "ImagesCount": order.images_count,
                "DocumentsCount": 0,
                "OrderSize": order.size // 1024,
                "IsShared": order.uuid in shared,
                "AssignedUserUuid": order.user_uuid,
                "AssignedUserGroupUuid": order.group_uuid,
            }
            for order in orders
        ]

    def told_places(self, order: StoredOrder) -> Json:
        """Return what the properties of an order add: its folders and series."""
        rows = self.store.rows(EntityLevel.SERIES, {"0020000D": [order.study_uid]})
        return {
            "FolderUuidList": self.folders.folders_of(order.uuid),
            "PatientSeriesList": list(map(_told_series, rows)),
        }

    def told_folder(self, folder: StoredFolder) -> Json:
        """Return a folder as searches list it."""
        return {
            "FolderUuid": folder.uuid,
            "FolderName": folder.name,
            "FolderDescription": folder.description,
            "ParentFolderUuid": folder.parent_uuid,
            "IsShared": folder.uuid in self.shares.shared_folders(),
            "OrderCount": len(self.folders.order_uuids(folder.uuid)),
            "SubFolderCount": len(self.folders.children(folder.uuid)),
        }

    def told_tags(self, order: StoredOrder, series_uuid: str, tags: list[str]) -> list[Json]:
        """Return the content of tags of the first instance of each series, or of one series.

        Raises:
            Refusal: 404 when there is no such series.
        """
        firsts: dict[str, StoredInstance] = {}
        for one in self.orders.instances(order):
            firsts.setdefault(series_uuid_of(*one.uids[:2]), one)
        found = {uuid: one for uuid, one in firsts.items() if series_uuid in {"", uuid}}
        if series_uuid and not found:
            raise Refusal(404, "no such series in this patient order")
        return [fields for uuid, one in found.items() for fields in _told_tags(uuid, one, tags)]


def require(uuid: str, known: Collection[str], what: str) -> None:
    """Refuse with 404 unless a UUID is known."""
    if uuid not in known:
        raise Refusal(404, f"no such {what}")


def _told_series(row: IndexRow) -> Json:
    study_uid, series_uid, _ = row.uids
    value = {tag: next(iter(row.series.get(tag, {}).get("Value", [])), "") for tag in ("00080060", "0008103E")}
    return {
        "PatientSeriesUuid": series_uuid_of(study_uid, series_uid),
        "SeriesInstanceUid": series_uid,
        "Modality": value["00080060"],
        "SeriesDescription": value["0008103E"],
        "ImagesCount": row.instances_in_series,
    }


def _told_tags(series_uuid: str, instance: StoredInstance, wanted: list[str]) -> list[Json]:
    """Return the wanted tags that exist, or all of them but bulk data."""
    try:
        attributes = read_header(instance.path).json()
    except (OSError, UnreadableHeader):  # deleted meanwhile
        return []
    return [
        {
            "PatientSeriesUuid": series_uuid,
            "SeriesInstanceUid": instance.uids.series_instance_uid,
            "DicomTagId": tag,
            "DicomTagName": keyword_for_tag(int(tag, 16)),
            "ValueRepresentation": attributes[tag]["vr"],
            "Value": _content(attributes[tag]),
        }
        for tag in wanted or attributes
        if tag in attributes and (wanted or attributes[tag]["vr"] not in BINARY)
    ]


def _content(element: Json) -> str | list[Json]:
    """Return values as text, as they would stand in a file; the items of a sequence in the DICOM JSON model."""
    values = element.get("Value", [])
    return list(values) if element["vr"] == "SQ" else "\\".join(map(value_text, values))
