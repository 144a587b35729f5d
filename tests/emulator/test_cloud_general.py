"""All general requests: as the vendor's library sends them, and wrong in every field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.emulator.cloud.general import general_table
from tests.cloud.forms import MANAGEMENT_TYPES
from tests.emulator.cloud_support import (
    COLLEAGUE,
    GROUP,
    INSTITUTION,
    LATER,
    OTHER_INSTITUTION,
    UNKNOWN,
    USER,
    ZERO,
    Account,
    account_fixture,  # noqa: F401 - a fixture
)

if TYPE_CHECKING:
    from postdicom_async.emulator import EmbeddedArchive

BY_MAIL = {"Email": "a@example.org", "EmailForSendingSharePassword": "b@example.org"}
OPTIONAL = {
    "InstitutionUuidList", "PatientName", "AccessionNumber", "PatientId", "OtherPatientId", "Modalities", "StartDate",
    "EndDate", "FolderDescription", "GetOrdersInFolder", "BirthDate", "PatientID", "PatientsBirthDate", "OrderModality",
    "StudyDescription", "OrderAccessionNumber", "PatientComplaints", "RequestedProcedureId",
    "RequestingProcedureDescription", "ScheduledEquipmentUuid", "PatientSex", "ReferringPhysiciansName",
    "EmailForSendingSharePassword", "SharePassword", "ShareTitle", "ShareDescription", "UserCanDownloadStudies",
    "FolderUuidList",
}  # fmt: skip
"""What may be left out, be null or be empty."""


@dataclass
class Ids:
    """What requests name."""

    order: str = UNKNOWN
    other: str = UNKNOWN
    folder: str = UNKNOWN
    group: str = UNKNOWN


def share(**more: Any) -> dict[str, Any]:
    secret = {"SharePassword": "p", "ShareTitle": "t", "ShareDescription": "d"}
    return {**more, **secret, "ExpireDate": LATER, "UserCanDownloadStudies": True}


def forms(ids: Ids) -> dict[int, dict[str, Any]]:
    """Return what follows the user in each request, in the order of the vendor's library."""
    order = {"PatientOrderInstitutionUuid": INSTITUTION, "PatientOrderUuid": ids.order}
    one, both = {"PatientOrderUuid": ids.order}, [ids.order, ids.other]
    return {
        1: {
            "InstitutionUuidList": [INSTITUTION], "PatientName": "", "AccessionNumber": "", "PatientId": "",
            "OtherPatientId": "", "Modalities": ["CT"], "StartDate": "2024-01-01", "EndDate": "2024-12-31",
        },
        2: {"ParentFolderUuid": ZERO, "FolderName": "a/b", "FolderDescription": "c"},
        3: {"ParentFolderUuid": ids.folder, "FolderName": "", "GetOrdersInFolder": True},
        4: {"FolderUuid": ids.folder},
        5: one,
        6: order,
        7: {
            "InstitutionUuid": INSTITUTION, "PatientName": "Doe^Jane", "PatientID": "P1", "OtherPatientId": "O1",
            "PatientsBirthDate": "1980-02-29", "OrderModality": "CT", "StudyDescription": "Head",
            "OrderAccessionNumber": "A1", "PatientComplaints": "none", "PerformedDatetime": "2024-01-02 03:04",
            "RequestedProcedureId": "R1", "RequestingProcedureDescription": "D1", "ScheduledEquipmentUuid": UNKNOWN,
            "PatientSex": "F", "ReferringPhysiciansName": "Ref^Rita",
        },
        8: {**order, "FolderUuidList": [ids.folder]},
        9: {"FolderUuid": ids.folder, "PatientOrderUuidList": [ids.order]},
        10: {"PatientOrderInstitutionUuid": INSTITUTION, "PatientOrderUuidList": [ids.order]},
        11: {
            "PatientOrderInstitutionUuid": INSTITUTION, "ConnectedGroupUuid": ids.group,
            "PatientOrderUuidList": [ids.other],
        },
        12: {"PatientOrderInstitutionUuid": INSTITUTION, "PatientOrderUuidList": [ids.order]},
        13: order,
        14: share(FolderUuid=ids.folder, **BY_MAIL),
        15: share(FolderUuid=ids.folder),
        16: {**share(FolderUuid=ids.folder, **BY_MAIL), "InstitutionUuid": INSTITUTION},
        17: {**share(FolderUuid=ids.folder), "InstitutionUuid": INSTITUTION},
        18: {"FolderUuid": ids.folder, "SharedUserUuidList": [COLLEAGUE], "ExpireDate": LATER},
        19: {"FolderUuid": ids.folder, "SharedUserGroupUuidList": [GROUP], "ExpireDate": LATER},
        20: {"OrderUuidList": both, **BY_MAIL, "UserCanDownloadStudies": False},
        21: {"OrderUuidList": both, "UserCanDownloadStudies": False},
        **{kind: {} for kind in (22, 23, 24, 30, 34)},
        25: {
            "InstitutionUuid": INSTITUTION,
            "JsonParameters": {"IdentityInformation": {"Name": "Doe^Jane"}, "StudyInformation": {},
                               "OtherInformation": {}, "Modality": "CT"},
        },
        26: {"FolderUuid": ids.folder},
        27: {"FolderUuid": ids.folder, "JsonParameters": {"IdentityInformation": {"Name": "new"}}},
        28: {**one, "AssignedUserUuid": COLLEAGUE},
        29: {**one, "AssignedUserGroupUuid": GROUP},
        31: {**one, "GroupId": 1, "FlagId": 2},
        32: {**one, "UnassignedUserUuid": COLLEAGUE},
        33: {**one, "UnassignedUserGroupUuid": GROUP},
        35: {**one, "InstitutionUuid": INSTITUTION},
        36: {"OrderUuidList": both, **BY_MAIL, "UserCanDownloadStudies": False, "ExpireDate": LATER},
        37: {"OrderUuidList": both, "UserCanDownloadStudies": False, "ExpireDate": LATER},
    }  # fmt: skip


