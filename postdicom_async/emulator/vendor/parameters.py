"""Pure: the parameters of both of PostDICOM's APIs, checked by name and kind.

What a field holds follows from its name, and is declared here once. The APIs write it in two ways: the Cloud API in the
types of JSON; the operations beside DICOMweb as text, a list too, where blank text means that nothing was given, real
lists and booleans do as well, and names may be spelled in any case. What is missing or malformed is refused; what the
service would let pass but its library does not send (unknown names, another order) is returned as a deviation. Reasons
name the field and never show what was in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeAlias

from postdicom_async.emulator.store.attributes import hex_tag, resolve_attribute

ZERO_GUID = "00000000-0000-0000-0000-000000000000"
KEYS = ("ApiKey", "AccountKey")
"""The last two fields of every general and upload request."""

_NAMES = {
    "date": """
        StartDate EndDate StartBirthdate EndBirthdate ExpireDate BirthDate PatientsBirthDate PatientBirthdate
        StudyDateFrom StudyDateTo PatientBirthdateFrom PatientBirthdateTo
    """,
    "moment": "OrderScheduledDatetime",
    "day or moment": "PerformedDatetime",
    "flag": "GetOrdersInFolder UserCanDownloadStudies IsDocument Downloadable",
    "mail": "Email EmailForSendingSharePassword",
    "flag id": "GroupId FlagId",
    "count": "FileIndex TotalFileCount CurrentFilePartIndex CurrentFileTotalPartCount",
    "number": "TotalFileSize",
    "object": "JsonParameters",
    "bytes": "FileBuffer",
    "folder": "ParentFolderUuid",
    "sex": "PatientSex",
    "texts": "Modalities ModalityList OtherParameterList",
    "uuids": """
        InstitutionUuidList FolderUuidList PatientOrderUuidList OrderUuidList SharedUserUuidList
        SharedUserGroupUuidList
    """,
    "orders": "PatientOrderInfoList",
    "tags": "DicomTagIdList",
}
_KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names.split()}
"""Kinds of fields by name; the rest are UUIDs if their names end in ``Uuid``, else text."""

_LISTS = {"texts", "uuids", "orders", "tags"}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_TAG = re.compile(r"\(?\s*([0-9A-Fa-f]{4})\s*,\s*([0-9A-Fa-f]{4})\s*\)?")
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
class Given:
    """Fields that were given, read; what was left out is absent. ``base`` is the address the archive was reached by."""

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    base: str = ""

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
        return self.values.get(name)

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


def _json(text: str) -> Any:
    """Return the value of a JSON text, None when it is malformed or holds half a pair of surrogates."""
    try:
        found = json.loads(text)
        if _HALF.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BadParameters: it is something else.
    """
    found = _json(text)
    if not isinstance(found, dict):
        raise BadParameters("the parameters are no JSON object")
    return found


def read_parameters(names: Iterable[str], given: Mapping[str, Any], base: str = "") -> Given:
    """Check the fields of one kind of request of the Cloud API; a name that ends in ``?`` may be missing or empty.

    Raises:
        BadParameters: a field is missing or malformed.
    """
    return _read_all(names, given, _READERS, base)


def read_loosely(names: Iterable[str], header: str, values: list[bytes], base: str = "") -> Given:
    """Check the parameters of an operation beside DICOMweb, by the values of the header they are in.

    Raises:
        BadParameters: the header is missing, is no JSON object, or a value is missing or malformed.
    """
    if len(values) != 1:
        raise BadParameters(f"the request header {header} must be given once")
    try:
        text = values[0].decode()
    except UnicodeDecodeError:  # clients without care send Latin-1
        text = values[0].decode("latin-1")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadParameters(f"the request header {header} is no JSON object")
    by_name = {name.lower(): value for name, value in found.items()}
    names = tuple(names)
    there = {name: by_name.get(name.lower()) for name in (entry.removesuffix("?") for entry in names)}
    return _read_all(names, {name: _loosened(_kind(name), raw) for name, raw in there.items()}, _LOOSE_READERS, base)


def _loosened(kind: str, raw: Any) -> Any:
    """Return what the Cloud API would send in place of a text."""
    if not isinstance(raw, str) or not raw.strip():
        return None if isinstance(raw, str) else raw
    if kind in _LISTS:
        found = _json(raw)
        return found if isinstance(found, list) else raw
    if kind == "flag":
        return {"true": True, "false": False}.get(raw.strip().lower(), raw)
    return raw if kind == "text" else raw.strip()


def _kind(name: str) -> str:
    return _KIND_OF.get(name, "uuid" if name.endswith("Uuid") else "text")


def _read_all(names: Iterable[str], given: Mapping[str, Any], readers: Mapping[str, _Reader], base: str) -> Given:
    values: dict[str, Any] = {}
    for entry in names:
        name = entry.removesuffix("?")
        raw = given.get(name)
        reason, value = "", None
        if raw is not None and raw not in ("", []):
            try:
                value = readers[_kind(name)](raw)
            except ValueError as error:
                reason = str(error)
        if reason:  # raised out here: an exception's context would show the value
            raise BadParameters(f"{name}: {reason}")
        if value is not None and value != []:
            values[name] = value
        elif not entry.endswith("?"):
            raise BadParameters(f"{name} must be given")
    return Given(values, base)


def deviations_of(names: Iterable[str], given: Mapping[str, Any], text: str = "") -> list[str]:
    """Return how a request differs from what the service's library sends."""
    known = [name.removesuffix("?") for name in names]
    found = [f"{name} is no field of it" for name in given if name not in known]
    there = [name for name in given if name in known]
    if there != sorted(there, key=known.index):
        found.append("the fields are in another order")
    try:
        written = json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # reading needs less of the stack
        written = ""
    if text and text != written:
        found.append("the JSON text is written in another way")
    if any(isinstance(value, float) and value.is_integer() for value in given.values()):
        found.append("a whole number is written with decimals")
    return found


