"""The fields of PostDICOM's objects, each declared once for both APIs, and the operations' parameters. Pure.

A `Field` says what it is called in Python and in each API, the type of its value and what it is for. The tables of
operations (``postdicom/operations.py``, ``cloud/operations.py``) make `Parameter` objects of it with `in_dicomweb` and
`in_cloud`; from these the calls are checked and written, and the command's options are generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

from postdicom_async.errors import UsageError
from postdicom_async.vendor.values import LISTS, ValueKind, Values, check_value, is_empty_list, is_given

if TYPE_CHECKING:
    from postdicom_async.http.retry import Repeat

_Api: TypeAlias = Literal["", "both", "dicomweb", "cloud"]
ZERO_GUID: Final = "00000000-0000-0000-0000-000000000000"
ASSUMED_PLACE: Final = "?"
"""The group in ``JsonParameters`` of a field that the public copy of the JavaScript library drops: that of
``CloudWire.other_order_fields``."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the vendor's.

    Attributes:
        argument: its Python argument; "" where only ``create_from_json`` takes it, under the vendor's name.
        help: what it is for, in a sentence.
        kind: the type of its value.
        dicomweb: its name in the DICOMweb API; "" where that has none.
        cloud: its name in the Cloud API, where that is another one.
        place: where the JavaScript library writes it in its message, if elsewhere than the DICOMweb API.
        json: its place, group and key in the Cloud API's ``JsonParameters``, for orders.
        required: the APIs in which it must be given.
        found: in the Cloud API, the client supplies a missing value: False, or the user's only institution.
        absent: what the JavaScript library sends for a missing value; None if it leaves the field out.
        pair: the two dates of one search; those of another are not sent in the Cloud API, even empty.
        metavar: the placeholder for its value in a help text, if the kind has none.
    """

    argument: str
    help: str
    kind: ValueKind = ValueKind.TEXT
    dicomweb: str = ""
    cloud: str = ""
    place: float = 0
    json: tuple[int, str, str] | None = None
    required: _Api = ""
    found: bool = False
    absent: Any = None
    pair: str = ""
    metavar: str = ""

    def but(self, **changes: Any) -> Self:
        """Return the field with changes for one operation."""
        return replace(self, **changes)


_METAVARS: Final = {
    **dict.fromkeys((*LISTS, ValueKind.UUID, ValueKind.GUID), "UUID"),
    ValueKind.TEXT_LIST: "TEXT",
    **dict.fromkeys((ValueKind.DATE, ValueKind.FUTURE_DATE), "YYYY-MM-DD"),
    **dict.fromkeys((ValueKind.DATETIME, ValueKind.DATE_OR_DATETIME), "TIME"),
    ValueKind.SEX: "LETTER",
    ValueKind.MAIL: "ADDRESS",
    ValueKind.FLAG_ID: "N",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation of one API.

    Attributes:
        argument: its Python argument, and with hyphens the command's option.
        wire: its name on the wire.
        kind: what it holds.
        required: it must be sent.
        has_default: a missing value has a default, so that the caller need not give it.
        help: what it is for.
        absent: what is sent for a missing value, in the Cloud API; None if it is left out.
        json: its group and key in ``JsonParameters``, in the Cloud API.
        pair: as in `Field`.
        metavar: what stands for its value in a help text.
    """

    argument: str
    wire: str
    kind: ValueKind = ValueKind.TEXT
    required: bool = False
    has_default: bool = False
    help: str = ""
    absent: Any = None
    json: tuple[str, str] | None = None
    pair: str = ""
    metavar: str = "TEXT"

    @property
    def must_be_given(self) -> bool:
        """Whether a call without it is refused."""
        return self.required and not self.has_default

    @property
    def takes_several(self) -> bool:
        """Whether it holds a list."""
        return self.kind in LISTS

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values; () if any value is allowed."""
        return ("M", "F", "O") if self.kind is ValueKind.SEX else ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        title: the head of error messages.
        parameters: in the order in which they are written.
        reads: whether it changes nothing, so that it may be repeated.
    """

    title: str
    reads: bool
    parameters: tuple[Parameter, ...]

    @property
    def repeat(self) -> Repeat:
        """The effect of a repeat."""
        from postdicom_async.http.retry import Repeat  # imported here: a help text needs the tables but no network code

        return Repeat.READ if self.reads else Repeat.CHANGE


