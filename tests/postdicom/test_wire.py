"""The request of every operation, byte for byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import respx

from postdicom_async import PostDicom
from postdicom_async.vendor.wire import Wire
from tests.postdicom.forms import FORMS, MINIMAL, ONE, TWO, Form
from tests.postdicom.service import NOTHING, Service, as_json
from tests.support.faulty_server import FaultyServer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.above_the_transport

# "user@example.org:pässwörd:ÿ" in UTF-8.
BASIC = "Basic dXNlckBleGFtcGxlLm9yZzpww6Rzc3fDtnJkOsO/"
PASSWORD = "pässwörd:ÿ"
READS = {form.path for form in FORMS if not form.changes}


def test_all_thirteen_are_here() -> None:
    assert len({form.path for form in FORMS}) == len({form.header for form in FORMS}) == len(FORMS) == 13


@pytest.mark.parametrize("address", ["https://account.example/dicomweb", "https://account.example/dicomweb/"])
@pytest.mark.parametrize("form", [*FORMS, *MINIMAL], ids=str)
async def test_the_request(form: Form, address: str) -> None:
    router = respx.MockRouter(assert_all_called=True)
    route = router.route(method="GET", url=f"https://account.example/dicomweb{form.path}").respond(200, json=NOTHING)
    transport = httpx.MockTransport(router.async_handler)
    async with PostDicom(address, "user@example.org", PASSWORD, transport=transport) as archive:
        await form.call(archive)
    assert route.call_count == 1
    request = route.calls.last.request
    assert request.content == b""
    assert request.url.query == b""
    assert dict(request.headers.raw) == {
        b"Host": b"account.example",
        b"Accept": b"*/*",
        b"Accept-Encoding": b"gzip" if form.path in READS else b"identity",
        b"Connection": b"keep-alive",
        b"User-Agent": b"postdicom-async",
        b"Cache-Control": b"no-store",
        b"Authorization": BASIC.encode(),
        form.header.encode(): form.parameters.encode("ascii"),
    }


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_the_request_on_a_socket(form: Form, connect: Callable[..., PostDicom]) -> None:
    async with (
        FaultyServer(Reply(body=json.dumps(NOTHING).encode())) as server,
        connect(server.url + "/dicomweb/", "user@example.org", PASSWORD) as archive,
    ):
        await form.call(archive)
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/dicomweb" + form.path)
    assert request.all_headers(form.header) == [form.parameters]
    assert request.all_headers("cache-control") == ["no-store"]
    assert request.all_headers("authorization") == [BASIC]
    assert (request.framing, request.size) == ("none", 0)
    assert not request.all_headers("content-length")


async def written(form: Form, wire: Wire) -> str:
    service = Service(as_json(NOTHING))
    async with service.client(wire=wire) as archive:
        await form.call(archive)
    return service.requests[0].headers[form.header]


async def test_booleans_as_the_other_sample_writes_them() -> None:
    wire = Wire(true="true", false="false")
    assert '"Downloadable":"true"' in await written(FORMS[0], wire)
    assert '"Downloadable":"false"' in await written(MINIMAL[0], wire)


async def test_the_inner_key_as_it_is_documented() -> None:
    text = await written(MINIMAL[0], Wire(inner_order_key="PatientOrderUUID"))
    assert r'"[\"{\\\"PatientOrderUUID\\\":\\\"11111111-2222-3333-4444-555555555555\\\"}\"]"' in text


async def test_optional_keys_can_be_left_out() -> None:
    wire = Wire(sends_empty=False)
    assert await written(MINIMAL[2], wire) == '{"FolderName":"a/b"}'
    assert await written(MINIMAL[7], wire) == "{}"
    assert await written(FORMS[2], wire) == FORMS[2].parameters


async def test_a_list_that_is_not_given() -> None:
    given: list[dict[str, Any]] = [{}, {"institution_uuids": [], "modalities": ()}, {"modalities": None}]
    for lists in given:
        service = Service()
        async with service.client() as archive:
            await archive.orders.search(**lists).all()
            await archive.orders.tag_content(ONE, TWO, tags=[])
        search, tags = service.parameters(0), service.parameters(1)
        assert (search["InstitutionUuidList"], search["ModalityList"], tags["DicomTagIdList"]) == ("[]", "[]", "[]")
    assert '"ModalityList":""' in await written(MINIMAL[7], Wire(absent_list=""))
    assert '"PatientName":"","PatientId":""' in await written(MINIMAL[7], Wire(absent_list='[""]'))
    assert r'"ModalityList":"[\"\"]"' in await written(MINIMAL[7], Wire(absent_list='[""]'))


async def test_the_same_value_twice_in_a_list_is_sent_once() -> None:
    service = Service()
    async with service.client() as archive:
        await archive.folders.add_order(ONE, [TWO, TWO])
    assert service.parameters()["FolderUuidList"] == f'["{TWO}"]'


async def test_a_changed_copy_of_the_client_writes_alike() -> None:
    service = Service(as_json(NOTHING))
    async with service.client(wire=Wire(true="true")) as archive:
        await archive.with_options(retry=archive.settings.retry).folders.search(with_orders=True).all()
    assert service.parameters()["GetOrdersInFolder"] == "true"
