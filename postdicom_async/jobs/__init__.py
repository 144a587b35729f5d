"""Whole archives: copy, sync and verify, with a ledger that survives whatever ends the process.

::

    from postdicom_async import jobs

    async with await jobs.copy("old:", "new:") as job:
        summary = await job.wait()
"""

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
