"""The thirteen operations of PostDICOM's DICOMweb API, as one table, and how their parameters are written. Pure.

Each operation is a ``GET`` without a body or a query; its parameters are one JSON object in one request header
whose name differs from operation to operation (C# sample; Node sample for nine of them). Every value is text; a list is
a JSON array written into text. Because GETs here create and delete, each operation says for itself whether it may be
repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from postdicom_async.errors import UsageError
from postdicom_async.http.retry import Repeat
from postdicom_async.postdicom.values import LISTS, Kind, Parameter, Values, ascii_json, write_value
from postdicom_async.postdicom.wire import Wire

__all__ = ["OPERATIONS", "Name", "Operation", "encode", "split"]


class Name(Enum):
    """The operations, by what they do."""

    CREATE_SHARE_LINK = auto()
    SHARE_ORDERS = auto()
    CREATE_FOLDER = auto()
    SEARCH_FOLDERS = auto()
    SHARE_FOLDER = auto()
    ADD_ORDER_TO_FOLDER = auto()
    ASSIGN_ORDER_TO_USER = auto()
    ASSIGN_ORDER_TO_GROUP = auto()
    CREATE_ORDER = auto()
    ORDER_PROPERTIES = auto()
    TAG_CONTENT = auto()
    SEARCH_ORDERS = auto()
    DELETE_ORDER = auto()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        title: the head of error messages.
        path: below the account's address.
        header: the request header that carries the parameters.
        repeat: what a repeat would do.
        parameters: in the order in which they are documented.
    """

    title: str
    path: str
    header: str
    repeat: Repeat
    parameters: tuple[Parameter, ...]


def _required(argument: str, wire: str, kind: Kind = Kind.TEXT) -> Parameter:
    return Parameter(argument, wire, kind, required=True)


_ORDER = _required("patient_order_uuid", "PatientOrderUuid", Kind.UUID)
_ORDER_INSTITUTION = _required("institution_uuid", "PatientOrderInstitutionUuid", Kind.UUID)
_PASSWORD = Parameter("password", "SharePassword")
_DOWNLOADABLE = Parameter("downloadable", "UserCanDownloadStudies", Kind.BOOLEAN)

