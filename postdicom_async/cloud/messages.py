"""The operations of the Cloud API as one table, and how they are written. Pure.

Numbers, names and their order are the JavaScript library's. Each request is one JSON object: ``UserUuid``, the
operation's own fields in the order below, then both keys. Because the API knows no read-only verb, each operation says
for itself whether it may be repeated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum, IntEnum, auto
from typing import Any, Final

from postdicom_async.cloud.wire import CloudWire
from postdicom_async.errors import UsageError
from postdicom_async.http.retry import Repeat
from postdicom_async.postdicom.values import LISTS, Kind, Parameter, Value, Values

__all__ = [
    "OPERATIONS",
    "ZERO_GUID",
    "FileUploadType",
    "Keys",
    "Name",
    "Operation",
    "SessionType",
    "compact_json",
    "fields_of",
    "json_value",
    "session_fields",
]

_WHOLE_NUMBER: Final = re.compile("-?[0-9]{1,16}")
ZERO_GUID: Final = "00000000-0000-0000-0000-000000000000"


class SessionType(IntEnum):
    """Management types of session messages (message type 3)."""

    REGISTER_SESSION = 2
    CREATE_API_SESSION = 4


class FileUploadType(IntEnum):
    """Management types of file upload messages (message type 23)."""

    INITIALIZE = 1
    CHECK_FILE_EXIST = 2
    PROCESS_FILE = 3
    PROCESS_DOCUMENTS = 4


@dataclass(frozen=True, slots=True)
class Keys:
    """The pair of keys that every message carries."""

    api_key: str = field(repr=False)
    account_key: str = field(repr=False)


class Name(Enum):
    """The general operations, by what they do."""

    SEARCH_ORDERS = auto()
    SEARCH_ORDERS_BY_DATE = auto()
    SEARCH_ORDERS_BY_BIRTHDATE = auto()
    SEARCH_ORDERS_IN_FOLDER = auto()
    ORDER_PROPERTIES = auto()
    CREATE_ORDER = auto()
    CREATE_ORDER_WITH_JSON = auto()
    DELETE_ORDER = auto()
    ASSIGN_ORDER_TO_USER = auto()
    ASSIGN_ORDER_TO_GROUP = auto()
    ASSIGN_ORDER_TO_INSTITUTION = auto()
    UNASSIGN_ORDER_FROM_USER = auto()
    UNASSIGN_ORDER_FROM_GROUP = auto()
    CREATE_FOLDER = auto()
    SEARCH_FOLDERS = auto()
    UPDATE_FOLDER = auto()
    DELETE_FOLDER = auto()
    ADD_ORDER_TO_FOLDER = auto()
    REMOVE_ORDERS_FROM_FOLDER = auto()
    SHARE_FOLDER = auto()
    SHARE_FOLDER_BY_EMAIL = auto()
    SHARE_FOLDER_TO_UPLOAD = auto()
    SHARE_FOLDER_TO_UPLOAD_BY_EMAIL = auto()
    SHARE_FOLDER_TO_UPLOAD_ANYWHERE = auto()
    SHARE_FOLDER_TO_UPLOAD_ANYWHERE_BY_EMAIL = auto()
    SHARE_FOLDER_WITH_USERS = auto()
    SHARE_FOLDER_WITH_GROUPS = auto()
    SHARE_ORDERS_BY_EMAIL = auto()
    SHARE_ORDERS_BY_EMAIL_UNTIL = auto()
    CREATE_SHARE_LINK = auto()
    CREATE_SHARE_LINK_UNTIL = auto()
    VIEW_ORDER = auto()
    VIEW_PATIENT = auto()
    VIEW_FOLDER = auto()
    CREATE_ORDER_GROUP = auto()
    ADD_ORDERS_TO_GROUP = auto()
    REMOVE_ORDERS_FROM_GROUP = auto()
    FLAG_DICTIONARY = auto()
    SET_FLAG = auto()
    LIST_NODES = auto()
    LIST_USERS = auto()
    LIST_USER_GROUPS = auto()
    LIST_CONTACTS = auto()


@dataclass(frozen=True, slots=True)
class _Field(Parameter):
    """A parameter; ``absent`` is sent where it is not given, unless that is None: then it is left out."""

    absent: Any = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One general operation (message type 17).

    Attributes:
        title: the head of error messages.
        management_type: its number.
        repeat: what a repeat would do.
        parameters: after ``UserUuid``, in the order in which they are sent.
    """

    title: str
    management_type: int
    repeat: Repeat
    parameters: tuple[Parameter, ...] = ()


def _given(argument: str, wire: str, kind: Kind = Kind.TEXT) -> Parameter:
    return Parameter(argument, wire, kind, required=True)


