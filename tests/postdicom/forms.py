"""What each operation looks like on the wire, written by hand from the description of the protocol.

Nothing here comes from the package's own encoder: the JSON is spelled out, escapes included.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from postdicom_async import PostDicom

__all__ = ["FORMS", "MINIMAL", "ONE", "THREE", "TWO", "Form", "by_path"]

ONE = "11111111-2222-3333-4444-555555555555"
TWO = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
THREE = "0F0F0F0F-0000-1111-2222-ABCDEFABCDEF"


@dataclass(frozen=True)
class Form:
    """One call and the one request it makes.

    Attributes:
        call: makes the call and returns what the caller gets.
        path: of the request.
        header: the name of the header with the parameters.
        parameters: that header's value.
        changes: whether the operation changes anything at the service.
        lists: whether what it returns is a list of what was found.
    """

    call: Callable[[PostDicom], Awaitable[Any]]
    path: str
    header: str
    parameters: str
    changes: bool = True
    lists: bool = False

    def __str__(self) -> str:
        return self.path[1:]


FORMS = (
    Form(
        lambda a: a.shares.create_link([ONE, TWO], expires=date(2999, 12, 31), password="s3cret", downloadable=True),
        "/createsharelink",
        "ShareParameters",
        r'{"PatientOrderInfoList":"[\"{\\\"PatientOrderUuid\\\":\\\"11111111-2222-3333-4444-555555555555\\\"}\",'
        r"\"{\\\"PatientOrderUuid\\\":\\\"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\\\"}\"]"
        r'","ExpireDate":"2999-12-31","SharePassword":"s3cret","Downloadable":"True"}',
    ),
    Form(
        lambda a: a.shares.share_orders([ONE, TWO], expires="2999-12-31", password="s3cret", downloadable=True),
        "/sharepatientorderwithurl",
        "SharePatientOrderParameters",
        r'{"OrderUuidList":"[\"11111111-2222-3333-4444-555555555555\",\"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\"]",'
        r'"ExpireDate":"2999-12-31","SharePassword":"s3cret","UserCanDownloadStudies":"True"}',
    ),
    Form(
        lambda a: a.folders.create("Bilder", description="2030", parent_folder_uuid=UUID(ONE)),
        "/createfolder",
        "CreateFolderParameters",
        '{"FolderName":"Bilder","FolderDescription":"2030","ParentFolderUuid":"11111111-2222-3333-4444-555555555555"}',
    ),
    Form(
        lambda a: a.folders.search(name="Bil", parent_folder_uuid=ONE, with_orders=True).all(),
        "/searchfolder",
        "SearchFolderParameters",
        '{"ParentFolderUuid":"11111111-2222-3333-4444-555555555555","FolderName":"Bil","GetOrdersInFolder":"True"}',
        changes=False,
        lists=True,
    ),
    Form(
        lambda a: a.folders.share(
            ONE, password="s3cret", title="A title", description="Said", expires=date(2999, 1, 2), downloadable=True
        ),
        "/sharefolderwithurl",
        "ShareFolderParameters",
        '{"FolderUuid":"11111111-2222-3333-4444-555555555555","SharePassword":"s3cret","ShareTitle":"A title",'
        '"ShareDescription":"Said","ExpireDate":"2999-01-02","UserCanDownloadStudies":"True"}',
    ),
    Form(
        lambda a: a.folders.add_order(ONE, [TWO, UUID(THREE)]),
        "/addordertofolder",
        "AddOrderToFolderParameters",
        r'{"PatientOrderUuid":"11111111-2222-3333-4444-555555555555","FolderUuidList":'
        r'"[\"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\",\"0f0f0f0f-0000-1111-2222-abcdefabcdef\"]"}',
    ),
    Form(
        lambda a: a.orders.assign_to_user(ONE, TWO),
        "/assignordertouser",
        "AssignOrderToUserParameters",
        '{"PatientOrderUuid":"11111111-2222-3333-4444-555555555555",'
        '"AssignedUserUuid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}',
    ),
    Form(
        lambda a: a.orders.assign_to_group(ONE, THREE),
        "/assignordertousergroup",
        "AssignOrderToUserGroupParameters",
        '{"PatientOrderUuid":"11111111-2222-3333-4444-555555555555",'
        '"AssignedUserGroupUuid":"0F0F0F0F-0000-1111-2222-ABCDEFABCDEF"}',
    ),
    Form(
        lambda a: a.orders.create(
            institution_uuid=ONE,
            patient_name="Święty^Łukasz",
            patient_id="P-1",
            patient_birthdate=date(1970, 2, 3),
            modality="CT",
            other_patient_id="O-2",
            patient_sex="f",
            study_description='Head "contrast"',
            accession_number="A/3",
            patient_complaints="pain\nsince Monday",
            order_scheduled_datetime=datetime(2030, 4, 5, 6, 7, 8),  # noqa: DTZ001 - the account's local time
            requested_procedure_id="R-4",
            requested_procedure_description="CT of the head",
            requesting_physician="Who^Doctor",
            referring_physicians_name="No^Julius",
            scheduled_equipment_uuid=TWO,
        ),
        "/createpatientorder",
        "CreatePatientOrderParameters",
        r'{"InstitutionUuid":"11111111-2222-3333-4444-555555555555",'
        r'"PatientName":"\u015awi\u0119ty^\u0141ukasz","PatientId":"P-1","PatientBirthdate":"1970-02-03",'
        r'"Modality":"CT","OtherPatientId":"O-2","PatientSex":"F","StudyDescription":"Head \"contrast\"",'
        r'"AccessionNumber":"A/3","PatientComplaints":"pain\nsince Monday",'
        r'"OrderScheduledDatetime":"2030-04-05 06:07","RequestedProcedureId":"R-4",'
        r'"RequestedProcedureDescription":"CT of the head","RequestingPhysician":"Who^Doctor",'
        r'"ReferringPhysiciansName":"No^Julius","ScheduledEquipmentUuid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}',
    ),
    Form(
        lambda a: a.orders.properties(ONE, TWO),
        "/getpatientorderproperties",
        "GetPatientOrderPropertiesParameters",
        '{"PatientOrderInstitutionUuid":"11111111-2222-3333-4444-555555555555",'
        '"PatientOrderUuid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}',
        changes=False,
    ),
    Form(
        lambda a: a.orders.tag_content(ONE, TWO, series_uuid=THREE, tags=["00100010", "0008,0060"]),
        "/getdicomtagcontent",
        "GetDicomTagContentParameters",
        r'{"PatientOrderInstitutionUuid":"11111111-2222-3333-4444-555555555555",'
        r'"PatientOrderUuid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",'
        r'"PatientSeriesUuid":"0F0F0F0F-0000-1111-2222-ABCDEFABCDEF",'
        r'"DicomTagIdList":"[\"00100010\",\"0008,0060\"]"}',
        changes=False,
    ),
    Form(
        lambda a: a.orders.search(
            institution_uuids=[ONE, UUID(TWO)],
            patient_name="Müller",
            patient_id="P-1",
            other_patient_id="O-2",
            accession_number="A/3",
            modalities=["CT", "MR"],
            study_date_from=date(2020, 1, 1),
            study_date_to="2020-12-31",
            patient_birthdate_from="1970-01-01",
            patient_birthdate_to=datetime(1979, 12, 31, 23, 59),  # noqa: DTZ001 - a calendar date
        ).all(),
        "/getpatientorderlist",
        "GetPatientOrderListParameters",
        r'{"InstitutionUuidList":"[\"11111111-2222-3333-4444-555555555555\",'
        r'\"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\"]","PatientName":"M\u00fcller","PatientId":"P-1",'
        r'"OtherPatientId":"O-2","AccessionNumber":"A/3","ModalityList":"[\"CT\",\"MR\"]",'
        r'"StudyDateFrom":"2020-01-01","StudyDateTo":"2020-12-31","PatientBirthdateFrom":"1970-01-01",'
        r'"PatientBirthdateTo":"1979-12-31"}',
        changes=False,
        lists=True,
    ),
    Form(
        lambda a: a.orders.delete(ONE, TWO),
        "/deleteorder",
        "DeleteOrderParameters",
        '{"PatientOrderInstitutionUuid":"11111111-2222-3333-4444-555555555555",'
        '"PatientOrderUuid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}',
    ),
)  # fmt: skip

# With nothing optional: keys stay, empty; lists are JSON arrays, as the C# sample always writes them. Our booleans have
# a default, which is sent.
MINIMAL = (
    Form(
        lambda a: a.shares.create_link([ONE], expires="2999-12-31"),
        "/createsharelink",
        "ShareParameters",
        r'{"PatientOrderInfoList":"[\"{\\\"PatientOrderUuid\\\":\\\"11111111-2222-3333-4444-555555555555\\\"}\"]",'
        r'"ExpireDate":"2999-12-31","SharePassword":"","Downloadable":"False"}',
    ),
    Form(
        lambda a: a.shares.share_orders([ONE], expires="2999-12-31", password=""),
        "/sharepatientorderwithurl",
        "SharePatientOrderParameters",
        r'{"OrderUuidList":"[\"11111111-2222-3333-4444-555555555555\"]","ExpireDate":"2999-12-31","SharePassword":"",'
        r'"UserCanDownloadStudies":"False"}',
    ),
    Form(
        lambda a: a.folders.create("a/b"),
        "/createfolder",
        "CreateFolderParameters",
        '{"FolderName":"a/b","FolderDescription":"","ParentFolderUuid":""}',
    ),
    Form(
        lambda a: a.folders.search().all(),
        "/searchfolder",
        "SearchFolderParameters",
        '{"ParentFolderUuid":"","FolderName":"","GetOrdersInFolder":"False"}',
    ),
    Form(
        lambda a: a.folders.share(ONE),
        "/sharefolderwithurl",
        "ShareFolderParameters",
        '{"FolderUuid":"11111111-2222-3333-4444-555555555555","SharePassword":"","ShareTitle":"",'
        '"ShareDescription":"","ExpireDate":"","UserCanDownloadStudies":"False"}',
    ),
    Form(
        lambda a: a.orders.create(
            institution_uuid=UUID(ONE),
            patient_name="X",
            patient_id="1",
            patient_birthdate="2000-02-29",
            modality="OT",
            patient_sex="",
            study_description=None,
        ),
        "/createpatientorder",
        "CreatePatientOrderParameters",
        '{"InstitutionUuid":"11111111-2222-3333-4444-555555555555","PatientName":"X","PatientId":"1",'
        '"PatientBirthdate":"2000-02-29","Modality":"OT","OtherPatientId":"","PatientSex":"","StudyDescription":"",'
        '"AccessionNumber":"","PatientComplaints":"","OrderScheduledDatetime":"","RequestedProcedureId":"",'
        '"RequestedProcedureDescription":"","RequestingPhysician":"","ReferringPhysiciansName":"",'
        '"ScheduledEquipmentUuid":""}',
    ),
    Form(
        lambda a: a.orders.tag_content(ONE, TWO),
        "/getdicomtagcontent",
        "GetDicomTagContentParameters",
        '{"PatientOrderInstitutionUuid":"11111111-2222-3333-4444-555555555555",'
        '"PatientOrderUuid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","PatientSeriesUuid":"","DicomTagIdList":"[]"}',
    ),
    Form(
        lambda a: a.orders.search().all(),
        "/getpatientorderlist",
        "GetPatientOrderListParameters",
        '{"InstitutionUuidList":"[]","PatientName":"","PatientId":"","OtherPatientId":"","AccessionNumber":"",'
        '"ModalityList":"[]","StudyDateFrom":"","StudyDateTo":"","PatientBirthdateFrom":"","PatientBirthdateTo":""}',
    ),
)  # fmt: skip


def by_path(path: str) -> Form:
    """Return the full form of an operation."""
    return next(form for form in FORMS if form.path == path)
