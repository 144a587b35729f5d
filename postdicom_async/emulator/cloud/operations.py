"""The table of the Cloud API's general requests: management type to its fields and what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from postdicom_async.emulator.cloud.folders import CloudFolders
from postdicom_async.emulator.cloud.lists import CloudLists
from postdicom_async.emulator.cloud.orders import CloudOrders
from postdicom_async.emulator.cloud.shares import CloudShares

if TYPE_CHECKING:
    from collections.abc import Callable

    from postdicom_async.emulator.cloud.parameters import Parameters
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["Row", "general_table"]

Handler: TypeAlias = "Callable[[Parameters], dict[str, Any]]"

_ORDER = ("UserUuid", "PatientOrderInstitutionUuid", "PatientOrderUuid")
_ONE = ("UserUuid", "PatientOrderUuid")
_FOLDER = ("UserUuid", "FolderUuid")
_SEARCH = (
    "UserUuid", "InstitutionUuidList?", "PatientName?", "AccessionNumber?", "PatientId?", "OtherPatientId?",
    "Modalities?", "StartDate?", "EndDate?", "StartBirthdate?", "EndBirthdate?", "FolderUuid?",
)  # fmt: skip
_CREATE = (
    "UserUuid", "InstitutionUuid", "PatientName?", "PatientID?", "OtherPatientId?", "PatientsBirthDate?",
    "OrderModality?", "StudyDescription?", "OrderAccessionNumber?", "PatientComplaints?", "PerformedDatetime",
    "RequestedProcedureId?", "RequestingProcedureDescription?", "ScheduledEquipmentUuid?", "PatientSex?",
    "ReferringPhysiciansName?",
)  # fmt: skip
_BY_MAIL = ("Email", "EmailForSendingSharePassword?")
_SHARE = ("SharePassword?", "ShareTitle?", "ShareDescription?", "ExpireDate", "UserCanDownloadStudies?")
_ORDERS = ("UserUuid", "OrderUuidList")


class Row(NamedTuple):
    """One kind of request; fields that may be missing end in ``?``."""

    fields: tuple[str, ...]
    handler: Handler


def general_table(cloud: Cloud) -> dict[int, Row]:
    """Return the thirty-seven kinds by their management types."""
    orders, folders, lists = CloudOrders(cloud), CloudFolders(cloud), CloudLists(cloud)
    shares = CloudShares(cloud)
    return {
        1: Row(_SEARCH, orders.search),
        2: Row(("UserUuid", "ParentFolderUuid", "FolderName", "FolderDescription?"), folders.create),
        3: Row(("UserUuid", "ParentFolderUuid", "FolderName?", "GetOrdersInFolder?"), folders.search),
        4: Row(_FOLDER, folders.delete),
        5: Row(("UserUuid", "PatientOrderUuid?", "PatientName?", "BirthDate?"), shares.view),
        6: Row(_ORDER, orders.delete),
        7: Row(_CREATE, orders.create),
        8: Row((*_ORDER, "FolderUuidList?"), folders.add_order),
        9: Row((*_FOLDER, "PatientOrderUuidList?"), folders.remove_orders),
        10: Row(("UserUuid", "PatientOrderInstitutionUuid", "PatientOrderUuidList?"), orders.group),
        11: Row(
            ("UserUuid", "PatientOrderInstitutionUuid", "ConnectedGroupUuid", "PatientOrderUuidList?"),
            orders.add_to_group,
        ),
        12: Row(("UserUuid", "PatientOrderInstitutionUuid", "PatientOrderUuidList?"), orders.remove_from_group),
        13: Row(_ORDER, orders.properties),
        14: Row((*_FOLDER, *_BY_MAIL, *_SHARE), shares.folder_by_mail),
        15: Row((*_FOLDER, *_SHARE), shares.folder_by_link),
        16: Row((*_FOLDER, *_BY_MAIL, *_SHARE, "InstitutionUuid?"), shares.folder_by_mail),
        17: Row((*_FOLDER, *_SHARE, "InstitutionUuid?"), shares.folder_by_link),
        18: Row((*_FOLDER, "SharedUserUuidList", "ExpireDate", "UserCanDownloadStudies?"), shares.folder_inside),
        19: Row((*_FOLDER, "SharedUserGroupUuidList", "ExpireDate", "UserCanDownloadStudies?"), shares.folder_inside),
        20: Row((*_ORDERS, *_BY_MAIL, "UserCanDownloadStudies?"), shares.orders_by_mail),
        21: Row((*_ORDERS, "UserCanDownloadStudies?"), shares.orders_by_link),
        22: Row(("UserUuid",), lists.user_groups),
        23: Row(("UserUuid",), lists.dicom_nodes),
        24: Row(("UserUuid",), lists.contacts),
        25: Row(("UserUuid", "InstitutionUuid", "JsonParameters"), orders.create_from_json),
        26: Row(_FOLDER, shares.folder_view),
        27: Row((*_FOLDER, "JsonParameters"), folders.update),
        28: Row((*_ONE, "AssignedUserUuid"), orders.assign),
        29: Row((*_ONE, "AssignedUserGroupUuid"), orders.assign),
        30: Row(("UserUuid",), lists.flags),
        31: Row((*_ONE, "GroupId", "FlagId"), orders.set_flag),
        32: Row((*_ONE, "UnassignedUserUuid"), orders.unassign),
        33: Row((*_ONE, "UnassignedUserGroupUuid"), orders.unassign),
        34: Row(("UserUuid",), lists.users),
        35: Row((*_ONE, "InstitutionUuid"), orders.move),
        36: Row((*_ORDERS, *_BY_MAIL, "UserCanDownloadStudies?", "ExpireDate"), shares.orders_by_mail),
        37: Row((*_ORDERS, "UserCanDownloadStudies?", "ExpireDate"), shares.orders_by_link),
    }
