"""The frames of the Cloud API: one WebSocket binary message each, fields packed, numbers little-endian. Pure.

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
from typing import Any, Final

from postdicom_async.errors import ProtocolError

__all__ = [
    "LAST_MESSAGE_ID",
    "FileUploadType",
    "Keys",
    "MessageType",
    "Response",
    "SessionType",
    "addressed_to",
    "compact_json",
    "decode_response",
    "encode_request",
    "encode_upload",
    "session_fields",
]


class MessageType(IntEnum):
    """What a frame is."""

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
_RESPONSE_HEAD: Final = Struct("<HIIBi")
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
    """

    message_type: int
    requested_id: int
    success: bool
    message: bytes = field(repr=False)
    management_type: int
    result: bytes = field(repr=False)


def addressed_to(frame: bytes) -> tuple[int, int] | None:
    """Return a frame's message type and the id of the request it answers; None when it is too short for them."""
    if len(frame) < _ADDRESS.size:
        return None
    message_type, _server_id, requested_id = _ADDRESS.unpack_from(frame)
    return message_type, requested_id


def decode_response(frame: bytes) -> Response:
    """Return what a response frame says; bytes after its last field are ignored.

    A length of zero or less is an empty text, of which only the length is there.

    Raises:
        ProtocolError: the frame ends inside a field.
    """
    if len(frame) < _RESPONSE_HEAD.size:
        raise _cut()
    message_type, _server_id, requested_id, success, length = _RESPONSE_HEAD.unpack_from(frame)
    message, at = _text(frame, _RESPONSE_HEAD.size, length)
    management_type, at = _number(frame, at)
    length, at = _number(frame, at)
    result, _ = _text(frame, at, length)
    return Response(message_type, requested_id, success == _SUCCESS, message, management_type, result)


def _number(frame: bytes, at: int) -> tuple[int, int]:
    end = at + _LENGTH.size
    if end > len(frame):
        raise _cut()
    return _LENGTH.unpack_from(frame, at)[0], end


def _text(frame: bytes, at: int, length: int) -> tuple[bytes, int]:
    end = at + max(length, 0)
    if end > len(frame):
        raise _cut()
    return frame[at:end], end


def _cut() -> ProtocolError:
    return ProtocolError("a frame ends inside one of its fields")


# --- what is written in them ----------------------------------------------------------------------------------------


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
