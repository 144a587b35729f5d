"""Patient orders over the Cloud API, seen from both sides of the archive."""

from __future__ import annotations

from typing import Any

import pytest

from postdicom_async import CloudApi
from postdicom_async.cloud.operations import ORDER_FIELDS
from tests.emulator.cloud_support import (
    COLLEAGUE,
    GROUP,
    INSTITUTION,
    OTHER_INSTITUTION,
    UNKNOWN,
    USER,
    Account,
    account_fixture,  # noqa: F401 - a fixture
    create,
    found,
    make,
    order_of,
)
from tests.emulator.support import make_instance, store
from tests.emulator.vendor_support import call, create_order, order_uuids, properties, refused, told, upload

FULL = {
    "PatientName": 'Święty^Łukasz "Ł"\\\n=山田^太郎\U0001f600',
    "PatientID": "ŁÖ/1",
    "OtherPatientId": "x,y",
    "PatientsBirthDate": "1980-02-29",
    "OrderModality": "MR",
    "StudyDescription": " <b>& more</b> ",
    "OrderAccessionNumber": "ACC\t1",
    "PatientComplaints": "none\r\nat all",
    "PerformedDatetime": "2031-12-24 08:05",
    "RequestedProcedureId": "RP",
    "RequestingProcedureDescription": "Head",
    "ScheduledEquipmentUuid": UNKNOWN,
    "PatientSex": "O",
    "ReferringPhysiciansName": "C^D",
}
ELSEWHERE = {
    "PatientID": "PatientId",
    "PatientsBirthDate": "PatientBirthdate",
    "OrderAccessionNumber": "AccessionNumber",
    "RequestingProcedureDescription": "RequestedProcedureDescription",
}
"""Names of what is created to those of what is listed."""


async def test_a_created_order_is_found_on_the_other_side(account: Account) -> None:
    uuid = await create(account.socket, **FULL)
    expected = {ELSEWHERE.get(name, name): value for name, value in FULL.items()}

    assert await order_uuids(account.client, PatientName="Łukasz") == [uuid]
    there = await properties(account.archive, account.client, uuid)
    here = await order_of(account.socket, uuid)

    for side in (there, here):
        assert {name: side[name] for name in expected} == expected
        assert (side["PatientOrderUuid"], side["PatientOrderInstitutionUuid"]) == (uuid, INSTITUTION)
        assert (side["StudyInstanceUid"], side["ImagesCount"], side["PatientSeriesList"]) == ("", 0, [])
    assert here["RequestingProcedureDescription"] == "Head"


async def test_the_least_of_an_order(account: Account) -> None:
    uuid = await create(account.socket, PatientName="", PatientID="", PerformedDatetime="2024-01-02 03:04")

    order = await order_of(account.socket, uuid)
    assert (order["PatientName"], order["PatientBirthdate"], order["OrderModality"]) == ("", "", "")
    assert order["PerformedDatetime"] == "2024-01-02 03:04"


async def test_an_order_may_be_made_for_any_institution(account: Account) -> None:
    uuid = await create(account.socket, InstitutionUuid=OTHER_INSTITUTION)

    order = await order_of(account.socket, uuid, OTHER_INSTITUTION)
    assert (order["PatientOrderInstitutionUuid"], order["InstitutionName"]) == (OTHER_INSTITUTION, "South")


NESTED = {
    "IdentityInformation": {
        "OtherId": "x,y", "Name": FULL["PatientName"], "Birthdate": "1980-02-29", "Id": "ŁÖ/1", "Sex": "O",
    },
    "StudyInformation": {
        "StudyDate": "2031-12-24 08:05", "StudyDescription": "Head", "InstitutionNameInDicom": "Elsewhere",
    },
    "OtherInformation": {
        "RequestingPhysician": "A^B", "RequestedProcedureDescription": "Knee", "ReferringPhysiciansName": "C^D",
        "RequestedProcedureId": "RP",
    },
    "Modality": "MR",
    "AccessionNumber": "ACC1",
    "ScheduledEquipmentUuid": UNKNOWN,
}  # fmt: skip


async def test_an_order_made_of_nested_parameters(account: Account) -> None:
    made = await account.socket.told(25, InstitutionUuid=INSTITUTION, JsonParameters=NESTED)

    order = await properties(account.archive, account.client, made["PatientOrderUuid"])

    expected = {
        "OtherPatientId": "x,y",
        "PatientName": FULL["PatientName"],
        "PatientBirthdate": "1980-02-29",
        "PatientId": "ŁÖ/1",
        "PatientSex": "O",
        "PerformedDatetime": "2031-12-24 08:05",
        "StudyDescription": "Head",
        "InstitutionNameInDicom": "Elsewhere",
        "RequestingPhysician": "A^B",
        "RequestedProcedureDescription": "Knee",
        "ReferringPhysiciansName": "C^D",
        "RequestedProcedureId": "RP",
        "OrderModality": "MR",
        "AccessionNumber": "ACC1",
        "ScheduledEquipmentUuid": UNKNOWN,
    }
    assert order.items() >= expected.items()
    assert not account.archive.cloud.deviations


