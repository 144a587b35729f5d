"""What the vendor's sample clients write, as data: every key of an operation, empty text for what is not given.

The C# sample splits what was entered at commas, so that a list field left empty arrives as ``[""]``; a list is a JSON
array written into text. The Node sample writes booleans in small letters.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.emulator.support import make_instance, store
from tests.emulator.vendor_support import HEADERS, create_order, properties, raw_call, refused

if TYPE_CHECKING:
    import httpx

    from postdicom_async.emulator import EmbeddedArchive

BLANK_LIST = '[""]'
ORDER_LIST = {
    "InstitutionUuidList": BLANK_LIST, "PatientName": "", "PatientId": "", "OtherPatientId": "", "AccessionNumber": "",
    "ModalityList": BLANK_LIST, "StudyDateFrom": "", "StudyDateTo": "", "PatientBirthdateFrom": "",
    "PatientBirthdateTo": "",
}  # fmt: skip
ORDER = {"PatientOrderInstitutionUuid": "{institution}", "PatientOrderUuid": "{order}"}
INFO = '["{{\\"PatientOrderUuid\\": \\"{order}\\"}}"]'
FORMS: list[tuple[str, dict[str, str]]] = [
    ("createsharelink", {
        "PatientOrderInfoList": INFO, "ExpireDate": "2099-12-31", "SharePassword": "", "Downloadable": "True",
    }),
    ("createsharelink", {
        "PatientOrderInfoList": INFO, "ExpireDate": "2099-12-31", "SharePassword": "", "Downloadable": "false",
    }),
    ("sharepatientorderwithurl", {
        "OrderUuidList": '["{order}"]', "ExpireDate": "2099-12-31", "SharePassword": "", "UserCanDownloadStudies": "",
    }),
    ("createfolder", {"FolderName": "A", "FolderDescription": "", "ParentFolderUuid": ""}),
    ("searchfolder", {"ParentFolderUuid": "", "FolderName": "", "GetOrdersInFolder": "False"}),
    ("sharefolderwithurl", {
        "FolderUuid": "{folder}", "SharePassword": "", "ShareTitle": "", "ShareDescription": "", "ExpireDate": "",
        "UserCanDownloadStudies": "True",
    }),
    ("addordertofolder", {"PatientOrderUuid": "{order}", "FolderUuidList": '["{folder}"]'}),
    ("addordertofolder", {"PatientOrderUuid": "{order}", "FolderUuidList": '["{folder}", ""]'}),
    ("assignordertouser", {"PatientOrderUuid": "{order}", "AssignedUserUuid": "{user}"}),
    ("assignordertousergroup", {"PatientOrderUuid": "{order}", "AssignedUserGroupUuid": "{group}"}),
    ("createpatientorder", {
        "InstitutionUuid": "{institution}", "PatientName": "A^B", "PatientId": "1", "OtherPatientId": "",
        "PatientBirthdate": "1980-01-01", "PatientSex": "", "Modality": "CT", "StudyDescription": "",
        "AccessionNumber": "", "PatientComplaints": "", "OrderScheduledDatetime": "", "RequestedProcedureId": "",
        "RequestedProcedureDescription": "", "RequestingPhysician": "", "ReferringPhysiciansName": "",
        "ScheduledEquipmentUuid": "",
    }),
    ("getpatientorderproperties", ORDER),
    ("getdicomtagcontent", {**ORDER, "PatientSeriesUuid": "", "DicomTagIdList": BLANK_LIST}),
    ("getdicomtagcontent", {**ORDER, "PatientSeriesUuid": "", "DicomTagIdList": '["00100010", ""]'}),
    ("getpatientorderlist", ORDER_LIST),
    ("deleteorder", ORDER),
]  # fmt: skip
BLANK = ['[""]', '[" "]', '["", "  "]', "[]", "", [""], [" ", ""], []]


async def known(archive: EmbeddedArchive, client: httpx.AsyncClient) -> dict[str, str]:
    """Return what the forms refer to: the UUID of an order with images, of a folder, and the account's."""
    await store(client, make_instance("1.2.3", "1.2.3.1", "1.2.3.1.1", PatientName="Doe^Jane"))
    folder = (await raw_call(client, "createfolder", b'{"FolderName": "F"}')).json()["FolderUuid"]
    return {
        "order": archive.order_uuid("1.2.3"),
        "folder": folder,
        "institution": archive.institution_uuid,
        "user": archive.user_uuid,
        "group": archive.user_group_uuid,
    }


@pytest.mark.parametrize(("operation", "form"), FORMS, ids=[f"{name}-{at}" for at, (name, _) in enumerate(FORMS)])
async def test_every_form_of_the_samples(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, operation: str, form: dict[str, str]
) -> None:
    values = await known(embedded_archive, client)
    header = json.dumps({name: value.format(**values) for name, value in form.items()}).encode("ascii")

    answer = await raw_call(client, operation, header)

    assert answer.status_code == 200, answer.text
    assert answer.json()["Success"] is True


def test_there_is_a_form_of_every_operation() -> None:
    assert {operation for operation, _ in FORMS} == set(HEADERS)


@pytest.mark.parametrize("blank", BLANK)
async def test_blank_items_of_a_search_are_none(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, blank: Any
) -> None:
    """Every study is found: "none" is neither an unknown institution nor a modality that nothing has."""
    uuid = (await known(embedded_archive, client))["order"]
    given = {**ORDER_LIST, "InstitutionUuidList": blank, "ModalityList": blank}

    found = (await raw_call(client, "getpatientorderlist", json.dumps(given).encode())).json()["PatientOrderList"]

    assert [order["PatientOrderUuid"] for order in found] == [uuid]
    assert dict(embedded_archive.vendor_calls[-1].parameters) == {}


@pytest.mark.parametrize("blank", BLANK)
async def test_blank_tags_are_all_tags(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, blank: Any
) -> None:
    uuid = (await known(embedded_archive, client))["order"]
    given = {
        "PatientOrderInstitutionUuid": embedded_archive.institution_uuid,
        "PatientOrderUuid": uuid,
        "PatientSeriesUuid": "",
        "DicomTagIdList": blank,
    }

    found = (await raw_call(client, "getdicomtagcontent", json.dumps(given).encode())).json()["DicomTagList"]

    assert "PatientName" in {tag["DicomTagName"] for tag in found}


@pytest.mark.parametrize("blank", [*BLANK, '["{\\"PatientOrderUuid\\": \\"\\"}"]', [{"PatientOrderUuid": ""}]])
@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("createsharelink", "PatientOrderInfoList"),
        ("sharepatientorderwithurl", "OrderUuidList"),
        ("addordertofolder", "FolderUuidList"),
    ],
)
async def test_a_list_that_is_needed_must_hold_something(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, operation: str, name: str, blank: Any
) -> None:
    order = await create_order(embedded_archive, client)
    given = {"PatientOrderUuid": order, "ExpireDate": "2099-12-31", name: blank}

    reason = refused(await raw_call(client, operation, json.dumps(given).encode()), 400)

    assert reason == f"{name} must be given"


async def test_blank_items_beside_others_are_passed_over(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    values = await known(embedded_archive, client)
    given = {"PatientOrderUuid": values["order"], "FolderUuidList": json.dumps(["", values["folder"], " "])}

    await raw_call(client, "addordertofolder", json.dumps(given).encode())

    found = await properties(embedded_archive, client, values["order"])
    assert found["FolderUuidList"] == [values["folder"]]
