"""Patient orders over the Cloud API: the same orders as on the DICOMweb side. Methods block.

Each method takes the fields of a general request and returns those of the answer. Orders have more here than there:
flags, documents, and groups, whose UUID is one of an order's fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.state import Cloud, documents_of
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.account import VendorAccount, require
from postdicom_async.emulator.vendor.orders import ORDER_FIELDS, StoredOrder
from postdicom_async.emulator.vendor.parameters import BadParameters, Given, read_parameters

FLAGS: Mapping[int, tuple[str, Mapping[int, str]]] = MappingProxyType(
    {1: ("Reading", {1: "Unread", 2: "Read"}), 2: ("Priority", {1: "Routine", 2: "Urgent", 3: "Emergency"})}
)
"""Names of the groups of flags, and of the flags in each, by their numbers."""

_SEARCHED = {
    "Modalities": "ModalityList",
    "StartDate": "StudyDateFrom",
    "EndDate": "StudyDateTo",
    "StartBirthdate": "PatientBirthdateFrom",
    "EndBirthdate": "PatientBirthdateTo",
}
"""Filters that the other API calls by another name."""

_NAMES = {one.cloud: one.name for one in ORDER_FIELDS if one.cloud}
_PLACES = {one.place: one.cloud for one in ORDER_FIELDS if one.place}
_PLACELESS = {one.cloud for one in ORDER_FIELDS if not one.place}
"""Documented fields of ``JsonParameters`` whose place is unknown: the vendor's script drops them."""

_GROUP = "ConnectedGroupUuid"


