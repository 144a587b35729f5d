"""What PostDICOM's own operations do to an archive's data. Methods block and return the fields of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.store.attributes import Level
from postdicom_async.emulator.store.header import UnreadableHeader, read_header
from postdicom_async.emulator.vendor.answers import folder_fields, order_fields, series_fields, tag_fields
from postdicom_async.emulator.vendor.folders import Folders
from postdicom_async.emulator.vendor.order_search import order_matches, require_short
from postdicom_async.emulator.vendor.orders import Orders
from postdicom_async.emulator.vendor.schema import series_uuid_of
from postdicom_async.emulator.vendor.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postdicom_async.emulator.context import ArchiveOptions
    from postdicom_async.emulator.operations.parameters import Given
    from postdicom_async.emulator.store.archive import ArchiveStore, StoredInstance
    from postdicom_async.emulator.store.header import Json
    from postdicom_async.emulator.vendor.folders import Folder
    from postdicom_async.emulator.vendor.orders import Order

__all__ = ["SHARE_PATH", "Actions"]

SHARE_PATH = "/share"
"""Where the pages of shares are, below the archive's address."""

Action: TypeAlias = "Callable[[Given, str], Json]"


class Actions:
    """The thirteen operations; each takes the decoded parameters and the archive's address."""

    def __init__(self, store: ArchiveStore, options: ArchiveOptions) -> None:
        self._store = store
        self._options = options
        self._orders = Orders(store, options.institution_uuid)
        self._folders = Folders(store)
        self._shares = Shares(store)

    def by_name(self) -> dict[str, Action]:
        """Return the operations by the names of their paths."""
        return {
            "createsharelink": self.create_share_link,
            "sharepatientorderwithurl": self.share_orders,
            "createfolder": self.create_folder,
            "searchfolder": self.search_folder,
            "sharefolderwithurl": self.share_folder,
            "addordertofolder": self.add_order_to_folder,
            "assignordertouser": self.assign_to_user,
            "assignordertousergroup": self.assign_to_group,
            "createpatientorder": self.create_order,
            "getpatientorderproperties": self.order_properties,
            "getdicomtagcontent": self.tag_content,
            "getpatientorderlist": self.search_orders,
            "deleteorder": self.delete_order,
        }

    # Shares

    def create_share_link(self, given: Given, base: str) -> Json:
        """Share orders by a link."""
        return self._share(given, base, given.items("PatientOrderInfoList"), downloadable=given.flag("Downloadable"))

    def share_orders(self, given: Given, base: str) -> Json:
        """Share orders by a link: the same under other names."""
        return self._share(given, base, given.items("OrderUuidList"), downloadable=_may_download(given))

    def share_folder(self, given: Given, base: str) -> Json:
        """Share what is in a folder and below it, at the time somebody looks."""
        folder = self._folders.one(given.text("FolderUuid"))
        return self._share(given, base, [], folder=folder.uuid, downloadable=_may_download(given))

    def _share(self, given: Given, base: str, orders: list[str], *, folder: str = "", downloadable: bool) -> Json:
        self._orders.require(orders)
        token = self._shares.create(
            order_uuids=orders,
            folder_uuid=folder,
            title=given.text("ShareTitle"),
            description=given.text("ShareDescription"),
            password=given.text("SharePassword"),
            expires=given.day("ExpireDate"),
            downloadable=downloadable,
        )
        return {"Result": f"{base}{SHARE_PATH}/{token}"}

    # Folders

    def create_folder(self, given: Given, _base: str) -> Json:
        """Make a folder."""
        folder = self._folders.create(
            given.text("FolderName"), given.text("FolderDescription"), given.text("ParentFolderUuid")
        )
        return self._folder_fields(folder, set())

    def search_folder(self, given: Given, _base: str) -> Json:
        """Find folders, with their orders if asked for."""
        found = self._folders.search(given.text("ParentFolderUuid"), given.text("FolderName"))
        shared = self._shares.shared_folders()
        listed = [self._folder_fields(folder, shared) for folder in found]
        if given.flag("GetOrdersInFolder"):
            for folder, fields in zip(found, listed, strict=True):
                orders = self._orders.some(self._folders.order_uuids(folder.uuid))
                fields["PatientOrderList"] = self._listed(orders)
        return {"FolderList": listed}

    def _folder_fields(self, folder: Folder, shared: set[str]) -> Json:
        orders, below = self._folders.order_uuids(folder.uuid), self._folders.children(folder.uuid)
        return folder_fields(folder, shared, len(orders), len(below))

    def add_order_to_folder(self, given: Given, _base: str) -> Json:
        """Put an order into folders."""
        order = self._orders.one(given.text("PatientOrderUuid"))
        self._folders.add_order(order.uuid, given.items("FolderUuidList"))
        return {}

    # Orders

    def create_order(self, given: Given, _base: str) -> Json:
        """Make an order without images."""
        institution = given.text("InstitutionUuid")
        _require(institution, self._options.institutions, "institution")
        order = self._orders.create(institution, given.values)
        return self._order_fields(order, set())

    def search_orders(self, given: Given, _base: str) -> Json:
        """Find orders."""
        require_short(given)
        return {"PatientOrderList": self._listed(order for order in self._orders.all() if order_matches(order, given))}

    def order_properties(self, given: Given, _base: str) -> Json:
        """Return all that is known of an order."""
        order = self._named(given)
        rows = self._store.rows(Level.SERIES, {"0020000D": [order.study_uid]})
        return {
            **self._order_fields(order, self._shares.shared_orders()),
            "FolderUuidList": self._folders.folders_of(order.uuid),
            "PatientSeriesList": [series_fields(row) for row in rows],
        }

    def tag_content(self, given: Given, _base: str) -> Json:
        """Return tags of the first instance of each series, or of one series."""
        order, series = self._named(given), given.text("PatientSeriesUuid")
        firsts = {one.uids.series_instance_uid: one for one in reversed(self._orders.instances(order))}
        found = [one for one in reversed(firsts.values()) if series in {"", _series_uuid(one)}]
        if series and not found:
            raise Refusal(404, "no such series in this patient order")
        tags = given.items("DicomTagIdList")
        return {"DicomTagList": [fields for one in found for fields in _tags_of(one, tags)]}

    def assign_to_user(self, given: Given, _base: str) -> Json:
        """Assign an order to a user."""
        user = given.text("AssignedUserUuid")
        _require(user, self._options.users, "user")
        self._orders.assign(given.text("PatientOrderUuid"), user_uuid=user)
        return {}

    def assign_to_group(self, given: Given, _base: str) -> Json:
        """Assign an order to a user group."""
        group = given.text("AssignedUserGroupUuid")
        _require(group, self._options.user_groups, "user group")
        self._orders.assign(given.text("PatientOrderUuid"), group_uuid=group)
        return {}

    def delete_order(self, given: Given, _base: str) -> Json:
        """Delete an order and its study."""
        self._orders.delete(self._named(given))
        return {}

    def _named(self, given: Given) -> Order:
        return self._orders.one(given.text("PatientOrderUuid"), given.text("PatientOrderInstitutionUuid"))

    def _listed(self, orders: Iterable[Order]) -> list[Json]:
        shared = self._shares.shared_orders()
        return [self._order_fields(order, shared) for order in orders]

    def _order_fields(self, order: Order, shared: set[str]) -> Json:
        return order_fields(order, self._options.institutions.get(order.institution_uuid, ""), shared)


def _may_download(given: Given) -> bool:
    return given.flag("UserCanDownloadStudies")


def _require(uuid: str, known: Iterable[str], what: str) -> None:
    if uuid not in known:
        raise Refusal(404, f"no such {what}")


def _series_uuid(one: StoredInstance) -> str:
    return series_uuid_of(one.uids.study_instance_uid, one.uids.series_instance_uid)


def _tags_of(one: StoredInstance, tags: list[str]) -> list[Json]:
    try:
        attributes = read_header(one.path).json()
    except (OSError, UnreadableHeader):  # deleted meanwhile
        return []
    return tag_fields(one.uids.study_instance_uid, one.uids.series_instance_uid, attributes, tags)
