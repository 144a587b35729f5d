"""Several requests for one download, as many at once as make it faster.

What each lane receives is told to an `AtOnce` piece by piece, so that a lane more is tried, kept or given up while
large answers are under way. What an archive refuses because of the others goes back to the end of the queue, however
often: nothing is lost by having asked for too much. An archive that refuses the only request ends the download, as it
always did; one that forbids a series gives the others first.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import aclosing
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicomweb.helping import Helping, Lane
from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.errors import (
    AuthenticationFailed,
    LocalFileError,
    NotFound,
    PostdicomError,
    RateLimited,
    UsageError,
)
from postdicom_async.events import AttemptFailed, Event
from postdicom_async.http.retry import Failure
from postdicom_async.transfer.adaptive import AtOnce
from postdicom_async.transfer.at_once import for_each

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.dicomweb.retrieve import Retrieval, Target
    from postdicom_async.events import OnEvent
    from postdicom_async.transfer.arrivals import Arrivals
    from postdicom_async.transfer.outcomes import Meter
    from postdicom_async.transfer.sinks import Sink

__all__ = ["Lanes"]

_ENDS_ALL = (LocalFileError, UsageError)
_ENDS_THE_JOB = (AuthenticationFailed, RateLimited)
_TOO_MUCH = frozenset({Failure.REFUSED.name, Failure.UNAVAILABLE.name, Failure.LOST.name})
_MOST_TIMES_BACK = 5  # then it waits until nothing else is under way
_SAMPLE = 0.005  # seconds
_LAST_WORD = 0.1  # seconds: the end of an answer comes right behind its last instance
_LOOK, _BUSY = 0.02, 0.75  # seconds, and the share of them in which the event loop works: more lanes bring nothing


class Lanes:
    """The requests of one download.

    Attributes:
        last_error: of the latest `fetch`, what went wrong last, None where nothing did.
        not_found: the archive says that it does not hold the target.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        target: Target,
        sink: Sink,
        arrivals: Arrivals,
        meter: Meter,
    ) -> None:
        self.last_error: PostdicomError | None = None
        self.not_found: NotFound | None = None
        self._session = retrieval.session.with_settings(
            replace(retrieval.session.settings, on_event=self._watching(retrieval.session.settings.on_event))
        )
        self._retrieval = retrieval.over(self._session)
        self._target = target
        self._sink = sink
        self._arrivals = arrivals
        self._meter = meter
        most = self._session.settings.limits.parallel_retrieves
        self._policy = AtOnce(most)
        self._may_be_several = most > 1 and target.instance is None  # else there is nothing to decide
        self._looked = time.monotonic(), time.thread_time()
        self._is_busy = False
        self._lanes: set[Lane] = set()
        self._helping: Helping | None = None
        self._nothing_left = False  # to be begun
        self._all_here = 0.0  # since when, 0 before
        self._running = 0
        self._back: deque[tuple[Target, int]] = deque()
        self._forbidden: PostdicomError | None = None
        self._look = anyio.Event()

    async def fetch(self, targets: AsyncGenerator[Target, None], helping: Helping | None = None) -> bool:
        """Receive everything; return whether each answer came to its end without damage.

        What goes wrong with one is noted, unless it ends the whole download. ``helping`` tells what else may be asked
        for when there are no more targets.
        """
        self.last_error = self._forbidden = None
        self._helping, self._nothing_left, self._all_here, self._running = helping, False, 0.0, 0
        whole = True

        async def fetch_one(one: tuple[Target, int, bool]) -> None:
            nonlocal whole
            target, times_back, is_help = one
            try:
                came_whole = await self._fetch_one(target, times_back, is_help=is_help)
                whole = whole and came_whole
            finally:
                self._running -= 1
                self._look.set()

        sampling = asyncio.ensure_future(self._sample()) if self._may_be_several else None
        try:
            async with aclosing(targets), aclosing(self._drawn(targets)) as drawn:
                await for_each(drawn, fetch_one, at_once=sys.maxsize)  # how many is for `_drawn` to say
        finally:
            if sampling is not None:
                sampling.cancel()
        if self._forbidden is not None:
            raise self._forbidden
        return whole

    async def _drawn(self, targets: AsyncGenerator[Target, None]) -> AsyncGenerator[tuple[Target, int, bool], None]:
        """Yield what is to be asked for, each when there is room for it; end when nothing is under way any more."""
        is_over, target = False, None
        while True:
            self._look = anyio.Event()
            if target is None and not is_over:  # one ahead, to know whether there are more
                target = await anext(targets, None)
                is_over = target is None
            has_room = self._running < self._policy.now
            one: tuple[Target, int, bool] | None = None
            if has_room and target is not None:
                one, target = (target, 0, False), None
            elif has_room and self._back and (self._back[0][1] < _MOST_TIMES_BACK or not self._running):
                one = (*self._back.popleft(), False)
            elif not self._running:
                return
            elif is_over and self._helping is not None:
                besides = await self._besides(self._helping, has_room=has_room)
                one = None if besides is None else (besides, 0, True)
            if one is not None:
                self._running += 1  # now: it is begun only after the next has been asked for
                yield one
                continue
            self._nothing_left = is_over and not self._back and not (self._helping and self._helping.has_some)
            await self._look.wait()

    async def _besides(self, helping: Helping, *, has_room: bool) -> Target | None:
        """Return what is to be asked for besides the answers under way."""
        now = time.monotonic()
        if any(helping.is_due(lane, now) for lane in self._lanes):
            await helping.prepare()
        return helping.next() if has_room else None

    async def _fetch_one(self, target: Target, times_back: int, *, is_help: bool) -> bool:
        """Receive one resource; return whether its answer came to its end without damage, or is not needed for that."""
        if self._session.has_given_up:
            return False
        now = time.monotonic()
        lane = Lane(target, self._arrivals.answer(), now, now)
        problem = await self._receive(lane)
        if problem is None:
            is_whole = not lane.scope.cancelled_caught
            if is_whole and not is_help and self._helping is not None:
                self._leave_help()
            return is_whole or is_help
        if isinstance(problem, _ENDS_ALL):
            raise problem
        may_pass = problem.temporary or isinstance(problem, RateLimited)
        if may_pass:
            self._policy.refused(time.monotonic())
        if is_help:  # it comes with the answer that was to be helped, which goes on
            if self._helping is not None and not may_pass:
                self._helping.stop()
            return True
        if may_pass and self._running > 1 and not lane.told.saved:
            self._back.append((target, times_back + 1))
            return True
        self._note(problem, target)
        return False

    def _note(self, problem: PostdicomError, target: Target) -> None:
        """Note what went wrong with one resource; raise what ends the download."""
        is_for_one = problem.status == HTTPStatus.FORBIDDEN and target != self._target
        if is_for_one and (self._running > 1 or self._arrivals.here):
            self._forbidden = problem  # the others are given
        elif isinstance(problem, _ENDS_THE_JOB):
            raise problem
        self.last_error = problem
        if isinstance(problem, NotFound) and target == self._target:
            self.not_found = problem

    async def _receive(self, lane: Lane) -> PostdicomError | None:
        """Receive one answer; return what went wrong with it."""
        self._lanes.add(lane)
        try:
            receiver = Receiver(self._sink, lane.target, lane.told, meter=self._meter)
            with lane.scope:
                async with self._retrieval.open(lane.target) as lane.answer:
                    await receiver.receive(lane.answer, self._session.settings.limits.parts)
        except PostdicomError as error:
            return error
        finally:
            self._lanes.discard(lane)
            if lane.answer is not None and lane.answer.received > lane.received:
                self._policy.done(lane.since, time.monotonic(), lane.answer.received - lane.received)
            if lane.told.saved:
                self._session.has_moved()
            self._leave_if_all_is_here()
        return None

    def _watching(self, on_event: OnEvent | None) -> OnEvent:
        """Return what learns of each attempt that failed, also where a repeat then succeeds."""

        def watch(event: Event) -> None:
            if isinstance(event, AttemptFailed) and event.failure in _TOO_MUCH:
                self._policy.refused(time.monotonic())
            if on_event is not None:
                on_event(event)

        return watch

    def _leave_if_all_is_here(self) -> None:
        """Leave what is under way; the one answer for everything has a moment to come to its own end.

        Where nothing was taken over it has all the time there is: it may bring more than was counted.
        """
        if self._helping is None or not self._helping.is_over:
            return
        now = time.monotonic()
        self._all_here = self._all_here or now
        if len(self._lanes) > 1 or (self._helping.has_begun and now - self._all_here >= _LAST_WORD):
            for lane in self._lanes:
                lane.scope.cancel()

    def _leave_help(self) -> None:
        """Leave what was asked for besides: the answer for everything has come."""
        if self._helping is not None:
            self._helping.stop()
        for lane in self._lanes:
            lane.scope.cancel()

    async def _sample(self) -> None:
        """Tell the policy what each answer brought, many times a second: large ones take minutes."""
        while True:
            await asyncio.sleep(_SAMPLE)
            now, before = time.monotonic(), self._policy.now
            # A level is judged from when its lanes move: what the others bring until then says nothing of it.
            opens = self._policy.is_beginning and any(one.is_opening(now) for one in self._lanes)
            for lane in self._lanes:
                received = 0 if lane.answer is None else lane.answer.received
                if received > lane.received:
                    lane.first = lane.first or now
                    if not opens:
                        self._policy.done(lane.since, now, received - lane.received)
                    lane.since, lane.received = now, received
            self._leave_if_all_is_here()
            looked, used = self._looked
            if now - looked >= _LOOK:
                cpu = time.thread_time()
                self._is_busy = cpu - used > _BUSY * (now - looked)
                self._looked = now, cpu
            self._policy.held = self._is_busy or self._nothing_left
            is_due = self._helping is not None and any(self._helping.is_due(lane, now) for lane in self._lanes)
            if self._policy.now > before or is_due:
                self._look.set()
