"""Links and views made over the Cloud API: who has one opens the page."""

from __future__ import annotations

import html
import re
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest

from tests.emulator.cloud_support import (
    COLLEAGUE,
    GROUP,
    INSTITUTION,
    LATER,
    UNKNOWN,
    USER,
    Account,
    account_fixture,  # noqa: F401 - a fixture
    create,
    make,
    order_of,
)
from tests.emulator.vendor_support import call, refused, told, upload

if TYPE_CHECKING:
    import httpx

MAIL, SECOND = "a@example.org", '"two words"@[10.0.0.1]'
YESTERDAY = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


def text_of(page: httpx.Response) -> str:
    assert page.status_code == 200
    return html.unescape(re.sub(r"<[^>]+>", " ", page.text.partition("<body>")[2]))


async def opened(account: Account, url: str) -> str:
    """Open a link as somebody without an account."""
    assert url.startswith(f"{account.archive.url}/share/")
    return text_of(await account.visitor.get(url))


async def names_of(account: Account, url: str) -> list[str]:
    """Return which of these names are on the page of a link."""
    page = await opened(account, url)
    return [name for name in ("First", "Second", "Third") if name in page]


async def people(account: Account) -> list[str]:
    """Make three orders: of a study, over the Cloud API, over the other."""
    study = await upload(account.archive, account.client, PatientName="First^A", PatientBirthDate="19800229")
    made = await told(
        account.client, "createpatientorder", InstitutionUuid=INSTITUTION, PatientName="Third^C", PatientId="3",
        PatientBirthdate="1990-01-01", Modality="CT",
    )  # fmt: skip
    return [study, await create(account.socket, PatientName="Second^B"), made["PatientOrderUuid"]]


# --- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [21, 37])
async def test_a_link_to_orders(account: Account, kind: int) -> None:
    first, second, third = await people(account)
    until = {"ExpireDate": LATER} if kind == 37 else {}

    url = (await account.socket.told(kind, OrderUuidList=[first, third], UserCanDownloadStudies=True, **until))[
        "Result"
    ]

    assert await names_of(account, url) == ["First", "Third"]
    assert ("2099" in await opened(account, url)) is (kind == 37)
    downloaded = await account.visitor.get(f"{url}/download/{first}")
    with ZipFile(BytesIO(downloaded.content)) as files:
        assert files.namelist() == ["1.2.3.1/1.2.3.1.1.dcm"]
    assert (await order_of(account.socket, first))["IsShared"] is True
    assert (await order_of(account.socket, second))["IsShared"] is False
    assert not account.archive.cloud.mails


@pytest.mark.parametrize("kind", [21, 37, 20, 36])
async def test_files_only_when_allowed(account: Account, kind: int) -> None:
    first, *_ = await people(account)
    more = {**({"ExpireDate": LATER} if kind > 30 else {}), **({"Email": MAIL} if kind in {20, 36} else {})}

    for allowed in (False, None):
        told = await account.socket.told(kind, OrderUuidList=[first], UserCanDownloadStudies=allowed, **more)
        url = told.get("Result") or account.archive.cloud.mails[-1].link
        assert "Download" not in await opened(account, url)
        assert (await account.visitor.get(f"{url}/download/{first}")).status_code == 403


async def test_links_expire(account: Account) -> None:
    first, *_ = await people(account)
    folder = await make(account.socket, "a")
    given: list[tuple[int, dict[str, Any]]] = [
        (37, {"OrderUuidList": [first]}),
        (36, {"OrderUuidList": [first], "Email": MAIL}),
        (14, {"FolderUuid": folder, "Email": MAIL}),
        (15, {"FolderUuid": folder}),
        (16, {"FolderUuid": folder, "Email": MAIL, "InstitutionUuid": INSTITUTION}),
        (17, {"FolderUuid": folder, "InstitutionUuid": INSTITUTION}),
    ]
    for kind, parameters in given:
        answer = await account.socket.told(kind, **parameters, ExpireDate=YESTERDAY)
        url = answer.get("Result") or account.archive.cloud.mails[-1].link
        assert (await account.visitor.get(url)).status_code == 410
    assert (await order_of(account.socket, first))["IsShared"] is False


async def test_unknown_orders_are_not_shared(account: Account) -> None:
    first, *_ = await people(account)

    assert await account.socket.refused(21, OrderUuidList=[first, UNKNOWN]) == "no such order"

    assert (await order_of(account.socket, first))["IsShared"] is False


@pytest.mark.parametrize("kind", [20, 36])
async def test_orders_are_shared_by_mail(account: Account, kind: int) -> None:
    first, *_ = await people(account)
    given = {"OrderUuidList": [first], **({"ExpireDate": LATER} if kind == 36 else {})}

    answer = await account.socket.told(kind, **given, Email=MAIL, EmailForSendingSharePassword=SECOND)
    await account.socket.told(kind, **given, Email=MAIL)
    await account.socket.told(kind, **given, Email=MAIL, EmailForSendingSharePassword="")

    assert "Result" not in answer, "the link is in the mail alone"
    mails = list(account.archive.cloud.mails)
    assert [(mail.management_type, mail.email, mail.password_email, mail.password) for mail in mails] == [
        (kind, MAIL, SECOND, ""),
        (kind, MAIL, MAIL, ""),
        (kind, MAIL, MAIL, ""),
    ]
    assert len({mail.link for mail in mails}) == 3
    assert [await names_of(account, mail.link) for mail in mails] == [["First"]] * 3
    assert MAIL not in repr(mails)
    assert mails[0].link not in repr(mails)


