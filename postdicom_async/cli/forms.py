"""How a list is written: a table for people, or JSON, JSON lines or CSV for programs."""

from __future__ import annotations

import json
import re
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


_FORMULAS = frozenset("=+-@＝＋－＠")  # noqa: RUF001 - the full-width ones begin formulas too
_SPLITS = re.compile(r"([;\t\r\n])")
"""What some spreadsheets split a line at, whatever the file's own separator is; quotes do not keep them from it."""
_MUST_BE_QUOTED = re.compile(r'[,;"\t\r\n]')


class Sheet:
    """Lines of CSV as RFC 4180 has them, each written when it comes.

    No text becomes a formula in a spreadsheet: one that could begin a formula gets an apostrophe in front, a number
    not. So does what is behind a ``;``, a tab or a new line in a text, where some applications begin a cell.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self.add(columns)

    def add(self, cells: Iterable[object]) -> bool:
        """Write a line; return False if the output was closed."""
        line = ",".join(map(_quoted, map(_harmless, cells)))
        return output.write((line or '""') + "\r")  # a line with nothing in it would not be a row


def _harmless(cell: object) -> str:
    text = "" if cell is None else "".join(map(_shown, str(cell)))
    if _is_number(text):
        return text
    harmless = "".join(map(_no_formula, _SPLITS.split(text)))
    return f"'{harmless}" if text[:1] in ("\t", "\r", "\n") else harmless


def _no_formula(piece: str) -> str:
    """Return a piece of a text with an apostrophe in front of what could begin a formula, quotes before it left out."""
    begins = piece.lstrip('"')
    if begins[:1] not in _FORMULAS or _is_number(piece):
        return piece
    return f"{piece[: len(piece) - len(begins)]}'{begins}"


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""')) if _MUST_BE_QUOTED.search(text) else text


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
