"""What is known of a job, whether or not it runs: its ledger, and the process that runs it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from postdicom_async import NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from postdicom_async.jobs import Summary

__all__ = ["ask", "runs", "summary_of"]


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


async def runs(path: Path) -> bool:
    """Return whether a process runs the job; one that does not answer does."""
    from postdicom_async import PostdicomError

    try:
        await ask(path, {"do": "status"})
    except NotFound:
        return False
    except PostdicomError:
        return True
    return True