KINDS = sorted(forms(Ids()))


async def things(account: Account) -> Ids:
    """Make what requests name: two orders in a group and in a folder, the first assigned."""
    ids, told = Ids(), account.socket.told
    ids.order = (await told(7, **forms(ids)[7]))["PatientOrderUuid"]
    ids.other = (await told(7, **forms(ids)[7]))["PatientOrderUuid"]
    ids.folder = (await told(2, **forms(ids)[2]))["FolderUuid"]
    ids.group = (await told(10, **forms(ids)[10]))["ConnectedGroupUuid"]
    for kind in (8, 11, 28, 29):
        await told(kind, **forms(ids)[kind])
    return ids


def content_of(archive: EmbeddedArchive) -> str:
    """Return all that the archive's index knows."""
    with archive.store.transaction() as database:
        return "\n".join(database.iterdump())


async def test_each_is_done_as_the_library_sends_it(account: Account) -> None:
    cloud = account.archive.cloud
    ids = await things(account)
    cloud.executed.clear()

    for kind in sorted(KINDS, key=lambda kind: (kind in {4, 6}, kind)):
        answer = await account.socket.general(kind, **forms(ids)[kind])
        assert answer.message_type == 18
        assert (answer.told["Success"], answer.told["Message"]) == (True, "")

    assert cloud.executed == {(17, kind): 1 for kind in MANAGEMENT_TYPES}
    assert list(cloud.deviations) == []
    assert set(general_table(cloud)) == set(KINDS) == MANAGEMENT_TYPES
    assert [frame.management_type for frame in cloud.sent((17, 6))] == [6]


@pytest.mark.parametrize("kind", [0, -1, 38, 2**31 - 1])
async def test_other_kinds_are_refused(account: Account, kind: int) -> None:
    assert await account.socket.refused(kind) == "this management type is not known"
    assert list(account.archive.cloud.deviations) == [f"17/{kind}: no such management type"]


NOTHING: tuple[Any, ...] = (None, "", [])


def is_optional(kind: int, name: str) -> bool:
    return name in OPTIONAL or (kind, name) in {
        (3, "FolderName"),
        (9, "PatientOrderUuidList"),
        (16, "InstitutionUuid"),  # documented without
        (17, "InstitutionUuid"),
    }


