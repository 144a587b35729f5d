"""Disk work in a thread, its errors, and cancellation while it runs."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from postdicom_async.disk.background import Background


class Slow:
    """Work that blocks its thread until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.started = threading.Event()
        self.go = threading.Event()
        self.ended = False

    def __call__(self) -> None:
        self.started.set()
        self.go.wait(10)
        self.ended = True
        if self.error is not None:
            raise self.error


async def test_runs_in_order_one_at_a_time() -> None:
    lane, seen = Background(), []
    for number in range(20):

        def work(number: int = number) -> None:
            time.sleep(0.001)
            seen.append(number)

        await lane.run(work)
    await lane.settle()
    assert seen == list(range(20))


async def test_the_caller_goes_on_meanwhile() -> None:
    lane, slow = Background(), Slow()
    await lane.run(slow)
    assert not slow.ended
    slow.go.set()
    await lane.settle()
    assert slow.ended


async def test_the_next_call_learns_of_the_error_and_does_not_run() -> None:
    lane, ran = Background(), []
    await lane.run(_raise)
    with pytest.raises(OSError, match="disk"):
        await lane.run(lambda: ran.append(1))
    assert ran == []
    await lane.settle()


async def test_settle_raises_the_error_once() -> None:
    lane = Background()
    await lane.run(_raise)
    with pytest.raises(OSError, match="disk"):
        await lane.settle()
    await lane.settle()
    await lane.finish()


async def test_finish_swallows_the_error() -> None:
    lane = Background()
    await lane.run(_raise)
    await lane.finish()
    await lane.settle()


async def test_done_is_called_after_success_only_and_in_the_loop() -> None:
    lane, told = Background(), []
    await lane.run(lambda: None, lambda: told.append(threading.current_thread()))
    assert told == []
    await lane.run(_raise, lambda: told.append(threading.current_thread()))
    assert told == [threading.main_thread()]
    await lane.finish()
    assert len(told) == 1


@pytest.mark.parametrize("error", [None, OSError("disk")])
async def test_cancellation_waits_for_the_thread(error: Exception | None) -> None:
    """What the work uses is closed only after the thread has let go of it."""
    slow = Slow(error)
    closed_while_running: list[bool] = []

    async def job() -> None:
        lane = Background()
        try:
            await lane.run(slow)
            await lane.settle()
        finally:
            await lane.finish()
            closed_while_running.append(not slow.ended)

    task = asyncio.create_task(job())
    await asyncio.to_thread(slow.started.wait, 10)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed_while_running == [False]


async def test_a_second_cancellation_does_not_hurry_it() -> None:
    slow = Slow()
    lane = Background()
    await lane.run(slow)
    task = asyncio.create_task(lane.finish())
    await asyncio.sleep(0.01)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.005)
        assert not task.done()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.ended


def _raise() -> None:
    raise OSError("disk")
