"""The requests of one download: as many in parallel as make it faster, and what else they may ask for.

An answer cannot be split once it was requested. So a download begins with one request for everything, which costs an
archive least. If that turns out slow, other connections take over parts of it (`TakeOver`): the series of the study,
starting from the last one, and, if an answer takes long, its instances. Instances that come twice are dropped, and the
first answer is abandoned once everything is here, from whichever request. A fast answer is left alone, and so is one
whose parts the archive does not list.

State of `DownloadLanes`: the lanes in flight, each with what it brought; the targets that were refused and go back to
the end of the queue, however often, since nothing is lost by having asked for too much; and the policy, an `AtOnce`. It
is told what each lane receives piece by piece, so that an added lane is tried, kept or given up while large answers are
still arriving. An archive that refuses the only request ends the download; if it forbids a series, the others come
first.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicomweb.listing import each_listed
from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.dicomweb.search import count_by_series
from postdicom_async.errors import (
    AuthenticationFailed,
    LocalFileError,
    NotFound,
    PostdicomError,
    RateLimited,
    UsageError,
)
from postdicom_async.transfer.adaptive import AtOnce
from postdicom_async.transfer.at_once import for_each

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from postdicom_async.dicomweb.retrieve import Retrieval, Target
    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.results import InstanceUids
    from postdicom_async.transfer.arrivals import Arrivals, OneAnswer
    from postdicom_async.transfer.outcomes import Meter
    from postdicom_async.transfer.sinks import Sink

# When parts of an answer are taken over.
MANY = 32  # instances: with fewer it is not worth it
_FEW = 8  # instances per series, on average: a request for fewer spends more time waiting than receiving
_MOST_SERIES = 1000
_SLOW = 80e6  # bytes a second; beyond that most lines are full, and parts cost an archive more than the whole
_SEEN = 0.03  # seconds in which that shows
_LONG = 2.0  # seconds the rest must take for its instances to be requested one by one
_LOOK_AFTER = 0.5  # seconds in which that shows
_MOST_LISTED = 5000  # instances at the end of the list that may be taken over
_LIST_SECONDS = 10.0

# How the lanes are run.
_ENDS_ALL = (LocalFileError, UsageError)
_ENDS_THE_JOB = (AuthenticationFailed, RateLimited)
_MOST_TIMES_BACK = 5  # then it waits until nothing else is in flight
_SAMPLE = 0.005  # seconds
_OPENING = 0.25  # seconds a lane may take to its first bytes before its level is judged
_LAST_WORD = 0.1  # seconds: the end of an answer follows right behind its last instance
_LOOK, _BUSY = 0.02, 0.75  # seconds, and the share of them the event loop is busy: beyond it more lanes gain nothing


@dataclass(slots=True, eq=False)
class DownloadLane:
    """A request in flight.

    Attributes:
        target: the resource requested.
        told: the record of what it brought.
        began: when, in seconds of `time.monotonic`.
        since, received: the time, and the bytes of the answer, up to which the policy has been told.
        first: when its first bytes were seen, 0 before that.
        answer: its answer, None before its head has arrived.
        scope: cancels it.
    """

    target: Target
    told: OneAnswer
    began: float
    since: float
    received: int = 0
    first: float = 0.0
    answer: StreamedAnswer | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def is_opening(self, now: float) -> bool:
        """Whether its first bytes have not arrived but may still come soon."""
        return not self.first and now - self.began < _OPENING


class TakeOver:
    """The parts of the one answer for everything, of ``expected`` instances, that may be requested separately.

    ``begins`` is called when a part is taken over.

    Attributes:
        has_begun: whether one was.
    """

    def __init__(
        self, retrieval: Retrieval, arrivals: Arrivals, target: Target, expected: int, begins: Callable[[], None]
    ) -> None:
        self.has_begun: bool = False
        self._retrieval = retrieval
        self._begins = begins
        self._arrivals = arrivals
        self._target = target
        self._expected = expected
        self._series: str | None = target.series  # the series whose instances may be taken over
        self._series_asked = target.series is not None
        self._instances_asked = False
        self._rest: deque[Target] = deque(maxlen=_MOST_LISTED)

    @property
    def has_some(self) -> bool:
        """Whether a part can be taken over."""
        return bool(self._rest)

    @property
    def is_over(self) -> bool:
        """Whether everything is here, so that requests in flight are no longer needed."""
        return self._arrivals.here >= self._expected

    def is_due(self, lane: DownloadLane, now: float) -> bool:
        """Whether it is time to list the parts of an answer that may be taken over."""
        if lane.target != self._target or not lane.first or self._rest:
            return False
        if not self._series_asked:
            return now - lane.first >= _SEEN and lane.received < _SLOW * (now - lane.first)
        if self._instances_asked or self._series is None or not self._arrivals.here:
            return False
        took, here = now - lane.began, self._arrivals.here
        return took >= _LOOK_AFTER and (self._expected - here) * took / here >= _LONG

    async def prepare(self) -> None:
        """List what is due: how many instances each series has, later the instances of the largest one."""
        study = self._target.study
        with suppress(PostdicomError, TimeoutError):  # then the one answer is simply received
            async with asyncio.timeout(_LIST_SECONDS):
                if self._series_asked:
                    self._instances_asked = True
                    await each_listed(self._retrieval, Target(study, self._series), self._add)
                    return
                self._series_asked = True
                counts = await count_by_series(self._retrieval, study, _MOST_SERIES) or {}
                if sum(counts.values()) != self._expected:
                    return  # a capped or wrong list: series missing from it would never be requested
                series = max(counts, key=counts.__getitem__)
                if 2 * counts[series] >= self._expected:
                    self._series = series
                if len(counts) > 1 and self._expected >= _FEW * len(counts):
                    self._rest.extend(Target(study, uid) for uid in counts)

    def _add(self, instances: Iterable[InstanceUids]) -> None:
        self._rest.extend(Target(*uids) for uids in instances)

    def stop(self) -> None:
        """Take over nothing more: the archive does not return smaller resources."""
        self._rest.clear()
        self._series_asked = self._instances_asked = True

    def next(self) -> Target | None:
        """Return the next part to request, None if there is none."""
        while self._rest:
            target = self._rest.pop()
            if target.instance is None or not self._arrivals.has((target.study, target.series or "", target.instance)):
                self.has_begun = True
                self._begins()
                return target
        return None


class DownloadLanes:
    """The requests of one download.

    Attributes:
        last_error: the last error of the latest `fetch`, None if there was none.
        not_found: whether the archive says that it does not hold the target.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        target: Target,
        sink: Sink,
        arrivals: Arrivals,
        meter: Meter,
        *,
        wanted: frozenset[int] = frozenset(),
    ) -> None:
        self._wanted = wanted  # values that the sink is told of each instance
        self.last_error: PostdicomError | None = None
        self.not_found: NotFound | None = None
        self._target = target
        self._sink = sink
        self._arrivals = arrivals
        self._meter = meter
        most = retrieval.session.settings.limits.parallel_retrieves
        self._policy = AtOnce(most)
        self._retrieval = retrieval.telling(self._policy)
        self._session = self._retrieval.session
        self._may_be_several = most > 1 and target.instance is None  # otherwise there is nothing to decide
        self._looked = time.monotonic(), time.thread_time()
        self._is_busy = False
        self._lanes: set[DownloadLane] = set()
        self._take_over: TakeOver | None = None
        self._nothing_left = False  # to start
        self._all_here = 0.0  # when that became true, 0 before
        self._running = 0
        self._back: deque[tuple[Target, int]] = deque()
        self._forbidden: PostdicomError | None = None
        self._look = anyio.Event()

    async def fetch(self, targets: AsyncGenerator[Target, None], take_over: TakeOver | None = None) -> bool:
        """Receive everything; return whether each answer was complete and undamaged.

        An error of one request is noted, unless it ends the whole download. ``take_over`` supplies further requests
        when there are no more targets.
        """
        self.last_error = self._forbidden = None
        self._take_over, self._nothing_left, self._all_here, self._running = take_over, False, 0.0, 0
        whole = True

        async def fetch_one(one: tuple[Target, int, bool]) -> None:
            nonlocal whole
            target, times_back, is_besides = one
            try:
                came_whole = await self._fetch_one(target, times_back, is_besides=is_besides)
                whole = whole and came_whole
            finally:
                self._running -= 1
                self._look.set()

        sampling = asyncio.ensure_future(self._sample()) if self._may_be_several else None
        try:
            async with aclosing(targets), aclosing(self._drawn(targets)) as drawn:
                await for_each(drawn, fetch_one, at_once=sys.maxsize)  # `_drawn` decides how many
        finally:
            if sampling is not None:
                sampling.cancel()
        if self._forbidden is not None:
            raise self._forbidden
        return whole

    async def _drawn(self, targets: AsyncGenerator[Target, None]) -> AsyncGenerator[tuple[Target, int, bool], None]:
        """Yield what to request, each when there is room for it; end when nothing is in flight any more."""
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
            elif is_over and self._take_over is not None:
                if self._is_due(self._take_over, time.monotonic()):
                    await self._take_over.prepare()
                besides = self._take_over.next() if has_room else None
                one = None if besides is None else (besides, 0, True)
            if one is not None:
                # Counted now: it starts only after the next one has been drawn, and that must already see it as
                # running.
                self._running += 1
                yield one
                continue
            self._nothing_left = is_over and not self._back and not (self._take_over and self._take_over.has_some)
            await self._look.wait()

    async def _fetch_one(self, target: Target, times_back: int, *, is_besides: bool) -> bool:
        """Receive one resource; return whether its answer was complete and undamaged, or need not be."""
        if self._session.has_given_up:  # the archive was silent too often: another request would only wait again
            return False
        now = time.monotonic()
        lane = DownloadLane(target, self._arrivals.answer(), now, now)
        problem = await self._receive(lane)
        if problem is None:
            is_whole = not lane.scope.cancelled_caught
            if is_whole and not is_besides and self._take_over is not None:
                self._take_over.stop()
                for one in self._lanes:  # the answer for everything is complete: separate requests are not needed
                    one.scope.cancel()
            return is_whole or is_besides
        if isinstance(problem, _ENDS_ALL):
            raise problem
        may_pass = problem.temporary or isinstance(problem, RateLimited)
        if may_pass:
            self._policy.refused(time.monotonic())
        if is_besides:  # no harm done: it also comes with the answer for everything, which continues
            if self._take_over is not None and not may_pass:
                self._take_over.stop()
            return True
        if may_pass and self._running > 1 and not lane.told.saved:
            self._back.append((target, times_back + 1))
            return True
        self._note(problem, target)
        return False

    def _note(self, problem: PostdicomError, target: Target) -> None:
        """Note an error of one request; raise one that ends the download."""
        is_for_one = problem.status == HTTPStatus.FORBIDDEN and target != self._target
        if is_for_one and (self._running > 1 or self._arrivals.here):
            self._forbidden = problem  # raised at the end: a forbidden series must not keep the others out
        elif isinstance(problem, _ENDS_THE_JOB):
            raise problem
        self.last_error = problem
        if isinstance(problem, NotFound) and target == self._target:
            self.not_found = problem

    async def _receive(self, lane: DownloadLane) -> PostdicomError | None:
        """Receive one answer; return the error, None if there was none."""
        self._lanes.add(lane)
        try:
            receiver = Receiver(self._sink, lane.target, lane.told, meter=self._meter, wanted=self._wanted)
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

    def _is_due(self, take_over: TakeOver, now: float) -> bool:
        return any(take_over.is_due(lane, now) for lane in self._lanes)

    def _leave_if_all_is_here(self) -> None:
        """When everything is here, end the other requests; the one for everything has a moment to end by itself.

        If nothing was taken over, that one may take all the time it needs: it may bring more than was counted.
        """
        if self._take_over is None or not self._take_over.is_over:
            return
        now = time.monotonic()
        self._all_here = self._all_here or now
        if len(self._lanes) > 1 or (self._take_over.has_begun and now - self._all_here >= _LAST_WORD):
            for lane in self._lanes:
                lane.scope.cancel()

    async def _sample(self) -> None:
        """Tell the policy many times a second what each answer brought: large ones take minutes."""
        while True:
            await asyncio.sleep(_SAMPLE)
            now, before = time.monotonic(), self._policy.now
            # A level is judged only once all its lanes receive: what the others bring until then says nothing about it.
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
            if self._policy.now > before or (self._take_over is not None and self._is_due(self._take_over, now)):
                self._look.set()