SEVEN = {
    "Priority": "High",
    "PatientHistory": "Ä history",
    "PatientComplaints": "pain\nsince Monday",
    "PatientSymptom": "cough",
    "RequestingDepartment": "ER",
    "OrderNote1": "first",
    "OrderNote2": "second",
}


@pytest.mark.parametrize("place", ["OtherInformation", "IdentityInformation", "StudyInformation", "Documented", ""])
async def test_fields_without_a_known_place_are_kept_wherever_they_stand(account: Account, place: str) -> None:
    nested: dict[str, Any] = {"IdentityInformation": {}, "StudyInformation": {}, "OtherInformation": {}}
    nested = {**nested, place: {**nested.get(place, {}), **SEVEN}} if place else {**nested, **SEVEN}

    made = await account.socket.told(25, InstitutionUuid=INSTITUTION, JsonParameters=nested)

    uuid = made["PatientOrderUuid"]
    order = await properties(account.archive, account.client, uuid)
    (listed,) = (await account.socket.told(1))["SearchResultList"]
    for side in (made, order, listed, await order_of(account.socket, uuid, INSTITUTION)):
        assert side.items() >= SEVEN.items()


async def test_every_field_our_own_client_writes_is_found_again(account: Account) -> None:
    given = {one.wire: f"value of {one.wire}" for one in ORDER_FIELDS}
    given |= {
        "PatientsBirthDate": "1980-02-29", "PatientSex": "F", "PerformedDatetime": "2031-12-24 08:05",
        "ScheduledEquipmentUuid": UNKNOWN, "OrderAccessionNumber": "ACC1",
    }  # fmt: skip
    other_names = {"PatientsBirthDate": "PatientBirthdate", "PatientID": "PatientId",
                   "OrderAccessionNumber": "AccessionNumber"}  # fmt: skip
    archive = account.archive
    async with CloudApi(
        archive.cloud_api_key, archive.cloud_account_key, router_url=archive.router_url, user=USER
    ) as api:
        made = await api.orders.create_from_json(given, institution_uuid=INSTITUTION)

    told = await order_of(account.socket, str(made.patient_order_uuid), INSTITUTION)
    assert {name: told[other_names.get(name, name)] for name in given} == given


@pytest.mark.parametrize("blank", [[""], [" ", ""], []])
async def test_blank_items_are_none(account: Account, blank: list[Any]) -> None:
    uuid = await create(account.socket)

    assert await found(account.socket, InstitutionUuidList=blank, Modalities=blank) == [uuid]
    reason = await account.socket.refused(21, OrderUuidList=blank)
    assert reason == "OrderUuidList must be given"


async def test_places_that_are_none_are_noted(account: Account) -> None:
    given = {"IdentityInformation": {"Name": "A^B", "Weight": "70"}, "OtherInformation": [], "Priority": "High"}

    await account.socket.told(25, InstitutionUuid=INSTITUTION, JsonParameters=given)

    assert list(account.archive.cloud.deviations) == [
        "17/25: JsonParameters.IdentityInformation.Weight is no place",
        "17/25: JsonParameters.OtherInformation is no place",
        "17/25: JsonParameters.Priority is no place",
        "17/25: JsonParameters.StudyInformation is missing",
    ]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"IdentityInformation": {"Birthdate": "1980-02-30"}}, "PatientsBirthDate"),
        ({"IdentityInformation": {"Name": 5}}, "PatientName"),
        ({"StudyInformation": {"StudyDate": "2024-01-02 25:00"}}, "PerformedDatetime"),
        ({"Modality": ["CT"]}, "OrderModality"),
        ({"ScheduledEquipmentUuid": "x"}, "ScheduledEquipmentUuid"),
    ],
)
async def test_nested_values_are_checked(account: Account, given: dict[str, Any], name: str) -> None:
    reason = await account.socket.refused(25, InstitutionUuid=INSTITUTION, JsonParameters=given)

    assert reason.startswith(f"JsonParameters: {name}: ")
    assert await order_uuids(account.client) == []


# --- search -----------------------------------------------------------------------------------------------------------


