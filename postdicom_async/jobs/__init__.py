"""Whole archives: copy, sync and verify, with a ledger that survives whatever ends the process.

::

    from postdicom_async import jobs

    async with await jobs.copy("old:", "new:") as job:
        summary = await job.wait()
"""

from __future__ import annotations

from postdicom_async.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__)
