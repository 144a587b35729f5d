"""Runs a job on the terminal: progress while it runs, then the summary and the exit code."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from os import environ
from typing import TYPE_CHECKING, Any, Self, TextIO

from postdicom_async import JobStopped, PostdicomError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.loop import run_async
from postdicom_async.jobs import SETTLED, Eta, Reason, State, reason_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from typing import Any

    from rich.live import Live

    from postdicom_async.jobs import Job, StudyPlan, Summary


NOTHING = "there was nothing to do"
"""The error of ``--error-if-nothing``."""
_MISMATCHES = frozenset({
    Reason.NOT_LISTED,
    Reason.DIFFERENT,
    Reason.NOT_CONFIRMED,
    Reason.CANNOT_COMPARE,
    Reason.GONE,
    Reason.TWO_PATIENTS,
})  # fmt: skip
_PROBED = 60.0  # seconds
_TIME_OVER, _STOPPED = "--max-duration is over", "it was told to stop"
_PROVEN = {"listed": "found in the target's lists", "bytes": "retrieved and compared"}
_BAD = (State.FAILED, State.UNCONFIRMED)


@dataclass(frozen=True)
class JobOutput:
    """How a job's progress and result are written."""

    quiet: bool
    as_json: bool
    error_if_nothing: bool = False


@dataclass(frozen=True)
class RunLimits:
    """How long a job may run, in seconds.

    Attributes:
        seconds: it is stopped after this time, and can be resumed.
        probe: run for a minute only, to measure the speed.
        every: the pause between its end and the next run.
    """

    seconds: float | None = None
    probe: bool = False
    every: float | None = None


def run_job(begin: Callable[[], Awaitable[Job]], telling: JobOutput, limits: RunLimits = RunLimits()) -> int:
    """Start a job, wait for its end, write the result; return the exit code.

    Raises:
        PostdicomError: it could not continue. The same command resumes it.
        Interrupted: the user stopped it.
    """
    begun: list[Job] = []
    before: list[int] = []

    async def work() -> tuple[Summary, str]:
        """Run the job; return its summary, and the error that ended it early."""
        loop = asyncio.get_running_loop()
        most = _PROBED if limits.probe else limits.seconds
        deadline = None if most is None else loop.time() + most
        while True:
            async with await begin() as job:
                begun[:] = [job]
                # With --json the document names the job, so standard error stays empty on success.
                async with JobProgress(job, quiet=telling.quiet, says_name=not telling.as_json) as progress:
                    summary, why = await _wait_for_end(job, deadline)
            # Notes already shown while it ran are not repeated.
            summary = replace(summary, notes=tuple(note for note in summary.notes if note not in progress.told))
            before[:] = [progress.done_before]
            if limits.every is None or why:
                return summary, why
            tell(summary, telling, *before)
            if deadline is not None and loop.time() + limits.every >= deadline:
                await asyncio.sleep(max(0.0, deadline - loop.time()))
                return summary, _TIME_OVER
            await asyncio.sleep(limits.every)

    try:
        summary, why = run_async(work)
    except (PostdicomError, Interrupted) as error:
        for job in begun:
            with suppress(PostdicomError):
                _tell_partial(job.summary(), telling, error)
        raise
    if not why:
        return tell(summary, telling, *before)
    if limits.probe and why == _TIME_OVER:
        return _tell_estimate(summary, telling)
    _tell_partial(summary, telling, why)
    output.error(why)
    return Exit.LIMIT if why == _TIME_OVER else Exit.TEMPORARY


async def _wait_for_end(job: Job, deadline: float | None) -> tuple[Summary, str]:
    """Wait for a job's end or the deadline; return its summary, and the error that ended it early."""
    why = ""
    try:
        async with asyncio.timeout_at(deadline):
            return await job.wait(), ""
    except TimeoutError:
        why = _TIME_OVER
        await job.stop()
    except JobStopped:
        why = _STOPPED  # stopped from outside: by postdicom jobs stop, or on the page
    return await asyncio.to_thread(job.summary), why


