"""How a list is written: a table for people, or JSON, JSON lines or CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class OutputForm(StrEnum):
    """The forms of a list."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


OutputAs: TypeAlias = Annotated[
    OutputForm | None,
    typer.Option(
        "--output",
        help="A table, one JSON document (as --json), a JSON object a line, or CSV, where a text that a spreadsheet "
        "would take for a formula has an apostrophe in front.",
    ),
]


def form_of(given: OutputForm | None, *, as_json: bool) -> OutputForm:
    """Return the form that was asked for.

    Raises:
        UsageError: two of them were.
    """
    if as_json and given not in (None, OutputForm.JSON):
        raise UsageError("--output: not with --json")
    return OutputForm.JSON if as_json else given or OutputForm.TABLE


def wants_document(arguments: Sequence[str]) -> bool:
    """Whether the raw arguments of a command ask for one JSON document."""
    pairs = pairwise(arguments)
    return "--json" in arguments or "--output=json" in arguments or ("--output", "json") in pairs


_FORMULAS = frozenset("=+-@\t\r")


class Sheet:
    """Lines of CSV as RFC 4180 has them, each written when it comes.

    No cell can be a formula in a spreadsheet: a text that could start one gets an apostrophe in front, a number not.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._buffer = io.StringIO()
        self._writer = csv.writer(self._buffer, lineterminator="\r\n")
        self.add(columns)

    def add(self, cells: Iterable[object]) -> bool:
        """Write a line; return False if the output was closed."""
        self._writer.writerow(map(_harmless, cells))
        line = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return output.write(line.removesuffix("\n"))


def _harmless(cell: object) -> str:
    text = "" if cell is None else "".join(map(_shown, str(cell)))
    return f"'{text}" if text[:1] in _FORMULAS and not _is_number(text) else text


def _shown(char: str) -> str:
    return char if char.isprintable() or char in "\r\n\t" else "\ufffd"  # a sheet may be looked at in a terminal


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_object(item: object) -> bool:
    """Write an object as one line; return False if the output was closed."""
    return output.write(json.dumps(item))


def write_list(form: OutputForm, items: Sequence[Mapping[str, object]], *, columns: Sequence[str] = ()) -> None:
    """Write items that are all there, in a form for programs; ``columns`` are those of CSV, else all there are."""
    if form is OutputForm.JSON:
        output.write_document({"items": list(items)})
    elif form is OutputForm.JSONL:
        for item in items:
            if not write_object(item):
                return
    else:
        names = columns or list(dict.fromkeys(name for item in items for name in item))
        sheet = Sheet(names)
        for item in items:
            if not sheet.add(_cell(item.get(name)) for name in names):
                return


def _cell(value: object) -> object:
    """Return what stands in a cell; what is nested stays JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value
