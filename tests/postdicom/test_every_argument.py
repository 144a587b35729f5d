"""Every parameter of every facade of both APIs reaches the wire: another value of it makes another request."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable
from datetime import date, datetime
from typing import Any

import pytest

from postdicom_async import CloudApi, PostDicom, UsageError
from postdicom_async.vendor.answers import Folder, VendorAnswer
from tests.cloud.forms import ONE, THREE, TWO
from tests.cloud.service import CloudService
from tests.cloud.test_requests import answered
from tests.postdicom.service import Service

TEXTS, UUIDS, LISTS = ("A-1", "B-2"), (ONE, TWO), ([ONE], [ONE, THREE])
DAYS = (date(2990, 1, 2), date(2991, 3, 4))

# Two values of every parameter there is, by its name.
VALUES: dict[str, tuple[Any, Any]] = {
    **dict.fromkeys(
        (
            "institution_uuid", "patient_order_uuid", "user_uuid", "user_group_uuid", "folder_uuid", "series_uuid",
            "parent_folder_uuid", "scheduled_equipment_uuid", "connected_group_uuid",
        ),
        UUIDS,
    ),
    **dict.fromkeys(
        ("institution_uuids", "patient_order_uuids", "folder_uuids", "user_uuids", "user_group_uuids"), LISTS
    ),
    **dict.fromkeys(
        (
            "name", "description", "title", "password", "patient_name", "patient_id", "other_patient_id",
            "study_description", "accession_number", "patient_complaints", "requested_procedure_id",
            "requested_procedure_description", "requesting_physician", "referring_physicians_name",
        ),
        TEXTS,
    ),
    **dict.fromkeys(
        (
            "expires", "patient_birthdate", "study_date_from", "study_date_to", "patient_birthdate_from",
            "patient_birthdate_to",
        ),
        DAYS,
    ),
    **dict.fromkeys(("email", "password_email"), ("a@example.org", "b@example.org")),
    **dict.fromkeys(("group_id", "flag_id"), (1, 2)),
    **dict.fromkeys(("downloadable", "with_orders"), (True, False)),
    "fields": ({"PatientID": "1"}, {"PatientID": "2"}),
    "modality": ("CT", "MR"),
    "modalities": (["CT"], ["CT", "MR"]),
    "order_scheduled_datetime": (datetime(2990, 1, 2, 3, 4), datetime(2990, 1, 2, 3, 5)),  # noqa: DTZ001
    "patient_sex": ("M", "F"),
    "tags": (["00100010"], ["00100020"]),
}  # fmt: skip

# What a call needs besides what its signature requires.
NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    ("CloudFolders", "update"): {"name": "N", "description": "D"},
    ("CloudFolders", "share"): {"expires": DAYS[0]},
}
# Taken so that code moves between the two APIs; here there is no such thing, and a call with it is refused.
REFUSED = {("CloudApi", "shares", method, "password") for method in ("create_link", "share_orders")}

FACADES = {
    PostDicom: ("orders", "folders", "shares"),
    CloudApi: ("orders", "folders", "shares", "view", "groups", "flags", "nodes", "users"),
}


def methods_of(client: type, facade: str) -> list[tuple[str, list[inspect.Parameter]]]:
    kind = inspect.get_annotations(getattr(client, facade).fget, eval_str=True)["return"]
    return [
        (name, list(inspect.signature(method).parameters.values())[1:])
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    ]


ARGUMENTS = [
    pytest.param(client, facade, method, one.name, id=f"{client.__name__}.{facade}.{method}({one.name})")
    for client, facades in FACADES.items()
    for facade in facades
    for method, parameters in methods_of(client, facade)
    for one in parameters
]


def test_the_walk_sees_everything() -> None:
    assert len(ARGUMENTS) > 130
    facades = {client: [name for name in dir(client) if name in VALUES_OF_FACADES] for client in FACADES}
    assert {client: set(names) for client, names in facades.items()} == {c: set(names) for c, names in FACADES.items()}


VALUES_OF_FACADES = {name for names in FACADES.values() for name in names}


async def call(client: Any, facade: str, method: str, argument: str, value: object) -> None:
    made = getattr(getattr(client, facade), method)
    kind = type(getattr(client, facade)).__name__
    required = [
        one.name for one in inspect.signature(made).parameters.values() if one.default is inspect.Parameter.empty
    ]
    given = {name: VALUES[name][0] for name in required} | NEEDED.get((kind, method), {}) | {argument: value}
    found = made(**given)
    if isinstance(found, Awaitable):
        await found
    elif isinstance(found, AsyncIterable):
        async for _ in found:
            pass


@pytest.mark.parametrize(("client", "facade", "method", "argument"), ARGUMENTS)
async def test_an_argument_reaches_the_wire(client: type, facade: str, method: str, argument: str) -> None:
    written = by_dicomweb if client is PostDicom else by_cloud

    def made(value: object) -> Callable[[Any], Awaitable[None]]:
        return lambda api: call(api, facade, method, argument, value)

    if (client.__name__, facade, method, argument) in REFUSED:
        with pytest.raises(UsageError, match=f"^{argument}|: {argument}: "):
            await written(made(VALUES[argument][0]))
        return
    first, second = [await written(made(value)) for value in VALUES[argument]]
    assert first != second, "it is lost on the way"


async def by_dicomweb(make: Callable[[Any], Awaitable[None]]) -> list[Any]:
    service = Service()
    async with service.client() as archive:
        await make(archive)
    return [sorted(request.headers.items()) for request in service.requests]


async def by_cloud(make: Callable[[Any], Awaitable[None]]) -> list[Any]:
    async with CloudService(answered) as service, service.client() as api:
        await make(api)
        return [(one.management_type, one.text) for one in service.sent()]


async def test_an_argument_that_an_operation_does_not_have_is_refused() -> None:
    service = Service()
    async with service.client() as archive:
        with pytest.raises(TypeError, match=r"create folder: no such argument: nmae$"):
            await archive.folders._caller.call("folders.create", Folder, {"name": "A", "nmae": None})
        with pytest.raises(TypeError, match="search folders: no such argument: parent, titel"):
            archive.folders._caller.search("folders.search", Folder, "", {"titel": "", "parent": ""})
    assert not service.requests
    async with CloudService() as cloud, cloud.client() as api:
        given = {"patient_order_uuid": ONE, "group_id": 1, "flag_id": 2, "flag": 2}
        with pytest.raises(TypeError, match=r"set flag: no such argument: flag$"):
            await api.flags._caller.call("flags.set", VendorAnswer, given)
        assert not cloud.sent()
