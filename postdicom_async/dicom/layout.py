"""Where an instance lies below a folder: a relative path from its UIDs and, if it names them, values of its header.

Server text never becomes a file name: UIDs are checked, and values of a header are made safe (`_safe_value`). Whatever
the values are, a name has one component for each of the template, and the UID of the instance can be read back from it:
two instances never share one (`_check_apart`).
"""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import PurePath
from typing import Final, NamedTuple, TypeAlias

from postdicom_async.dicom.header import is_uid
from postdicom_async.dicom.tags import TAG
from postdicom_async.dicom.text import decode_text
from postdicom_async.errors import UsageError
from postdicom_async.results import InstanceUids

DEFAULT_LAYOUT = "{study}/{series}/{instance}.dcm"

Layout: TypeAlias = str | Callable[[InstanceUids], str | PurePath]
"""A template with ``{study}``, ``{series}`` and ``{instance}``, or a function that gives a relative path.

Downloads take the fields of `HEADER_FIELDS` in a template too, such as ``{PatientID}``: they put patient data into
paths.
"""

RelativeName: TypeAlias = tuple[str, ...]
"""Folder names and a file name, each safe to create below a folder."""

HeaderValues: TypeAlias = Mapping[int, bytes]
"""Values by their tags, as they stand in a file."""

HEADER_FIELDS: Final = (
    *("AccessionNumber", "InstanceNumber", "Modality", "PatientBirthDate", "PatientID", "PatientName"),
    *("SeriesDescription", "SeriesNumber", "StudyDate", "StudyDescription", "StudyID"),
)
"""The attributes that a template may name."""

_CHARACTER_SET = TAG["SpecificCharacterSet"]
_LONGEST_VALUE = 64  # bytes of a value in a name
_SHORTEST_VALUE = 8  # bytes that a value must have room for
_LONGEST_UID = 64
_NO_VALUE = "unknown"
_UID_FIELDS = ("study", "series", "instance")
_FIELDS = frozenset(_UID_FIELDS)
_OF_UIDS = frozenset("0123456789.")
_LONGEST_NAME = 200
_MOST_NAMES = 32
_PLAIN_NAME = re.compile(r"[0-9](?:[0-9A-Za-z_.-]*[0-9A-Za-z_-])?", re.ASCII)
_FORBIDDEN = frozenset('<>:"|?*\\/')
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})


def relative_names(layout: Layout) -> Callable[[InstanceUids], RelativeName]:
    """Return the function that gives an instance's checked relative name.

    Raises:
        UsageError: the template has unknown fields or no ``{instance}``. The function returned raises it for a
            name that would leave the folder or that some file system cannot hold.
    """
    make = _from_template(layout) if isinstance(layout, str) else layout
    if not callable(make):
        raise UsageError("give a template or a function from UIDs to a relative path", argument="layout")

    def name(uids: InstanceUids) -> RelativeName:
        if not all(is_uid(uid) for uid in uids):
            raise UsageError("an instance without valid UIDs cannot be named", argument="layout")
        return _checked(make(uids))

    return name


class Naming(NamedTuple):
    """How a layout names instances.

    Attributes:
        wanted: the elements whose values a name needs; empty where UIDs are enough.
        name: gives an instance's checked relative name. It raises what the function of `relative_names` raises.
    """

    wanted: frozenset[int]
    name: Callable[[InstanceUids, HeaderValues], RelativeName]


def naming_of(layout: Layout) -> Naming:
    """Return how a layout names instances, by UIDs and, where its template has some of `HEADER_FIELDS`, by values.

    Raises:
        UsageError: as `relative_names`; or the names could be too long, or that of two instances the same.
    """
    parsed = _parsed(layout) if isinstance(layout, str) else []
    if isinstance(layout, str):
        _check_fields(layout, _FIELDS.union(HEADER_FIELDS))  # all of them, so that an error names all
    named = {field for pieces in parsed for _, field in pieces if field in HEADER_FIELDS}
    if not isinstance(layout, str) or not named:
        by_uids = relative_names(layout)
        return Naming(frozenset(), lambda uids, _values: by_uids(uids))
    _checked(layout.format_map(dict.fromkeys((*_FIELDS, *HEADER_FIELDS), "1")))
    tags = {field: TAG[field] for field in named}
    for pieces in parsed:
        _check_apart(pieces)
    components = [(pieces, _room_for_values(pieces)) for pieces in parsed]
    return Naming(frozenset({*tags.values(), _CHARACTER_SET}), partial(_named, components, tags))


