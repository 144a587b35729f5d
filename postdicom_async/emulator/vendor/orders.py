"""Patient orders: one for each study of the archive, and those that were created without images. Methods block.

An order's row holds what is its own: the institution, whom it is assigned to, the fields it was created with. What its
study says is read from the index each time and outranks those fields. The order of a study comes and goes with it, by
the triggers of `store.schema`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.dicomweb.matching import LONGEST_KEY, text_matches
from postdicom_async.emulator.store.archive import ArchiveStore, StoredInstance
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.parameters import Given


class OrderField(NamedTuple):
    """A field of an order by its names in both APIs; empty where it has none.

    ``name`` is that of the operations beside DICOMweb, ``cloud`` that of the Cloud API, ``place`` the place in that
    API's ``JsonParameters``, ``tag`` the attribute of a study that it is read from.
    """

    name: str
    cloud: str
    place: str
    tag: str


_TABLE = """
PatientName                   PatientName                    IdentityInformation.Name                       00100010
PatientId                     PatientID                      IdentityInformation.Id                         00100020
OtherPatientId                OtherPatientId                 IdentityInformation.OtherId                    00101000
PatientSex                    PatientSex                     IdentityInformation.Sex                        00100040
PatientBirthdate              PatientsBirthDate              IdentityInformation.Birthdate                  00100030
Modality                      OrderModality                  Modality                                       -
StudyDescription              StudyDescription               StudyInformation.StudyDescription              00081030
AccessionNumber               OrderAccessionNumber           AccessionNumber                                00080050
OrderScheduledDatetime        -                              -                                              -
PerformedDatetime             PerformedDatetime              StudyInformation.StudyDate                     -
InstitutionNameInDicom        InstitutionNameInDicom         StudyInformation.InstitutionNameInDicom        -
RequestedProcedureId          RequestedProcedureId           OtherInformation.RequestedProcedureId          00401001
RequestedProcedureDescription RequestingProcedureDescription OtherInformation.RequestedProcedureDescription 00321060
RequestingPhysician           RequestingPhysician            OtherInformation.RequestingPhysician           -
ReferringPhysiciansName       ReferringPhysiciansName        OtherInformation.ReferringPhysiciansName       00080090
ScheduledEquipmentUuid        ScheduledEquipmentUuid         ScheduledEquipmentUuid                         -
PatientComplaints             PatientComplaints              -                                              -
Priority                      Priority                       -                                              -
PatientHistory                PatientHistory                 -                                              -
PatientSymptom                PatientSymptom                 -                                              -
RequestingDepartment          RequestingDepartment           -                                              -
OrderNote1                    OrderNote1                     -                                              -
OrderNote2                    OrderNote2                     -                                              -
"""
ORDER_FIELDS = [
    OrderField(*("" if word == "-" else word for word in line.split())) for line in _TABLE.strip().splitlines()
]

_IDS = ("PatientId", "OtherPatientId", "AccessionNumber")
_SELECT = """
SELECT o.uuid, o.institution_uuid, o.study_uid, o.fields, o.user_uuid, o.group_uuid, s.attributes,
    (SELECT GROUP_CONCAT(DISTINCT c.modality) FROM series c WHERE c.study_uid = o.study_uid),
    (SELECT COUNT(*) FROM series c WHERE c.study_uid = o.study_uid),
    (SELECT COUNT(*) FROM instances c WHERE c.study_uid = o.study_uid),
    (SELECT TOTAL(c.size) FROM instances c WHERE c.study_uid = o.study_uid)