_KINDS_IN_CLOUD: Final = {
    ValueKind.UUID: ValueKind.GUID,
    ValueKind.UUID_LIST: ValueKind.GUID_LIST,
    ValueKind.DATETIME: ValueKind.DATE_OR_DATETIME,
}
"""It takes UUIDs of version 1 to 5 (JavaScript library), and a day without a time (documented)."""


def in_dicomweb(*fields: Field) -> tuple[Parameter, ...]:
    """Return the fields that the DICOMweb API knows, as its parameters."""
    return tuple(_parameter(one, one.dicomweb, one.kind, "dicomweb") for one in fields if one.dicomweb)


def in_cloud(*fields: Field) -> tuple[Parameter, ...]:
    """Return the fields as the Cloud API's parameters, in the JavaScript library's order."""
    placed = sorted(enumerate(fields), key=lambda pair: pair[1].place or pair[0])
    made = []
    for _, one in placed:
        found = _parameter(one, one.cloud or one.dicomweb, _KINDS_IN_CLOUD.get(one.kind, one.kind), "cloud")
        json = None if one.json is None else one.json[1:]
        found = replace(found, has_default=one.found, absent=one.absent, json=json, pair=one.pair)
        if one.argument == "institution_uuid":  # here an institution's name will do
            text = f"{one.help[:-1]}, by UUID or name.{' Not needed if the user has only one.' if one.found else ''}"
            found = replace(found, help=text, metavar="UUID|NAME")
        made.append(found)
    return tuple(made)


def _parameter(one: Field, wire: str, kind: ValueKind, api: str) -> Parameter:
    metavar = one.metavar or _METAVARS.get(kind, "TEXT")
    return Parameter(one.argument, wire, kind, one.required in ("both", api), help=one.help, metavar=metavar)


def check(operation: Operation, given: Mapping[str, object], *, first_day: Callable[[], date]) -> Values:
    """Return the checked values of a call; None and, for optional ones, empty values mean not given.

    ``first_day`` returns the first day that is not in the past.

    Raises:
        UsageError: something is missing, empty, malformed, or in the past; the message names the Python argument and
            never shows the value.
        TypeError: the operation has no such argument, which would be lost silently.
    """
    unknown = given.keys() - {parameter.argument for parameter in operation.parameters}
    if unknown:
        raise TypeError(f"{operation.title}: no such argument: {', '.join(sorted(unknown))}")
    checked: Values = {}
    for parameter in operation.parameters:
        value = given.get(parameter.argument)
        if not is_given(value) or (not parameter.required and is_empty_list(parameter.kind, value)):
            if parameter.required:
                raise UsageError("must be given", argument=parameter.argument, operation=operation.title)
            continue
        found = check_value(parameter.argument, parameter.kind, value, operation=operation.title)
        if parameter.kind is ValueKind.FUTURE_DATE and found < first_day():
            raise UsageError("the date is in the past", argument=parameter.argument, operation=operation.title)
        checked[parameter.argument] = found
    return checked


# --- the table ------------------------------------------------------------------------------------------------------

# DICOMweb API: C# sample and documentation. Cloud API: JavaScript library and documentation.
_TEXT, _NAME, _UUID, _DATE = ValueKind.TEXT, ValueKind.PERSON_NAME, ValueKind.UUID, ValueKind.DATE
_UUIDS, _TEXTS, _DAY, _YES_NO = ValueKind.UUID_LIST, ValueKind.TEXT_LIST, ValueKind.FUTURE_DATE, ValueKind.BOOLEAN
_IDENTITY, _STUDY, _OTHER, _TOP = "IdentityInformation", "StudyInformation", "OtherInformation", ""

# fmt: off
INSTITUTION: Final = Field(
    "institution_uuid", "The institution it is for.", _UUID, "InstitutionUuid", required="both", found=True)
PATIENT_NAME: Final = Field(
    "patient_name", "The patient's name, as DOE^JANE.", _NAME, "PatientName", json=(1, _IDENTITY, "Name"),
    required="both")
PATIENT_BIRTHDATE: Final = Field(
    "patient_birthdate", "The patient's day of birth.", _DATE, "PatientBirthdate", "PatientsBirthDate", 3.5,
    (2, _IDENTITY, "Birthdate"), required="dicomweb")