def _or_empty(argument: str, wire: str, kind: Kind = Kind.TEXT) -> Parameter:
    return _Field(argument, wire, kind, absent=() if kind in LISTS else "")


_ORDER: Final = _given("patient_order_uuid", "PatientOrderUuid", Kind.GUID)
_ORDERS: Final = _given("patient_order_uuids", "PatientOrderUuidList", Kind.GUID_LIST)
_ORDER_INSTITUTION: Final = _given("institution_uuid", "PatientOrderInstitutionUuid", Kind.GUID)
_INSTITUTION: Final = _given("institution_uuid", "InstitutionUuid", Kind.GUID)
_FOLDER: Final = _given("folder_uuid", "FolderUuid", Kind.GUID)
_PARENT: Final = _Field("parent_folder_uuid", "ParentFolderUuid", Kind.GUID, absent=ZERO_GUID)
_SHARED_ORDERS: Final = _given("patient_order_uuids", "OrderUuidList", Kind.GUID_LIST)
_EXPIRES: Final = _given("expires", "ExpireDate", Kind.FUTURE_DATE)
_DOWNLOADABLE: Final = _given("downloadable", "UserCanDownloadStudies", Kind.BOOLEAN)
# Documented; the public copy of the script has no such argument. Its place is assumed.
_DOWNLOADABLE_INSIDE: Final = Parameter("downloadable", "UserCanDownloadStudies", Kind.BOOLEAN)
_EMAILS: Final = (
    _given("email", "Email", Kind.MAIL),
    _or_empty("password_email", "EmailForSendingSharePassword", Kind.MAIL),
)
_FOLDER_SHARE: Final = (
    _or_empty("password", "SharePassword"),
    _or_empty("title", "ShareTitle"),
    _or_empty("description", "ShareDescription"),
    _EXPIRES,
    _DOWNLOADABLE,
)
_ORDER_FILTERS: Final = (
    _or_empty("institution_uuids", "InstitutionUuidList", Kind.GUID_LIST),
    _or_empty("patient_name", "PatientName", Kind.PERSON_NAME),
    _or_empty("accession_number", "AccessionNumber"),
    _or_empty("patient_id", "PatientId"),
    _or_empty("other_patient_id", "OtherPatientId"),
    _or_empty("modalities", "Modalities", Kind.TEXT_LIST),
)
_NEW_ORDER: Final = (
    _INSTITUTION,
    _given("patient_name", "PatientName", Kind.PERSON_NAME),
    _given("patient_id", "PatientID"),
    Parameter("other_patient_id", "OtherPatientId"),
    Parameter("patient_birthdate", "PatientsBirthDate", Kind.DATE),
    _given("modality", "OrderModality"),
    _or_empty("study_description", "StudyDescription"),  # each of the script's ways to create an order writes it
    Parameter("accession_number", "OrderAccessionNumber"),
    Parameter("patient_complaints", "PatientComplaints"),
    _given("order_scheduled_datetime", "PerformedDatetime", Kind.DATE_OR_DATETIME),
    Parameter("requested_procedure_id", "RequestedProcedureId"),
    Parameter("requested_procedure_description", "RequestingProcedureDescription"),
    Parameter("scheduled_equipment_uuid", "ScheduledEquipmentUuid", Kind.GUID),
    Parameter("patient_sex", "PatientSex", Kind.SEX),
    Parameter("referring_physicians_name", "ReferringPhysiciansName", Kind.PERSON_NAME),
)

_READ, _CHANGE = Repeat.READ, Repeat.CHANGE

