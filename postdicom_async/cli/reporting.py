"""``--report FILE``: outcomes into a file while a transfer runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from postdicom_async import UsageError
from postdicom_async.cli.paths import given_path

__all__ = ["Reporting"]


@dataclass(frozen=True)
class Reporting:
    """Where outcomes go while a transfer runs."""

    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            parser=given_path,
            help="Append one JSON line for each file or instance as it ends, readable for you alone. --json then holds "
            "counts and what needs attention, and memory stays flat however many there are.",
        ),
    ] = None
    report_paths: Annotated[
        bool, typer.Option("--report-paths", help="Write the files' paths into it too; they may name patients.")
    ] = False

    def checked(self) -> Reporting:
        """Return it.

        Raises:
            UsageError: one option is of no use without the other.
        """
        if self.report_paths and self.report is None:
            raise UsageError("--report-paths: give --report too")
        return self
