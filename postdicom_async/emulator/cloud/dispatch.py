"""Turns a request of the Cloud API into its JSON answer: access, execution, errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from postdicom_async.emulator.answers import Refusal, places_of
from postdicom_async.emulator.cloud.frames import GENERAL, SESSION, UPLOAD, CloudRequest
from postdicom_async.emulator.cloud.general import general_table
from postdicom_async.emulator.cloud.oddities import RequestKey
from postdicom_async.emulator.cloud.state import Cloud, ReceivedFrame
from postdicom_async.emulator.cloud.upload import UPLOAD_FIELDS, UploadRequests
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.parameters import (
    KEYS,
    BadParameters,
    Given,
    deviations_of,
    json_object,
    read_parameters,
)

_SESSION_FIELDS = ("SessionUuid", "OtherParameterList")
_TAIL = b"\x00"
"""A zero byte follows general and upload requests; it has no meaning."""

_logger = logging.getLogger("postdicom_async.emulator.cloud")


class _NoAccess(Exception):
    """The keys, the session or the user is unknown."""


class _WrongKey(_NoAccess):
    """A key is unknown: perhaps a guess."""


class AskedRequest:
    """A request with its parsed JSON, the session of its socket, and the addresses of client and archive."""

    def __init__(self, request: CloudRequest, session: str, address: str = "", base: str = "") -> None:
        self.request = request
        self.session = session
        self.address = address
        self.base = base
        self.given: dict[str, Any] = json_object(request.text)
        self.key: RequestKey = request.message_type, request.management_type


class _Row(NamedTuple):
    """A kind of request: its fields, and the function that returns its envelope without the code."""

    fields: tuple[str, ...]
    act: Callable[[Given, AskedRequest], Json]


class Dispatch:
    """Answers requests; independent of sockets."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._counting = threading.Lock()
        uploads = UploadRequests(cloud)
        by_type: dict[int, Callable[[Given, memoryview, str], Json]] = {
            1: uploads.initialize,
            2: uploads.check,
            3: uploads.part,
            4: uploads.document,
        }
        self._table: dict[RequestKey, _Row] = {
            (SESSION, 4): _Row(_SESSION_FIELDS, lambda _g, _a: {"ResponseMessage": {"Account": cloud.account()}}),
            (SESSION, 2): _Row(_SESSION_FIELDS, lambda _g, _a: {"ResponseMessage": {"Success": True}}),
        }
        for kind, (fields, handler) in general_table(cloud).items():
            self._table[GENERAL, kind] = _Row(fields, partial(_general, handler))
        for kind, upload in by_type.items():
            self._table[UPLOAD, kind] = _Row(UPLOAD_FIELDS[kind], partial(_upload, upload))

    def note(self, asked: AskedRequest, socket: int) -> None:
        """Record a request and its deviations from the vendor's library."""
        cloud, request, given = self._cloud, asked.request, asked.given
        is_session, has_bytes = request.message_type == SESSION, isinstance(asked.given.get("FileBuffer"), list)
        if has_bytes:
            given = {**given, "FileBuffer": len(given["FileBuffer"])}
        if cloud.recording:
            message = request.message_type, request.message_id, request.management_type
            sizes = len(request.data), request.user_text, request.trailing
            cloud.frames.append(ReceivedFrame(socket, *message, given, *sizes))
        row, problems = self._table.get(asked.key), ["no such management type"]
        if row:
            expected = row.fields if is_session else (*row.fields, *KEYS)
            problems = deviations_of(expected, asked.given, "" if "FileBuffer" in given else request.text)
        if request.trailing != (b"" if is_session else _TAIL):
            problems.append("the frame does not end as the library's do")
        if request.user_text != ("" if request.message_type in {SESSION, GENERAL} else given.get("UserUuid")):
            problems.append("the user UUID behind the data is another than in the JSON text")
        cloud.deviates("{}/{}".format(*asked.key), problems)

    def handle(self, asked: AskedRequest) -> Json:
        """Execute a request and return its envelope; blocks."""
        try:
            self._require_access(asked)
            row = self._table.get(asked.key)
            if not row:
                raise Refusal(400, "this management type is not known")
            done = row.act(read_parameters(row.fields, asked.given, asked.base), asked)
        except _NoAccess as refused:
            return {**self.refusal(asked, str(refused)), "ResponseCode": 0, "Message": str(refused)}
        except BadParameters as problem:
            return self.refusal(asked, str(problem))
        except Refusal as refused:
            return self.refusal(asked, refused.detail)
        except Exception as error:  # noqa: BLE001 - a bug here must end the request, not the connection
            kind = type(error).__name__
            _logger.error("a request of type %s/%s failed: %s at %s", *asked.key, kind, places_of(error))  # noqa: TRY400
            return self.refusal(asked, f"the archive failed: {kind}")
        with self._counting:
            self._cloud.executed[asked.key] += 1
        return {"ResponseCode": 1, **done}

    def refusal(self, asked: AskedRequest, reason: str) -> Json:
        """Return the envelope of a request that is refused."""
        message_type, oddities = asked.key[0], self._cloud.oddities
        if message_type == SESSION:
            return {"ResponseCode": 0, "ResponseMessage": reason}
        if message_type != GENERAL:
            return {"ResponseCode": 0, "ResponseMessage": None, "Message": reason}
        told = reason if oddities.refusal_as_text else {"Success": False, "Message": reason}
        return {"ResponseCode": oddities.refusal_code, "ResponseMessage": told}

    def _require_access(self, asked: AskedRequest) -> None:
        guesses = self._cloud.context.key_guesses
        if guesses.begin(asked.address):
            raise _NoAccess("too many wrong keys came from there")
        try:
            self._require_keys(asked)
        except _NoAccess as refused:
            if not isinstance(refused, _WrongKey):  # an unknown session or user is not a guess at a key
                guesses.right(asked.address)
            raise
        guesses.right(asked.address)

    def _require_keys(self, asked: AskedRequest) -> None:
        cloud, given = self._cloud, asked.given
        if asked.key[0] == SESSION:
            session, others = session_of(given), given.get("OtherParameterList")
            if session not in cloud.sessions:
                raise _WrongKey("there is no such session")
            pairs = [str(other).partition("=") for other in others] if isinstance(others, list) else []
            names, values = [name for name, _, _ in pairs], [value for _, _, value in pairs]
            if names != ["Api", "ApiKey"] or values[0].lower() != session or not cloud.is_api_key(values[1]):
                raise _WrongKey("OtherParameterList does not fit the session")
            return
        if not (cloud.is_api_key(given.get("ApiKey")) and cloud.is_account_key(given.get("AccountKey"))):
            raise _WrongKey("ApiKey or AccountKey is wrong")
        if cloud.oddities.session_needed and asked.session not in cloud.sessions:
            raise _NoAccess("there is no session on this socket")
        if str(given.get("UserUuid")).lower() not in cloud.context.options.users:
            raise _NoAccess("there is no such user")


def _general(handler: Callable[[Given], Json], given: Given, _asked: AskedRequest) -> Json:
    return {"ResponseMessage": {"Success": True, "Message": "", **handler(given)}}


def _upload(handler: Callable[[Given, memoryview, str], Json], given: Given, asked: AskedRequest) -> Json:
    return handler(given, asked.request.data, asked.session)


def session_of(given: Mapping[str, Any]) -> str:
    """Return the session that a session management request names."""
    return str(given.get("SessionUuid")).lower()
