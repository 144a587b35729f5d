"""The ledger of a job: what was written is there after a restart, counts are of what there is, and who may open it."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from postdicom_async.errors import LedgerLocked, LedgerUnusable, LocalFileError, UsageError
from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.schema import ItemRow, Stage
from postdicom_async.jobs.plan import ItemEnd
from postdicom_async.jobs.states import Reason, State
from tests.jobs.ledgers import FACTS, assert_adds_up, filled, reader


async def test_no_instance_is_expected_and_found(tmp_path: Path) -> None:
    """A study that moves without a list is counted once, however far it is."""
    path = tmp_path / "one.ledger"
    async with await Ledger.create(path, FACTS) as ledger:
        listed = [ListedStudy(f"1.2.{number}", "20260102", 10) for number in range(3)]
        await ledger.note_studies(listed, at_target=False, run=1)
        (first, *_) = await ledger.studies(Stage.FOUND)
        sums = []
        for number in range(10):
            ledger.plan(first.id, [ItemRow("1.3", f"1.4.{number}", State.RUNNING, attempts=1)])
            await ledger.commit()
            with reader(path) as one:
                summary = one.summary()
            sums.append((summary.discovered, summary.discovered + summary.expected))
        assert sums == [(number, 30) for number in range(1, 11)]
        ledger.set_stage(first.id, Stage.PLANNED, planned=10)
        await ledger.commit()
        with reader(path) as one:
            assert one.summary().expected == 20
    assert_adds_up(path)


async def test_what_is_settled_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    async with await filled(path) as ledger:
        first = (await ledger.studies(Stage.PLANNED))[0]
        keys = [(item.series, item.uid) for item in await ledger.items(first.id)]
        ledger.run_items(first.id, keys)
        ends = [
            ItemEnd(*keys[0], State.DONE, size=120, digest=b"0123456789abcdef"),
            ItemEnd(*keys[1], State.FAILED, Reason.REFUSED),
            ItemEnd(*keys[2], State.PENDING),
        ]
        ledger.settle(first.id, ends)
        ledger.put("phase", "moving")
        ledger.put("discovery_complete", True)
        ledger.note("the target was away for a while")
        assert (await ledger.counts())[State.RUNNING] == (1, 100)
    async with await Ledger.open(path, identity="0123") as ledger:
        assert ledger.fact("phase") == "moving"
        items = {(item.series, item.uid): item for item in await ledger.items(first.id)}
        assert items[keys[0]][2:] == (State.DONE, 0, 1, 120, b"0123456789abcdef")
        assert items[keys[1]][2:5] == (State.FAILED, Reason.REFUSED, 1)
        assert items[keys[2]][2:5] == (State.PENDING, 0, 1)
        assert items[keys[3]][2:5] == (State.PENDING, 0, 0), "nobody saw how its attempt ended"
        assert await ledger.counts() == {
            State.DONE: (1, 120), State.FAILED: (1, 100), State.PENDING: (10, 1000)
        }  # fmt: skip
        assert_adds_up(path)
    with reader(path) as one:
        summary = one.summary()
    assert summary.facts.phase == "moving"
    assert summary.facts.source == "a"
    assert summary.discovered == 12
    assert summary.discovery_complete
    assert [moment.instances for moment in summary.moments] == [1]
    assert [(line.reason, line.instances, line.examples) for line in summary.reasons] == [
        (Reason.REFUSED, 1, (keys[1][1],))
    ]
    assert summary.notes[0].endswith("UTC: the target was away for a while")


async def test_an_outage_takes_its_attempt_back(tmp_path: Path) -> None:
    async with await filled(tmp_path / "one.ledger", studies=1, items=2) as ledger:
        (study,) = await ledger.studies(Stage.PLANNED)
        one, two = [(item.series, item.uid) for item in await ledger.items(study.id)]
        ledger.run_items(study.id, [one, two])
        ledger.settle(study.id, [ItemEnd(*one, State.PENDING)])
        ledger.settle(study.id, [ItemEnd(*two, State.PENDING)], attempt_counts=False)
        assert [item.attempts for item in await ledger.items(study.id)] == [1, 0]


async def test_what_is_gathered_is_written_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await filled(path) as ledger:
        ledger.put("alone", 1)
        for _ in range(100):
            await asyncio.sleep(0.05)
            with reader(path) as one:
                if one.facts().get("alone") == 1:
                    break
        else:
            pytest.fail("a single change was never written")
        for number in range(64):
            ledger.put("many", number)
        for _ in range(100):
            await asyncio.sleep(0.05)
            with reader(path) as one:
                if one.facts().get("many") == 63:
                    break
        else:
            pytest.fail("a full group was never written")


async def test_studies_come_newest_month_first_and_no_day_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await Ledger.create(path, FACTS) as ledger:
        await ledger.note_studies(
            [ListedStudy("1.1", "20230517", 5), ListedStudy("1.2"), ListedStudy("1.3", "20240229", None)],
            at_target=False, run=1,
        )  # fmt: skip
        await ledger.note_studies([ListedStudy("1.4", "20240131"), ListedStudy("1.5", "x")], at_target=False, run=1)
        assert [study.uid for study in await ledger.studies(Stage.FOUND)] == ["1.3", "1.4", "1.1", "1.2", "1.5"]
        first = await ledger.studies(Stage.FOUND, limit=2)
        rest = await ledger.studies(Stage.FOUND, after=(first[1].position, first[1].id))
        assert [study.uid for study in rest] == ["1.1", "1.2", "1.5"]
        await ledger.note_studies(
            [ListedStudy("1.1", "20230517", 5), ListedStudy("1.2")], at_target=False, run=2, first={"1.2": 0, "1.1": 1}
        )
        assert [study.uid for study in await ledger.studies(run=2)] == ["1.2", "1.1"]
        assert [study.uid for study in await ledger.studies(run=2, unseen=True)] == ["1.3", "1.4", "1.5"]
        await ledger.note_studies([ListedStudy("1.9", "20240131", 3)], at_target=True, run=2)
        only_there = await ledger.study("1.9")
        assert only_there is not None
        assert (only_there.seen, only_there.at_target) == (0, 3)
        assert "1.9" not in [study.uid for study in await ledger.studies(Stage.FOUND)]
    with reader(path) as one:
        summary = one.summary()
        assert (summary.studies, summary.expected) == (5, 5)
        assert "1.9" not in [line.uid for line in one.studies()]
        assert [line.uid for line in one.studies()] == ["1.2", "1.1", "1.3", "1.4", "1.5"]
    for day in (b"20230517", b"20240229", b"20240131"):
        assert day not in path.read_bytes()


async def test_a_study_equal_by_count_counts_without_items_until_it_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await Ledger.create(path, FACTS) as ledger:
        await ledger.note_studies([ListedStudy("1.1", "20240101", 7)], at_target=False, run=1)
        study = await ledger.study("1.1")
        assert study is not None
        ledger.set_stage(study.id, Stage.EQUAL, planned=7)
        assert await ledger.counts() == {State.PRESENT: (7, 0)}
        await ledger.commit()
        assert_adds_up(path)
        with reader(path) as one:
            assert one.summary().equal_by_count == 1
            assert [line.basis for line in one.studies()] == ["equal by count"]
        ledger.plan(study.id, [ItemRow("1.1.1", "1.1.9", State.PENDING, size=5)])
        ledger.set_stage(study.id, Stage.PLANNED, planned=1)
        assert await ledger.counts() == {State.PENDING: (1, 5)}
        ledger.set_stage(study.id, Stage.EQUAL, planned=3)
        assert await ledger.counts() == {State.PENDING: (1, 5), State.PRESENT: (2, 0)}
        ledger.set_stage(study.id, Stage.EQUAL, planned=2)
        assert await ledger.counts() == {State.PENDING: (1, 5), State.PRESENT: (1, 0)}
    assert_adds_up(path)


async def test_what_is_no_instance_is_counted_and_is_no_study(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await Ledger.create(path, FACTS) as ledger:
        nothing = await ledger.study("")
        assert nothing is not None
        ledger.plan(nothing.id, [ItemRow("", "d1gest", State.EXCLUDED, Reason.NOT_DICOM, size=9)])
        await ledger.commit()
        assert await ledger.studies(Stage.FOUND) == []
        assert_adds_up(path)
        with reader(path) as one:
            summary = one.summary()
            assert (summary.studies, summary.months, summary.discovered) == (0, (), 1)
            assert [line.examples for line in summary.reasons] == [()]
            (item,) = one.items()
            assert (item.study, item.uid, item.item) == ("", "", "d1gest")
        await ledger.note_studies([ListedStudy("1.1")], at_target=False, run=1)
        study = await ledger.study("1.1")
        assert study is not None
        ledger.plan(study.id, [ItemRow("1.1.1", "1.1.9", State.EXCLUDED, Reason.NOT_DICOM)])
        await ledger.commit()
        with reader(path) as one:
            assert [line.examples for line in one.summary().reasons] == [("1.1.9",)]


async def test_reset_takes_what_failed_for_a_reason(tmp_path: Path) -> None:
    async with await filled(tmp_path / "one.ledger", studies=2) as ledger:
        for study in await ledger.studies(Stage.PLANNED):
            keys = [(item.series, item.uid) for item in await ledger.items(study.id)]
            ledger.run_items(study.id, keys)
            reasons = [Reason.REFUSED, Reason.CONNECTION, Reason.REFUSED, Reason.UNREADABLE]
            ledger.settle(study.id, [ItemEnd(*k, State.FAILED, r) for k, r in zip(keys, reasons, strict=True)])
            ledger.set_stage(study.id, Stage.MOVED)
        assert await ledger.reset([State.FAILED], reasons=[Reason.REFUSED]) == 4
        assert len(await ledger.studies(Stage.PLANNED)) == 2
        pending = await ledger.items((await ledger.studies(Stage.PLANNED))[0].id, states=[State.PENDING])
        assert [(item.attempts, item.reason) for item in pending] == [(0, 0), (0, 0)]
        assert await ledger.reset([State.FAILED, State.DONE]) == 4
        assert await ledger.reset([State.FAILED]) == 0
        await ledger.commit()
        assert_adds_up(ledger.path)


async def test_a_move_that_no_state_allows_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    ledger = await filled(path)
    study = (await ledger.studies(Stage.PLANNED))[0]
    item = (await ledger.items(study.id))[0]
    ledger.put("with it", 1)
    ledger.settle(study.id, [ItemEnd(item.series, item.uid, State.DONE)])
    with pytest.raises(AssertionError, match="PENDING cannot become DONE"):
        await ledger.commit()
    with pytest.raises(AssertionError, match="PENDING cannot become DONE"):
        await ledger.__aexit__(None, None, None)
    with reader(path) as one:
        assert one.facts().get("with it") is None
        assert State.DONE not in one.summary().counts
    async with await Ledger.open(path):
        pass


async def test_verified_items_are_noted_and_not_added(tmp_path: Path) -> None:
    async with await filled(tmp_path / "one.ledger") as ledger:
        study = (await ledger.studies(Stage.PLANNED))[0]
        ledger.note_verified(study.id, 3)
        ledger.note_verified(study.id, 4)
        ledger.note_coerced(["00100020", "00080050", "00100020"])
        await ledger.commit()
        with reader(ledger.path) as one:
            assert one.summary().verified == 4
            assert one.summary().coerced == {"00100020": 2, "00080050": 1}


# --- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
async def test_it_is_for_this_user_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "new" / "one.ledger"
    if umask == 0o777:
        path.parent.mkdir(0o700)
    before = os.umask(umask)
    try:
        async with await filled(path) as ledger:
            ledger.put("x", 1)
            await ledger.commit()
            modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("one.ledger", "one.ledger-wal", "one.ledger-shm", "one.ledger.lock"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [name.name for name in path.parent.iterdir()] == ["one.ledger"]


async def test_one_may_write_it_and_others_read(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await filled(path) as ledger:
        with pytest.raises(LedgerLocked):
            await Ledger.open(path)
        with pytest.raises(LedgerLocked):
            await Ledger.create(path, FACTS)
        with reader(path) as one, one.still():
            before = one.summary()
            study = (await ledger.studies(Stage.PLANNED))[0]
            ledger.plan(study.id, [ItemRow("1", "2", State.PENDING)])
            await ledger.commit()
            assert one.summary() == before
        with reader(path) as one:
            assert one.summary().discovered == before.discovered + 1
    with pytest.raises(LedgerUnusable, match="there is a file of that name"):
        await Ledger.create(path, FACTS)
    async with await Ledger.open(path):
        pass
    with pytest.raises(UsageError):
        await ledger.commit()


async def test_who_only_read_it_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await filled(path):
        pass
    before = path.read_bytes()
    assert_adds_up(path)
    with reader(path) as one, reader(path) as other:
        assert one.summary() == other.summary()
        items = one.items()
        next(items)
    assert [file.name for file in tmp_path.iterdir()] == ["one.ledger"]
    assert path.read_bytes() == before


async def test_a_cancelled_wait_leaves_what_was_gathered(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await filled(path) as ledger:
        for number in range(50):
            ledger.put(f"fact {number}", number)
            waiting = asyncio.create_task(ledger.commit())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
    with reader(path) as one:
        assert {f"fact {number}" for number in range(50)} <= set(one.facts())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    async with await filled(path):
        pass
    path.parent.chmod(0o500)
    try:
        with pytest.raises(LocalFileError):
            await Ledger.create(path.with_name("two.ledger"), FACTS)
        with pytest.raises(LocalFileError):
            await Ledger.open(path)
        assert_adds_up(path)
    finally:
        path.parent.chmod(0o700)
