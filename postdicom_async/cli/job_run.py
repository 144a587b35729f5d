"""Runs a job to its end on the terminal: progress while it runs, what it came to, and the exit code."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from postdicom_async import JobStopped, PostdicomError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.job_progress import JobProgress
from postdicom_async.cli.loop import run_async
from postdicom_async.jobs import Eta, Reason, State, reason_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from typing import Any

    from postdicom_async.jobs import Job, StudyPlan, Summary


NOTHING = "there was nothing to do"
"""What is said where ``--error-if-nothing`` wants it to be an error."""
_MISMATCHES = frozenset({Reason.NOT_LISTED, Reason.DIFFERENT, Reason.NOT_CONFIRMED, Reason.CANNOT_COMPARE, Reason.GONE})
_PROBED = 60.0  # seconds
_TIME_OVER, _STOPPED = "--max-duration is over", "it was told to stop"
_PROVEN = {"listed": "found in the target's lists", "bytes": "retrieved and compared"}
_BAD = (State.FAILED, State.UNCONFIRMED)


@dataclass(frozen=True)
class JobOutput:
    """How a job is told."""

    quiet: bool
    as_json: bool
    error_if_nothing: bool = False


@dataclass(frozen=True)
class RunLimits:
    """How long a job may run, in seconds.

    Attributes:
        seconds: then it is stopped, to be gone on with later.
        probe: a minute, to see how fast it is.
        every: when it has ended it begins anew, after so long.
    """

    seconds: float | None = None
    probe: bool = False
    every: float | None = None


def run_job(begin: Callable[[], Awaitable[Job]], telling: JobOutput, limits: RunLimits = RunLimits()) -> int:
    """Begin a job, wait for its end, tell what it came to; return the exit code.

    Raises:
        PostdicomError: it could not go on. The same command goes on where it stopped.
        Interrupted: the user stopped it.
    """
    begun: list[Job] = []
    before: list[int] = []

    async def work() -> tuple[Summary, str]:
        """Return what it came to, and what ended it before its end."""
        loop = asyncio.get_running_loop()
        most = _PROBED if limits.probe else limits.seconds
        deadline = None if most is None else loop.time() + most
        while True:
            async with await begin() as job:
                begun[:] = [job]
                async with JobProgress(job, quiet=telling.quiet, says_name=not telling.as_json) as progress:
                    summary, why = await _waited(job, deadline)
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


async def _waited(job: Job, deadline: float | None) -> tuple[Summary, str]:
    """Wait for a job's end, or the deadline; return what it has come to, and what ended it if that was not its end."""
    why = ""
    try:
        async with asyncio.timeout_at(deadline):
            return await job.wait(), ""
    except TimeoutError:
        why = _TIME_OVER
        await job.stop()
    except JobStopped:
        why = _STOPPED  # from elsewhere: by postdicom jobs stop, or on the page
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
    """Tell what a job has come to, of whose instances so many had been moved before; return its exit code."""
    moved = max(0, summary.of(State.DONE).instances - before)
    code, line = code_of_job(summary, moved, error_if_nothing=telling.error_if_nothing)
    if telling.as_json:
        output.write_document({"summary": document_of(summary)}, error=None if code == Exit.OK else line)
    elif not telling.quiet:
        output.write(f"{counts_text(summary)}{f'; {moved:,} moved now' if before else ''}")
    if not telling.quiet:
        for text in (*summary.notes, *told_reasons(summary), *_hints(summary, code)):
            output.note(text)
    if code != Exit.OK:
        output.error(line)
    return code


def _hints(summary: Summary, code: Exit) -> list[str]:
    """Return what can be done about what went wrong."""
    name = summary.facts.job
    if code not in (Exit.ITEMS_FAILED, Exit.VERIFICATION):
        return []
    again = [] if summary.facts.verb == "verify" else [f"tries these again: postdicom jobs retry {name} --failed"]
    return [*again, f"names each: postdicom jobs report {name} --to report.html"]


def told_reasons(summary: Summary) -> list[str]:
    """Return a line for each reason of what failed, or is not confirmed."""
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
        output.note(f"before it ended: {counts_text(summary)}; the same command again goes on from there")


def counts_text(summary: Summary) -> str:
    """Return the counts of a job in one line: what was discovered is their sum."""
    parts = [
        f"{count.instances:,} {state.name.lower()}"
        for state, count in sorted(summary.counts.items())
        if count.instances
    ]
    done = summary.of(State.DONE)
    moved = f"; {output.size_text(done.bytes)} moved" if done.instances else ""
    equal = (
        f"; {summary.equal_by_count} of {summary.studies} studies equal by count, not listed"
        if summary.equal_by_count
        else ""
    )
    proven = f"; {summary.verified:,} {_PROVEN.get(summary.facts.verify, 'verified')}" if summary.verified else ""
    return f"{summary.discovered:,} instances: {', '.join(parts) or 'none'}{moved}{proven}{equal}"


def code_of_job(summary: Summary, moved: int, *, error_if_nothing: bool = False) -> tuple[Exit, str]:
    """Return the exit code of a job that came to its end, and in one line why it is not 0."""
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
