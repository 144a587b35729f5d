"""PostDICOM's own operations as a service sees them (documentation): path, request header, parameters in it."""

from __future__ import annotations

from typing import NamedTuple

_ORDER = "PatientOrderInstitutionUuid PatientOrderUuid"
_HEADERS = {
    "createsharelink": ("ShareParameters", "PatientOrderInfoList ExpireDate SharePassword? Downloadable?"),
    "sharepatientorderwithurl": (
        "SharePatientOrderParameters",
        "OrderUuidList ExpireDate SharePassword? UserCanDownloadStudies?",
    ),
    "createfolder": ("CreateFolderParameters", "FolderName FolderDescription? ParentFolderUuid?"),
    "searchfolder": ("SearchFolderParameters", "ParentFolderUuid? FolderName? GetOrdersInFolder?"),
    "sharefolderwithurl": (
        "ShareFolderParameters",
        "FolderUuid SharePassword? ShareTitle? ShareDescription? ExpireDate? UserCanDownloadStudies?",
    ),
    "addordertofolder": ("AddOrderToFolderParameters", "PatientOrderUuid FolderUuidList"),
    "assignordertouser": ("AssignOrderToUserParameters", "PatientOrderUuid AssignedUserUuid"),
    "assignordertousergroup": ("AssignOrderToUserGroupParameters", "PatientOrderUuid AssignedUserGroupUuid"),
    "createpatientorder": (
        "CreatePatientOrderParameters",
        """
        InstitutionUuid PatientName PatientId PatientBirthdate Modality OtherPatientId? PatientSex? StudyDescription?
        AccessionNumber? PatientComplaints? OrderScheduledDatetime? RequestedProcedureId?
        RequestedProcedureDescription? RequestingPhysician? ReferringPhysiciansName? ScheduledEquipmentUuid?
        """,
    ),
    "getpatientorderproperties": ("GetPatientOrderPropertiesParameters", _ORDER),
    "getdicomtagcontent": ("GetDicomTagContentParameters", f"{_ORDER} PatientSeriesUuid? DicomTagIdList?"),
    "getpatientorderlist": (
        "GetPatientOrderListParameters",
        """
        InstitutionUuidList? PatientName? PatientId? OtherPatientId? AccessionNumber? ModalityList? StudyDateFrom?
        StudyDateTo? PatientBirthdateFrom? PatientBirthdateTo?
        """,
    ),
    "deleteorder": ("DeleteOrderParameters", _ORDER),
}


class VendorOperation(NamedTuple):
    """One operation: its name is its path without the slash; a parameter that ends in ``?`` may be missing."""

    name: str
    header: str
    parameters: tuple[str, ...]


OPERATIONS = {
    name: VendorOperation(name, header, tuple(parameters.split())) for name, (header, parameters) in _HEADERS.items()
}
"""The thirteen operations by name."""
