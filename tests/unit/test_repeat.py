"""The one loop: what a policy may say after each attempt, and what the loop makes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.errors import ConnectionFailed, ServerError
from postdicom_async.http.problems import Problem
from postdicom_async.http.repeat import Policy, RetryBudget, repeat
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.settings import Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Time:
    """Virtual time: sleeping takes none."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    home = "postdicom_async.http.repeat"
    monkeypatch.setattr(f"{home}.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(f"{home}.anyio", SimpleNamespace(sleep=clock.sleep))
    monkeypatch.setattr(f"{home}.random", SimpleNamespace(random=lambda: 0.5))
    return clock


def problem(failure: Failure = Failure.LOST, retry_after: float | None = None) -> Problem:
    return Problem(failure, ConnectionFailed("cut"), retry_after=retry_after)


def policy(budget: int = 100, kind: Repeat = Repeat.READ, *, waits_only: bool = False, **retry: Any) -> Policy:
    return Policy("search", kind, Retry(**{"base": 1.0, **retry}), RetryBudget(budget), waits_only=waits_only)


def failing(*ends: Problem | str, clock: Time | None = None, takes: float = 0.0) -> Callable[[], Awaitable[str]]:
    left = list(ends)

    async def attempt() -> str:
        if clock is not None:
            clock.now += takes
        end = left.pop(0)
        if isinstance(end, Problem):
            raise end
        return end

    return attempt


async def test_it_backs_off_and_returns_what_an_attempt_returns(clock: Time) -> None:
    asked = policy()
    assert await repeat(failing(problem(), problem(), problem(retry_after=7), "found"), asked) == "found"
    assert clock.slept == [0.5, 1.0, 7.5]
    assert asked.made == 4


async def test_the_last_problem_is_raised_with_the_attempts(clock: Time) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        await repeat(failing(*[problem()] * 3), policy(max_attempts=3))
    assert caught.value.attempts == 3
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("waits_only", "made"), [(False, 2), (True, 5)])
async def test_attempts_count_against_the_time_or_only_waits_do(waits_only: bool, made: int, clock: Time) -> None:
    asked = policy(max_seconds=100.0, max_attempts=5, waits_only=waits_only)
    with pytest.raises(ConnectionFailed):
        await repeat(failing(*[problem()] * 5, clock=clock, takes=60.0), asked)
    assert asked.made == made


async def test_the_budget_is_shared_and_earned_back(clock: Time) -> None:
    budget = RetryBudget(2)

    def asked() -> Policy:
        return Policy("search", Repeat.READ, Retry(), budget)

    assert await repeat(failing(problem(), problem(), "found"), asked()) == "found"
    with pytest.raises(ConnectionFailed) as caught:
        await repeat(failing(problem()), asked())
    assert caught.value.attempts == 1
    for _ in range(10):
        assert await repeat(failing("found"), asked()) == "found"
    assert await repeat(failing(problem(), "found"), asked()) == "found"


async def test_what_was_mended_is_tried_at_once(clock: Time) -> None:
    class Mends(Policy):
        async def mend(self, problem: Problem) -> Problem | None:
            return None if self.made == 1 else Problem(Failure.FINAL, ServerError("another"))

    with pytest.raises(ServerError, match="another"):
        await repeat(failing(problem(), problem()), Mends("search", Repeat.CHANGE, Retry(), RetryBudget(0)))
    assert clock.slept == []


async def test_what_is_no_problem_goes_through(clock: Time) -> None:
    async def attempt() -> str:
        raise ServerError("final")

    with pytest.raises(ServerError, match="final"):
        await repeat(attempt, policy())
    assert clock.slept == []
