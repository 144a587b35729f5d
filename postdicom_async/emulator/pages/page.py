"""The pages of shares. They have no scripts or external resources, and their links contain nothing but the token."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

from postdicom_async.emulator.vendor.orders import StoredOrder
from postdicom_async.markup import Html, element, empty, joined

STYLE = files(__package__).joinpath("style.css").read_text("utf-8")
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode('ascii')}'"
"""How a Content Security Policy names the style sheet."""

_NOTE = "Served by an embedded archive for tests and demonstrations. Not for diagnosis."
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Section:
    """Orders under one heading; an empty heading is not shown."""

    heading: str
    orders: Sequence[StoredOrder]


def share_page(
    title: str, description: str, sections: Sequence[Section], *, expires: date | None, download: str = ""
) -> str:
    """Return the page that lists what is shared; ``download`` is the address of the files, empty when not allowed."""
    orders = {order.uuid: order for section in sections for order in section.orders}
    with_images = sum(bool(order.images_count) for order in orders.values())
    top = [
        element("h1", _bdi(title)),
        element("p", f"{len(orders)} {'study' if len(orders) == 1 else 'studies'}", class_="quiet"),
    ]
    if description:
        top.insert(1, element("p", _bdi(description), class_="words"))
    head = [element("div", *top)]
    if download and with_images > 1:
        head.append(element("a", "Download all", href=download, class_="button main"))
    body = [_section(section, download) for section in sections if section.orders]
    if not body:
        body = [element("p", "There is nothing here any more, or nothing yet.", class_="none")]
    until = f"This link works until the end of {expires.day} {expires:%B %Y} (UTC)." if expires else ""
    return _document(title, element("main", element("div", *head, class_="top"), *body), until)


def password_page(action: str, *, wrong: bool) -> str:
    """Return the page that asks for the password; it reveals nothing about what is shared."""
    marks: dict[str, str | bool] = {"aria_invalid": "true", "aria_describedby": "wrong"} if wrong else {}
    marks = {"required": True, "autofocus": True, "autocomplete": "off", **marks}
    content = (
        element("label", "Password", for_="password"),
        empty("input", type="password", name="password", id="password", **marks),
        element("p", "That is not the password.", id="wrong", role="alert", class_="wrong") if wrong else Html(),
        element("button", "Open", type="submit", class_="button main"),
    )
    form = element("form", *content, method="post", action=action)
    words = element("p", "The person who sent you this link can tell you the password.", class_="quiet")
    return _panel("Protected by a password", words, form)


def message_page(title: str, words: str) -> str:
    """Return a page that says why there is nothing to see."""
    return _panel(title, element("p", words, class_="quiet"))


def _panel(title: str, *content: Html) -> str:
    return _document(title, element("main", element("div", element("h1", title), *content, class_="panel")), "")


def _document(title: str, main: Html, note: str) -> str:
    head = element(
        "head",
        empty("meta", charset="utf-8"),
        empty("meta", name="viewport", content="width=device-width, initial-scale=1"),
        empty("meta", name="robots", content="noindex, nofollow"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    footer = element("footer", *([element("p", note)] if note else []), element("p", _NOTE))
    return f"<!DOCTYPE html>\n{element('html', head, element('body', main, footer), lang='en')}\n"


def _section(section: Section, download: str) -> Html:
    heading = element("h2", _bdi(section.heading)) if section.heading else Html()
    return joined(heading, element("ul", *(_study(order, download) for order in section.orders), class_="studies"))


def _study(order: StoredOrder, download: str) -> Html:
    name, *others = _names(order.fields.get("PatientName", ""))
    facts = element(
        "dl",
        _fact("Study date", _day(order.study_date)),
        _fact("Description", _bdi(order.fields.get("StudyDescription", "") or "\N{EN DASH}"), wide=True),
        _fact("Modality", _bdi(", ".join(order.modalities))),
        _fact("Series", str(order.series_count)),
        _fact("Images", str(order.images_count)),
        class_="facts",
    )
    who = [element("h3", _bdi(name))]
    if others:
        who.append(element("p", _bdi(" \N{MIDDLE DOT} ".join(others)), class_="alias"))
    return element("li", element("div", *who), facts, _link(order, name, download), class_="study")


def _link(order: StoredOrder, name: str, download: str) -> Html:
    if not order.images_count:
        return element("span", "No images yet", class_="quiet")
    if not download:
        return Html()
    hidden = element("span", f" the study of {name}", class_="hidden")
    return element("a", "Download", hidden, href=f"{download}/{order.uuid}", class_="button")


def _fact(name: str, value: str | Html, *, wide: bool = False) -> Html:
    return element("div", element("dt", name), element("dd", value), class_="wide" if wide else False)


def _bdi(text: str) -> Html:
    """Return a text that keeps its own direction, left to right or right to left."""
    return element("bdi", text)


def _names(name: str) -> list[str]:
    """Return the component groups of a person name as people read them: ``Family, Given``, or as they are written."""
    groups = [[part.strip() for part in group.split("^")] for group in name.split("=")]
    alphabetic, *others = groups
    shown = [", ".join(filter(None, (alphabetic[0], " ".join(filter(None, alphabetic[1:])))))]
    shown += [" ".join(filter(None, group)) for group in others]
    return [text for text in shown if text] or ["No name"]


def _day(text: str) -> Html | str:
    if not _DAY.fullmatch(text):
        return "\N{EN DASH}"
    try:
        day = date.fromisoformat(text)
        return element("time", f"{day.day} {day:%b %Y}", datetime=text)
    except ValueError:
        return text