# --- folders ----------------------------------------------------------------------------------------------------------


async def shared_folder(account: Account) -> str:
    """Make a folder with two orders in it, the second one deeper."""
    first, second, _ = await people(account)
    top = await make(account.socket, "top")
    low = await make(account.socket, "low", top)
    for order, folder in ((first, top), (second, low)):
        await told(account.client, "addordertofolder", PatientOrderUuid=order, FolderUuidList=[folder])
    return top


@pytest.mark.parametrize("kind", [14, 15, 16, 17])
async def test_a_folder_is_shared_behind_a_password(account: Account, kind: int) -> None:
    folder = await shared_folder(account)
    more = {**({"Email": MAIL} if kind in {14, 16} else {}), **({"InstitutionUuid": INSTITUTION} if kind > 15 else {})}
    secret = {"SharePassword": "pässwörd", "ShareTitle": "Title <i>", "ShareDescription": "One\nTwo"}

    answer = await account.socket.told(
        kind, FolderUuid=folder, **secret, **more, ExpireDate=LATER, UserCanDownloadStudies=True
    )

    if kind in {14, 16}:
        (mail,) = account.archive.cloud.mails
        assert (mail.management_type, mail.email, mail.password) == (kind, MAIL, "pässwörd")
    url = answer["Result"] if kind in {15, 17} else mail.link
    closed = await opened(account, url)
    assert "First" not in closed
    assert (await account.visitor.post(url, data={"password": "wrong"})).status_code == 403
    entered = await account.visitor.post(url, data={"password": "pässwörd"}, follow_redirects=True)
    for expected in ("Title <i>", "One\nTwo", "First", "Second", "Download", "31 December 2099"):
        assert expected in text_of(entered)
    assert "Third" not in entered.text
    for side in (await told(account.client, "searchfolder"))["FolderList"]:
        assert side["IsShared"] is True
    assert (await account.socket.told(3, ParentFolderUuid=folder))["Folder"]["IsShared"] is True


async def test_a_link_of_the_other_side_shows_here(account: Account) -> None:
    folder = await shared_folder(account)
    await told(account.client, "sharefolderwithurl", FolderUuid=folder)

    assert (await account.socket.told(3, ParentFolderUuid=folder))["Folder"]["IsShared"] is True


async def test_the_link_of_a_deleted_folder_shows_nothing(account: Account) -> None:
    folder = await shared_folder(account)
    url = (await account.socket.told(15, FolderUuid=folder, ExpireDate=LATER))["Result"]
    assert await names_of(account, url) == ["First", "Second"]

    await account.socket.told(4, FolderUuid=folder)

    page = await account.visitor.get(url)
    assert not [name for name in ("First", "Second", "Third") if name in page.text]


async def test_a_folder_is_shared_inside_the_account(account: Account) -> None:
    folder = await make(account.socket, "a")

    await account.socket.told(18, FolderUuid=folder, SharedUserUuidList=[USER, COLLEAGUE, USER], ExpireDate=LATER)
    await account.socket.told(19, FolderUuid=folder, SharedUserGroupUuidList=[GROUP], ExpireDate=LATER)
    for kind, name in ((18, "SharedUserUuidList"), (19, "SharedUserGroupUuidList")):
        assert await account.socket.refused(kind, FolderUuid=folder, **{name: [UNKNOWN]}, ExpireDate=LATER)

    until = date.fromisoformat(LATER)
    shares = [(one.folder_uuid, one.user_uuids, one.user_group_uuids, one.expires) for one in
              account.archive.cloud.folder_shares]  # fmt: skip
    assert shares == [(folder, (USER, COLLEAGUE), (), until), (folder, (), (GROUP,), until)]


# --- views ------------------------------------------------------------------------------------------------------------


async def test_a_view_of_an_order(account: Account) -> None:
    _, second, _ = await people(account)

    url = (await account.socket.told(5, PatientOrderUuid=second))["Result"]

    assert await names_of(account, url) == ["Second"]
    assert "Download" not in await opened(account, url)


async def test_a_view_of_a_patient(account: Account) -> None:
    await people(account)
    await create(account.socket, PatientName="First^A", PatientsBirthDate="1990-01-01", StudyDescription="Another")

    both = await opened(account, (await account.socket.told(5, PatientName="First^A"))["Result"])
    one = await opened(account, (await account.socket.told(5, PatientName="First^A", BirthDate="1980-02-29"))["Result"])

    assert "2 studies" in both
    assert "Another" in both
    assert "Another" not in one
    for given in ({"PatientName": "First"}, {"PatientName": "First^A", "BirthDate": "1980-03-01"}):
        assert await account.socket.refused(5, **given) == "no order of such a patient"


async def test_a_view_of_a_folder(account: Account) -> None:
    folder = await shared_folder(account)

    url = (await account.socket.told(26, FolderUuid=folder))["Result"]

    assert await names_of(account, url) == ["First", "Second"]


async def test_what_is_shared_here_is_shared_there(account: Account) -> None:
    first, *_ = await people(account)
    answer = await call(account.client, "sharepatientorderwithurl", OrderUuidList=[UNKNOWN], ExpireDate=LATER)
    refused(answer, 404)

    url = (await told(account.client, "sharepatientorderwithurl", OrderUuidList=[first], ExpireDate=LATER))["Result"]

    assert await names_of(account, url) == ["First"]
    assert (await order_of(account.socket, first))["IsShared"] is True