def lacking_one(kind: int, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a request without one of what it needs, each in turn."""
    needed = [name for name in given if not is_optional(kind, name)]
    lacking = [{**given, name: nothing} for name in needed for nothing in NOTHING]
    return lacking + [{key: value for key, value in given.items() if key != name} for name in needed]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_needed_and_what_is_not(account: Account, kind: int) -> None:
    ids = await things(account)
    good, before = forms(ids)[kind], content_of(account.archive)
    account.archive.cloud.executed.clear()

    for lacking in lacking_one(kind, good):
        name = next(name for name, value in good.items() if lacking.get(name) != value)
        reason = await account.socket.refused(kind, **lacking)
        assert reason.startswith((name, "PatientOrderUuid or PatientName must be given")) or reason.endswith("is empty")

    assert content_of(account.archive) == before
    assert not account.archive.cloud.executed
    if kind not in {4, 6, 9, 12, 32, 33}:  # these cannot be done three times
        for nothing in NOTHING:
            empty = {name: nothing if is_optional(kind, name) else value for name, value in good.items()}
            await account.socket.told(kind, **empty)
    await account.socket.told(kind, **{name: value for name, value in good.items() if not is_optional(kind, name)})


def wrong_of(name: str, value: Any) -> list[Any]:
    """Return values of the wrong kind."""
    if name.endswith("Uuid"):
        return ["x", 5, UNKNOWN[:-1], [UNKNOWN], f"{UNKNOWN} "]
    if name.endswith("UuidList"):
        return [UNKNOWN, [UNKNOWN, "x"], {"0": UNKNOWN}, [None]]
    if name in {"GroupId", "FlagId"}:
        return ["x", 1.5, True, [1]]
    if isinstance(value, bool):
        return ["true", 1, [True]]
    if name == "Modalities":
        return ["CT", [1]]
    if name == "JsonParameters":
        return ["{}", [{}], 5]
    if name == "PerformedDatetime":
        return ["2024-01-02 3", "2024-13-02 03:04", 5]
    if name.startswith("Email"):
        return ["nobody", "a@b", 5]
    return [5, ["x"], {}, *(["2024-02-30", "yesterday"] if "Date" in name else [])]


@pytest.mark.parametrize("kind", KINDS)
async def test_malformed_values_change_nothing(account: Account, kind: int) -> None:
    ids = await things(account)
    good, before = forms(ids)[kind], content_of(account.archive)
    account.archive.cloud.executed.clear()

    for name, value in good.items():
        for wrong in wrong_of(name, value):
            reason = await account.socket.refused(kind, **{**good, name: wrong})
            assert reason.startswith(f"{name}: ")
            assert UNKNOWN[:-1] not in reason

    assert content_of(account.archive) == before
    assert not account.archive.cloud.executed


@pytest.mark.parametrize("kind", KINDS)
async def test_unknown_things_change_nothing(account: Account, kind: int) -> None:
    ids = await things(account)
    good, before = forms(ids)[kind], content_of(account.archive)
    account.archive.cloud.executed.clear()

    for name, value in good.items():
        if name in {"ScheduledEquipmentUuid", "InstitutionUuidList"} or "Uuid" not in name:
            continue
        for unknown in [[UNKNOWN], [*value, UNKNOWN]] if isinstance(value, list) else [UNKNOWN]:
            reason = await account.socket.refused(kind, **{**good, name: unknown})
            assert reason.startswith(("no such ", "an order is ", "the order is "))

    assert content_of(account.archive) == before
    assert not account.archive.cloud.executed


async def test_an_order_is_named_with_its_institution(account: Account) -> None:
    ids = await things(account)
    before = content_of(account.archive)

    for kind in (6, 8, 10, 11, 12, 13):
        given = {**forms(ids)[kind], "PatientOrderInstitutionUuid": OTHER_INSTITUTION}
        assert await account.socket.refused(kind, **given) == "no such patient order in this institution"

    assert content_of(account.archive) == before


async def test_uuids_in_upper_case_are_the_same(account: Account) -> None:
    ids = await things(account)
    upper = Ids(ids.order.upper(), ids.other.upper(), ids.folder.upper(), ids.group.upper())

    for kind in sorted(KINDS, key=lambda kind: (kind in {4, 6}, kind)):
        await account.socket.told(kind, **{**forms(upper)[kind], "UserUuid": USER.upper()})


async def test_any_user_of_the_account_may_ask(account: Account) -> None:
    ids = await things(account)

    assert (await account.socket.told(13, **{**forms(ids)[13], "UserUuid": COLLEAGUE}))["PatientOrder"]
    assert await account.socket.refused(13, **{**forms(ids)[13], "UserUuid": ZERO}) == "there is no such user"


# --- how refusals look ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1, 0, 2, "0", None])
async def test_a_refusals_code(account: Account, code: Any) -> None:
    account.archive.cloud.oddities.refusal_code = code

    answer = await account.socket.general(4, FolderUuid=UNKNOWN)

    told = {"Success": False, "Message": "no such folder"}
    assert answer.envelope == {"ResponseCode": code, "ResponseMessage": told}


async def test_a_refusal_as_text(account: Account) -> None:
    oddities = account.archive.cloud.oddities
    oddities.refusal_as_text, oddities.refusal_code = True, 0

    unknown = await account.socket.general(4, FolderUuid=UNKNOWN)
    malformed = await account.socket.general(4, FolderUuid="x")
    nobody = await account.socket.general(4, UserUuid=UNKNOWN, FolderUuid=UNKNOWN)

    assert unknown.envelope == {"ResponseCode": 0, "ResponseMessage": "no such folder"}
    assert malformed.envelope == {"ResponseCode": 0, "ResponseMessage": "FolderUuid: a GUID is expected"}
    assert nobody.envelope == {
        "ResponseCode": 0,
        "ResponseMessage": "there is no such user",
        "Message": "there is no such user",
    }