async def test_what_the_other_side_makes_is_found(account: Account) -> None:
    created = await create_order(account.archive, account.client, PatientName="Święty^Łukasz")
    uploaded = await upload(
        account.archive, account.client, PatientName="Doe^Jane", OtherPatientIDs="O1", StudyDescription="Head",
        RequestedProcedureDescription="CT of the head", StudyDate="20240131", StudyTime="142233",
    )  # fmt: skip

    first, second = (await account.socket.told(1))["SearchResultList"]

    assert (first["PatientOrderUuid"], first["PatientName"]) == (created, "Święty^Łukasz")
    known = {
        "PatientOrderUuid": uploaded,
        "PatientOrderInstitutionUuid": INSTITUTION,
        "PatientName": "Doe^Jane",
        "OtherPatientId": "O1",
        "OrderModality": "CT",
        "StudyDescription": "Head",
        "RequestingProcedureDescription": "CT of the head",
        "PerformedDatetime": "2024-01-31 14:22",
        "ImagesCount": 1,
        "DocumentsCount": 0,
        "ConnectedGroupUuid": "",
        "StudyInstanceUid": "1.2.3",
    }
    assert second.items() >= known.items()
    assert [type(order["OrderStatus"]) for order in (first, second)] == [int, int]
    (series,) = (await order_of(account.socket, uploaded))["PatientSeriesList"]
    assert series["PatientSeriesUuid"] == account.archive.series_uuid("1.2.3", "1.2.3.1")


async def four_orders(account: Account) -> dict[str, str]:
    """Make four orders in four ways; return their letters by UUID."""
    one = await upload(
        account.archive, account.client, "1.1", PatientName="Doe^Jane", PatientID="P1", StudyDate="20240101",
        PatientBirthDate="19800101",
    )  # fmt: skip
    two = await create(
        account.socket, PatientName="DOE^John", PatientID="P2", OtherPatientId="X9", OrderModality="US",
        PerformedDatetime="2024-01-02 10:00",
    )  # fmt: skip
    three = await create_order(
        account.archive, account.client, InstitutionUuid=OTHER_INSTITUTION, PatientName="Święty^Łukasz",
        PatientId="P3", AccessionNumber="ACC1", OrderScheduledDatetime="2024-02-01 10:00",
        PatientBirthdate="1989-12-31",
    )  # fmt: skip
    nested = {"IdentityInformation": {"Name": "Yamada^Tarou=山田^太郎", "Id": "P4"}, "AccessionNumber": "ACC2"}
    four = (await account.socket.told(25, InstitutionUuid=INSTITUTION, JsonParameters=nested))["PatientOrderUuid"]
    return {one: "a", two: "b", three: "c", four: "d"}


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcd"),
    (dict.fromkeys(("PatientName", "AccessionNumber", "PatientId", "OtherPatientId", "StartDate"), ""), "abcd"),
    ({"InstitutionUuidList": None, "Modalities": []}, "abcd"),
    ({"PatientName": "doe"}, "ab"),
    ({"PatientName": "山田"}, "d"),
    ({"PatientName": "*o"}, ""),
    ({"PatientId": "p?"}, "abcd"),
    ({"PatientId": "P1"}, "a"),
    ({"OtherPatientId": "X9"}, "b"),
    ({"AccessionNumber": "ACC*"}, "cd"),
    ({"Modalities": ["CT"]}, "a"),
    ({"Modalities": ["us", "MR"]}, "bc"),
    ({"StartDate": "2024-01-02"}, "bc"),
    ({"EndDate": "2024-01-02"}, "ab"),
    ({"StartDate": "2024-01-02", "EndDate": "2024-01-02"}, "b"),
    ({"StartBirthdate": "1980-01-01", "EndBirthdate": "1980-12-31"}, "a"),
    ({"EndBirthdate": "2000-01-01"}, "ac"),
    ({"InstitutionUuidList": [OTHER_INSTITUTION.upper(), UNKNOWN]}, "c"),
    ({"InstitutionUuidList": [UNKNOWN]}, ""),
    ({"PatientName": "doe", "Modalities": ["US"]}, "b"),
]


async def test_filters(account: Account) -> None:
    letters = await four_orders(account)

    for filters, expected in FILTERS:
        assert "".join(letters[uuid] for uuid in await found(account.socket, **filters)) == expected, filters


async def test_orders_of_a_folder(account: Account) -> None:
    letters = await four_orders(account)
    folder, empty = await make(account.socket, "a"), await make(account.socket, "b")
    one, two, *_ = letters
    for uuid in (two, one):
        await told(account.client, "addordertofolder", PatientOrderUuid=uuid, FolderUuidList=[folder])

    assert await found(account.socket, FolderUuid=folder) == [two, one]
    assert await found(account.socket, FolderUuid=folder, PatientName="jane") == [one]
    assert await found(account.socket, FolderUuid=empty) == []


