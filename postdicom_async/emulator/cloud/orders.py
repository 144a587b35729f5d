"""Patient orders over the Cloud API: the same that DICOMweb's side has. Methods block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.lists import FLAGS
from postdicom_async.emulator.cloud.parameters import BadParameters, read_parameters
from postdicom_async.emulator.cloud.schema import documents_of
from postdicom_async.emulator.operations.parameters import Given
from postdicom_async.emulator.store.attributes import Level
from postdicom_async.emulator.vendor.answers import order_fields, series_fields
from postdicom_async.emulator.vendor.folders import Folders
from postdicom_async.emulator.vendor.order_search import order_matches, require_short
from postdicom_async.emulator.vendor.orders import Orders
from postdicom_async.emulator.vendor.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postdicom_async.emulator.cloud.parameters import Parameters
    from postdicom_async.emulator.cloud.state import Cloud
    from postdicom_async.emulator.context import ArchiveOptions
    from postdicom_async.emulator.store.archive import ArchiveStore
    from postdicom_async.emulator.vendor.orders import Order

__all__ = ["CloudOrders", "listed_orders", "require"]

_SEARCHED = {
    "PatientName": "PatientName",
    "AccessionNumber": "AccessionNumber",
    "PatientId": "PatientId",
    "OtherPatientId": "OtherPatientId",
    "InstitutionUuidList": "InstitutionUuidList",
    "Modalities": "ModalityList",
    "StartDate": "StudyDateFrom",
    "EndDate": "StudyDateTo",
    "StartBirthdate": "PatientBirthdateFrom",
    "EndBirthdate": "PatientBirthdateTo",
}
_PLACELESS = (
    "Priority", "PatientHistory", "PatientComplaints", "PatientSymptom", "RequestingDepartment", "OrderNote1",
    "OrderNote2",
)  # fmt: skip
"""Fields of ``JsonParameters`` that are documented, and whose place nobody knows: the vendor's script drops them."""

_CREATED = {
    "PatientName": "PatientName",
    "PatientID": "PatientId",
    "OtherPatientId": "OtherPatientId",
    "PatientSex": "PatientSex",
    "PatientsBirthDate": "PatientBirthdate",
    "OrderModality": "Modality",
    "StudyDescription": "StudyDescription",
    "OrderAccessionNumber": "AccessionNumber",
    "PatientComplaints": "PatientComplaints",
    "PerformedDatetime": "PerformedDatetime",
    "RequestedProcedureId": "RequestedProcedureId",
    "RequestingProcedureDescription": "RequestedProcedureDescription",
    "RequestingPhysician": "RequestingPhysician",
    "ReferringPhysiciansName": "ReferringPhysiciansName",
    "ScheduledEquipmentUuid": "ScheduledEquipmentUuid",
    "InstitutionNameInDicom": "InstitutionNameInDicom",
    **{name: name for name in _PLACELESS},
}
"""Names of the Cloud API to those of the other one."""

_JSON = {
    ("IdentityInformation", "OtherId"): "OtherPatientId",
    ("IdentityInformation", "Name"): "PatientName",
    ("IdentityInformation", "Birthdate"): "PatientsBirthDate",
    ("IdentityInformation", "Id"): "PatientID",
    ("IdentityInformation", "Sex"): "PatientSex",
    ("StudyInformation", "StudyDate"): "PerformedDatetime",
    ("StudyInformation", "StudyDescription"): "StudyDescription",
    ("StudyInformation", "InstitutionNameInDicom"): "InstitutionNameInDicom",
    ("OtherInformation", "RequestingPhysician"): "RequestingPhysician",
    ("OtherInformation", "RequestedProcedureDescription"): "RequestingProcedureDescription",
    ("OtherInformation", "ReferringPhysiciansName"): "ReferringPhysiciansName",
    ("OtherInformation", "RequestedProcedureId"): "RequestedProcedureId",
    ("Modality",): "OrderModality",
    ("AccessionNumber",): "OrderAccessionNumber",
    ("ScheduledEquipmentUuid",): "ScheduledEquipmentUuid",
}
"""Places in ``JsonParameters`` to the names of a creation without JSON."""

_GROUP = "ConnectedGroupUuid"


