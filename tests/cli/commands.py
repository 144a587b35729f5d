"""Every command there is, as the parser knows it."""

from __future__ import annotations

from functools import cache
from typing import Any

import typer.main

from postdicom_async.cli.app import app

__all__ = ["all_commands"]


@cache
def all_commands() -> dict[tuple[str, ...], Any]:
    """Return the commands by their words; groups are not among them."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        below = getattr(command, "commands", None)
        if below is None:
            found[words] = command
        for name, one in (below or {}).items():
            walk(one, (*words, name))

    walk(typer.main.get_command(app()), ())
    return found
