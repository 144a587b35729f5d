"""What the vendor documents of its script and the script's public copy does otherwise: arguments or `CloudWire` say it.

The embedded archive takes each of them, as a service must that is documented so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite

from postdicom_async import CloudApi, CloudWire, Status, UsageError
from postdicom_async.emulator import EmbeddedArchive
from tests.cloud.conftest import COLLEAGUE, GROUP, INSTITUTION, OTHER, Account, client_of
from tests.cloud.forms import ONE
from tests.cloud.service import CloudService, Received, refusal, success
from tests.support.dicom_files import small_dicom

CHECK = (23, 2)
DAY = date(2030, 4, 5)
EXPIRES = "2999-12-31"


async def sent(call: Callable[[CloudApi], Awaitable[Any]], wire: CloudWire) -> dict[str, Any]:
    async with CloudService() as service, service.client(wire=wire) as api:
        await call(api)
        return service.sent()[0].fields


async def new_order(api: CloudApi, **more: Any) -> Any:
    return await api.orders.create(
        patient_name="DOE^JANE", patient_id="P-1", modality="CT", institution_uuid=INSTITUTION, **more
    )


# --- one by one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", [DAY, "2030-04-05"])
async def test_an_order_on_a_day(day: Any) -> None:
    async def create(api: CloudApi) -> None:
        await new_order(api, order_scheduled_datetime=day)

    assert (await sent(create, CloudWire()))["PerformedDatetime"] == "2030-04-05 ", "the script puts a space between"
    assert (await sent(create, CloudWire(after_date_alone="")))["PerformedDatetime"] == "2030-04-05"
    assert (await sent(create, CloudWire(after_date_alone=" 00:00")))["PerformedDatetime"] == "2030-04-05 00:00"

    async def by_json(api: CloudApi) -> None:
        await new_order(api, order_scheduled_datetime=day, requesting_physician="Who^Doctor")

    assert (await sent(by_json, CloudWire()))["JsonParameters"]["StudyInformation"]["StudyDate"] == "2030-04-05 "


async def test_ids_of_flags_as_text() -> None:
    async def by_text(api: CloudApi) -> None:
        await api.flags.set(ONE, group_id=" blue ", flag_id=7)

    fields = await sent(by_text, CloudWire(flag_ids_as_text=True))
    assert (fields["GroupId"], fields["FlagId"]) == ("blue", "7")
    with pytest.raises(UsageError, match=r"set flag: group_id: give a whole number, or CloudWire\("):
        await sent(by_text, CloudWire())


async def test_a_share_to_upload_names_no_institution() -> None:
    async def share(api: CloudApi, **more: Any) -> None:
        await api.folders.share_to_upload(ONE, expires=EXPIRES, **more)

    async def mail(api: CloudApi) -> None:
        await api.folders.share_to_upload_by_email(ONE, "a@example.org", expires=EXPIRES)

    documented = CloudWire(upload_share_has_institution=False)
    for call in (share, mail):
        assert "InstitutionUuid" in await sent(call, CloudWire())
        assert "InstitutionUuid" not in await sent(call, documented)
    with pytest.raises(UsageError, match="institution_uuid: CloudWire"):
        await sent(lambda api: share(api, institution_uuid=ONE), documented)


# --- the question whether a file is there ---------------------------------------------------------------------------


def in_utf_8(name: str, number: str) -> bytes:
    dataset = dcmread(BytesIO(small_dicom()))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = name, number
    buffer = BytesIO()
    dcmwrite(buffer, dataset)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("as_bytes", "name", "number"), [(True, "MÃ¼ller^JÃ¶rg", "Ã\x84-1"), (False, "Müller^Jörg", "Ä-1")]
)
async def test_names_in_the_question(as_bytes: bool, name: str, number: str) -> None:
    data = in_utf_8("Müller^Jörg", "Ä-1")
    async with CloudService() as service, service.client(wire=CloudWire(names_as_bytes=as_bytes)) as api:
        await api.upload(data)
        (asked,) = [one.fields for one in service.sent(23) if one.key == CHECK]
    assert (asked["PatientName"], asked["PatientId"]) == (name, number)


async def test_a_refusal_shows_the_name_in_neither_spelling() -> None:
    def answer(request: Received) -> bytes:
        words = "of MÃ¼ller^JÃ¶rg, Müller, MÃ¼ller and Jörg Ã\x84-1 nothing is taken"
        return refusal(request, words) if request.key == (23, 3) else success(request)

    async with CloudService(answer) as service, service.client() as api:
        report = await api.upload(in_utf_8("Müller^Jörg", "Ä-1"))
    (outcome,) = report.outcomes
    assert outcome.status is Status.FAILED
    assert not [part for part in ("ller", "rg,", "Jörg", "-1 ") if part in str(outcome.reason)]


# --- the embedded archive takes it all ------------------------------------------------------------------------------


async def test_the_embedded_archive_knows_what_is_documented(account: Account) -> None:
    api, cloud = account.api, account.server.cloud
    order = await new_order(api, order_scheduled_datetime=DAY)
    assert [one.patient_order_uuid for one in await api.orders.search(institution_uuids=[], modalities=[]).all()] == [
        order.patient_order_uuid
    ]
    folder = (await api.folders.create("F")).folder_uuid
    await api.folders.share_with_users(folder, [COLLEAGUE], expires=EXPIRES, downloadable=True)
    await api.folders.share_with_groups(folder, [GROUP], expires=EXPIRES, downloadable=False)
    assert len(cloud.folder_shares) == 2


async def test_the_embedded_archive_takes_the_switched_forms(account: Account) -> None:
    wire = CloudWire(flag_ids_as_text=True, upload_share_has_institution=False, names_as_bytes=False)
    server: EmbeddedArchive = account.server
    async with client_of(server, wire=wire) as api:
        order = await new_order(api)
        await api.flags.set(order.patient_order_uuid, group_id="1", flag_id=2)
        folder = (await api.folders.create("F")).folder_uuid
        assert (await api.folders.share_to_upload(folder, expires=EXPIRES)).url
        await api.folders.share_to_upload_by_email(folder, "a@example.org", expires=EXPIRES)
        data = in_utf_8("Müller^Jörg", "Ä-1")
        for status in (Status.STORED, Status.PRESENT):
            report = await api.upload(data, institution_uuid=OTHER)
            assert report.counts == {status: 1}