class CloudOrders:
    """What general requests do to orders; each takes the parameters and returns the fields of the answer."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._store = cloud.context.store
        self._options: ArchiveOptions = cloud.context.options
        self._orders = Orders(self._store, self._options.institution_uuid)
        self._folders = Folders(self._store)

    def search(self, given: Parameters) -> dict[str, Any]:
        """Find orders, or those of a folder."""
        folder = given.text("FolderUuid")
        orders = self._orders.all()
        if folder:
            inside = self._folders.order_uuids(self._folders.one(folder).uuid)
            orders = self._orders.some(inside)
        wanted = Given({_SEARCHED[name]: value for name, value in given.values.items() if name in _SEARCHED})
        require_short(wanted)
        return {"SearchResultList": self._listed(order for order in orders if order_matches(order, wanted))}

    def create(self, given: Parameters) -> dict[str, Any]:
        """Make an order without images."""
        return self._create(given.text("InstitutionUuid"), given)

    def create_from_json(self, given: Parameters) -> dict[str, Any]:
        """Make an order of nested parameters."""
        flat = dict(_flattened(given.mapping("JsonParameters")))
        try:
            values = read_parameters(tuple(f"{name}?" for name in (*_JSON.values(), *_PLACELESS)), flat)
        except BadParameters as problem:
            raise Refusal(400, f"JsonParameters: {problem}") from None
        self._note_places(given.mapping("JsonParameters"))
        return self._create(given.text("InstitutionUuid"), values)

    def _note_places(self, nested: Mapping[str, Any]) -> None:
        places = {place for place, _ in _leaves(nested)}
        wrong = [".".join(place) for place in sorted(places - set(_JSON))]
        missing = {"IdentityInformation", "StudyInformation", "OtherInformation"} - set(nested)
        self._cloud.deviates("17/25", [f"JsonParameters.{place} is no place" for place in wrong])
        self._cloud.deviates("17/25", [f"JsonParameters.{name} is missing" for name in sorted(missing)])

    def _create(self, institution: str, given: Parameters) -> dict[str, Any]:
        require(institution, self._options.institutions, "institution")
        values = {_CREATED[name]: value for name, value in given.values.items() if name in _CREATED}
        return self._listed([self._orders.create(institution, values)])[0]

    def delete(self, given: Parameters) -> dict[str, Any]:
        """Delete an order and its study; the recycle bin keeps nothing."""
        order = self._named(given)
        documents = documents_of(self._store, order.uuid)
        self._orders.delete(order)
        for document in documents:
            document.path.unlink(missing_ok=True)
        return {}

    def properties(self, given: Parameters) -> dict[str, Any]:
        """Return all that is known of an order."""
        order = self._named(given)
        rows = self._store.rows(Level.SERIES, {"0020000D": [order.study_uid]})
        documents = documents_of(self._store, order.uuid)
        fields = {
            **self._listed([order])[0],
            "FolderUuidList": self._folders.folders_of(order.uuid),
            "PatientSeriesList": [series_fields(row) for row in rows],
            "FlagList": self._flags_of(order.uuid),
            "DocumentList": [{"FileName": one.name, "FileType": one.type, "FileSize": one.size} for one in documents],
        }
        return {"PatientOrder": fields}

    # Who sees it, and where it belongs

    def assign(self, given: Parameters) -> dict[str, Any]:
        """Assign an order to a user or a group."""
        user, group = given.text("AssignedUserUuid"), given.text("AssignedUserGroupUuid")
        if user:
            require(user, self._options.users, "user")
        else:
            require(group, self._options.user_groups, "user group")
        self._orders.assign(given.text("PatientOrderUuid"), user_uuid=user, group_uuid=group)
        return {}

    def unassign(self, given: Parameters) -> dict[str, Any]:
        """Take an order from the user or the group it is assigned to."""
        order = self._orders.one(given.text("PatientOrderUuid"))
        user, group = given.text("UnassignedUserUuid"), given.text("UnassignedUserGroupUuid")
        if (user and user != order.user_uuid) or (group and group != order.group_uuid):
            raise Refusal(404, "the order is not assigned there")
        self._set("user_uuid" if user else "group_uuid", "", order.uuid)
        return {}

    def move(self, given: Parameters) -> dict[str, Any]:
        """Assign an order to an institution."""
        order, institution = self._orders.one(given.text("PatientOrderUuid")), given.text("InstitutionUuid")
        require(institution, self._options.institutions, "institution")
        self._set("institution_uuid", institution, order.uuid)
        return {}

    def _set(self, column: str, value: str, uuid: str) -> None:
        with self._store.transaction() as database:
            database.execute(f"UPDATE orders SET {column} = ? WHERE uuid = ?", (value, uuid))  # noqa: S608

    # Groups of orders

    def group(self, given: Parameters) -> dict[str, Any]:
        """Connect orders in a new group."""
        uuid = str(uuid4())
        self._connect(self._of_institution(given), uuid)
        return {_GROUP: uuid}

    def add_to_group(self, given: Parameters) -> dict[str, Any]:
        """Connect orders to those of a group."""
        uuid = given.text(_GROUP)
        if not any(order.fields.get(_GROUP) == uuid for order in self._orders.all()):
            raise Refusal(404, "no such group of orders")
        self._connect(self._of_institution(given), uuid)
        return {_GROUP: uuid}

    def remove_from_group(self, given: Parameters) -> dict[str, Any]:
        """Take orders out of their groups."""
        orders = self._of_institution(given)
        if not all(order.fields.get(_GROUP) for order in orders):
            raise Refusal(404, "an order is in no group")
        self._connect(orders, "")
        return {}

    def _of_institution(self, given: Parameters) -> list[Order]:
        uuids, institution = given.items("PatientOrderUuidList"), given.text("PatientOrderInstitutionUuid")
        if not uuids:
            raise Refusal(400, "PatientOrderUuidList is empty")
        return [self._orders.one(uuid, institution) for uuid in uuids]

    def _connect(self, orders: list[Order], group: str) -> None:
        with self._store.transaction() as database:
            database.executemany(
                f"UPDATE orders SET fields = json_set(fields, '$.{_GROUP}', ?) WHERE uuid = ?",  # noqa: S608
                [(group, order.uuid) for order in orders],
            )

    # Flags

    def set_flag(self, given: Parameters) -> dict[str, Any]:
        """Set the flag of an order in a group of flags."""
        order = self._orders.one(given.text("PatientOrderUuid"))
        group, flag = given.number("GroupId"), given.number("FlagId")
        if flag not in FLAGS.get(group, ("", {}))[1]:
            raise Refusal(404, "no such flag")
        with self._store.transaction() as database:
            database.execute("INSERT OR REPLACE INTO cloud_flags VALUES (?, ?, ?)", (order.uuid, group, flag))
        return {}

    def _flags_of(self, uuid: str) -> list[dict[str, int]]:
        with self._store.transaction() as database:
            rows = database.execute(
                "SELECT group_id, flag_id FROM cloud_flags WHERE order_uuid = ? ORDER BY group_id", (uuid,)
            ).fetchall()
        return [{"GroupId": group, "FlagId": flag} for group, flag in rows]

    def _named(self, given: Parameters) -> Order:
        return self._orders.one(given.text("PatientOrderUuid"), given.text("PatientOrderInstitutionUuid"))

    def _listed(self, orders: Iterable[Order]) -> list[dict[str, Any]]:
        return listed_orders(self._store, self._options, orders)


def listed_orders(store: ArchiveStore, options: ArchiveOptions, orders: Iterable[Order]) -> list[dict[str, Any]]:
    """Return orders as searches and uploads answer with them: DICOMweb's fields, and the Cloud API's own names."""
    shared = Shares(store).shared_orders()
    return [
        {
            **order_fields(order, options.institutions.get(order.institution_uuid, ""), shared),
            "RequestingProcedureDescription": order.fields.get("RequestedProcedureDescription", ""),
            _GROUP: order.fields.get(_GROUP, ""),
            "DocumentsCount": len(documents_of(store, order.uuid)),
        }
        for order in orders
    ]


def require(uuid: str, known: Iterable[str], what: str) -> None:
    """Refuse with 404 unless a UUID is known."""
    if uuid not in known:
        _unknown(what)


def _unknown(what: str) -> NoReturn:
    raise Refusal(404, f"no such {what}")


def _leaves(nested: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from (((name, inner), deep) for inner, deep in value.items())
        else:
            yield (name,), value


def _flattened(nested: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for place, value in _leaves(nested):
        if place in _JSON:
            yield _JSON[place], value
        elif place[-1] in _PLACELESS:
            yield place[-1], value
