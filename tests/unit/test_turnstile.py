"""A gate that several callers share: first come, first served, and every turn comes back."""

from __future__ import annotations

import asyncio

import pytest

from postdicom_async.transfer.at_once import Turnstile


class Level:
    """A limit that a test sets."""

    def __init__(self, now: int) -> None:
        self.now: int = now


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Line:
    """Callers that wait at a gate, by number."""

    def __init__(self, gate: Turnstile, size: int) -> None:
        self.inside: list[int] = []
        self._gate = gate
        self.tasks = [asyncio.ensure_future(self._wait(number)) for number in range(size)]

    async def _wait(self, number: int) -> None:
        await self._gate.take()
        self.inside.append(number)


async def test_first_come_first_served_and_no_more_than_the_limit() -> None:
    gate = Turnstile(Level(2))
    line = Line(gate, 5)
    await settled()
    assert line.inside == [0, 1]
    gate.give_back()
    await settled()
    assert line.inside == [0, 1, 2]
    for _ in range(4):
        gate.give_back()
    await settled()
    assert line.inside == [0, 1, 2, 3, 4]


async def test_a_limit_that_rises_lets_more_in_and_one_that_falls_nobody() -> None:
    level = Level(1)
    gate = Turnstile(level)
    line = Line(gate, 5)
    await settled()
    level.now = 3
    gate.look()
    await settled()
    assert line.inside == [0, 1, 2]
    level.now = 1
    gate.give_back()
    gate.give_back()
    await settled()
    assert line.inside == [0, 1, 2]
    gate.give_back()
    await settled()
    assert line.inside == [0, 1, 2, 3]
    gate.give_back()
    await asyncio.wait(line.tasks)


@pytest.mark.parametrize("at_the_same_moment", [False, True])
async def test_who_is_cancelled_takes_no_turn_away(at_the_same_moment: bool) -> None:
    gate = Turnstile(Level(1))
    line = Line(gate, 3)
    await settled()
    assert line.inside == [0]
    if at_the_same_moment:
        gate.give_back()  # to 1, which is cancelled before it knows
        line.tasks[1].cancel()
    else:
        line.tasks[1].cancel()
        await settled()
        gate.give_back()
    await settled()
    assert line.inside == [0, 2]
    assert line.tasks[1].cancelled()
    gate.give_back()
    await asyncio.wait_for(gate.take(), 1)
