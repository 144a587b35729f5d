"""Opens a session: three HTTP requests that find the addresses and the session id (JavaScript library).

Both keys are in the query of each request, so no address is ever shown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

from postdicom_async.cloud.frames import Keys, compact_json, read_http_envelope
from postdicom_async.errors import AuthenticationFailed, ProtocolError, UsageError
from postdicom_async.http.endpoint import is_loopback
from postdicom_async.http.exchange import Call
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from postdicom_async.vendor.values import ValueKind, check_value

if TYPE_CHECKING:
    import httpx

    from postdicom_async.settings import Settings
    from postdicom_async.vendor.wire import CloudWire

_FIND_ADDRESS, _OPEN_SESSION = 4, 7  # RequestType
_WEB_SERVICE, _WEB_SOCKET = "1", "2"  # AddressType
_ADAPTER = "2"
_OPEN_API_SESSION = "3"  # TransactionType
_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """The result: the address of the WebSocket, which contains the key, and the session's id."""

    socket_url: str = field(repr=False)
    session_uuid: str = field(repr=False)


async def bring_up(
    keys: Keys, router_url: str, *, settings: Settings, wire: CloudWire, transport: httpx.AsyncBaseTransport | None
) -> OpenedSession:
    """Open a session.

    Raises:
        AuthenticationFailed: the service does not accept the keys.
        ConnectionFailed: the router or the region cannot be reached.
        ProtocolError: an answer is not what the service should give.
    """
    async with _Asking(keys, settings, transport) as ask:
        region = await ask("find the region", router_url, _FIND_ADDRESS, _address(keys, _WEB_SERVICE))
        _require_address(region, {"https", "http"}, router_url, settings)
        opening = {"TransactionType": _OPEN_API_SESSION, "AccountKey": keys.account_key, "ApiKey": keys.api_key}
        if wire.client_host_name is not None:
            opening["ClientHostName"] = wire.client_host_name
        session_uuid = await ask("open a session", region, _OPEN_SESSION, opening)
        socket = await ask("find the WebSocket", router_url, _FIND_ADDRESS, _address(keys, _WEB_SOCKET))
    _require_address(socket, {"wss", "ws"}, router_url, settings)
    return OpenedSession(f"{socket.rstrip('/')}/?ClientUniqueId={quote(keys.api_key, safe='')}", session_uuid)


def _address(keys: Keys, address_type: str) -> dict[str, str]:
    return {"RouterKey": keys.account_key, "AddressType": address_type, "AdapterType": _ADAPTER}


class _Asking:
    """Makes the requests, on a session per address that is closed at the end."""

    def __init__(self, keys: Keys, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self._keys = keys
        self._settings = settings
        self._transport = transport
        self._sessions: dict[str, Session] = {}
        self._known = [keys.api_key, keys.account_key]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions.values():
            await session.close()

    async def __call__(self, what: str, url: str, request_type: int, parameters: dict[str, str]) -> str:
        """Make one request; return its ``ResponseMessage``."""
        if url not in self._sessions:
            session = Session(url, auth=None, settings=self._settings, transport=self._transport)
            await session.open()
            self._sessions[url] = session
        # Appended to the address, from which the session has stripped the last slash. The time defeats caches.
        query = (
            f"{'/' if url.endswith('/') else ''}?RequestType={request_type}"
            f"&Parameters={quote(compact_json(parameters), safe='')}"
            f"&ClientUniqueId={quote(self._keys.api_key, safe='')}&Cache={int(time.time() * 1000)}"
        )
        call = Call(what, "GET", query, Repeat.READ, private=tuple(self._known))
        answer = await self._sessions[url].fetch(call, cap=_ANSWER_BYTES)
        try:
            envelope = read_http_envelope(answer.body)
        except ProtocolError as error:
            error.operation = what
            raise
        if envelope.refusal is not None:
            raise AuthenticationFailed(
                "the service did not accept it; check the API key, the account key and the router's address",
                operation=what,
                reason=safe_reason(envelope.refusal, self._known),
            )
        if not isinstance(envelope.message, str) or not envelope.message.strip():
            raise ProtocolError("the answer holds no value", operation=what)
        told = envelope.message.strip()
        self._known.append(told)  # an address, or the session's id
        return told


def _is_address(address: object, schemes: set[str]) -> bool:
    if not isinstance(address, str):
        return False
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises if it is not a number
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def _require_address(address: str, schemes: set[str], router_url: str, settings: Settings) -> None:
    """Refuse an invalid address, or one that would carry the keys unencrypted when the router's did not."""
    parts = urlsplit(address) if _is_address(address, schemes) else None
    is_plain = parts is not None and not (parts.query or parts.fragment or parts.username)
    if parts is None or not is_plain or not all("!" <= char <= "~" for char in address):
        raise ProtocolError("the router gave an address that cannot be used")
    unsafe = parts.scheme in {"http", "ws"} and (urlsplit(router_url).scheme == "https" or not is_loopback(address))
    if unsafe and not settings.allow_http_credentials:
        raise ProtocolError("the router gave an address without encryption; it was not used")


def require_router(router_url: str, settings: Settings) -> None:
    """Refuse an invalid address, or one that the keys would be sent to unencrypted.

    Raises:
        UsageError: it is not an http(s):// address, or is http:// and not on this machine.
    """
    if not _is_address(router_url, {"https", "http"}):
        raise UsageError("give an absolute address such as https://router.example/service/", argument="router_url")
    open_road = urlsplit(router_url).scheme == "http" and not is_loopback(router_url)
    if open_road and not settings.allow_http_credentials:
        raise UsageError(
            "the keys would travel unencrypted; use https://, or set allow_http_credentials if that network is trusted",
            argument="router_url",
        )


def checked_keys(api_key: object, account_key: object) -> Keys:
    """Return both keys without white space around them.

    Raises:
        UsageError: one is not a UUID; the message names the argument and never shows the key.
    """
    return Keys(_checked("api_key", api_key), _checked("account_key", account_key))


def _checked(argument: str, key: object) -> str:
    if key is None or (isinstance(key, str) and not key.strip()):
        raise UsageError("must be given", argument=argument)
    return str(check_value(argument, ValueKind.GUID, key))
