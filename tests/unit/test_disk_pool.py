"""Threads that make files durable: some at a time, what waits is bounded, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator

import pytest

from postdicom_async.transfer import sinks as pool_module
from postdicom_async.transfer.sinks import DiskPool, shared_pool
from tests.support.slow_work import Slow

Told = list[BaseException | None]


@pytest.fixture
async def pool() -> AsyncIterator[DiskPool]:
    with shared_pool() as pool:
        yield pool


async def until(told: Told, count: int) -> None:
    async with asyncio.timeout(20):
        while len(told) < count:
            await asyncio.sleep(0.001)


async def test_as_many_at_once_as_it_says_and_never_more(pool: DiskPool) -> None:
    lock, running, most, told = threading.Lock(), 0, 0, Told()
    together = threading.Barrier(pool_module.AT_ONCE, timeout=20)  # as many must be there for any to go on

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1

    for _ in range(96):
        pool.start(work, told.append)
    await until(told, 96)
    assert most == pool_module.AT_ONCE == 8
    assert told == [None] * 96


async def test_the_event_loop_goes_on_while_all_threads_are_busy(pool: DiskPool) -> None:
    works, told = [Slow() for _ in range(20)], Told()
    for work in works:
        pool.start(work, told.append)
    await asyncio.sleep(0.02)
    assert told == []
    for work in works:
        work.go.set()
    await until(told, 20)
    assert all(work.ended for work in works)


async def test_each_learns_of_its_own_error_and_in_the_event_loop(pool: DiskPool) -> None:
    told: dict[int, tuple[BaseException | None, int]] = {}
    works = [Slow(error) for error in (None, OSError("disk"), KeyboardInterrupt(), None)]
    for number, work in enumerate(works):
        work.go.set()
        pool.start(
            work,
            lambda problem, number=number: told.update({number: (problem, threading.get_ident())}),  # type: ignore[misc]
        )
    async with asyncio.timeout(20):
        while len(told) < 4:
            await asyncio.sleep(0.001)
    assert [told[number][0] for number in range(4)] == [work.error for work in works]
    assert {thread for _, thread in told.values()} == {threading.get_ident()}


async def test_none_is_forgotten_whenever_it_is_given(pool: DiskPool) -> None:
    """Threads run out of work and are given more in the same moment."""
    told, rng = Told(), random.Random(1)
    for number in range(3000):
        pool.start(lambda: None, told.append)
        if rng.random() < 0.3:
            await asyncio.sleep(0)
        if number % 500 == 0:
            await until(told, number + 1)
    await until(told, 3000)


async def test_room_is_waited_for_until_bytes_are_released(pool: DiskPool) -> None:
    await pool.room()
    pool.hold(pool_module.MOST_BYTES)
    assert pool.is_full()
    waiting = [asyncio.create_task(pool.room()) for _ in range(3)]
    await asyncio.sleep(0.005)
    assert not any(task.done() for task in waiting)
    pool.release(1)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert not pool.is_full()


async def test_one_pool_for_an_event_loop_whose_threads_end_with_the_last_user() -> None:
    def threads() -> int:
        return sum(thread.name.startswith("postdicom-disk") for thread in threading.enumerate())

    told = Told()
    with shared_pool() as pool:
        with shared_pool() as other:
            assert other is pool
        pool.start(lambda: None, told.append)
        await until(told, 1)
        assert threads() == 1
    async with asyncio.timeout(5):
        while threads():
            await asyncio.sleep(0.001)
    with shared_pool() as later:
        assert later is not pool


@pytest.mark.parametrize("allowed", [0, 1, 3])
async def test_where_the_system_gives_few_threads_or_none_the_work_is_done_all_the_same(
    allowed: int, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may allow no more; nobody is left to wait for what no thread will do."""
    real, left = threading.Thread.start, [allowed]

    def start(thread: threading.Thread) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    done, told = [0], Told()

    def work() -> None:
        time.sleep(0.0005)
        done[0] += 1

    for _ in range(3):
        for _ in range(40):
            pool.start(work, told.append)
        await asyncio.sleep(0.005)
    await until(told, 120)
    assert done == [120]