OPERATIONS: Final[dict[Name, Operation]] = {
    Name.SEARCH_ORDERS: Operation("search patient orders", 1, _READ, _ORDER_FILTERS),
    Name.SEARCH_ORDERS_BY_DATE: Operation(
        "search patient orders",
        1,
        _READ,
        (
            *_ORDER_FILTERS,
            _or_empty("study_date_from", "StartDate", Kind.DATE),
            _or_empty("study_date_to", "EndDate", Kind.DATE),
        ),
    ),
    Name.SEARCH_ORDERS_BY_BIRTHDATE: Operation(
        "search patient orders",
        1,
        _READ,
        (
            *_ORDER_FILTERS,
            _or_empty("patient_birthdate_from", "StartBirthdate", Kind.DATE),
            _or_empty("patient_birthdate_to", "EndBirthdate", Kind.DATE),
        ),
    ),
    Name.SEARCH_ORDERS_IN_FOLDER: Operation("search patient orders", 1, _READ, (_FOLDER,)),
    Name.ORDER_PROPERTIES: Operation("get patient order properties", 13, _READ, (_ORDER_INSTITUTION, _ORDER)),
    Name.CREATE_ORDER: Operation("create patient order", 7, _CHANGE, _NEW_ORDER),
    Name.CREATE_ORDER_WITH_JSON: Operation("create patient order", 25, _CHANGE, (_INSTITUTION,)),
    Name.DELETE_ORDER: Operation("delete patient order", 6, _CHANGE, (_ORDER_INSTITUTION, _ORDER)),
    Name.ASSIGN_ORDER_TO_USER: Operation(
        "assign order to user", 28, _CHANGE, (_ORDER, _given("user_uuid", "AssignedUserUuid", Kind.GUID))
    ),
    Name.ASSIGN_ORDER_TO_GROUP: Operation(
        "assign order to user group",
        29,
        _CHANGE,
        (_ORDER, _given("user_group_uuid", "AssignedUserGroupUuid", Kind.GUID)),
    ),
    Name.ASSIGN_ORDER_TO_INSTITUTION: Operation("assign order to institution", 35, _CHANGE, (_ORDER, _INSTITUTION)),
    Name.UNASSIGN_ORDER_FROM_USER: Operation(
        "unassign order from user", 32, _CHANGE, (_ORDER, _given("user_uuid", "UnassignedUserUuid", Kind.GUID))
    ),
    Name.UNASSIGN_ORDER_FROM_GROUP: Operation(
        "unassign order from user group",
        33,
        _CHANGE,
        (_ORDER, _given("user_group_uuid", "UnassignedUserGroupUuid", Kind.GUID)),
    ),
    Name.CREATE_FOLDER: Operation(
        "create folder",
        2,
        _CHANGE,
        (_PARENT, _given("name", "FolderName"), Parameter("description", "FolderDescription")),
    ),
    Name.SEARCH_FOLDERS: Operation(
        "search folders",
        3,
        _READ,
        (_PARENT, _or_empty("name", "FolderName"), _given("with_orders", "GetOrdersInFolder", Kind.BOOLEAN)),
    ),
    Name.UPDATE_FOLDER: Operation("update folder", 27, _CHANGE, (_FOLDER,)),
    Name.DELETE_FOLDER: Operation("delete folder", 4, _CHANGE, (_FOLDER,)),
    Name.ADD_ORDER_TO_FOLDER: Operation(
        "add order to folder",
        8,
        _CHANGE,
        (_ORDER_INSTITUTION, _ORDER, _given("folder_uuids", "FolderUuidList", Kind.GUID_LIST)),
    ),
    Name.REMOVE_ORDERS_FROM_FOLDER: Operation("remove orders from folder", 9, _CHANGE, (_FOLDER, _ORDERS)),
    Name.SHARE_FOLDER: Operation("share folder", 15, _CHANGE, (_FOLDER, *_FOLDER_SHARE)),
    Name.SHARE_FOLDER_BY_EMAIL: Operation("share folder by e-mail", 14, _CHANGE, (_FOLDER, *_EMAILS, *_FOLDER_SHARE)),
    Name.SHARE_FOLDER_TO_UPLOAD: Operation(
        "share folder to upload", 17, _CHANGE, (_FOLDER, *_FOLDER_SHARE, _INSTITUTION)
    ),
    Name.SHARE_FOLDER_TO_UPLOAD_BY_EMAIL: Operation(
        "share folder to upload by e-mail", 16, _CHANGE, (_FOLDER, *_EMAILS, *_FOLDER_SHARE, _INSTITUTION)
    ),
    # As they are documented: without an institution.
    Name.SHARE_FOLDER_TO_UPLOAD_ANYWHERE: Operation("share folder to upload", 17, _CHANGE, (_FOLDER, *_FOLDER_SHARE)),
    Name.SHARE_FOLDER_TO_UPLOAD_ANYWHERE_BY_EMAIL: Operation(
        "share folder to upload by e-mail", 16, _CHANGE, (_FOLDER, *_EMAILS, *_FOLDER_SHARE)
    ),
    Name.SHARE_FOLDER_WITH_USERS: Operation(
        "share folder with users",
        18,
        _CHANGE,
        (_FOLDER, _given("user_uuids", "SharedUserUuidList", Kind.GUID_LIST), _EXPIRES, _DOWNLOADABLE_INSIDE),
    ),
    Name.SHARE_FOLDER_WITH_GROUPS: Operation(
        "share folder with user groups",
        19,
        _CHANGE,
        (
            _FOLDER,
            _given("user_group_uuids", "SharedUserGroupUuidList", Kind.GUID_LIST),
            _EXPIRES,
            _DOWNLOADABLE_INSIDE,
        ),
    ),
    Name.SHARE_ORDERS_BY_EMAIL: Operation(
        "share patient orders by e-mail", 20, _CHANGE, (_SHARED_ORDERS, *_EMAILS, _DOWNLOADABLE)
    ),
    Name.SHARE_ORDERS_BY_EMAIL_UNTIL: Operation(
        "share patient orders by e-mail", 36, _CHANGE, (_SHARED_ORDERS, *_EMAILS, _DOWNLOADABLE, _EXPIRES)
    ),
    Name.CREATE_SHARE_LINK: Operation("create share link", 21, _CHANGE, (_SHARED_ORDERS, _DOWNLOADABLE)),
    Name.CREATE_SHARE_LINK_UNTIL: Operation(
        "create share link", 37, _CHANGE, (_SHARED_ORDERS, _DOWNLOADABLE, _EXPIRES)
    ),
    # A view link does not outlive its viewer; asking for another one changes nothing.
    Name.VIEW_ORDER: Operation("get view link", 5, _READ, (_ORDER,)),
    Name.VIEW_PATIENT: Operation(
        "get view link",
        5,
        _READ,
        (
            _given("patient_name", "PatientName", Kind.PERSON_NAME),
            Parameter("patient_birthdate", "BirthDate", Kind.DATE),
        ),
    ),
    Name.VIEW_FOLDER: Operation("get folder view link", 26, _READ, (_FOLDER,)),
    Name.CREATE_ORDER_GROUP: Operation("create order group", 10, _CHANGE, (_ORDER_INSTITUTION, _ORDERS)),
    Name.ADD_ORDERS_TO_GROUP: Operation(
        "add orders to order group",
        11,
        _CHANGE,
        (_ORDER_INSTITUTION, _given("connected_group_uuid", "ConnectedGroupUuid", Kind.GUID), _ORDERS),
    ),
    Name.REMOVE_ORDERS_FROM_GROUP: Operation(
        "remove orders from order group", 12, _CHANGE, (_ORDER_INSTITUTION, _ORDERS)
    ),
    Name.FLAG_DICTIONARY: Operation("get flag dictionary", 30, _READ),
    Name.SET_FLAG: Operation(
        "set flag",
        31,
        _CHANGE,
        (_ORDER, _given("group_id", "GroupId", Kind.FLAG_ID), _given("flag_id", "FlagId", Kind.FLAG_ID)),
    ),
    Name.LIST_NODES: Operation("list DICOM nodes", 23, _READ),
    Name.LIST_USERS: Operation("list users", 34, _READ),
    Name.LIST_USER_GROUPS: Operation("list user groups", 22, _READ),
    Name.LIST_CONTACTS: Operation("list contacts", 24, _READ),
}


