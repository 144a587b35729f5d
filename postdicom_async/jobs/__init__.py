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
    from postdicom_async.jobs.ends.specs import parse_end
    from postdicom_async.jobs.job import Job
    from postdicom_async.jobs.job_files import every_job, find_job, find_jobs
    from postdicom_async.jobs.ledger.ledger import LedgerReader
    from postdicom_async.jobs.ledger.partition import merge, partition
    from postdicom_async.jobs.machines.scheduler import Scheduler
    from postdicom_async.jobs.pace.control import NoJobRuns, ask_job
    from postdicom_async.jobs.pace.pace import Pace
    from postdicom_async.jobs.pace.presets import check_limits
    from postdicom_async.jobs.pages.eta import Eta
    from postdicom_async.jobs.pages.report import write_report
    from postdicom_async.jobs.pages.serve import LivePage
    from postdicom_async.jobs.pages.terminal import draw, line
    from postdicom_async.jobs.preview import StudyPlan
    from postdicom_async.jobs.states import SETTLED, Reason, State, reason_text
    from postdicom_async.jobs.summary import Summary

__all__ = [
    "SETTLED",
    "Eta",
    "Job",
    "LedgerReader",
    "LivePage",
    "NoJobRuns",
    "Pace",
    "Reason",
    "Scheduler",
    "State",
    "StudyPlan",
    "Summary",
    "ask_job",
    "check_limits",
    "copy",
    "draw",
    "dry_run",
    "every_job",
    "find_job",
    "find_jobs",
    "line",
    "merge",
    "parse_end",
    "partition",
    "reason_text",
    "resume",
    "retry",
    "sync",
    "verify",
    "write_report",
]

# Imported when they are asked for: the command's help, and what needs one policy of a job's, want no network.
_MODULES = {
    "begin": ("copy", "dry_run", "resume", "retry", "sync", "verify"),
    "pace.control": ("NoJobRuns", "ask_job"),
    "pages.eta": ("Eta",),
    "job": ("Job",),
    "ledger.ledger": ("LedgerReader",),
    "ledger.partition": ("merge", "partition"),
    "machines.scheduler": ("Scheduler",),
    "pace.pace": ("Pace",),
    "job_files": ("every_job", "find_job", "find_jobs"),
    "preview": ("StudyPlan",),
    "pace.presets": ("check_limits",),
    "pages.report": ("write_report",),
    "pages.serve": ("LivePage",),
    "pages.terminal": ("draw", "line"),
    "ends.specs": ("parse_end",),
    "states": ("SETTLED", "Reason", "State", "reason_text"),
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