def patterns_of(layout: str, study: str, series: str | None) -> tuple[re.Pattern[str], ...]:
    """Return what the components of a name of any instance of a study or series match, whatever its values are.

    The group ``instance`` is the SOP Instance UID. The texts are names found on a disk, so each pattern has one ``.+``
    for all its values and what is between them: with several, a name that does not match could take centuries.
    """
    known = {"study": re.escape(study), **({"series": re.escape(series)} if series else {})}
    parsed = _parsed(layout)
    if not any(field == "instance" for pieces in parsed for _, field in pieces):
        raise UsageError("must contain {instance}, such as {InstanceNumber}-{instance}.dcm", argument="layout")
    return tuple(re.compile(_pattern_of(pieces, known)) for pieces in parsed)


_Pieces: TypeAlias = list[tuple[str, str | None]]


def _pattern_of(pieces: _Pieces, known: Mapping[str, str]) -> str:
    """Return the pattern of a component; ``known`` has those of UIDs that are known."""
    values = [number for number, (_, field) in enumerate(pieces) if field in HEADER_FIELDS]
    first, last = (values[0], values[-1]) if values else (len(pieces), -1)
    met: set[str] = set()
    text = "_?"
    for number, (literal, field) in enumerate(pieces):
        if not first < number <= last:
            text += re.escape(literal)
        if number == first:
            text += ".+"
        elif field in _FIELDS and not first < number < last:
            text += known.get(field) or (f"(?P={field})" if field in met else f"(?P<{field}>[0-9.]+)")
            met.add(field)
    return text


def _parsed(template: str) -> list[_Pieces]:
    """Return a template's components, each as texts and the fields behind them."""
    try:
        return [[(text, field) for text, field, _, _ in string.Formatter().parse(part)] for part in template.split("/")]
    except ValueError:
        raise UsageError("the braces do not match", argument="layout") from None


def _check_apart(pieces: _Pieces) -> None:
    """Refuse a component with values from which the UID of the instance could not be read back.

    A value is any text, even ``-1.2.3-``. So nothing right beside a UID may look like a part of it, and values may lie
    on one side of ``{instance}`` only: it is then found from the other end.
    """
    fields = [(text, field) for text, field in pieces if field is not None]
    names = [field for _, field in fields]
    values = [number for number, field in enumerate(names) if field in HEADER_FIELDS]
    if not values:
        return
    for (_, before), (between, after) in pairwise(fields):
        if not (before in HEADER_FIELDS and after in HEADER_FIELDS) and not set(between) - _OF_UIDS:
            raise UsageError(f"put a letter or a dash between {{{before}}} and {{{after}}}", argument="layout")
    of_instance = [number for number, field in enumerate(names) if field == "instance"]
    if of_instance and values[0] < of_instance[0] and of_instance[-1] < values[-1]:
        before, after = names[values[0]], names[values[-1]]
        message = f"{{{before}}} and {{{after}}} must be on one side of {{instance}}, or have a folder of their own"
        raise UsageError(message, argument="layout")


