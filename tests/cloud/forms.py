"""Every general operation of the Cloud API: the call, the vendor's name for it, and the request it must make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from postdicom_async import CloudApi
from postdicom_async.cloud.operations import OPERATIONS
from tests.cloud.service import INSTITUTION

__all__ = ["FORMS", "MANAGEMENT_TYPES", "ONE", "THREE", "TWO", "Form"]

# A number that a client sends has to have a form here, and the embedded archive has to answer it.
MANAGEMENT_TYPES = {number for row in OPERATIONS.values() for number in (row.management_type, row.until) if number}
ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-1222-9222-222222222222"
THREE = "3F3F3F3F-3333-5333-A333-3F3F3F3F3F3F"
ZERO = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Form:
    """One call and its request.

    Attributes:
        vendor: the JavaScript library's method.
        call: makes the call and returns what the caller gets.
        management_type: of the request.
        fields: the JSON text between the user's UUID and the keys.
        changes: whether the operation changes anything at the service.
        lists: whether what it returns is a list.
        variant: what is special about it.
    """

    vendor: str
    call: Callable[[CloudApi], Awaitable[Any]]
    management_type: int
    fields: str = ""
    changes: bool = True
    lists: bool = False
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.vendor} {self.variant}".strip()


def read(vendor: str, call: Callable[[CloudApi], Awaitable[Any]], management_type: int, fields: str = "") -> Form:
    return Form(vendor, call, management_type, fields, changes=False)


def listing(
    vendor: str,
    call: Callable[[CloudApi], Awaitable[Any]],
    management_type: int,
    fields: str = "",
    variant: str = "",
) -> Form:
    return Form(vendor, call, management_type, fields, changes=False, lists=True, variant=variant)


FILTERS = (
    f'"InstitutionUuidList":["{INSTITUTION}","{ONE}"],"PatientName":"Müller^Jörg","AccessionNumber":"A/3",'
    '"PatientId":"P-1","OtherPatientId":"O-2","Modalities":["CT","MR"]'
)
NO_FILTERS = (
    '"InstitutionUuidList":[],"PatientName":"","AccessionNumber":"","PatientId":"","OtherPatientId":"","Modalities":[]'
)


def search(api: CloudApi, **more: Any) -> Awaitable[Any]:
    return api.orders.search(
        institution_uuids=[INSTITUTION, UUID(ONE)],
        patient_name="Müller^Jörg",
        patient_id="P-1",
        other_patient_id="O-2",
        accession_number="A/3",
        modalities=["CT", "MR"],
        **more,
    ).all()


SEARCHES = (
    listing("GetPatientOrderList", search, 1, FILTERS),
    listing("GetPatientOrderList", lambda a: a.orders.search().all(), 1, NO_FILTERS, "without anything"),
    listing(
        "GetPatientOrderList",
        lambda a: a.orders.search(institution_uuids=[], modalities=()).all(),
        1,
        NO_FILTERS,
        "of all institutions and modalities",
    ),
    listing(
        "GetPatientOrderListWithDateRange",
        lambda a: search(a, study_date_from=date(2020, 1, 2), study_date_to="2020-12-31"),
        1,
        f'{FILTERS},"StartDate":"2020-01-02","EndDate":"2020-12-31"',
    ),
    listing(
        "GetPatientOrderListWithDateRange",
        lambda a: a.orders.search(study_date_to=date(2020, 1, 2)).all(),
        1,
        f'{NO_FILTERS},"StartDate":"","EndDate":"2020-01-02"',
        "until a day",
    ),
    listing(
        "GetPatientOrderListWithBirthdate",
        lambda a: search(a, patient_birthdate_from="1970-01-01", patient_birthdate_to=date(1979, 12, 31)),
        1,
        f'{FILTERS},"StartBirthdate":"1970-01-01","EndBirthdate":"1979-12-31"',
    ),
    listing(
        "GetPatientOrderListInFolder",
        lambda a: a.orders.search_in_folder(UUID(ONE)).all(),
        1,
        f'"FolderUuid":"{ONE}"',
    ),
    read(
        "GetPatientOrderProperties",
        lambda a: a.orders.properties(ONE, TWO),
        13,
        f'"PatientOrderInstitutionUuid":"{ONE}","PatientOrderUuid":"{TWO}"',
    ),
)

NEW_ORDER: dict[str, Any] = {
    "institution_uuid": ONE,
    "patient_name": "Święty^Łukasz",
    "patient_id": "P-1",
    "modality": "CT",
}
DETAILS: dict[str, Any] = {
    "patient_birthdate": date(1970, 2, 3),
    "other_patient_id": "O-2",
    "study_description": 'Head "contrast"',
    "accession_number": "A/3",
    "patient_complaints": "pain\nsince Monday",
    "order_scheduled_datetime": datetime(2030, 4, 5, 6, 7, 8),  # noqa: DTZ001 - the account's local time
    "requested_procedure_id": "R-4",
    "requested_procedure_description": "CT of the head",
    "scheduled_equipment_uuid": TWO,
}
WHEN = {"order_scheduled_datetime": "2030-04-05 06:07"}
FULL = (
    f'"InstitutionUuid":"{ONE}","PatientName":"Święty^Łukasz","PatientID":"P-1","OtherPatientId":"O-2",'
    r'"PatientsBirthDate":"1970-02-03","OrderModality":"CT","StudyDescription":"Head \"contrast\"",'
    r'"OrderAccessionNumber":"A/3","PatientComplaints":"pain\nsince Monday","PerformedDatetime":"2030-04-05 06:07",'
    f'"RequestedProcedureId":"R-4","RequestingProcedureDescription":"CT of the head","ScheduledEquipmentUuid":"{TWO}"'
)
NESTED = (
    f'"InstitutionUuid":"{ONE}","JsonParameters":{{"IdentityInformation":{{"Name":"Święty^Łukasz","Id":"P-1",'
    r'"OtherId":"O-2","Birthdate":"1970-02-03","Sex":"F"},"StudyInformation":{"StudyDescription":"Head \"contrast\"",'
    r'"StudyDate":"2030-04-05 06:07"},"OtherInformation":{"PatientComplaints":"pain\nsince Monday",'
    r'"RequestedProcedureId":"R-4","RequestedProcedureDescription":"CT of the head",'
    r'"ReferringPhysiciansName":"No^Julius","RequestingPhysician":"Who^Doctor"},"Modality":"CT",'
    f'"AccessionNumber":"A/3","ScheduledEquipmentUuid":"{TWO}"}}'
)
DOCUMENTED: dict[str, object] = {
    "OtherPatientId": "O-2",
    "PatientName": "Święty^Łukasz",
    "PatientsBirthDate": "1970-02-03",
    "PatientID": "P-1",
    "PatientSex": "o",
    "Priority": "High",
    "PatientHistory": "None",
    "PerformedDatetime": "2030-04-05 06:07",
    "StudyDescription": "",
    "RequestingProcedureDescription": "CT of the head",
    "OrderModality": "CT",
    "OrderAccessionNumber": "A/3",
    "OrderNote2": "Second",
}
DOCUMENTED_NESTED = (
    f'"InstitutionUuid":"{ONE}","JsonParameters":{{"IdentityInformation":{{"OtherId":"O-2","Name":"Święty^Łukasz",'
    '"Birthdate":"1970-02-03","Id":"P-1","Sex":"O"},"StudyInformation":{"StudyDate":"2030-04-05 06:07"},'
    '"OtherInformation":{"RequestedProcedureDescription":"CT of the head","Priority":"High","PatientHistory":"None",'
    '"OrderNote2":"Second"},"Modality":"CT","AccessionNumber":"A/3"}'
)

ORDERS = (
    Form(
        "CreateOrderWithMinimumParameters",
        lambda a: a.orders.create(**NEW_ORDER, **WHEN, study_description="Head"),
        7,
        f'"InstitutionUuid":"{ONE}","PatientName":"Święty^Łukasz","PatientID":"P-1","OrderModality":"CT",'
        '"StudyDescription":"Head","PerformedDatetime":"2030-04-05 06:07"',
    ),
    Form(
        "CreateOrderWithMinimumParameters",
        lambda a: a.orders.create(**NEW_ORDER, order_scheduled_datetime=date(2030, 4, 5)),
        7,
        f'"InstitutionUuid":"{ONE}","PatientName":"Święty^Łukasz","PatientID":"P-1","OrderModality":"CT",'
        '"StudyDescription":"","PerformedDatetime":"2030-04-05 "',  # documented: the time may be empty
        variant="without a description, on a day",
    ),
    Form("CreateOrderWithFullParameters", lambda a: a.orders.create(**NEW_ORDER, **DETAILS), 7, FULL),
    Form(
        "CreateOrderWithFullParameters2",
        lambda a: a.orders.create(**NEW_ORDER, **DETAILS, patient_sex="f", referring_physicians_name="No^Julius"),
        7,
        f'{FULL},"PatientSex":"F","ReferringPhysiciansName":"No^Julius"',
    ),
    Form(
        "CreateOrderWithJSON",
        lambda a: a.orders.create(
            **NEW_ORDER,
            **DETAILS,
            patient_sex="F",
            referring_physicians_name="No^Julius",
            requesting_physician="Who^Doctor",
        ),
        25,
        NESTED,
        variant="with a requesting physician",
    ),
    Form(
        "CreateOrderWithJSON",
        lambda a: a.orders.create(**NEW_ORDER),
        25,
        f'"InstitutionUuid":"{ONE}","JsonParameters":{{"IdentityInformation":{{"Name":"Święty^Łukasz","Id":"P-1"}},'
        '"StudyInformation":{},"OtherInformation":{},"Modality":"CT"}',
        variant="without a time",
    ),
    Form(
        "CreateOrderWithJSON",
        lambda a: a.orders.create_from_json(DOCUMENTED, institution_uuid=ONE),
        25,
        DOCUMENTED_NESTED,
        variant="by its documented names",
    ),
    Form(
        "DeleteOrder",
        lambda a: a.orders.delete(ONE, TWO),
        6,
        f'"PatientOrderInstitutionUuid":"{ONE}","PatientOrderUuid":"{TWO}"',
    ),
    Form(
        "AssignPatientOrderToUser",
        lambda a: a.orders.assign_to_user(ONE, TWO),
        28,
        f'"PatientOrderUuid":"{ONE}","AssignedUserUuid":"{TWO}"',
    ),
    Form(
        "AssignPatientOrderToUserGroup",
        lambda a: a.orders.assign_to_group(ONE, TWO),
        29,
        f'"PatientOrderUuid":"{ONE}","AssignedUserGroupUuid":"{TWO}"',
    ),
    Form(
        "UnassignPatientOrderFromUser",
        lambda a: a.orders.unassign_from_user(ONE, TWO),
        32,
        f'"PatientOrderUuid":"{ONE}","UnassignedUserUuid":"{TWO}"',
    ),
    Form(
        "UnassignPatientOrderFromUserGroup",
        lambda a: a.orders.unassign_from_group(ONE, TWO),
        33,
        f'"PatientOrderUuid":"{ONE}","UnassignedUserGroupUuid":"{TWO}"',
    ),
    Form(
        "AssignPatientOrderToLocation",
        lambda a: a.orders.assign_to_institution(ONE, TWO),
        35,
        f'"PatientOrderUuid":"{ONE}","InstitutionUuid":"{TWO}"',
    ),
    Form(
        "CreateOrderGroup",
        lambda a: a.groups.create([ONE, TWO], institution_uuid=THREE),
        10,
        f'"PatientOrderInstitutionUuid":"{THREE}","PatientOrderUuidList":["{ONE}","{TWO}"]',
    ),
    Form(
        "AddOrdersToOrderGroup",
        lambda a: a.groups.add_orders(ONE, [TWO]),
        11,
        f'"PatientOrderInstitutionUuid":"{INSTITUTION}","ConnectedGroupUuid":"{ONE}","PatientOrderUuidList":["{TWO}"]',
    ),
    Form(
        "RemoveOrdersFromGroup",
        lambda a: a.groups.remove_orders([ONE], institution_uuid="north"),
        12,
        f'"PatientOrderInstitutionUuid":"{INSTITUTION}","PatientOrderUuidList":["{ONE}"]',
    ),
    Form(
        "SetFlagToPatientOrder",
        lambda a: a.flags.set(ONE, group_id="3", flag_id="-1"),
        31,
        f'"PatientOrderUuid":"{ONE}","GroupId":3,"FlagId":-1',
        variant="by texts",
    ),
    Form(
        "SetFlagToPatientOrder",
        lambda a: a.flags.set(ONE, group_id=3, flag_id=0),
        31,
        f'"PatientOrderUuid":"{ONE}","GroupId":3,"FlagId":0',
    ),
)

FOLDERS = (
    Form("CreateFolder", lambda a: a.folders.create("a/b"), 2, f'"ParentFolderUuid":"{ZERO}","FolderName":"a/b"'),
    Form(
        "CreateFolderWithDescription",
        lambda a: a.folders.create("Bilder", description="Für Montag", parent_folder_uuid=UUID(ONE)),
        2,
        f'"ParentFolderUuid":"{ONE}","FolderName":"Bilder","FolderDescription":"Für Montag"',
    ),
    listing(
        "GetFolderList",
        lambda a: a.folders.search(name="Bil", parent_folder_uuid=ONE, with_orders=True).all(),
        3,
        f'"ParentFolderUuid":"{ONE}","FolderName":"Bil","GetOrdersInFolder":true',
    ),
    listing(
        "GetFolderList",
        lambda a: a.folders.search().all(),
        3,
        f'"ParentFolderUuid":"{ZERO}","FolderName":"","GetOrdersInFolder":false',
        "at the root",
    ),
    read(
        "GetFolderList",
        lambda a: a.folders.contents(ONE),
        3,
        f'"ParentFolderUuid":"{ONE}","FolderName":"","GetOrdersInFolder":true',
    ),
    Form("DeleteFolder", lambda a: a.folders.delete(ONE), 4, f'"FolderUuid":"{ONE}"'),
    Form(
        "UpdateFolderWithJSON",
        lambda a: a.folders.update(ONE, name="Neu", description="Für Dienstag"),
        27,
        f'"FolderUuid":"{ONE}","JsonParameters":'
        '{"IdentityInformation":{"Name":"Neu","Description":"Für Dienstag"}}',
    ),
    Form(
        "UpdateFolderWithJSON",
        lambda a: a.folders.update(ONE, description="Für Dienstag"),
        27,
        f'"FolderUuid":"{ONE}","JsonParameters":{{"IdentityInformation":{{"Description":"Für Dienstag"}}}}',
        variant="its description",
    ),
    Form(
        "AddOrderToFolder",
        lambda a: a.folders.add_order(ONE, [TWO, UUID(THREE)]),
        8,
        f'"PatientOrderInstitutionUuid":"{INSTITUTION}","PatientOrderUuid":"{ONE}",'
        f'"FolderUuidList":["{TWO}","{THREE.lower()}"]',
    ),
    Form(
        "RemoveOrderFromFolder",
        lambda a: a.folders.remove_orders(ONE, [TWO]),
        9,
        f'"FolderUuid":"{ONE}","PatientOrderUuidList":["{TWO}"]',
    ),
    read("GetFolderViewUrl", lambda a: a.view.folder(ONE), 26, f'"FolderUuid":"{ONE}"'),
    read("GetViewUrl", lambda a: a.view.order(ONE), 5, f'"PatientOrderUuid":"{ONE}"'),
    read("GetViewUrlWithPatientName", lambda a: a.view.patient("Doe^Jane"), 5, '"PatientName":"Doe^Jane"'),
    read(
        "GetViewUrlWithPatientNameAndBirthDate",
        lambda a: a.view.patient("Doe^Jane", patient_birthdate=date(1970, 1, 2)),
        5,
        '"PatientName":"Doe^Jane","BirthDate":"1970-01-02"',
    ),
)

SHARED: dict[str, Any] = {
    "password": "s3cret",
    "title": "A title",
    "description": "Said",
    "expires": date(2999, 12, 31),
    "downloadable": True,
}
SHARED_TEXT = (
    '"SharePassword":"s3cret","ShareTitle":"A title","ShareDescription":"Said","ExpireDate":"2999-12-31",'
    '"UserCanDownloadStudies":true'
)
MAIL = "a.b@example.org"
MAILS = '"Email":"a.b@example.org","EmailForSendingSharePassword":"c@d.example.org"'

SHARES = (
    Form("ShareFolderWithURL", lambda a: a.folders.share(ONE, **SHARED), 15, f'"FolderUuid":"{ONE}",{SHARED_TEXT}'),
    Form(
        "ShareFolderWithURL",
        lambda a: a.folders.share(ONE, expires="2999-12-31"),
        15,
        f'"FolderUuid":"{ONE}","SharePassword":"","ShareTitle":"","ShareDescription":"","ExpireDate":"2999-12-31",'
        '"UserCanDownloadStudies":false',
        variant="with little",
    ),
    Form(
        "ShareFolderWithEmail",
        lambda a: a.folders.share_by_email(ONE, MAIL, password_email="c@d.example.org", **SHARED),
        14,
        f'"FolderUuid":"{ONE}",{MAILS},{SHARED_TEXT}',
    ),
    Form(
        "ShareFolderToUploadWithEmail",
        lambda a: a.folders.share_to_upload_by_email(ONE, MAIL, password_email="c@d.example.org", **SHARED),
        16,
        f'"FolderUuid":"{ONE}",{MAILS},{SHARED_TEXT},"InstitutionUuid":"{INSTITUTION}"',
    ),
    Form(
        "ShareFolderToUploadWithUrl",
        lambda a: a.folders.share_to_upload(ONE, institution_uuid=TWO, **SHARED),
        17,
        f'"FolderUuid":"{ONE}",{SHARED_TEXT},"InstitutionUuid":"{TWO}"',
    ),
    Form(
        "ShareFolderWithAccountUser",
        lambda a: a.folders.share_with_users(ONE, [TWO, THREE], expires="2999-12-31"),
        18,
        f'"FolderUuid":"{ONE}","SharedUserUuidList":["{TWO}","{THREE}"],"ExpireDate":"2999-12-31"',
    ),
    Form(
        "ShareFolderWithAccountUserGroup",
        lambda a: a.folders.share_with_groups(ONE, [TWO], expires=date(2999, 12, 31)),
        19,
        f'"FolderUuid":"{ONE}","SharedUserGroupUuidList":["{TWO}"],"ExpireDate":"2999-12-31"',
    ),
    Form(
        "ShareFolderWithAccountUser",
        lambda a: a.folders.share_with_users(ONE, [TWO], expires="2999-12-31", downloadable=True),
        18,
        f'"FolderUuid":"{ONE}","SharedUserUuidList":["{TWO}"],"ExpireDate":"2999-12-31","UserCanDownloadStudies":true',
        variant="to be downloaded, as documented",
    ),
    Form(
        "ShareFolderWithAccountUserGroup",
        lambda a: a.folders.share_with_groups(ONE, [TWO], expires="2999-12-31", downloadable=False),
        19,
        f'"FolderUuid":"{ONE}","SharedUserGroupUuidList":["{TWO}"],"ExpireDate":"2999-12-31",'
        '"UserCanDownloadStudies":false',
        variant="to be looked at only, as documented",
    ),
    Form(
        "SharePatientOrder",
        lambda a: a.shares.share_by_email([ONE, TWO], MAIL),
        20,
        f'"OrderUuidList":["{ONE}","{TWO}"],"Email":"{MAIL}","EmailForSendingSharePassword":"",'
        '"UserCanDownloadStudies":false',
    ),
    Form(
        "SharePatientOrderWithExpireDate",
        lambda a: a.shares.share_by_email(
            [ONE], MAIL, password_email="c@d.example.org", expires="2999-12-31", downloadable=True
        ),
        36,
        f'"OrderUuidList":["{ONE}"],{MAILS},"UserCanDownloadStudies":true,"ExpireDate":"2999-12-31"',
    ),
    Form(
        "CreateQuickShareLink",
        lambda a: a.shares.create_link([ONE], downloadable=True),
        21,
        f'"OrderUuidList":["{ONE}"],"UserCanDownloadStudies":true',
    ),
    Form(
        "CreateQuickShareLinkWithExpireDate",
        lambda a: a.shares.share_orders([ONE], expires=date(2999, 12, 31)),
        37,
        f'"OrderUuidList":["{ONE}"],"UserCanDownloadStudies":false,"ExpireDate":"2999-12-31"',
    ),
)

LISTS = (
    read("GetAccountFlagDictionary", lambda a: a.flags.dictionary(), 30),
    listing("GetUserGroupList", lambda a: a.users.groups(), 22),
    listing("GetDicomNodeList", lambda a: a.nodes.all(), 23),
    listing("GetContactList", lambda a: a.users.contacts(), 24),
    listing("GetUserList", lambda a: a.users.all(), 34),
)

FORMS = (*SEARCHES, *ORDERS, *FOLDERS, *SHARES, *LISTS)
