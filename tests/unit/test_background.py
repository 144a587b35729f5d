"""Disk work in a thread, its errors, and cancellation while it runs."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from postdicom_async.disk.files import in_background
from tests.support.slow_work import Slow


async def test_the_result_comes_from_a_thread() -> None:
    assert await in_background(threading.get_ident) != threading.get_ident()


async def test_the_event_loop_goes_on_meanwhile() -> None:
    slow = Slow()
    task = asyncio.create_task(in_background(slow))
    await asyncio.to_thread(slow.started.wait, 10)
    assert not task.done()
    slow.go.set()
    await task
    assert slow.ended


async def test_the_error_is_raised() -> None:
    with pytest.raises(OSError, match="disk"):
        await in_background(_raise)


@pytest.mark.parametrize("error", [None, OSError("disk")])
async def test_cancellation_waits_for_the_thread(error: Exception | None) -> None:
    """What the work uses is closed only after the thread has let go of it, however often it is cancelled."""
    slow = Slow(error)
    closed_while_running: list[bool] = []

    async def job() -> None:
        try:
            await in_background(slow)
        finally:
            closed_while_running.append(not slow.ended)

    task = asyncio.create_task(job())
    await asyncio.to_thread(slow.started.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.005)
        assert not task.done()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed_while_running == [False]


async def test_a_cancelled_scope_waits_too() -> None:
    slow = Slow()
    threading.Timer(0.05, slow.go.set).start()
    with anyio.move_on_after(0.01) as scope:
        await in_background(slow)
    assert scope.cancelled_caught
    assert slow.ended


def _raise() -> None:
    raise OSError("disk")
