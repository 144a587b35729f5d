"""How the operations may be written, refused and made to fail."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from postdicom_async.emulator.operations.table import OPERATIONS
from postdicom_async.emulator.vendor.parameters import BadParameters, Given, read_loosely
from postdicom_async.errors import UsageError
from tests.emulator.support import client_of, make_instance, related
from tests.emulator.vendor_support import (
    HEADERS,
    UNKNOWN,
    call,
    create_order,
    order_uuids,
    properties,
    raw_call,
    refused,
    told,
    upload,
)
from tests.support.large import examples

if TYPE_CHECKING:
    from datetime import date

REQUIRED = {
    "createsharelink": ["PatientOrderInfoList", "ExpireDate"],
    "sharepatientorderwithurl": ["OrderUuidList", "ExpireDate"],
    "createfolder": ["FolderName"],
    "searchfolder": [],
    "sharefolderwithurl": ["FolderUuid"],
    "addordertofolder": ["PatientOrderUuid", "FolderUuidList"],
    "assignordertouser": ["PatientOrderUuid", "AssignedUserUuid"],
    "assignordertousergroup": ["PatientOrderUuid", "AssignedUserGroupUuid"],
    "createpatientorder": ["InstitutionUuid", "PatientName", "PatientId", "PatientBirthdate", "Modality"],
    "getpatientorderproperties": ["PatientOrderInstitutionUuid", "PatientOrderUuid"],
    "getdicomtagcontent": ["PatientOrderInstitutionUuid", "PatientOrderUuid"],
    "getpatientorderlist": [],
    "deleteorder": ["PatientOrderInstitutionUuid", "PatientOrderUuid"],
}
VALUES = {
    "PatientOrderInfoList": json.dumps([json.dumps({"PatientOrderUuid": UNKNOWN})]),
    "OrderUuidList": json.dumps([UNKNOWN]),
    "FolderUuidList": json.dumps([UNKNOWN]),
    "ExpireDate": "2099-12-31",
    "PatientBirthdate": "1980-01-01",
    "FolderName": "x",
    "PatientName": "Doe^Jane",
    "PatientId": "1",
    "Modality": "CT",
}
MALFORMED: list[tuple[str, str, object]] = [
    ("createpatientorder", "InstitutionUuid", "1"),
    ("createpatientorder", "InstitutionUuid", UNKNOWN.replace("-", "")),
    ("createpatientorder", "PatientName", 7),
    ("createpatientorder", "PatientName", "half \ud800"),
    ("createpatientorder", "PatientBirthdate", "1980-02-30"),
    ("createpatientorder", "PatientBirthdate", "1980-2-3"),
    ("createpatientorder", "PatientBirthdate", "19800203"),
    ("createpatientorder", "PatientSex", "X"),
    ("createpatientorder", "OrderScheduledDatetime", "2030-01-01"),
    ("createpatientorder", "OrderScheduledDatetime", "2030-01-01T10:00"),
    ("createsharelink", "PatientOrderInfoList", f'["{UNKNOWN}"]'),
    ("createsharelink", "PatientOrderInfoList", '["{}"]'),
    ("createsharelink", "ExpireDate", "tomorrow"),
    ("createsharelink", "Downloadable", "yes"),
    ("createsharelink", "Downloadable", 1),
    ("sharepatientorderwithurl", "OrderUuidList", UNKNOWN),
    ("sharepatientorderwithurl", "OrderUuidList", '["x"]'),
    ("addordertofolder", "FolderUuidList", "{}"),
    ("searchfolder", "ParentFolderUuid", "root"),
    ("searchfolder", "GetOrdersInFolder", "2"),
    ("getpatientorderlist", "ModalityList", "CT"),
    ("getpatientorderlist", "StudyDateFrom", "20240101"),
    ("getdicomtagcontent", "DicomTagIdList", '["0010"]'),
]


def good(operation: str) -> dict[str, Any]:
    return {name: VALUES.get(name, UNKNOWN) for name in REQUIRED[operation]}


@pytest.mark.parametrize("operation", HEADERS)
async def test_what_is_required(client: httpx.AsyncClient, operation: str) -> None:
    for name in REQUIRED[operation]:
        absent: list[dict[str, Any]] = [{}, {name: ""}, {name: " "}, {name: None}, {name: []}, {name: "[]"}]
        for lacking in absent:
            if lacking == {name: "[]"} and "List" not in name:
                continue
            header = json.dumps({**{k: v for k, v in good(operation).items() if k != name}, **lacking}).encode()
            assert name in refused(await raw_call(client, operation, header), 400)


@pytest.mark.parametrize("operation", HEADERS)
async def test_headers_that_are_no_object(client: httpx.AsyncClient, operation: str) -> None:
    assert HEADERS[operation] in refused(await client.get(f"/{operation}"), 400)
    for header in (b"", b"{", b"[]", b'"text"', b"\xc5\x81{", b"[" * 5000, b"{'FolderName': 'x'}"):
        assert HEADERS[operation] in refused(await raw_call(client, operation, header), 400)
    twice = [(HEADERS[operation], json.dumps(good(operation)))] * 2
    assert HEADERS[operation] in refused(await client.get(f"/{operation}", headers=twice), 400)


async def test_without_the_account_nothing_happens(embedded_archive: EmbeddedArchive) -> None:
    async with client_of() as stranger:
        for operation, name in HEADERS.items():
            answer = await stranger.get(
                f"{embedded_archive.url}/{operation}", headers={name: json.dumps(good(operation))}
            )
            refused(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Basic ")

    assert embedded_archive.vendor_calls == ()


async def test_only_get(client: httpx.AsyncClient) -> None:
    for operation, name in HEADERS.items():
        for method in ("POST", "PUT", "DELETE", "HEAD"):
            answer = await client.request(method, f"/{operation}", headers={name: json.dumps(good(operation))})
            assert refused(answer, 405)


async def test_malformed_values_are_named_and_not_shown(client: httpx.AsyncClient) -> None:
    for operation, name, value in MALFORMED:
        header = json.dumps({**good(operation), name: value}).encode()

        reason = refused(await raw_call(client, operation, header), 400)

        assert reason.startswith(f"{name}: "), (operation, name, value)
        assert str(value) not in reason.removeprefix(name)


async def test_both_samples_forms(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    uuid = await create_order(embedded_archive, client)
    folder = (await told(client, "createfolder", FolderName="a"))["FolderUuid"]
    await told(client, "addordertofolder", PatientOrderUuid=uuid, FolderUuidList=[folder])

    for spelling in ("PatientOrderUuid", "PatientOrderUUID"):
        for boolean in ("True", "False", "true", "false", True, False, ""):
            for info in ([json.dumps({spelling: uuid})], [{spelling: uuid}]):
                for orders in (info, json.dumps(info)):
                    given = {
                        "PatientOrderInfoList": orders,
                        "ExpireDate": "2099-01-01",
                        "SharePassword": "",
                        "Downloadable": boolean,
                    }
                    answer = await raw_call(client, "createsharelink", json.dumps(given).encode())
                    assert answer.json()["Success"] is True
        found = await told(client, "getpatientorderproperties", **{
            "PatientOrderInstitutionUUID": embedded_archive.institution_uuid.upper(), spelling: uuid.upper()
        })  # fmt: skip
        assert found["PatientOrderUuid"] == uuid
    for boolean in ("TRUE", True):
        answer = await raw_call(client, "searchfolder", json.dumps({"GetOrdersInFolder": boolean}).encode())
        assert len(answer.json()["FolderList"][0]["PatientOrderList"]) == 1


async def test_paths_and_other_headers(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    for number, path in enumerate(("/createfolder", "/createfolder/", "//createfolder")):
        answer = await client.get(
            httpx.URL(embedded_archive.url + path),
            headers={"ContentType": "application/json", "CREATEfolderparameters": json.dumps({"FolderName": "x"})},
        )
        assert answer.json()["FolderName"] == "x"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert len(embedded_archive.vendor_calls) == number + 1


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
async def test_raw_bytes_are_tolerated(client: httpx.AsyncClient, charset: str) -> None:
    header = json.dumps({"FolderName": "Müller & Söhne"}, ensure_ascii=False).encode(charset)

    assert (await raw_call(client, "createfolder", header)).json()["FolderName"] == "Müller & Söhne"


async def test_a_large_header(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    uuid = await create_order(embedded_archive, client)

    found = await order_uuids(client, InstitutionUuidList=[UNKNOWN] * 1000 + [embedded_archive.institution_uuid])

    assert found == [uuid]


async def test_a_sample_clients_upload_becomes_an_order(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    kind = 'multipart/related; type="application/dicom"; boundary="DICOM DATA BOUNDARY"'
    answer = await client.post(
        "/", content=related([make_instance()], "DICOM DATA BOUNDARY"), headers={"Content-Type": kind}
    )

    assert answer.status_code == 200
    assert await order_uuids(client) == [embedded_archive.order_uuid("1.2.3")]


async def test_calls_are_recorded(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    await told(client, "getpatientorderlist", PatientName="Łuk", ModalityList=["CT"], PatientId="")

    (made,) = embedded_archive.vendor_calls
    assert made.operation == "getpatientorderlist"
    assert made.parameters == {"PatientName": "Łuk", "ModalityList": ["CT"]}
    assert "Łuk" not in repr(made)


async def test_text_answers() -> None:
    async with EmbeddedArchive(options=ArchiveOptions(text_answers=True)) as archive, client_of(archive) as client:
        order = await upload(archive, client)
        folder = (await call(client, "createfolder", FolderName="a")).text
        made = await call(client, "addordertofolder", PatientOrderUuid=order, FolderUuidList=[folder])
        shared = await call(client, "sharefolderwithurl", FolderUuid=folder)
        found = await call(client, "getpatientorderlist")

    assert made.text == "Success"
    assert made.headers["content-type"] == "text/plain; charset=utf-8"
    assert shared.text.startswith(f"{archive.url}/share/")
    assert json.loads(found.text)["PatientOrderList"][0]["PatientOrderUuid"] == order


async def test_refusals_of_status_200() -> None:
    async with EmbeddedArchive(options=ArchiveOptions(success_false=True)) as archive, client_of(archive) as client:
        for answer in (
            await call(client, "createfolder", FolderName=""),
            await call(client, "sharefolderwithurl", FolderUuid=UNKNOWN),
        ):
            assert answer.status_code == 200
            assert answer.json()["Success"] is False
            assert answer.json()["Message"]


async def test_institutions_users_and_groups() -> None:
    names = {UNKNOWN.upper(): "Other"}
    async with (
        EmbeddedArchive(options=ArchiveOptions(institutions=names, users=names, user_groups=names)) as archive,
        client_of(archive) as client,
    ):
        uuid = await upload(archive, client)
        found = await properties(archive, client, uuid)

    assert archive.institution_uuid == archive.user_uuid == archive.user_group_uuid == UNKNOWN
    assert (found["PatientOrderInstitutionUuid"], found["InstitutionName"]) == (UNKNOWN, "Other")
    with pytest.raises(UsageError, match="users"):
        EmbeddedArchive(options=ArchiveOptions(users={}))


@pytest.mark.parametrize("operation", HEADERS)
async def test_faults(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, operation: str) -> None:
    embedded_archive.fault(operation, "500")
    embedded_archive.fault(f"/{operation}", "success-false")
    embedded_archive.fault(operation, "cut-before")
    header = json.dumps(good(operation)).encode()

    assert refused(await raw_call(client, operation, header), 500)
    assert (await raw_call(client, operation, header)).json()["Success"] is False
    with pytest.raises(httpx.RemoteProtocolError):
        await raw_call(client, operation, header)
    assert embedded_archive.vendor_calls == ()
    assert (await raw_call(client, operation, header)).status_code in {200, 404}


async def test_faults_of_one_operation(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    embedded_archive.fault("createfolder", "cut-after", times=2)
    embedded_archive.fault("createfolder", "text")

    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            await call(client, "createfolder", FolderName="a")
    last = (await call(client, "createfolder", FolderName="a")).text

    found = (await told(client, "searchfolder"))["FolderList"]
    assert len(found) == 3
    assert found[2]["FolderUuid"] == last


def test_faults_that_do_not_exist() -> None:
    archive = EmbeddedArchive()

    with pytest.raises(UsageError, match="no operation"):
        archive.fault("createfolders", "500")
    with pytest.raises(UsageError, match="no fault"):
        archive.fault("createfolder", "cut")  # type: ignore[arg-type]


async def test_nothing_private_is_logged(
    embedded_archive: EmbeddedArchive,
    client: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(1)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        caplog.set_level(1, logger=name)
    uuid = await create_order(embedded_archive, client, PatientName="Canary^Name")
    url = (await told(
        client, "sharepatientorderwithurl", OrderUuidList=[uuid], ExpireDate="2099-01-01", SharePassword="canary-pass"
    ))["Result"]  # fmt: skip
    await client.post(url, data={"password": "canary-pass"})
    await client.post(url, data={"password": "canary-wrong"})
    await raw_call(client, "createpatientorder", b'{"PatientName": "Canary^Name", "PatientBirthdate": "canary"}')
    await raw_call(client, "createfolder", b'{"FolderName": "Canary^Name"')
    monkeypatch.setattr(embedded_archive.store, "transaction", lambda *_: 1 / 0)
    assert refused(await call(client, "createfolder", FolderName="Canary^Name"), 500)

    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    text = "\n".join(logging.Formatter().format(record) for record in ours)
    assert "ZeroDivisionError" in text
    assert "canary" not in text.lower()


def decode(name: str, headers: list[bytes]) -> Given:
    operation = OPERATIONS[name]
    return read_loosely(operation.parameters, operation.header, headers)


@settings(deadline=None, max_examples=examples(300))
@given(st.text(min_size=1))
def test_every_text_arrives_as_it_was(text: str) -> None:
    header = json.dumps({"FolderName": text}).encode("ascii")

    if text.strip():
        assert decode("createfolder", [header]).text("FolderName") == text
    else:
        with pytest.raises(BadParameters):
            decode("createfolder", [header])


@settings(deadline=None, max_examples=examples(300))
@given(st.binary(), st.sampled_from(sorted(HEADERS)))
def test_whatever_comes_is_understood_or_refused(header: bytes, operation: str) -> None:
    with suppress(BadParameters):
        decode(operation, [header])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(deadline=None, max_examples=examples(100))
@given(st.data(), st.sampled_from(sorted(HEADERS)))
def test_whatever_json_comes_is_understood_or_refused(data: st.DataObject, operation: str) -> None:
    names = [name.removesuffix("?") for name in OPERATIONS[operation].parameters]
    found: dict[str, object] = data.draw(st.dictionaries(st.sampled_from(names), _JSON | _JSON.map(json.dumps)))

    with suppress(BadParameters):
        decode(operation, [json.dumps({**good(operation), **found}).encode()])


def test_values_of_their_kinds() -> None:
    header = b'{"FolderUuid": "%s", "ExpireDate": " 2030-01-31 ", "UserCanDownloadStudies": "tRUE"}' % UNKNOWN.encode()
    given_ = decode("sharefolderwithurl", [header])

    day: date | None = given_.day("ExpireDate")
    assert day is not None
    assert day.isoformat() == "2030-01-31"
    assert given_.flag("UserCanDownloadStudies")
    assert given_.text("SharePassword") == ""
    assert UNKNOWN not in repr(given_)
