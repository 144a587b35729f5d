"""The table of PostDICOM's own operations as a service sees them: path, header, parameters (documentation)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["OPERATIONS", "Kind", "Operation", "Parameter"]


class Kind(Enum):
    """What a parameter holds."""

    TEXT = auto()
    SEX = auto()
    UUID = auto()
    FOLDER = auto()
    """A UUID; the zero UUID is the root."""
    DATE = auto()
    DATETIME = auto()
    BOOLEAN = auto()
    TEXT_LIST = auto()
    UUID_LIST = auto()
    ORDER_INFO_LIST = auto()
    """Objects with the UUID of an order, each written into text."""
    TAG_LIST = auto()


@dataclass(frozen=True)
class Parameter:
    """One parameter by its documented name."""

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False


@dataclass(frozen=True)
class Operation:
    """One operation: its name is its path without the slash."""

    name: str
    header: str
    parameters: tuple[Parameter, ...]


def _given(name: str, kind: Kind = Kind.TEXT) -> Parameter:
    return Parameter(name, kind, required=True)


_ORDER = (_given("PatientOrderInstitutionUuid", Kind.UUID), _given("PatientOrderUuid", Kind.UUID))
_PASSWORD = Parameter("SharePassword")
_DOWNLOAD = Parameter("UserCanDownloadStudies", Kind.BOOLEAN)

_TABLE = (
    Operation(
        "createsharelink",
        "ShareParameters",
        (
            _given("PatientOrderInfoList", Kind.ORDER_INFO_LIST),
            _given("ExpireDate", Kind.DATE),
            _PASSWORD,
            Parameter("Downloadable", Kind.BOOLEAN),
        ),
    ),
    Operation(
        "sharepatientorderwithurl",
        "SharePatientOrderParameters",
        (_given("OrderUuidList", Kind.UUID_LIST), _given("ExpireDate", Kind.DATE), _PASSWORD, _DOWNLOAD),
    ),
    Operation(
        "createfolder",
        "CreateFolderParameters",
        (_given("FolderName"), Parameter("FolderDescription"), Parameter("ParentFolderUuid", Kind.FOLDER)),
    ),
    Operation(
        "searchfolder",
        "SearchFolderParameters",
        (
            Parameter("ParentFolderUuid", Kind.FOLDER),
            Parameter("FolderName"),
            Parameter("GetOrdersInFolder", Kind.BOOLEAN),
        ),
    ),
    Operation(
        "sharefolderwithurl",
        "ShareFolderParameters",
        (
            _given("FolderUuid", Kind.UUID),
            _PASSWORD,
            Parameter("ShareTitle"),
            Parameter("ShareDescription"),
            Parameter("ExpireDate", Kind.DATE),
            _DOWNLOAD,
        ),
    ),
    Operation(
        "addordertofolder",
        "AddOrderToFolderParameters",
        (_given("PatientOrderUuid", Kind.UUID), _given("FolderUuidList", Kind.UUID_LIST)),
    ),
    Operation(
        "assignordertouser",
        "AssignOrderToUserParameters",
        (_given("PatientOrderUuid", Kind.UUID), _given("AssignedUserUuid", Kind.UUID)),
    ),
    Operation(
        "assignordertousergroup",
        "AssignOrderToUserGroupParameters",
        (_given("PatientOrderUuid", Kind.UUID), _given("AssignedUserGroupUuid", Kind.UUID)),
    ),
    Operation(
        "createpatientorder",
        "CreatePatientOrderParameters",
        (
            _given("InstitutionUuid", Kind.UUID),
            _given("PatientName"),
            _given("PatientId"),
            _given("PatientBirthdate", Kind.DATE),
            _given("Modality"),
            Parameter("OtherPatientId"),
            Parameter("PatientSex", Kind.SEX),
            Parameter("StudyDescription"),
            Parameter("AccessionNumber"),
            Parameter("PatientComplaints"),
            Parameter("OrderScheduledDatetime", Kind.DATETIME),
            Parameter("RequestedProcedureId"),
            Parameter("RequestedProcedureDescription"),
            Parameter("RequestingPhysician"),
            Parameter("ReferringPhysiciansName"),
            Parameter("ScheduledEquipmentUuid", Kind.UUID),
        ),
    ),
    Operation("getpatientorderproperties", "GetPatientOrderPropertiesParameters", _ORDER),
    Operation(
        "getdicomtagcontent",
        "GetDicomTagContentParameters",
        (*_ORDER, Parameter("PatientSeriesUuid", Kind.UUID), Parameter("DicomTagIdList", Kind.TAG_LIST)),
    ),
    Operation(
        "getpatientorderlist",
        "GetPatientOrderListParameters",
        (
            Parameter("InstitutionUuidList", Kind.UUID_LIST),
            Parameter("PatientName"),
            Parameter("PatientId"),
            Parameter("OtherPatientId"),
            Parameter("AccessionNumber"),
            Parameter("ModalityList", Kind.TEXT_LIST),
            Parameter("StudyDateFrom", Kind.DATE),
            Parameter("StudyDateTo", Kind.DATE),
            Parameter("PatientBirthdateFrom", Kind.DATE),
            Parameter("PatientBirthdateTo", Kind.DATE),
        ),
    ),
    Operation("deleteorder", "DeleteOrderParameters", _ORDER),
)

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in _TABLE}
"""The thirteen operations by name."""
