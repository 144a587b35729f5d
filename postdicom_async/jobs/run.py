"""One run of a job, phase by phase, and retries requested while it runs.

The phase is stored in the ledger, so that after a kill the next process continues there. It is therefore stored before
its items become pending, and the next phase only when all of them are done.

A retry may be requested at any time. Work under way is not disturbed: failed items become pending between two phases,
and the job returns to moving.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from postdicom_async.errors import UsageError
from postdicom_async.jobs.chunk_runner import LocalDispatcher
from postdicom_async.jobs.deleting import DeletePhase
from postdicom_async.jobs.discovery import DiscoverPhase
from postdicom_async.jobs.ledger.schema import Stage
from postdicom_async.jobs.moving import MovePhase
from postdicom_async.jobs.pace.first_look import ENDS
from postdicom_async.jobs.states import State
from postdicom_async.jobs.verifying import VerifyPhase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from postdicom_async.jobs.context import Context
    from postdicom_async.jobs.ledger.ledger import Ledger
    from postdicom_async.jobs.pace.pace import Pace
    from postdicom_async.jobs.plan import Dispatcher
    from postdicom_async.jobs.watch_job import JobWatch

_TICK = 1.0  # seconds
LEVELS = ("none", "listed", "bytes")
PHASES = ("discovering", "moving", "verifying", "deleting", "complete")


class Retries:
    """Requested retries that are not done yet."""

    def __init__(self) -> None:
        self._reasons: set[int] = set()
        self._all = False

    async def ask(self, message: dict[str, Any]) -> None:
        """Take a retry request from the control socket; ``reasons`` are numbers of `states.Reason`, by default all.

        Raises:
            UsageError: they are no numbers.
        """
        reasons = message.get("reasons")
        if reasons is None:
            self._all = True
        elif isinstance(reasons, list) and all(type(one) is int for one in reasons):
            self._reasons |= set(reasons)
        else:
            raise UsageError("give reasons as a list of numbers", operation="retry")

    async def begin(self, ledger: Ledger) -> bool:
        """Make the requested items pending and set the phase to moving; return whether there were any."""
        reasons = None if self._all else sorted(self._reasons)
        self._all, self._reasons = False, set()
        if reasons == []:
            return False
        ledger.put("phase", "moving")  # before anything is pending: after a kill the next process would pass it over
        return await ledger.reset([State.FAILED, State.UNCONFIRMED], reasons=reasons) > 0


class Run:
    """One run: a new one, or the continuation of an interrupted one.

    Args:
        context: of the job.
        dispatcher: runs chunks.
        pace: tells whether the job may work now.
        gate: awaited before each phase and chunk: pauses, time windows, and a slow consumer of outcomes.
        retries: requests made while it runs.
        watch: told of runs and phases.
    """

    def __init__(
        self,
        context: Context,
        dispatcher: Dispatcher,
        pace: Pace,
        gate: Callable[[], Awaitable[None]],
        retries: Retries,
        watch: JobWatch,
    ) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._pace = pace
        self._gate = gate
        self._retries = retries
        self._watch = watch

    async def go(self) -> None:
        """Do the remaining work of the run.

        Raises:
            PostdicomError: it cannot continue now; its state is in the ledger.
        """
        context, ledger = self._context, self._context.ledger
        await begin_run(context)
        self._watch.began(context.run)
        phases: dict[str, Callable[[], Awaitable[None]]] = {
            "discovering": lambda: DiscoverPhase(context).run(),
            "moving": self._move,
            "verifying": lambda: VerifyPhase(context).run(),
            "deleting": lambda: DeletePhase(context).run(),
        }
        while (phase := ledger.fact("phase")) in phases:
            self._watch.phase(str(phase))
            await self._gate()
            counting = asyncio.create_task(self._count_seconds())
            try:
                await phases[phase]()
            finally:
                counting.cancel()
                for end in (context.source, context.target):  # what an end has to say of its own lists and answers
                    notes: list[str] = getattr(end, "notes", [])
                    while notes:
                        ledger.note(f"{end.name}: {notes.pop(0)}")
            if phase == PHASES[0] or not await self._retries.begin(ledger):
                ledger.put("phase", PHASES[PHASES.index(phase) + 1])
            await ledger.commit()

    async def _move(self) -> None:
        if self._context.options.verb == "verify":
            await VerifyPhase(self._context).compare()
        else:
            splits = not isinstance(self._dispatcher, LocalDispatcher)
            await MovePhase(self._context, self._dispatcher, self._gate, splits_series=splits).run()

    async def _count_seconds(self) -> None:
        """Count working time, without pauses, closed windows and outages."""
        ledger = self._context.ledger
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if self._pace.is_open and not self._context.outages.lasts:
                ledger.put("seconds", float(ledger.fact("seconds") or 0.0) + now - before)
            before = now


def unreached_in(ledger: Ledger) -> tuple[str, ...]:
    """Return the ends, ``"source"`` or ``"target"``, that no run of this job has reached."""
    if ledger.fact("discovery_complete") or int(ledger.fact("run") or 0) > 1 or ledger.fact("part"):
        return ()
    return tuple(end for end in ENDS if not ledger.fact(f"reached_{end}"))


async def begin_run(context: Context) -> None:
    """Begin another run if the last one was completed; its failed items are tried again."""
    ledger = context.ledger
    # A part has its studies already and discovers no others.
    if ledger.fact("phase") in PHASES[:-1] or ledger.fact("part"):
        if ledger.fact("phase") in PHASES[: PHASES.index("deleting")]:  # behind it nothing more is verified
            await _note_verification(context)
            await ledger.commit()
        return
    before = int(ledger.fact("run") or 0)
    if before:
        await ledger.reset([State.FAILED, State.UNCONFIRMED])
    await _note_verification(context)
    # Last, so that after a kill either all of the above was done for this run, or all of it is repeated.
    ledger.put("run", before + 1)
    ledger.put("phase", PHASES[0])
    ledger.put("discovery_complete", False)
    await ledger.commit()


async def _note_verification(context: Context) -> None:
    """Note how strictly is verified from now on; stricter than before, or a larger sample: everything again."""
    ledger, level, sample = context.ledger, context.options.verify, context.options.sample
    was = LEVELS.index(str(ledger.fact("verify") or level)), float(ledger.fact("sample") or 1.0)
    if (LEVELS.index(level), sample) > was:
        async for study in context.studies(Stage.VERIFIED, of_any_run=True):
            ledger.set_stage(study.id, Stage.MOVED)
    ledger.put("verify", level)
    ledger.put("sample", sample)
