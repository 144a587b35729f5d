"""``postdicom jobs``: list, show, watch, resume, retry and control jobs."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from postdicom_async import NotFound, PostdicomError, UsageError, __version__
from postdicom_async.cli import output
from postdicom_async.cli.connection import asking
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.forms import OutputAs, OutputForm, form_of, write_list
from postdicom_async.cli.job_options import JobName, Machines, Pacing
from postdicom_async.cli.job_run import JobOutput, Picture, counts_text, document_of, reason_lines, run_job
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import AllowedHosts, AsJson, Common
from postdicom_async.cli.paths import given_path
from postdicom_async.jobs import SETTLED, Eta, State, is_reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postdicom_async.jobs import Summary


def list_(common: Common, output_as: OutputAs = None, as_json: AsJson = False) -> int:
    """List the jobs in your state folder, the latest first."""
    from postdicom_async.jobs import every_job

    form = form_of(output_as, as_json=as_json)
    found = run_async(lambda: _all(every_job()))
    if form is not OutputForm.TABLE:
        write_list(form, [_listed_document(*one) for one in found])
    elif not found:
        if not common.quiet:
            output.note("no jobs yet; postdicom copy SOURCE TARGET begins one")
    elif sys.stdout.isatty():
        output.write(output.render([output.table(_COLUMNS, [_row(*one) for one in found], numbers=_NUMBERS)]))
    else:
        for one in found:
            if not output.write("\t".join(map(output.clean, _row(*one)))):
                break
    return Exit.OK


_Status: TypeAlias = dict[str, Any] | None
_COLUMNS = ("JOB", "NOW", "DONE", "OF", "FAILED", "RATE", "LEFT")
_NUMBERS = frozenset({"DONE", "OF", "FAILED", "RATE", "LEFT"})


async def _all(paths: list[Path]) -> list[tuple[Path, Summary | str, _Status]]:
    return [(path, await asyncio.to_thread(_summary_or_why_not, path), await status_of(path)) for path in paths]


def _listed_document(path: Path, summary: Summary | str, status: _Status) -> dict[str, Any]:
    if isinstance(summary, str):
        return {"job": path.stem, "error": summary}
    return {**document_of(summary), "running": status is not None}


def _row(path: Path, summary: Summary | str, status: _Status) -> tuple[str, ...]:
    if isinstance(summary, str):
        return path.stem, summary, "", "", "", "", ""
    settled = sum(count.instances for state, count in summary.counts.items() if state in SETTLED)
    failed = sum(summary.of(state).instances for state in (State.FAILED, State.UNCONFIRMED))
    more = "" if summary.discovery_complete else "+"
    numbers = f"{settled:,}", f"{summary.discovered + summary.expected:,}{more}", f"{failed:,}"
    return path.stem, _now(summary, status), *numbers, *_pace_texts(summary, status)


def _now(summary: Summary, status: _Status) -> str:
    phase = summary.facts.phase
    rests = _rests(status)
    return f"{rests} ({phase})" if rests and phase != "complete" else phase


def _rests(status: _Status) -> str:
    """Return why a job does not work now; empty if it does."""
    if status is None:
        return "stopped"
    if status.get("paused"):
        return "paused"
    return "" if status.get("open", True) else "waits for its window"


def _pace_texts(summary: Summary, status: _Status) -> tuple[str, str]:
    if _rests(status):
        return "", ""
    pace = Eta().note(summary, time.time())
    left = "" if pace.seconds is None else output.time_text(pace.seconds)
    return (f"{pace.instances:,.0f}/min" if pace.instances else ""), left


def show(job: JobName, common: Common, output_as: OutputAs = None, as_json: AsJson = False) -> int:
    """Show how far a job is, whether or not it runs."""
    del common
    from postdicom_async.jobs import find_job

    form = form_of(output_as, as_json=as_json)
    path = find_job(job)
    summary, status = summary_of(path), run_async(lambda: status_of(path))
    if form is not OutputForm.TABLE:
        document = _listed_document(path, summary, status)
        if form is OutputForm.JSON:
            output.write_document({"answer": document})
        else:
            write_list(form, [document])
        return Exit.OK
    facts = summary.facts
    rate, left = _pace_texts(summary, status)
    lines = [
        f"{path.stem}: {facts.verb} {facts.source} to {facts.target}",
        f"run {facts.run}, {'' if status is None else 'runs now: '}{_now(summary, status)}"
        + (f", {rate}" if rate else "")
        + (f", {left} left" if left else ""),
        counts_text(summary, runs=status is not None),
    ]
    if facts.phase != "complete" and status is None:
        lines.append(f"postdicom jobs resume {path.stem} goes on with it")
    for line in (*lines, *reason_lines(summary), *summary.notes):
        if not output.write(output.clean(line)):
            break
    return Exit.OK


def resume(job: JobName, pacing: Pacing, machines: Machines, common: Common, as_json: AsJson = False) -> int:
    """Resume a job where it stopped; a finished job starts another run.

    Rates and windows are those given here, else those of the profiles.
    """
    from postdicom_async import jobs

    begin = partial(jobs.resume, job, **_of_this_run(pacing, machines))
    return run_job(begin, JobOutput(common.quiet, as_json))


def _of_this_run(pacing: Pacing, machines: Machines) -> dict[str, Any]:
    return {"pace": pacing.pace(), "patience": pacing.patience * 3600, "ask": asking(), "scheduler": machines.given()}


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
    as_json: AsJson = False,
) -> int:
    """Retry the failed and unconfirmed items of a job, and nothing else."""
    from postdicom_async import jobs

    if not failed:
        raise UsageError("give --failed; --reason narrows it", operation="retry")
    for number in reason or ():
        if not is_reason(number):
            raise UsageError(f"--reason: no reason has the number {number}; postdicom jobs show {job} names them")
    begin = partial(jobs.retry, job, reasons=reason, **_of_this_run(pacing, machines))
    return run_job(begin, JobOutput(common.quiet, as_json))


def pause(job: JobName, common: Common) -> int:
    """Pause a running job until postdicom jobs continue; transfers under way are finished."""
    _asked(job, {"do": "pause"}, lambda _: "paused", common)
    return Exit.OK


def unpause(job: JobName, common: Common) -> int:
    """Continue a paused job."""
    _asked(job, {"do": "resume"}, lambda _: "goes on", common)
    return Exit.OK


def stop(job: JobName, common: Common) -> int:
    """Stop a running job cleanly; the same command resumes it."""
    _asked(job, {"do": "stop"}, lambda _: "stops", common)
    return Exit.OK


def set_(
    job: JobName,
    common: Common,
    max_rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Most bytes a second, such as 40M; off for no limit."),
    ] = None,
    max_requests: Annotated[
        str | None, typer.Option(metavar="RATE", help="Most requests a second, such as 10/s.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Groups of instances at once; 0 for the default.")
    ] = None,
    window: Annotated[str | None, typer.Option(metavar="TIMES", help="When it may work; '' for always.")] = None,
) -> int:
    """Change the pace of a running job."""
    from postdicom_async import jobs

    given = {"max_rate": max_rate, "max_requests": max_requests, "at_once": at_once, "windows": window}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise UsageError("give --max-rate, --max-requests, --at-once or --window", operation="set")
    jobs.Pace(max_rate=max_rate, max_requests=max_requests, at_once=at_once, windows=window or "")  # checks the value
    _asked(job, {"do": "set", **changes}, lambda answer: f"set: {_pace_words(answer)}", common)
    return Exit.OK


def _pace_words(answer: dict[str, Any]) -> str:
    at_once = answer.get("at_once") or "the default"
    words = f"max-rate {answer.get('max_rate')}, max-requests {answer.get('max_requests')}, at-once {at_once}"
    return f"{words}, window {answer.get('windows')}"


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
    from postdicom_async.jobs import LedgerReader, find_job, write_report

    path = find_job(job)
    with closing(LedgerReader(path)) as reader:
        for file in to:
            write_report(file, reader, version=__version__, now=datetime.now(UTC))
            if not common.quiet:
                output.note(f"written: {file}")
    return Exit.OK


# --- in parts ---------------------------------------------------------------------------------------------------------


def partition(
    job: JobName,
    number: Annotated[int, typer.Argument(metavar="N", min=2, help="Into how many.")],
    common: Common,
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", parser=given_path, help="Where the ledgers of the parts go.")
    ],
) -> int:
    """Split a job that is not running, by studies, into ledgers that can run anywhere.

    Run each with postdicom jobs resume PART. Discovery must be complete. Until all parts are merged (postdicom jobs
    merge) the job itself cannot run.
    """
    from postdicom_async import jobs
    from postdicom_async.jobs import find_job

    path = find_job(job)
    for part in run_async(lambda: jobs.partition(path, number, to)):
        output.write(str(part))
    if not common.quiet:
        output.note(f"move each with the files beside it; then: postdicom jobs resume PART, and: merge {path.stem}")
    return Exit.OK


def merge(
    job: JobName,
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", parser=given_path, help="Ledgers of its parts.")],
    common: Common,
) -> int:
    """Merge parts into their job: all of them, or some now and the rest later."""
    from postdicom_async import jobs
    from postdicom_async.jobs import find_job

    path = find_job(job)
    still_out = run_async(lambda: jobs.merge(path, parts))
    if not common.quiet:
        words = f"{still_out} parts are still out" if still_out else "all parts are back"
        output.note(f"{path.stem}: {words}; {counts_text(summary_of(path))}")
    return Exit.OK


# --- within -----------------------------------------------------------------------------------------------------------


def _summary_or_why_not(path: Path) -> Summary | str:
    try:
        return summary_of(path)
    except PostdicomError as error:
        return error.message


def _asked(job: str, message: dict[str, Any], done: Callable[[dict[str, Any]], str], common: Common) -> None:
    """Send a command to the process that runs a job, and show the answer.

    Raises:
        UsageError: it refuses, or several jobs match.
        NotFound: there is no such job, or it does not run.
    """
    path = find_running(job)
    answer = run_async(lambda: ask(path, message))
    if not answer.get("ok"):
        raise UsageError(str(answer.get("error", "the job refuses")))
    if not common.quiet:
        output.note(f"{path.stem}: {done(answer)}")


# --- what is known of a job -------------------------------------------------------------------------------------------


def summary_of(path: Path) -> Summary:
    """Return the summary of a ledger's job.

    Raises:
        LedgerUnusable: it cannot be read.
    """
    from postdicom_async.jobs import LedgerReader

    with closing(LedgerReader(path)) as reader:
        return reader.summary()


async def ask(path: Path, message: dict[str, Any]) -> dict[str, Any]:
    """Ask the process that runs a job.

    Raises:
        NotFound: none does.
        ConnectionFailed: it does not answer.
    """
    from postdicom_async.jobs import NoJobRuns, ask_job

    try:
        return await ask_job(path, message)
    except NoJobRuns:
        pass
    raise NotFound(f"the job does not run now; postdicom jobs resume {path.stem} goes on with it")


def find_running(name: str) -> Path:
    """Return the matching job; of several, the only one that is running.

    Raises:
        NotFound: there is none of that name.
        UsageError: several match, and not exactly one of them is running.
    """
    from postdicom_async.jobs import find_job, find_jobs

    async def running() -> list[Path]:
        return [path for path in find_jobs(name) if await status_of(path) is not None]

    found = run_async(running)
    return found[0] if len(found) == 1 else find_job(name)


async def status_of(path: Path) -> dict[str, Any] | None:
    """Return the status from the process that runs the job, None if none runs it.

    A process that does not answer counts as running.
    """
    try:
        return await ask(path, {"do": "status"})
    except NotFound:
        return None
    except PostdicomError:
        return {}


# --- looking on -------------------------------------------------------------------------------------------------------


_EVERY_ON_TERMINAL, _EVERY = 1.0, 30.0  # seconds
_TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--metrics-token-file",
        metavar="FILE",
        parser=given_path,
        help="Holds the token with which Prometheus may read /metrics; only you may be able to read it.",
    ),
]


def watch(job: JobName, common: Common) -> int:
    """Watch a job until it ends or you press Ctrl-C; the job is not affected."""
    del common
    path = find_running(job)
    try:
        run_async(lambda: _watch(path))
    except Interrupted:
        return Exit.OK
    return Exit.OK


async def _watch(path: Path) -> None:
    with Picture(sys.stdout, stays=True) as picture:
        while True:
            status = await status_of(path)  # first: what a job has done when it ends is in the summary
            if not picture.show(await asyncio.to_thread(summary_of, path), rests=_rests(status)) or status is None:
                break
            await asyncio.sleep(_EVERY_ON_TERMINAL if picture.is_drawn else _EVERY)


async def _answer_of(path: Path, message: dict[str, Any]) -> dict[str, Any]:
    try:
        return await ask(path, message)
    except NotFound as error:
        return {"ok": False, "error": error.message}


def serve(
    job: JobName,
    common: Common,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0 takes a free one.")] = 0,
    control: Annotated[
        bool, typer.Option("--control", help="Let the page pause, resume and change the job, and retry what failed.")
    ] = False,
    metrics_token_file: _TokenFile = None,
    allow_host: AllowedHosts = None,
) -> int:
    """Show a job in a browser on this machine until Ctrl-C, whether or not it runs.

    The printed address opens the page once. It listens on the loopback address only.
    """
    from postdicom_async.jobs import find_job

    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise UsageError('jobs serve needs more: pip install "postdicom-async[cli,server]"')
    path = find_job(job)

    async def work() -> None:
        from postdicom_async.jobs import LedgerReader, LivePage

        page = LivePage(
            lambda: LedgerReader(path),
            ask=lambda message: _answer_of(path, message),
            control=control,
            port=port,
            names=allow_host or (),
            token_file=metrics_token_file,
        )
        async with page:
            output.write(page.address)
            if not common.quiet:
                output.note("Open it once, in one browser. Ctrl-C stops it, and not the job.")
            await page.serve_forever()

    try:
        run_async(work)
    except Interrupted:
        if not common.quiet:
            output.note("stopped; the job was not touched")
    return Exit.OK
