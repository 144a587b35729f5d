"""Pure: write HTML in which every text is escaped unless it was written here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Html(str):
    """Markup made by this module: not escaped again."""

    __slots__ = ()


def element(name: str, /, *content: str | Html, **attributes: str | bool) -> Html:
    """Return an element.

    Attribute names have ``_`` for ``-`` and may end in ``_``; True is an attribute without a value, False none.
    """
    return Html(f"<{name}{_attributes(attributes)}>{joined(*content)}</{name}>")


def empty(name: str, /, **attributes: str | bool) -> Html:
    """Return an element that has no content, such as ``input``."""
    return Html(f"<{name}{_attributes(attributes)}>")


def joined(*content: str | Html) -> Html:
    """Return markup and escaped texts in a row."""
    return Html("".join(part if isinstance(part, Html) else _escaped(part) for part in content))


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", of: int | None = None, most: int = 20
) -> Html:
    """Return a table for a notebook: no colours and sizes of its own, so that it reads well in light and dark.

    Args:
        headings: of the columns.
        rows: their texts.
        caption: above it.
        of: how many rows there are in all, if not those given.
        most: rows to show.
    """
    head = element("thead", element("tr", *(element("th", one, scope="col") for one in headings)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows[:most]))
    made = element("table", *([element("caption", caption)] if caption else []), head, body)
    left = (len(rows) if of is None else of) - len(rows[:most])
    return joined(made, element("p", f"{left:,} more are not shown.")) if left > 0 else made


def _attributes(attributes: dict[str, str | bool]) -> str:
    written = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if isinstance(value, str):
            written.append(f' {name}="{_escaped(value)}"')
        elif value:
            written.append(f" {name}")
    return "".join(written)


def _escaped(text: str) -> str:
    return escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text))
