"""Whole archives: copy, sync and verify, with a ledger that survives whatever ends the process.

::

    from postdicom_async import jobs

    async with await jobs.copy("old:", "new:") as job:
        summary = await job.wait()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postdicom_async.jobs.begin import copy, dry_run, resume, retry, sync, verify
    from postdicom_async.jobs.job import Job
    from postdicom_async.jobs.machines import Scheduler
    from postdicom_async.jobs.pace import Pace
    from postdicom_async.jobs.preview import StudyPlan
    from postdicom_async.jobs.states import Reason, State
    from postdicom_async.jobs.summary import Summary

__all__ = [
    "Job",
    "Pace",
    "Reason",
    "Scheduler",
    "State",
    "StudyPlan",
    "Summary",
    "copy",
    "dry_run",
    "resume",
    "retry",
    "sync",
    "verify",
]

# Imported when they are asked for: the command's help, and what needs one policy of a job's, want no network.
_MODULES = {
    "begin": ("copy", "dry_run", "resume", "retry", "sync", "verify"),
    "job": ("Job",),
    "machines": ("Scheduler",),
    "pace": ("Pace",),
    "preview": ("StudyPlan",),
    "states": ("Reason", "State"),
    "summary": ("Summary",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a checker that saw this would let misspelt names pass

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
