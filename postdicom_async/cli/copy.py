"""``postdicom copy``, ``sync`` and ``verify``: whole archives, as jobs that survive whatever ends them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
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


Sample: TypeAlias = Annotated[
    str,
    typer.Option(
        "--sample", metavar="PERCENT", rich_help_panel=PROOF, help="How much of it is compared by bytes, at random."
    ),
]


@dataclass(frozen=True)
class CopyOptions:
    """What is moved, and how it is proven."""

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
            help="Begin anew so long after each end, for what still arrives, until Ctrl-C.",
        ),
    ] = None
    max_duration: Annotated[
        float | None,
        typer.Option(
            "--max-duration",
            min=0.01,
            metavar="MINUTES",
            rich_help_panel=PACE,
            help="Stop then, with 8; the same command goes on later.",
        ),
    ] = None
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Work for a minute and tell how long the rest takes; what was moved counts."),
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
    sample: Sample = "100%"

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
    """What of the target is deleted that the source has no more."""

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

    The same command again goes on where it stopped, whatever ended it. Every instance that was found has an end:
    done, present, excluded, failed or unconfirmed.
    """
    from postdicom_async import jobs

    telling = JobOutput(common.quiet, as_json, error_if_nothing)
    ends.require_meant()
    rules, pace = anonymizing.rules(writes=not moving.dry_run), pacing.pace()
    studies = first_studies(moving.first)
    asked: dict[str, Any] = {
        "full": moving.full,
        "first": studies,
        "anonymize": rules,
        "job": job.job,
        "new": job.new,
        "pace": pace,
    }
    begin = partial(
        jobs.copy,
        ends.source,
        ends.target,
        verify=moving.verify.value,
        sample=share_of(moving.sample, "--sample"),
        attempts=moving.attempts,
        patience=pacing.patience * 3600,
        ask=asking(),
        scheduler=machines.given(),
        **asked,
    )
    if moving.dry_run:
        return show_plans(jobs.dry_run(ends.source, ends.target, ask=asking(), **asked), telling)
    return run_job(begin, telling, moving.limits())


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
            help="Delete at the target what the source has no more: what this job copied, or everything within the "
            "filters. Never after any error.",
        ),
    ] = None,
    max_delete: Annotated[
        str,
        typer.Option(
            "--max-delete",
            metavar="PERCENT",
            rich_help_panel=WHAT,
            help="Delete nothing if it would be more than that.",
        ),
    ] = "1%",
    as_json: _AsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Do what copy does, and with --delete remove at TARGET what SOURCE has no more."""
    from postdicom_async import jobs

    telling = JobOutput(common.quiet, as_json, error_if_nothing)
    ends.require_meant()
    share, studies = share_of(max_delete, "--max-delete"), first_studies(moving.first)
    asked: dict[str, Any] = {
        "full": moving.full,
        "first": studies,
        "job": job.job,
        "new": job.new,
        "pace": pacing.pace(),
    }
    begin = partial(
        jobs.sync,
        ends.source,
        ends.target,
        delete="" if delete is None else delete.value,
        max_delete=share,
        verify=moving.verify.value,
        sample=share_of(moving.sample, "--sample"),
        attempts=moving.attempts,
        patience=pacing.patience * 3600,
        ask=asking(),
        scheduler=machines.given(),
        **asked,
    )
    if moving.dry_run:
        wanted: Literal["", "copied", "all"] = "" if delete is None else delete.value
        plans = jobs.dry_run(ends.source, ends.target, verb="sync", delete=wanted, ask=asking(), **asked)
        return show_plans(plans, telling)
    return run_job(begin, telling, moving.limits())


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
    sample: Sample = "100%",
    as_json: _AsJson = False,
) -> int:
    """Compare SOURCE with TARGET; nothing is changed at either. Ends with 6 where they differ."""
    from postdicom_async import jobs

    ends.require_meant(target_exists=True)
    begin = partial(
        jobs.verify,
        ends.source,
        ends.target,
        level=level.value,
        sample=share_of(sample, "--sample"),
        anonymize=anonymizing.rules(writes=False),
        job=job.job,
        new=job.new,
        pace=pacing.pace(),
        patience=pacing.patience * 3600,
        ask=asking(),
    )
    return run_job(begin, JobOutput(common.quiet, as_json))


def share_of(text: str, option: str) -> float:
    """Return a percentage as a share, 0 to 1.

    Raises:
        UsageError: it is none.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise UsageError(f"{option}: give a percentage such as 1%")
    return percent / 100
