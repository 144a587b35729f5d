"""Calls of PostDICOM's own operations, written by hand from what is known of the service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.emulator.support import make_instance, store

if TYPE_CHECKING:
    import httpx

    from postdicom_async.emulator import EmbeddedArchive

HEADERS = {
    "createsharelink": "ShareParameters",
    "sharepatientorderwithurl": "SharePatientOrderParameters",
    "createfolder": "CreateFolderParameters",
    "searchfolder": "SearchFolderParameters",
    "sharefolderwithurl": "ShareFolderParameters",
    "addordertofolder": "AddOrderToFolderParameters",
    "assignordertouser": "AssignOrderToUserParameters",
    "assignordertousergroup": "AssignOrderToUserGroupParameters",
    "createpatientorder": "CreatePatientOrderParameters",
    "getpatientorderproperties": "GetPatientOrderPropertiesParameters",
    "getdicomtagcontent": "GetDicomTagContentParameters",
    "getpatientorderlist": "GetPatientOrderListParameters",
    "deleteorder": "DeleteOrderParameters",
}
UNKNOWN = "99999999-9999-4999-8999-999999999999"


async def call(client: httpx.AsyncClient, operation: str, **parameters: Any) -> httpx.Response:
    """Send values as the samples do: text as it is, lists as JSON inside text, the whole as ASCII JSON."""
    texts = {key: json.dumps(value) if isinstance(value, list) else value for key, value in parameters.items()}
    return await raw_call(client, operation, json.dumps(texts).encode("ascii"))


async def raw_call(client: httpx.AsyncClient, operation: str, header: bytes) -> httpx.Response:
    return await client.get(f"/{operation}", headers={HEADERS[operation].encode(): header})


async def told(client: httpx.AsyncClient, operation: str, **parameters: Any) -> dict[str, Any]:
    """Make a call that must succeed, and return its answer."""
    answer = await call(client, operation, **parameters)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    assert content["Success"] is True
    assert content["Message"] == ""
    return content


def refused(answer: httpx.Response, status: int) -> str:
    """Insist on a refusal, and return its reason."""
    assert answer.status_code == status, answer.text
    reason: str = answer.headers["x-error-reason"]
    assert reason.isascii()
    assert reason.isprintable()
    return reason


async def upload(archive: EmbeddedArchive, client: httpx.AsyncClient, study: str = "1.2.3", **keywords: Any) -> str:
    """Store one instance and return the UUID of its order."""
    answer = await store(client, make_instance(study, f"{study}.1", f"{study}.1.1", **keywords))
    assert answer.status_code == 200
    return archive.order_uuid(study)


async def create_order(archive: EmbeddedArchive, client: httpx.AsyncClient, **more: str) -> str:
    """Create an order without images and return its UUID."""
    given = {
        "InstitutionUuid": archive.institution_uuid,
        "PatientName": "Doe^Jane",
        "PatientId": "P1",
        "PatientBirthdate": "1980-02-29",
        "Modality": "MR",
    }
    uuid: str = (await told(client, "createpatientorder", **{**given, **more}))["PatientOrderUuid"]
    return uuid


async def order_uuids(client: httpx.AsyncClient, **filters: Any) -> list[str]:
    found = (await told(client, "getpatientorderlist", **filters))["PatientOrderList"]
    return [order["PatientOrderUuid"] for order in found]


async def properties(archive: EmbeddedArchive, client: httpx.AsyncClient, uuid: str) -> dict[str, Any]:
    return await told(
        client,
        "getpatientorderproperties",
        PatientOrderInstitutionUuid=archive.institution_uuid,
        PatientOrderUuid=uuid,
    )
