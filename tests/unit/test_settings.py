"""Settings that make no sense are refused where they are made, by name."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from postdicom_async import Limits, Retry, Settings, Timeouts, Tls, UsageError

WRONG: list[Any] = [-1, math.nan, "5", None, True, [1]]


def message(make: Any, *arguments: Any, **values: Any) -> str:
    with pytest.raises(UsageError) as caught:
        make(*arguments, **values)
    return str(caught.value)


@pytest.mark.parametrize("name", [one.name for one in fields(Timeouts) if one.name != "least_rate"])
@pytest.mark.parametrize("value", [*WRONG, 0, math.inf])
def test_timeouts(name: str, value: Any) -> None:
    if name == "deadline" and value is None:
        assert Timeouts(deadline=None).deadline is None
        return
    assert message(Timeouts, **{name: value}) == f"timeouts.{name}: give a number of seconds above 0"


@pytest.mark.parametrize("value", [*WRONG, math.inf])
def test_the_least_rate(value: Any) -> None:
    given = message(Timeouts, least_rate=value)
    assert given == "timeouts.least_rate: give a number of bytes a second, 0 for no limit"


@pytest.mark.parametrize("name", [one.name for one in fields(Retry)])
@pytest.mark.parametrize("value", WRONG)
def test_retry(name: str, value: Any) -> None:
    least = 1 if name in ("max_attempts", "max_silences") else 0
    assert message(Retry, **{name: value}) == f"retry.{name}: give a number from {least} on"


@pytest.mark.parametrize(("name", "value"), [("max_attempts", 0), ("max_attempts", 1.5), ("budget", 0.5)])
def test_retry_counts(name: str, value: Any) -> None:
    assert message(Retry, **{name: value}).startswith(f"retry.{name}: ")


@pytest.mark.parametrize("name", [one.name for one in fields(Limits)])
@pytest.mark.parametrize("value", [*WRONG, 0, 1.5, math.inf])
def test_limits(name: str, value: Any) -> None:
    assert message(Limits, **{name: value}) == f"limits.{name}: give a number from 1 on"


@pytest.mark.parametrize("name", ["timeouts", "retry", "limits", "tls"])
@pytest.mark.parametrize("value", [5, None, {}, Settings])
def test_members(name: str, value: Any) -> None:
    assert message(Settings, **{name: value}) == f"{name}: give {name.capitalize()}(...)"


def test_a_copy_is_checked_too() -> None:
    assert message(replace, Limits(), connections=0) == "limits.connections: give a number from 1 on"


def test_the_least_that_is_taken() -> None:
    Timeouts(connect=1, idle_write=0.001, least_rate=0)
    Retry(max_attempts=1, max_seconds=0, base=0, cap=0.0, max_retry_after=0, budget=0)
    Limits(**{one.name: 1 for one in fields(Limits)})
    Settings(Timeouts(), Retry(), Limits(), Tls())


def test_the_seconds_that_the_documents_name() -> None:
    """When one request to a slow archive ends by default, and a call that meets only silence."""
    timeouts, row = Timeouts(), Retry().max_silences
    assert (timeouts.connect + timeouts.search_answer, timeouts.connect + timeouts.answer) == (75, 315)
    assert (timeouts.answer, timeouts.answer + timeouts.idle_write) == (300, 360)
    assert (timeouts.idle_read, timeouts.idle_write, timeouts.least_rate_window) == (60, 60, 60)
    assert (timeouts.least_rate, timeouts.deadline) == (1024, None)
    assert [row * seconds / 60 for seconds in (75, 60, 315, 360)] == [3.75, 3, 15.75, 18]
