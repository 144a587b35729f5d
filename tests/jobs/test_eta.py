"""Time left: right after a resume too, not misled by pauses, and silent where it is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postdicom_async.jobs.pages.eta import Eta, Forecast
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Count, MinuteLine, Summary
from tests.jobs.summaries import START, facts

BEGIN = START.timestamp()


def job(done: int, left: int, *, seconds: float, phase: str = "moving", **more: object) -> Summary:
    counts = {State.DONE: Count(done, done * 1000), State.PENDING: Count(left, left * 1000)}
    made = Summary(facts(phase=phase), counts, discovery_complete=True, seconds=seconds)
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_steady_job() -> None:
    eta = Eta()
    for at in range(0, 100, 2):
        pace = eta.note(job(at * 10, 10_000 - at * 10, seconds=at), BEGIN + at)
    assert pace.instances == pytest.approx(600)
    assert pace.bytes == pytest.approx(600_000)
    assert pace.seconds == pytest.approx((10_000 - 980) / 10)
    assert pace.fraction == pytest.approx(0.098)


def test_what_was_done_before_a_resume_does_not_count() -> None:
    """900,000 were moved within a minute of noting; the rate is what this run makes."""
    eta = Eta()
    for at in range(0, 20, 2):
        pace = eta.note(job(900_000 + at * 5, 100_000 - at * 5, seconds=50_000 + at), BEGIN + at)
    assert pace.seconds == pytest.approx((100_000 - 90) / 5)
    assert pace.fraction == pytest.approx(0.90009)


def test_the_first_look_uses_the_ledgers_minutes() -> None:
    moments = tuple(MinuteLine(BEGIN + at * 60, 120, 120_000) for at in range(30))
    pace = Eta().note(job(3600, 1200, seconds=1800, moments=moments), BEGIN + 30 * 60)
    assert pace.seconds == pytest.approx(600)


def test_a_minute_that_is_not_over_counts_as_far_as_it_is() -> None:
    moments = (*(MinuteLine(BEGIN + at * 60, 120, 120_000) for at in range(9)), MinuteLine(BEGIN + 540, 20, 20_000))
    pace = Eta().note(job(1100, 1200, seconds=550, moments=moments), BEGIN + 550)
    assert pace.instances == pytest.approx(120)
    only = Eta().note(job(20, 100, seconds=4, moments=(MinuteLine(BEGIN, 20, 20_000),)), BEGIN + 58)
    assert only.seconds == pytest.approx(20)  # it was begun in the middle of that minute


def test_a_night_of_waiting_changes_nothing() -> None:
    eta = Eta()
    for at in range(0, 60, 2):
        before = eta.note(job(at * 10, 10_000 - at * 10, seconds=at), BEGIN + at)
    for at in range(60, 30_000, 600):
        after = eta.note(job(580, 9420, seconds=58), BEGIN + at)
    assert after == before
    moments = (
        MinuteLine(BEGIN, 600, 600_000),
        MinuteLine(BEGIN + 60, 600, 600_000),
        MinuteLine(BEGIN + 40_000, 600, 600_000),
    )
    resumed = Eta().note(job(1800, 600, seconds=180, moments=moments), BEGIN + 40_060)
    assert resumed.seconds == pytest.approx(60)


def test_a_slower_pace_is_noticed() -> None:
    eta = Eta()
    done = 0
    for at in range(1200):
        done += 10 if at < 600 else 1
        pace = eta.note(job(done, 100_000 - done, seconds=at), BEGIN + at)
    assert pace.instances == pytest.approx(60)


def test_nothing_is_said_that_is_not_known() -> None:
    eta = Eta()
    assert eta.note(job(0, 100, seconds=0), BEGIN) == Forecast(0.0, None)
    for at in range(0, 60, 2):
        pace = eta.note(job(at, 100, seconds=at, discovery_complete=False), BEGIN + at)
    assert (pace.fraction, pace.seconds) == (None, None)
    assert pace.instances == pytest.approx(60)
    assert Eta().note(Summary(facts(phase="discovering"), {}), BEGIN) == Forecast()


def test_what_is_not_planned_yet_is_to_be_done_too() -> None:
    eta = Eta()
    for at in range(0, 60, 2):
        pace = eta.note(job(at * 10, 0, seconds=at, expected=1000), BEGIN + at)
    assert pace.seconds == pytest.approx(100)
    assert pace.fraction == pytest.approx(580 / 1580)


def test_a_job_that_stands_still_has_no_time_left() -> None:
    eta = Eta()
    for at in range(0, 1000, 10):
        pace = eta.note(job(50, 50, seconds=at), BEGIN + at)
    assert pace.seconds is None


def test_failed_ones_that_are_to_be_done_again_are_no_work_undone() -> None:
    eta = Eta()
    for at in range(0, 60, 2):
        eta.note(job(at * 10, 1000, seconds=at), BEGIN + at)
    assert eta.note(job(300, 1280, seconds=60), BEGIN + 60).instances >= 0
    for at in range(62, 80, 2):
        pace = eta.note(job(300 + (at - 60) * 10, 1280 - (at - 60) * 10, seconds=at), BEGIN + at)
    assert pace.instances == pytest.approx(600)


def test_what_was_there_before_is_no_pace() -> None:
    """A million found to be at the target already must not promise the end in a moment."""
    eta = Eta()
    for at in range(0, 60, 2):
        there = {State.PRESENT: Count(at * 50_000), State.DONE: Count(at), State.PENDING: Count(1000 - at)}
        pace = eta.note(job(0, 0, seconds=at, counts=there), BEGIN + at)
    assert pace.instances == pytest.approx(60)


def test_large_ones_that_are_left_take_longer() -> None:
    eta = Eta()
    for at in range(0, 60, 2):
        counts = {State.DONE: Count(at, at * 1000), State.PENDING: Count(100, 100 * 10_000)}
        pace = eta.note(job(0, 0, seconds=at, counts=counts), BEGIN + at)
    assert pace.seconds == pytest.approx(1000)


@pytest.mark.parametrize("verified", [0, 1, 50, 100, 150])
def test_never_more_than_all_of_it(verified: int) -> None:
    pace = Eta().note(job(100, 0, seconds=10, phase="verifying", verified=verified), BEGIN)
    assert pace.fraction == min(1.0, verified / 100)


def test_verifying_has_a_pace_of_its_own() -> None:
    eta = Eta()
    for at in range(0, 60, 2):
        eta.note(job(at * 100, 5900 - at * 100, seconds=at), BEGIN + at)
    for at in range(60, 90, 2):
        pace = eta.note(job(5900, 0, seconds=at, phase="verifying", verified=(at - 60) * 10), BEGIN + at)
    assert pace.instances == pytest.approx(600)
    assert pace.seconds == pytest.approx((5900 - 280) / 10)
    assert pace.fraction == pytest.approx(280 / 5900)
    assert eta.note(job(5900, 0, seconds=90, phase="complete"), BEGIN + 90) == Forecast(1.0, 0.0)
