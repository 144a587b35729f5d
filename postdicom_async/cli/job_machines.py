"""The options of commands whose work other machines may do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from postdicom_async import UsageError
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from postdicom_async.jobs import Scheduler

__all__ = ["Machines"]


@dataclass(frozen=True)
class Machines:
    """Which machines do the work."""

    PANEL: ClassVar[str] = "Other machines"

    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Have the workers of this dask scheduler do the work: tls://HOST:8786, or tcp://127.0.0.1:8786. They "
            "use their own profiles and secrets.",
        ),
    ] = None
    scheduler_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=given_path, help="The authority of the scheduler and its workers, PEM."),
    ] = None
    scheduler_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=given_path, help="Our certificate for them, PEM.")
    ] = None
    scheduler_key: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=given_path, help="Its key, PEM, without a password.")
    ] = None

    def given(self) -> Scheduler | None:
        """Return the scheduler, None where this process does the work.

        Raises:
            UsageError: the address or a file cannot be used; other machines without TLS.
        """
        if self.scheduler is None:
            if (self.scheduler_ca, self.scheduler_cert, self.scheduler_key) != (None, None, None):
                raise UsageError("--scheduler: give its address with the files of its TLS")
            return None
        from postdicom_async.jobs import Scheduler

        return Scheduler(self.scheduler, self.scheduler_ca, self.scheduler_cert, self.scheduler_key)
