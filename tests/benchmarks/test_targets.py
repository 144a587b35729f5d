"""Targets are judged as they are written down."""

from __future__ import annotations

import pytest

from benchmarks.measure import Measurement, Task
from benchmarks.names import MIB
from benchmarks.runner import Case, Row
from benchmarks.sides import CURL, OURS
from benchmarks.targets import MET, MISSED, NOT_MEASURED, TARGETS, Target, cpu_taken, found, growth, over_idle, speed


def row(case: str, side: str, *runs: tuple[float, float], over: int = 0) -> Row:
    """Make the runs of a side, each of wall and processor seconds."""
    shown = Case("plain", case, "", Task("download"), (), ())
    return Row(shown, side, [Measurement(wall, cpu, 5 * MIB, (5 + over) * MIB, 1, 1) for wall, cpu in runs])


@pytest.mark.parametrize(
    ("bounds", "figure", "verdict"),
    [
        ({"least": 0.8}, 0.8, MET),
        ({"least": 0.8}, 0.79, MISSED),
        ({"most": 2.0}, 2.0, MET),
        ({"most": 2.0}, 2.01, MISSED),
        ({"most": 0.0}, 0.0, MET),
        ({"most": 0.0}, 1.0, MISSED),
        ({"least": 0.8}, None, NOT_MEASURED),
    ],
)
def test_verdict(bounds: dict[str, float], figure: float | None, verdict: str) -> None:
    target = Target("a", "b", lambda _: figure, **bounds)  # type: ignore[arg-type]
    assert target.verdict(figure) == verdict
    assert target.line(found([], {}))[3] == verdict


def test_a_miss_is_not_rounded_away() -> None:
    target = Target("a", "b", lambda _: 0.7996, least=0.8)
    assert target.line(found([], {}))[3] == MISSED


def test_ratios_are_of_the_same_round() -> None:
    """A machine that got slower in the second round slowed both sides down."""
    rows = [row("c", OURS, (1.0, 2.0), (10.0, 20.0), (1.0, 2.0)), row("c", CURL, (0.5, 1.0), (5.0, 5.0), (0.9, 1.0))]
    what = found(rows, {})
    assert speed("c", CURL)(what) == pytest.approx(0.5)
    assert cpu_taken("c", CURL)(what) == pytest.approx(2.0)
    assert speed("another", CURL)(what) is None


def test_memory() -> None:
    small, large = row("scale-upload-1000", OURS, (1, 1), over=3), row("scale-upload-1000000", OURS, (1, 1), over=40)
    assert over_idle("scale-upload-1000")(found([small], {})) == pytest.approx(3)
    assert growth("upload")(found([small, large], {})) == pytest.approx(37)
    assert growth("upload")(found([small], {})) is None


def test_each_target_has_one_bound_and_one_place() -> None:
    assert all((target.least is None) != (target.most is None) for target in TARGETS)
    assert len({(target.name, target.rule) for target in TARGETS}) == len(TARGETS)
    assert {target.line(found([], {}))[3] for target in TARGETS} == {NOT_MEASURED}
