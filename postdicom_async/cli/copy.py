"""``postdicom copy``, ``sync`` and ``verify``: whole archives, as jobs that survive whatever ends them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async import UsageError
from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.job_options import Ends, JobFile, Pacing, VerifyLevel, first_studies
from postdicom_async.cli.job_plan import show_plans
from postdicom_async.cli.job_run import Telling, run_job
from postdicom_async.cli.options import Common, ErrorIfNothing
from postdicom_async.cli.password import asking
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from postdicom_async.jobs import Job

__all__ = ["copy", "sync", "verify"]

_Verify: TypeAlias = Annotated[
    VerifyLevel,
    typer.Option(
        "--verify",
        help="What is proven in the end: listed asks the target for its list of every study, bytes retrieves and "
        "compares everything that was moved.",
    ),
]
_Full: TypeAlias = Annotated[
    bool, typer.Option("--full", help="Compare the instances of every study, also where the counts are equal.")
]
_First: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--first",
        metavar="FILE",
        parser=given_path,
        help="Begin with these studies: one Study Instance UID a line. Then the newest come first.",
    ),
]
_Attempts: TypeAlias = Annotated[
    int, typer.Option("--attempts", min=1, metavar="N", help="How often an instance is tried, in waves.")
]
_DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done with each study, and change nothing.")
]
_AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document: the summary.")]


class Delete(StrEnum):
    """What of the target is deleted that the source has no more."""

    COPIED = "copied"
    ALL = "all"


def copy(
    ends: Ends,
    job: JobFile,
    pacing: Pacing,
    anonymizing: Anonymizing,
    common: Common,
    verify: _Verify = VerifyLevel.LISTED,
    full: _Full = False,
    first: _First = None,
    attempts: _Attempts = 3,
    dry_run: _DryRun = False,
    as_json: _AsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Move what SOURCE has and TARGET has not.

    The same command again goes on where it stopped, whatever ended it. Every instance that was found has an end:
    done, present, excluded, failed or unconfirmed.
    """
    from postdicom_async import jobs

    rules, pace, studies = anonymizing.rules(), pacing.pace(), first_studies(first)
    if dry_run:
        plans = jobs.dry_run(
            ends.source,
            ends.target,
            full=full,
            first=studies,
            anonymize=rules,
            job=job.job,
            new=job.new,
            pace=pace,
            ask=asking(),
        )
        return show_plans(plans, as_json=as_json)

    async def begin() -> Job:
        return await jobs.copy(
            ends.source,
            ends.target,
            verify=verify.value,
            full=full,
            first=studies,
            anonymize=rules,
            job=job.job,
            new=job.new,
            attempts=attempts,
            pace=pace,
            patience=pacing.patience * 3600,
            ask=asking(),
        )

    return run_job(begin, Telling("copy", common.quiet, as_json, error_if_nothing))


def sync(
    ends: Ends,
    job: JobFile,
    pacing: Pacing,
    common: Common,
    delete: Annotated[
        Delete | None,
        typer.Option(
            "--delete",
            help="Delete at the target what the source has no more: what this job copied, or everything within the "
            "filters. Never after any error.",
        ),
    ] = None,
    max_delete: Annotated[
        str, typer.Option("--max-delete", metavar="PERCENT", help="Delete nothing if it would be more than that.")
    ] = "1%",
    verify: _Verify = VerifyLevel.LISTED,
    full: _Full = False,
    first: _First = None,
    attempts: _Attempts = 3,
    dry_run: _DryRun = False,
    as_json: _AsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Do what copy does, and with --delete remove at TARGET what SOURCE has no more."""
    from postdicom_async import jobs

    pace, studies, share = pacing.pace(), first_studies(first), _share(max_delete)
    if dry_run:
        plans = jobs.dry_run(
            ends.source,
            ends.target,
            verb="sync",
            delete="" if delete is None else delete.value,
            full=full,
            first=studies,
            job=job.job,
            new=job.new,
            pace=pace,
            ask=asking(),
        )
        return show_plans(plans, as_json=as_json)

    async def begin() -> Job:
        return await jobs.sync(
            ends.source,
            ends.target,
            delete="" if delete is None else delete.value,
            max_delete=share,
            verify=verify.value,
            full=full,
            first=studies,
            job=job.job,
            new=job.new,
            attempts=attempts,
            pace=pace,
            patience=pacing.patience * 3600,
            ask=asking(),
        )

    return run_job(begin, Telling("sync", common.quiet, as_json, error_if_nothing))


class Level(StrEnum):
    """How two ends are compared."""

    LISTED = "listed"
    BYTES = "bytes"


def verify(
    ends: Ends,
    job: JobFile,
    pacing: Pacing,
    anonymizing: Anonymizing,
    common: Common,
    level: Annotated[
        Level, typer.Option("--level", help="Compare the lists of every study, or retrieve both and compare bytes.")
    ] = Level.LISTED,
    as_json: _AsJson = False,
) -> int:
    """Compare SOURCE with TARGET; nothing is changed at either. Ends with 6 where they differ."""
    from postdicom_async import jobs

    rules, pace = anonymizing.rules(), pacing.pace()

    async def begin() -> Job:
        return await jobs.verify(
            ends.source,
            ends.target,
            level=level.value,
            anonymize=rules,
            job=job.job,
            new=job.new,
            pace=pace,
            patience=pacing.patience * 3600,
            ask=asking(),
        )

    return run_job(begin, Telling("verify", common.quiet, as_json))


def _share(text: str) -> float:
    number = text.strip().removesuffix("%")
    try:
        percent = float(number)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise UsageError("--max-delete: give a percentage such as 1%")
    return percent / 100