NEW_ORDER: Final = (
    INSTITUTION,
    PATIENT_NAME,
    Field("patient_id", "The patient's ID.", _TEXT, "PatientId", "PatientID", 2, (3, _IDENTITY, "Id"), "both"),
    PATIENT_BIRTHDATE,
    Field("modality", "The modality, such as CT.", _TEXT, "Modality", "OrderModality", 4, (12, _TOP, "Modality"),
          "both", metavar="CODE"),
    Field("other_patient_id", "The patient's other ID.", _TEXT, "OtherPatientId", place=3,
          json=(0, _IDENTITY, "OtherId")),
    Field("patient_sex", "M, F or O.", ValueKind.SEX, "PatientSex", place=14, json=(4, _IDENTITY, "Sex")),
    # Each of the script's ways to create an order writes the description, given or not.
    Field("study_description", "The study's description.", _TEXT, "StudyDescription",
          json=(6, _STUDY, "StudyDescription"), absent=""),
    Field("accession_number", "The accession number.", _TEXT, "AccessionNumber", "OrderAccessionNumber",
          json=(13, _TOP, "AccessionNumber")),
    Field("patient_complaints", "The patient's complaints.", _TEXT, "PatientComplaints",
          json=(17, ASSUMED_PLACE, "PatientComplaints")),
    Field("order_scheduled_datetime", "'YYYY-MM-DD HH:MM', local.", ValueKind.DATETIME, "OrderScheduledDatetime",
          "PerformedDatetime", json=(5, _STUDY, "StudyDate")),
    Field("requested_procedure_id", "The procedure's ID.", _TEXT, "RequestedProcedureId",
          json=(11, _OTHER, "RequestedProcedureId")),
    Field("requested_procedure_description", "The procedure in words.", _TEXT, "RequestedProcedureDescription",
          "RequestingProcedureDescription", json=(9, _OTHER, "RequestedProcedureDescription")),
    Field("requesting_physician", "Who asks for it.", _NAME, "RequestingPhysician", place=16,
          json=(8, _OTHER, "RequestingPhysician")),
    Field("referring_physicians_name", "Who refers the patient.", _NAME, "ReferringPhysiciansName", place=15,
          json=(10, _OTHER, "ReferringPhysiciansName")),
    Field("scheduled_equipment_uuid", "The equipment to use.", _UUID, "ScheduledEquipmentUuid", place=13,
          json=(14, _TOP, "ScheduledEquipmentUuid")),
)
"""What ``orders.create`` takes."""

ONLY_IN_JSON: Final = (
    Field("", "", cloud="InstitutionNameInDicom", json=(7, _STUDY, "InstitutionNameInDicom")),
    Field("", "", cloud="Priority", json=(15, ASSUMED_PLACE, "Priority")),
    Field("", "", cloud="PatientHistory", json=(16, ASSUMED_PLACE, "PatientHistory")),
    Field("", "", cloud="PatientSymptom", json=(18, ASSUMED_PLACE, "PatientSymptom")),
    Field("", "", cloud="RequestingDepartment", json=(19, ASSUMED_PLACE, "RequestingDepartment")),
    Field("", "", cloud="OrderNote1", json=(20, ASSUMED_PLACE, "OrderNote1")),
    Field("", "", cloud="OrderNote2", json=(21, ASSUMED_PLACE, "OrderNote2")),
)
"""What only ``orders.create_from_json`` takes, besides."""

ORDER_SEARCH: Final = (
    Field("institution_uuids", "Of this institution. Give it once for each.", _UUIDS, "InstitutionUuidList", absent=()),
    Field("patient_name", "The patient's name, or a part of it.", _NAME, "PatientName", absent=""),
    Field("patient_id", "The patient's ID.", _TEXT, "PatientId", absent=""),
    Field("other_patient_id", "Another ID of the patient.", _TEXT, "OtherPatientId", absent=""),
    Field("accession_number", "The accession number.", _TEXT, "AccessionNumber", place=1.5, absent=""),
    Field("modalities", "Of this modality. Give it once for each.", _TEXTS, "ModalityList", "Modalities", absent=(),
          metavar="CODE"),
    Field("study_date_from", "Of this day or later.", _DATE, "StudyDateFrom", "StartDate", absent="",
          pair="study"),
    Field("study_date_to", "Of this day or before.", _DATE, "StudyDateTo", "EndDate", absent="",
          pair="study"),
    Field("patient_birthdate_from", "Patients born on this day or later.", _DATE, "PatientBirthdateFrom",
          "StartBirthdate", absent="", pair="birth"),
    Field("patient_birthdate_to", "Patients born on this day or before.", _DATE, "PatientBirthdateTo", "EndBirthdate",
          absent="", pair="birth"),
)

