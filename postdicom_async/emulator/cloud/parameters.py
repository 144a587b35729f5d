"""Pure: the JSON parameters of the Cloud API's requests, checked by name and kind.

What a field holds follows from its name. What is missing or malformed is refused; what the service would let pass but
its library does not send (unknown names, another order) is returned as a deviation. Texts never show values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeAlias

__all__ = [
    "KEYS", "ZERO_GUID", "BadParameters", "Parameters", "deviations_of", "is_guid", "json_object", "read_parameters",
]  # fmt: skip

ZERO_GUID = "00000000-0000-0000-0000-000000000000"
KEYS = ("ApiKey", "AccountKey")
"""The last two fields of every general and upload request."""

_GUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-5][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_RUN = r"[^\s<>()\[\]\\.,;:@\"]+"
_MAIL = re.compile(
    rf"(?:{_RUN}(?:\.{_RUN})*|\".+\")@"
    r"(?:\[[0-9]{1,3}(?:\.[0-9]{1,3}){3}\]|(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})"
)

_LONGEST_MAIL = 320
_MOST_ITEMS = 10_000  # SQLite takes so many in one statement


class BadParameters(ValueError):
    """The parameters cannot be used; the text names the field and shows no value."""


@dataclass(frozen=True)
class Parameters:
    """Fields that were given, read; null and what was left out are absent."""

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def text(self, name: str) -> str:
        """Return a text or a UUID, empty when not given."""
        return str(self.values.get(name, ""))

    def items(self, name: str) -> list[str]:
        """Return a list, empty when not given."""
        return list(self.values.get(name, ()))

    def day(self, name: str) -> date | None:
        """Return a date, None when not given."""
        value: date | None = self.values.get(name)
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean, False when not given."""
        return self.values.get(name) is True

    def number(self, name: str) -> int:
        """Return a number, 0 when not given."""
        return int(self.values.get(name, 0))

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object, empty when not given."""
        return dict(self.values.get(name, {}))


def is_guid(text: object) -> bool:
    """Return whether a text is a GUID as the service's library checks it; the zero GUID is one."""
    return isinstance(text, str) and (text == ZERO_GUID or bool(_GUID.fullmatch(text)))


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BadParameters: it is something else.
    """
    try:
        found = json.loads(text)
        if _HALF.search(text):  # half a pair of surrogates is no text
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadParameters("the parameters are no JSON object")
    return found


def read_parameters(names: tuple[str, ...], given: Mapping[str, Any]) -> Parameters:
    """Check the fields of one kind of request; a name that ends in ``?`` may be missing, null or empty.

    Raises:
        BadParameters: a field is missing or malformed.
    """
    values: dict[str, Any] = {}
    for entry in names:
        name = entry.removesuffix("?")
        raw = given.get(name)
        value = None if raw is None or raw in ("", []) else _read(name, raw)
        if value is None or value == []:
            if not entry.endswith("?"):
                raise BadParameters(f"{name} must be given")
            continue
        values[name] = value
    return Parameters(values)


def deviations_of(names: tuple[str, ...], given: Mapping[str, Any], text: str = "") -> list[str]:
    """Return how a request differs from what the service's library sends."""
    known = [name.removesuffix("?") for name in names]
    found = [f"{name} is no field of it" for name in given if name not in known]
    there = [name for name in given if name in known]
    if there != sorted(there, key=known.index):
        found.append("the fields are in another order")
    if text and text != _written(given):
        found.append("the JSON text is written in another way")
    if any(isinstance(value, float) and value.is_integer() for value in given.values()):
        found.append("a whole number is written with decimals")
    return found


def _written(given: Mapping[str, Any]) -> str:
    try:
        return json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # reading needs less of the stack
        return ""


def _read(name: str, raw: Any) -> Any:
    try:
        return _READERS[_KINDS.get(name, "guid" if name.endswith("Uuid") else "text")](raw)
    except ValueError as error:
        reason = str(error)
    raise BadParameters(f"{name}: {reason}")


