"""What is known of a job, whether or not it runs: its ledger, and the process that runs it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from postdicom_async import NotFound, PostdicomError
from postdicom_async.cli.loop import run_async

if TYPE_CHECKING:
    from pathlib import Path

    from postdicom_async.jobs import Summary


def summary_of(path: Path) -> Summary:
    """Return how far the job of a ledger is.

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
    """Return the job that somebody means who wants to tell it something: of several that which runs.

    Raises:
        NotFound: there is none of that name.
        UsageError: there are several, and not just one of them runs.
    """
    from postdicom_async.jobs import find_job, find_jobs

    async def running() -> list[Path]:
        return [path for path in find_jobs(name) if await status_of(path) is not None]

    found = run_async(running)
    return found[0] if len(found) == 1 else find_job(name)


async def status_of(path: Path) -> dict[str, Any] | None:
    """Return what the process that runs the job says of it, None where none does; one that does not answer does."""
    try:
        return await ask(path, {"do": "status"})
    except NotFound:
        return None
    except PostdicomError:
        return {}
