"""Python values of the operations, checked before anything is sent. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime
from enum import Enum, auto
from typing import Any, Final, TypeAlias
from uuid import UUID

from postdicom_async.errors import UsageError


class ValueKind(Enum):
    """The type of a parameter's value."""

    TEXT = auto()
    PERSON_NAME = auto()
    """Text or a pydicom ``PersonName``."""
    SEX = auto()
    """``M``, ``F`` or ``O``."""
    UUID = auto()
    DATE = auto()
    """``YYYY-MM-DD``."""
    FUTURE_DATE = auto()
    """A date that is not in the past."""
    DATETIME = auto()
    """``YYYY-MM-DD HH:MM``."""
    DATE_OR_DATETIME = auto()
    """``YYYY-MM-DD HH:MM``, or the day alone."""
    BOOLEAN = auto()
    UUID_LIST = auto()
    TEXT_LIST = auto()
    ORDER_INFO_LIST = auto()
    """UUIDs of orders, each written as a JSON object of its own inside the list."""
    GUID = auto()
    """A UUID of version 1 to 5, or all zeros: what the Cloud API takes (JavaScript library)."""
    GUID_LIST = auto()
    MAIL = auto()
    """An e-mail address."""
    FLAG_ID = auto()
    """A whole number, or text."""


Value: TypeAlias = str | bool | int | date | list[str]
Values: TypeAlias = dict[str, Value]
"""Checked values by Python argument; what was not given is absent."""

LISTS: Final = frozenset({ValueKind.UUID_LIST, ValueKind.TEXT_LIST, ValueKind.ORDER_INFO_LIST, ValueKind.GUID_LIST})
"""The kinds that hold several values."""

_LARGEST: Final = 2**53  # up to this, every JSON parser reads an integer exactly
_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")
_NAME_JOINTS: Final = re.compile(r"[\s^=]+")
_SPELLED_ALIKE: Final = re.compile(r"[ !#-\[\]-~]*")  # characters that JSON does not escape
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_GUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|0{8}(?:-0{4}){3}-0{12}"
)
_MAIL_LOCAL: Final = r"""(?:[^\s<>()\[\]\\.,;:@"]+(?:\.[^\s<>()\[\]\\.,;:@"]+)*|"[^"\n]+")"""
_MAIL_DOMAIN: Final = r"(?:\[[0-9]{1,3}(?:\.[0-9]{1,3}){3}\]|(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})"
_MAIL: Final = re.compile(f"{_MAIL_LOCAL}@{_MAIL_DOMAIN}")


def check_value(argument: str, kind: ValueKind, value: object, *, operation: str | None = None) -> Any:
    """Return one value of its kind.

    Raises:
        UsageError: it is malformed; the message names the argument and never shows the value.
    """
    problem = ""
    try:
        return _CHECKS[kind](value)
    except ValueError as error:
        problem = str(error)
    raise UsageError(problem, argument=argument, operation=operation)


def is_given(value: object) -> bool:
    """Return whether an argument was given: neither None nor empty text."""
    return value is not None and not (_is_text(value) and not str(value))


def is_empty_list(kind: ValueKind, value: object) -> bool:
    """Return whether it is an empty list for a list parameter: if that is optional, it means all (documented)."""
    is_list = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
    return kind in LISTS and is_list and not value


def _is_text(value: object) -> bool:
    # A pydicom PersonName is recognised by an attribute, so that pydicom need not be imported.
    return isinstance(value, str) or hasattr(value, "family_name")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("give text")  # noqa: TRY004 - mapped by `check`
    if _HALF_CHARACTER.search(value):
        raise ValueError("the text holds half a character (a lone surrogate)")
    if not value.strip():
        # Sent as it is, it might be trimmed: a share whose password is blank would be open to everybody.
        raise ValueError("the text is blank; leave it out or give None for none")
    return value


def _person_name(value: object) -> str:
    return _text(str(value) if _is_text(value) else value)


def _sex(value: object) -> str:
    letter = _text(value).strip().upper()
    if letter not in {"M", "F", "O"}:
        raise ValueError("give 'M', 'F' or 'O'")
    return letter