def fields_of(operation: Operation, values: Values, wire: CloudWire) -> dict[str, Any]:
    """Return the operation's own fields, in order, from checked values by argument.

    Raises:
        UsageError: a value cannot be written as ``wire`` has it.
    """
    fields = {
        parameter.wire: _absent(parameter) if value is None else json_value(parameter, value, wire)
        for parameter in operation.parameters
        for value in (values.get(parameter.argument),)
    }
    return {name: value for name, value in fields.items() if value is not None}


def _absent(parameter: Parameter) -> Any:
    return parameter.absent if isinstance(parameter, _Field) else None


def json_value(parameter: Parameter, value: Value, wire: CloudWire) -> Any:
    """Return a checked value as JSON has it; dates become text.

    Raises:
        UsageError: it cannot be written as ``wire`` has it.
    """
    if parameter.kind is Kind.FLAG_ID:
        return _flag_id(parameter.argument, str(value), wire)
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    if isinstance(value, date):
        return value.isoformat() + (wire.after_date_alone if parameter.kind is Kind.DATE_OR_DATETIME else "")
    return value


def _flag_id(argument: str, text: str, wire: CloudWire) -> int | str:
    if wire.flag_ids_as_text:
        return text
    if not _WHOLE_NUMBER.fullmatch(text):
        message = "give a whole number, or CloudWire(flag_ids_as_text=True) for text"
        raise UsageError(message, argument=argument, operation="set flag")
    return int(text)


def session_fields(session_uuid: str, keys: Keys) -> dict[str, Any]:
    """Return the fields of both session messages; the account key is in neither."""
    return {"SessionUuid": session_uuid, "OtherParameterList": [f"Api={session_uuid}", f"ApiKey={keys.api_key}"]}


def compact_json(fields: Mapping[str, Any], keys: Keys | None = None) -> bytes:
    """Return JSON without white space in UTF-8, the keys at its end when given."""
    tail = {} if keys is None else {"ApiKey": keys.api_key, "AccountKey": keys.account_key}
    return json.dumps({**fields, **tail}, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
