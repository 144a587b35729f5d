"""The frames of the Cloud API and their contents: requests written, answers read. Pure.

A frame is one binary message of a WebSocket, its fields packed, its numbers little-endian.

Layouts, numbers and the trailing zero byte are the JavaScript library's. A request's fields are message type
(unsigned 16), message id (unsigned 32), management type (signed 32) and a JSON text; a file upload adds raw bytes and
the user's UUID. Texts and bytes are preceded by their length (signed 32; for the UUID unsigned 8).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Any, Final, Self

from postdicom_async.errors import ProtocolError
from postdicom_async.vendor.answers import Content, parse, parse_text, refusal_in


class MessageType(IntEnum):
    """The type of a frame."""

    SESSION = 3
    GENERAL = 17
    FILE_UPLOAD = 23


class SessionType(IntEnum):
    """Management types of session messages (message type 3)."""

    REGISTER_SESSION = 2
    CREATE_API_SESSION = 4


class FileUploadType(IntEnum):
    """Management types of file upload messages (message type 23)."""

    INITIALIZE = 1
    CHECK_FILE_EXIST = 2
    PROCESS_FILE = 3
    PROCESS_DOCUMENTS = 4


LAST_MESSAGE_ID: Final = 0xFFFFFFFF

_REQUEST_HEAD: Final = Struct("<HIii")
_LENGTH: Final = Struct("<i")
_ADDRESS: Final = Struct("<HII")
_RESPONSE_HEAD: Final = Struct("<HIIB")
_SUCCESS: Final = 1


def encode_request(
    kind: MessageType, message_id: int, management_type: int, json_text: bytes, *, trailing_zero: bool = True
) -> bytes:
    """Return the frame of a session (3) or general (17) request.

    ``trailing_zero`` is the byte that the vendor's own frames of every type but 3 end with.
    """
    head = _REQUEST_HEAD.pack(kind, message_id, management_type, len(json_text))
    return head + json_text + _tail(kind, trailing_zero=trailing_zero)


def encode_upload(
    message_id: int,
    management_type: int,
    json_text: bytes,
    data: bytes | memoryview,
    user_uuid: str,
    *,
    trailing_zero: bool = True,
) -> bytes:
    """Return the frame of a file upload request (23); ``data`` may be empty."""
    user = user_uuid.encode()
    return b"".join(
        (
            _REQUEST_HEAD.pack(MessageType.FILE_UPLOAD, message_id, management_type, len(json_text)),
            json_text,
            _LENGTH.pack(len(data)),
            data,
            bytes((len(user),)),
            user,
            _tail(MessageType.FILE_UPLOAD, trailing_zero=trailing_zero),
        )
    )


def _tail(kind: MessageType, *, trailing_zero: bool) -> bytes:
    return b"\0" if trailing_zero and kind is not MessageType.SESSION else b""


@dataclass(frozen=True, slots=True)
class Response:
    """A response frame. Its ``repr`` shows no text.

    Attributes:
        message_type: 4, 6 or 18, as the vendor's library knows them.
        requested_id: the message id of the request that is answered.
        success: the frame's own flag, which the vendor's library never looks at.
        message: the frame's own text, likewise.
        management_type: which operation is answered.
        result: a JSON text.
        size: bytes of the frame.
    """

    message_type: int
    requested_id: int
    success: bool
    message: bytes = field(repr=False)
    management_type: int
    result: bytes = field(repr=False)
    size: int = field(default=0, compare=False)


def addressed_to(frame: bytes) -> tuple[int, int] | None:
    """Return a frame's message type and the id of the request it answers; None if it is too short."""
    if len(frame) < _ADDRESS.size:
        return None
    message_type, _server_id, requested_id = _ADDRESS.unpack_from(frame)
    return message_type, requested_id


def decode_response(frame: bytes) -> Response:
    """Return the fields of a response frame; bytes after its last field are ignored.

    A length of zero or less stands for an empty text; no bytes follow it.

    Raises:
        ProtocolError: the frame ends inside a field.
    """
    if len(frame) < _RESPONSE_HEAD.size:
        raise _cut()
    message_type, _server_id, requested_id, success = _RESPONSE_HEAD.unpack_from(frame)
    message, at = _text(frame, _RESPONSE_HEAD.size)
    management_type, at = _number(frame, at)
    result, _ = _text(frame, at)
    return Response(message_type, requested_id, success == _SUCCESS, message, management_type, result, len(frame))


def _number(frame: bytes, at: int) -> tuple[int, int]:
    end = at + _LENGTH.size
    if end > len(frame):
        raise _cut()
    return _LENGTH.unpack_from(frame, at)[0], end


def _text(frame: bytes, at: int) -> tuple[bytes, int]:
    length, at = _number(frame, at)
    end = at + max(length, 0)
    if end > len(frame):
        raise _cut()
    return frame[at:end], end


def _cut() -> ProtocolError:
    return ProtocolError("a frame ends inside one of its fields")


# --- contents of requests -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keys:
    """The pair of keys that every message carries."""

    api_key: str = field(repr=False)
    account_key: str = field(repr=False)


