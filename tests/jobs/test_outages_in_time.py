"""A job of many chunks through outages, pauses and closed windows, in virtual time and with the engine's own parts."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from postdicom_async import AuthenticationFailed, ConnectionFailed, PostdicomError
from postdicom_async.jobs.context import Context, JobOptions
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.pace.outages import Outages
from postdicom_async.jobs.pace.pace import Pace
from tests.support.virtual_time import in_virtual_time

HOUR = 3600.0
NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
AT_ONCE = 6


def moment() -> float:
    return asyncio.get_running_loop().time()


class World:
    """An archive that works at some moments, and a job that moves chunks there as `moving.Moving` does.

    Attributes:
        requests: when each was made, those for probes among them.
        probes: when one was made.
        done: when a chunk was done.
        counted: chunks that failed and were to count as an attempt.
    """

    name = "far"

    def __init__(
        self, works: Callable[[float], bool], *, patience: float = 12 * HOUR, windows: str = "", seconds: float = 1.0
    ) -> None:
        self.requests: list[float] = []
        self.probes: list[float] = []
        self.done: list[float] = []
        self.counted = 0
        self.seconds = seconds  # that a request takes
        self.works = works
        self.problem: Callable[[], PostdicomError] = lambda: ConnectionFailed("gone")
        self.pace = Pace(windows=windows, clock=moment, now=lambda: NOON + timedelta(seconds=moment()))
        self.notes: list[str] = []
        self.outages = Outages(
            cast("Any", self),  # it is only probed
            patience=OutagePatience(outage=patience),
            tell=self.notes.append,
            gate=self.pace.wait_until_open,
            clock=moment,
            chance=random.Random(4).random,
        )

    async def probe(self) -> None:
        self.probes.append(moment())
        await self._request(1)

    async def _request(self, attempts: int) -> None:
        self.requests += [moment()] * (1 if self.works(moment()) else attempts)
        await asyncio.sleep(self.seconds)
        if not self.works(moment()):
            raise self.problem()

    async def move(self, chunks: int) -> None:
        waiting = deque(range(chunks))

        async def worker() -> None:
            while waiting:
                chunk = waiting.popleft()
                await self.pace.wait_until_open()
                await self.outages.clear()
                problem: PostdicomError | None = None
                try:
                    await self._request(5)
                except PostdicomError as error:
                    problem = error
                if problem is None:
                    self.outages.succeeded(cast("Any", self))
                    self.done.append(moment())
                    continue
                self.counted += not await self.outages.outlasted(cast("Any", self), problem)
                waiting.appendleft(chunk)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())


def test_ten_hours_without_an_archive() -> None:
    async def work() -> None:
        begins, ends = 100.0, 100.0 + 10 * HOUR
        world = World(lambda now: not begins <= now < ends)
        await world.move(10_000)
        assert len(world.done) == 10_000
        assert world.counted == 0
        in_it = [at for at in world.requests if begins <= at < ends]
        assert len(in_it) <= 2 * 10 * HOUR / 300 + 10 + 5 * AT_ONCE
        assert min(at for at in world.done if at >= ends) <= ends + 300 + 5, "noticed within one step"
        assert world.done[-1] <= ends + 300 + 10 + 10_000 / AT_ONCE, "and all of them go on"
        assert len(world.notes) == 2

    in_virtual_time(work)


def test_ten_minutes_of_it_are_at_most_200_requests() -> None:
    async def work() -> None:
        world = World(lambda _: False)
        moving = asyncio.create_task(world.move(10_000))
        await asyncio.sleep(600)
        moving.cancel()
        await asyncio.wait([moving])
        assert len(world.requests) <= 200
        assert world.counted == 0

    in_virtual_time(work)


def test_nobody_is_asked_while_the_windows_are_closed_and_that_uses_up_no_patience() -> None:
    async def work() -> None:
        gone, back, closed, opens = 17.8 * HOUR, 19 * HOUR, 18 * HOUR, 32 * HOUR  # 5:48, 7:00, 6:00 and 20:00
        world = World(lambda now: not gone <= now < back, patience=2 * HOUR, windows="20:00-06:00 UTC", seconds=60)
        await world.move(5_000)
        assert len(world.done) == 5_000
        assert world.counted == 0
        assert world.done[0] >= 8 * HOUR
        # What was under way at six came to its end; the next question is at eight in the evening.
        assert [at for at in world.requests if closed < at < opens - 0.01] == []
        assert min(at for at in world.done if at > closed + 60) <= opens + 121, "a question, and the work"

    in_virtual_time(work)


def test_an_outage_that_lasts_after_the_windows_open_again_has_all_patience_then() -> None:
    async def work() -> None:
        world = World(lambda now: now < 17.8 * HOUR, patience=2 * HOUR, windows="20:00-06:00 UTC", seconds=60)
        with pytest.raises(ExceptionGroup) as raised:
            await world.move(5_000)
        assert raised.group_contains(ConnectionFailed)
        assert 34 * HOUR <= moment() <= 34 * HOUR + 600

    in_virtual_time(work)


def test_a_job_that_is_paused_in_an_outage_asks_nothing() -> None:
    async def work() -> None:
        world = World(lambda now: now < 100 or now > 50 * HOUR, patience=12 * HOUR)
        moving = asyncio.create_task(world.move(1_000))
        await asyncio.sleep(HOUR)
        world.pace.pause()
        await asyncio.sleep(600)
        before = len(world.requests)
        await asyncio.sleep(60 * HOUR)
        assert len(world.requests) == before
        world.pace.resume()
        await moving
        assert len(world.done) == 1_000
        assert world.counted == 0

    in_virtual_time(work)


def test_a_password_that_was_changed_ends_it_after_one_question() -> None:
    async def work() -> None:
        world = World(lambda now: now < 100)
        world.problem = lambda: AuthenticationFailed("401")
        with pytest.raises(ExceptionGroup) as raised:
            await world.move(10_000)
        assert raised.group_contains(AuthenticationFailed)
        assert len(world.probes) == 1
        assert world.counted == 0
        assert moment() <= 105

    in_virtual_time(work)


def test_an_outage_while_an_end_is_listed_is_over_when_it_lists_again() -> None:
    """Else one that comes hours later would be the same outage, and patience used up by what worked between."""

    async def work() -> None:
        world = World(lambda now: now < 50 or 1000 <= now < 15 * HOUR or now >= 15 * HOUR + 100, patience=HOUR)
        context = Context(
            cast("Any", None), cast("Any", world), cast("Any", world), JobOptions("copy"), world.outages, print
        )
        seen: list[list[int]] = []

        async def pages() -> AsyncGenerator[list[int], None]:
            for page in range(60 if len(seen) > 90 else 1800):
                await world._request(5)
                if page > 50:
                    await asyncio.sleep(60)
                yield [page]

        async for page in context.listing(cast("Any", world), pages):
            seen.append(page)
            assert not world.outages.lasts
        assert moment() > 15 * HOUR
        assert len(world.notes) == 4

    in_virtual_time(work)
