"""Move an archive into another outside office hours: progress, a report in the end, an exit code for a scheduler.

::

    postdicom profiles add old --url https://... --username ...
    postdicom profiles add new --url https://... --username ...
    python migrate.py old: new: --when "Mon-Fri 18:00-07:00, Sat-Sun 00:00-24:00 Europe/Berlin" --report report.html

The same command resumes it, whatever ended it. The exit code is 0 when the target lists all instances of the source, 1
when something failed, 5 when a retry may help, 4 when credentials were refused, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import closing
from pathlib import Path

from postdicom_async import AuthenticationFailed, PostdicomError, jobs

TOLD_EVERY = 10.0  # seconds


async def migrate(source: str, target: str, when: str, report: Path) -> int:
    """Copy ``source`` to ``target`` while the clock is within ``when``; return the exit code."""
    pace = jobs.Pace(windows=when)
    async with await jobs.copy(source, target, pace=pace) as job:
        telling = asyncio.create_task(tell_progress(job))
        try:
            summary = await job.wait()
        finally:
            telling.cancel()
            await asyncio.to_thread(write_report, job.path, report)
    print(counts_of(summary))
    failed = summary.of(jobs.State.FAILED).instances + summary.of(jobs.State.UNCONFIRMED).instances
    return 1 if failed else 0


async def tell_progress(job: jobs.Job) -> None:
    """Write a line now and then. The summary is read from a file, so in a thread, without blocking the loop."""
    eta = jobs.Eta()
    while True:
        summary = await asyncio.to_thread(job.summary)
        left = eta.note(summary, time.time()).seconds
        hours = "" if left is None else f"; {left / 3600:.1f} hours of work left"
        print(f"{summary.facts.phase}{'' if job.pace.is_open else ' (waits)'}: {counts_of(summary)}{hours}", flush=True)
        await asyncio.sleep(TOLD_EVERY)


def counts_of(summary: jobs.Summary) -> str:
    """Return the number of instances found and the counts by state, which always add up."""
    counts = sorted(summary.counts.items())
    states = (f"{count.instances} {state.name.lower()}" for state, count in counts if count.instances)
    return f"{summary.discovered} instances: {', '.join(states) or 'none yet'}"


def write_report(ledger: Path, report: Path) -> None:
    """Write the report: a page, or lines for programs, by the file's extension."""
    with closing(jobs.LedgerReader(ledger)) as reader:
        jobs.write_report(report, reader)


def main() -> int:
    """Read the command line, and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--when", default="", help="when it may work; always without it")
    parser.add_argument("--report", type=Path, default=Path("report.html"))
    given = parser.parse_args()
    try:
        return asyncio.run(migrate(given.source, given.target, given.when, given.report))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except PostdicomError as error:
        print(f"{error}; the same command goes on from here", file=sys.stderr)
        return 4 if isinstance(error, AuthenticationFailed) else 5 if error.temporary else 1


if __name__ == "__main__":
    sys.exit(main())
