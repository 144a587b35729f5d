"""Whole archives: copy, sync and verify, with a ledger that survives whatever ends the process.

::

    from postdicom_async import jobs

    async with await jobs.copy("old:", "new:") as job:
        summary = await job.wait()
"""

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
