"""Every operation against the embedded archive, as an application uses them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from postdicom_async import ServerError, UsageError
from postdicom_async.emulator.cloud.orders import FLAGS
from tests.cloud.conftest import COLLEAGUE, GROUP, INSTITUTION, OTHER, USER, Account
from tests.support.dicom_files import small_dicom, uid
from tests.support.plain_http import NO_AUTHORITIES

UNKNOWN = "5a1c0000-0000-4000-8000-999999999999"
SOON = datetime.now(UTC).date() + timedelta(days=7)
STUDY, SERIES = uid(7), uid(7, 1)


async def new_order(account: Account, name: str = "Święty^Łukasz", modality: str = "CT", **more: object) -> str:
    order = await account.api.orders.create(
        institution_uuid=INSTITUTION,
        patient_name=name,
        patient_id="P-1",
        patient_birthdate=date(1970, 2, 3),
        modality=modality,
        order_scheduled_datetime="2030-04-05 06:07",
        **more,  # type: ignore[arg-type]
    )
    return known(order.patient_order_uuid)


def known(uuid: str | None) -> str:
    assert uuid
    return uuid


async def uploaded(account: Account) -> str:
    report = await account.api.upload(small_dicom(STUDY, SERIES, uid(7, 1, 1)), institution_uuid=INSTITUTION)
    (uuid,) = report.patient_order_uuids
    return uuid


async def page(url: str | None) -> str:
    async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as browser:
        answer = await browser.get(known(url), follow_redirects=True)
    assert answer.status_code == 200
    return answer.text


# --- orders ---------------------------------------------------------------------------------------------------------


async def test_an_order_is_found_on_both_sides(account: Account) -> None:
    uuid = await new_order(account, patient_sex="F", study_description="Head", accession_number="A-77")
    found = await account.api.orders.search(patient_name="Święty").all()
    assert [one.patient_order_uuid for one in found] == [uuid]
    assert (found[0].patient_name, found[0].modality, found[0].study_description) == ("Święty^Łukasz", "CT", "Head")
    async with account.postdicom() as archive:
        (same,) = await archive.orders.search(accession_number="A-77").all()
        assert (same.patient_order_uuid, same.patient_name) == (uuid, "Święty^Łukasz")
        made = await archive.orders.create(
            institution_uuid=OTHER, patient_name="Two", patient_id="2", patient_birthdate="2000-01-01", modality="MR"
        )
    (other,) = await account.api.orders.search(institution_uuids=[OTHER]).all()
    assert (other.patient_order_uuid, other.institution_uuid) == (made.patient_order_uuid, OTHER)


async def test_searches(account: Account) -> None:
    ct, mr = await new_order(account), await new_order(account, "Doe^Jane", "MR", other_patient_id="O-2")
    orders = account.api.orders
    for search, expected in (
        (orders.search(), {ct, mr}),
        (orders.search(modalities=["MR", "US"]), {mr}),
        (orders.search(other_patient_id="O-2"), {mr}),
        (orders.search(patient_id="P-1"), {ct, mr}),
        (orders.search(institution_uuids=[OTHER]), set()),
        (orders.search(patient_birthdate_from="1970-02-03", patient_birthdate_to="1970-02-03"), {ct, mr}),
        (orders.search(patient_birthdate_from="1970-02-04"), set()),
        (orders.search(study_date_to="1999-01-01"), set()),
    ):
        assert {one.patient_order_uuid for one in await search.all()} == expected
    assert await orders.search(patient_name="nobody").first() is None


async def test_studies_are_found_by_their_date(account: Account) -> None:
    uuid = await uploaded(account)
    search = account.api.orders.search
    found = await search(study_date_from=date(2020, 1, 2), study_date_to=date(2020, 1, 2)).all()
    assert [one.patient_order_uuid for one in found] == [uuid]
    assert found[0].study_instance_uid == STUDY
    assert not await search(study_date_from="2020-01-03").all()


async def test_an_order_by_the_documented_names(account: Account) -> None:
    made = await account.api.orders.create_from_json(
        {"PatientName": "Doe^Jane", "PatientID": "4711", "OrderModality": "CR", "PatientSex": "F"},
        institution_uuid="north",
    )
    (found,) = await account.api.orders.search(patient_id="4711").all()
    assert (found.patient_order_uuid, found.institution_uuid) == (made.patient_order_uuid, INSTITUTION)
    with pytest.raises(UsageError, match=r"Colour: no such field of an order; give .*OrderModality"):
        await account.api.orders.create_from_json({"Colour": "red"}, institution_uuid=INSTITUTION)


async def test_an_order_without_a_time_or_with_a_requesting_physician(account: Account) -> None:
    api, order = account.api, {"patient_name": "Doe", "patient_id": "1", "modality": "CT"}
    await api.orders.create(institution_uuid=INSTITUTION, **order)
    made = await api.orders.create(
        institution_uuid=INSTITUTION,
        order_scheduled_datetime="2030-01-01 10:00",
        requesting_physician="Who^Doctor",
        **order,
    )
    seen = await api.orders.properties(INSTITUTION, known(made.patient_order_uuid))
    assert seen.get_text("RequestingPhysician") == "Who^Doctor"


async def test_deleting(account: Account) -> None:
    uuid = await uploaded(account)
    await account.api.orders.delete(INSTITUTION, uuid)
    assert not await account.api.orders.search().all()
    with pytest.raises(ServerError, match=r"delete patient order: the service said no .*no such"):
        await account.api.orders.delete(INSTITUTION, uuid)


async def test_assignments(account: Account) -> None:
    orders, uuid = account.api.orders, await new_order(account)
    await orders.assign_to_user(uuid, COLLEAGUE)
    await orders.assign_to_group(uuid, GROUP)
    await orders.unassign_from_user(uuid, COLLEAGUE)
    await orders.unassign_from_group(uuid, GROUP)
    with pytest.raises(ServerError, match=r"unassign order from user: .*not assigned"):
        await orders.unassign_from_user(uuid, COLLEAGUE)
    await orders.assign_to_institution(uuid, OTHER)
    (found,) = await orders.search(institution_uuids=[OTHER]).all()
    assert found.patient_order_uuid == uuid


async def test_groups_of_orders(account: Account) -> None:
    one, two, three = [await new_order(account, name) for name in ("One", "Two", "Three")]
    groups = account.api.groups
    group = known((await groups.create([one, two], institution_uuid=INSTITUTION)).get_uuid("ConnectedGroupUuid"))
    await groups.add_orders(group, [three], institution_uuid="North")

    async def grouped() -> set[str | None]:
        found = await account.api.orders.search().all()
        return {order.patient_order_uuid for order in found if order.get_text("ConnectedGroupUuid") == group}

    assert await grouped() == {one, two, three}
    await groups.remove_orders([two], institution_uuid=INSTITUTION)
    assert await grouped() == {one, three}


async def test_flags(account: Account) -> None:
    uuid = await new_order(account)
    dictionary = await account.api.flags.dictionary()
    assert dictionary.raw
    group_id, (_, flags) = next(iter(FLAGS.items()))
    flag_id = next(iter(flags))
    await account.api.flags.set(uuid, group_id=group_id, flag_id=flag_id)
    seen = await account.api.orders.properties(INSTITUTION, uuid)
    assert seen.get("FlagList") == [{"GroupId": group_id, "FlagId": flag_id}]
    with pytest.raises(ServerError, match=r"set flag: .*no such flag"):
        await account.api.flags.set(uuid, group_id=999, flag_id=999)


# --- folders --------------------------------------------------------------------------------------------------------


async def test_folders(account: Account) -> None:
    folders, order = account.api.folders, await new_order(account)
    inner = await folders.create("Conference/Łódź", description="Monday")
    (outer,) = await folders.search(name="Conference").all()
    outer_uuid, inner_uuid = known(outer.folder_uuid), known(inner.folder_uuid)
    (found,) = await folders.search(parent_folder_uuid=outer_uuid).all()
    assert (found.folder_uuid, found.folder_name, found.folder_description) == (inner_uuid, "Łódź", "Monday")

    await folders.add_order(order, [inner_uuid], institution_uuid=INSTITUTION)
    contents = await folders.contents(inner_uuid)
    assert [one.patient_order_uuid for one in contents.orders] == [order]
    assert [one.folder_uuid for one in (await folders.contents(outer_uuid)).folders] == [inner_uuid]
    assert [one.patient_order_uuid for one in await account.api.orders.search_in_folder(inner_uuid).all()] == [order]
    async with account.postdicom() as archive:
        same = await archive.folders.search(name="Łódź", with_orders=True).all()
        assert [one.folder_uuid for one in same] == [inner_uuid]

    await folders.update(inner_uuid, name="Warszawa")
    (renamed,) = await folders.search(parent_folder_uuid=outer_uuid).all()
    assert (renamed.folder_name, renamed.folder_description) == ("Warszawa", "Monday")
    await folders.remove_orders(inner_uuid, [order])
    assert not (await folders.contents(inner_uuid)).orders
    await folders.delete(inner_uuid)
    assert not await folders.search(parent_folder_uuid=outer_uuid).all()


async def test_a_folder_must_be_changed_to_something(account: Account) -> None:
    with pytest.raises(UsageError, match="name: give a new name, a new description or both"):
        await account.api.folders.update(UNKNOWN)


# --- sharing and looking --------------------------------------------------------------------------------------------


async def test_links_open(account: Account) -> None:
    api, order = account.api, await uploaded(account)
    folder = known((await api.folders.create("Shared")).folder_uuid)
    await api.folders.add_order(order, [folder], institution_uuid=INSTITUTION)
    for link in (
        await api.shares.create_link([order]),
        await api.shares.create_link([order], expires=SOON, downloadable=True),
        await api.folders.share(folder, title="A title", expires=SOON),
        await api.view.order(order),
        await api.view.folder(folder),
        await api.view.patient("TEST^FILE"),
        await api.view.patient("TEST^FILE", patient_birthdate="1970-01-01"),
    ):
        assert "TEST" in await page(link.url)
    assert (await api.folders.share_to_upload(folder, expires=SOON, institution_uuid=INSTITUTION)).url


async def test_mails(account: Account) -> None:
    api, order = account.api, await new_order(account)
    folder = known((await api.folders.create("Shared")).folder_uuid)
    await api.shares.share_by_email([order], "a@example.org")
    await api.shares.share_by_email([order], "a@example.org", password_email="b@example.org", expires=SOON)
    await api.folders.share_by_email(folder, "a@example.org", expires=SOON, password="s3cret")
    await api.folders.share_to_upload_by_email(folder, "a@example.org", expires=SOON, institution_uuid="South")
    mails = account.server.cloud.mails
    assert [(mail.management_type, mail.email) for mail in mails] == [(n, "a@example.org") for n in (20, 36, 14, 16)]
    assert mails[1].password_email == "b@example.org"


async def test_sharing_inside_the_account(account: Account) -> None:
    api = account.api
    folder = known((await api.folders.create("Shared")).folder_uuid)
    await api.folders.share_with_users(folder, [COLLEAGUE], expires=SOON)
    await api.folders.share_with_groups(folder, [GROUP], expires=SOON)
    shares = list(account.server.cloud.folder_shares)
    assert [(share.user_uuids, share.user_group_uuids) for share in shares] == [((COLLEAGUE,), ()), ((), (GROUP,))]


async def test_a_link_to_orders_has_no_password(account: Account) -> None:
    with pytest.raises(UsageError, match="password: the Cloud API has no password for links to orders"):
        await account.api.shares.create_link([UNKNOWN], password="s3cret")


# --- the account ----------------------------------------------------------------------------------------------------


async def test_lists(account: Account) -> None:
    api = account.api
    assert {user.user_uuid for user in await api.users.all()} == {USER, COLLEAGUE}
    assert [group.get_text("UserGroupUuid") for group in await api.users.groups()] == [GROUP]
    assert await api.users.contacts()
    assert await api.nodes.all()


async def test_in_the_name_of_another_user(account: Account) -> None:
    order = await new_order(account)
    await account.api.as_user("Other Body").view.order(order)
    assert account.server.cloud.sent((17, 5))[-1].parameters["UserUuid"] == COLLEAGUE
    await account.api.view.order(order)
    assert account.server.cloud.sent((17, 5))[-1].parameters["UserUuid"] == USER


async def test_every_operation_was_refused_for_what_is_unknown(account: Account) -> None:
    api = account.api
    for call, reason in (
        (api.orders.properties(INSTITUTION, UNKNOWN), "no such"),
        (api.folders.delete(UNKNOWN), "no such folder"),
        (api.view.order(UNKNOWN), "no such"),
        (api.orders.create(institution_uuid=UNKNOWN, patient_name="X", patient_id="1", modality="CT"), "institution"),
        (api.shares.create_link([UNKNOWN]), "no such"),
    ):
        with pytest.raises(ServerError, match=f"the service said no .*{reason}"):
            await call
