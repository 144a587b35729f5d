from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.emulator.support import client_of, encode, make_dataset, make_instance, store, with_pixels
from tests.emulator.vendor_support import UNKNOWN, call, create_order, order_uuids, properties, refused, told, upload

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

OTHER = "2f0e5b6a-3c1d-4e57-9a10-00000000000a"


async def test_a_study_is_an_order(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    await store(
        client,
        make_instance(
            PatientName="Święty^Łukasz",
            PatientID="P7",
            OtherPatientIDs=["O1", "O2"],
            PatientBirthDate="19620229",
            PatientSex="M",
            StudyDate="20240131",
            StudyTime="142233",
            StudyDescription="CT thorax",
            AccessionNumber="A7",
        ),
        make_instance("1.2.3", "1.2.3.2", "1.2.3.2.1", Modality="SR"),
    )

    (order,) = (await told(client, "getpatientorderlist"))["PatientOrderList"]

    known = {
        "PatientOrderUuid": embedded_archive.order_uuid("1.2.3"),
        "PatientOrderInstitutionUuid": embedded_archive.institution_uuid,
        "OrderModality": "CT\\SR",
        "StudyInstanceUid": "1.2.3",
        "SeriesCount": 2,
        "ImagesCount": 2,
        "IsShared": False,
    }
    assert order.items() >= known.items()
    assert isinstance(order["OrderStatus"], int)


async def test_an_orders_patient_comes_from_its_study(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    uuid = await upload(
        embedded_archive,
        client,
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        PatientID="P7",
        OtherPatientIDs=["O1", "O2"],
        PatientBirthDate="19620228",
        PatientSex="M",
        StudyDate="20240131",
        StudyTime="142233",
        StudyDescription="CT thorax",
        AccessionNumber="A7",
        ReferringPhysicianName="Referrer^Rita",
    )

    found = await properties(embedded_archive, client, uuid)

    known = {
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "PatientId": "P7",
        "OtherPatientId": "O1",
        "PatientBirthdate": "1962-02-28",
        "PatientSex": "M",
        "StudyDescription": "CT thorax",
        "AccessionNumber": "A7",
        "ReferringPhysiciansName": "Referrer^Rita",
        "PerformedDatetime": "2024-01-31 14:22",
        "OrderModality": "CT",
        "AssignedUserUuid": "",
        "AssignedUserGroupUuid": "",
        "FolderUuidList": [],
    }
    assert found.items() >= known.items()
    (series,) = found["PatientSeriesList"]
    assert series["PatientSeriesUuid"] == embedded_archive.series_uuid("1.2.3", "1.2.3.1")
    assert series["SeriesInstanceUid"] == "1.2.3.1"


async def test_a_created_order_keeps_every_text(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    given = {
        "PatientName": 'Święty^Łukasz "Ł"\\\n=山田^太郎\U0001f600 قباني',
        "PatientId": "ŁÖ/1",
        "PatientBirthdate": "1980-02-29",
        "OtherPatientId": "x,y",
        "PatientSex": "O",
        "StudyDescription": " <b>& more</b> ",
        "AccessionNumber": "ACC\t1",
        "PatientComplaints": "none\r\nat all",
        "OrderScheduledDatetime": "2031-12-24 08:05",
        "RequestedProcedureId": "RP",
        "RequestedProcedureDescription": "Head",
        "RequestingPhysician": "A^B",
        "ReferringPhysiciansName": "C^D",
        "ScheduledEquipmentUuid": UNKNOWN,
    }

    uuid = await create_order(embedded_archive, client, Modality="CT,MR", **given)
    found = await properties(embedded_archive, client, uuid)

    assert {name: found[name] for name in given} == given
    assert found["OrderModality"] == "CT,MR"
    assert found["StudyInstanceUid"] == ""
    assert found["ImagesCount"] == 0
    assert found["PatientSeriesList"] == []


async def test_an_order_of_an_unknown_institution_is_not_made(client: httpx.AsyncClient) -> None:
    answer = await call(
        client,
        "createpatientorder",
        InstitutionUuid=UNKNOWN,
        PatientName="Doe^Jane",
        PatientId="1",
        PatientBirthdate="1980-01-01",
        Modality="CT",
    )

    assert refused(answer, 404) == "no such institution"
    assert await order_uuids(client) == []


@pytest.mark.parametrize("by", ["deleteorder", "DELETE"])
async def test_order_and_study_go_together(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, by: str
) -> None:
    uuid = await upload(embedded_archive, client)
    kept = await upload(embedded_archive, client, "1.2.4")

    if by == "DELETE":
        await client.delete("/studies/1.2.3")
    else:
        where = {"PatientOrderInstitutionUuid": embedded_archive.institution_uuid, "PatientOrderUuid": uuid}
        await told(client, "deleteorder", **where)
        assert refused(await call(client, "deleteorder", **where), 404)

    assert await order_uuids(client) == [kept]
    assert [study["0020000D"]["Value"] for study in (await client.get("/studies")).json()] == [["1.2.4"]]
    assert (await client.get("/studies/1.2.3")).status_code == 404
    assert await upload(embedded_archive, client) == uuid
    assert sorted(await order_uuids(client)) == sorted([kept, uuid])


async def test_a_created_order_is_deleted(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    uuid, kept = await create_order(embedded_archive, client), await create_order(embedded_archive, client)

    await told(
        client,
        "deleteorder",
        PatientOrderInstitutionUuid=embedded_archive.institution_uuid,
        PatientOrderUuid=uuid.upper(),
    )

    assert await order_uuids(client) == [kept]


@pytest.mark.parametrize("operation", ["deleteorder", "getpatientorderproperties", "getdicomtagcontent"])
async def test_an_order_is_named_with_its_institution(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, operation: str
) -> None:
    uuid = await upload(embedded_archive, client)

    for institution, order in ((UNKNOWN, uuid), (embedded_archive.institution_uuid, UNKNOWN)):
        answer = await call(client, operation, PatientOrderInstitutionUuid=institution, PatientOrderUuid=order)
        assert refused(answer, 404)
    assert await order_uuids(client) == [uuid]


async def test_orders_are_assigned(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    uuid = await upload(embedded_archive, client)

    await told(client, "assignordertouser", PatientOrderUuid=uuid, AssignedUserUuid=embedded_archive.user_uuid)
    group = embedded_archive.user_group_uuid
    await told(client, "assignordertousergroup", PatientOrderUuid=uuid, AssignedUserGroupUuid=group)

    found = await properties(embedded_archive, client, uuid)
    assert found["AssignedUserUuid"] == embedded_archive.user_uuid
    assert found["AssignedUserGroupUuid"] == group


@pytest.mark.parametrize(
    ("operation", "who"),
    [("assignordertouser", "AssignedUserUuid"), ("assignordertousergroup", "AssignedUserGroupUuid")],
)
async def test_assigning_needs_both(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, operation: str, who: str
) -> None:
    uuid = await upload(embedded_archive, client)
    known = {"AssignedUserUuid": embedded_archive.user_uuid, "AssignedUserGroupUuid": embedded_archive.user_group_uuid}

    refused(await call(client, operation, **{"PatientOrderUuid": uuid, who: UNKNOWN}), 404)
    refused(await call(client, operation, **{"PatientOrderUuid": UNKNOWN, who: known[who]}), 404)

    found = await properties(embedded_archive, client, uuid)
    assert (found["AssignedUserUuid"], found["AssignedUserGroupUuid"]) == ("", "")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "abcd"),
        ({"PatientName": ""}, "abcd"),
        ({"PatientName": "doe"}, "ab"),
        ({"PatientName": "DOE^J*"}, "ab"),
        ({"PatientName": "doe?j*"}, "ab"),
        ({"PatientName": "*o"}, ""),
        ({"PatientName": "doe john"}, "b"),
        ({"PatientName": "łuk"}, "c"),
        ({"PatientName": "Łukasz"}, "c"),
        ({"PatientName": "Sw\u0301ie"}, ""),
        ({"PatientName": "S\u0301wie\u0328ty"}, "c"),
        ({"PatientName": "太郎"}, "d"),
        ({"PatientName": "山田*"}, "d"),
        ({"PatientId": "P1"}, "a"),
        ({"PatientId": "p*"}, "abcd"),
        ({"PatientId": "P"}, ""),
        ({"OtherPatientId": "X9"}, "b"),
        ({"AccessionNumber": "ACC?"}, "cd"),
        ({"ModalityList": ["CT"]}, "ad"),
        ({"ModalityList": ["ct", "US"]}, "abd"),
        ({"ModalityList": []}, "abcd"),
        ({"StudyDateFrom": "2024-01-02"}, "bc"),
        ({"StudyDateTo": "2024-01-02"}, "ab"),
        ({"StudyDateFrom": "2024-01-02", "StudyDateTo": "2024-01-02"}, "b"),
        ({"PatientBirthdateFrom": "1980-01-01", "PatientBirthdateTo": "1989-12-31"}, "ac"),
        ({"InstitutionUuidList": [OTHER.upper(), UNKNOWN]}, "c"),
        ({"InstitutionUuidList": [UNKNOWN]}, ""),
        ({"PatientName": "doe", "ModalityList": ["US"]}, "b"),
    ],
)
async def test_filters(orders: tuple[EmbeddedArchive, dict[str, str]], filters: dict[str, Any], found: str) -> None:
    archive, names = orders
    async with client_of(archive) as client:
        assert "".join(names[uuid] for uuid in await order_uuids(client, **filters)) == found


@pytest.fixture(scope="module")
def folder_of_orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orders")


@pytest.fixture
async def orders(folder_of_orders: Path) -> Any:
    """Four orders, made once and found again by every archive on the same folder; their letters by UUID."""
    institutions = {"1F0E5B6A-3C1D-4E57-9A10-00000000000B": "First", OTHER: "Second"}
    async with (
        EmbeddedArchive(folder_of_orders, options=ArchiveOptions(institutions=institutions)) as archive,
        client_of(archive) as client,
    ):
        if not await order_uuids(client):
            await _make_orders(archive, client)
        yield archive, dict(zip(await order_uuids(client), "abcd", strict=True))


async def _make_orders(archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    await upload(
        archive,
        client,
        "1.1",
        PatientName="Doe^Jane",
        PatientID="P1",
        StudyDate="20240101",
        PatientBirthDate="19800101",
    )
    await upload(
        archive, client, "1.2", PatientName="DOE^John", PatientID="P2", StudyDate="20240102", Modality="US",
        OtherPatientIDs="X9",
    )  # fmt: skip
    await order_uuids(client)
    await create_order(
        archive, client, InstitutionUuid=OTHER, PatientName="Święty^Łukasz", PatientId="P3", AccessionNumber="ACC1",
        OrderScheduledDatetime="2024-02-01 10:00", PatientBirthdate="1989-12-31",
    )  # fmt: skip
    await upload(archive, client, "1.4", PatientName="Yamada^Tarou=山田^太郎", PatientID="P4", AccessionNumber="ACC2")


async def test_tag_content(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    uuid = await upload(embedded_archive, client, PatientName="Święty^Łukasz", ImageType=["ORIGINAL", "PRIMARY"])
    await store(client, make_instance("1.2.3", "1.2.3.2", "1.2.3.2.1", PatientName="Święty^Łukasz"))
    where = {"PatientOrderInstitutionUuid": embedded_archive.institution_uuid, "PatientOrderUuid": uuid}
    tags = ["00100010", "(0008,0008)", "SeriesInstanceUID", "0010,0030", "PixelData"]

    both = (await told(client, "getdicomtagcontent", **where, DicomTagIdList=tags))["DicomTagList"]
    second = embedded_archive.series_uuid("1.2.3", "1.2.3.2")
    one = await told(client, "getdicomtagcontent", **where, PatientSeriesUuid=second, DicomTagIdList=tags)

    assert [(item["SeriesInstanceUid"], item["DicomTagId"], item["Value"]) for item in both] == [
        ("1.2.3.1", "00100010", "Święty^Łukasz"),
        ("1.2.3.1", "00080008", "ORIGINAL\\PRIMARY"),
        ("1.2.3.1", "0020000E", "1.2.3.1"),
        ("1.2.3.2", "00100010", "Święty^Łukasz"),
        ("1.2.3.2", "0020000E", "1.2.3.2"),
    ]
    assert one["DicomTagList"] == both[3:]
    assert both[0]["DicomTagName"] == "PatientName"
    assert both[0]["ValueRepresentation"] == "PN"
    assert refused(await call(client, "getdicomtagcontent", **where, PatientSeriesUuid=UNKNOWN), 404)
    assert refused(await call(client, "getdicomtagcontent", **where, DicomTagIdList=["PatientNam"]), 400)


async def test_all_tags_but_bulk(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    ds = with_pixels(PatientName="Doe^Jane")
    ds.EncapsulatedDocument = bytes(2000)
    ds.ReferencedStudySequence = [make_dataset()]
    await store(client, encode(ds))

    answer = await told(
        client,
        "getdicomtagcontent",
        PatientOrderInstitutionUuid=embedded_archive.institution_uuid,
        PatientOrderUuid=embedded_archive.order_uuid("1.2.3"),
        DicomTagIdList="",
    )

    content = {item["DicomTagName"]: item["Value"] for item in answer["DicomTagList"]}
    assert content["PatientName"] == "Doe^Jane"
    assert content["Rows"] == "4"
    assert content["ReferencedStudySequence"][0]["0020000D"] == {"vr": "UI", "Value": ["1.2.3"]}
    assert not {"PixelData", "EncapsulatedDocument"} & content.keys()


async def test_orders_survive_a_restart(tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path) as archive, client_of(archive) as client:
        before = [await upload(archive, client), await create_order(archive, client)]

    async with EmbeddedArchive(tmp_path) as archive, client_of(archive) as client:
        assert await order_uuids(client) == before
