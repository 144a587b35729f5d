"""Parts of pages that are made of the program: a fence ``{generated} SUBJECT WORDS`` gives way to Markdown.

It is replaced before the page is parsed, so headings made here stand in the table of contents and can be linked to.
What cannot be made whole (a command that no page shows, a variable that nobody explains) is a warning, and so an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import from_command
import from_docstrings
import public_names
from sphinx.ext.napoleon import GoogleDocstring

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx

_FENCE = re.compile(r"^```\{generated\} (\w+) ?(.*?)\n```$", re.MULTILINE)

SUBJECTS: dict[str, Callable[..., str]] = {
    "overview": from_command.overview,
    "commands": from_command.commands,
    "shared_options": from_command.shared_options,
    "exit_codes": from_command.exit_codes,
    "environment": from_command.environment,
    "settings": from_docstrings.settings,
    "fields": from_docstrings.fields_of,
    "api": public_names.page,
}


def filled(text: str) -> str:
    """Return a page with what the program says in it."""
    return _FENCE.sub(lambda found: SUBJECTS[found[1]](*found[2].split()), text)


def _on_reading(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def _outdated(app: Sphinx, *_: object) -> list[str]:
    """Read pages that are made of the program again: it may have changed, which their text does not tell."""
    return [page for page in app.env.found_docs if _FENCE.search(app.env.doc2path(page).read_text(encoding="utf-8"))]


# --- docstrings as they are -------------------------------------------------------------------------------------------

_kept: dict[str, list[str]] = {}


def _keep(_app: Sphinx, what: str, name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Keep the docstring of a property: napoleon takes what stands before its first colon for a type."""
    if what in {"property", "attribute", "data"}:
        _kept[name] = list(lines)


def _give_back(app: Sphinx, _what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Read the docstring of a property as that of a method is read."""
    if name in _kept:
        lines[:] = GoogleDocstring(_kept.pop(name), app.config, app, "method", name, value, options).lines()


def _on_signature(
    _app: Sphinx, _what: str, _name: str, _value: Any, _options: Any, given: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write a default that a dataclass makes anew as code that can be read."""
    return given and given.replace("<factory>", "..."), returned


def _is_internal(_app: Sphinx, _what: str, _name: str, value: Any, _skip: bool, _options: Any) -> bool | None:
    """Leave out what says of itself that it is not public."""
    return True if "Not part of the public interface" in (getattr(value, "__doc__", None) or "") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect it."""
    app.connect("autodoc-process-docstring", _keep, priority=400)
    app.connect("autodoc-process-docstring", _give_back, priority=600)
    app.connect("autodoc-process-signature", _on_signature)
    app.connect("autodoc-skip-member", _is_internal)
    app.connect("source-read", _on_reading)
    app.connect("env-get-outdated", _outdated)
    app.connect("env-check-consistency", lambda _app, env: public_names.check(env))
    app.connect("missing-reference", public_names.resolve, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
