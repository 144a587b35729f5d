"""The Cloud API's bring-up over HTTP: a router that hands out addresses, and a region's service that opens sessions.

Both are one ``GET`` with ``RequestType`` and ``Parameters``, a JSON object whose values are all texts. Failures have
status 200 too, and their text never contains a key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from postdicom_async.emulator.answers import RouteRow, base_url, slow_down
from postdicom_async.emulator.cloud.oddities import BringUpStep
from postdicom_async.emulator.cloud.state import Cloud, HttpRequest
from postdicom_async.emulator.vendor.parameters import BadParameters, json_object

ROUTER_PATH = "/wssShellService"
REGION_PATH = "/regionService"
"""Where the two services are, below the archive's address."""

_QUERY = ("RequestType", "Parameters", "ClientUniqueId", "Cache")
_ROUTER, _REGION = "4", "7"
"""The values of ``RequestType``."""
_ADDRESS_KEYS = ("RouterKey", "AddressType", "AdapterType")
_SESSION_KEYS = ("TransactionType", "AccountKey", "ApiKey")
_STEPS: dict[str, BringUpStep] = {"1": "web-service", "2": "socket"}


class _Refused(Exception):
    """Answered with code 2 and this text."""


class _WrongKey(_Refused):
    """A key is unknown: perhaps a guess."""


def bring_up_routes(cloud: Cloud) -> list[RouteRow]:
    """Return method, path and handler of both services."""
    return [
        ("GET", ROUTER_PATH, partial(_answer, cloud, _ROUTER)),
        ("GET", REGION_PATH, partial(_answer, cloud, _REGION)),
    ]


async def _answer(cloud: Cloud, request_type: str, request: Request) -> Response:
    guesses, address = cloud.context.key_guesses, request.client.host if request.client else ""
    if wait := guesses.begin(address):  # the token is given back below unless a key was wrong
        return slow_down(wait)
    try:
        told = _told(cloud, request_type, request)
    except _WrongKey as wrong:
        return _envelope(2, str(wrong))
    except (_Refused, BadParameters) as refused:
        told = _envelope(2, str(refused))
    guesses.right(address)
    return told


def _told(cloud: Cloud, request_type: str, request: Request) -> Response:
    query = request.query_params
    if query.get("RequestType") != request_type:
        raise _Refused("this RequestType is not known here")
    given = json_object(query.get("Parameters", ""))
    if not all(isinstance(value, str) for value in given.values()):
        raise _Refused("Parameters: every value must be a text")
    step = "session" if request_type == _REGION else _STEPS.get(given.get("AddressType", ""))
    if step is None:
        raise _Refused("this AddressType is not known")
    _note(cloud, step, given, request)
    waiting = cloud.oddities.http.get(step, [])
    if waiting:
        odd = waiting.pop(0)
        return Response(odd.body, odd.status, media_type="text/html")
    if not cloud.is_api_key(query.get("ClientUniqueId")):
        raise _WrongKey("this ClientUniqueId is not known")
    return _envelope(1, _result(cloud, step, given, base_url(request)))


def _result(cloud: Cloud, step: BringUpStep, given: Mapping[str, Any], base: str) -> str:
    """Return a new session, or the address asked for.

    Addresses use the host of the client's request: behind a port mapping or a proxy no other is known to lead here.
    Only known hosts pass the gate, so clients cannot be redirected elsewhere.
    """
    if step == "session":
        if given.get("TransactionType") != "3":
            raise _Refused("this TransactionType is not known")
        if not (cloud.is_account_key(given.get("AccountKey")) and cloud.is_api_key(given.get("ApiKey"))):
            raise _WrongKey("there is no such account")
        return cloud.open_session()
    if not cloud.is_account_key(given.get("RouterKey")):
        raise _WrongKey("this RouterKey is not known")
    if given.get("AdapterType") != "2":
        raise _Refused("this AdapterType is not known")
    if step == "socket":
        return f"ws{base.removeprefix('http')}{cloud.oddities.address_ends}"
    return f"{base}{REGION_PATH}{'' if cloud.oddities.plain_region else '/'}"


def _note(cloud: Cloud, step: BringUpStep, given: Mapping[str, Any], request: Request) -> None:
    """Record a request and its deviations from the vendor's library."""
    query = tuple(name for name, _ in request.query_params.multi_items())
    cloud.http_requests.append(HttpRequest(step, dict(given), query))
    # A page's host may follow the session's keys.
    wanted = {_SESSION_KEYS, (*_SESSION_KEYS, "ClientHostName")} if step == "session" else {_ADDRESS_KEYS}
    checks = {
        "the query is not what the library sends": query == _QUERY,
        "Cache is no time in milliseconds": request.query_params.get("Cache", "").isdecimal(),
        "the parameters are not what the library sends": tuple(given) in wanted,
    }
    cloud.deviates(step, [problem for problem, good in checks.items() if not good])


def _envelope(code: int, message: str) -> Response:
    body = json.dumps({"ResponseCode": code, "ResponseMessage": message}).encode()
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="text/html")