# --- deletion ---------------------------------------------------------------------------------------------------------


async def test_an_order_is_deleted_with_its_study(account: Account) -> None:
    kept = await create(account.socket)
    uuid = await upload(account.archive, account.client)
    named = {"PatientOrderInstitutionUuid": INSTITUTION, "PatientOrderUuid": uuid}

    await account.socket.told(6, **named)

    assert await account.socket.refused(6, **named) == "no such patient order in this institution"
    assert await order_uuids(account.client) == [kept]
    assert (await account.client.get("/studies")).json() == []
    assert await upload(account.archive, account.client) == uuid
    assert await found(account.socket) == [kept, uuid]


async def test_what_the_other_side_deletes_is_gone(account: Account) -> None:
    created, uploaded = await create(account.socket), await upload(account.archive, account.client)

    where = {"PatientOrderInstitutionUuid": INSTITUTION, "PatientOrderUuid": created}
    await told(account.client, "deleteorder", **where)
    await account.client.delete("/studies/1.2.3")

    assert await found(account.socket) == []
    for uuid in (created, uploaded):
        assert await account.socket.refused(13, PatientOrderInstitutionUuid=INSTITUTION, PatientOrderUuid=uuid)


# --- assignment -------------------------------------------------------------------------------------------------------


async def assigned(account: Account, uuid: str) -> tuple[str, str]:
    there = await properties(account.archive, account.client, uuid)
    here = await order_of(account.socket, uuid)
    assert [there[name] for name in ("AssignedUserUuid", "AssignedUserGroupUuid")] == [
        here[name] for name in ("AssignedUserUuid", "AssignedUserGroupUuid")
    ]
    return there["AssignedUserUuid"], there["AssignedUserGroupUuid"]


async def test_orders_are_assigned_and_taken_away(account: Account) -> None:
    uuid = await create(account.socket)

    await account.socket.told(28, PatientOrderUuid=uuid, AssignedUserUuid=USER)
    await account.socket.told(28, PatientOrderUuid=uuid, AssignedUserUuid=COLLEAGUE)
    await account.socket.told(29, PatientOrderUuid=uuid, AssignedUserGroupUuid=GROUP)
    assert await assigned(account, uuid) == (COLLEAGUE, GROUP)

    reason = await account.socket.refused(32, PatientOrderUuid=uuid, UnassignedUserUuid=USER)
    assert reason == "the order is not assigned there"
    await account.socket.told(32, PatientOrderUuid=uuid, UnassignedUserUuid=COLLEAGUE)
    assert await assigned(account, uuid) == ("", GROUP)
    await account.socket.told(33, PatientOrderUuid=uuid, UnassignedUserGroupUuid=GROUP)
    assert await assigned(account, uuid) == ("", "")
    for kind, name, who in ((32, "UnassignedUserUuid", COLLEAGUE), (33, "UnassignedUserGroupUuid", GROUP)):
        assert await account.socket.refused(kind, PatientOrderUuid=uuid, **{name: who}) == reason


async def test_what_the_other_side_assigned_can_be_taken_away(account: Account) -> None:
    uuid = await upload(account.archive, account.client)
    await told(account.client, "assignordertouser", PatientOrderUuid=uuid, AssignedUserUuid=COLLEAGUE)

    await account.socket.told(32, PatientOrderUuid=uuid, UnassignedUserUuid=COLLEAGUE)

    assert await assigned(account, uuid) == ("", "")


async def test_an_order_moves_to_another_institution(account: Account) -> None:
    uuid = await upload(account.archive, account.client)

    await account.socket.told(35, PatientOrderUuid=uuid, InstitutionUuid=OTHER_INSTITUTION)

    assert await found(account.socket, InstitutionUuidList=[INSTITUTION]) == []
    assert await order_uuids(account.client, InstitutionUuidList=[OTHER_INSTITUTION]) == [uuid]
    assert (await order_of(account.socket, uuid, OTHER_INSTITUTION))["InstitutionName"] == "South"
    answer = await call(
        account.client, "getpatientorderproperties", PatientOrderInstitutionUuid=INSTITUTION, PatientOrderUuid=uuid
    )
    refused(answer, 404)
    await store(account.client, make_instance("1.2.3", "1.2.3.2", "1.2.3.2.1"))
    assert await found(account.socket, InstitutionUuidList=[OTHER_INSTITUTION]) == [uuid], "more images do not move it"