# Readers return a value or raise a ValueError that says what was expected, without showing what came.

_Reader: TypeAlias = Callable[[Any], Any]


def _expect(good: object, what: str) -> None:
    if not good:
        raise ValueError(f"{what} expected")


def _of_type(kind: type, what: str) -> _Reader:
    def read(raw: Any) -> Any:
        _expect(type(raw) is kind, what)  # True is an int to isinstance
        return raw

    return read


_list = _of_type(list, "a list is")
_int = _of_type(int, "an integer is")


def _text(raw: Any) -> str:
    _expect(isinstance(raw, str), "text is")
    _expect(not any("\ud800" <= char <= "\udfff" for char in raw), "a text without lone surrogates is")
    return str(raw)


def _guid(raw: Any) -> str:
    _expect(is_guid(raw), "a GUID is")
    return str(raw).lower()


def _uuid(raw: Any) -> str:
    text = _text(raw).strip().lower()
    _expect(_UUID.fullmatch(text), "a UUID is")
    return text


def _folder(read: _Reader) -> _Reader:
    """Return a reader of a folder's UUID, which returns an empty text for the zero UUID: the root."""
    return lambda raw: "" if raw == ZERO_GUID else read(raw)


def _sex(raw: Any) -> str:
    letter = _text(raw).upper()
    _expect(letter in {"M", "F", "O"}, "M, F or O is")
    return letter


def _date(raw: Any) -> date:
    try:
        day = date.fromisoformat(_text(raw))
    except ValueError:
        day = None
    if day is None or day.isoformat() != raw:  # it may be written in other ways, such as 20240203
        raise ValueError("YYYY-MM-DD is expected")
    return day


def _moment(raw: Any) -> str:
    text = _text(raw)
    _expect(re.fullmatch(r"\S+ ([01][0-9]|2[0-3]):[0-5][0-9]", text), "YYYY-MM-DD HH:MM is")
    _date(text.partition(" ")[0])
    return text


def _day_or_moment(raw: Any) -> str:
    day, _, time = _text(raw).partition(" ")
    if time:  # it may be empty (documented)
        return _moment(raw)
    _date(day)
    return str(raw)


def _mail(raw: Any) -> str:
    text = _text(raw)
    _expect(len(text) <= _LONGEST_MAIL and _MAIL.fullmatch(text), "a mail address is")
    return text


def _number(raw: Any) -> Any:
    _expect(type(raw) in {int, float} and raw >= 0, "a number of at least 0 is")
    return raw


def _count(raw: Any) -> Any:
    _expect(_int(raw) >= 0, "a whole number of at least 0 is")
    return raw


def _flag_id(raw: Any) -> int:
    """Read a whole number, or the text of one: so the ids of flags are documented."""
    return int(raw) if isinstance(raw, str) and re.fullmatch("-?[0-9]{1,16}", raw) else int(_int(raw))


def _bytes(raw: Any) -> bytes:
    try:
        return bytes(_list(raw))
    except (TypeError, ValueError):
        pass
    raise ValueError("a list of bytes is expected")


def _order(raw: Any) -> str:
    """Read ``{"PatientOrderUuid": "..."}``, written into text or not."""
    found = _json(raw) if isinstance(raw, str) else raw
    _expect(isinstance(found, dict), 'objects with "PatientOrderUuid" are')
    return _uuid({name.lower(): value for name, value in found.items()}.get("patientorderuuid"))


def _tag(raw: Any) -> str:
    """Read ``00100010``, ``(0010,0010)`` or ``PatientName``."""
    text = _text(raw).strip()
    pair = _TAG.fullmatch(text)
    tag = hex_tag(int(pair[1] + pair[2], 16)) if pair else resolve_attribute(text)
    _expect(tag, "DICOM tags or keywords are")
    return str(tag)


def _items(read: _Reader) -> _Reader:
    """Return a reader of lists. Blank items are no items: a form that was left empty sends ``[""]`` (C# sample)."""

    def read_items(raw: Any) -> list[Any]:
        items = [item for item in _list(raw) if not _is_blank(item)]
        _expect(len(items) <= _MOST_ITEMS, f"at most {_MOST_ITEMS} items are")
        return list(dict.fromkeys(map(read, items)))

    return read_items


def _is_blank(item: object) -> bool:
    """Return whether an item of a list says nothing; an object with the UUID of an order does so by an empty one."""
    if isinstance(item, str) and item.lstrip().startswith("{"):
        item = _json(item)
    texts = list(item.values()) if isinstance(item, dict) else [item]
    return bool(texts) and all(isinstance(text, str) and not text.strip() for text in texts)


_READERS: dict[str, _Reader] = {
    "text": _text,
    "uuid": _guid,
    "folder": _folder(_guid),
    "uuids": _items(_guid),
    "texts": _items(_text),
    "sex": _text,
    "date": _date,
    "day or moment": _day_or_moment,
    "mail": _mail,
    "flag": _of_type(bool, "true or false is"),
    "flag id": _flag_id,
    "count": _count,
    "number": _number,
    "object": _of_type(dict, "an object is"),
    "bytes": _bytes,
}
_LOOSE_READERS: dict[str, _Reader] = {
    **_READERS,
    "uuid": _uuid,
    "folder": _folder(_uuid),
    "uuids": _items(_uuid),
    "orders": _items(_order),
    "tags": _items(_tag),
    "sex": _sex,
    "moment": _moment,
}