def _tell_estimate(summary: Summary, telling: JobOutput) -> int:
    pace = Eta().note(summary, time.time())
    if telling.as_json:
        estimate = {"seconds_left": pace.seconds, "instances_a_minute": pace.instances, "bytes_a_minute": pace.bytes}
        output.write_document({"summary": {**document_of(summary), **estimate}})
        return Exit.OK
    left = "not known yet" if pace.seconds is None else output.time_text(pace.seconds)
    rate = f"{pace.instances:,.0f} instances and {output.size_text(pace.bytes)} a minute"
    output.write(f"{counts_text(summary)}; {rate}; left: {left}{'' if summary.discovery_complete else ', or more'}")
    return Exit.OK


def tell(summary: Summary, telling: JobOutput, before: int = 0) -> int:
    """Write a job's result; return its exit code. ``before`` instances had been moved by earlier runs."""
    moved = max(0, summary.of(State.DONE).instances - before)
    code, line = code_of_job(summary, moved, error_if_nothing=telling.error_if_nothing)
    if telling.as_json:
        output.write_document({"summary": document_of(summary)}, error=None if code == Exit.OK else line)
    elif not telling.quiet:
        output.write(f"{counts_text(summary)}{f'; {moved:,} moved now' if before else ''}")
    if not telling.quiet:
        for text in (*summary.notes, *reason_lines(summary), *_hints(summary, code)):
            output.note(text)
    if code != Exit.OK:
        output.error(line)
    return code


def _hints(summary: Summary, code: Exit) -> list[str]:
    """Return hints on how to fix what went wrong."""
    name = summary.facts.job
    if code not in (Exit.ITEMS_FAILED, Exit.VERIFICATION):
        return []
    again = [] if summary.facts.verb == "verify" else [f"tries these again: postdicom jobs retry {name} --failed"]
    return [*again, f"names each: postdicom jobs report {name} --to report.html"]


def reason_lines(summary: Summary) -> list[str]:
    """Return a line for each reason of failed or unconfirmed items."""
    return [
        f"{one.instances} {one.state.name.lower()}, reason {one.reason}: {reason_text(one.reason)}"
        + (f" ({', '.join(one.examples[:3])})" if one.examples else "")
        for one in summary.reasons
        if one.state in _BAD
    ]


def _tell_partial(summary: Summary, telling: JobOutput, error: object) -> None:
    if telling.as_json:
        output.write_document({"summary": document_of(summary)}, error=error)
    elif not telling.quiet:
        output.note(f"before it ended: {counts_text(summary, runs=False)}; the same command again goes on from there")


def counts_text(summary: Summary, *, runs: bool = True) -> str:
    """Return the counts of a job in one line; they add up to what was discovered.

    What was under way when a job ended is pending: ``runs`` says whether it can still be running.
    """
    counts = {state: count.instances for state, count in sorted(summary.counts.items())}
    if not runs and (cut := counts.pop(State.RUNNING, 0)):
        counts = dict(sorted({**counts, State.PENDING: counts.get(State.PENDING, 0) + cut}.items()))
    parts = [f"{number:,} {state.name.lower()}" for state, number in counts.items() if number]
    done = summary.of(State.DONE)
    moved = f"; {output.size_text(done.bytes)} moved" if done.instances else ""
    equal = (
        f"; {summary.equal_by_count} of {summary.studies} studies equal by count, not listed"
        if summary.equal_by_count
        else ""
    )
    how = _PROVEN.get(summary.facts.verify, "verified")
    if summary.facts.verify == "bytes" and summary.facts.sample < 1:
        how = f"{_PROVEN['listed']}, a sample of {summary.facts.sample:.3g} of them {how}"
    proven = f"; {summary.verified:,} {how}" if summary.verified else ""
    return f"{summary.discovered:,} instances: {', '.join(parts) or 'none'}{moved}{proven}{equal}"


