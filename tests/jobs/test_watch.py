"""A job on a terminal: the same numbers, at any width, and no letter that a terminal would obey."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from postdicom_async.jobs.pages.eta import Forecast
from postdicom_async.jobs.pages.figures import count
from postdicom_async.jobs.pages.terminal import draw, line
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Count, MonthLine, Summary
from tests.jobs.summaries import HOSTILE, big, hostile, small

PACE = Forecast(0.3, 8100.0, 1200.0, 60_000_000.0)


def drawn(summary: Summary, pace: Forecast = PACE, width: int = 80) -> str:
    sheet = io.StringIO()
    Console(file=sheet, width=width, markup=False, emoji=False, highlight=False).print(draw(summary, pace, width))
    return sheet.getvalue()


@pytest.mark.parametrize("width", [30, 44, 60, 80, 120, 250])
def test_the_numbers_at_any_width(width: int) -> None:
    summary = big()

    text = drawn(summary, width=width)

    assert all(len(one) <= width for one in text.splitlines())
    for one in summary.counts.values():
        assert count(one.instances) in text
    assert count(summary.discovered) in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


def test_how_far_how_fast_how_long() -> None:
    text = drawn(small(done=30, left=70)).replace("\N{NO-BREAK SPACE}", " ")
    assert "30 of 100, 1,200 a minute, 1.00 MB/s, 2 h 15 min left" in text
    assert "30.0 %" in text
    one = line(small(done=30, left=70, counts={State.FAILED: Count(3), State.PENDING: Count(7)}), PACE)
    assert one.startswith("Copy folder to Orthanc: 3 of 10, ")
    assert one.endswith("3 failed")


def test_nothing_is_said_that_is_not_known() -> None:
    text = drawn(small(discovery_complete=False, expected=50), Forecast())
    assert "still being listed" in text
    assert "30 of 150 found so far" in text
    assert "left" not in text
    assert "%" in text  # of what is known
    assert "left" not in line(small(phase="complete", left=0), Forecast(1.0, 0.0))


def test_a_job_that_does_not_work_has_no_speed() -> None:
    halted = small(done=30, left=70)
    one = line(halted, PACE, rests="stopped")
    assert one.endswith("30 of 100, stopped")
    sheet = io.StringIO()
    Console(file=sheet, width=80).print(draw(halted, PACE, 80, rests="waits for its window"))
    text = sheet.getvalue()
    assert "waits for its window" in text
    assert "30.0" in text, "how far it is, is known"
    assert "a minute" not in text
    assert "left" not in text
    assert "stopped" not in line(small(phase="complete", left=0), PACE, rests="stopped")


def test_what_went_wrong() -> None:
    text = drawn(big())
    assert "3,901 failed: HTTP status 413" in text
    assert "40\N{NO-BREAK SPACE}instances absent at the target, or different" in text
    assert "This does not add up: 100 were" in drawn(small(months=(MonthLine(202401, 1, 99, 30, 0),)))


def test_a_terminal_is_not_led_by_texts() -> None:
    evil = hostile()
    text = drawn(evil) + line(evil, PACE)
    assert "\u202e" not in text
    made = small(notes=("\x1b]0;x\x07[bold]a note[/bold]\r\n",))
    assert "\x1b" not in drawn(made)
    assert "[bold]a note[/bold]" in drawn(made)
    assert HOSTILE.split("\u202e")[0][:20] in text