def _uuid(value: object) -> str:
    text = str(value) if isinstance(value, UUID) else _text(value).strip()
    if not _UUID.fullmatch(text):
        raise ValueError("not a UUID such as 01234567-89ab-cdef-0123-456789abcdef")
    return text


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID, of whatever version."""
    return bool(_UUID.fullmatch(text.strip()))


def _guid(value: object) -> str:
    text = _uuid(value)
    if not _GUID.fullmatch(text.lower()):
        raise ValueError("a UUID, but not one that the service gives out (version 1 to 5, or all zeros)")
    return text


def _mail(value: object) -> str:
    text = _text(value).strip()
    if not _MAIL.fullmatch(text):
        raise ValueError("not an e-mail address")
    return text


def _flag_id(value: object) -> int | str:
    if isinstance(value, str):
        return _text(value).strip()
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("give a whole number, or text")  # noqa: TRY004 - mapped by `check`
    if abs(value) > _LARGEST:
        raise ValueError("the number is too large")
    return value


def _date(value: object) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return datetime.strptime(_text(value).strip(), "%Y-%m-%d").date()  # noqa: DTZ007 - a calendar date
    except ValueError:
        raise ValueError("give a date, or text as YYYY-MM-DD") from None


def _datetime(value: object) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise ValueError("give the account's local time, without a time zone")
        return value
    try:
        return datetime.strptime(_text(value).strip(), "%Y-%m-%d %H:%M")  # noqa: DTZ007 - the account's local time
    except ValueError:
        raise ValueError("give a datetime, or text as YYYY-MM-DD HH:MM") from None


def _date_or_datetime(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    for read in (_datetime, _date):
        try:
            return read(value)
        except ValueError:
            if isinstance(value, datetime):
                raise
    raise ValueError("give a datetime or a date, or text as YYYY-MM-DD HH:MM or YYYY-MM-DD")


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("give True or False")  # noqa: TRY004 - mapped by `check`
    return value


def _list_of(check_item: Callable[[object], str]) -> Callable[[object], list[str]]:
    def checked(value: object) -> list[str]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise ValueError("give a list")  # noqa: TRY004 - mapped by `check`
        items = list(dict.fromkeys(check_item(item) for item in value))
        if not items or not all(item.strip() for item in items):
            raise ValueError("the list is empty, or holds an empty value")
        return items

    return checked


_CHECKS: Final[dict[ValueKind, Callable[[object], Any]]] = {
    ValueKind.TEXT: _text,
    ValueKind.PERSON_NAME: _person_name,
    ValueKind.SEX: _sex,
    ValueKind.UUID: _uuid,
    ValueKind.DATE: _date,
    ValueKind.FUTURE_DATE: _date,
    ValueKind.DATETIME: _datetime,
    ValueKind.DATE_OR_DATETIME: _date_or_datetime,
    ValueKind.BOOLEAN: _boolean,
    ValueKind.UUID_LIST: _list_of(_uuid),
    ValueKind.TEXT_LIST: _list_of(_text),
    ValueKind.ORDER_INFO_LIST: _list_of(_uuid),
    ValueKind.GUID: _guid,
    ValueKind.GUID_LIST: _list_of(_guid),
    ValueKind.MAIL: _mail,
    ValueKind.FLAG_ID: _flag_id,
}


ascii_json: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
"""Encodes JSON in ASCII, so that it is valid in a header."""


def private_texts(values: Values) -> tuple[str, ...]:
    """Return what must not show in a server's words: texts but UUIDs, parts of names, and both as JSON spells them."""
    private: list[str] = []
    for value in values.values():
        if not isinstance(value, bool):
            private += value if isinstance(value, list) else [str(value)]
    private += [part for text in private if "^" in text for part in _NAME_JOINTS.split(text)]
    spelled = [ascii_json(text)[1:-1] for text in private if not _SPELLED_ALIKE.fullmatch(text)]
    return tuple([text for text in private if not _UUID.fullmatch(text)] + spelled)