class OrderRequests:
    """What general requests do to orders."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._account = cloud.vendor
        self._orders = cloud.vendor.orders

    def search(self, given: Given) -> Json:
        """Find orders, or those of a folder."""
        folder, among = given.text("FolderUuid"), None
        if folder:
            folders = self._account.folders
            among = self._orders.some(folders.order_uuids(folders.one(folder).uuid))
        wanted = Given({_SEARCHED.get(name, name): value for name, value in given.values.items()})
        return {"SearchResultList": listed_orders(self._account, self._orders.search(wanted, among))}

    def create(self, given: Given) -> Json:
        """Make an order without images."""
        return self._create(given, given)

    def create_from_json(self, given: Given) -> Json:
        """Make an order of nested parameters."""
        nested = given.mapping("JsonParameters")
        leaves = dict(_leaves(nested))
        flat = {_PLACES[place]: value for place, value in leaves.items() if place in _PLACES}
        for place, value in leaves.items():
            if (last := place.rpartition(".")[2]) in _PLACELESS and place not in _PLACES:
                flat[last] = value
        try:
            values = read_parameters([f"{name}?" for name in (*_PLACES.values(), *_PLACELESS)], flat)
        except BadParameters as problem:
            raise Refusal(400, f"JsonParameters: {problem}") from None
        missing = {"IdentityInformation", "StudyInformation", "OtherInformation"} - set(nested)
        wrong = [f"JsonParameters.{place} is no place" for place in sorted(set(leaves) - set(_PLACES))]
        self._cloud.deviates("17/25", [*wrong, *(f"JsonParameters.{name} is missing" for name in sorted(missing))])
        return self._create(given, values)

    def _create(self, given: Given, values: Given) -> Json:
        named = {_NAMES[name]: value for name, value in values.values.items() if name in _NAMES}
        return listed_orders(self._account, [self._account.create_order(given, named)])[0]

    def delete(self, given: Given) -> Json:
        """Delete an order and its study; the recycle bin keeps nothing."""
        order = self._account.named(given)
        documents = documents_of(self._account.store, order.uuid)
        self._orders.delete(order)
        for document in documents:
            document.path.unlink(missing_ok=True)
        return {}

    def properties(self, given: Given) -> Json:
        """Return everything that is known about an order."""
        order, store = self._account.named(given), self._account.store
        with store.transaction() as database:
            sql = "SELECT group_id, flag_id FROM cloud_flags WHERE order_uuid = ? ORDER BY group_id"
            flags = [{"GroupId": group, "FlagId": flag} for group, flag in database.execute(sql, (order.uuid,))]
        documents = documents_of(store, order.uuid)
        fields = {
            **listed_orders(self._account, [order])[0],
            **self._account.told_places(order),
            "FlagList": flags,
            "DocumentList": [{"FileName": one.name, "FileType": one.type, "FileSize": one.size} for one in documents],
        }
        return {"PatientOrder": fields}

    def unassign(self, given: Given) -> Json:
        """Take an order from the user or the group it is assigned to."""
        order = self._orders.one(given.text("PatientOrderUuid"))
        user, group = given.text("UnassignedUserUuid"), given.text("UnassignedUserGroupUuid")
        if (user and user != order.user_uuid) or (group and group != order.group_uuid):
            raise Refusal(404, "the order is not assigned there")
        self._orders.change(order.uuid, "user_uuid" if user else "group_uuid", "")
        return {}

    def move(self, given: Given) -> Json:
        """Assign an order to an institution."""
        order, institution = self._orders.one(given.text("PatientOrderUuid")), given.text("InstitutionUuid")
        require(institution, self._account.options.institutions, "institution")
        self._orders.change(order.uuid, "institution_uuid", institution)
        return {}

    def group(self, given: Given) -> Json:
        """Put orders into a new group."""
        return self._connect(self._of_institution(given), str(uuid4()))

    def add_to_group(self, given: Given) -> Json:
        """Add orders to a group."""
        uuid = given.text(_GROUP)
        if not any(order.fields.get(_GROUP) == uuid for order in self._orders.all()):
            raise Refusal(404, "no such group of orders")
        return self._connect(self._of_institution(given), uuid)

    def remove_from_group(self, given: Given) -> Json:
        """Take orders out of their groups."""
        orders = self._of_institution(given)
        if not all(order.fields.get(_GROUP) for order in orders):
            raise Refusal(404, "an order is in no group")
        self._connect(orders, "")
        return {}

    def _of_institution(self, given: Given) -> list[StoredOrder]:
        uuids, institution = given.items("PatientOrderUuidList"), given.text("PatientOrderInstitutionUuid")
        if not uuids:
            raise Refusal(400, "PatientOrderUuidList is empty")
        return [self._orders.one(uuid, institution) for uuid in uuids]

    def _connect(self, orders: Iterable[StoredOrder], group: str) -> Json:
        sql = f"UPDATE orders SET fields = json_set(fields, '$.{_GROUP}', ?) WHERE uuid = ?"  # noqa: S608
        with self._account.store.transaction() as database:
            database.executemany(sql, [(group, order.uuid) for order in orders])
        return {_GROUP: group}

    def set_flag(self, given: Given) -> Json:
        """Set the flag of an order in a group of flags."""
        order = self._orders.one(given.text("PatientOrderUuid"))
        group, flag = given.number("GroupId"), given.number("FlagId")
        if flag not in FLAGS.get(group, ("", {}))[1]:
            raise Refusal(404, "no such flag")
        with self._account.store.transaction() as database:
            database.execute("INSERT OR REPLACE INTO cloud_flags VALUES (?, ?, ?)", (order.uuid, group, flag))
        return {}


def listed_orders(account: VendorAccount, orders: Iterable[StoredOrder]) -> list[Json]:
    """Return orders as searches and uploads answer with them: DICOMweb's fields, and the Cloud API's own names."""
    orders = list(orders)
    return [
        {
            **told,
            "RequestingProcedureDescription": order.fields.get("RequestedProcedureDescription", ""),
            _GROUP: order.fields.get(_GROUP, ""),
            "DocumentsCount": len(documents_of(account.store, order.uuid)),
        }
        for order, told in zip(orders, account.told_orders(orders), strict=True)
    ]


def _leaves(nested: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield values two levels deep by their places, the names joined by dots."""
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", deep) for inner, deep in value.items())
        else:
            yield name, value
