"""Patient orders: made of the studies of the archive, one each, or by ``createpatientorder``. Methods block."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from postdicom_async.emulator.answers import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postdicom_async.emulator.store.archive import ArchiveStore, StoredInstance
    from postdicom_async.emulator.store.header import Json

__all__ = ["Order", "Orders"]

WITHOUT_IMAGES, WITH_IMAGES = 10, 70
"""``OrderStatus``: numbers of this archive's choice."""

_SELECT = """
SELECT o.uuid, o.institution_uuid, o.study_uid, o.fields, o.user_uuid, o.group_uuid, s.attributes,
    (SELECT GROUP_CONCAT(DISTINCT c.modality) FROM series c WHERE c.study_uid = o.study_uid),
    (SELECT COUNT(*) FROM series c WHERE c.study_uid = o.study_uid),
    (SELECT COUNT(*) FROM instances c WHERE c.study_uid = o.study_uid),
    (SELECT TOTAL(c.size) FROM instances c WHERE c.study_uid = o.study_uid)
FROM orders o LEFT JOIN studies s USING (study_uid) {where} ORDER BY o.id
"""
_FROM_STUDY = {
    "PatientId": "00100020",
    "OtherPatientId": "00101000",
    "PatientSex": "00100040",
    "StudyDescription": "00081030",
    "AccessionNumber": "00080050",
    "RequestedProcedureId": "00401001",
    "RequestedProcedureDescription": "00321060",
}
_NAMES_FROM_STUDY = {"PatientName": "00100010", "ReferringPhysiciansName": "00080090"}
_KEPT_FROM_CREATION = (
    "PatientName", "PatientId", "OtherPatientId", "PatientSex", "StudyDescription", "AccessionNumber",
    "PatientComplaints", "OrderScheduledDatetime", "RequestedProcedureId", "RequestedProcedureDescription",
    "RequestingPhysician", "ReferringPhysiciansName", "ScheduledEquipmentUuid", "PerformedDatetime",
    "InstitutionNameInDicom", "Priority", "PatientHistory", "PatientSymptom", "RequestingDepartment", "OrderNote1",
    "OrderNote2",
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """One order; ``fields`` are texts by their names on the wire."""

    uuid: str
    institution_uuid: str
    study_uid: str
    fields: Mapping[str, str] = field(repr=False)
    modalities: tuple[str, ...]
    user_uuid: str = ""
    group_uuid: str = ""
    series_count: int = 0
    images_count: int = 0
    size: int = 0

    @property
    def study_date(self) -> str:
        """When it was performed, or else is to be, as ``YYYY-MM-DD``; empty when unknown."""
        return (self.fields.get("PerformedDatetime") or self.fields.get("OrderScheduledDatetime") or "")[:10]


class Orders:
    """The orders of an archive."""

    def __init__(self, store: ArchiveStore, institution_uuid: str) -> None:
        self._store = store
        self._institution = institution_uuid

    def all(self) -> list[Order]:
        """Return every order, the oldest first."""
        return self._select("", ())

    def some(self, uuids: Iterable[str]) -> list[Order]:
        """Return the orders with these UUIDs, in this order; unknown ones are left out."""
        wanted = list(uuids)
        found = {order.uuid: order for order in self._select(f"WHERE o.uuid IN ({_marks(wanted)})", wanted)}
        return [found[uuid] for uuid in wanted if uuid in found]

    def one(self, uuid: str, institution_uuid: str = "") -> Order:
        """Return one order.

        Raises:
            Refusal: 404 when it is unknown, or of another institution than the one named.
        """
        found = self.some([uuid])
        if not found or institution_uuid not in {"", found[0].institution_uuid}:
            raise Refusal(404, "no such patient order in this institution" if institution_uuid else "no such order")
        return found[0]

    def require(self, uuids: Iterable[str]) -> None:
        """Refuse with 404 unless all these orders are known."""
        for uuid in uuids:
            self.one(uuid)

    def create(self, institution_uuid: str, values: Mapping[str, Any]) -> Order:
        """Make an order without images of decoded parameters."""
        fields = {name: str(values.get(name, "")) for name in _KEPT_FROM_CREATION}
        fields["PatientBirthdate"] = str(values.get("PatientBirthdate", ""))  # a date is written YYYY-MM-DD
        fields["Modality"] = str(values.get("Modality", ""))
        uuid = str(uuid4())
        with self._store.transaction() as database:
            database.execute(
                "INSERT INTO orders (uuid, institution_uuid, fields) VALUES (?, ?, ?)",
                (uuid, institution_uuid, json.dumps(fields)),
            )
        return self.one(uuid)

    def assign(self, uuid: str, *, user_uuid: str = "", group_uuid: str = "") -> None:
        """Assign an order to a user or a group, in place of the one before."""
        self.one(uuid)
        column, value = ("user_uuid", user_uuid) if user_uuid else ("group_uuid", group_uuid)
        with self._store.transaction() as database:
            database.execute(f"UPDATE orders SET {column} = ? WHERE uuid = ?", (value, uuid))  # noqa: S608

    def delete(self, order: Order) -> None:
        """Delete an order, and its study with it."""
        if order.study_uid:
            self._store.delete(order.study_uid)
        self._store.deleting(lambda database: database.execute("DELETE FROM orders WHERE uuid = ?", (order.uuid,)))

    def instances(self, order: Order) -> list[StoredInstance]:
        """Return the files of an order, series by series."""
        if not order.study_uid:
            return []
        found = self._store.instances(order.study_uid)
        places = {uid: place for place, uid in enumerate(dict.fromkeys(one.uids.series_instance_uid for one in found))}
        return sorted(found, key=lambda one: places[one.uids.series_instance_uid])

    def _select(self, where: str, arguments: Iterable[str]) -> list[Order]:
        with self._store.transaction() as database:
            rows = database.execute(_SELECT.format(where=where), tuple(arguments)).fetchall()
        return [_order(uuid, institution or self._institution, *rest) for uuid, institution, *rest in rows]


def _order(
    uuid: str, institution: str, study_uid: str | None, fields: str, user: str, group: str, attributes: str | None,
    modalities: str | None, series: int, images: int, size: float,
) -> Order:  # fmt: skip
    known: dict[str, str] = json.loads(fields)
    found: tuple[str, ...] = (known.pop("Modality", ""),)
    if attributes is not None:
        found = tuple(sorted(filter(None, (modalities or "").split(","))))
        known = {**known, **_study_fields(json.loads(attributes))}
    return Order(uuid, institution, study_uid or "", known, found, user, group, series, images, int(size))


def _study_fields(study: Json) -> dict[str, str]:
    fields = {name: _first(study, tag) for name, tag in _FROM_STUDY.items()}
    fields |= {name: _name(study, tag) for name, tag in _NAMES_FROM_STUDY.items()}
    fields["PatientBirthdate"] = _dashed(_first(study, "00100030"))
    date, time = _dashed(_first(study, "00080020")), _first(study, "00080030")
    fields["PerformedDatetime"] = f"{date} {time[:2]}:{time[2:4]}" if date and len(time) >= 4 else date
    return fields


def _first(study: Json, tag: str) -> str:
    return str(next((value for value in study.get(tag, {}).get("Value", []) if value is not None), ""))


def _name(study: Json, tag: str) -> str:
    """Return a person name as it stands in a file: its groups joined by ``=``."""
    value = next(iter(study.get(tag, {}).get("Value", [])), None) or {}
    groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return "=".join(groups).rstrip("=")


def _dashed(date: str) -> str:
    digits = date.replace(".", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 and digits.isdecimal() else ""


def _marks(values: list[str]) -> str:
    return ", ".join("?" * len(values))
