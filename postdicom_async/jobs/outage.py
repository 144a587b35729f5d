"""An end that cannot be worked with: whether that is an outage, and waiting for its end.

A failure alone is none: the end is probed, and while it answers the failure was its item's own. While it does not, all
that concerns it waits, and one task probes it with growing waits, for as long as the job has patience.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from postdicom_async.errors import LocalFileError, PostdicomError, UsageError

if TYPE_CHECKING:
    from postdicom_async.jobs.ends import End

__all__ = ["Outages", "wait_before_probe"]

PATIENCE: Final = 12 * 3600.0
_FIRST, _LONGEST = 5.0, 300.0  # seconds between probes
_MOST_IN_A_ROW = 3  # how often one listing is begun again although its end answers


def wait_before_probe(number: int, chance: float, *, retry_after: float | None = None) -> float:
    """Return the seconds until the next probe: growing, and different for each job; never before an end asked for.

    Args:
        number: how many were made, from 0 on.
        chance: a random number from 0 to 1.
        retry_after: seconds the end asked to wait.
    """
    longest = min(_LONGEST, _FIRST * 2.0 ** min(number, 10))
    return max(retry_after or 0.0, longest * (0.5 + 0.5 * chance))


class Outages:
    """The outages of a job's ends.

    Args:
        patience: seconds of one outage after which the job ends, to be gone on with later.
        tell: is given a line when an outage begins and ends.
        sleep: waits; tests have time of their own.
    """

    def __init__(
        self,
        *,
        patience: float = PATIENCE,
        tell: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._tell = tell
        self._sleep = sleep
        self._clock = clock
        self._lasting: dict[int, asyncio.Future[bool]] = {}

    async def clear(self) -> None:
        """Wait until no outage lasts.

        Raises:
            PostdicomError: one lasted longer than the job has patience.
        """
        while self._lasting:
            await asyncio.shield(next(iter(self._lasting.values())))

    async def outlasted(self, end: End, problem: PostdicomError) -> bool:
        """Find out whether a failure is an outage, and wait for its end; return whether it was one.

        Raises:
            PostdicomError: the end cannot be worked with and will not be by waiting (credentials, a full disk), or the
                job has no patience left.
        """
        if isinstance(problem, UsageError) or (isinstance(problem, LocalFileError) and problem.disk_full):
            raise problem
        lasting = self._lasting.get(id(end))
        if lasting is None:
            lasting = self._lasting[id(end)] = asyncio.ensure_future(self._wait_out(end, problem))
            lasting.add_done_callback(lambda _: self._lasting.pop(id(end), None))
        return await asyncio.shield(lasting)

    async def close(self) -> None:
        """End all waiting."""
        for one in list(self._lasting.values()):
            one.cancel()
        if self._lasting:
            await asyncio.wait(list(self._lasting.values()))

    async def _wait_out(self, end: End, problem: PostdicomError) -> bool:
        began, probes = self._clock(), 0
        retry_after = problem.retry_after
        while True:
            if retry_after is None or probes:
                found = await _probed(end)
                if found is None:
                    break
                if not found.temporary:
                    raise found
                retry_after = found.retry_after
            wait = wait_before_probe(probes, random.random(), retry_after=retry_after)  # noqa: S311 - jitter
            if self._clock() - began + wait > self._patience:
                raise problem
            if not probes:
                self._tell(f"{end.name} cannot be worked with: waiting for it, {type(problem).__name__}")
            probes += 1
            await self._sleep(wait)
        if probes:
            self._tell(f"{end.name} can be worked with again, after {round(self._clock() - began)} s")
        return probes > 0


async def _probed(end: End) -> PostdicomError | None:
    try:
        await end.probe()
    except PostdicomError as error:
        return error
    return None
