"""``-o FIELD=VALUE``: what is assumed of an archive (its dialect, how its operations are written), changed by name."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from postdicom_async import profiles

__all__ = ["PANEL", "Assumed", "options_of", "values_of", "with_fields"]

options_of, values_of, with_fields = profiles.options_of, profiles.values_of, profiles.with_fields

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
