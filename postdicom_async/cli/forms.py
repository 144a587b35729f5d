"""How a list is written: a table for people, or JSON, JSON lines or CSV for programs."""

from __future__ import annotations

import json
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.csv_lines import csv_line

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
        "would take for a formula has an apostrophe in front, also behind a ; a tab or a new line in a cell.",
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


class Sheet:
    """Lines of CSV, each written when it comes."""

    def __init__(self, columns: Iterable[str]) -> None:
        self.add(columns)

    def add(self, cells: Iterable[object]) -> bool:
        """Write a line; return False if the output was closed."""
        return output.write(csv_line(cells).removesuffix("\n"))


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
