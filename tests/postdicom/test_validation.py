"""What is refused before anything is sent: the error names the Python argument and shows no value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from pydicom.valuerep import PersonName

from postdicom_async import PostDicom, UsageError
from postdicom_async.vendor.wire import Wire
from tests.postdicom.forms import ONE, TWO
from tests.postdicom.service import Service

LATER = "2999-12-31"
ORDER: dict[str, Any] = {
    "institution_uuid": ONE,
    "patient_name": "X",
    "patient_id": "1",
    "patient_birthdate": "2000-01-01",
    "modality": "CT",
}
BAD = "QUILLFEATHER"
BAD_UUIDS = [BAD, "", " ", "1234", ONE[:-1], ONE + "0", ONE.replace("-", ""), "{" + ONE + "}", ONE[:-1] + "٣", 17, b"x"]
BAD_DATES = [BAD, "2999-13-01", "2999-02-30", "31.12.2999", "29991231", "2999-12-31 10:00", 20300101, True]
# A link ends in the account's time zone, which is not known: what is over everywhere on earth is over.
OVER = (datetime.now(UTC) - timedelta(hours=12)).date() - timedelta(days=1)

EARLY = datetime(999, 1, 2)  # noqa: DTZ001 - the account's local time
Call = Callable[[PostDicom], Any]


def order(**changed: Any) -> Call:
    return lambda a: a.orders.create(**{**ORDER, **changed})


def search(**given: Any) -> Call:
    return lambda a: a.orders.search(**given)


def link(uuids: Any = (ONE,), **given: Any) -> Call:
    return lambda a: a.shares.create_link(uuids, **{"expires": LATER, **given})


def share(uuids: Any = (ONE,), **given: Any) -> Call:
    return lambda a: a.shares.share_orders(uuids, **{"expires": LATER, **given})


def folder_share(uuid: Any = ONE, **given: Any) -> Call:
    return lambda a: a.folders.share(uuid, **given)


def each(argument: str, values: list[Any], make: Callable[[Any], Call]) -> list[tuple[str, Call]]:
    return [(argument, make(value)) for value in values]


REFUSED: list[tuple[str, Call]] = [
    # missing or empty
    *each("patient_name", [None, "", "  ", PersonName("")], lambda v: order(patient_name=v)),
    *each("patient_id", [None, "", "\t\n"], lambda v: order(patient_id=v)),
    *each("patient_birthdate", [None, "", " "], lambda v: order(patient_birthdate=v)),
    *each("modality", [None, "", " "], lambda v: order(modality=v)),
    *each("name", [None, "", " "], lambda v: lambda a: a.folders.create(v)),
    *each("expires", [None, "", " "], lambda v: link(expires=v)),
    *each("expires", [None, "", " "], lambda v: share(expires=v)),
    *each("patient_order_uuids", [None, [], (), [""], [None], [ONE, ""]], link),
    *each("patient_order_uuids", [None, [], ["x"]], share),
    *each("folder_uuids", [None, [], [""], iter(())], lambda v: lambda a: a.folders.add_order(ONE, v)),
    # an item that is empty might find everything; a list that is empty does, and says so (documented)
    *each("institution_uuids", [[""]], lambda v: search(institution_uuids=v)),
    *each("modalities", [[""], [" "], [None], [1]], lambda v: search(modalities=v)),
    *each("tags", [[""]], lambda v: lambda a: a.orders.tag_content(ONE, TWO, tags=v)),
    # a blank password might be trimmed, and the link open to everybody
    *each("password", [" ", "\u00a0"], lambda v: link(password=v)),
    *each("password", [" ", "\t"], lambda v: share(password=v)),
    *each("password", [" ", "\u3000"], lambda v: folder_share(password=v)),
    # UUIDs
    *each("institution_uuid", BAD_UUIDS, lambda v: order(institution_uuid=v)),
    *each("scheduled_equipment_uuid", [BAD, 5], lambda v: order(scheduled_equipment_uuid=v)),
    *each("institution_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.properties(v, ONE)),
    *each("patient_order_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.properties(ONE, v)),
    *each("institution_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.delete(v, ONE)),
    *each("patient_order_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.delete(ONE, v)),
    *each("patient_order_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.assign_to_user(v, ONE)),
    *each("user_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.assign_to_user(ONE, v)),
    *each("patient_order_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.assign_to_group(v, ONE)),
    *each("user_group_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.assign_to_group(ONE, v)),
    *each("institution_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.tag_content(v, ONE)),
    *each("patient_order_uuid", BAD_UUIDS, lambda v: lambda a: a.orders.tag_content(ONE, v)),
    *each("series_uuid", [BAD, " "], lambda v: lambda a: a.orders.tag_content(ONE, ONE, series_uuid=v)),
    *each("patient_order_uuid", BAD_UUIDS, lambda v: lambda a: a.folders.add_order(v, [ONE])),
    *each("folder_uuid", BAD_UUIDS, folder_share),
    *each("parent_folder_uuid", [BAD, " "], lambda v: lambda a: a.folders.create("x", parent_folder_uuid=v)),
    *each("parent_folder_uuid", [BAD, " "], lambda v: lambda a: a.folders.search(parent_folder_uuid=v)),
    *each("folder_uuids", [[ONE, BAD], ONE, 5, {ONE: 1}, b"x"], lambda v: lambda a: a.folders.add_order(ONE, v)),
    *each("institution_uuids", [[BAD], ONE, 5], lambda v: search(institution_uuids=v)),
    # dates
    *each("patient_birthdate", BAD_DATES, lambda v: order(patient_birthdate=v)),
    *each("study_date_from", BAD_DATES, lambda v: search(study_date_from=v)),
    *each("study_date_to", [BAD], lambda v: search(study_date_to=v)),
    *each("patient_birthdate_from", [BAD], lambda v: search(patient_birthdate_from=v)),
    *each("patient_birthdate_to", [BAD], lambda v: search(patient_birthdate_to=v)),
    *each("expires", [*BAD_DATES, OVER, str(OVER), "1999-12-31", date.min], lambda v: link(expires=v)),
    *each("expires", [BAD, OVER, "1999-12-31"], lambda v: share(expires=v)),
    *each("expires", [BAD, OVER, "1999-12-31"], lambda v: folder_share(expires=v)),
    *each(
        "order_scheduled_datetime",
        [BAD, "2030-01-01", "2030-01-01T10:00", "2030-01-01 25:00", date(2030, 1, 1), 5,
         datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=3)))],
        lambda v: order(order_scheduled_datetime=v),
    ),
    # other types
    *each("patient_name", [17, b"X", ["X"], "half \ud83d"], lambda v: order(patient_name=v)),
    *each("patient_id", [17, PersonName("X"), "\udfff"], lambda v: order(patient_id=v)),
    *each("patient_sex", ["X", "male", 1, " "], lambda v: order(patient_sex=v)),
    *each("downloadable", ["True", 1, 0, "yes"], lambda v: link(downloadable=v)),
    *each("downloadable", ["False", 1], lambda v: share(downloadable=v)),
    *each("downloadable", ["no", 0], lambda v: folder_share(downloadable=v)),
    *each("with_orders", ["no", 0], lambda v: lambda a: a.folders.search(with_orders=v)),
    *each("password", [1234, b"x"], lambda v: link(password=v)),
    *each("modalities", ["CT", 5], lambda v: search(modalities=v)),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "call"), REFUSED, ids=[f"{i}-{name}" for i, (name, _) in enumerate(REFUSED)])
async def test_refused(argument: str, call: Call) -> None:
    service = Service()
    async with service.client() as archive:
        with pytest.raises(UsageError) as caught:
            await call(archive)
    error = caught.value
    assert service.requests == []
    assert error.message.startswith(f"{argument}: ")
    assert error.operation
    assert BAD not in f"{error}{error!r}{error.__context__!r}{error.__cause__!r}"


async def test_what_is_accepted() -> None:
    service = Service()
    today = datetime.now(UTC).date()
    async with service.client() as archive:
        await archive.shares.create_link((ONE.upper(), f" {TWO} "), expires=f" {today} ")
        assert service.parameters()["ExpireDate"] == str(today)
        await order(patient_sex=" o ", patient_birthdate="1970-1-2", order_scheduled_datetime=EARLY)(archive)
        sent = service.parameters()
        assert (sent["PatientSex"], sent["PatientBirthdate"]) == ("O", "1970-01-02")
        assert sent["OrderScheduledDatetime"] == "0999-01-02 00:00"
        await order(requesting_physician=PersonName("No^Julius"), referring_physicians_name=PersonName(""))(archive)
        sent = service.parameters()
        assert (sent["RequestingPhysician"], sent["ReferringPhysiciansName"]) == ("No^Julius", "")


async def test_a_closed_session_is_said_so() -> None:
    archive = Service().client()
    with pytest.raises(UsageError, match="async with"):
        await archive.folders.create("x")


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("description", lambda a: a.folders.create("x", description="y" * 8200)),
        ("description", lambda a: a.folders.create("x", description="ź" * 1400)),
        ("folder_uuids", lambda a: a.folders.add_order(ONE, _uuids(300))),
        ("patient_order_uuids", lambda a: a.shares.create_link(_uuids(200), expires=LATER)),
        ("patient_order_uuids", lambda a: a.shares.share_orders(_uuids(300), expires=LATER)),
        ("patient_name", lambda a: a.orders.search(patient_name="x" * 9000)),
        ("patient_name", lambda a: a.orders.search(institution_uuids=_uuids(4), patient_name="x" * 9000)),
    ],
)
async def test_too_long_for_a_header(argument: str, call: Call) -> None:
    service = Service()
    async with service.client() as archive:
        with pytest.raises(UsageError, match=f"^[a-z ]+: {argument}: too much for one request") as caught:
            await call(archive)
    assert service.requests == []
    assert "at most 8192" in str(caught.value)
    assert "split it" in str(caught.value)


def _uuids(count: int) -> list[str]:
    return [f"00000000-0000-0000-0000-{number:012x}" for number in range(count)]


async def test_the_limit_is_a_setting_and_exact() -> None:
    service = Service()
    fits = len('{"FolderName":"xxxx","FolderDescription":"","ParentFolderUuid":""}')
    wire = Wire(header_bytes=fits)
    async with service.client(wire=wire) as archive:
        await archive.folders.create("xxxx")
        with pytest.raises(UsageError, match="name: too much"):
            await archive.folders.create("xxxxx")
    async with service.client(wire=replace(wire, header_bytes=100_000)) as archive:
        await archive.folders.add_order(ONE, _uuids(1000))
    assert len(service.requests) == 2
