"""What is told of a job while it works: a line in the log when it begins and ends, events, and the span of its run.

Its name is that of its ledger. The names of its ends are not told: a folder's may be a patient's.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from postdicom_async.errors import JobStopped, PostdicomError
from postdicom_async.events import JobEnded, JobPhase, JobStarted, OutageBegan, OutageEnded
from postdicom_async.watching import JOBS_LOG, CallWatch, say, tell, tell_instance, watch_call

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from postdicom_async.events import OnEvent
    from postdicom_async.jobs.ledger.ledger import Ledger
    from postdicom_async.jobs.summary import ItemLine


class JobWatch:
    """Tells of one job, from when it begins to work until it ends: ``async with``."""

    def __init__(self, ledger: Ledger, on_event: OnEvent | None) -> None:
        self._ledger = ledger
        self._on_event = on_event
        self._job = ledger.path.stem
        self._verb = str(ledger.fact("verb") or "copy")
        self._call: CallWatch = watch_call(f"job {self._verb}")
        self._started = time.monotonic()

    async def __aenter__(self) -> Self:
        self._call.__enter__()
        self._call.note(job=self._job)
        return self

    def began(self, run: int) -> None:
        """Tell that a run begins, or goes on."""
        self._call.note(run=run)
        fields = {"job": self._job, "operation": self._verb, "run": run}
        say(JOBS_LOG, logging.INFO, fields, "%s %s: run %d begins", self._verb, self._job, run)
        tell(self._on_event, JobStarted(self._job, self._verb, run))

    def phase(self, name: str) -> None:
        """Tell that a phase begins."""
        fields = {"job": self._job, "operation": self._verb, "phase": name}
        say(JOBS_LOG, logging.DEBUG, fields, "%s %s: %s", self._verb, self._job, name)
        tell(self._on_event, JobPhase(self._job, name))

    def item(self, line: ItemLine) -> None:
        """Tell that an item has its outcome."""
        tell_instance(self._verb, line.state.name.lower(), line.size, self._on_event)

    def outage(self, end: str, problem: PostdicomError | None) -> None:
        """Tell that an end does not work."""
        error = type(problem).__name__
        fields = {"job": self._job, "operation": self._verb, "end": end, "error": error}
        say(JOBS_LOG, logging.WARNING, fields, "%s %s: the %s does not work (%s)", self._verb, self._job, end, error)
        tell(self._on_event, OutageBegan(self._job, end, error))

    def outage_ended(self, end: str, seconds: float) -> None:
        """Tell that it works again."""
        fields = {"job": self._job, "operation": self._verb, "end": end, "seconds": round(seconds, 3)}
        text = "%s %s: the %s works again after %.0f s"
        say(JOBS_LOG, logging.INFO, fields, text, self._verb, self._job, end, seconds)
        tell(self._on_event, OutageEnded(self._job, end, seconds))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        name = None
        if error is not None:
            name = type(error).__name__ if isinstance(error, Exception) else JobStopped.__name__
        counts: dict[str, int] = {}
        try:
            with suppress(PostdicomError):  # a ledger that cannot be read is why it ended
                counts = {state.name.lower(): count for state, (count, _) in (await self._ledger.counts()).items()}
        finally:
            self._call.note_counts(counts)
            self._call.__exit__(kind, error, None)
            self._ended(counts, name)

    def _ended(self, counts: Mapping[str, int], error: str | None) -> None:
        seconds = time.monotonic() - self._started
        shown = ", ".join(f"{state} {count}" for state, count in counts.items()) or "no instances"
        fields = {
            "job": self._job,
            "operation": self._verb,
            "counts": counts,
            "seconds": round(seconds, 3),
            "error": error,
        }
        became = "complete" if error is None else f"ended by {error}"
        text = "%s %s: %s; %s; %.1f s"
        say(JOBS_LOG, logging.INFO, fields, text, self._verb, self._job, became, shown, seconds)
        tell(self._on_event, JobEnded(self._job, counts, seconds, error))
