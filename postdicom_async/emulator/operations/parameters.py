"""Pure: the parameters of PostDICOM's own operations, read from their request header.

They are one JSON object. Every value is text, a list is a JSON array written into text, and empty text means that
nothing was given; real lists and booleans do as well, and names may be spelled in any case. Reasons name the
parameter and never show what was in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from postdicom_async.emulator.operations.table import Kind
from postdicom_async.emulator.store.attributes import hex_tag, resolve_attribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from postdicom_async.emulator.operations.table import Operation, Parameter

__all__ = ["BadParameters", "Given", "Value", "decode"]

Value: TypeAlias = str | bool | date | list[str]

ZERO_UUID = "00000000-0000-0000-0000-000000000000"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TAG = re.compile(r"\(?\s*([0-9A-Fa-f]{4})\s*,\s*([0-9A-Fa-f]{4})\s*\)?")
_BOOLEANS = {"true": True, "false": False}


class BadParameters(ValueError):
    """The parameters cannot be used; the text says why, without showing them."""


@dataclass(frozen=True)
class Given:
    """Decoded parameters by their documented names; what was not given is absent."""

    values: Mapping[str, Value] = field(default_factory=dict, repr=False)

    def text(self, name: str) -> str:
        """Return a text or a UUID, empty when not given."""
        value = self.values.get(name, "")
        return value if isinstance(value, str) else ""

    def items(self, name: str) -> list[str]:
        """Return a list, empty when not given."""
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    def day(self, name: str) -> date | None:
        """Return a date, None when not given."""
        value = self.values.get(name)
        return value if isinstance(value, date) else None

    def flag(self, name: str) -> bool:
        """Return a boolean, False when not given."""
        return self.values.get(name) is True


def decode(operation: Operation, headers: list[bytes]) -> Given:
    """Read the parameters of an operation from the values of its header.

    Raises:
        BadParameters: the header is missing, is no JSON object, or a value is missing or malformed.
    """
    found = _json_object(operation, headers)
    values: dict[str, Value] = {}
    for parameter in operation.parameters:
        raw = found.get(parameter.name.lower())
        value = None if _is_absent(raw) else _read(parameter, raw)
        if value is None or value == []:
            if parameter.required:
                raise BadParameters(f"{parameter.name} must be given")
            continue
        values[parameter.name] = value
    return Given(values)


def _json_object(operation: Operation, headers: list[bytes]) -> dict[str, Any]:
    if len(headers) != 1:
        raise BadParameters(f"the request header {operation.header} must be given once")
    found = _json(_text_of(headers[0]))
    if not isinstance(found, dict):
        raise BadParameters(f"the request header {operation.header} is no JSON object")
    return {name.lower(): value for name, value in found.items()}


def _text_of(raw: bytes) -> str:
    """Decode a header: ASCII as it should be, else UTF-8, else Latin-1, as clients without care send it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_absent(raw: object) -> bool:
    return raw is None or raw == [] or (isinstance(raw, str) and not raw.strip())


def _read(parameter: Parameter, raw: object) -> Value:
    try:
        return _READERS[parameter.kind](raw)
    except ValueError as error:
        reason = str(error)
    raise BadParameters(f"{parameter.name}: {reason}")


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("text is expected")  # noqa: TRY004 - mapped by `_read`
    if any("\ud800" <= char <= "\udfff" for char in raw):
        raise ValueError("half a character (a lone surrogate)")
    return raw


def _uuid(raw: object) -> str:
    text = _text(raw).strip().lower()
    if not _UUID.fullmatch(text):
        raise ValueError("a UUID is expected")
    return text


def _folder_uuid(raw: object) -> str:
    """Return the UUID of a folder, empty for the root, which the zero UUID means too."""
    uuid = _uuid(raw)
    return "" if uuid == ZERO_UUID else uuid


def _sex(raw: object) -> str:
    letter = _text(raw).strip().upper()
    if letter not in {"M", "F", "O"}:
        raise ValueError("M, F or O is expected")
    return letter


def _date(raw: object) -> date:
    return _moment(raw, "%Y-%m-%d", "YYYY-MM-DD").date()


def _datetime(raw: object) -> str:
    return _moment(raw, "%Y-%m-%d %H:%M", "YYYY-MM-DD HH:MM").strftime("%Y-%m-%d %H:%M")


def _moment(raw: object, pattern: str, shape: str) -> datetime:
    text = _text(raw).strip()
    try:
        moment = datetime.strptime(text, pattern)  # noqa: DTZ007 - the account's local time
    except ValueError:
        moment = None
    if moment is None or len(text) != len(shape):
        raise ValueError(f"{shape} is expected")
    return moment


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    value = _BOOLEANS.get(_text(raw).strip().lower())
    if value is None:
        raise ValueError("true or false is expected")
    return value


def _list(raw: object) -> list[Any]:
    found = _json(raw) if isinstance(raw, str) else raw
    if not isinstance(found, list):
        raise ValueError("a list is expected, written as JSON")  # noqa: TRY004 - mapped by `_read`
    return found


def _list_of(read: Callable[[object], str]) -> Callable[[object], list[str]]:
    """Return a reader of lists. Blank items are no items: the C# sample writes ``[""]`` where nothing was entered."""
    return lambda raw: list(dict.fromkeys(read(item) for item in _list(raw) if not _is_blank(item)))


def _is_blank(item: object) -> bool:
    """Return whether an item of a list says nothing; an object with the UUID of an order does so by an empty one."""
    if isinstance(item, str) and item.lstrip().startswith("{"):
        item = _json(item)
    texts = list(item.values()) if isinstance(item, dict) else [item]
    return bool(texts) and all(isinstance(text, str) and not text.strip() for text in texts)


def _order_info(raw: object) -> str:
    """Read ``{"PatientOrderUuid": "..."}``, written into text or not."""
    found = _json(raw) if isinstance(raw, str) else raw
    if not isinstance(found, dict):
        raise ValueError('objects with "PatientOrderUuid" are expected')  # noqa: TRY004 - mapped by `_read`
    return _uuid({name.lower(): value for name, value in found.items()}.get("patientorderuuid"))


def _tag(raw: object) -> str:
    """Read ``00100010``, ``(0010,0010)`` or ``PatientName``."""
    text = _text(raw).strip()
    pair = _TAG.fullmatch(text)
    tag = hex_tag(int(pair[1] + pair[2], 16)) if pair else resolve_attribute(text)
    if tag is None:
        raise ValueError("DICOM tags or keywords are expected")
    return tag


_READERS: dict[Kind, Callable[[object], Value]] = {
    Kind.TEXT: _text,
    Kind.SEX: _sex,
    Kind.UUID: _uuid,
    Kind.FOLDER: _folder_uuid,
    Kind.DATE: _date,
    Kind.DATETIME: _datetime,
    Kind.BOOLEAN: _boolean,
    Kind.TEXT_LIST: _list_of(_text),
    Kind.UUID_LIST: _list_of(_uuid),
    Kind.ORDER_INFO_LIST: _list_of(_order_info),
    Kind.TAG_LIST: _list_of(_tag),
}
