from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.emulator.vendor_support import UNKNOWN, call, create_order, properties, refused, told, upload

if TYPE_CHECKING:
    import httpx

    from postdicom_async.emulator import EmbeddedArchive

ZERO = "00000000-0000-0000-0000-000000000000"


async def make(client: httpx.AsyncClient, name: str, parent: str = "", description: str = "") -> str:
    answer = await told(client, "createfolder", FolderName=name, FolderDescription=description, ParentFolderUuid=parent)
    uuid: str = answer["FolderUuid"]
    return uuid


async def listed(client: httpx.AsyncClient, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await told(client, "searchfolder", **filters))["FolderList"]
    return found


async def names(client: httpx.AsyncClient, **filters: Any) -> list[str]:
    return [folder["FolderName"] for folder in await listed(client, **filters)]


async def test_folders_nest(client: httpx.AsyncClient) -> None:
    top = await make(client, "Łódź \U0001f4c1", description="Pierwszy")
    below = await make(client, "2024", top)

    (folder,) = await listed(client)
    assert folder == {
        "FolderUuid": top,
        "FolderName": "Łódź \U0001f4c1",
        "FolderDescription": "Pierwszy",
        "ParentFolderUuid": "",
        "IsShared": False,
        "OrderCount": 0,
        "SubFolderCount": 1,
    }
    (inner,) = await listed(client, ParentFolderUuid=top)
    assert (inner["FolderUuid"], inner["ParentFolderUuid"]) == (below, top)
    assert await names(client, ParentFolderUuid=below) == []


async def test_a_name_with_slashes_makes_several(client: httpx.AsyncClient) -> None:
    b = await make(client, "a/b", description="of b")
    c = await make(client, "a//c/")

    (a,) = await listed(client)
    inner = await listed(client, ParentFolderUuid=a["FolderUuid"])

    assert (a["FolderName"], a["FolderDescription"], a["SubFolderCount"]) == ("a", "", 2)
    assert [(folder["FolderUuid"], folder["FolderName"]) for folder in inner] == [(b, "b"), (c, "c")]
    assert inner[0]["FolderDescription"] == "of b"


async def test_a_repeated_request_makes_a_second_folder(client: httpx.AsyncClient) -> None:
    assert await make(client, "a/b") != await make(client, "a/b")

    assert await names(client, FolderName="b") == ["b", "b"]
    assert await names(client) == ["a"]


@pytest.mark.parametrize("name", ["/", " / "])
async def test_slashes_are_no_name(client: httpx.AsyncClient, name: str) -> None:
    assert refused(await call(client, "createfolder", FolderName=name), 400)
    assert await names(client) == []


async def test_search_by_parent_and_part_of_the_name(client: httpx.AsyncClient) -> None:
    heads = await make(client, "Heads")
    await make(client, "Straße/forehead", heads)
    await make(client, "Knees")

    assert await names(client) == ["Heads", "Knees"]
    assert await names(client, ParentFolderUuid=ZERO, GetOrdersInFolder="False") == ["Heads", "Knees"]
    assert await names(client, FolderName="HEAD") == ["Heads", "forehead"]
    assert await names(client, FolderName="STRASSE") == ["Straße"]
    assert await names(client, ParentFolderUuid=heads, FolderName="head") == ["forehead"]
    assert await names(client, FolderName="*") == []


async def test_an_order_in_several_folders(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    study = await upload(embedded_archive, client, PatientName="Doe^Jane")
    order = await create_order(embedded_archive, client)
    a, b = await make(client, "a"), await make(client, "b")

    for _ in range(2):
        await told(client, "addordertofolder", PatientOrderUuid=study, FolderUuidList=[a, b])
    await told(client, "addordertofolder", PatientOrderUuid=order, FolderUuidList=[b])

    folders = await listed(client, GetOrdersInFolder="True")
    assert [folder["OrderCount"] for folder in folders] == [1, 2]
    uuids = [[one["PatientOrderUuid"] for one in folder["PatientOrderList"]] for folder in folders]
    assert uuids == [[study], [study, order]]
    assert folders[0]["PatientOrderList"][0]["PatientName"] == "Doe^Jane"
    assert "PatientOrderList" not in (await listed(client))[0]
    assert (await properties(embedded_archive, client, study))["FolderUuidList"] == [a, b]


async def test_a_deleted_study_leaves_its_folders(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    study = await upload(embedded_archive, client)
    folder = await make(client, "a")
    await told(client, "addordertofolder", PatientOrderUuid=study, FolderUuidList=[folder])

    await client.delete("/studies/1.2.3")

    assert [found["OrderCount"] for found in await listed(client)] == [0]
    await upload(embedded_archive, client)
    assert [found["OrderCount"] for found in await listed(client)] == [0]


async def test_what_is_unknown_changes_nothing(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    order, folder = await create_order(embedded_archive, client), await make(client, "a")

    for given in (
        {"PatientOrderUuid": order, "FolderUuidList": [folder, UNKNOWN]},
        {"PatientOrderUuid": UNKNOWN, "FolderUuidList": [folder]},
    ):
        refused(await call(client, "addordertofolder", **given), 404)
    refused(await call(client, "createfolder", FolderName="x/y", ParentFolderUuid=UNKNOWN), 404)
    refused(await call(client, "searchfolder", ParentFolderUuid=UNKNOWN), 404)

    (found,) = await listed(client)
    assert (found["OrderCount"], found["SubFolderCount"]) == (0, 0)
