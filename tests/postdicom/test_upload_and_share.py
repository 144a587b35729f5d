"""Files, their orders in a folder, and a link, in one call: against the embedded archive, in both APIs."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from postdicom_async import (
    Anonymization,
    CloudApi,
    LocalFileError,
    NotFound,
    OutcomeUnknown,
    PostDicom,
    PostdicomError,
    ServerError,
    SharedUpload,
    Status,
    TransferError,
    UsageError,
)
from postdicom_async.emulator import EmbeddedArchive
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.plain_http import NO_AUTHORITIES

SOON = datetime.now(UTC).date() + timedelta(days=7)
FILES = [data for study in (1, 2) for data in study_files(2, study=study, series=1).values()]
PASSWORD = "cnry-s3cret"

Account = PostDicom | CloudApi


@pytest.fixture
async def archive() -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive() as running:
        yield running


@pytest.fixture
async def account(archive: EmbeddedArchive) -> AsyncIterator[PostDicom]:
    async with PostDicom(archive.url, "demo", "demo") as opened:
        yield opened


@pytest.fixture(params=["dicomweb", "cloud"])
async def either(request: pytest.FixtureRequest, archive: EmbeddedArchive) -> AsyncIterator[Account]:
    clients: dict[str, Account] = {
        "dicomweb": PostDicom(archive.url, "demo", "demo"),
        "cloud": CloudApi(archive.cloud_api_key, archive.cloud_account_key, router_url=archive.router_url),
    }
    async with clients[request.param] as opened:
        yield opened


async def downloaded(shared: SharedUpload, password: str | None = None) -> set[bytes]:
    """Open the link as its reader does."""
    assert shared.url is not None
    async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as browser:
        if password is not None:
            assert (await browser.get(f"{shared.url}/download")).status_code in {401, 403}
            assert (await browser.post(shared.url, data={"password": password})).status_code == 303
        answer = await browser.get(f"{shared.url}/download")
        with zipfile.ZipFile(io.BytesIO(answer.raise_for_status().content)) as zipped:
            return {zipped.read(name) for name in zipped.namelist()}


async def folders_of(account: PostDicom) -> dict[str | None, set[str]]:
    found = await account.folders.search(with_orders=True).all()
    return {folder.folder_name: {order.patient_order_uuid for order in folder.orders} for folder in found}


async def test_a_new_folder(either: Account, account: PostDicom) -> None:
    shared = await either.upload_and_share(
        FILES, expires=SOON, folder="Second opinion", password=PASSWORD, title="Two studies", downloadable=True
    )
    shared.raise_for_failures()
    assert shared.ok
    assert shared.step == ""
    assert shared.report.counts == {Status.STORED: 4}
    assert len(shared.patient_order_uuids) == 2
    assert shared.in_folder == shared.patient_order_uuids
    assert await folders_of(account) == {"Second opinion": set(shared.patient_order_uuids)}
    assert await downloaded(shared, PASSWORD) == set(FILES)
    assert PASSWORD not in repr(shared)
    assert str(shared.url) not in repr(shared)


async def test_a_folder_that_is_there_is_filled_and_not_shown(either: Account, account: PostDicom) -> None:
    folder = await account.folders.create("Conference")
    before = await account.upload_and_share(
        [small_dicom(uid(9), uid(9, 1), uid(9, 1, 1))], expires=SOON, folder_uuid=folder.folder_uuid
    )
    own: dict[str, Any] = {"institution_uuid": "Sample Institution"} if isinstance(either, CloudApi) else {}
    shared = await either.upload_and_share(
        FILES, expires=SOON, folder_uuid=folder.folder_uuid, downloadable=True, **own
    )
    assert shared.folder_uuid == folder.folder_uuid
    assert await folders_of(account) == {"Conference": {*before.patient_order_uuids, *shared.patient_order_uuids}}
    assert await downloaded(shared) == set(FILES)


async def test_no_folder(either: Account, account: PostDicom) -> None:
    seen: list[Any] = []
    shared = await either.upload_and_share(FILES, expires=SOON, downloadable=True, progress=seen.append)
    assert (shared.ok, shared.folder_uuid, shared.in_folder) == (True, None, ())
    assert await folders_of(account) == {}
    assert await downloaded(shared) == set(FILES)
    assert seen


async def test_again_nothing_is_sent_twice(either: Account, tmp_path: Path) -> None:
    first = await either.upload_and_share(FILES, expires=SOON)
    again = await either.upload_and_share(FILES, expires=SOON, downloadable=True, report=tmp_path / "report.jsonl")
    assert again.report.counts == {Status.PRESENT: 4}
    assert set(again.patient_order_uuids) == set(first.patient_order_uuids)
    assert await downloaded(again) == set(FILES)
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 4


async def test_anonymised_it_is_the_copy_that_is_shared(either: Account) -> None:
    rules = Anonymization({"PatientID": "CASE-1", "PatientName": "CASE^1"}, remap_uids=True)
    shared = await either.upload_and_share(FILES, expires=SOON, anonymize=rules, downloadable=True)
    assert len(shared.patient_order_uuids) == 2
    assert all(b"CASE-1" in data and b"TEST^FILE" not in data for data in await downloaded(shared))


@pytest.mark.parametrize("values", [{"PatientID": ""}, {"PatientID": "", "StudyDate": ""}], ids=["no ID", "nor day"])
async def test_orders_of_patients_without_an_id(account: PostDicom, values: dict[str, str]) -> None:
    shared = await account.upload_and_share(FILES, expires=SOON, anonymize=Anonymization(values))
    assert len(shared.patient_order_uuids) == 2


# --- what fails ------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no end": ({"expires": None}, "expires"),
    "an end that has been": ({"expires": "2001-01-01"}, "expires"),
    "two folders": ({"folder": "New", "folder_uuid": "0b6a1c52-1111-4222-8333-444455556666"}, "folder"),
    "no folder": ({"folder": ""}, "name"),
    "no UUID": ({"folder_uuid": "x"}, "folder_uuids"),
    "a title of nothing": ({"title": "T"}, "title"),
    "a description of nothing": ({"folder_uuid": "0b6a1c52-1111-4222-8333-444455556666", "description": "T"}, "descr"),
    "a blank password": ({"password": " "}, "password"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_said_before_anything_is_sent(either: Account, account: PostDicom, case: str) -> None:
    arguments, named = WRONG[case]
    with pytest.raises(UsageError) as caught:
        await either.upload_and_share(FILES, **{"expires": SOON, **arguments})
    assert (caught.value.argument or "").startswith(named)
    assert await account.search_for_studies().all() == []


async def test_the_cloud_api_has_no_password_for_orders(archive: EmbeddedArchive, account: PostDicom) -> None:
    async with CloudApi(archive.cloud_api_key, archive.cloud_account_key, router_url=archive.router_url) as api:
        with pytest.raises(UsageError, match="give folder="):
            await api.upload_and_share(FILES, expires=SOON, password=PASSWORD)
    assert await account.search_for_studies().all() == []


async def test_a_file_that_is_not_there(either: Account, tmp_path: Path) -> None:
    with pytest.raises(LocalFileError):
        await either.upload_and_share(tmp_path / "none", expires=SOON)


async def test_nothing_is_shared_unless_all_is_stored(either: Account, account: PostDicom) -> None:
    shared = await either.upload_and_share([*FILES, FILES[0][:-50]], expires=SOON, folder="New")
    assert shared.step == "upload"
    assert shared.report.counts[Status.STORED] == 4
    assert isinstance(shared.problem, TransferError)
    assert not shared.ok
    assert shared.url is None
    assert await folders_of(account) == {}
    with pytest.raises(TransferError):
        shared.raise_for_failures()


async def test_nothing_to_share(either: Account) -> None:
    shared = await either.upload_and_share([b"no DICOM"], expires=SOON, folder="New")
    assert shared.step == "upload"
    assert "nothing to share" in str(shared.problem)


FAULTS: dict[str, tuple[str, str, type[Exception], int, bool]] = {
    "the folder is not made": ("createfolder", "folder", OutcomeUnknown, 0, False),
    "an order does not come into it": ("addordertofolder", "folder", OutcomeUnknown, 0, True),
    "there is no link": ("sharefolderwithurl", "share", OutcomeUnknown, 2, True),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_what_exists_is_told(archive: EmbeddedArchive, account: PostDicom, case: str) -> None:
    operation, step, problem, in_folder, has_folder = FAULTS[case]
    archive.fault(operation, "cut-after")
    shared = await account.upload_and_share(FILES, expires=SOON, folder="New")
    assert shared.step == step
    assert isinstance(shared.problem, problem)
    assert len(shared.patient_order_uuids) == 2
    assert (shared.folder_uuid is not None) is has_folder
    assert len(shared.in_folder) == in_folder
    assert shared.link is None
    assert [call.operation for call in archive.vendor_calls].count(operation) == 1
    await finished(account, shared)


async def finished(account: PostDicom, shared: SharedUpload) -> None:
    """Do what the result says finishes it, and see that it does."""
    with pytest.raises(OutcomeUnknown) as caught:
        shared.raise_for_failures()
    assert caught.value.__notes__ == [shared.to_finish]
    if shared.folder_uuid is None:
        assert "folders.search" in shared.to_finish
        assert await folders_of(account) == {"New": set()}  # as was to be looked for; or another of this name:
        again = await account.upload_and_share(FILES, expires=SOON, folder="New", downloadable=True)
        again.raise_for_failures()
        assert again.report.counts == {Status.PRESENT: 4}
        assert again.to_finish == ""
        return
    assert ("folders.add_order" in shared.to_finish) is (shared.step == "folder")
    assert "folders.share(" in shared.to_finish
    if shared.step == "folder":
        for order in shared.patient_order_uuids:
            await account.folders.add_order(order, [shared.folder_uuid])
    assert await folders_of(account) == {"New": set(shared.patient_order_uuids)}
    link = await account.folders.share(shared.folder_uuid, expires=SOON, title="T", password="s", downloadable=True)
    assert await downloaded(replace(shared, link=link), "s") == set(FILES)


async def test_without_a_folder_the_same_call_finishes(archive: EmbeddedArchive, account: PostDicom) -> None:
    archive.fault("createsharelink", "cut-after")
    shared = await account.upload_and_share(FILES, expires=SOON, downloadable=True)
    assert (shared.step, shared.to_finish) == ("share", "to finish: make the same call again")
    archive.fault("addordertofolder", "cut-after")
    folder = await account.folders.create("Conference")
    into = await account.upload_and_share(FILES, expires=SOON, folder_uuid=folder.folder_uuid, downloadable=True)
    assert (into.step, into.to_finish) == ("folder", "to finish: make the same call again")
    again = await account.upload_and_share(FILES, expires=SOON, folder_uuid=folder.folder_uuid, downloadable=True)
    assert await downloaded(again) == set(FILES)


class Silent(httpx.AsyncHTTPTransport):
    """A service that does what is asked, and does not answer one operation."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.operation, self.asked = operation, asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        if request.url.path.endswith(self.operation):
            await answer.aclose()
            self.asked.set()
            await asyncio.Event().wait()
        return answer


