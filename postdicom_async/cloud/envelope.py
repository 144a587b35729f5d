"""What an answer of the Cloud API says, in its envelope. Pure.

Every answer is a JSON object with ``ResponseCode``, 1 for success, and ``ResponseMessage``: a text, or an object that
may hold a ``Success`` of its own (JavaScript library). How a refusal looks is not known, so another code, a ``Success``
that is false, or words where success has its code, are one. What has none of these says neither yes nor no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from postdicom_async.cloud.frames import Response
from postdicom_async.errors import ProtocolError
from postdicom_async.vendor.answers import Content, parse, parse_text, refusal_in

__all__ = ["Envelope", "read_envelope", "read_http_envelope"]

_SUCCESS: Final = 1
_NO_REASON: Final = "no reason given"
_UNCLEAR: Final = "the service answered with something that says neither yes nor no"


@dataclass(frozen=True, slots=True)
class Envelope:
    """An answer. Its ``repr`` shows nothing of it.

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
        """Return a field of ``ResponseMessage``; None where that is no object or has none of that name."""
        return self.message.get(name) if isinstance(self.message, dict) else None


def read_envelope(response: Response, *, code_decides: bool = True, flag_decides: bool = False) -> Envelope:
    """Return what a response frame carries.

    Args:
        response: the frame.
        code_decides: ``ResponseCode`` must be 1. Else an explicit ``Success`` in ``ResponseMessage`` is enough, as the
            vendor's library has it for general requests.
        flag_decides: a frame whose success flag is not set is a refusal whatever its JSON says.

    Raises:
        ProtocolError: it is not a JSON object; nobody can say what it means.
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
    if code == _SUCCESS or (not code_decides and _says_success(message)):
        return Envelope(found, message, None)
    # The words of a frame that is flagged as a success are no refusal.
    clear = code is not None or _reason(found, message, "" if response.success else frame) != _NO_REASON
    return Envelope(found, message, _reason(found, message, frame) if clear else None, unclear=not clear)


def read_http_envelope(body: bytes) -> Envelope:
    """Return what one of the HTTP requests of the session's bring-up answers; as `read_envelope`."""
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
    """Return the code, None where it is none; the text ``"1"`` is as good as the number, as in the vendor's library."""
    code = found.get("ResponseCode")
    if isinstance(code, bool):
        return None
    try:
        return float(code)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        return None


def _says_success(message: Content) -> bool:
    return isinstance(message, dict) and message.get("Success") is True


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
