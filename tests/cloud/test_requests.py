"""The request of every operation, byte for byte, and the requests that open a session."""

from __future__ import annotations

import time
from typing import Any

import pytest

from postdicom_async import CloudWire
from tests.cloud.forms import FORMS, MANAGEMENT_TYPES, Form
from tests.cloud.service import (
    ACCOUNT_KEY,
    API_KEY,
    REGION,
    ROUTER,
    SESSION,
    USER,
    CloudService,
    Received,
    success,
)

LISTS = {"SearchResultList": [], "Folder": {"SubFolderList": []}}


def answered(request: Received) -> bytes:
    """Answer whatever is asked with something that can be read."""
    return success(request, **LISTS)


def test_every_management_type_is_here() -> None:
    assert {form.management_type for form in FORMS} == MANAGEMENT_TYPES


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_the_request(form: Form) -> None:
    async with CloudService(answered) as service, service.client() as api:
        await form.call(api)
        (request,) = service.sent()
    own = f",{form.fields}" if form.fields else ""
    assert request.text.decode() == f'{{"UserUuid":"{USER}"{own},"ApiKey":"{API_KEY}","AccountKey":"{ACCOUNT_KEY}"}}'
    assert (request.message_type, request.management_type) == (17, form.management_type)
    assert (request.data, request.user, request.tail) == (b"", b"", b"\0")
    assert request.socket == 1


async def test_the_session() -> None:
    async with CloudService() as service, service.client() as api:
        assert api.account.users[0].user_uuid == USER
    first, second, third = service.asked
    addresses = [str(url).partition("?")[0] for url in service.asked]
    assert addresses == [ROUTER, REGION, ROUTER]
    address = f'{{"RouterKey":"{ACCOUNT_KEY}","AddressType":"%s","AdapterType":"2"}}'
    opening = f'{{"TransactionType":"3","AccountKey":"{ACCOUNT_KEY}","ApiKey":"{API_KEY}"}}'
    for url, kind, parameters in (
        (first, "4", address % 1),
        (second, "7", opening),
        (third, "4", address % 2),
    ):
        query = list(url.params.multi_items())
        assert query[:3] == [("RequestType", kind), ("Parameters", parameters), ("ClientUniqueId", API_KEY)]
        name, cache = query[3]
        assert (name, len(query)) == ("Cache", 4)
        assert abs(int(cache) - time.time() * 1000) < 60_000
    (request,) = service.received
    assert request.text.decode() == (
        f'{{"SessionUuid":"{SESSION}","OtherParameterList":["Api={SESSION}","ApiKey={API_KEY}"]}}'
    )
    assert (request.key, request.tail, len(request.text)) == ((3, 4), b"", 166)


async def test_the_socket_is_opened_with_the_api_key() -> None:
    paths: list[str] = []

    class Noting(CloudService):
        async def _serve(self, connection: Any) -> None:
            paths.append(connection.request.path)
            assert "Sec-WebSocket-Protocol" not in connection.request.headers
            assert "Sec-WebSocket-Extensions" not in connection.request.headers
            await super()._serve(connection)

    async with Noting() as service, service.client():
        pass
    assert paths == [f"/?ClientUniqueId={API_KEY}"]


@pytest.mark.parametrize("region", [REGION, REGION.rstrip("/")])
@pytest.mark.parametrize("ends", ["", "/", "/prefix", "/prefix/"])
async def test_addresses_with_and_without_a_slash(region: str, ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cloud.service.REGION", region)
    async with CloudService() as service:
        service.url += ends
        async with service.client() as api:
            assert api.account.users
    assert str(service.asked[1]).partition("?")[0] == region


async def test_message_ids_rise_over_all_sockets() -> None:
    async with CloudService(answered) as service, service.client() as api:
        for form in FORMS[:5]:
            await form.call(api)
    assert [one.message_id for one in service.received] == [1, 2, 3, 4, 5, 6]


async def test_without_the_trailing_zero() -> None:
    async with CloudService(answered) as service, service.client(wire=CloudWire(trailing_zero=False)) as api:
        await FORMS[0].call(api)
    assert service.sent()[0].tail == b""


async def test_the_host_name_is_sent_when_given() -> None:
    async with CloudService() as service, service.client(wire=CloudWire(client_host_name="viewer.example")):
        pass
    expected = f'"ApiKey":"{API_KEY}","ClientHostName":"viewer.example"}}'
    assert service.asked[1].params["Parameters"].endswith(expected)


async def test_the_documented_fields_that_the_script_drops_can_go_elsewhere() -> None:
    wire = CloudWire(other_order_fields="StudyInformation")
    async with CloudService(answered) as service, service.client(wire=wire) as api:
        await api.orders.create_from_json({"Priority": "High"})
        nested = service.sent()[0].fields["JsonParameters"]
    assert nested == {"IdentityInformation": {}, "StudyInformation": {"Priority": "High"}, "OtherInformation": {}}
