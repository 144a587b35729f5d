"""Tables made of dataclasses: what their docstrings say of each field, beside its default."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from typing import Any

import postdicom_async
from postdicom_async import settings as settings_module

_ENTRY = re.compile(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", re.MULTILINE | re.DOTALL)


def attributes_of(kind: type[Any]) -> dict[str, str]:
    """Return what a docstring says of each attribute."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")[2]
    return {name: " ".join(said.split()) for name, said in _ENTRY.findall(text)}


def _class_body(kind: type[Any]) -> list[ast.stmt]:
    """Return the statements of a class as its source has them."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    return tree.body if isinstance(tree, ast.ClassDef) else []


def defaults_of(kind: type[Any]) -> dict[str, str]:
    """Return the defaults of a dataclass as its source writes them, with units: 32 MIB becomes 32 MiB.

    A field without one must be given.
    """
    found = {}
    for one in _class_body(kind):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            found[one.target.id] = _default(one.value)
    return found


def _default(value: ast.expr | None) -> str:
    if value is None:
        return ""
    if isinstance(value, ast.Call):  # field(default=..., repr=False), field(default_factory=Timeouts)
        given = {one.arg: one.value for one in value.keywords}
        if factory := given.get("default_factory"):
            return f"{ast.unparse(factory)}()"
        value = given.get("default", value)
    text = ast.unparse(value).strip("'\"") or '""'
    text = re.sub(r"([\d.]+) \* ([KMG])IB", lambda found: f"{float(found[1]):g} {found[2]}iB", text)
    return f"{int(text):,}" if text.isdigit() and int(text) >= 10_000 else text


def _markdown(text: str) -> str:
    """Return a docstring's text as Markdown: names in one or two backticks are code, the rest means itself."""
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(part if at % 2 else re.sub(r"([*_<>|])", r"\\\1", part) for at, part in enumerate(parts))


def stacked(rows: list[str]) -> str:
    """Return the rows of a table whose cells stand below each other on a narrow screen."""
    return "\n".join(["::::{container} stacked", *rows, "::::"])


def fields_of(name: str) -> str:
    """Return the table of a dataclass's fields; ``name`` is public, or the full name of its module and itself.

    Raises:
        ValueError: a field is not explained, or what is explained is no field.
    """
    module, _, last = name.rpartition(".")
    kind = getattr(import_module(module) if module else postdicom_async, last)
    texts, defaults = attributes_of(kind), defaults_of(kind)
    if wrong := texts.keys() - defaults.keys():
        raise ValueError(f"{name}: explained and no fields: {', '.join(sorted(wrong))}")
    rows = ["| field | default | |", "|---|---|---|"]
    for field, default in defaults.items():
        shown = f"`{default}`" if default else ""
        text = _markdown(texts.get(field, ""))
        if not text and default.endswith("()"):  # a class of its own, with a section of its own
            text = f"See [{default[:-2]}](#{default[:-2].lower()})."
        rows.append(f"| `{field}` | {shown} | {text[:1].upper()}{text[1:]} |")
    return stacked(rows)


def settings() -> str:
    """Return a section for each class of settings."""
    names = sorted(settings_module.__all__, key=lambda name: name != "Settings")
    made = []
    for name in names:
        text = inspect.cleandoc(getattr(settings_module, name).__doc__).partition("\nAttributes:\n")[0]
        lead = _markdown("\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n")))
        made.append(f"## {name}\n\n{lead}\n\n{fields_of(name)}\n\n")
    return "".join(made)
