"""``-o FIELD=VALUE``: what is assumed of an archive (its dialect, how its operations are written), changed by name."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

__all__ = ["PANEL", "Assumed"]

PANEL = "Connection"
"""Where the help shows the options that say which archive and how."""

Assumed: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="FIELD=VALUE",
        help="Change what is assumed of the archive, such as pages=false; doctor lists the fields. Give it once for "
        "each.",
        rich_help_panel=PANEL,
    ),
]
