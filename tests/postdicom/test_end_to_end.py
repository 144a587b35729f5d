"""Every operation against the embedded archive, as an application uses them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from postdicom_async import NotFound, OutcomeUnknown, PatientOrder, PostDicom, ServerError
from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.postdicom.test_texts import NAMES
from tests.support.dicom_files import small_dicom, uid
from tests.support.plain_http import NO_AUTHORITIES

INSTITUTION = "5a1c0000-0000-4000-8000-000000000001"
OTHER = "5a1c0000-0000-4000-8000-000000000002"
USER = "5a1c0000-0000-4000-8000-000000000101"
GROUP = "5a1c0000-0000-4000-8000-000000000201"
UNKNOWN = "5a1c0000-0000-4000-8000-999999999999"
SOON = datetime.now(UTC).date() + timedelta(days=7)
STUDY, SERIES = uid(7), uid(7, 1)


@dataclass(frozen=True)
class Account:
    """A running archive, and a client of it."""

    server: EmbeddedArchive
    archive: PostDicom


@pytest.fixture
async def account(connect: Callable[..., PostDicom]) -> AsyncIterator[Account]:
    options = ArchiveOptions(
        institutions={INSTITUTION: "One", OTHER: "Two"}, users={USER: "Somebody"}, user_groups={GROUP: "Some"}
    )
    async with EmbeddedArchive(options=options) as server, connect(server.url) as archive:
        yield Account(server, archive)


async def new_order(archive: PostDicom, name: str = "Święty^Łukasz", modality: str = "CT") -> PatientOrder:
    return await archive.orders.create(
        institution_uuid=INSTITUTION,
        patient_name=name,
        patient_id="P-1",
        patient_birthdate=date(1970, 2, 3),
        modality=modality,
        patient_sex="M",
        study_description="Head",
    )


async def uploaded(archive: PostDicom) -> PatientOrder:
    """Upload a study of two images; the service makes an order of it."""
    report = await archive.upload([small_dicom(STUDY, SERIES, uid(7, 1, number), number=number) for number in (1, 2)])
    assert report.ok
    (order,) = [one for one in await archive.orders.search().all() if one.study_instance_uid == STUDY]
    return order


def known(uuid: str | None) -> str:
    assert uuid
    return uuid


async def test_from_an_order_to_a_link_that_opens(account: Account) -> None:
    archive = account.archive
    order = await uploaded(archive)
    uuid = known(order.patient_order_uuid)
    assert (order.institution_uuid, order.patient_name, order.modality) == (INSTITUTION, "TEST^FILE", "CT")

    folder = await archive.folders.create("Conference/Łódź", description="Monday")
    await archive.folders.add_order(uuid, [known(folder.folder_uuid)])
    (found,) = [one for one in await archive.folders.search(name="Łód", with_orders=True).all() if one.orders]
    assert (found.folder_uuid, found.order_count) == (folder.folder_uuid, 1)
    assert [one.patient_order_uuid for one in found.orders] == [uuid]

    link = await archive.folders.share(
        known(folder.folder_uuid), password='zażółć "x"', title="Łódź", expires=SOON, downloadable=True
    )  # fmt: skip
    await _opens(known(link.url), password='zażółć "x"', files=2)
    assert (await archive.folders.search(name="Łód").first()).is_shared  # type: ignore[union-attr]
    for share in (archive.shares.create_link, archive.shares.share_orders):
        link = await share([uuid], expires=SOON, downloadable=True)
        await _opens(known(link.url), files=2)


async def _opens(url: str, *, files: int, password: str | None = None) -> None:
    """Use a link as somebody with a browser and no account does."""
    async with httpx.AsyncClient(follow_redirects=True, verify=NO_AUTHORITIES, trust_env=False) as browser:
        if password is not None:
            assert (await browser.get(f"{url}/download")).status_code in (401, 403)
            assert (await browser.post(url, data={"password": "wrong"})).status_code == 403
            assert (await browser.post(url, data={"password": password})).status_code == 200
        assert (await browser.get(url)).status_code == 200
        content = (await browser.get(f"{url}/download")).content
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert sum(name.endswith(".dcm") for name in names) == files


async def test_an_order_without_images(account: Account) -> None:
    archive = account.archive
    order = await new_order(archive)
    uuid = known(order.patient_order_uuid)
    other = await new_order(archive, "Other^Patient", "MR")

    assert await _found(archive, patient_name="Święty") == [uuid]
    assert await _found(archive, modalities=["MR", "US"]) == [other.patient_order_uuid]
    assert await _found(archive, institution_uuids=[OTHER]) == []
    assert sorted(await _found(archive)) == sorted([uuid, known(other.patient_order_uuid)])
    assert await _found(archive, patient_birthdate_from="1970-02-03", patient_birthdate_to=date(1970, 2, 3)) != []
    assert await _found(archive, patient_birthdate_from=date(1970, 2, 4)) == []

    properties = await archive.orders.properties(INSTITUTION, uuid)
    assert (properties.patient_order_uuid, properties.patient_name) == (uuid, "Święty^Łukasz")
    assert (properties.study_description, properties.modality) == ("Head", "CT")

    await archive.orders.assign_to_user(uuid, USER)
    await archive.orders.assign_to_group(uuid, GROUP)
    properties = await archive.orders.properties(INSTITUTION, uuid)
    assert (properties.get_uuid("AssignedUserUuid"), properties.get_uuid("AssignedUserGroupUuid")) == (USER, GROUP)

    await archive.orders.delete(INSTITUTION, uuid)
    assert await _found(archive) == [other.patient_order_uuid]
    with pytest.raises(NotFound):
        await archive.orders.properties(INSTITUTION, uuid)


async def _found(archive: PostDicom, **filters: object) -> list[str]:
    return [known(order.patient_order_uuid) for order in await archive.orders.search(**filters).all()]  # type: ignore[arg-type]


async def test_deleting_an_order_deletes_its_images(account: Account) -> None:
    archive = account.archive
    order = await uploaded(archive)
    await archive.orders.delete(INSTITUTION, known(order.patient_order_uuid))
    assert await archive.search_for_studies().all() == []
    with pytest.raises(NotFound):
        await archive.retrieve_instance(STUDY, SERIES, uid(7, 1, 1))


async def test_tag_content(account: Account) -> None:
    archive = account.archive
    uuid = known((await uploaded(archive)).patient_order_uuid)
    (content,) = await archive.orders.tag_content(INSTITUTION, uuid, tags=["00100010", "00080060"])
    assert len(content.items) == 2
    assert "TEST^FILE" in str(content.items)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_names_come_back_as_they_went(account: Account, name: str) -> None:
    archive = account.archive
    order = await new_order(archive, name)
    assert (await archive.orders.properties(INSTITUTION, known(order.patient_order_uuid))).patient_name == name
    (called,) = [one for one in account.server.vendor_calls if one.operation == "createpatientorder"]
    assert called.parameters["PatientName"] == name
    described = await archive.folders.create("x", description=name)
    (found,) = [one for one in await archive.folders.search(name="x").all() if one.folder_uuid == described.folder_uuid]
    assert found.folder_description == name


@pytest.mark.parametrize("operation", ["createfolder", "deleteorder"])
async def test_an_answer_that_is_lost(account: Account, operation: str) -> None:
    """What the error says to do is what helps: a search tells whether it was done."""
    archive = account.archive
    uuid = known((await new_order(archive)).patient_order_uuid)
    account.server.fault(operation, "cut-after")
    with pytest.raises(OutcomeUnknown):
        await (
            archive.folders.create("once") if operation == "createfolder" else archive.orders.delete(INSTITUTION, uuid)
        )
    assert [one.operation for one in account.server.vendor_calls].count(operation) == 1
    folders = [one.folder_name for one in await archive.folders.search(name="once").all()]
    assert folders == (["once"] if operation == "createfolder" else [])
    assert len(await _found(archive)) == (1 if operation == "createfolder" else 0)


async def test_refusals_say_why(account: Account) -> None:
    archive = account.archive
    with pytest.raises(NotFound, match="no such institution"):
        await archive.orders.create(
            institution_uuid=UNKNOWN, patient_name="X", patient_id="1", patient_birthdate="2000-01-01", modality="CT"
        )
    with pytest.raises(NotFound, match="server says"):
        await archive.folders.add_order(UNKNOWN, [UNKNOWN])
    account.server.fault("searchfolder", "success-false")
    with pytest.raises(ServerError, match="server says: this fault was asked for"):
        await archive.folders.search().all()


async def test_answers_in_plain_text(connect: Callable[..., PostDicom]) -> None:
    options = ArchiveOptions(institutions={INSTITUTION: "One"}, text_answers=True)
    async with EmbeddedArchive(options=options) as server, connect(server.url) as archive:
        order = await new_order(archive)
        folder = await archive.folders.create("x")
        await archive.folders.add_order(known(order.patient_order_uuid), [known(folder.folder_uuid)])
        link = await archive.shares.create_link([known(order.patient_order_uuid)], expires=SOON)
        assert known(link.url).startswith(server.url)
        await archive.orders.delete(INSTITUTION, known(order.patient_order_uuid))
        assert await _found(archive) == []
