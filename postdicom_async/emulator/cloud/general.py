"""The Cloud API's general requests in one table: management type, fields, what is done; and the lists it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from postdicom_async.emulator.cloud.folders import FolderRequests
from postdicom_async.emulator.cloud.orders import FLAGS, OrderRequests
from postdicom_async.emulator.cloud.shares import ShareRequests
from postdicom_async.emulator.cloud.state import Cloud, users_of
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.parameters import Given

GeneralHandler: TypeAlias = Callable[[Given], Json]

_NODE_UUID = "1f0e5b6a-3c1d-4e57-9a10-000000000301"
_NODE = {"DicomNodeUuid": _NODE_UUID, "DicomNodeName": "Sample Scanner", "AETitle": "SAMPLE", "Modality": "CT"}
_CONTACT_UUID = "1f0e5b6a-3c1d-4e57-9a10-000000000401"
_CONTACT = {"ContactUuid": _CONTACT_UUID, "FullName": "Sample Contact", "Email": "contact@example.org"}
_IN = "UserUuid PatientOrderInstitutionUuid"
_ONE = "UserUuid PatientOrderUuid"
_FOLDER = "UserUuid FolderUuid"
_BY_MAIL = "Email EmailForSendingSharePassword?"
_SHARE = "SharePassword? ShareTitle? ShareDescription? ExpireDate UserCanDownloadStudies?"
_ORDERS = "UserUuid OrderUuidList"


class GeneralRequest(NamedTuple):
    """One kind of request; fields that may be missing end in ``?``."""

    fields: tuple[str, ...]
    handler: GeneralHandler


def general_table(cloud: Cloud) -> Mapping[int, GeneralRequest]:
    """Return the kinds by their management types."""
    orders, folders, shares = OrderRequests(cloud), FolderRequests(cloud), ShareRequests(cloud)
    rows: dict[int, tuple[str, GeneralHandler]] = {
        1: (
            """
            UserUuid InstitutionUuidList? PatientName? AccessionNumber? PatientId? OtherPatientId? Modalities?
            StartDate? EndDate? StartBirthdate? EndBirthdate? FolderUuid?
            """,
            orders.search,
        ),
        2: ("UserUuid ParentFolderUuid FolderName FolderDescription?", folders.create),
        3: ("UserUuid ParentFolderUuid FolderName? GetOrdersInFolder?", folders.search),
        4: (_FOLDER, folders.delete),
        5: ("UserUuid PatientOrderUuid? PatientName? BirthDate?", shares.view),
        6: (f"{_IN} PatientOrderUuid", orders.delete),
        7: (
            """
            UserUuid InstitutionUuid PatientName? PatientID? OtherPatientId? PatientsBirthDate? OrderModality?
            StudyDescription? OrderAccessionNumber? PatientComplaints? PerformedDatetime RequestedProcedureId?
            RequestingProcedureDescription? ScheduledEquipmentUuid? PatientSex? ReferringPhysiciansName?
            """,
            orders.create,
        ),
        8: (f"{_IN} PatientOrderUuid FolderUuidList?", folders.add_order),
        9: (f"{_FOLDER} PatientOrderUuidList?", folders.remove_orders),
        10: (f"{_IN} PatientOrderUuidList?", orders.group),
        11: (f"{_IN} ConnectedGroupUuid PatientOrderUuidList?", orders.add_to_group),
        12: (f"{_IN} PatientOrderUuidList?", orders.remove_from_group),
        13: (f"{_IN} PatientOrderUuid", orders.properties),
        14: (f"{_FOLDER} {_BY_MAIL} {_SHARE}", shares.folder_by_mail),
        15: (f"{_FOLDER} {_SHARE}", shares.folder_by_link),
        16: (f"{_FOLDER} {_BY_MAIL} {_SHARE} InstitutionUuid?", shares.folder_by_mail),
        17: (f"{_FOLDER} {_SHARE} InstitutionUuid?", shares.folder_by_link),
        18: (f"{_FOLDER} SharedUserUuidList ExpireDate UserCanDownloadStudies?", shares.folder_inside),
        19: (f"{_FOLDER} SharedUserGroupUuidList ExpireDate UserCanDownloadStudies?", shares.folder_inside),
        20: (f"{_ORDERS} {_BY_MAIL} UserCanDownloadStudies?", shares.orders_by_mail),
        21: (f"{_ORDERS} UserCanDownloadStudies?", shares.orders_by_link),
        22: ("UserUuid", lambda _given: {"UserGroupList": _groups_of(cloud)}),
        23: ("UserUuid", lambda _given: {"DicomNodeList": [_NODE]}),
        24: ("UserUuid", lambda _given: {"ContactList": [_CONTACT]}),
        25: ("UserUuid InstitutionUuid JsonParameters", orders.create_from_json),
        26: (_FOLDER, shares.folder_view),
        27: (f"{_FOLDER} JsonParameters", folders.update),
        28: (f"{_ONE} AssignedUserUuid", cloud.vendor.assign),
        29: (f"{_ONE} AssignedUserGroupUuid", cloud.vendor.assign),
        30: ("UserUuid", lambda _given: {"FlagGroupList": _flag_groups()}),
        31: (f"{_ONE} GroupId FlagId", orders.set_flag),
        32: (f"{_ONE} UnassignedUserUuid", orders.unassign),
        33: (f"{_ONE} UnassignedUserGroupUuid", orders.unassign),
        34: ("UserUuid", lambda _given: {"UserList": users_of(cloud.vendor.options.users)}),
        35: (f"{_ONE} InstitutionUuid", orders.move),
        36: (f"{_ORDERS} {_BY_MAIL} UserCanDownloadStudies? ExpireDate", shares.orders_by_mail),
        37: (f"{_ORDERS} UserCanDownloadStudies? ExpireDate", shares.orders_by_link),
    }
    table = {kind: GeneralRequest(tuple(fields.split()), handler) for kind, (fields, handler) in rows.items()}
    return MappingProxyType(table)


def _groups_of(cloud: Cloud) -> list[Json]:
    groups = cloud.vendor.options.user_groups.items()
    return [{"UserGroupUuid": uuid, "UserGroupName": name} for uuid, name in groups]


def _flag_groups() -> list[Json]:
    return [
        {
            "GroupId": group,
            "GroupName": name,
            "FlagList": [{"FlagId": flag, "FlagName": called} for flag, called in flags.items()],
        }
        for group, (name, flags) in FLAGS.items()
    ]
