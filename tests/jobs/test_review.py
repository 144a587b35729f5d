"""What the engine of jobs must bear that no server shows every day: moments, orders and lists that are unlikely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from postdicom_async import (
    Anonymization,
    ConnectionFailed,
    DicomWeb,
    JobStopped,
    LimitReached,
    LocalFileError,
    Status,
    UsageError,
    jobs,
)
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs import job as job_module
from postdicom_async.jobs.context import JobOptions
from postdicom_async.jobs.ends.end import Feature, Identified, ListedInstance, ListedStudy, Selection
from postdicom_async.jobs.job import Job, JobParts
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Summary
from postdicom_async.results import InstanceUids, Outcome
from tests.jobs.test_copy import counts
from tests.support.dicom_files import small_dicom, uid

Key = tuple[str, str, str]
EVERYTHING = ~Feature(0)
LISTED_ONLY = ~Feature.UNLISTED


class MemoryEnd:
    """An end in memory. Hooks are called with what is asked for, and may raise.

    Attributes:
        content: what it holds, by UIDs.
        before: by the method's name what is awaited first.
        stored: SOP Instance UIDs in the order they came.
        refuses: how often an instance is still refused, by its UID, each time as what may pass.
        deleted: what was deleted.
    """

    def __init__(self, name: str, content: Iterable[Key] = (), *, features: Feature = EVERYTHING) -> None:
        self.name = name
        self.identity = name
        self.features = features & ~Feature.PASSES
        self.content: set[Key] = set(content)
        self.before: dict[str, Callable[[Any], Awaitable[None]]] = {}
        self.stored: list[str] = []
        self.refuses: dict[str, int] = {}
        self.deleted: list[Key] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _asked(self, method: str, what: Any = None) -> None:
        if method in self.before:
            await self.before[method](what)

    def _study(self, study: str) -> ListedStudy:
        return ListedStudy(study, "20240101", sum(key[0] == study for key in self.content))

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        await self._asked("studies")
        yield [self._study(study) for study in sorted({key[0] for key in self.content})]

    async def study(self, study: str) -> ListedStudy | None:
        found = self._study(study)
        return found if found.instances else None

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        await self._asked("instances", study)
        yield [ListedInstance(series, one, 100) for which, series, one in sorted(self.content) if which == study]

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        await self._asked("open", wanted)
        asked = {(one.series, one.uid) for one in wanted.instances}
        for study, series, one in sorted(self.content):
            if study == wanted.study and (not asked or (series, one) in asked):
                data = small_dicom(study, series, one)
                header = read_header(data, complete=True)
                assert isinstance(header, InstanceHeader)
                yield Usable(one, header, BytesBody(data))

    async def store(
        self, sources: AsyncIterator[Identified], *, anonymize: object = None
    ) -> AsyncGenerator[Outcome, None]:
        async for one in sources:
            if isinstance(one, Unusable):
                yield Outcome(one.label, one.status, one.uids, one.size)
                continue
            uids = one.header.uids
            await self._asked("store", uids.sop_instance_uid)
            if self.refuses.get(uids.sop_instance_uid, 0):
                self.refuses[uids.sop_instance_uid] -= 1
                yield Outcome(one.label, Status.FAILED, uids, 100, temporary=True)
                continue
            self.stored.append(uids.sop_instance_uid)
            self.content.add((uids.study_instance_uid, uids.series_instance_uid, uids.sop_instance_uid))
            yield Outcome(one.label, Status.STORED, uids, 100)

    async def delete(self, study: str, instances: Sequence[InstanceUids] | None) -> None:
        chosen = {key for key in self.content if key[0] == study}
        if instances is not None:
            chosen &= {tuple(one) for one in instances}
        self.content -= chosen
        self.deleted += sorted(chosen)
        await self._asked("delete", study)

    async def probe(self) -> None:
        await self._asked("probe")


def some(study: int, instances: int, *, series: int = 1) -> set[Key]:
    return {(uid(study), uid(study, series), uid(study, series, one)) for one in range(1, instances + 1)}


async def job_of(path: Path, source: MemoryEnd, target: MemoryEnd, **how: Any) -> Job:
    """Begin a job, or go on with it, as `jobs.copy` does."""
    asked = JobOptions(**{"verify": "none", "wave": lambda _: 0.0, **how})
    ledger = await (
        Ledger.open(path)
        if path.exists()
        else Ledger.create(
            path,
            {
                "verb": asked.verb,
                "source": "a",
                "target": "b",
                "verify": "none",
                "created": "2026-01-01T00:00:00+00:00",
            },
        )
    )
    return Job(JobParts(ledger, source, target, asked))


async def done(path: Path, source: MemoryEnd, target: MemoryEnd, **how: Any) -> Summary:
    return await asyncio.wait_for((await job_of(path, source, target, **how)).wait(), 30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "one.ledger"


# --- deleting ---------------------------------------------------------------------------------------------------------


async def test_a_folder_that_is_empty_now_deletes_nothing(folder: Path, archive: EmbeddedArchive) -> None:
    """Nothing is mounted there: the folder is, and what it held is not."""
    await (await jobs.sync(folder, archive.url, delete="copied", max_delete=1)).wait()
    for file in folder.iterdir():
        file.unlink()
    summary = await (await jobs.sync(folder, archive.url, delete="copied", max_delete=1)).wait()
    assert State.DELETED not in counts(summary)
    async with DicomWeb(archive.url) as client:
        assert len([study async for study in client.search_for_studies()]) == 3


async def test_all_is_deleted_only_within_filters_that_bound_the_target_too(
    archive: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    with pytest.raises(UsageError, match="filters"):
        await jobs.sync(f"{archive.url}?StudyDate=20240101", other_archive.url, delete="all")
    same = "?StudyDate=20240101"
    await (await jobs.sync(archive.url + same, other_archive.url + same, delete="all")).stop()


async def test_what_was_deleted_before_a_kill_is_known_to_be_deleted(path: Path) -> None:
    source, target = MemoryEnd("a", some(1, 3) | some(2, 3)), MemoryEnd("b")
    await done(path, source, target)
    source.content -= some(2, 3)

    async def killed(_: Any) -> None:
        raise RuntimeError("killed")

    target.before["delete"] = killed
    with pytest.raises(RuntimeError, match="killed"):
        await done(path, source, target, verb="sync", delete="copied", max_delete=1)
    target.before.clear()
    summary = await done(path, source, target, verb="sync", delete="copied", max_delete=1)
    assert target.content == source.content
    assert counts(summary) == {State.DONE: 3, State.DELETED: 3}


async def test_after_too_much_was_to_be_deleted_the_ends_are_listed_anew(path: Path) -> None:
    source, target = MemoryEnd("a", some(1, 3) | some(2, 3)), MemoryEnd("b")
    await done(path, source, target)
    source.content -= some(2, 3)
    with pytest.raises(LimitReached):
        await done(path, source, target, verb="sync", delete="copied")
    source.content |= some(2, 3) | some(3, 1)
    summary = await done(path, source, target, verb="sync", delete="copied")
    assert target.content == source.content
    assert counts(summary) == {State.DONE: 7}


async def test_no_more_is_deleted_than_was_counted(path: Path) -> None:
    """What the target gets between counting and deleting may be another machine's work."""
    source, target = MemoryEnd("a", some(1, 3)), MemoryEnd("b", some(2, 1))
    asked = 0

    async def grows(_: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            target.content |= some(3, 50)

    target.before["studies"] = grows
    source.content |= {key for study in range(10, 70) for key in some(study, 1)}  # so that the target is listed whole
    with pytest.raises(LimitReached):
        await done(path, source, target, verb="sync", delete="all", max_delete=0.05)
    assert some(3, 50) <= target.content


# --- what is pending at the end -------------------------------------------------------------------------------------


async def test_what_failed_of_a_study_that_is_gone_is_not_pending_for_ever(path: Path) -> None:
    source, target = MemoryEnd("a", some(1, 3) | some(2, 3)), MemoryEnd("b")
    target.refuses = {uid(2, 1, 1): 9}
    assert counts(await done(path, source, target)) == {State.DONE: 5, State.FAILED: 1}
    source.content -= some(2, 3)
    summary = await done(path, source, target, verb="sync", delete="copied", max_delete=1)
    assert counts(summary) == {State.DONE: 3, State.DELETED: 2, State.EXCLUDED: 1}
    assert target.content == source.content


async def test_what_is_no_instance_is_not_pending_after_a_retry(folder: Path, archive: EmbeddedArchive) -> None:
    (folder / "cut.dcm").write_bytes(small_dicom()[:200])
    job = await jobs.copy(folder, archive.url)
    before = counts(await job.wait())
    assert before[State.FAILED] == 1
    again = await (await jobs.retry(job.path)).wait()
    assert counts(again) == before


async def test_a_kill_while_a_study_is_tried_again_forgets_nothing(path: Path) -> None:
    """A chunk of a study ends while its others are being read for another wave."""
    source, target = MemoryEnd("a", some(1, 4) | some(1, 4, series=2), features=LISTED_ONLY), MemoryEnd("b")
    target.refuses = {uid(1, 1, 1): 1}
    first_is_over = asyncio.Event()
    killed = asyncio.Event()
    slow, retried = uid(1, 2, 4), uid(1, 1, 1)

    async def store(which: str) -> None:
        if which == slow:
            await first_is_over.wait()
        if which == retried and killed.is_set():
            job.cancel()
            await asyncio.sleep(3600)

    target.before["store"] = store
    running = await job_of(path, source, target, chunk=4)
    items = running._parts.ledger.items
    asked = 0

    async def slowly(*args: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        found = await items(*args, **more)
        if asked == 3:  # of the wave
            first_is_over.set()
            killed.set()
            for _ in range(200):
                await asyncio.sleep(0)
        return found

    running._parts.ledger.items = slowly  # type: ignore[method-assign]
    job = running._working
    with pytest.raises(JobStopped):
        await running.wait()
    assert asked == 3
    target.before.clear()
    summary = await done(path, source, target)
    assert counts(summary) == {State.DONE: 8}


async def test_instances_that_share_a_uid_are_all_accounted_for(path: Path) -> None:
    twice = {(uid(1), uid(1, series), uid(1, 1, 1)) for series in (1, 2)}
    for features in (EVERYTHING, LISTED_ONLY):
        source, target = MemoryEnd("a", some(1, 3) | twice, features=features), MemoryEnd("b")
        summary = await done(path, source, target)
        assert counts(summary) == {State.DONE: 3, State.FAILED: 1}
        path.unlink()


async def test_a_study_that_was_not_listed_and_was_cut_by_a_kill_is_listed(path: Path) -> None:
    source, target = MemoryEnd("a", some(1, 5)), MemoryEnd("b")

    async def store(which: str) -> None:
        if which == uid(1, 1, 3):
            raise RuntimeError("killed")

    target.before["store"] = store
    with pytest.raises(RuntimeError, match="killed"):
        await done(path, source, target)
    target.before.clear()
    assert counts(await done(path, source, target)) == {State.DONE: 5}
    assert sorted(set(target.stored)) == sorted(key[2] for key in source.content)


# --- the ledger, and who holds it -------------------------------------------------------------------------------------


async def test_a_job_that_is_left_at_once_lets_its_ledger_go(path: Path) -> None:
    source, target = MemoryEnd("a", some(1, 1)), MemoryEnd("b")
    async with await job_of(path, source, target) as job:
        pass
    assert not job.is_running
    assert counts(await done(path, source, target)) == {State.DONE: 1}


async def test_nothing_is_given_out_while_the_ledger_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A giant study needs nothing of the ledger for hours: all of it would have to be moved again."""
    content = {key for series in range(60) for key in some(1, 5, series=series)}
    source, target = MemoryEnd("a", content, features=LISTED_ONLY), MemoryEnd("b")
    job = await job_of(path, source, target, chunk=5)
    writer = job._parts.ledger._writer
    is_full = False

    def write() -> None:
        if is_full:
            raise LocalFileError("the ledger: the disk is full")
        original()

    original = writer.write
    monkeypatch.setattr(writer, "write", write)

    async def store(which: str) -> None:
        nonlocal is_full
        is_full = is_full or len(target.stored) == 40
        await asyncio.sleep(0.01)

    target.before["store"] = store
    with pytest.raises(LocalFileError, match="full"):
        await job.wait()
    assert len(target.stored) < 300
    is_full = False
    target.before.clear()
    assert counts(await done(path, source, target)) == {State.DONE: 300}
    assert target.content == source.content


# --- lists and answers that are unlikely ------------------------------------------------------------------------------


async def test_what_keeps_its_uids_is_found_by_verify(path: Path) -> None:
    rules = Anonymization({"PatientName": ""}, secret=b"a secret of enough bytes for that", remap_uids=False)
    source, target = MemoryEnd("a", some(1, 3)), MemoryEnd("b", some(1, 2))
    summary = await done(path, source, target, verb="verify", verify="listed", full=True, anonymize=rules)
    assert counts(summary) == {State.PRESENT: 2, State.FAILED: 1}


async def test_what_no_end_has_any_more_is_no_mismatch(path: Path) -> None:
    source, target = MemoryEnd("a", some(1, 4)), MemoryEnd("b")
    await done(path, source, target, verify="listed")
    gone = (uid(1), uid(1, 1), uid(1, 1, 4))
    source.content.remove(gone)
    target.content -= {gone, (uid(1), uid(1, 1), uid(1, 1, 3))}
    summary = await done(path, source, target, verify="listed")
    assert counts(summary) == {State.DONE: 3, State.EXCLUDED: 1}
    assert not summary.mismatches


async def test_a_retry_does_not_send_a_twin_over_its_brother(path: Path) -> None:
    """Two instances have one UID: a target that replaces would lose the first."""
    twins = {(uid(1), uid(1, series), uid(1, 1, 1)) for series in (1, 2)}
    source, target = MemoryEnd("a", some(1, 3) | twins, features=LISTED_ONLY), MemoryEnd("b")
    before = counts(await done(path, source, target))
    async with await Ledger.open(path) as ledger:  # as `jobs.retry` does
        ledger.put("phase", "moving")
        await ledger.reset([State.FAILED, State.UNCONFIRMED])
    assert counts(await done(path, source, target)) == before == {State.DONE: 3, State.FAILED: 1}
    assert len(target.stored) == 3


async def test_what_came_unlisted_and_says_nothing_of_itself_is_not_pending_for_ever(path: Path) -> None:
    class Odd(MemoryEnd):
        async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
            async for one in super().open(wanted):
                if one.label == uid(1, 1, 2):
                    yield Unusable(one.label, Status.REFUSED, "cannot be read", 10)
                else:
                    yield one

    source, target = Odd("a", some(1, 3)), MemoryEnd("b")
    assert counts(await done(path, source, target)) == {State.DONE: 2, State.FAILED: 1}


# --- outages ----------------------------------------------------------------------------------------------------------


def breaks(end: MemoryEnd, method: str, *, after: int = 0, probes: int = 2) -> None:
    """Have an end go away at a call, and come back after so many probes."""
    calls = away = 0

    async def call(_: object) -> None:
        nonlocal calls, away
        calls += 1
        if calls > after and not away:
            away = 1
        if 0 < away <= probes:
            raise ConnectionFailed("gone")

    async def probe(_: object) -> None:
        nonlocal away
        if away:
            away += 1
            if away <= probes:
                raise ConnectionFailed("gone")

    end.before |= {method: call, "probe": probe}


@pytest.mark.parametrize(
    ("which", "method", "after"),
    [
        ("source", "studies", 0),
        ("source", "instances", 1),
        ("source", "open", 0),
        ("target", "store", 3),
        ("target", "instances", 0),
        ("target", "open", 0),
        ("target", "delete", 0),
    ],
)
async def test_an_outage_in_any_phase_is_waited_out(
    path: Path, which: str, method: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "OutagePatience", partial(OutagePatience, first_step=0.01, last_step=0.02))
    source, target = MemoryEnd("a", some(1, 3) | some(2, 3) | some(3, 2), features=LISTED_ONLY), MemoryEnd("b")
    how = {"verb": "sync", "delete": "copied", "max_delete": 1, "verify": "bytes", "attempts": 1}
    await done(path, MemoryEnd("a", some(3, 2)), target, **how)
    source.content -= some(3, 2)
    breaks(source if which == "source" else target, method, after=after)
    summary = await done(path, source, target, **how)
    assert counts(summary) == {State.DONE: 6, State.DELETED: 2}
    assert target.content == source.content
    assert any("works again" in note for note in summary.notes)


async def test_cancelled_anywhere_it_goes_on_to_the_same_end(path: Path) -> None:
    """Each call of an end is a moment to be ended at; what is known by then is in the ledger."""
    content = some(1, 3) | some(2, 4) | some(3, 2, series=2)
    how = {"verb": "sync", "delete": "copied", "max_delete": 1, "verify": "listed", "chunk": 2}
    for moment in range(1, 60):
        source, target = MemoryEnd("a", content), MemoryEnd("b")
        await done(path, MemoryEnd("a", some(4, 2)), target, **how)
        calls = 0
        ended = False

        async def call(_: object) -> None:
            nonlocal calls, ended
            calls += 1
            if calls >= moment and not ended:  # noqa: B023 - awaited within the loop
                ended = True
                job._working.cancel()  # noqa: B023
            await asyncio.sleep(0)

        for end in (source, target):
            end.before = dict.fromkeys(("studies", "instances", "open", "store", "delete"), call)
        job = await job_of(path, source, target, **how)
        with suppress(JobStopped):
            await job.wait()
        summary = await done(path, source, target, **how)
        there = counts(summary).get(State.PRESENT, 0)  # it was sent, and nobody heard so
        assert counts(summary) == {State.DONE: 9 - there, **({State.PRESENT: there} if there else {}), State.DELETED: 2}
        assert target.content == content
        assert asyncio.all_tasks() == {asyncio.current_task()}
        path.unlink()
        if not ended:
            return
    raise AssertionError("there are more moments")