@pytest.mark.parametrize(
    ("operation", "step", "problem", "has_folder"),
    [
        ("getpatientorderlist", "orders", PostdicomError, False),
        ("createfolder", "folder", OutcomeUnknown, False),
        ("sharefolderwithurl", "share", OutcomeUnknown, True),
    ],
)
async def test_cancelled_it_tells_what_exists(
    archive: EmbeddedArchive, operation: str, step: str, problem: type[Exception], has_folder: bool
) -> None:
    silent = Silent(operation)
    async with PostDicom(archive.url, "demo", "demo", transport=silent) as account:
        sharing = asyncio.create_task(account.upload_and_share(FILES, expires=SOON, folder="New"))
        await silent.asked.wait()
        sharing.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await sharing
    shared: SharedUpload = caught.value.shared  # type: ignore[attr-defined]
    assert shared.step == step
    assert type(shared.problem) is problem
    assert shared.report.counts == {Status.STORED: 4}
    assert len(shared.patient_order_uuids) == (0 if step == "orders" else 2)
    async with PostDicom(archive.url, "demo", "demo") as account:
        folders = [folder.folder_uuid async for folder in account.folders.search()]
    assert len(folders) == (0 if step == "orders" else 1)
    assert shared.folder_uuid == (folders[0] if has_folder else None)


