"""Folders over the Cloud API, seen from both sides of the archive."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.cloud_support import (
    INSTITUTION,
    UNKNOWN,
    ZERO,
    Account,
    RawSocket,
    account_fixture,  # noqa: F401 - a fixture
    create,
    found,
    make,
    order_of,
)
from tests.emulator.vendor_support import create_order, order_uuids, properties, told, upload


async def listed(account: Account, **filters: Any) -> list[dict[str, Any]]:
    """Search from the other side."""
    folders: list[dict[str, Any]] = (await told(account.client, "searchfolder", **filters))["FolderList"]
    return folders


async def inside(socket: RawSocket, parent: str = ZERO, name: str = "") -> list[str]:
    """Return the names of the folders in a folder."""
    folder = (await socket.told(3, ParentFolderUuid=parent, FolderName=name))["Folder"]
    return [sub["FolderName"] for sub in folder["SubFolderList"]]


async def test_a_folder_is_found_on_the_other_side(account: Account) -> None:
    top = await make(account.socket, "Łódź \U0001f4c1", FolderDescription="Pierwszy")
    below = await make(account.socket, "2024", top)

    (folder,) = await listed(account)
    assert (
        folder.items()
        >= {
            "FolderUuid": top,
            "FolderName": "Łódź \U0001f4c1",
            "FolderDescription": "Pierwszy",
            "SubFolderCount": 1,
        }.items()
    )
    (inner,) = await listed(account, ParentFolderUuid=top)
    assert (inner["FolderUuid"], inner["ParentFolderUuid"]) == (below, top)


async def test_a_folder_of_the_other_side_is_found(account: Account) -> None:
    made = await told(account.client, "createfolder", FolderName="a/b", FolderDescription="of b")

    root = (await account.socket.told(3, ParentFolderUuid=ZERO, FolderName=""))["Folder"]

    (a,) = root["SubFolderList"]
    (b,) = (await account.socket.told(3, ParentFolderUuid=a["FolderUuid"]))["Folder"]["SubFolderList"]
    assert (root["FolderUuid"], root["FolderName"], root["SubFolderCount"], root["AllSubFolderCount"]) == (
        ZERO,
        "",
        1,
        2,
    )
    assert (a["ParentFolderUuid"], a["SubFolderCount"], a["AllSubFolderCount"]) == (ZERO, 1, 1)
    assert b == {
        "FolderUuid": made["FolderUuid"],
        "FolderName": "b",
        "FolderDescription": "of b",
        "ParentFolderUuid": a["FolderUuid"],
        "IsShared": False,
        "OrderCount": 0,
        "AllSubOrderCount": 0,
        "SubFolderCount": 0,
        "AllSubFolderCount": 0,
    }


async def test_a_name_with_slashes_makes_several(account: Account) -> None:
    b = await make(account.socket, "a/b", FolderDescription="of b")
    c = await make(account.socket, "a//c/")

    assert await inside(account.socket) == ["a"]
    (a,) = await listed(account)
    assert [folder["FolderUuid"] for folder in await listed(account, ParentFolderUuid=a["FolderUuid"])] == [b, c]
    assert await account.socket.refused(2, ParentFolderUuid=ZERO, FolderName=" / ") == "FolderName holds no name"
    assert await account.socket.refused(2, ParentFolderUuid=UNKNOWN, FolderName="x/y") == "no such folder"
    assert await inside(account.socket) == ["a"]


async def test_a_repeated_request_makes_a_second_folder(account: Account) -> None:
    assert await make(account.socket, "a") != await make(account.socket, "a")

    assert [folder["FolderName"] for folder in await listed(account)] == ["a", "a"]


async def test_search_by_part_of_the_name(account: Account) -> None:
    heads = await make(account.socket, "Heads")
    await make(account.socket, "Straße/forehead", heads)
    await make(account.socket, "Knees")

    assert await inside(account.socket) == ["Heads", "Knees"]
    assert await inside(account.socket, name="HEAD") == ["Heads", "forehead"]
    assert await inside(account.socket, heads, "head") == ["forehead"]
    assert await inside(account.socket, heads) == ["Straße"]
    assert await inside(account.socket, name="*") == []
    assert await account.socket.refused(3, ParentFolderUuid=UNKNOWN) == "no such folder"


async def test_orders_in_folders(account: Account) -> None:
    study = await upload(account.archive, account.client, PatientName="Doe^Jane", OtherPatientIDs="O1")
    order = await create_order(account.archive, account.client)
    top = await make(account.socket, "top")
    low = await make(account.socket, "low", top)
    await account.socket.told(
        8, PatientOrderInstitutionUuid=INSTITUTION, PatientOrderUuid=study, FolderUuidList=[top, low]
    )
    for _ in range(2):
        await told(account.client, "addordertofolder", PatientOrderUuid=order, FolderUuidList=[low])

    folder = (await account.socket.told(3, ParentFolderUuid=top, GetOrdersInFolder=True))["Folder"]
    (sub,) = folder["SubFolderList"]
    root = (await account.socket.told(3, ParentFolderUuid=ZERO, GetOrdersInFolder=True))["Folder"]

    assert (folder["OrderCount"], folder["AllSubOrderCount"]) == (1, 2)
    assert (sub["OrderCount"], sub["AllSubOrderCount"]) == (2, 2)
    assert (root["OrderCount"], root["AllSubOrderCount"], root["PatientOrderList"]) == (0, 2, [])
    (one,) = folder["PatientOrderList"]
    known = {"PatientOrderUuid": study, "PatientName": "Doe^Jane", "OtherPatientId": "O1", "OrderModality": "CT"}
    assert one.items() >= {**known, "ImagesCount": 1, "DocumentsCount": 0, "OrderSize": 0}.items()
    assert "PerformedDatetime" in one
    assert [order["PatientOrderUuid"] for order in sub["PatientOrderList"]] == [study, order]
    without = (await account.socket.told(3, ParentFolderUuid=top, GetOrdersInFolder=False))["Folder"]
    assert "PatientOrderList" not in str(without)
    assert (await properties(account.archive, account.client, study))["FolderUuidList"] == [top, low]
    assert (await order_of(account.socket, study))["FolderUuidList"] == [top, low]


async def test_an_order_is_put_into_all_folders_or_none(account: Account) -> None:
    order, folder = await create(account.socket), await make(account.socket, "a")
    named = {"PatientOrderInstitutionUuid": INSTITUTION, "PatientOrderUuid": order}

    assert await account.socket.refused(8, **named, FolderUuidList=[folder, UNKNOWN]) == "no such folder"
    assert (await listed(account))[0]["OrderCount"] == 0
    await account.socket.told(8, **named, FolderUuidList=[])
    await account.socket.told(8, **named, FolderUuidList=[folder, folder.upper()])
    assert (await listed(account))[0]["OrderCount"] == 1


async def test_orders_are_taken_out_of_a_folder_all_or_none(account: Account) -> None:
    folder, other = await make(account.socket, "a"), await make(account.socket, "b")
    orders = [await create(account.socket) for _ in range(3)]
    for order in orders[:2]:
        await told(account.client, "addordertofolder", PatientOrderUuid=order, FolderUuidList=[folder, other])

    reason = await account.socket.refused(9, FolderUuid=folder, PatientOrderUuidList=orders)
    assert reason == "an order is not in the folder"
    assert await found(account.socket, FolderUuid=folder) == orders[:2]
    await account.socket.told(9, FolderUuid=folder, PatientOrderUuidList=orders[:1])

    assert await found(account.socket, FolderUuid=folder) == orders[1:2]
    assert [one["OrderCount"] for one in await listed(account)] == [1, 2]
    assert await order_uuids(account.client) == orders


async def test_a_folder_is_changed(account: Account) -> None:
    folder = await make(account.socket, "old", FolderDescription="kept")

    async def change(**given: Any) -> tuple[str, str]:
        nested = {"IdentityInformation": given}
        answer = await account.socket.told(27, FolderUuid=folder, JsonParameters=nested)
        (there,) = await listed(account)
        assert (answer["FolderName"], answer["FolderDescription"]) == (there["FolderName"], there["FolderDescription"])
        return there["FolderName"], there["FolderDescription"]

    assert await change(Name="ń/ew") == ("ń/ew", "kept")
    assert await change(Description="changed") == ("ń/ew", "changed")
    assert await change() == ("ń/ew", "changed")
    assert not account.archive.cloud.deviations
    assert await change(Name="", Colour="red") == ("ń/ew", "changed")
    assert list(account.archive.cloud.deviations) == ["17/27: JsonParameters: Colour is no place"]


@pytest.mark.parametrize(
    "nested", [{}, {"IdentityInformation": []}, {"IdentityInformation": {"Name": 5}}, {"Name": "x"}]
)
async def test_changes_that_are_none(account: Account, nested: dict[str, Any]) -> None:
    folder = await make(account.socket, "old")

    reason = await account.socket.refused(27, FolderUuid=folder, JsonParameters=nested)

    assert reason == "JsonParameters: IdentityInformation must be an object of texts"
    assert await inside(account.socket) == ["old"]


async def test_a_folder_is_deleted_with_those_below_and_without_its_orders(account: Account) -> None:
    study = await upload(account.archive, account.client)
    top, kept = await make(account.socket, "top"), await make(account.socket, "kept")
    low = await make(account.socket, "middle/low", top)
    await told(account.client, "addordertofolder", PatientOrderUuid=study, FolderUuidList=[top, low, kept])

    await account.socket.told(4, FolderUuid=top)

    assert [folder["FolderUuid"] for folder in await listed(account)] == [kept]
    assert await listed(account, FolderName="low") == []
    assert (await properties(account.archive, account.client, study))["FolderUuidList"] == [kept]
    for gone in (top, low):
        assert await account.socket.refused(4, FolderUuid=gone) == "no such folder"
    assert len((await account.client.get("/studies")).json()) == 1


async def test_the_root_is_no_folder_to_change(account: Account) -> None:
    nested = {"IdentityInformation": {"Name": "x"}}
    for kind, more in ((4, {}), (26, {}), (27, {"JsonParameters": nested}), (9, {"PatientOrderUuidList": []})):
        assert await account.socket.refused(kind, FolderUuid=ZERO, **more) == "no such folder"
