"""The options of the commands that move whole archives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

import typer

from postdicom_async import UsageError, profiles
from postdicom_async.cli.paths import given_path, require_readable

if TYPE_CHECKING:
    from postdicom_async.jobs import Pace, Scheduler


WHAT, PACE, PROOF = "What is done", "How fast, and when", "Proof"
"""Headings in the help."""

JobName: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job: its name as `postdicom jobs list` shows it, a part of it, or its file."),
]


class ProofLevel(StrEnum):
    """What is verified after everything was moved."""

    NONE = "none"
    LISTED = "listed"
    BYTES = "bytes"


@dataclass(frozen=True)
class EndArguments:
    """Source and target."""

    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, a profile as NAME:, or an address (https://..., postdicom+https://... in PostDICOM's URL "
            "shapes); with filters as NAME:?StudyDate=20240101-&ModalitiesInStudy=CT.",
        ),
    ]
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The same.")]

    def check(self, *, target_exists: bool = False) -> None:
        """Refuse a folder that is really a profile without its colon, and one that is missing or not mounted.

        Raises:
            UsageError: one of them; the message says which.
        """
        for end, what, must_exist in ((self.source, "SOURCE", True), (self.target, "TARGET", target_exists)):
            folder = _folder(end, what)
            if folder is None:
                continue
            # A profile's name without the colon is a folder's name: the copy would go to this disk instead.
            is_name = end in profiles.profile_names() if re.fullmatch(r"[\w.-]+", end) else False
            if is_name and not folder.is_dir():
                raise UsageError(f"{what}: write {end}: for the archive of that name; a folder would be ./{end}")
            if must_exist:
                require_readable([Path(end)])


@dataclass(frozen=True)
class JobFile:
    """Which job."""

    PANEL: ClassVar[str] = WHAT

    job: Annotated[
        Path | None,
        typer.Option(
            "--job",
            metavar="FILE",
            parser=given_path,
            help="The file of its ledger; without it one in your state folder, found again by both ends and who logs "
            "in there.",
        ),
    ] = None
    new: Annotated[bool, typer.Option("--new", help="Begin afresh: forget what this job did before.")] = False


@dataclass(frozen=True)
class Pacing:
    """Rates and time windows. All but the patience can be changed while it runs: postdicom jobs set."""

    PANEL: ClassVar[str] = PACE

    max_rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Most bytes a second, such as 40M."),
    ] = None
    max_requests: Annotated[str | None, typer.Option(metavar="RATE", help="Most requests a second, such as 10/s.")] = (
        None
    )
    at_once: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How many groups of instances are under way at once; without it 6."),
    ] = None
    window: Annotated[
        str,
        typer.Option(
            metavar="TIMES",
            help="When it may work: 'Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00', and behind it a time zone such as "
            "Europe/Berlin.",
        ),
    ] = ""
    patience: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="HOURS", help="How long an outage of either end is waited out before it ends with 5."
        ),
    ] = 12.0

    def pace(self) -> Pace:
        """Return the library's `Pace`.

        Raises:
            UsageError: a rate or a window makes no sense.
        """
        from postdicom_async.jobs import Pace

        return Pace(max_rate=self.max_rate, max_requests=self.max_requests, at_once=self.at_once, windows=self.window)


def _folder(end: str, what: str) -> Path | None:
    """Return the folder that the text of an end names, None if it is not a folder."""
    from postdicom_async.jobs import parse_end

    try:
        spec = parse_end(end)
        return Path(spec.place) if spec.kind == "folder" else None
    except UsageError as error:
        message = error.problem
    raise UsageError(f"{what}: {message}")


def first_studies(file: Path | None) -> list[str]:
    """Return the Study Instance UIDs in a file, one a line.

    Raises:
        UsageError: it cannot be read.
    """
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        lines = None
    if lines is None:
        raise UsageError("--first: the file cannot be read; it holds one Study Instance UID a line")
    return lines


@dataclass(frozen=True)
class Machines:
    """The scheduler whose workers do the work."""

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
        """Return the scheduler, None if this process does the work.

        Raises:
            UsageError: the address or a file is unusable, or another machine is named without TLS.
        """
        if self.scheduler is None:
            if (self.scheduler_ca, self.scheduler_cert, self.scheduler_key) != (None, None, None):
                raise UsageError("--scheduler: give its address with the files of its TLS")
            return None
        from postdicom_async.jobs import Scheduler

        return Scheduler(self.scheduler, self.scheduler_ca, self.scheduler_cert, self.scheduler_key)
