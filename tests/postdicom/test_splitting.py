"""Reads with long lists: several requests, each within the limit, and one result."""

from __future__ import annotations

import json
from uuid import UUID

import httpx
import pytest

from postdicom_async import ServerError
from postdicom_async.vendor.wire import Wire
from tests.postdicom.forms import ONE, TWO
from tests.postdicom.service import Service, as_json

INSTITUTIONS = [str(UUID(int=number)) for number in range(1000)]
SHARED = {"PatientOrderUuid": str(UUID(int=10**9)), "PatientName": "In all of them"}


def answer(request: httpx.Request) -> httpx.Response:
    """Find one order of each institution asked for, and one that they all have."""
    sent = json.loads(request.headers["GetPatientOrderListParameters"])
    asked = json.loads(sent["InstitutionUuidList"])
    orders = [{"PatientOrderUuid": str(UUID(int=UUID(one).int + 5000)), "InstitutionUuid": one} for one in asked]
    return httpx.Response(200, json=[*orders, SHARED])


def asked(service: Service, name: str, inner: str) -> list[list[str]]:
    return [json.loads(json.loads(request.headers[name])[inner]) for request in service.requests]


async def test_a_thousand_institutions() -> None:
    service = Service(answer)
    async with service.client() as archive:
        found = await archive.orders.search(institution_uuids=INSTITUTIONS, patient_name="Łukasz*").all()
    assert len(found) == 1001
    assert len({order.patient_order_uuid for order in found}) == 1001
    assert [order.institution_uuid for order in found if order.institution_uuid] == INSTITUTIONS
    parts = asked(service, "GetPatientOrderListParameters", "InstitutionUuidList")
    assert [one for part in parts for one in part] == INSTITUTIONS
    sizes = [len(request.headers["GetPatientOrderListParameters"]) for request in service.requests]
    assert max(sizes) <= 8192
    assert len(sizes) == 8
    assert {service.parameters(index)["PatientName"] for index in range(8)} == {"Łukasz*"}


@pytest.mark.parametrize(("limit", "requests"), [(1024, 64), (4096, 16), (65536, 1)])
async def test_the_limit_is_a_setting(limit: int, requests: int) -> None:
    service = Service(answer)
    async with service.client(wire=Wire(header_bytes=limit)) as archive:
        found = await archive.orders.search(institution_uuids=INSTITUTIONS).all()
    assert len(found) == 1001
    assert len(service.requests) == requests
    assert max(len(request.headers["GetPatientOrderListParameters"]) for request in service.requests) <= limit


async def test_both_lists_may_be_long() -> None:
    service = Service(answer)
    modalities = [f"M{number:04}" for number in range(2000)]
    async with service.client() as archive:
        found = await archive.orders.search(institution_uuids=INSTITUTIONS, modalities=modalities).all()
    assert len(found) == 1001
    pairs = {
        (institution, modality)
        for request in service.requests
        for sent in [json.loads(request.headers["GetPatientOrderListParameters"])]
        for institution in json.loads(sent["InstitutionUuidList"])
        for modality in json.loads(sent["ModalityList"])
    }
    assert len(pairs) == len(INSTITUTIONS) * len(modalities)


async def test_the_first_result_takes_one_request() -> None:
    service = Service(answer)
    async with service.client() as archive:
        first = await archive.orders.search(institution_uuids=INSTITUTIONS).first()
    assert first is not None
    assert first.institution_uuid == INSTITUTIONS[0]
    assert len(service.requests) == 1


async def test_nothing_is_asked_before_it_is_read() -> None:
    service = Service(answer)
    async with service.client() as archive:
        results = archive.orders.search(institution_uuids=INSTITUTIONS)
        assert service.requests == []
        assert len(await results.raw.all()) == 1001


async def test_a_part_that_fails_fails_the_search() -> None:
    def second_fails(request: httpx.Request) -> httpx.Response:
        return answer(request) if len(service.requests) == 1 else httpx.Response(400)

    service = Service(second_fails)
    async with service.client() as archive:
        seen = 0
        with pytest.raises(ServerError):  # noqa: PT012 - what came before the failure counts
            async for _ in archive.orders.search(institution_uuids=INSTITUTIONS):
                seen += 1
    assert 100 < seen < 200


async def test_tags_are_asked_for_in_parts() -> None:
    service = Service(as_json({"TagList": [{"Id": 1}]}))
    tags = [f"{number:08x}" for number in range(2000)]
    async with service.client() as archive:
        found = await archive.orders.tag_content(ONE, TWO, tags=tags)
    parts = asked(service, "GetDicomTagContentParameters", "DicomTagIdList")
    assert len(found) == len(parts) == 4
    assert [tag for part in parts for tag in part] == tags
    assert [item for one in found for item in one.items] == [{"Id": 1}] * 4


async def test_entries_without_a_uuid_are_told_apart_by_all_they_hold() -> None:
    service = Service(as_json([{"FolderName": "a"}, {"FolderName": "b"}, {"FolderName": "a"}]))
    async with service.client() as archive:
        found = await archive.folders.search().all()
    assert [folder.folder_name for folder in found] == ["a", "b"]
