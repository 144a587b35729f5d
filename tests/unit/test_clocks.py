"""The clock that all waits of a session share."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from postdicom_async.http.clocks import Clock, ReadWatch, Watch


async def waits(watch: Watch, seconds: float) -> str:
    try:
        with watch:
            watch.expect(time.monotonic() + seconds)
            await asyncio.sleep(5)
    except TimeoutError:
        return "late"
    return "done"


async def test_each_wait_ends_at_its_own_moment() -> None:
    clock, started = Clock(), time.monotonic()
    ends: dict[float, float] = {}

    async def one(seconds: float) -> None:
        assert await waits(Watch(clock), seconds) == "late"
        ends[seconds] = time.monotonic() - started

    await asyncio.gather(one(0.3), one(0.1), one(0.2), one(0.1))
    assert all(taken >= seconds for seconds, taken in ends.items())
    assert list(ends) == sorted(ends)
    assert not clock.waits


async def test_one_timer_for_a_thousand_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), 0
    call_later = loop.call_later

    def counted(delay: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += delay > 1
        return call_later(delay, *rest, **options)

    monkeypatch.setattr(loop, "call_later", counted)
    clock = Clock()
    watches = [ReadWatch(clock, 60.0) for _ in range(10)]
    for _ in range(100):
        for watch in watches:
            with watch:
                await asyncio.sleep(0)
    clock.close()
    assert timers == 1


async def test_a_wait_that_moves_on_is_not_ended() -> None:
    watch = Watch(Clock())
    with watch:
        for _ in range(10):
            watch.expect(time.monotonic() + 0.2)
            await asyncio.sleep(0.05)


async def test_what_is_paused_is_not_ended() -> None:
    clock, watch = Clock(), None
    watch = Watch(clock)
    with watch:
        watch.expect(time.monotonic() + 0.05)
        watch.pause()
        await asyncio.sleep(0.15)
        watch.expect(time.monotonic() + 60)
    assert await waits(watch, 0.05) == "late"
    clock.close()


async def test_a_wait_that_is_over_ends_nothing_later() -> None:
    watch = Watch(Clock())
    with watch:
        watch.expect(time.monotonic() + 0.05)
    await asyncio.sleep(0.15)


async def test_a_cancellation_of_somebody_elses_goes_through() -> None:
    task = asyncio.create_task(waits(Watch(Clock()), 0.05))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_closed_clock_leaves_no_timer() -> None:
    clock = Clock()
    with Watch(clock) as _:
        clock.ring(time.monotonic() + 3600)
    clock.close()
    clock.ring(time.monotonic() + 0.01)
    await asyncio.sleep(0.05)