FROM orders o LEFT JOIN studies s USING (study_uid) {where} ORDER BY o.id
"""


@dataclass(frozen=True)
class StoredOrder:
    """One order; ``fields`` are texts by their names in the operations beside DICOMweb."""

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

    def is_wanted(self, given: Given) -> bool:
        """Return whether it fits all given filters of ``getpatientorderlist``."""
        institutions, text = given.items("InstitutionUuidList"), self.fields.get
        modalities = {_folded(modality.strip()) for modality in given.items("ModalityList")}
        return (
            (not institutions or self.institution_uuid in institutions)
            and _name_matches(text("PatientName", ""), given.text("PatientName").strip())
            and all(_id_matches(text(name, ""), given.text(name).strip()) for name in _IDS)
            and (not modalities or any(_folded(modality.strip()) in modalities for modality in self.modalities))
            and _in_days(self.study_date, given, "StudyDate")
            and _in_days(text("PatientBirthdate", ""), given, "PatientBirthdate")
        )


class StoredOrders:
    """The orders of an archive; those of studies belong to an institution unless they were moved."""

    def __init__(self, store: ArchiveStore, institution_uuid: str) -> None:
        self._store = store
        self._institution = institution_uuid

    def all(self) -> list[StoredOrder]:
        """Return every order, the oldest first."""
        return self._select("", ())

    def some(self, uuids: Iterable[str]) -> list[StoredOrder]:
        """Return the orders with these UUIDs, in this order; unknown ones are left out."""
        wanted = list(uuids)
        marks = ", ".join("?" * len(wanted))
        found = {order.uuid: order for order in self._select(f"WHERE o.uuid IN ({marks})", wanted)}
        return [found[uuid] for uuid in wanted if uuid in found]

    def one(self, uuid: str, institution_uuid: str = "") -> StoredOrder:
        """Return one order.

        Raises:
            Refusal: 404 when it is unknown, or of another institution than the one named.
        """
        found = self.some([uuid])
        if not found or institution_uuid not in {"", found[0].institution_uuid}:
            raise Refusal(404, "no such patient order in this institution" if institution_uuid else "no such order")
        return found[0]

    def search(self, given: Given, among: Iterable[StoredOrder] | None = None) -> list[StoredOrder]:
        """Return the orders that fit filters, among all or some.

        Raises:
            Refusal: 400 for a text to look for that is longer than anything it could be found in.
        """
        for name, value in given.values.items():
            if isinstance(value, str) and len(value) > LONGEST_KEY:
                raise Refusal(400, f"{name}: at most {LONGEST_KEY} characters are looked for")
        return [order for order in (self.all() if among is None else among) if order.is_wanted(given)]

    def create(self, institution_uuid: str, values: Mapping[str, Any]) -> StoredOrder:
        """Make an order without images of fields that were read; a date is written ``YYYY-MM-DD``."""
        fields = {one.name: str(values.get(one.name, "")) for one in ORDER_FIELDS}
        uuid = str(uuid4())
        with self._store.transaction() as database:
            database.execute(
                "INSERT INTO orders (uuid, institution_uuid, fields) VALUES (?, ?, ?)",
                (uuid, institution_uuid, json.dumps(fields)),
            )
        return self.one(uuid)

    def change(self, uuid: str, column: str, value: str) -> None:
        """Give an order another ``institution_uuid``, ``user_uuid`` or ``group_uuid``.

        Raises:
            Refusal: 404 when it is unknown.
        """
        self.one(uuid)
        with self._store.transaction() as database:
            database.execute(f"UPDATE orders SET {column} = ? WHERE uuid = ?", (value, uuid))  # noqa: S608

    def delete(self, order: StoredOrder) -> None:
        """Delete an order, and its study with it."""
        if order.study_uid:
            self._store.delete(order.study_uid)
        self._store.deleting(lambda database: database.execute("DELETE FROM orders WHERE uuid = ?", (order.uuid,)))

    def instances(self, order: StoredOrder) -> list[StoredInstance]:
        """Return the files of an order, series by series."""
        found = self._store.instances(order.study_uid) if order.study_uid else []
        places = {uid: place for place, uid in enumerate(dict.fromkeys(one.uids.series_instance_uid for one in found))}
        return sorted(found, key=lambda one: places[one.uids.series_instance_uid])

    def _select(self, where: str, arguments: Iterable[str]) -> list[StoredOrder]:
        with self._store.transaction() as database:
            rows = database.execute(_SELECT.format(where=where), tuple(arguments)).fetchall()
        return [self._order(*row) for row in rows]

    def _order(
        self, uuid: str, institution: str, study_uid: str | None, fields: str, user: str, group: str,
        attributes: str | None, modalities: str | None, series: int, images: int, size: float,
    ) -> StoredOrder:  # fmt: skip
        known: dict[str, str] = json.loads(fields)
        found: tuple[str, ...] = (known.pop("Modality", ""),)
        if attributes is not None:
            found = tuple(sorted(filter(None, (modalities or "").split(","))))
            known = {**known, **_study_fields(json.loads(attributes))}  # what the images say goes before
        institution = institution or self._institution
        return StoredOrder(uuid, institution, study_uid or "", known, found, user, group, series, images, int(size))


def _study_fields(study: Json) -> dict[str, str]:
    def first(tag: str) -> str:
        values = study.get(tag, {}).get("Value", [])
        return value_text(next((value for value in values if value is not None), None))

    fields = {one.name: first(one.tag) for one in ORDER_FIELDS if one.tag}
    fields["PatientBirthdate"] = _dashed(fields["PatientBirthdate"])
    date, time = _dashed(first("00080020")), first("00080030")
    fields["PerformedDatetime"] = f"{date} {time[:2]}:{time[2:4]}" if date and len(time) >= 4 else date
    return fields


def value_text(value: object) -> str:
    """Return a value of the DICOM JSON model as it stands in a file: a name's groups are joined by ``=``."""
    if isinstance(value, dict):
        return "=".join(value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return "" if value is None else str(value)


def _dashed(date: str) -> str:
    digits = date.replace(".", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 and digits.isdecimal() else ""


def contains(text: str, part: str) -> bool:
    """Return whether a text holds another, whatever the case and however accents are written."""
    return _folded(part) in _folded(text)


def _name_matches(name: str, wanted: str) -> bool:
    """Compare with a pattern, or else look for a part: in the name as stored, and as read with blanks for ``^``."""
    names = [name, *name.split("=")]
    names += [form.replace("^", " ") for form in names]
    if "*" in wanted or "?" in wanted:
        return any(text_matches(_folded(wanted), _folded(form)) for form in names)
    return any(contains(form, wanted) for form in names)


def _id_matches(value: str, wanted: str) -> bool:
    return not wanted or text_matches(_folded(wanted), _folded(value.strip()))


def _in_days(value: str, given: Given, name: str) -> bool:
    """Compare a date with bounds, both inclusive; what has no date is outside of any."""
    start, end = given.day(f"{name}From"), given.day(f"{name}To")
    if start is None and end is None:
        return True
    return bool(value) and (start is None or start.isoformat() <= value) and (end is None or value <= end.isoformat())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