def _of_type(kind: type, what: str) -> Callable[[Any], Any]:
    def read(raw: Any) -> Any:
        if type(raw) is not kind:  # True is an int to isinstance
            raise ValueError(f"{what} is expected")
        return raw

    return read


_text = _of_type(str, "text")


def _guid(raw: Any) -> str:
    if not is_guid(raw):
        raise ValueError("a GUID is expected")
    return str(raw).lower()


def _items(raw: Any) -> list[Any]:
    """Return the items of a list that are not blank: a form that was left empty sends ``[""]``."""
    items = [item for item in _list(raw) if not isinstance(item, str) or item.strip()]
    if len(items) > _MOST_ITEMS:
        raise ValueError(f"at most {_MOST_ITEMS} items are expected")
    return items


def _guids(raw: Any) -> list[str]:
    return list(dict.fromkeys(map(_guid, _items(raw))))


def _date(raw: Any) -> date:
    text = _text(raw)
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a day
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise ValueError("YYYY-MM-DD is expected")
    return day


def _moment(raw: Any) -> str:
    text = _text(raw)
    day, _, time = text.partition(" ")
    _date(day)
    if time and not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", time):  # the time may be empty (documented)
        raise ValueError("YYYY-MM-DD HH:MM is expected")
    return str(text)


def _mail(raw: Any) -> str:
    text = _text(raw)
    if len(text) > _LONGEST_MAIL or not _MAIL.fullmatch(text):
        raise ValueError("a mail address is expected")
    return str(text)


def _number(raw: Any) -> int | float:
    if type(raw) not in {int, float} or not raw >= 0:
        raise ValueError("a number of at least 0 is expected")
    number: int | float = raw
    return number


def _count(raw: Any) -> int:
    number: int = _int(raw)
    if number < 0:
        raise ValueError("a whole number of at least 0 is expected")
    return number


def _bytes(raw: Any) -> bytes:
    try:
        return bytes(_list(raw))
    except (TypeError, ValueError):
        pass
    raise ValueError("a list of bytes is expected")


_list = _of_type(list, "a list")
_int = _of_type(int, "an integer")


def _flag_id(raw: Any) -> int:
    """Read a whole number, or the text of one: so the ids of flags are documented."""
    return int(raw) if isinstance(raw, str) and re.fullmatch("-?[0-9]{1,16}", raw) else int(_int(raw))


_Reader: TypeAlias = Callable[[Any], Any]
_READERS: dict[str, _Reader] = {
    "text": _text,
    "guid": _guid,
    "guids": _guids,
    "texts": lambda raw: [_text(item) for item in _items(raw)],
    "date": _date,
    "moment": _moment,
    "mail": _mail,
    "flag": _of_type(bool, "true or false"),
    "int": _int,
    "flag id": _flag_id,
    "count": _count,
    "number": _number,
    "object": _of_type(dict, "an object"),
    "bytes": _bytes,
}
_KINDS = {
    **dict.fromkeys(
        (
            "InstitutionUuidList", "FolderUuidList", "PatientOrderUuidList", "OrderUuidList", "SharedUserUuidList",
            "SharedUserGroupUuidList",
        ),
        "guids",
    ),
    **dict.fromkeys(("StartDate", "EndDate", "StartBirthdate", "EndBirthdate", "ExpireDate"), "date"),
    **dict.fromkeys(("BirthDate", "PatientsBirthDate"), "date"),
    **dict.fromkeys(("Email", "EmailForSendingSharePassword"), "mail"),
    **dict.fromkeys(("GetOrdersInFolder", "UserCanDownloadStudies", "IsDocument"), "flag"),
    **dict.fromkeys(
        ("FileIndex", "TotalFileCount", "CurrentFilePartIndex", "CurrentFileTotalPartCount"),
        "count",
    ),
    **dict.fromkeys(("GroupId", "FlagId"), "flag id"),
    "Modalities": "texts",
    "OtherParameterList": "texts",
    "PerformedDatetime": "moment",
    "TotalFileSize": "number",
    "JsonParameters": "object",
    "FileBuffer": "bytes",
}  # fmt: skip
"""Kinds of fields by name; the rest are GUIDs if their names end in ``Uuid``, else text."""