# Paths and headers: C# sample and Node sample; the last four operations C# sample alone, the Node sample has none of
# them. Parameters, and which are required: documented.
OPERATIONS: Final[dict[Name, Operation]] = {
    Name.CREATE_SHARE_LINK: Operation(
        "create share link",
        "/createsharelink",
        "ShareParameters",
        Repeat.CHANGE,
        (
            _required("patient_order_uuids", "PatientOrderInfoList", Kind.ORDER_INFO_LIST),
            _required("expires", "ExpireDate", Kind.FUTURE_DATE),
            _PASSWORD,
            Parameter("downloadable", "Downloadable", Kind.BOOLEAN),
        ),
    ),
    Name.SHARE_ORDERS: Operation(
        "share patient orders",
        "/sharepatientorderwithurl",
        "SharePatientOrderParameters",
        Repeat.CHANGE,
        (
            _required("patient_order_uuids", "OrderUuidList", Kind.UUID_LIST),
            _required("expires", "ExpireDate", Kind.FUTURE_DATE),
            _PASSWORD,
            _DOWNLOADABLE,
        ),
    ),
    Name.CREATE_FOLDER: Operation(
        "create folder",
        "/createfolder",
        "CreateFolderParameters",
        Repeat.CHANGE,
        (
            _required("name", "FolderName"),
            Parameter("description", "FolderDescription"),
            Parameter("parent_folder_uuid", "ParentFolderUuid", Kind.UUID),
        ),
    ),
    Name.SEARCH_FOLDERS: Operation(
        "search folders",
        "/searchfolder",
        "SearchFolderParameters",
        Repeat.READ,
        (
            Parameter("parent_folder_uuid", "ParentFolderUuid", Kind.UUID),
            Parameter("name", "FolderName"),
            Parameter("with_orders", "GetOrdersInFolder", Kind.BOOLEAN),
        ),
    ),
    Name.SHARE_FOLDER: Operation(
        "share folder",
        "/sharefolderwithurl",
        "ShareFolderParameters",
        Repeat.CHANGE,
        (
            _required("folder_uuid", "FolderUuid", Kind.UUID),
            _PASSWORD,
            Parameter("title", "ShareTitle"),
            Parameter("description", "ShareDescription"),
            Parameter("expires", "ExpireDate", Kind.FUTURE_DATE),
            _DOWNLOADABLE,
        ),
    ),
    Name.ADD_ORDER_TO_FOLDER: Operation(
        "add order to folder",
        "/addordertofolder",
        "AddOrderToFolderParameters",
        Repeat.CHANGE,
        (_ORDER, _required("folder_uuids", "FolderUuidList", Kind.UUID_LIST)),
    ),
    Name.ASSIGN_ORDER_TO_USER: Operation(
        "assign order to user",
        "/assignordertouser",
        "AssignOrderToUserParameters",
        Repeat.CHANGE,
        (_ORDER, _required("user_uuid", "AssignedUserUuid", Kind.UUID)),
    ),
    Name.ASSIGN_ORDER_TO_GROUP: Operation(
        "assign order to user group",
        "/assignordertousergroup",
        "AssignOrderToUserGroupParameters",
        Repeat.CHANGE,
        (_ORDER, _required("user_group_uuid", "AssignedUserGroupUuid", Kind.UUID)),
    ),
    Name.CREATE_ORDER: Operation(
        "create patient order",
        "/createpatientorder",
        "CreatePatientOrderParameters",
        Repeat.CHANGE,
        (
            _required("institution_uuid", "InstitutionUuid", Kind.UUID),
            _required("patient_name", "PatientName", Kind.PERSON_NAME),
            _required("patient_id", "PatientId"),
            _required("patient_birthdate", "PatientBirthdate", Kind.DATE),
            _required("modality", "Modality"),
            Parameter("other_patient_id", "OtherPatientId"),
            Parameter("patient_sex", "PatientSex", Kind.SEX),
            Parameter("study_description", "StudyDescription"),
            Parameter("accession_number", "AccessionNumber"),
            Parameter("patient_complaints", "PatientComplaints"),
            Parameter("order_scheduled_datetime", "OrderScheduledDatetime", Kind.DATETIME),
            Parameter("requested_procedure_id", "RequestedProcedureId"),
            Parameter("requested_procedure_description", "RequestedProcedureDescription"),
            Parameter("requesting_physician", "RequestingPhysician", Kind.PERSON_NAME),
            Parameter("referring_physicians_name", "ReferringPhysiciansName", Kind.PERSON_NAME),
            Parameter("scheduled_equipment_uuid", "ScheduledEquipmentUuid", Kind.UUID),
        ),
    ),
    Name.ORDER_PROPERTIES: Operation(
        "get patient order properties",
        "/getpatientorderproperties",
        "GetPatientOrderPropertiesParameters",
        Repeat.READ,
        (_ORDER_INSTITUTION, _ORDER),
    ),
    Name.TAG_CONTENT: Operation(
        "get DICOM tag content",
        "/getdicomtagcontent",
        "GetDicomTagContentParameters",
        Repeat.READ,
        (
            _ORDER_INSTITUTION,
            _ORDER,
            Parameter("series_uuid", "PatientSeriesUuid", Kind.UUID),
            Parameter("tags", "DicomTagIdList", Kind.TEXT_LIST),
        ),
    ),
    Name.SEARCH_ORDERS: Operation(
        "search patient orders",
        "/getpatientorderlist",
        "GetPatientOrderListParameters",
        Repeat.READ,
        (
            Parameter("institution_uuids", "InstitutionUuidList", Kind.UUID_LIST),
            Parameter("patient_name", "PatientName", Kind.PERSON_NAME),
            Parameter("patient_id", "PatientId"),
            Parameter("other_patient_id", "OtherPatientId"),
            Parameter("accession_number", "AccessionNumber"),
            Parameter("modalities", "ModalityList", Kind.TEXT_LIST),
            Parameter("study_date_from", "StudyDateFrom", Kind.DATE),
            Parameter("study_date_to", "StudyDateTo", Kind.DATE),
            Parameter("patient_birthdate_from", "PatientBirthdateFrom", Kind.DATE),
            Parameter("patient_birthdate_to", "PatientBirthdateTo", Kind.DATE),
        ),
    ),
    Name.DELETE_ORDER: Operation(
        "delete patient order",
        "/deleteorder",
        "DeleteOrderParameters",
        Repeat.CHANGE,
        (_ORDER_INSTITUTION, _ORDER),
    ),
}


def encode(operation: Operation, values: Values, wire: Wire) -> str:
    """Return the header's value: ASCII JSON, so that every name survives, within ``wire.header_bytes``.

    ``values`` are checked Python values by argument; see ``values.check``.

    Raises:
        UsageError: it is too long; the message names the argument to shorten or split.
    """
    written = {
        parameter.wire: _absent(parameter, wire) if value is None else write_value(parameter.kind, value, wire)
        for parameter in operation.parameters
        if (value := values.get(parameter.argument)) is not None or wire.sends_empty
    }
    text = "{" + ",".join([f'"{name}":{ascii_json(value)}' for name, value in written.items()]) + "}"
    if len(text) > wire.header_bytes:
        longest = max(operation.parameters, key=lambda parameter: len(written.get(parameter.wire, "")))
        raise UsageError(
            f"too much for one request ({len(text)} bytes of parameters, at most "
            f"{wire.header_bytes}); shorten it or split it into several calls",
            argument=longest.argument,
            operation=operation.title,
        )
    return text


def _absent(parameter: Parameter, wire: Wire) -> str:
    return wire.absent_list if parameter.kind in LISTS else ""


def split(operation: Operation, values: Values, wire: Wire) -> list[Values]:
    """Return the values of as many requests as it takes for each to fit; one, where they fit as they are.

    Only a read with a list can be split: its results are joined again.

    Raises:
        UsageError: it does not fit and cannot be split.
    """
    try:
        encode(operation, values, wire)
    except UsageError:
        halves = _halves(operation, values)
        if halves is None:
            raise
    else:
        return [values]
    return [part for half in halves for part in split(operation, half, wire)]


def _halves(operation: Operation, values: Values) -> tuple[Values, Values] | None:
    lists = [(name, value) for name, value in values.items() if isinstance(value, list) and len(value) > 1]
    if operation.repeat is not Repeat.READ or not lists:
        return None
    name, longest = max(lists, key=lambda pair: sum(len(str(item)) for item in pair[1]))
    middle = len(longest) // 2
    return {**values, name: longest[:middle]}, {**values, name: longest[middle:]}
