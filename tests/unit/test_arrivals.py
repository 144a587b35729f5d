"""What a download remembers of every instance, held against plain sets, in memory and on disk."""

from __future__ import annotations

import asyncio
import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async.disk import scratch
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.errors import LocalFileError
from postdicom_async.results import InstanceUids, Outcome, Status
from postdicom_async.transfer import arrivals as module
from postdicom_async.transfer.arrivals import Arrivals, Taken
from postdicom_async.transfer.outcomes import Gathered
from tests.support.large import examples

UIDS = [InstanceUids("1", f"1.{series}", f"1.{series}.{n}") for series in range(3) for n in range(9)]


def outcome(uids: InstanceUids, size: int = 7) -> Outcome:
    return Outcome("somewhere", Status.SAVED, uids, size)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything soon goes to the database, and passes have many slices."""
    monkeypatch.setattr(scratch, "_RECENT", 3)
    monkeypatch.setattr(scratch, "_FILTER_FROM", 10)
    monkeypatch.setattr(module, "_SLICE", 4)
    monkeypatch.setattr(module, "_MOST_SERIES", 2)


@pytest.mark.usefixtures("tiny")
@settings(deadline=None, max_examples=examples(150))
@given(
    listed=st.none() | st.sets(st.sampled_from(UIDS)),
    events=st.lists(st.tuples(st.sampled_from(UIDS), st.integers(0, 3)), max_size=60),
    adopted_at=st.integers(0, 60),
)
def test_it_says_what_sets_would_say(
    listed: set[InstanceUids] | None, events: list[tuple[InstanceUids, int]], adopted_at: int
) -> None:
    async def run() -> None:
        gathered = Gathered(keeps_all=True)
        arrivals = Arrivals("1", gathered)
        answers = [arrivals.answer() for _ in range(3)]
        here: set[InstanceUids] = set()
        taken: list[set[InstanceUids]] = [set(), set(), set()]
        last: dict[InstanceUids, int] = {}
        for number, (uids, which) in enumerate([*events, *([] if adopted_at < len(events) else [(UIDS[0], 3)])]):
            if number == min(adopted_at, len(events)):
                found = None
                if listed is not None:
                    found = arrivals.new_list()
                    found.update([*listed, *list(listed)[:2]])
                assert await arrivals.adopt(found) == bool(listed and here <= listed)
            if which == 3:
                arrivals.note_present(uids, "there")
                here.add(uids)
                last[uids] = 3
                continue
            wanted = answers[which].take(uids)
            if last.get(uids) == which:
                assert wanted is Taken.AGAIN
                continue
            assert wanted is (Taken.BEFORE if uids in here else Taken.NEW)
            if wanted is Taken.NEW:
                taken[which].add(uids)
                last[uids] = which
                if number % 3:
                    answers[which].note_saved(outcome(uids), uids)
                    here.add(uids)
        assert arrivals.here == len(here)
        assert arrivals.here == gathered.counts[Status.SAVED] + gathered.counts[Status.PRESENT]
        assert {uids for uids in UIDS if arrivals.has(uids)} == here
        assert arrivals.size == 7 * arrivals.saved
        missing = [uids async for some in arrivals.missing_slices() for uids in some]
        assert sorted(missing) == sorted((listed or set()) - here)
        assert arrivals.missing == len(missing)
        assert arrivals.outside == (0 if listed is None else len(here - listed))
        for one in [one async for one in arrivals.series()]:
            of_series = {uids for uids in listed or () if uids.series_instance_uid == one.uid}
            assert (one.listed, one.missing) == (len(of_series), len(of_series - here))
            only = [uids async for some in arrivals.missing_slices(one.uid) for uids in some]
            assert sorted(only) == sorted(of_series - here)
        arrivals.close()

    asyncio.run(run())


@pytest.mark.usefixtures("tiny")
def test_a_list_that_was_compared_in_part_is_none() -> None:
    async def run() -> None:
        arrivals = Arrivals("1", Gathered(keeps_all=False))
        answer = arrivals.answer()
        for uids in UIDS:
            answer.take(uids)
            answer.note_saved(outcome(uids), uids)
        found = arrivals.new_list()
        found.update(UIDS[:-1])  # the last that is here is outside
        comparing = asyncio.ensure_future(arrivals.adopt(found))
        await asyncio.sleep(0)
        comparing.cancel()
        await asyncio.wait([comparing])
        assert comparing.cancelled()
        assert arrivals.listed is None
        assert (arrivals.outside, arrivals.missing) == (0, 0)
        assert not await arrivals.adopt(found)
        assert arrivals.outside == 1
        arrivals.close()

    asyncio.run(run())


@pytest.mark.usefixtures("tiny")
def test_what_arrives_while_a_list_is_compared_is_counted_once() -> None:
    async def run() -> None:
        arrivals = Arrivals("1", Gathered(keeps_all=False))
        answer = arrivals.answer()
        for uids in UIDS[::2]:
            answer.take(uids)
            answer.note_saved(outcome(uids), uids)
        found = arrivals.new_list()
        found.update(UIDS[:4])
        comparing = asyncio.ensure_future(arrivals.adopt(found))
        for uids in reversed(UIDS[1::2]):
            await asyncio.sleep(0)
            answer.take(uids)
            answer.note_saved(outcome(uids), uids)
        assert not await comparing
        assert arrivals.outside == len(UIDS) - 4
        assert arrivals.missing == 0
        arrivals.close()

    asyncio.run(run())


def test_memory_does_not_grow_with_the_number_of_instances() -> None:
    def peak(count: int) -> int:
        async def run() -> None:
            arrivals = Arrivals("1", Gathered(keeps_all=False))
            found = arrivals.new_list()
            found.update(InstanceUids("1", f"1.{n % 7}", f"1.2.3.4.5.6.7.8.9.{n}") for n in range(count))
            await arrivals.adopt(found)
            answer = arrivals.answer()
            for n in range(0, count, 2):
                uids = InstanceUids("1", f"1.{n % 7}", f"1.2.3.4.5.6.7.8.9.{n}")
                assert answer.take(uids) is Taken.NEW
                answer.note_saved(outcome(uids), uids)
            assert arrivals.missing == count // 2
            assert [one.missing async for one in arrivals.series()]
            arrivals.close()

        tracemalloc.start()
        asyncio.run(run())
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(100)
    assert peak(20_000) - peak(10_000) < 500_000, "sets take 6 MB more"


def test_a_full_disk_for_temporary_files_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(scratch, "_new_database", full)
    table: ScratchMap[int] = ScratchMap(Scratch())

    def fill() -> None:
        for n in range(10_000):
            table.put((0, str(n)), n)

    with pytest.raises(LocalFileError, match=r"temporary files.*full") as caught:
        fill()
    assert caught.value.__context__ is None


def test_nothing_is_opened_for_a_small_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> sqlite3.Connection:
        raise AssertionError

    monkeypatch.setattr(scratch, "_new_database", never)
    arrivals = Arrivals("1", Gathered(keeps_all=True))
    answer = arrivals.answer()
    for n in range(500):
        uids = InstanceUids("1", "2", f"3.{n}")
        assert answer.take(uids) is Taken.NEW
        answer.note_saved(outcome(uids), uids)
    assert arrivals.here == 500
