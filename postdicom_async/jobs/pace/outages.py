"""Handles outages of a job's ends: it probes an end after a failure, and waits for the end of an outage.

`OutagePolicy` decides; this probes, sleeps and reports. One failure is not an outage: the end is probed, and if it
answers, the failure counts as an attempt of that item. If it does not, no work is handed out, no item uses up an
attempt, and probes follow at growing intervals until the job's patience is exhausted. While the job is paused or its
windows are closed, there are no probes and no patience is used up.

An end that this job has never reached may have a mistyped address: a host name that is not known ends the job then, and
is an outage later.

For each end it holds a policy and the latest error; any phase may change them, in one event loop. Only one task at a
time probes an end (``asking``); the others wait for its result.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TypedDict

from postdicom_async.errors import ConnectionFailed, LocalFileError, PostdicomError, ProtocolError, UsageError
from postdicom_async.jobs.pace.first_look import ENDS, MOST_QUESTIONS, is_for_a_person, problem_of
from postdicom_async.jobs.pace.outage_policy import Do, OutagePatience, OutagePolicy

if TYPE_CHECKING:
    from postdicom_async.jobs.ends.end import End


_SHORTEST = 0.05  # the shortest sleep in seconds: two clocks never agree exactly
_REST = 1.0  # a wait at the gate of so many seconds was a rest
_YEAR = 366 * 86400.0


class OutageWatch(Protocol):
    """Who is told of outages; an end is ``"source"`` or ``"target"``."""

    def outage(self, end: str, problem: PostdicomError | None) -> None:
        """Learn that an end does not work."""
        ...

    def outage_ended(self, end: str, seconds: float) -> None:
        """Learn that it works again."""
        ...


async def _no_gate() -> None:
    """Let everything pass."""


class _WatchedEnd:
    """One end: its policy, and what it last failed with."""

    def __init__(self, end: End, patience: OutagePatience, chance: Callable[[], float]) -> None:
        self.end = end
        self.policy = OutagePolicy(patience, chance=chance)
        self.problem: PostdicomError | None = None  # the latest
        self.asking = asyncio.Lock()
        self.told_since: float | None = None
        self.is_reached = True


class Outages:
    """The phases of a job call this before and after they use an end.

    Args:
        ends: the ends.
        patience: how patient the job is.
        tell: called with a line when an outage begins and ends.
        watch: told of an outage that begins and ends.
        unreached: the ends, ``"source"`` or ``"target"``, that this job has never reached.
        reached: called with such an end when it is reached.
        gate: awaited before a probe: pauses and time windows.
        clock: seconds that never go back.
        sleep: waits.
        chance: gives random numbers from 0 to 1.
    """

    def __init__(
        self,
        *ends: End,
        patience: OutagePatience | None = None,
        tell: Callable[[str], None] = lambda _: None,
        watch: OutageWatch | None = None,
        unreached: Collection[str] = (),
        reached: Callable[[str], None] = lambda _: None,
        gate: Callable[[], Awaitable[None]] = _no_gate,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._ends = [_WatchedEnd(end, patience or OutagePatience(), chance) for end in ends]
        self._tell = tell
        self._watch = watch
        self._reached = reached
        for one in self._ends:
            one.is_reached = self._which(one) not in unreached
        self._gate = gate
        self._clock = clock
        self._sleep = sleep

    def succeeded(self, end: End) -> None:
        """Record a success of an end."""
        one = self._of(end)
        one.policy.ended(self._clock())
        self._is_reached(one)

    @property
    def lasts(self) -> bool:
        """Whether an end has an outage now."""
        return any(one.policy.since is not None for one in self._ends)

    async def reach(self) -> None:
        """Probe the ends that this job has never reached, before anything is listed; wait for those that are out.

        Raises:
            PostdicomError: see `outlasted`.
        """
        for one in self._ends:
            problem = None if one.is_reached else await problem_of(one.end)
            if problem is None:
                self._is_reached(one)
            elif problem.temporary or is_for_a_person(problem):
                await self.outlasted(one.end, problem)

    async def clear(self) -> None:
        """Wait until work may be handed out.

        Raises:
            PostdicomError: an outage outlasts the job's patience, or an end fails permanently.
        """
        while True:
            for one in self._ends:
                await self._wait_until_clear(one)
            if not await self._rested():  # a window may have closed meanwhile, and an outage begin before it opens
                break
        for one in self._ends:
            one.policy.given(self._clock())

    async def outlasted(self, end: End, problem: PostdicomError) -> bool:
        """Find out whether a failure is an outage; if so, wait for its end. Return whether it was one.

        Raises:
            PostdicomError: waiting will not help (credentials, a full disk, a host name that was never known), or the
                job has no patience left.
        """
        one = self._of(end)
        one.problem = self._named(one, problem)
        # Waiting helps neither: the same call fails the same way, and a full disk stays full.
        if isinstance(problem, UsageError) or (isinstance(problem, LocalFileError) and problem.disk_full):
            raise problem
        _require_known_host(one, problem)
        if not isinstance(problem, LocalFileError):  # one file's error says nothing about its end
            one.policy.ended(self._clock(), **_said(problem))
        is_outage = await self._is_out(one)
        await self._wait_until_clear(one)
        return is_outage

    async def to_be_repeated(self, end: End, problem: PostdicomError, made: int) -> bool:
        """Wait until the end works; return whether to repeat a query that failed.

        Raises:
            PostdicomError: see `outlasted`.
        """
        is_outage = await self.outlasted(end, problem)
        may_be_right = problem.temporary or isinstance(
            problem, ProtocolError
        )  # a proxy's page; a list that was changing
        return is_outage or (may_be_right and made < MOST_QUESTIONS)

    # --- within -----------------------------------------------------------------------------------------------------

    def _of(self, end: End) -> _WatchedEnd:
        return next(one for one in self._ends if one.end is end)

    async def _is_out(self, one: _WatchedEnd) -> bool:
        """Return whether an end has an outage; it is probed unless that is known."""
        before = one.policy.outages
        async with one.asking:
            if one.policy.since is not None or one.policy.outages > before:
                return True
            if one.policy.advice(self._clock()).do in {Do.STOP, Do.GIVE_UP}:
                return True  # this ends the job, without using up an attempt
            if retry_after := (one.problem.retry_after if one.problem is not None else None):
                return retry_after > 0  # it has said when it wants to be asked again
            return await self._probed(one) is not None

    async def _probed(self, one: _WatchedEnd) -> PostdicomError | None:
        one.policy.asked()
        found = await problem_of(one.end)
        if found is not None:
            one.problem = self._named(one, found)
            one.policy.probed(self._clock(), **_said(found))
            _require_known_host(one, found)
        else:
            one.policy.probed(self._clock())
            self._is_reached(one)
        self._tell_of(one)
        return found

    async def _wait_until_clear(self, one: _WatchedEnd) -> None:
        while True:
            now = self._clock()
            advice = one.policy.advice(now)
            if advice.do is Do.GO:
                return
            if advice.do is Do.PAUSE:
                await self._sleep(max(_SHORTEST, advice.until - now))
            elif advice.do is Do.PROBE:
                await self._rested()
                async with one.asking:
                    if one.policy.advice(self._clock()).do is Do.PROBE:
                        await self._probed(one)
            else:
                raise one.problem or PostdicomError(advice.cause, temporary=advice.do is Do.GIVE_UP)

    async def _rested(self) -> bool:
        """Wait while the gate is closed; return whether that took time."""
        before = self._clock()
        await self._gate()
        if self._clock() - before < _REST:
            return False
        for one in self._ends:
            one.policy.rested(self._clock())
        return True

    def _tell_of(self, one: _WatchedEnd) -> None:
        since, before = one.policy.since, one.told_since
        if since is not None and before is None:
            cause = one.policy.advice(self._clock()).cause
            self._tell(f"{self._which(one)} {one.end.name}: waiting for it{self._until(one)}: {cause}")
            one.told_since = since
            if self._watch is not None:
                self._watch.outage(self._which(one), one.problem)
        elif before is not None and one.policy.advice(self._clock()).do is Do.GO:
            seconds = self._clock() - before
            self._tell(f"{self._which(one)} {one.end.name}: works again after {round(seconds)} s")
            one.told_since = None
            if self._watch is not None:
                self._watch.outage_ended(self._which(one), seconds)

    def _until(self, one: _WatchedEnd) -> str:
        left = one.policy.patience_left(self._clock())
        if not 0 < left < _YEAR:
            return ""
        return f", at the longest until {datetime.now(UTC) + timedelta(seconds=left):%Y-%m-%d %H:%M} UTC (--patience)"

    def _is_reached(self, one: _WatchedEnd) -> None:
        if not one.is_reached:
            one.is_reached = True
            self._reached(self._which(one))

    def _named(self, one: _WatchedEnd, problem: PostdicomError) -> PostdicomError:
        """Return a problem that says which end it is about; one of this machine's files names the file."""
        if not isinstance(problem, LocalFileError):
            problem.end = f"{self._which(one)} {one.end.name}"
        return problem

    def _which(self, one: _WatchedEnd) -> str:
        return ENDS[self._ends.index(one)]


class _Said(TypedDict):
    error: str
    temporary: bool
    retry_after: float | None
    message: str


def _said(problem: PostdicomError) -> _Said:
    return _Said(
        error=type(problem).__name__,
        temporary=problem.temporary,
        retry_after=problem.retry_after,
        message=problem.message,
    )


def _require_known_host(one: _WatchedEnd, problem: PostdicomError) -> None:
    """Raise the problem of a host name that is not known and never was."""
    if not one.is_reached and isinstance(problem, ConnectionFailed) and problem.host_unknown:
        raise problem
