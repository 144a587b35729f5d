"""The Cloud API's bring-up over HTTP: a router that tells addresses, and the region's service that opens sessions.

Both are one ``GET`` with ``RequestType`` and ``Parameters``, a JSON object whose values are all texts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.responses import Response

from postdicom_async.emulator.answers import slow_down
from postdicom_async.emulator.cloud.parameters import BadParameters, json_object
from postdicom_async.emulator.cloud.state import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from postdicom_async.emulator.cloud.oddities import Step
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["REGION_PATH", "ROUTER_PATH", "cloud_routes"]

Handler: TypeAlias = "Callable[[Request], Awaitable[Response]]"

ROUTER_PATH = "/wssShellService"
REGION_PATH = "/regionService"
"""Where the two services are, below the archive's address."""

_QUERY = ("RequestType", "Parameters", "ClientUniqueId", "Cache")
_ROUTER, _REGION = "4", "7"
"""The values of ``RequestType``."""
_ADDRESS_KEYS = ("RouterKey", "AddressType", "AdapterType")
_SESSION_KEYS = ("TransactionType", "AccountKey", "ApiKey")
_HOST = "ClientHostName"
"""A page's host may stand behind the keys of a session."""
_STEPS: dict[str, Step] = {"1": "web-service", "2": "socket"}
_KEYS_OF: dict[Step, tuple[str, ...]] = {
    "web-service": _ADDRESS_KEYS,
    "socket": _ADDRESS_KEYS,
    "session": _SESSION_KEYS,
}


def cloud_routes(cloud: Cloud) -> list[tuple[str, str, Handler]]:
    """Return method, path and handler of both services."""
    bring_up = _BringUp(cloud)
    return [("GET", ROUTER_PATH, bring_up.router), ("GET", REGION_PATH, bring_up.region)]


class _Refused(Exception):
    """The answer is code 2 with this text."""


class _WrongKey(_Refused):
    """A key is not known: perhaps a guess."""


class _BringUp:
    """The handlers. A failure is status 200 too; its text names no key."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def router(self, request: Request) -> Response:
        """Tell an address."""
        return self._answer(request, _ROUTER)

    async def region(self, request: Request) -> Response:
        """Open a session."""
        return self._answer(request, _REGION)

    def _answer(self, request: Request, request_type: str) -> Response:
        guesses, address = self._cloud.context.key_guesses, request.client.host if request.client else ""
        if wait := guesses.begin(address):
            return slow_down(wait)
        try:
            answer = _envelope(1, self._told(request, request_type))
        except _WrongKey as wrong:
            return _envelope(2, str(wrong))
        except (_Refused, BadParameters) as refused:
            answer = _envelope(2, str(refused))
        except _Odd as odd:
            answer = odd.answer
        guesses.right(address)
        return answer

    def _told(self, request: Request, request_type: str) -> str:
        query = request.query_params
        if query.get("RequestType") != request_type:
            raise _Refused("this RequestType is not known here")
        given = json_object(query.get("Parameters", ""))
        if not all(isinstance(value, str) for value in given.values()):
            raise _Refused("Parameters: every value must be a text")
        step: Step | None = "session" if request_type == _REGION else _STEPS.get(given.get("AddressType", ""))
        if step is None:
            raise _Refused("this AddressType is not known")
        self._note(step, given, request)
        waiting = self._cloud.oddities.http.get(step, [])
        if waiting:
            odd = waiting.pop(0)
            raise _Odd(Response(odd.body, odd.status, media_type="text/html"))
        if not self._cloud.is_api_key(query.get("ClientUniqueId")):
            raise _WrongKey("this ClientUniqueId is not known")
        return self._session(given) if step == "session" else self._address(step, given)

    def _note(self, step: Step, given: Mapping[str, Any], request: Request) -> None:
        cloud, query = self._cloud, tuple(name for name, _ in request.query_params.multi_items())
        cloud.http_requests.append(HttpRequest(step, dict(given), query))
        wanted = _KEYS_OF[step]
        checks = {
            "the query is not what the library sends": query == _QUERY,
            "Cache is no time in milliseconds": request.query_params.get("Cache", "").isdecimal(),
            "the parameters are not what the library sends": tuple(given)
            in {wanted, (*wanted, _HOST) if step == "session" else wanted},
        }
        cloud.deviates(step, [problem for problem, good in checks.items() if not good])

    def _address(self, step: Step, given: Mapping[str, Any]) -> str:
        cloud = self._cloud
        if not cloud.is_account_key(given.get("RouterKey")):
            raise _WrongKey("this RouterKey is not known")
        if given.get("AdapterType") != "2":
            raise _Refused("this AdapterType is not known")
        if step == "socket":
            return cloud.socket_url + cloud.oddities.address_ends
        return f"{cloud.base_url}{REGION_PATH}{'' if cloud.oddities.plain_region else '/'}"

    def _session(self, given: Mapping[str, Any]) -> str:
        cloud = self._cloud
        if given.get("TransactionType") != "3":
            raise _Refused("this TransactionType is not known")
        if not (cloud.is_account_key(given.get("AccountKey")) and cloud.is_api_key(given.get("ApiKey"))):
            raise _WrongKey("there is no such account")
        return cloud.open_session()


class _Odd(Exception):
    """An answer that was asked for."""

    def __init__(self, answer: Response) -> None:
        super().__init__("asked for")
        self.answer = answer


def _envelope(code: int, message: str) -> Response:
    body = json.dumps({"ResponseCode": code, "ResponseMessage": message}).encode()
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="text/html")
