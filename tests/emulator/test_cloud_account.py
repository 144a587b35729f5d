"""Groups of orders, flags, and the lists of an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.emulator import EmbeddedArchive
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
    main_socket,
    order_of,
)
from tests.emulator.support import client_of
from tests.emulator.vendor_support import upload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.emulator.cloud_support import RawSocket

EMPTY = "PatientOrderUuidList is empty"


async def groups(socket: RawSocket) -> list[str]:
    """Return the group of each order."""
    return [order["ConnectedGroupUuid"] for order in (await socket.told(1))["SearchResultList"]]


def of(*orders: str, **more: Any) -> dict[str, Any]:
    return {"PatientOrderInstitutionUuid": INSTITUTION, **more, "PatientOrderUuidList": list(orders)}


async def test_groups_of_orders(account: Account) -> None:
    socket = account.socket
    study = await upload(account.archive, account.client)
    first, second = await create(socket), await create(socket)

    group = (await socket.told(10, **of(study, first)))["ConnectedGroupUuid"]
    assert await groups(socket) == [group, group, ""]
    assert (await order_of(socket, study))["ConnectedGroupUuid"] == group

    await socket.told(11, **of(second, ConnectedGroupUuid=group.upper()))
    assert await groups(socket) == [group] * 3

    await socket.told(12, **of(study, second))
    assert await groups(socket) == ["", group, ""]
    assert await socket.refused(12, **of(first, study)) == "an order is in no group"
    assert await groups(socket) == ["", group, ""]

    other = (await socket.told(10, **of(first)))["ConnectedGroupUuid"]
    assert other != group
    assert await socket.refused(11, **of(study, ConnectedGroupUuid=group)) == "no such group of orders"


async def test_groups_are_made_of_all_or_none(account: Account) -> None:
    here, there = await create(account.socket), await create(account.socket, InstitutionUuid=OTHER_INSTITUTION)

    for kind in (10, 12):
        assert await account.socket.refused(kind, **of()) == EMPTY
        assert await account.socket.refused(kind, **of(here, there)) == "no such patient order in this institution"
    group = (await account.socket.told(10, **of(here)))["ConnectedGroupUuid"]
    assert await account.socket.refused(11, **of(ConnectedGroupUuid=group)) == EMPTY
    assert await account.socket.refused(11, **of(here, there, ConnectedGroupUuid=group))

    assert await groups(account.socket) == [group, ""]


async def test_more_images_leave_the_group(account: Account) -> None:
    study = await upload(account.archive, account.client)
    group = (await account.socket.told(10, **of(study)))["ConnectedGroupUuid"]

    await upload(account.archive, account.client, PatientName="Other^Name")

    assert await groups(account.socket) == [group]


async def test_flags(account: Account) -> None:
    socket = account.socket
    study, order = await upload(account.archive, account.client), await create(socket)
    known = (await socket.told(30))["FlagGroupList"]
    (reading, priority) = ((group["GroupId"], [flag["FlagId"] for flag in group["FlagList"]]) for group in known)
    assert len(reading[1]) > 1
    assert all(group["GroupName"] and all(flag["FlagName"] for flag in group["FlagList"]) for group in known)

    for group, flag in ((priority[0], priority[1][2]), (reading[0], reading[1][0]), (reading[0], reading[1][1])):
        await socket.told(31, PatientOrderUuid=study, GroupId=group, FlagId=flag)

    assert (await order_of(socket, study))["FlagList"] == [
        {"GroupId": reading[0], "FlagId": reading[1][1]},
        {"GroupId": priority[0], "FlagId": priority[1][2]},
    ]
    assert (await order_of(socket, order))["FlagList"] == []
    for wrong in ((reading[0], priority[1][-1]), (0, 0), (99, 1), (-1, 1), (2**70, 1)):
        given = {"PatientOrderUuid": order, "GroupId": wrong[0], "FlagId": wrong[1]}
        assert await socket.refused(31, **given) == "no such flag"


@pytest.mark.parametrize("by", ["17/6", "DELETE"])
async def test_flags_go_with_their_order(account: Account, by: str) -> None:
    study = await upload(account.archive, account.client)
    await account.socket.told(31, PatientOrderUuid=study, GroupId=1, FlagId=1)

    if by == "DELETE":
        await account.client.delete("/studies/1.2.3")
    else:
        await account.socket.told(6, PatientOrderInstitutionUuid=INSTITUTION, PatientOrderUuid=study)
    await upload(account.archive, account.client)

    assert (await order_of(account.socket, study))["FlagList"] == []


async def test_lists_of_the_account(account: Account) -> None:
    socket = account.socket
    assert (await socket.told(34))["UserList"] == [
        {"UserUuid": USER, "FullName": "Some Body", "UserName": "some.body"},
        {"UserUuid": COLLEAGUE, "FullName": "Other Body", "UserName": "other.body"},
    ]
    assert (await socket.told(22))["UserGroupList"] == [{"UserGroupUuid": GROUP, "UserGroupName": "Readers"}]
    (node,) = (await socket.told(23))["DicomNodeList"]
    (contact,) = (await socket.told(24))["ContactList"]
    assert (await create(socket, ScheduledEquipmentUuid=node["DicomNodeUuid"])) != UNKNOWN
    assert "@" in contact["Email"]


async def test_all_survives_a_restart(tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path) as archive, main_socket(archive) as socket, client_of(archive) as client:
        study = await upload(archive, client)
        named = {"PatientOrderInstitutionUuid": archive.institution_uuid, "PatientOrderUuidList": [study]}
        group = (await socket.told(10, **named))["ConnectedGroupUuid"]
        await socket.told(31, PatientOrderUuid=study, GroupId=1, FlagId=2)
        session = next(iter(archive.cloud.sessions))

    async with EmbeddedArchive(tmp_path) as archive, main_socket(archive) as socket:
        order = await order_of(socket, study)
        assert (order["ConnectedGroupUuid"], order["FlagList"]) == (group, [{"GroupId": 1, "FlagId": 2}])
        assert (await socket.session(session)).envelope["ResponseCode"] != 1, "sessions do not survive"
