"""Pure: the binary frames of PostDICOM's Cloud API, as the service reads and writes them.

Numbers are little-endian and nothing is aligned. A request is message type, message id, management type and a JSON
text; uploads add raw bytes and the user's UUID. Bytes behind the last field are kept to be looked at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SESSION, GENERAL, UPLOAD = 3, 17, 23
"""The message types of requests."""

_NAMES = {SESSION: "session management", GENERAL: "general", UPLOAD: "file upload"}
_HEAD = struct.Struct("<HIi")


class BadFrame(ValueError):
    """The bytes are not a request; the text says why, without showing them."""


@dataclass(frozen=True)
class CloudRequest:
    """One request; ``data`` is a view of the frame, not a copy."""

    message_type: int
    message_id: int
    management_type: int
    text: str = field(repr=False)
    data: memoryview = field(default=memoryview(b""), repr=False)
    user_text: str = field(default="", repr=False)
    trailing: bytes = field(default=b"", repr=False)


class _Reader:
    """Takes fields off the front of a frame."""

    def __init__(self, frame: bytes) -> None:
        self._frame = memoryview(frame)
        self._at = 0

    def take(self, length: int, what: str) -> memoryview:
        """Return the next bytes."""
        there = len(self._frame) - self._at
        if length < 0:
            raise BadFrame(f"the length of the {what} is negative")
        if length > there:
            raise BadFrame(f"the {what} has {length} bytes, of which {there} are there")
        piece = self._frame[self._at : self._at + length]
        self._at += length
        return piece

    def length(self, what: str) -> int:
        """Return a length of 32 bits with its sign."""
        return int.from_bytes(self.take(4, f"length of the {what}"), "little", signed=True)

    def blob(self, what: str) -> str:
        """Return a text; a length below zero means that there is none."""
        return _text(self.take(max(self.length(what), 0), what), what)

    def rest(self) -> bytes:
        """Return what is left, cut short."""
        return bytes(self._frame[self._at :][:64])


def decode_request(frame: bytes) -> CloudRequest:
    """Take a request apart.

    Raises:
        BadFrame: it is shorter than its lengths say, of an unknown type, or its text is not UTF-8.
    """
    reader = _Reader(frame)
    message_type, message_id, management_type = _HEAD.unpack(reader.take(_HEAD.size, "head"))
    if message_type not in _NAMES:
        raise BadFrame(f"message type {message_type} is not known")
    text, data, user_text = reader.blob("JSON text"), memoryview(b""), ""
    if message_type == UPLOAD:
        data = reader.take(reader.length("file data"), "file data")
        user_text = _text(reader.take(reader.take(1, "length of the user UUID")[0], "user UUID"), "user UUID")
    return CloudRequest(message_type, message_id, management_type, text, data, user_text, reader.rest())


def encode_response(
    message_type: int, own_id: int, request: CloudRequest, result: bytes, *, success: int = 1, message: str = ""
) -> bytes:
    """Return the frame that answers a request with a JSON text."""
    said = message.encode()
    head = struct.pack("<HIIBi", message_type, own_id, request.message_id, success, len(said))
    return head + said + struct.pack("<ii", request.management_type, len(result)) + result


def _text(raw: memoryview, what: str) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        pass  # raised out here: the context of an exception would show the bytes
    raise BadFrame(f"the {what} is not UTF-8")
