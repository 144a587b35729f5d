"""Other connections take over parts of a large answer that is under way: its last series, then its last instances.

An answer cannot be divided once it was asked for. So a download begins with one request for everything, which is what
costs an archive least. Where that turns out slow, the series of the study are asked for besides, from the last one on,
and where an answer takes long, its instances; what comes twice is dropped, and the first answer is left when all is
here, from whichever side. An answer that is fast is left alone, and so is one whose parts the archive does not list.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicomweb.listing import count_by_series, each_listed
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.errors import PostdicomError

if TYPE_CHECKING:
    from collections.abc import Callable

    from postdicom_async.dicomweb.retrieve import Retrieval
    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.transfer.arrivals import Arrivals, OneAnswer

__all__ = ["MANY", "Helping", "Lane"]

MANY = 32  # instances from which on an answer may be worth help
_FEW = 8  # instances a series, on average: requests for fewer wait longer than they receive
_MOST_SERIES = 1000
_SLOW = 80e6  # bytes a second; more is as fast as most lines, and asking for parts costs an archive more than the whole
_OPENING = 0.25  # seconds
_SEEN = 0.03  # seconds in which that shows
_LONG = 2.0  # seconds that the rest must take for its instances to be asked for one by one
_LOOK_AFTER = 0.5  # seconds in which that shows
_MOST_LISTED = 5000  # instances at the end of the list that may be taken over
_LIST_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Lane:
    """A request under way.

    Attributes:
        target: what was asked for.
        told: what it brought.
        began: when, in seconds of `time.monotonic`.
        since, received: up to when, and how many bytes of the answer, were told to the policy.
        first: when its first bytes were seen, 0 before.
        answer: its answer, None before its head is there.
        scope: ends it.
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
        """Whether its first bytes are still to come, and may soon."""
        return not self.first and now - self.began < _OPENING


class Helping:
    """What may be taken over of one answer for all there is, which has ``expected`` instances.

    ``begins`` is called when something is taken over.

    Attributes:
        has_begun: whether something was.
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
        self._series: str | None = target.series  # of which the instances may be taken over
        self._series_asked = target.series is not None
        self._instances_asked = False
        self._rest: deque[Target] = deque(maxlen=_MOST_LISTED)

    @property
    def has_some(self) -> bool:
        """Whether there is something to be taken over."""
        return bool(self._rest)

    @property
    def is_over(self) -> bool:
        """Whether everything is here, so that nothing under way is wanted any more."""
        return self._arrivals.here >= self._expected

    def is_due(self, lane: Lane, now: float) -> bool:
        """Whether it is time to ask for what may be taken over of an answer."""
        if lane.target != self._target or not lane.first or self._rest:
            return False
        if not self._series_asked:
            return now - lane.first >= _SEEN and lane.received < _SLOW * (now - lane.first)
        return not self._instances_asked and self._series is not None and self._is_long(now - lane.began)

    def _is_long(self, took: float) -> bool:
        here = self._arrivals.here
        return took >= _LOOK_AFTER and here > 0 and (self._expected - here) * took / here >= _LONG

    async def prepare(self) -> None:
        """Ask for what is due."""
        with suppress(PostdicomError, TimeoutError):  # then the answer is received as it is
            async with asyncio.timeout(_LIST_SECONDS):
                await (self._list_instances() if self._series_asked else self._list_series())

    async def _list_series(self) -> None:
        self._series_asked = True
        counts = await count_by_series(self._retrieval, self._target.study, _MOST_SERIES) or {}
        if sum(counts.values()) != self._expected:
            return
        largest = max(counts, key=counts.__getitem__)
        if 2 * counts[largest] >= self._expected:
            self._series = largest
        if len(counts) > 1 and self._expected >= _FEW * len(counts):
            self._rest.extend(Target(self._target.study, uid) for uid in counts)

    async def _list_instances(self) -> None:
        self._instances_asked = True
        series = Target(self._target.study, self._series)
        await each_listed(self._retrieval, series, lambda some: self._rest.extend(Target(*uids) for uids in some))

    def stop(self) -> None:
        """Take over nothing more: what is smaller cannot be had by itself."""
        self._rest.clear()
        self._series_asked = self._instances_asked = True

    def next(self) -> Target | None:
        """Return what to ask for besides, None where there is nothing."""
        while self._rest:
            target = self._rest.pop()
            if target.instance is None or not self._arrivals.has((target.study, target.series or "", target.instance)):
                self.has_begun = True
                self._begins()
                return target
        return None
