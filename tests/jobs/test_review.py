"""What the engine of jobs must bear that no server shows every day: moments, orders and lists that are unlikely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from postdicom_async import DicomWeb, LimitReached, LocalFileError, Status, UsageError, jobs
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.disk.sources import Usable
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.context import How
from postdicom_async.jobs.ends import Feature, Identified, ListedInstance, ListedStudy, Wanted
from postdicom_async.jobs.job import Job, JobParts
from postdicom_async.jobs.ledger import Ledger
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

    async def open(self, wanted: Wanted) -> AsyncGenerator[Identified, None]:
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
            assert isinstance(one, Usable)
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
    asked = How(**{"verify": "none", "wave": lambda _: 0.0, **how})
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
    with pytest.raises(asyncio.CancelledError):
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