def code_of_job(summary: Summary, moved: int, *, error_if_nothing: bool = False) -> tuple[Exit, str]:
    """Return the exit code of a finished job, and one line that explains a code other than 0."""
    bad = sum(summary.of(state).instances for state in _BAD)
    if not bad:
        if error_if_nothing and not moved and not summary.of(State.DELETED).instances:
            return Exit.NOTHING, NOTHING
        return Exit.OK, ""
    differ = sum(one.instances for one in summary.reasons if one.state in _BAD and one.reason in _MISMATCHES)
    if differ:
        return Exit.VERIFICATION, f"{differ} of {summary.discovered} instances are not at the target as they should be"
    return Exit.ITEMS_FAILED, f"{bad} of {summary.discovered} instances failed or are not confirmed"


def document_of(summary: Summary) -> Mapping[str, Any]:
    """Return a job as one JSON document."""
    facts = summary.facts
    return {
        "job": facts.job,
        "verb": facts.verb,
        "source": facts.source,
        "target": facts.target,
        "phase": facts.phase,
        "run": facts.run,
        "verify": facts.verify,
        "sample": facts.sample,
        "studies": summary.studies,
        "equal_by_count": summary.equal_by_count,
        "discovered": summary.discovered,
        "counts": {state.name.lower(): count.instances for state, count in sorted(summary.counts.items())},
        "bytes": {state.name.lower(): count.bytes for state, count in sorted(summary.counts.items())},
        "verified": summary.verified,
        "mismatches": summary.mismatches,
        "coerced": dict(summary.coerced),
        "reasons": [
            {
                "state": one.state.name.lower(),
                "reason": one.reason,
                "text": reason_text(one.reason),
                "instances": one.instances,
                "examples": list(one.examples),
            }
            for one in summary.reasons
        ],
        "seconds": summary.seconds,
        "notes": list(summary.notes),
    }


# --- a dry run --------------------------------------------------------------------------------------------------------


def show_plans(plans: AsyncGenerator[StudyPlan, None], telling: JobOutput) -> int:
    """Write a line for each study, and the sums; return the exit code."""
    sums = dict.fromkeys(("studies", "to_move", "bytes", "there", "excluded", "to_delete"), 0)
    items: list[dict[str, Any]] = []

    async def work() -> None:
        async with aclosing(plans):
            async for plan in plans:
                item = _item(plan)
                for name in sums:
                    sums[name] += item.get(name, 0)
                if telling.as_json:
                    items.append(item)
                elif not output.write(_line(plan)):
                    return

    run_async(work)
    nothing = telling.error_if_nothing and not sums["to_move"] + sums["to_delete"]
    if telling.as_json:
        output.write_document({"summary": sums, "items": items}, error=NOTHING if nothing else None)
    elif not telling.quiet:
        output.note(f"{_sums_text(sums)}; nothing was changed")
    if nothing:
        output.error(NOTHING)
    return Exit.NOTHING if nothing else Exit.OK


def _sums_text(sums: dict[str, int]) -> str:
    size = f" ({output.size_text(sums['bytes'])})" if sums["bytes"] else ""
    deleted = f", {sums['to_delete']:,} to delete" if sums["to_delete"] else ""
    return (
        f"{sums['studies']:,} studies: {sums['to_move']:,} instances to move{size}, {sums['there']:,} there already, "
        f"{sums['excluded']:,} excluded{deleted}"
    )


def _item(plan: StudyPlan) -> dict[str, Any]:
    return {
        "study": plan.study,
        "studies": int(not plan.to_delete),
        "month": plan.month or None,
        "to_move": plan.to_move.instances,
        "bytes": plan.to_move.bytes,
        "there": plan.there,
        "excluded": plan.excluded,
        "equal_by_count": plan.equal_by_count,
        "to_delete": plan.to_delete,
    }


def _line(plan: StudyPlan) -> str:
    month = f"{plan.month // 100:04}-{plan.month % 100:02}" if plan.month else "undated"
    if plan.to_delete:
        return f"{plan.study}\tdelete {plan.to_delete}"
    if plan.equal_by_count:
        return f"{plan.study}\t{month}\tequal by count: {plan.there}"
    size = f" ({output.size_text(plan.to_move.bytes)})" if plan.to_move.bytes else ""
    return f"{plan.study}\t{month}\tmove {plan.to_move.instances}{size}, there {plan.there}, excluded {plan.excluded}"