def _room_for_values(pieces: _Pieces) -> int:
    """Return the bytes that each value in a component may have."""
    values = sum(field in HEADER_FIELDS for _, field in pieces)
    if not values:
        return 0
    fixed = 1 + sum(len(text.encode()) + (_LONGEST_UID if field in _FIELDS else 0) for text, field in pieces)
    room = min(_LONGEST_VALUE, (_LONGEST_NAME - fixed) // values)
    if room < _SHORTEST_VALUE:
        raise UsageError("a name with so much in it may be too long; use folders", argument="layout")
    return room


def _named(
    components: list[tuple[_Pieces, int]], tags: Mapping[str, int], uids: InstanceUids, values: HeaderValues
) -> RelativeName:
    if not all(is_uid(uid) for uid in uids):
        raise UsageError("an instance without valid UIDs cannot be named", argument="layout")
    known = dict(zip(_UID_FIELDS, uids, strict=True))
    character_set = values.get(_CHARACTER_SET, b"")
    names = []
    for pieces, room in components:
        name = ""
        for literal, field in pieces:
            name += literal
            if field in known:
                name += known[field]
            elif field is not None:
                name += _safe_value(decode_text(values.get(tags[field], b""), character_set), room)
        names.append(f"_{name}" if _is_device(name) else name)
    if not all(map(_is_safe, names)):  # not shown: it may hold patient data
        raise UsageError("it gives a name that no file can have", argument="layout")
    return tuple(names)


def _safe_value(text: str, room: int) -> str:
    """Return a value as part of a name, at most ``room`` bytes; what no name may hold becomes an underscore."""
    plain = unicodedata.normalize("NFC", text)
    safe = "".join("_" if char in _FORBIDDEN or not char.isprintable() else char for char in plain)
    cut = safe.strip(" .").encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return cut.strip(" .") or _NO_VALUE


def known_folder(layout: Layout, study: str, series: str | None) -> RelativeName:
    """Return the folder that holds every instance of a study or series; empty if that cannot be determined."""
    if not isinstance(layout, str):
        return ()
    known = {"study": study, **({} if series is None else {"series": series})}
    names: list[str] = []
    for part in layout.split("/")[:-1]:
        fields = {field for _, field, _, _ in string.Formatter().parse(part) if field is not None}
        if not fields <= known.keys():
            break
        names.append(part.format(**known))
    return tuple(names)


def tells_apart(layout: Layout, *, one_series: bool) -> bool:
    """Return whether instances of one study, or of one series, are certain to have distinct names."""
    if not isinstance(layout, str):
        return False
    parsed = list(string.Formatter().parse(layout))
    fields = [field for _, field, _, _ in parsed if field is not None]
    # Two UIDs with nothing between them but digits or dots could be split in two ways.
    apart = all(set(text) - _OF_UIDS for text, field, _, _ in parsed[1:] if field is not None)
    return apart and {"instance", "series" if not one_series else "instance"} <= set(fields)


def _from_template(template: str) -> Callable[[InstanceUids], str]:
    _check_fields(template, _FIELDS)
    return lambda uids: template.format(study=uids[0], series=uids[1], instance=uids[2])


def _check_fields(template: str, allowed: frozenset[str]) -> None:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError:
        raise UsageError("the braces do not match", argument="layout") from None
    fields = {field for _, field, _, _ in parsed if field is not None}
    if unknown := fields - allowed:
        named = f" {min(unknown)!r}" if min(unknown).isidentifier() else ""
        raise UsageError(f"unknown field{named}; there are {_words_of(allowed)}", argument="layout")
    if any(format_spec or conversion for _, _, format_spec, conversion in parsed):
        raise UsageError("a field is written {instance}, without ':' or '!'", argument="layout")
    if "instance" not in fields:
        raise UsageError("must contain {instance}, such as {InstanceNumber}-{instance}.dcm", argument="layout")


def _words_of(allowed: frozenset[str]) -> str:
    *others, last = (f"{{{field}}}" for field in (*_UID_FIELDS, *HEADER_FIELDS) if field in allowed)
    return f"{', '.join(others)} and {last}"


def _checked(path: object) -> RelativeName:
    if not isinstance(path, str | PurePath):
        raise UsageError("the function must return text or a path", argument="layout")
    text = path if isinstance(path, str) else path.as_posix()
    names = tuple(text.replace(os.sep, "/").split("/"))
    if len(names) > _MOST_NAMES:
        raise UsageError(f"more than {_MOST_NAMES} folders deep", argument="layout")
    for name in names:
        if not _is_safe(name):
            raise UsageError(f"{name[:80]!r} cannot be part of a relative path", argument="layout")
    return names


def _is_safe(name: str) -> bool:
    # Most names are UIDs. A plain name begins with a digit, so it is no device name and cannot lead out of the folder.
    return (len(name) <= _LONGEST_NAME and _PLAIN_NAME.fullmatch(name) is not None) or _is_safe_though_odd(name)


def _is_safe_though_odd(name: str) -> bool:
    return (
        0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
        and not name.startswith(".")
        and name == name.strip().rstrip(".")
        and name.isprintable()
        and not _FORBIDDEN.intersection(name)
        and not _is_device(name)
    )


def _is_device(name: str) -> bool:
    return name.split(".")[0].rstrip().lower() in _DEVICES
