"""Jobs whose ends lie or change while they are read: nothing is lost, deleted wrongly, or called done that is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    InstanceUids,
    NotFound,
    Outcome,
    PostdicomError,
    ProtocolError,
    RateLimited,
    ServerError,
    UsageError,
    jobs,
)
from postdicom_async.jobs.ends.end import Identified, ListedInstance, ListedStudy, Selection
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.states import Reason, State, reason_code
from postdicom_async.jobs.summary import Summary
from postdicom_async.results import Status
from tests.jobs.lying import MemoryEnd, adding_up, hurry, instances
from tests.support.dicom_files import small_dicom, uid


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


async def ended(job: jobs.Job) -> Summary:
    async with job:
        return await asyncio.wait_for(job.wait(), 30)


def fails_at(what: str, problem: PostdicomError, *, times: int = 1_000_000) -> Any:
    """Return a fault: so many questions that begin so are answered by an error."""
    left = [times]

    def fault(asked: str) -> None:
        if asked.startswith(what) and left[0]:
            left[0] -= 1
            raise problem

    return fault


# --- lists ------------------------------------------------------------------------------------------------------------


class CutList(MemoryEnd):
    """Lists a study in two parts, and breaks between them the first time."""

    breaks = 1

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        listed = [one async for some in super().instances(study) for one in some]
        yield listed[:3]
        if self.breaks:
            self.breaks -= 1
            raise ConnectionFailed("cut")
        yield listed[3:]


async def test_a_list_that_broke_is_not_counted_twice() -> None:
    source, target = CutList("a", instances(2, 5)), MemoryEnd("b")
    assert adding_up(await ended(await jobs.copy(source, target))) == {State.DONE: 10}
    assert target.held == source.held
    asked = len(source.asked)
    assert adding_up(await ended(await jobs.copy(source, target))) == {State.DONE: 10}
    assert source.asked[asked:] == ["studies"], "both ends agree by count"


async def test_a_list_that_broke_gives_no_chunk_an_instance_twice() -> None:
    opened: list[str] = []

    class Source(CutList):
        async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
            opened.extend(one.uid for one in wanted.instances)
            async for one in super().open(wanted):
                yield one

    await ended(await jobs.copy(Source("a", instances(1, 8)), MemoryEnd("b")))
    assert sorted(opened) == sorted({*opened})


class Doubled(MemoryEnd):
    """Lists everything twice."""

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        async for some in super().studies():
            yield [*some, *some]

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        async for some in super().instances(study):
            yield some
            yield some


async def test_what_is_listed_twice_is_moved_once() -> None:
    source, target = Doubled("a", instances(3, 4)), Doubled("b")
    assert adding_up(await ended(await jobs.copy(source, target))) == {State.DONE: 12}
    assert target.held == source.held


async def test_one_uid_in_two_series_is_told_and_not_called_done_twice() -> None:
    held = instances(1, 3)
    held[InstanceUids("1.1", "1.1.2", "1.1.1.0")] = b"another series, the same SOP Instance UID"
    summary = await ended(await jobs.copy(MemoryEnd("a", held), target := MemoryEnd("b")))
    assert adding_up(summary) == {State.DONE: 3, State.FAILED: 1}
    assert [one.reason for one in summary.reasons if one.state is State.FAILED] == [Reason.OTHER_CONTENT]
    assert len(target.held) == 3


@pytest.mark.parametrize(
    "problem",
    [
        NotFound("404", status=404),
        AuthenticationFailed("403", status=403),
        ProtocolError("the list contradicts the question"),
        ServerError("500", status=500, temporary=True),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("at_target", [False, True])
async def test_a_study_that_cannot_be_listed_keeps_none_of_the_others(problem: PostdicomError, at_target: bool) -> None:
    source, target = MemoryEnd("a", instances(4, 3)), MemoryEnd("b", {next(iter(instances(1, 1))): b"one"})
    end = target if at_target else source
    end.fault = fails_at("instances 1.1", problem)
    summary = await ended(await jobs.copy(source, target, attempts=1))
    assert adding_up(summary) == {State.DONE: 9, State.FAILED: 1}, "what fails is the list"
    assert [note for note in summary.notes if "1.1 could not be listed" in note]
    assert len(target.held) == 10
    end.fault = lambda _: None
    assert adding_up(await ended(await jobs.copy(source, target))) == {State.DONE: 11, State.PRESENT: 1}
    assert len(target.held) == 12


async def test_a_study_that_cannot_be_listed_afterwards_is_not_called_proven() -> None:
    source, target = MemoryEnd("a", instances(3, 3)), MemoryEnd("b")
    target.fault = fails_at("instances 1.2", ProtocolError("counted 3, listed 0"))
    summary = await ended(await jobs.copy(source, target))
    assert adding_up(summary) == {State.DONE: 6, State.UNCONFIRMED: 3}
    assert summary.verified == 6
    target.fault = lambda _: None
    summary = await ended(await jobs.copy(source, target))
    assert adding_up(summary).keys() <= {State.DONE, State.PRESENT}
    assert summary.discovered == 9


async def test_a_study_whose_instances_are_refused_fails_alone() -> None:
    source, target = MemoryEnd("a", instances(4, 3)), MemoryEnd("b")
    source.fault = fails_at("open 1.2", AuthenticationFailed("403", status=403))
    summary = await ended(await jobs.copy(source, target))
    assert adding_up(summary) == {State.DONE: 9, State.FAILED: 3}
    assert [one.reason for one in summary.reasons if one.state is State.FAILED] == [reason_code(status=403)]
    source.fault = lambda _: None
    assert adding_up(await ended(await jobs.copy(source, target))) == {State.DONE: 12}


async def test_a_list_that_always_breaks_at_its_second_page_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, patience=0.5)

    class Source(MemoryEnd):
        async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
            async for some in super().studies():
                yield some[:1]
            raise RateLimited("429", retry_after=0.01)

    with pytest.raises(RateLimited):
        await ended(await jobs.copy(Source("a", instances(3, 2)), MemoryEnd("b")))


async def test_studies_that_vanish_before_they_are_moved_are_told_as_gone() -> None:
    source, target = MemoryEnd("a", instances(3, 4)), MemoryEnd("b")
    source.fault = fails_at("open", ConnectionFailed("x", temporary=False))
    summary = await ended(await jobs.copy(source, target, attempts=1))
    assert adding_up(summary) == {State.FAILED: 12}
    source.fault = lambda _: None
    for uids in source.of("1.1"):
        del source.held[uids]
    summary = await ended(await jobs.copy(source, target))
    assert adding_up(summary) == {State.DONE: 8, State.EXCLUDED: 4}
    assert {one.reason for one in summary.reasons if one.state is State.EXCLUDED} == {Reason.GONE}


async def test_studies_that_a_list_leaves_out_are_moved_all_the_same() -> None:
    class Source(MemoryEnd):
        hides = ""

        async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
            async for some in super().studies():
                yield [one for one in some if one.uid != self.hides]

    source, target = Source("a", instances(3, 4)), MemoryEnd("b")
    source.fault = fails_at("open", ConnectionFailed("x", temporary=False))
    await ended(await jobs.copy(source, target, attempts=1))
    source.fault, source.hides = (lambda _: None), "1.2"
    assert adding_up(await ended(await jobs.copy(source, target))) == {State.DONE: 12}


async def test_a_retry_before_everything_was_found_forgets_nothing(folder: Path, tmp_path: Path) -> None:
    job = await jobs.copy(folder, tmp_path / "out")
    await ended(job)
    (folder / "late.dcm").write_bytes(small_dicom(uid(9), uid(9, 1), uid(9, 1, 1)))
    ledger = await Ledger.open(job.path)
    async with ledger:  # as a run is left that was killed while it looked for what there is
        ledger.put("run", 2)
        ledger.put("phase", "discovering")
        ledger.put("discovery_complete", False)
    assert adding_up(await ended(await jobs.retry(job.path))) == {State.DONE: 16, State.EXCLUDED: 1}


async def test_what_cannot_be_gone_on_with_is_not_changed_by_a_retry() -> None:
    source = MemoryEnd("a", instances(1, 2))
    source.fault = fails_at("open", ServerError("500", status=500))
    job = await jobs.copy(source, MemoryEnd("b"), attempts=1)
    await ended(job)
    with pytest.raises(UsageError):  # its ends were objects, of which nothing is kept
        await jobs.retry(job.path)
    assert adding_up(job.summary()) == {State.FAILED: 2}


# --- answers ----------------------------------------------------------------------------------------------------------


class Silent(MemoryEnd):
    """Takes everything and says nothing of it."""

    async def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Any = None
    ) -> AsyncGenerator[Outcome, None]:
        async for _ in sources:
            pass
        for nothing in list[Outcome]():
            yield nothing


class Forgetful(MemoryEnd):
    """Says that it stores what it does not keep."""

    async def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Any = None
    ) -> AsyncGenerator[Outcome, None]:
        async for one in sources:
            yield Outcome(one.label, Status.STORED, one.header.uids)  # type: ignore[union-attr]


class Chatty(MemoryEnd):
    """Tells of each instance twice, and of some that it was never sent."""

    async def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Any = None
    ) -> AsyncGenerator[Outcome, None]:
        async for outcome in super().store(sources):
            yield outcome
            yield outcome
            yield Outcome("9.9.9", Status.STORED)


async def test_a_target_that_says_nothing_has_nothing_done() -> None:
    summary = await ended(await jobs.copy(MemoryEnd("a", instances(2, 3)), Silent("b")))
    assert adding_up(summary).keys() <= {State.FAILED, State.UNCONFIRMED}


async def test_a_target_that_stores_nothing_is_found_out() -> None:
    summary = await ended(await jobs.copy(MemoryEnd("a", instances(2, 3)), Forgetful("b")))
    assert adding_up(summary) == {State.FAILED: 6}
    assert {one.reason for one in summary.reasons if one.instances} == {Reason.NOT_LISTED}


async def test_a_target_that_tells_of_others_is_believed_of_what_was_sent_alone() -> None:
    source, target = MemoryEnd("a", instances(2, 3)), Chatty("b")
    assert adding_up(await ended(await jobs.copy(source, target))) == {State.DONE: 6}
    assert target.held == source.held


async def test_a_source_that_gives_others_than_were_asked_for() -> None:
    class Source(MemoryEnd):
        async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
            async for one in super().open(wanted):
                yield one
                yield one
            stranger = ListedInstance("1.99.1", "1.99.1.0")
            async for one in super().open(Selection("1.99", "1.99.1", [stranger])):
                yield one

    held = instances(2, 3)
    source = Source("a", held | {InstanceUids("1.99", "1.99.1", "1.99.1.0"): b"another's"})
    source.features = source.features
    target = MemoryEnd("b")
    summary = await ended(await jobs.copy(source, target))
    assert adding_up(summary) == {State.DONE: 7}


@pytest.mark.parametrize("wrong", [-2, 3])
async def test_wrong_counts_at_the_target_cost_a_list_and_no_instance(wrong: int) -> None:
    class Target(MemoryEnd):
        async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
            async for some in super().studies():
                yield [one._replace(instances=(one.instances or 0) + wrong) for one in some]

        async def study(self, study: str) -> ListedStudy | None:
            found = await super().study(study)
            return found and found._replace(instances=(found.instances or 0) + wrong)

    source, target = MemoryEnd("a", instances(2, 5)), Target("b", dict(list(instances(2, 5).items())[:3]))
    summary = await ended(await jobs.copy(source, target))
    assert adding_up(summary) == {State.DONE: 7, State.PRESENT: 3}
    assert target.held == source.held


# --- sync -------------------------------------------------------------------------------------------------------------


class Hiding(MemoryEnd):
    """Lists no instances of its studies, or none of some."""

    hidden: frozenset[str] = frozenset()
    fails: PostdicomError | None = None

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        if study in self.hidden:
            if self.fails is not None:
                raise self.fails
            return
        async for some in super().instances(study):
            yield some

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        async for some in super().studies():
            yield [one for one in some if one.uid not in self.hidden]


@pytest.mark.parametrize("delete", ["copied", "all"])
async def test_nothing_is_deleted_when_the_source_lists_nothing(delete: Any) -> None:
    source, target = Hiding("a", instances(3, 4)), MemoryEnd("b")
    await ended(await jobs.sync(source, target))
    source.hidden = frozenset({"1.1", "1.2", "1.3"})
    summary = await ended(await jobs.sync(source, target, delete=delete, max_delete=1))
    assert not target.deleted
    assert [note for note in summary.notes if "nothing was deleted" in note]


@pytest.mark.parametrize("delete", ["copied", "all"])
async def test_nothing_is_deleted_of_a_study_that_the_source_cannot_list_again(delete: Any) -> None:
    source, target = Hiding("a", instances(3, 4)), MemoryEnd("b")
    await ended(await jobs.sync(source, target))
    source.hidden, source.fails = frozenset({"1.2"}), ProtocolError("counted 4, listed 0")
    with pytest.raises(ProtocolError):
        await ended(await jobs.sync(source, target, delete=delete, max_delete=1))
    assert not target.deleted


@pytest.mark.parametrize("delete", ["copied", "all"])
async def test_nothing_is_deleted_that_the_source_hid_for_a_moment(delete: Any) -> None:
    """A study that its list leaves out, and that it lists when it is asked for it."""

    class Source(Hiding):
        async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
            async for some in MemoryEnd.instances(self, study):
                yield some

    source, target = Source("a", instances(3, 4)), MemoryEnd("b")
    await ended(await jobs.sync(source, target))
    source.hidden = frozenset({"1.3"})
    await ended(await jobs.sync(source, target, delete=delete, max_delete=1))
    assert not target.deleted
    assert target.held == source.held


@pytest.mark.parametrize(
    ("what", "at_target"), [("open", False), ("store", True), ("instances", False), ("instances", True)]
)
async def test_nothing_is_deleted_after_any_error(what: str, at_target: bool) -> None:
    source, target = MemoryEnd("a", instances(4, 3)), MemoryEnd("b")
    await ended(await jobs.sync(source, target))
    for uids in source.of("1.1"):
        del source.held[uids]
    source.held |= {uids: data for uids, data in instances(6, 3).items() if uids.study_instance_uid > "1.4"}
    end = target if at_target else source
    end.fault = fails_at(what, ServerError("500", status=500))
    with suppress(ServerError):
        await ended(await jobs.sync(source, target, delete="all", max_delete=1, attempts=1))
    assert not target.deleted
    end.fault = lambda _: None
    summary = await ended(await jobs.sync(source, target, delete="all", max_delete=1))
    if summary.facts.run == 2:  # it went on where the one before stood, and what had failed then keeps it from deleting
        await ended(await jobs.sync(source, target, delete="all", max_delete=1))
    assert target.held == source.held
