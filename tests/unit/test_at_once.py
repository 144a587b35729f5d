"""Work on several items at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest

from postdicom_async.transfer.at_once import for_each
from tests.support.virtual_time import in_virtual_time


class Items:
    """Numbers on demand, counting how many were drawn."""

    def __init__(self, count: int, *, fails_at: int | None = None) -> None:
        self.count = count
        self.fails_at = fails_at
        self.drawn = 0

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(self.count):
            await asyncio.sleep(0)
            if number == self.fails_at:
                raise LookupError("items")
            self.drawn += 1
            yield number


class Work:
    """Notes what ran, and how much of it at a time."""

    def __init__(self, *, fails_at: int | None = None, slow: bool = False) -> None:
        self.fails_at = fails_at
        self.slow = slow
        self.done: list[int] = []
        self.cancelled: list[int] = []
        self.running = self.most = 0

    async def __call__(self, number: int) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(3600 if self.slow and number != self.fails_at else 0.001)
            if number == self.fails_at:
                raise KeyError(number)
            self.done.append(number)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        finally:
            self.running -= 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 50])
@pytest.mark.parametrize("at_once", [1, 3, 100])
async def test_every_item_once_and_never_more_than_allowed(count: int, at_once: int) -> None:
    work = Work()
    await for_each(aiter(Items(count)), work, at_once=at_once)
    assert sorted(work.done) == list(range(count))
    assert work.most <= at_once
    assert work.running == 0


def test_an_item_is_drawn_only_when_there_is_room() -> None:
    async def run() -> None:
        items, work = Items(10), Work(slow=True)
        task = asyncio.create_task(for_each(aiter(items), work, at_once=3))
        await asyncio.sleep(60)
        assert items.drawn == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(work.cancelled) == [0, 1, 2]

    in_virtual_time(run)


async def test_the_first_exception_ends_the_rest_and_comes_out_plain() -> None:
    work = Work(fails_at=1, slow=True)
    with pytest.raises(KeyError) as caught:
        await for_each(aiter(Items(10)), work, at_once=4)
    assert caught.value.args == (1,)
    assert work.running == 0
    assert 1 not in work.cancelled


async def test_an_exception_of_the_items_comes_out_plain() -> None:
    work = Work(slow=True)
    with pytest.raises(LookupError, match="items"):
        await for_each(aiter(Items(10, fails_at=2)), work, at_once=4)
    assert sorted(work.cancelled) == [0, 1]


async def test_one_at_a_time_keeps_the_order() -> None:
    work = Work()
    await for_each(aiter(Items(20)), work, at_once=1)
    assert work.done == list(range(20))


# --- a limit that changes ---------------------------------------------------------------------------------------------


class Changing:
    """A limit that the test sets."""

    def __init__(self, now: int) -> None:
        self.now = now


def test_a_limit_that_rises_while_nothing_ends() -> None:
    async def run() -> None:
        limit, items, work = Changing(1), Items(10), Work(slow=True)
        task = asyncio.create_task(for_each(aiter(items), work, at_once=limit))
        await asyncio.sleep(60)
        assert work.running == 1
        limit.now = 4
        await asyncio.sleep(1)
        assert (work.running, items.drawn) == (4, 4)
        await asyncio.sleep(60)
        assert (work.running, items.drawn) == (4, 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_virtual_time(run)


async def test_when_a_limit_falls_what_runs_goes_on() -> None:
    limit = Changing(5)
    ran_with: list[int] = []
    running = 0
    all_five = asyncio.Event()

    async def work(number: int) -> None:
        nonlocal running
        running += 1
        ran_with.append(running)
        if number == 4:
            limit.now = 2
            all_five.set()
        await all_five.wait()
        await asyncio.sleep(0.01)
        running -= 1

    await for_each(aiter(Items(30)), work, at_once=limit)
    assert len(ran_with) == 30
    assert ran_with[:5] == [1, 2, 3, 4, 5]
    assert max(ran_with[5:]) == 2


async def test_all_items_are_drawn_by_the_task_that_asks_for_them() -> None:
    """What a generator has entered, a time-out or a group of tasks, belongs to one task."""
    drawing: set[object] = set()

    async def items() -> AsyncIterator[int]:
        async with anyio.create_task_group():
            for number in range(30):
                drawing.add(asyncio.current_task())
                await asyncio.sleep(0.001 * (number % 3))
                yield number

    work = Work()
    await for_each(items(), work, at_once=4)
    assert sorted(work.done) == list(range(30))
    assert drawing == {asyncio.current_task()}


async def test_work_that_is_cancelled_by_itself_is_no_end_like_any_other() -> None:
    """Its item is not through: whoever asked would take it for done, or ask for it for ever."""

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        if number == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await for_each(aiter(Items(10)), work, at_once=2)
    with anyio.move_on_after(0.01) as scope:
        await for_each(aiter(Items(10)), Work(slow=True), at_once=2)
    assert scope.cancelled_caught
