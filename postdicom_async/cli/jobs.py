"""``postdicom jobs``: what jobs there are, how far they are, and what a running one is told."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from postdicom_async import PostdicomError, UsageError, __version__
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.job_machines import Machines
from postdicom_async.cli.job_options import JobName, Pacing
from postdicom_async.cli.job_run import Telling, counts_text, document_of, run_job, told_reasons
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.password import asking
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from postdicom_async.jobs import Job, Summary

__all__ = ["list_", "pause", "report", "resume", "retry", "set_", "show", "unpause"]

_AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]


def list_(common: Common, as_json: _AsJson = False) -> int:
    """List the jobs in your state folder, the latest first."""
    del common
    from postdicom_async.jobs.places import every_job

    found = [(path.stem, _summary_or_why_not(path)) for path in every_job()]
    if as_json:
        documents = [{"job": name, "error": one} if isinstance(one, str) else document_of(one) for name, one in found]
        output.write_document({"jobs": documents})
        return Exit.OK
    for name, one in found:
        output.write(f"{name}\t{one}" if isinstance(one, str) else f"{name}\t{one.facts.phase}\t{counts_text(one)}")
    if not found:
        output.note("no jobs yet; postdicom copy SOURCE TARGET begins one")
    return Exit.OK


def show(job: JobName, common: Common, as_json: _AsJson = False) -> int:
    """Show how far a job is, whether or not it runs."""
    del common
    from postdicom_async.jobs.places import find_job

    path = find_job(job)
    summary, running = _summary(path), _asked(path, {"do": "status"}, or_none=True)
    if as_json:
        output.write_document({**document_of(summary), "running": running is not None})
        return Exit.OK
    facts = summary.facts
    output.write(f"{path.stem}: {facts.verb} {facts.source} to {facts.target}, run {facts.run}, {facts.phase}")
    output.write("runs now" if running is not None else "does not run")
    output.write(counts_text(summary))
    for line in told_reasons(summary):
        output.write(line)
    for note in summary.notes:
        output.write(output.clean(note))
    return Exit.OK


def resume(job: JobName, pacing: Pacing, machines: Machines, common: Common, as_json: _AsJson = False) -> int:
    """Go on with a job where it stopped; one that came to its end begins another run."""
    from postdicom_async import jobs

    pace, scheduler = pacing.pace(), machines.given()

    async def begin() -> Job:
        return await jobs.resume(job, pace=pace, patience=pacing.patience * 3600, ask=asking(), scheduler=scheduler)

    return run_job(begin, Telling("resume", common.quiet, as_json))


def retry(
    job: JobName,
    pacing: Pacing,
    machines: Machines,
    common: Common,
    failed: Annotated[bool, typer.Option("--failed", help="Try again what failed or is unconfirmed.")] = False,
    reason: Annotated[
        list[int] | None,
        typer.Option("--reason", metavar="NUMBER", help="Only what failed for this reason; once for each."),
    ] = None,
    as_json: _AsJson = False,
) -> int:
    """Try again what failed in a job, and nothing else."""
    from postdicom_async import jobs

    if not failed:
        raise UsageError("retry: give --failed; --reason narrows it")
    pace, scheduler = pacing.pace(), machines.given()

    async def begin() -> Job:
        return await jobs.retry(
            job, reasons=reason, pace=pace, patience=pacing.patience * 3600, ask=asking(), scheduler=scheduler
        )

    return run_job(begin, Telling("retry", common.quiet, as_json))


def pause(job: JobName, common: Common) -> int:
    """Let a running job begin nothing more until it is told to go on: postdicom jobs continue."""
    return _tell(job, {"do": "pause"}, "paused", common)


def unpause(job: JobName, common: Common) -> int:
    """Let a job that was paused go on."""
    return _tell(job, {"do": "resume"}, "goes on", common)


def stop(job: JobName, common: Common) -> int:
    """End a running job in good order; the same command again goes on from there."""
    return _tell(job, {"do": "stop"}, "stops", common)


def set_(
    job: JobName,
    common: Common,
    max_rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Bytes a second, such as 40M; off for no limit."),
    ] = None,
    max_requests: Annotated[str | None, typer.Option(metavar="RATE", help="Requests a second, such as 10/s.")] = None,
    at_once: Annotated[int | None, typer.Option(min=0, metavar="N", help="Groups of instances at once.")] = None,
    window: Annotated[str | None, typer.Option(metavar="TIMES", help="When it may work, '' for always.")] = None,
) -> int:
    """Change the pace of a running job."""
    given = {"max_rate": max_rate, "max_requests": max_requests, "at_once": at_once, "windows": window}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise UsageError("set: give --max-rate, --max-requests, --at-once or --window")
    return _tell(job, {"do": "set", **changes}, "set", common)


def report(
    job: JobName,
    common: Common,
    to: Annotated[
        list[Path],
        typer.Option(
            "--to", metavar="FILE", parser=given_path, help="FILE.html, FILE.jsonl or FILE.csv; once for each."
        ),
    ],
) -> int:
    """Write a job's report: a page for people, or a line an item for programs. UIDs only, for you alone."""
    from postdicom_async.jobs.ledger import LedgerReader
    from postdicom_async.jobs.places import find_job
    from postdicom_async.jobs.report import write_report

    path = find_job(job)
    with closing(LedgerReader(path)) as reader:
        for file in to:
            write_report(file, reader, version=__version__, now=datetime.now(UTC))
            if not common.quiet:
                output.note(f"written: {file}")
    return Exit.OK


# --- within ---------------------------------------------------------------------------------------------------------


def _summary(path: Path) -> Summary:
    from postdicom_async.jobs.ledger import LedgerReader

    with closing(LedgerReader(path)) as reader:
        return reader.summary()


def _summary_or_why_not(path: Path) -> Summary | str:
    try:
        return _summary(path)
    except PostdicomError as error:
        return error.message


def _asked(path: Path, message: dict[str, Any], *, or_none: bool = False) -> dict[str, Any] | None:
    """Ask the process that runs a job.

    Raises:
        UsageError: it refuses.
        NotFound: none does, unless ``or_none``.
    """
    from postdicom_async.jobs.control import NoJobRuns, ask, control_paths

    async def work() -> dict[str, Any] | None:
        try:
            return await ask(control_paths(path), message)
        except NoJobRuns:
            if or_none:
                return None
            raise

    answer = run_async(work)
    if answer is not None and not answer.get("ok"):
        raise UsageError(str(answer.get("error", "the job refuses")))
    return answer


def _tell(job: str, message: dict[str, Any], done: str, common: Common) -> int:
    from postdicom_async.jobs.places import find_job

    path = find_job(job)
    _asked(path, message)
    if not common.quiet:
        output.note(f"{path.stem}: {done}")
    return Exit.OK
