"""Where an instance lies below a folder: UIDs to a relative path. Server text never becomes a file name."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable
from pathlib import PurePath
from typing import TypeAlias

from postdicom_async.dicom.header import is_uid
from postdicom_async.errors import UsageError
from postdicom_async.results import InstanceUids

DEFAULT_LAYOUT = "{study}/{series}/{instance}.dcm"

Layout: TypeAlias = str | Callable[[InstanceUids], str | PurePath]
"""A template with ``{study}``, ``{series}`` and ``{instance}``, or a function that gives a relative path."""

RelativeName: TypeAlias = tuple[str, ...]
"""Folder names and a file name, each safe to create below a folder."""

_FIELDS = frozenset({"study", "series", "instance"})
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
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError:
        raise UsageError("the braces do not match", argument="layout") from None
    fields = {field for _, field, _, _ in parsed if field is not None}
    if unknown := fields - _FIELDS:
        named = f" {min(unknown)!r}" if min(unknown).isidentifier() else ""
        raise UsageError(f"unknown field{named}; there are {{study}}, {{series}} and {{instance}}", argument="layout")
    if any(format_spec or conversion for _, _, format_spec, conversion in parsed):
        raise UsageError("a field is written {instance}, without ':' or '!'", argument="layout")
    if "instance" not in fields:
        raise UsageError("without {instance} all instances would have one name", argument="layout")
    return lambda uids: template.format(study=uids[0], series=uids[1], instance=uids[2])


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
        and name.split(".")[0].rstrip().lower() not in _DEVICES
    )
