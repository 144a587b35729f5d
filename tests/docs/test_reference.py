"""The reference leaves nothing out: commands, options, exit codes, variables, settings and public names."""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import Any

import pytest

import postdicom_async
from postdicom_async import PostdicomError
from postdicom_async.cli.exits import Exit
from tests.cli.commands import all_commands
from tests.docs.pages import DOCS, PROJECT, extension, filled

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its documentation")

REFERENCE = DOCS / "reference"


def commands_text() -> str:
    pages = [REFERENCE / "commands.md", *sorted((REFERENCE / "commands").glob("*.md"))]
    return "\n".join(map(filled, pages))


def section_of(words: tuple[str, ...]) -> str:
    """Return what stands under the heading of a command."""
    heading = re.search(rf"^##+ postdicom {' '.join(words)}\n(.*?)(?=^\(|\Z)", commands_text(), re.M | re.S)
    return heading[1] if heading else ""


def visible(one: Any) -> bool:
    return not getattr(one, "hidden", False)


SHOWN = [words for words, command in all_commands().items() if visible(command)]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_every_command_with_every_option_is_there(words: tuple[str, ...]) -> None:
    section = section_of(words)
    assert section, "no heading"
    own = {
        option for param in all_commands()[words].params if visible(param) for option in param.opts if "--" in option
    }
    named = set(re.findall(r"--[a-z][a-z-]*", section))
    assert not own - named
    assert words in extension("from_command").all_commands()


def test_every_option_that_commands_share_is_explained() -> None:
    text = commands_text()
    for panel, options in extension("from_command").panels().items():
        section = text.partition(f"\n## {panel}\n")[2].partition("\n## ")[0]
        assert not [option for option in options if not re.search(rf"{{option}}.*{option}\b", section)], panel


def test_links_between_commands_and_what_they_share_lead_somewhere() -> None:
    text = commands_text()
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))


def test_every_exit_code_is_there() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", filled(REFERENCE / "exit-codes.md"), re.M)
    assert {(int(code), name) for code, name, _ in rows} == {(one.value, one.name) for one in Exit}
    assert all(text for _, _, text in rows)


def test_every_variable_is_there() -> None:
    source = "".join(path.read_text() for path in (PROJECT / "postdicom_async").rglob("*.py"))
    rows = re.findall(r"^\| `(POSTDICOM_\w+)` \| (.+) \|$", filled(REFERENCE / "environment.md"), re.M)
    assert {name for name, _ in rows} == set(re.findall(r"POSTDICOM_[A-Z_]*[A-Z]", source))


@pytest.mark.parametrize("page", ["settings", "assumptions"])
def test_every_field_is_there_and_explained(page: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`.*?`)? \| (.*) \|$", filled(REFERENCE / f"{page}.md"), re.M)
    names = {
        "settings": ("Settings", "Timeouts", "Retry", "Limits", "Tls"),
        "assumptions": ("Dialect", "Wire", "CloudWire"),
    }
    fields = [one.name for name in names[page] for one in dataclasses.fields(getattr(postdicom_async, name))]
    assert sorted(name for name, _ in rows) == sorted(fields)
    assert not [name for name, text in rows if not text]


def test_every_exception_is_there() -> None:
    text = filled(REFERENCE / "errors.md")
    public = [getattr(postdicom_async, name) for name in postdicom_async.__all__]
    errors = [one for one in public if isinstance(one, type) and issubclass(one, PostdicomError)]
    assert len(errors) > 10
    assert not [one.__name__ for one in errors if f"`{one.__name__}`" not in text and one is not PostdicomError]


def test_every_public_name_is_there() -> None:
    text = "\n".join(map(filled, sorted((REFERENCE / "api").glob("*.md"))))
    shown = set(re.findall(r"^\.\. (?:auto|py:)\w+:: ([\w.]+)$", text, re.M))
    for package in extension("public_names").packages():
        loaded = importlib.import_module(package)
        names = {name for name in loaded.__all__ if name[0] != "_" and f"{package}.{name}" not in shown}
        assert not [name for name in names if getattr(postdicom_async, name, None) is not getattr(loaded, name)], (
            package
        )
