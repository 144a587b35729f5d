"""The clock that all waits of a session share, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from postdicom_async.http import exchange
from postdicom_async.http.exchange import Clock, ReadWatchdog, Watchdog
from tests.support.virtual_time import in_virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture(autouse=True)
def _virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "monotonic", now)


async def waits(watch: Watchdog, seconds: float) -> str:
    try:
        with watch:
            watch.expect(now() + seconds)
            await asyncio.sleep(5)
    except TimeoutError:
        return "late"
    return "done"


def test_each_wait_ends_at_its_own_moment() -> None:
    ends: list[tuple[float, float]] = []

    async def work() -> None:
        clock = Clock()

        async def one(seconds: float) -> None:
            assert await waits(Watchdog(clock), seconds) == "late"
            ends.append((seconds, now()))

        await asyncio.gather(one(3), one(1), one(2), one(1))
        assert not clock.waits

    in_virtual_time(work)
    assert [seconds for seconds, _ in ends] == [1, 1, 2, 3]
    assert all(ended == pytest.approx(seconds) for seconds, ended in ends)


async def test_one_timer_for_a_thousand_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), 0
    call_later = loop.call_later

    def counted(delay: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += delay > 1
        return call_later(delay, *rest, **options)

    monkeypatch.setattr(loop, "call_later", counted)
    clock = Clock()
    watches = [ReadWatchdog(clock, 60.0) for _ in range(10)]
    for _ in range(100):
        for watch in watches:
            with watch:
                await asyncio.sleep(0)
    clock.close()
    assert timers == 1


def test_a_wait_that_moves_on_is_not_ended() -> None:
    async def work() -> None:
        watch = Watchdog(Clock())
        with watch:
            for _ in range(10):
                watch.expect(now() + 2)
                await asyncio.sleep(1.9)

    in_virtual_time(work)


def test_what_is_paused_is_not_ended() -> None:
    async def work() -> None:
        watch = Watchdog(Clock())
        with watch:
            watch.expect(now() + 1)
            watch.pause()
            await asyncio.sleep(3)
            watch.expect(now() + 60)
        assert await waits(watch, 1) == "late"

    in_virtual_time(work)


def test_a_wait_that_is_over_ends_nothing_later() -> None:
    async def work() -> None:
        watch = Watchdog(Clock())
        with watch:
            watch.expect(now() + 1)
        await asyncio.sleep(3)

    in_virtual_time(work)


async def test_a_cancellation_of_somebody_elses_goes_through() -> None:
    task = asyncio.create_task(waits(Watchdog(Clock()), 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_closed_clock_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def kept(*rest: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*rest, **options))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", kept)
    clock = Clock()
    clock.ring(now() + 3600)
    clock.ring(now() + 60)
    assert [timer.cancelled() for timer in timers] == [True, False]
    clock.close()
    assert [timer.cancelled() for timer in timers] == [True, True]