async def test_cancelled_by_a_time_out_it_is_the_cause_that_tells(archive: EmbeddedArchive) -> None:
    silent = Silent("sharefolderwithurl")

    async def limited() -> None:
        async with PostDicom(archive.url, "demo", "demo", transport=silent) as account, asyncio.timeout(None) as limit:
            sharing = asyncio.create_task(account.upload_and_share(FILES, expires=SOON, folder="New"))
            await silent.asked.wait()
            limit.reschedule(0)
            await sharing

    with pytest.raises(TimeoutError) as caught:
        await limited()
    assert caught.value.__cause__.shared.folder_uuid  # type: ignore[union-attr]


async def test_a_folder_that_is_not_there(either: Account, account: PostDicom) -> None:
    nowhere = "0b6a1c52-1111-4222-8333-444455556666"
    shared = await either.upload_and_share(FILES, expires=SOON, folder_uuid=nowhere)
    assert shared.step == "folder"
    assert isinstance(shared.problem, NotFound | ServerError)
    assert (len(shared.patient_order_uuids), shared.in_folder, shared.url) == (2, (), None)
    assert len(await account.search_for_studies().all()) == 2


class Late(httpx.AsyncHTTPTransport):
    """A service whose orders appear after it was asked for them a few times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("getpatientorderlist") and self.times:
            self.times -= 1
            return httpx.Response(200, json=[])
        return await super().handle_async_request(request)


async def test_an_order_that_appears_late_is_waited_for(archive: EmbeddedArchive) -> None:
    async with PostDicom(archive.url, "demo", "demo", transport=Late(2)) as account:
        shared = await account.upload_and_share(FILES[:2], expires=SOON)
    assert len(shared.patient_order_uuids) == 1


async def test_an_order_that_does_not_appear(archive: EmbeddedArchive) -> None:
    async with PostDicom(archive.url, "demo", "demo", transport=Late(99)) as account:
        shared = await account.upload_and_share(FILES, expires=SOON, folder="New", patience=0)
    assert shared.step == "orders"
    assert isinstance(shared.problem, NotFound)
    assert shared.problem.temporary
    assert "2 of the studies are in no patient order" in str(shared.problem)
    assert shared.report.ok
