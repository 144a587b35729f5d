"""What to ask for, given what is listed and what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.dicomweb.download import plan as plan_of
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.results import InstanceUids
from postdicom_async.transfer.arrivals import Arrivals
from postdicom_async.transfer.outcomes import Gathered

STUDY = Target("1")


def instances(series: int, count: int) -> set[InstanceUids]:
    return {InstanceUids("1", f"1.{one}", f"1.{one}.{n}") for one in range(series) for n in range(count)}


def plan(
    target: Target,
    listed: set[InstanceUids],
    missing: Iterable[InstanceUids],
    finest: int,
    *,
    side_by_side: bool = True,
) -> list[Target]:
    async def planned() -> list[Target]:
        arrivals = Arrivals("1", Gathered(keeps_all=False))
        found = arrivals.new_list()
        found.update(sorted(listed))
        await arrivals.adopt(found)
        for uids in listed - set(missing):
            arrivals.note_present(uids, "")
        targets = [one async for one in plan_of(target, arrivals, finest)]
        arrivals.close()
        return targets

    return asyncio.run(planned())


def test_everything_missing_asks_for_the_target() -> None:
    listed = instances(3, 4)
    assert plan(STUDY, listed, listed, 0) == [STUDY]


def test_the_largest_series_comes_first() -> None:
    listed = instances(3, 16) | {InstanceUids("1", "1.1", "1.1.99")}
    assert plan(STUDY, listed, listed, 1) == [Target("1", "1.1"), Target("1", "1.0"), Target("1", "1.2")]


def test_the_second_round_asks_by_series_and_the_third_by_instance() -> None:
    listed = instances(3, 4)
    assert plan(STUDY, listed, listed, 1) == [Target("1", f"1.{n}") for n in range(3)]
    assert plan(STUDY, listed, listed, 2) == [Target(*uids) for uids in sorted(listed)]


def test_a_whole_missing_series_is_asked_for_as_such() -> None:
    listed = instances(2, 3)
    one = InstanceUids("1", "1.1", "1.1.0")
    missing = {uids for uids in listed if uids.series_instance_uid == "1.0"} | {one}
    assert plan(STUDY, listed, missing, 0) == [Target("1", "1.0"), Target(*one)]


@pytest.mark.parametrize("finest", [0, 1, 2])
def test_nothing_missing_asks_for_nothing_of_a_listed_study(finest: int) -> None:
    assert plan(STUDY, instances(1, 1), set(), finest) == []


@pytest.mark.parametrize("finest", [0, 1, 2])
def test_a_single_instance_is_never_asked_for_as_its_series(finest: int) -> None:
    target = Target("1", "1.0", "1.0.0")
    only = {InstanceUids("1", "1.0", "1.0.0")}
    assert plan(target, only, only, finest) == [target]


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 2), st.data())
def test_exactly_the_missing_are_asked_for_once(series: int, count: int, finest: int, data: st.DataObject) -> None:
    listed = instances(series, count)
    missing = set(data.draw(st.lists(st.sampled_from(sorted(listed)), unique=True)))
    targets = plan(STUDY, listed, missing, finest)
    covered = [uids for target in targets for uids in listed if target.covers(uids)]
    assert sorted(covered) == sorted(missing)
    if finest == 2:
        assert all(target.instance for target in targets)
    if finest >= 1:
        assert STUDY not in targets
