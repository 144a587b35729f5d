"""``JsonParameters``: an order's or a folder's fields as the nested object of the Cloud API. Pure.

The places are the JavaScript library's. Its public copy drops seven fields that the vendor documents; where they
belong is assumed, see ``CloudWire.other_order_fields``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from postdicom_async.cloud.messages import OPERATIONS, Name, json_value
from postdicom_async.cloud.wire import CloudWire
from postdicom_async.errors import UsageError
from postdicom_async.postdicom.values import Kind, Parameter, Values

__all__ = ["NEW_FOLDER_FIELDS", "NEW_ORDER", "ORDER_FIELDS", "by_vendor_name", "folder_json", "order_json"]

_IDENTITY, _STUDY, _OTHER, _TOP = "IdentityInformation", "StudyInformation", "OtherInformation", ""

_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "OtherPatientId": (_IDENTITY, "OtherId"),
    "PatientName": (_IDENTITY, "Name"),
    "PatientsBirthDate": (_IDENTITY, "Birthdate"),
    "PatientID": (_IDENTITY, "Id"),
    "PatientSex": (_IDENTITY, "Sex"),
    "PerformedDatetime": (_STUDY, "StudyDate"),
    "StudyDescription": (_STUDY, "StudyDescription"),
    "InstitutionNameInDicom": (_STUDY, "InstitutionNameInDicom"),
    "RequestingPhysician": (_OTHER, "RequestingPhysician"),
    "RequestingProcedureDescription": (_OTHER, "RequestedProcedureDescription"),
    "ReferringPhysiciansName": (_OTHER, "ReferringPhysiciansName"),
    "RequestedProcedureId": (_OTHER, "RequestedProcedureId"),
    "OrderModality": (_TOP, "Modality"),
    "OrderAccessionNumber": (_TOP, "AccessionNumber"),
    "ScheduledEquipmentUuid": (_TOP, "ScheduledEquipmentUuid"),
}
_DROPPED_BY_THE_SCRIPT: Final = (
    "Priority",
    "PatientHistory",
    "PatientComplaints",
    "PatientSymptom",
    "RequestingDepartment",
    "OrderNote1",
    "OrderNote2",
)
_KINDS: Final = {
    "PatientName": Kind.PERSON_NAME,
    "PatientsBirthDate": Kind.DATE,
    "PatientSex": Kind.SEX,
    "PerformedDatetime": Kind.DATE_OR_DATETIME,
    "RequestingPhysician": Kind.PERSON_NAME,
    "ReferringPhysiciansName": Kind.PERSON_NAME,
    "ScheduledEquipmentUuid": Kind.GUID,
}


@dataclass(frozen=True, slots=True)
class _Fields:
    """Fields of an order or a folder, as parameters that `values.check` understands."""

    title: str
    parameters: tuple[Parameter, ...]


ORDER_FIELDS: Final = _Fields(
    "create patient order",
    tuple(Parameter(name, name, _KINDS.get(name, Kind.TEXT)) for name in (*_PLACES, *_DROPPED_BY_THE_SCRIPT)),
)
_ORDER_FIELDS: Final = {one.argument: one for one in ORDER_FIELDS.parameters}
_NEW_ORDER_PARAMETERS: Final = OPERATIONS[Name.CREATE_ORDER].parameters
NEW_ORDER: Final = _Fields(
    "create patient order",
    (
        *(
            replace(one, required=one.required and one.kind is not Kind.DATE_OR_DATETIME)
            for one in _NEW_ORDER_PARAMETERS
        ),
        Parameter("requesting_physician", "RequestingPhysician", Kind.PERSON_NAME),
    ),
)
NEW_FOLDER_FIELDS: Final = _Fields(
    "update folder", (Parameter("name", "Name"), Parameter("description", "Description"))
)
_LONGEST_ACCESSION_NUMBER: Final = 16


def by_vendor_name(values: Values) -> Values:
    """Return checked arguments of ``orders.create`` under the vendor's names for them, without the institution."""
    return {
        one.wire: values[one.argument]
        for one in NEW_ORDER.parameters
        if one.argument in values and one.argument != "institution_uuid"
    }


def order_json(values: Values, wire: CloudWire) -> dict[str, Any]:
    """Return an order's checked fields, by the vendor's names, as ``JsonParameters``.

    Raises:
        UsageError: the accession number is longer than 16 characters (documented).
    """
    if len(str(values.get("OrderAccessionNumber", ""))) > _LONGEST_ACCESSION_NUMBER:
        raise UsageError(
            f"at most {_LONGEST_ACCESSION_NUMBER} characters (OrderAccessionNumber)",
            argument="accession_number",
            operation=ORDER_FIELDS.title,
        )
    nested: dict[str, Any] = {_IDENTITY: {}, _STUDY: {}, _OTHER: {}}
    for name, value in values.items():
        group, key = _PLACES.get(name, (wire.other_order_fields, name))
        place = nested.setdefault(group, {}) if group else nested
        place[key] = json_value(_ORDER_FIELDS[name], value, wire)
    return nested


def folder_json(values: Values) -> dict[str, Any]:
    """Return a folder's new name and description, checked, as ``JsonParameters``."""
    return {
        _IDENTITY: {one.wire: values[one.argument] for one in NEW_FOLDER_FIELDS.parameters if one.argument in values}
    }