def session_fields(session_uuid: str, keys: Keys) -> dict[str, Any]:
    """Return the fields of both session messages; the account key is in neither."""
    return {"SessionUuid": session_uuid, "OtherParameterList": [f"Api={session_uuid}", f"ApiKey={keys.api_key}"]}


def compact_json(fields: Mapping[str, Any], keys: Keys | None = None) -> bytes:
    """Return JSON without white space in UTF-8, the keys at its end when given."""
    tail = {} if keys is None else {"ApiKey": keys.api_key, "AccountKey": keys.account_key}
    return json.dumps({**fields, **tail}, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


# --- contents of answers ---------------------------------------------------------------------------------------------


_NO_REASON: Final = "no reason given"
_UNCLEAR: Final = "the service answered with something that says neither yes nor no"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The content of an answer, which its ``repr`` does not show.

    Every answer is a JSON object with ``ResponseCode``, 1 for success, and ``ResponseMessage``: a text, or an object
    that may hold a ``Success`` of its own (JavaScript library). How a refusal looks is not known, so any other code, a
    false ``Success``, or a text in place of the code counts as one. An answer with none of these says neither yes nor
    no.

    Attributes:
        fields: the whole object.
        message: ``ResponseMessage``; "" where there is none.
        refusal: why the service said no; None when it did not.
        unclear: it says neither yes nor no.
    """

    fields: Mapping[str, Any] = field(repr=False)
    message: Content = field(repr=False)
    refusal: str | None = field(repr=False)
    unclear: bool = False

    def require_clear(self) -> Self:
        """Return it if it says yes or no.

        Raises:
            ProtocolError: it says neither.
        """
        if self.unclear:
            raise ProtocolError(_UNCLEAR)
        return self

    def text(self, name: str) -> str | None:
        """Return a field of the whole object as text; None when it is missing or empty."""
        value = self.fields.get(name)
        return value if isinstance(value, str) and value else None

    def in_message(self, name: str) -> Any:
        """Return a field of ``ResponseMessage``; None if that is not an object or lacks the field."""
        return self.message.get(name) if isinstance(self.message, dict) else None


def read_envelope(response: Response, *, code_decides: bool = True, flag_decides: bool = False) -> Envelope:
    """Return the content of a response frame.

    Args:
        response: the frame.
        code_decides: ``ResponseCode`` must be 1. Else an explicit ``Success`` in ``ResponseMessage`` is enough, as the
            vendor's library has it for general requests.
        flag_decides: a frame whose success flag is not set is a refusal whatever its JSON says.

    Raises:
        ProtocolError: it is not a JSON object, so its meaning is unknown.
    """
    found = parse(response.result)
    frame = response.message.decode("utf-8", "replace")
    if not isinstance(found, dict):
        words = found if isinstance(found, str) and found != "null" else ""
        if response.success or not (words or frame.strip()):
            raise _unreadable()
        return Envelope({}, "", _reason({}, words, frame))
    message, code = _message_of(found), _code_of(found)
    if refusal_in(message) is not None or (flag_decides and not response.success):
        return Envelope(found, message, _reason(found, message, frame))
    says_success = isinstance(message, dict) and message.get("Success") is True
    if code == _SUCCESS or (says_success and not code_decides):
        return Envelope(found, message, None)
    # The message of a frame flagged as a success is not a refusal.
    clear = code is not None or _reason(found, message, "" if response.success else frame) != _NO_REASON
    return Envelope(found, message, _reason(found, message, frame) if clear else None, unclear=not clear)


def read_http_envelope(body: bytes) -> Envelope:
    """Return the answer to one of the HTTP requests that open a session; like `read_envelope`."""
    found = parse(body)
    if not isinstance(found, dict):
        raise _unreadable()
    message, code = _message_of(found), _code_of(found)
    reason = None if code == _SUCCESS else _reason(found, message, "")
    if code is None and reason == _NO_REASON:
        raise ProtocolError(_UNCLEAR)
    return Envelope(found, message, reason)


def _unreadable() -> ProtocolError:
    return ProtocolError("the service answered with something other than a JSON object")


def _code_of(found: Mapping[str, Any]) -> float | None:
    """Return the code, None if it is not a number; the text ``"1"`` counts as one, as in the vendor's library."""
    code = found.get("ResponseCode")
    if isinstance(code, bool):
        return None
    try:
        return float(code)  # type: ignore[arg-type]  # raises for anything but a number
    except (TypeError, ValueError, OverflowError):
        return None


def _message_of(found: Mapping[str, Any]) -> Content:
    message = found.get("ResponseMessage")
    if isinstance(message, str):
        inner = parse_text(message)
        return inner if isinstance(inner, dict | list) else message
    return message if isinstance(message, dict | list) else ""


def _reason(found: Mapping[str, Any], message: Content, frame: str) -> str:
    inner = refusal_in(message) if isinstance(message, dict) else None
    texts = (
        inner if inner != _NO_REASON else None,
        message.get("Message") if isinstance(message, dict) else message,
        found.get("Message"),
        frame,
    )
    return next((text for text in texts if isinstance(text, str) and text.strip()), _NO_REASON)
