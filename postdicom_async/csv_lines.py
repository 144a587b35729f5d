"""Pure: lines of CSV in which no text becomes a formula, whatever a spreadsheet makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FORMULAS = tuple("=+-@＝＋－＠")  # noqa: RUF001 - the full-width ones begin formulas too
_SPLITS = re.compile(r"([;\t\r\n])")
"""What some spreadsheets split a line at, whatever the file's own separator is; quotes do not keep them from it."""
_MUST_BE_QUOTED = re.compile(r'[,;"\t\r\n]')


def csv_line(cells: Iterable[object]) -> str:
    """Return cells as a line of RFC 4180, with its end.

    A text that could begin a formula gets an apostrophe in front, a number not. So does what is behind a ``;``, a tab
    or a new line in a text, where some applications begin a cell. Characters that cannot be shown are replaced.
    """
    return (",".join(map(_cell, cells)) or '""') + "\r\n"  # a line with nothing in it would not be a row


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if not text.isprintable():
        text = "".join(map(_shown, text))
    is_quoted = _MUST_BE_QUOTED.search(text)
    if is_quoted or text.startswith(_FORMULAS):  # hardly any, in reports of millions of lines
        text = _harmless(text)
    return '"{}"'.format(text.replace('"', '""')) if is_quoted else text


def _shown(char: str) -> str:
    return char if char.isprintable() or char in "\r\n\t" else "\ufffd"  # a sheet may be looked at in a terminal


def _harmless(text: str) -> str:
    if _is_number(text):
        return text
    harmless = "".join(map(_no_formula, _SPLITS.split(text)))
    return f"'{harmless}" if text[:1] in ("\t", "\r", "\n") else harmless


def _no_formula(piece: str) -> str:
    """Return a piece of a text with an apostrophe in front of what could begin a formula, quotes before it left out."""
    begins = piece.lstrip('"')
    if not begins.startswith(_FORMULAS) or _is_number(piece):
        return piece
    return f"{piece[: len(piece) - len(begins)]}'{begins}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
