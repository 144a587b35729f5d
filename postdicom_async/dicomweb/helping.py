"""Lanes with nothing else to do take over instances of a large answer that is under way, from the end of its list.

An answer cannot be divided once it was asked for. So its instances are listed, those at the end are asked for one by
one, and the answer is left when everything of it has arrived, from whichever side. That pays where connections are slow
and answers long; an answer that ends soon is left alone, and so is one whose instances cannot be listed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicomweb.listing import each_listed
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.errors import PostdicomError

if TYPE_CHECKING:
    from postdicom_async.dicomweb.retrieve import Retrieval
    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.transfer.arrivals import Answer, Arrivals

__all__ = ["Helping", "Lane"]

_LONG = 2.0  # seconds: what ends sooner needs no help
_LOOK_AFTER = 0.5  # seconds in which it shows how fast it is
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
        series, expected: of an answer that is one series, which, and how many instances it has.
        helps: the lane of which an instance is taken over.
        helped: how many of its instances came from others.
        is_listed: whether its instances were listed to be taken over.
        scope: ends it.
    """

    target: Target
    told: Answer
    began: float
    since: float
    received: int = 0
    answer: StreamedAnswer | None = None
    series: str = ""
    expected: int = 0
    helps: Lane | None = None
    helped: int = 0
    is_listed: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def is_long(self, now: float) -> bool:
        """Whether the rest will take long, as far as can be told by now."""
        saved, took = self.told.saved, now - self.began
        return took >= _LOOK_AFTER and saved > 0 and (self.expected - saved - self.helped) * took / saved >= _LONG

    def leave_if_all_is_here(self) -> None:
        """End it when others brought what it has still to bring."""
        if self.helped and self.told.saved + self.helped >= self.expected:
            self.scope.cancel()


class Helping:
    """What may be taken over."""

    def __init__(self, retrieval: Retrieval, arrivals: Arrivals) -> None:
        self._retrieval = retrieval
        self._arrivals = arrivals
        self._lane: Lane | None = None
        self._rest: deque[Target] = deque(maxlen=_MOST_LISTED)

    async def prepare(self, lanes: set[Lane], now: float) -> None:
        """List the instances of a long answer."""
        lane = next((one for one in lanes if not one.is_listed and one.is_long(now)), None)
        if self._rest or lane is None:
            return
        lane.is_listed, self._lane = True, lane
        with suppress(PostdicomError, TimeoutError):
            async with asyncio.timeout(_LIST_SECONDS):
                await each_listed(
                    self._retrieval,
                    Target(lane.target.study, lane.series),
                    lambda some: self._rest.extend(Target(*uids) for uids in some),
                )
                return
        self._rest.clear()

    def stop(self) -> None:
        """Take over nothing more: instances cannot be had one by one."""
        self._rest.clear()

    def next(self, lanes: set[Lane]) -> tuple[Target, Lane] | None:
        """Return an instance to be asked for, and of which answer it is; None where there is none."""
        while self._rest and self._lane in lanes:
            target = self._rest.pop()
            uids = (target.study, target.series or "", target.instance or "")
            if self._lane is not None and not self._arrivals.has(uids):
                return target, self._lane
        self._rest.clear()
        return None