# --- progress ----------------------------------------------------------------------------------------------------


_TICK = 1.0  # seconds; a picture each
_FIRST_LINE, _LINES, _NEWS = 5, 30, 5  # ticks


class Picture:
    """Redraws a job's progress, in a ``with`` block.

    Args:
        stream: where.
        stays: leave the last picture on the terminal.

    Attributes:
        is_drawn: whether it is redrawn in place; otherwise lines are written.
    """

    def __init__(self, stream: TextIO, *, stays: bool) -> None:
        self.is_drawn: bool = stream.isatty() and environ.get("TERM") != "dumb"
        self._stream = stream
        self._stays = stays
        self._eta = Eta()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, summary: Summary, *, rests: str = "") -> bool:
        """Show the present state, or why the job rests; return False if the output was closed."""
        from postdicom_async import jobs

        pace = self._eta.note(summary, time.time())
        if self.is_drawn:
            live = self._live or self._started()
            live.update(jobs.draw(summary, pace, live.console.width, rests=rests), refresh=True)
            return True
        text = jobs.line(summary, pace, rests=rests)
        if self._stream is sys.stdout:
            return output.write(text)
        output.note(text)
        return True

    def _started(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, auto_refresh=False, transient=not self._stays)
        self._live.start()
        return self._live


class JobProgress:
    """Shows a job while the block runs.

    Attributes:
        told: notes of the ledger already shown, or of earlier runs.
        done_before: instances moved before it was started or resumed.
    """

    def __init__(self, job: Job, *, quiet: bool, says_name: bool = True) -> None:
        self.told: set[str] = set()
        self.done_before: int = 0
        self._job = job
        self._quiet = quiet
        self._says_name = says_name
        self._waits = ""
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        summary = await asyncio.to_thread(self._job.summary)
        self.told.update(summary.notes)
        self.done_before = summary.of(State.DONE).instances
        if not self._quiet:
            if self._says_name:
                output.note(_begins(self._job, summary))
            self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._showing is not None:
            self._showing.cancel()
            with suppress(asyncio.CancelledError):
                await self._showing

    async def _show(self) -> None:
        with Picture(sys.stderr, stays=False) as picture:
            ticks = 0
            while True:
                self._tell_what_it_waits_for()
                await asyncio.sleep(_TICK)
                ticks += 1
                is_time = picture.is_drawn or ticks == _FIRST_LINE or not ticks % _LINES
                if not is_time and ticks % _NEWS:
                    continue
                with suppress(PostdicomError):
                    summary = await asyncio.to_thread(self._job.summary)
                    self._tell_news(summary)
                    if is_time:
                        picture.show(summary, rests="waiting" if self._waits else "")

    def _tell_what_it_waits_for(self) -> None:
        waits = _waits_for(self._job)
        if waits != self._waits:
            output.note(waits or "goes on")
        self._waits = waits

    def _tell_news(self, summary: Summary) -> None:
        for note in summary.notes:
            if note not in self.told:
                self.told.add(note)
                output.note(note)


def _begins(job: Job, summary: Summary) -> str:
    known, settled = summary.discovered, sum(summary.of(state).instances for state in SETTLED)
    if not known:
        words = "begins"
    elif summary.facts.phase in ("complete", "discovering"):
        words = f"looks again; {known:,} instances are known from before"
    else:
        words = f"goes on; {settled:,} of {known:,} instances are settled"
    return f"job {job.path.stem}: {words}"


def _waits_for(job: Job) -> str:
    """Return what a job waits for, if that is a person or the clock."""
    pace = job.pace.snapshot()
    if pace["open"]:
        return ""
    if pace["paused"]:
        return f"paused; postdicom jobs continue {job.path.stem} lets it go on"
    opens = pace["next_change"]
    when = f"opens {datetime.fromisoformat(opens):%a %d %b, %H:%M %Z}" if opens else "does not open any more"
    return f"waiting: the window {when.rstrip()}"