ORDER: Final = Field("patient_order_uuid", "The order.", _UUID, "PatientOrderUuid", required="both")
ORDERS: Final = Field(
    "patient_order_uuids", "The order. Give it once for each.", _UUIDS, "OrderUuidList", required="both")
ORDER_INSTITUTION: Final = Field(
    "institution_uuid", "The institution the order belongs to.", _UUID, "PatientOrderInstitutionUuid", required="both")
TO_USER: Final = Field(
    "user_uuid", "The user to assign it to.", _UUID, "AssignedUserUuid", required="both")
TO_GROUP: Final = Field(
    "user_group_uuid", "The group to assign it to.", _UUID, "AssignedUserGroupUuid", required="both")
WITH_USERS: Final = Field(
    "user_uuids", "A user to share it with. Give it once for each.", _UUIDS, cloud="SharedUserUuidList",
    required="cloud")
WITH_GROUPS: Final = Field(
    "user_group_uuids", "A group to share it with. Give it once for each.", _UUIDS, cloud="SharedUserGroupUuidList",
    required="cloud")
SERIES: Final = Field("series_uuid", "Only of this series.", _UUID, "PatientSeriesUuid")
TAGS: Final = Field(
    "tags", "A tag such as 00100010. Give it once for each; none means all.", _TEXTS, "DicomTagIdList", metavar="TAG")
CONNECTED_GROUP: Final = Field(
    "connected_group_uuid", "The group.", _UUID, cloud="ConnectedGroupUuid", required="cloud")
FLAG_GROUP: Final = Field(
    "group_id", "The group of flags, as flags list has it.", ValueKind.FLAG_ID, cloud="GroupId", required="cloud")
FLAG: Final = Field("flag_id", "The flag in it.", ValueKind.FLAG_ID, cloud="FlagId", required="cloud")

FOLDER: Final = Field("folder_uuid", "The folder.", _UUID, "FolderUuid", required="both")
FOLDERS: Final = Field(
    "folder_uuids", "The folder. Give it once for each.", _UUIDS, "FolderUuidList", required="both")
FOLDER_NAME: Final = Field(
    "name", "Its name. The service takes a/b for two folders, one in the other.", _TEXT, "FolderName", required="both")
NEW_FOLDER: Final = (
    FOLDER_NAME,
    Field("description", "What it is for.", _TEXT, "FolderDescription"),
    Field("parent_folder_uuid", "The folder to make it in. Without it, at the root.", _UUID, "ParentFolderUuid",
          place=-1, absent=ZERO_GUID),
)
FOLDER_UPDATE: Final = (
    Field("name", "Its new name.", cloud="Name", json=(0, _IDENTITY, "Name")),
    Field("description", "Its new description.", cloud="Description", json=(1, _IDENTITY, "Description")),
)
FOLDER_SEARCH: Final = (
    Field("parent_folder_uuid", "Folders in this one. Without it, at the root.", _UUID, "ParentFolderUuid",
          absent=ZERO_GUID),
    Field("name", "The folder's name, or a part of it.", _TEXT, "FolderName", absent=""),
    Field("with_orders", "Their orders too.", _YES_NO, "GetOrdersInFolder", required="cloud", found=True),
)

EXPIRES: Final = Field("expires", "The last day.", _DAY, "ExpireDate", required="cloud")
PASSWORD: Final = Field("password", "The link's password.", _TEXT, "SharePassword", absent="")
DOWNLOADABLE: Final = Field(
    "downloadable", "Whoever looks may download too.", _YES_NO, "UserCanDownloadStudies", required="cloud", found=True)
FOLDER_SHARE: Final = (
    FOLDER,
    PASSWORD,
    Field("title", "The title that is shown.", _TEXT, "ShareTitle", absent=""),
    Field("description", "What is shown below it.", _TEXT, "ShareDescription", absent=""),
    EXPIRES,
    DOWNLOADABLE,
)
EMAIL: Final = Field("email", "Who gets the link.", ValueKind.MAIL, cloud="Email", required="cloud")
PASSWORD_EMAIL: Final = Field(
    "password_email", "Who gets the password. Without it, the same address.", ValueKind.MAIL,
    cloud="EmailForSendingSharePassword", absent="")
# fmt: on
