"""``postdicom copy``, ``sync`` and ``verify``: whole archives, as jobs that can always be resumed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import typer

from postdicom_async import UsageError
from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.connection import asking
from postdicom_async.cli.job_options import (
    PACE,
    PROOF,
    WHAT,
    EndArguments,
    JobFile,
    Machines,
    Pacing,
    ProofLevel,
    first_studies,
)
from postdicom_async.cli.job_run import JobOutput, RunLimits, run_job, show_plans
from postdicom_async.cli.options import Common, ErrorIfNothing
from postdicom_async.cli.paths import given_path

_AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document: the summary.")]
_Sample: TypeAlias = Annotated[
    str,
    typer.Option(
        "--sample",
        metavar="PERCENT",
        rich_help_panel=PROOF,
        help="How much of it is compared by bytes: always the same instances.",
    ),
]


@dataclass(frozen=True)
class CopyOptions:
    """What is moved, and how it is verified."""

    PANEL: ClassVar[str] = WHAT

    full: Annotated[
        bool, typer.Option("--full", help="Look into every study, also where the numbers of instances agree.")
    ] = False
    first: Annotated[
        Path | None,
        typer.Option(
            "--first",
            metavar="FILE",
            parser=given_path,
            help="Begin with these studies, one Study Instance UID a line; then the newest first.",
        ),
    ] = None
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts", min=1, metavar="N", rich_help_panel=PACE, help="How often an instance is tried, in waves."
        ),
    ] = 3
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            min=0.01,
            metavar="MINUTES",
            rich_help_panel=PACE,
            help="Run again this long after each run has ended, for what still arrives, until Ctrl-C.",
        ),
    ] = None
    max_duration: Annotated[
        float | None,
        typer.Option(
            "--max-duration",
            min=0.01,
            metavar="MINUTES",
            rich_help_panel=PACE,
            help="Stop after this long and exit with 8; the same command goes on later.",
        ),
    ] = None
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Work for a minute and tell how long the rest will take; what was moved stays moved."
        ),
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done with each study, and change nothing.")
    ] = False
    verify: Annotated[
        ProofLevel,
        typer.Option(
            "--verify",
            rich_help_panel=PROOF,
            help="listed looks for everything in the target's own lists when all is moved; bytes retrieves it and "
            "compares.",
        ),
    ] = ProofLevel.LISTED
    sample: _Sample = "100%"

    def limits(self) -> RunLimits:
        """Return how long it may run.

        Raises:
            UsageError: two limits contradict each other.
        """
        if self.probe and (self.every is not None or self.max_duration is not None):
            raise UsageError("--probe: not with --every or --max-duration")
        minutes = None if self.max_duration is None else self.max_duration * 60
        return RunLimits(minutes, self.probe, None if self.every is None else self.every * 60)


class Delete(StrEnum):
    """Which instances that the source no longer has are deleted at the target."""

    COPIED = "copied"
    ALL = "all"


def copy(
    ends: EndArguments,
    moving: CopyOptions,
    job: JobFile,
    pacing: Pacing,
    anonymizing: Anonymizing,
    machines: Machines,
    common: Common,
    as_json: _AsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Move what SOURCE has and TARGET has not.

    The same command continues where it stopped, whatever ended it. Every instance found ends as done, present,
    excluded, failed or unconfirmed.
    """
    ends.check()
    rules = anonymizing.rules(writes=not moving.dry_run)
    told = JobOutput(common.quiet, as_json, error_if_nothing)
    return _run("copy", ends, moving, job, pacing, machines, told, {"anonymize": rules})


def sync(
    ends: EndArguments,
    moving: CopyOptions,
    job: JobFile,
    pacing: Pacing,
    machines: Machines,
    common: Common,
    delete: Annotated[
        Delete | None,
        typer.Option(
            "--delete",
            rich_help_panel=WHAT,
            help="Delete at the target what the source no longer has: what this job copied, or everything within the "
            "filters. Never after any error.",
        ),
    ] = None,
    max_delete: Annotated[
        str,
        typer.Option(
            "--max-delete",
            metavar="PERCENT",
            rich_help_panel=WHAT,
            help="Delete nothing if it would be more than this.",
        ),
    ] = "1%",
    as_json: _AsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Copy, and with --delete remove what SOURCE no longer has."""
    ends.check()
    asked = {"delete": "" if delete is None else delete.value}
    told = JobOutput(common.quiet, as_json, error_if_nothing)
    return _run(
        "sync", ends, moving, job, pacing, machines, told, asked, max_delete=share_of(max_delete, "--max-delete")
    )


def _run(
    verb: Literal["copy", "sync"],
    ends: EndArguments,
    moving: CopyOptions,
    job: JobFile,
    pacing: Pacing,
    machines: Machines,
    told: JobOutput,
    asked: dict[str, Any],
    **of_the_run: Any,
) -> int:
    """Run the job, or show a dry run, which ignores ``of_the_run`` and the verification."""
    from postdicom_async import jobs

    asked |= {"full": moving.full, "first": first_studies(moving.first), "job": job.job, "new": job.new}
    asked |= {"pace": pacing.pace(), "ask": asking()}
    sample, scheduler = share_of(moving.sample, "--sample", above_none=True), machines.given()
    if moving.dry_run:
        return show_plans(jobs.dry_run(ends.source, ends.target, verb=verb, **asked), told)
    start = partial(
        jobs.copy if verb == "copy" else jobs.sync,
        ends.source,
        ends.target,
        verify=moving.verify.value,
        sample=sample,
        attempts=moving.attempts,
        patience=pacing.patience * 3600,
        scheduler=scheduler,
        **of_the_run,
        **asked,
    )
    begins = chain([start], repeat(partial(start, new=False)))  # with --every the next run goes on with this one's
    return run_job(lambda: next(begins)(), told, moving.limits())


class CompareLevel(StrEnum):
    """How two ends are compared."""

    LISTED = "listed"
    BYTES = "bytes"


def verify(
    ends: EndArguments,
    job: JobFile,
    pacing: Pacing,
    anonymizing: Anonymizing,
    common: Common,
    level: Annotated[
        CompareLevel,
        typer.Option(
            "--level",
            rich_help_panel=PROOF,
            help="Compare the lists of every study, or retrieve both and compare bytes.",
        ),
    ] = CompareLevel.LISTED,
    sample: _Sample = "100%",
    as_json: _AsJson = False,
) -> int:
    """Compare SOURCE with TARGET; nothing is changed.

    Exits with 6 if they differ.
    """
    from postdicom_async import jobs

    ends.check(target_exists=True)
    begin = partial(
        jobs.verify,
        ends.source,
        ends.target,
        level=level.value,
        sample=share_of(sample, "--sample", above_none=True),
        anonymize=anonymizing.rules(writes=False, sends=False),
        job=job.job,
        new=job.new,
        pace=pacing.pace(),
        patience=pacing.patience * 3600,
        ask=asking(),
    )
    return run_job(begin, JobOutput(common.quiet, as_json))


def share_of(text: str, option: str, *, above_none: bool = False) -> float:
    """Return a percentage as a share, 0 to 1.

    Raises:
        UsageError: it is not a percentage, or is 0 and has to be ``above_none``.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100 or (above_none and not percent):
        least = "above 0, at most 100" if above_none else "from 0 to 100"
        raise UsageError(f"{option}: give a percentage {least}, such as 1%")
    return percent / 100
