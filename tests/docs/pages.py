"""Pages of the project as text: which there are, what the program fills them with, and the blocks of code in them."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

__all__ = ["BUILT", "PROJECT", "SHOWN", "Block", "blocks_of", "commands_in", "extension", "filled"]

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
README = PROJECT / "README.md"
BUILT = sorted(path for path in DOCS.rglob("*.md") if not path.is_relative_to(DOCS / "_build"))
SHOWN = [path for path in (README, *BUILT) if path.is_file()]
"""The README and all pages of the documentation."""

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_ENDS_A_COMMAND = re.compile(r"[|&;<>()]+")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: its page, from the project's folder.
        line: the number of its first line there.
        language: as the fence says.
        text: the code.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def blocks_of(*languages: str) -> tuple[Block, ...]:
    """Return the blocks in these languages, page by page."""
    found = []
    for path in SHOWN:
        text = path.read_text(encoding="utf-8")
        for one in _FENCE.finditer(text):
            if one[2] in languages:
                code = "\n".join(line.removeprefix(one[1]) for line in one[3].splitlines())
                number = text[: one.start()].count("\n") + 2
                found.append(Block(str(path.relative_to(PROJECT)), number, one[2], f"{code}\n"))
    return tuple(found)


def commands_in(block: Block) -> Iterator[list[str]]:
    """Yield the words behind each ``postdicom`` that a block of shell, or a unit of systemd, calls."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    if block.language == "ini":
        text = "\n".join(re.findall(r"^Exec\w+=(.*)", text, re.MULTILINE))
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] | None = None
        before = ""
        for word in [*lexer, ";"]:
            if _ENDS_A_COMMAND.fullmatch(word):
                if words is not None:
                    yield words
                words = None
            elif words is not None:
                words.append(word)
            elif word.rpartition("/")[2] == "postdicom" and not before.startswith("-"):  # sudo -u postdicom ...
                words = []
            before = word


@cache
def extension(name: str) -> Any:
    """Return a module of the documentation's own extension of Sphinx."""
    pytest.importorskip("sphinx")
    folder = str(DOCS / "_extensions")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


@cache
def filled(path: Path) -> str:
    """Return the text of a page with what the program says in it."""
    text = path.read_text(encoding="utf-8")
    return str(extension("generated").filled(text)) if "```{generated}" in text else text
