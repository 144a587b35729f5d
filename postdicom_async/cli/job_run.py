"""Runs a job to its end on the terminal: progress while it runs, what it came to, and the exit code."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.job_progress import JobProgress
from postdicom_async.cli.loop import run_async
from postdicom_async.disk.background import in_background
from postdicom_async.jobs.eta import Eta
from postdicom_async.jobs.states import Reason, State, reason_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from postdicom_async.jobs import Job, Summary

__all__ = ["Limits", "Telling", "code_of_job", "counts_text", "document_of", "run_job", "tell", "told_reasons"]

_MISMATCHES = frozenset({Reason.NOT_LISTED, Reason.DIFFERENT, Reason.NOT_CONFIRMED, Reason.CANNOT_COMPARE, Reason.GONE})
_PROBED = 60.0  # seconds
_BAD = (State.FAILED, State.UNCONFIRMED)


@dataclass(frozen=True)
class Telling:
    """How a job is told."""

    verb: str
    quiet: bool
    as_json: bool
    error_if_nothing: bool = False


@dataclass(frozen=True)
class Limits:
    """How long a job may run, in seconds.

    Attributes:
        seconds: then it is stopped, to be gone on with later.
        probe: a minute, to see how fast it is.
        every: when it has ended it begins anew, after so long.
    """

    seconds: float | None = None
    probe: bool = False
    every: float | None = None


def run_job(begin: Callable[[], Awaitable[Job]], telling: Telling, limits: Limits = Limits()) -> int:
    """Begin a job, wait for its end, tell what it came to; return the exit code.

    Raises:
        PostdicomError: it could not go on. The same command goes on where it stopped.
        Interrupted: the user stopped it.
    """
    begun: list[Job] = []

    async def work() -> tuple[Summary, bool]:
        async with await begin() as job:
            begun[:] = [job]
            async with JobProgress(job, quiet=telling.quiet):
                return await _waited(job, _PROBED if limits.probe else limits.seconds)

    async def work_and_wait() -> tuple[Summary, bool]:
        while True:
            summary, has_ended = await work()
            if limits.every is None or not has_ended:
                return summary, has_ended
            tell(summary, telling)
            await asyncio.sleep(limits.every)

    try:
        summary, has_ended = run_async(work_and_wait)
    except (PostdicomError, Interrupted) as error:
        for job in begun:
            with suppress(PostdicomError):
                _tell_partial(job.summary(), telling, error)
        raise
    if has_ended:
        return tell(summary, telling)
    if limits.probe:
        output.write(_estimate(summary))
        return Exit.OK
    output.note(f"{counts_text(summary)}; the same command again goes on from there")
    output.error("--max-duration is over")
    return Exit.LIMIT


async def _waited(job: Job, seconds: float | None) -> tuple[Summary, bool]:
    """Wait for a job's end, so long at most; return what it has come to, and whether it has ended."""
    try:
        async with asyncio.timeout(seconds):
            return await job.wait(), True
    except TimeoutError:
        await job.stop()
    return await in_background(job.summary), False


def _estimate(summary: Summary) -> str:
    pace = Eta().note(summary, time.time())
    left = "unknown" if pace.seconds is None else output.time_text(pace.seconds)
    return f"{counts_text(summary)}; {output.rate_text(summary.of(State.DONE).bytes, summary.seconds)}; left: {left}"


def tell(summary: Summary, telling: Telling) -> int:
    """Tell what a job has come to; return its exit code."""
    code, line = code_of_job(summary, error_if_nothing=telling.error_if_nothing)
    if telling.as_json:
        output.write_document(document_of(summary), error=None if code == Exit.OK else line)
    else:
        if not telling.quiet:
            output.write(counts_text(summary))
            for note in summary.notes:
                output.note(note)
        for line in told_reasons(summary):
            output.note(line)
    if code != Exit.OK:
        output.error(line)
    return code


def told_reasons(summary: Summary) -> list[str]:
    """Return a line for each reason of what failed, or is not confirmed."""
    return [
        f"{one.instances} {one.state.name.lower()}, reason {one.reason}: {reason_text(one.reason)}"
        + (f" ({', '.join(one.examples[:3])})" if one.examples else "")
        for one in summary.reasons
        if one.state in _BAD
    ]


def _tell_partial(summary: Summary, telling: Telling, error: Exception) -> None:
    if telling.as_json:
        output.write_document(document_of(summary), error=error)
    else:
        output.note(f"before it ended: {counts_text(summary)}; the same command again goes on from there")


def counts_text(summary: Summary) -> str:
    """Return the counts of a job in one line: what was discovered is their sum."""
    parts = [
        f"{count.instances} {state.name.lower()}" for state, count in sorted(summary.counts.items()) if count.instances
    ]
    done = summary.of(State.DONE)
    moved = f"; {output.size_text(done.bytes)} moved" if done.instances else ""
    equal = (
        f"; {summary.equal_by_count} of {summary.studies} studies equal by count, not listed"
        if summary.equal_by_count
        else ""
    )
    return f"{summary.discovered} instances: {', '.join(parts) or 'none'}{moved}{equal}"


def code_of_job(summary: Summary, *, error_if_nothing: bool = False) -> tuple[Exit, str]:
    """Return the exit code of a job that came to its end, and in one line why it is not 0."""
    bad = sum(summary.of(state).instances for state in _BAD)
    if not bad:
        if error_if_nothing and not summary.of(State.DONE).instances and not summary.of(State.DELETED).instances:
            return Exit.NOTHING, "there was nothing to do"
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
            {"state": one.state.name.lower(), "reason": reason_text(one.reason), "instances": one.instances}
            for one in summary.reasons
        ],
        "seconds": summary.seconds,
        "notes": list(summary.notes),
    }
