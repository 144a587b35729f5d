"""One run of a job, phase by phase. The phase stands in the ledger: whoever comes after a kill goes on there."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from postdicom_async.errors import UsageError
from postdicom_async.jobs.context import every_study
from postdicom_async.jobs.deleting import Deleting
from postdicom_async.jobs.discovery import Discovery
from postdicom_async.jobs.ledger.ledger import Stage
from postdicom_async.jobs.moving import Moving
from postdicom_async.jobs.states import State
from postdicom_async.jobs.verifying import Verifying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from postdicom_async.jobs.context import Context
    from postdicom_async.jobs.ledger.ledger import Ledger
    from postdicom_async.jobs.plan import Dispatcher

__all__ = ["Retries", "Run"]


_TICK = 1.0  # seconds
LEVELS = ("none", "listed", "bytes")
PHASES = ("discovering", "moving", "verifying", "deleting", "complete")


class Run:
    """One run: it begins, or goes on where another was ended."""

    def __init__(
        self,
        context: Context,
        dispatcher: Dispatcher | None,
        gate: Callable[[], Awaitable[None]],
        *,
        is_open: Callable[[], bool] = lambda: True,
        splits_series: bool = False,
        retries: Retries | None = None,
    ) -> None:
        self._context = context
        self._retries = retries or Retries()
        self._dispatcher = dispatcher
        self._gate = gate
        self._is_open = is_open
        self._splits_series = splits_series

    async def go(self) -> None:
        """Do what is left of it.

        Raises:
            PostdicomError: it cannot go on now; the ledger says how far it came.
        """
        await self._begin()
        assert self._dispatcher is not None  # noqa: S101 - only a preview has none
        phases: dict[str, Callable[[], Awaitable[None]]] = {
            "discovering": lambda: Discovery(self._context).run(),
            "moving": self._move,
            "verifying": lambda: Verifying(self._context).run(),
            "deleting": lambda: Deleting(self._context).run(),
        }
        ledger = self._context.ledger
        while (phase := ledger.fact("phase")) in phases:
            await self._gate()
            counting = asyncio.create_task(self._count_seconds())
            try:
                await phases[phase]()
            finally:
                counting.cancel()
                self._note_ends()
            if phase == PHASES[0] or not await self._retries.begin(ledger):
                ledger.put("phase", PHASES[PHASES.index(phase) + 1])
            await ledger.commit()

    def _note_ends(self) -> None:
        """Note what an end has to say of its own lists and answers."""
        for end in (self._context.source, self._context.target):
            notes: list[str] = getattr(end, "notes", [])
            while notes:
                self._context.ledger.note(f"{end.name}: {notes.pop(0)}")

    async def _count_seconds(self) -> None:
        """Count the time in which it works: neither pauses and closed windows nor outages."""
        ledger = self._context.ledger
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if self._is_open() and not self._context.outages.lasts:
                ledger.put("seconds", float(ledger.fact("seconds") or 0.0) + now - before)
            before = now

    async def prepare(self) -> None:
        """Do what comes before anything is moved."""
        await self._begin()
        if self._context.ledger.fact("phase") == PHASES[0]:
            await Discovery(self._context).run()

    async def _begin(self) -> None:
        """Begin another run where the last came to its end: what failed in it is tried again."""
        ledger = self._context.ledger
        if ledger.fact("phase") in PHASES[:-1] or ledger.fact("part"):  # a part has its studies, and finds no others
            return
        before = int(ledger.fact("run") or 0)
        if before:
            await ledger.reset([State.FAILED, State.UNCONFIRMED])
        await self._prove_anew()
        # Last: who comes after a kill goes on with a run that has begun, and none of this is done for it again.
        ledger.put("run", before + 1)
        ledger.put("phase", PHASES[0])
        ledger.put("discovery_complete", False)
        await ledger.commit()

    async def _prove_anew(self) -> None:
        """Have everything verified once more where a stricter proof is asked for than before."""
        ledger, level = self._context.ledger, self._context.how.verify
        if LEVELS.index(level) > LEVELS.index(str(ledger.fact("verify") or level)):
            async for some in every_study(self._context, Stage.VERIFIED):
                for study in some:
                    ledger.set_stage(study.id, Stage.MOVED)
        ledger.put("verify", level)

    async def _move(self) -> None:
        if self._context.how.verb == "verify":
            await Verifying(self._context).compare()
            return
        assert self._dispatcher is not None  # noqa: S101 - only a preview has none
        moving = Moving(self._context, self._dispatcher, self._gate, splits_series=self._splits_series)
        await moving.run()


# --- another try while the job runs ----------------------------------------------------------------------------------


class Retries:
    """What has been asked for and not been done."""

    def __init__(self) -> None:
        self._reasons: set[int] = set()
        self._all = False

    async def ask(self, message: dict[str, Any]) -> None:
        """Take an order: of the control socket; ``reasons`` are those of `states.Reason`, all without them.

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
        """Make pending what was asked for, and the phase that of moving; return whether there is such a thing."""
        reasons = None if self._all else sorted(self._reasons)
        self._all, self._reasons = False, set()
        if reasons == []:
            return False
        ledger.put("phase", "moving")  # before anything is pending: whoever comes after a kill would pass it over
        return await ledger.reset([State.FAILED, State.UNCONFIRMED], reasons=reasons) > 0
