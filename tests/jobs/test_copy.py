"""Whole archives copied, verified and synced: what both ends hold in the end, and what the ledger says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from postdicom_async import (
    DicomWeb,
    InstanceUids,
    JobStopped,
    LedgerLocked,
    LedgerUnusable,
    LimitReached,
    UsageError,
    jobs,
)
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs import discovery, job_files
from postdicom_async.jobs.begin import VerifyLevel
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.end import Identified, ListedInstance, Selection
from postdicom_async.jobs.ends.specs import EndLike, end_of
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import Count, Summary
from tests.support.dicom_files import small_dicom, uid


def counts(summary: Summary) -> dict[State, int]:
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


async def held(what: EndLike) -> dict[str, set[str]]:
    """Return the SOP Instance UIDs that an end lists, by study."""
    async with end_of(what) as end:
        return {
            study.uid: {one.uid async for some in end.instances(study.uid) for one in some}
            async for listed in end.studies()
            for study in listed
        }


async def test_a_folder_is_copied_into_an_archive_and_a_second_run_sends_nothing(
    folder: Path, archive: EmbeddedArchive
) -> None:
    summary = await (await jobs.copy(folder, archive.url)).wait()
    assert counts(summary) == {State.DONE: 15, State.EXCLUDED: 1}
    assert summary.discovered == 16
    assert summary.verified == 15
    assert await held(archive.url) == await held(folder)
    again = await (await jobs.copy(folder, archive.url)).wait()
    assert counts(again) == {State.DONE: 15, State.EXCLUDED: 1}
    assert again.facts.run == 2


async def test_from_archive_to_archive_to_a_folder_every_byte_stays(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    await (await jobs.copy(folder, archive.url)).wait()
    await (await jobs.copy(archive.url, f"postdicom+{other_archive.url}", verify="bytes")).wait()
    summary = await (await jobs.copy(f"postdicom+{other_archive.url}", tmp_path / "out")).wait()
    assert counts(summary) == {State.DONE: 15}
    assert {path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")} == set(files.values())


async def test_what_the_target_has_is_not_sent_and_equal_counts_are_not_listed(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    await (await jobs.copy(folder, archive.url)).wait()
    first = uid(1)
    await (await jobs.copy(f"{archive.url}?StudyInstanceUID={first}", other_archive.url)).wait()
    summary = await (await jobs.copy(archive.url, other_archive.url)).wait()
    assert counts(summary) == {State.DONE: 10, State.PRESENT: 5}
    assert summary.equal_by_count == 1
    full = await (await jobs.copy(archive.url, other_archive.url, full=True, new=True)).wait()
    assert counts(full) == {State.PRESENT: 15}
    assert full.equal_by_count == 0


async def test_a_study_that_the_target_has_in_part_gets_the_rest(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    async with DicomWeb(archive.url) as client:
        await client.upload([data for number, data in enumerate(files.values()) if number % 2])
    summary = await (await jobs.copy(folder, archive.url)).wait()
    assert counts(summary) == {State.DONE: 8, State.PRESENT: 7, State.EXCLUDED: 1}
    assert await held(archive.url) == await held(folder)


async def test_outcomes_are_iterated_while_the_job_runs(folder: Path, archive: EmbeddedArchive) -> None:
    async with await jobs.copy(folder, archive.url) as job:
        seen = [item async for item in job]
    assert sorted(item.uid for item in seen if item.state is State.DONE) == sorted(
        one for some in (await held(archive.url)).values() for one in some
    )


async def test_a_dry_run_changes_nothing_and_the_run_does_just_that(folder: Path, archive: EmbeddedArchive) -> None:
    plans = [plan async for plan in jobs.dry_run(folder, archive.url)]
    assert await held(archive.url) == {}
    assert {plan.study: plan.to_move.instances for plan in plans} == {uid(1): 5, uid(2): 5, uid(3): 5}
    summary = await (await jobs.copy(folder, archive.url)).wait()
    assert summary.of(State.DONE) == Count(15, sum(plan.to_move.bytes for plan in plans))
    assert [plan.to_move.instances async for plan in jobs.dry_run(folder, archive.url)] == []


async def test_verify_finds_what_is_missing_and_what_differs(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    await (await jobs.copy(folder, archive.url)).wait()
    gone, changed, *_ = files
    async with DicomWeb(archive.url) as client:
        await client.delete_instance(*InstanceUids(uid(1), uid(1, 1), gone))
    flipped = bytearray(files[changed])
    flipped[-3] ^= 1
    next(path for path in folder.iterdir() if path.read_bytes() == files[changed]).write_bytes(flipped)
    summary = await (await jobs.verify(folder, archive.url, level="bytes")).wait()
    assert counts(summary) == {State.PRESENT: 13, State.FAILED: 2, State.EXCLUDED: 1}
    assert {(one.reason, one.examples) for one in summary.reasons if one.state is State.FAILED} == {
        (Reason.NOT_LISTED, (gone,)),
        (Reason.DIFFERENT, (changed,)),
    }


async def test_sync_deletes_what_it_copied_and_the_source_has_no_more(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    await (await jobs.copy(folder, archive.url)).wait()
    await (await jobs.sync(archive.url, other_archive.url, delete="copied")).wait()
    async with DicomWeb(archive.url) as client:
        await client.delete_instance(uid(1), uid(1, 1), uid(1, 1, 1))
    with pytest.raises(LimitReached, match="nothing was deleted"):
        await (await jobs.sync(archive.url, other_archive.url, delete="copied")).wait()
    assert len((await held(other_archive.url))[uid(1)]) == 5
    summary = await (await jobs.sync(archive.url, other_archive.url, delete="copied", max_delete=0.5)).wait()
    assert counts(summary) == {State.DONE: 14, State.DELETED: 1}
    assert await held(other_archive.url) == await held(archive.url)
    async with DicomWeb(archive.url) as client:
        await client.delete_study(uid(2))
    await (await jobs.sync(archive.url, other_archive.url, delete="copied", max_delete=0.5)).wait()
    assert await held(other_archive.url) == await held(archive.url)


async def test_sync_deletes_nothing_that_it_did_not_copy_and_nothing_where_the_source_is_empty(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    async with DicomWeb(other_archive.url) as client:
        await client.upload([small_dicom(uid(9), uid(9, 1), uid(9, 1, 1))])
    await (await jobs.sync(archive.url, other_archive.url, delete="all", max_delete=1)).wait()
    assert await held(other_archive.url) == {uid(9): {uid(9, 1, 1)}}
    await (await jobs.copy(folder, archive.url)).wait()
    await (await jobs.sync(archive.url, other_archive.url, delete="copied", max_delete=1)).wait()
    assert uid(9) in await held(other_archive.url)
    await (await jobs.sync(archive.url, other_archive.url, delete="all", max_delete=1)).wait()
    assert await held(other_archive.url) == await held(archive.url)


async def test_delete_all_deletes_nothing_outside_the_filters(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    await (await jobs.copy(folder, archive.url)).wait()
    async with DicomWeb(other_archive.url) as client:
        await client.upload([small_dicom(uid(9), uid(9, 1), uid(9, 1, 1)), *list(files.values())[:5]])
    async with DicomWeb(archive.url) as client:
        await client.delete_instance(uid(1), uid(1, 1), uid(1, 1, 1))
    bounds = f"?StudyInstanceUID={uid(1)}"
    with pytest.raises(UsageError, match="filters"):
        await jobs.sync(archive.url + bounds, other_archive.url, delete="all", max_delete=1)
    with pytest.raises(UsageError, match="filters"):
        [plan async for plan in jobs.dry_run(archive.url + bounds, other_archive.url, verb="sync", delete="all")]
    ends = archive.url + bounds, other_archive.url + bounds
    await (await jobs.sync(*ends, delete="all", max_delete=1)).wait()
    left = await held(other_archive.url)
    assert left[uid(9)] == {uid(9, 1, 1)}
    assert left[uid(1)] == (await held(archive.url))[uid(1)]


async def test_source_and_target_must_differ_and_exist(folder: Path, archive: EmbeddedArchive) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    with pytest.raises(UsageError, match="the same place"):
        await jobs.copy(folder, link)
    with pytest.raises(UsageError, match="the same place"):
        await jobs.copy(archive.url, f"{archive.url}/")
    with pytest.raises(UsageError, match="does not exist"):
        await (await jobs.copy(folder / "nowhere", archive.url)).wait()


async def test_a_job_of_one_pair_is_not_gone_on_with_for_another(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, tmp_path: Path
) -> None:
    ledger = tmp_path / "one.ledger"
    await (await jobs.copy(folder, archive.url, job=ledger)).wait()
    before = ledger.read_bytes()
    with pytest.raises(LedgerUnusable):
        await jobs.copy(folder, other_archive.url, job=ledger)
    assert ledger.read_bytes() == before
    notes = tmp_path / "notes.txt"
    notes.write_text("nothing of DICOM")
    with pytest.raises(LedgerUnusable):
        await jobs.copy(folder, archive.url, job=notes, new=True)
    assert notes.read_text() == "nothing of DICOM"


async def test_jobs_of_two_accounts_have_ledgers_of_their_own(folder: Path, archive: EmbeddedArchive) -> None:
    """One from before goes on as its own account's, by the same call and by its name."""

    async def ledger_of(user: str) -> Path:
        target = archive.url.replace("//", f"//{user}@" if user else "//")
        job = await jobs.copy(folder, target, ask=lambda _: "secret")
        await job.wait()
        return job.path

    alice, bob, older = await ledger_of("alice"), await ledger_of("bob"), await ledger_of("")
    assert len({alice, bob, older}) == 3
    assert await ledger_of("alice") == alice
    assert not [path for path in alice.parent.rglob("*") if "alice" in path.name]
    for path in alice.parent.glob(f"{alice.name}*"):  # as if an earlier version had made it, for alice
        path.rename(path.with_name(path.name.replace(alice.name, older.name)))
    bob.unlink()
    assert [await ledger_of("alice"), await ledger_of("bob")] == [older, bob]
    resumed = await jobs.resume(older.stem, ask=lambda _: "secret")
    assert (await resumed.wait()).facts.run == 4
    job_files.ResumeFile(older).write({"source": None})  # of a client, so that nobody knows whose it was
    assert await ledger_of("carol") == older


async def test_two_jobs_of_one_pair_do_not_run_at_once(folder: Path, archive: EmbeddedArchive) -> None:
    async with await jobs.copy(folder, archive.url) as job:
        job.pause()
        with pytest.raises(LedgerLocked):
            await jobs.copy(folder, archive.url)


async def test_what_was_stopped_goes_on_where_it_stood(folder: Path, archive: EmbeddedArchive) -> None:
    job = await jobs.copy(folder, archive.url)
    async with job:
        async for _ in job:
            break
    middle = job.summary()
    assert sum(counts(middle).values()) == middle.discovered
    again = await (await jobs.resume(job.path)).wait()
    assert counts(again) == {State.DONE: 15, State.EXCLUDED: 1}
    assert again.facts.run == 1


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which studies' instances are listed."""
    found: list[str] = []
    before = ArchiveEnd.instances

    async def instances(self: ArchiveEnd, study: str) -> AsyncIterator[list[ListedInstance]]:
        found.append(study)
        async for some in before(self, study):
            yield some

    monkeypatch.setattr(ArchiveEnd, "instances", instances)
    return found


async def test_a_study_that_the_target_has_nothing_of_is_not_listed(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, listed: list[str]
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    summary = await (await jobs.copy(archive.url, other_archive.url, verify="none")).wait()
    assert counts(summary) == {State.DONE: 15}
    assert summary.discovered == 15
    assert listed == []
    again = await (await jobs.copy(archive.url, other_archive.url, verify="none")).wait()
    assert counts(again) == {State.DONE: 15}
    assert listed == []


async def test_one_that_does_not_come_whole_is_listed_after_all(
    folder: Path,
    archive: EmbeddedArchive,
    other_archive: EmbeddedArchive,
    listed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    before = ArchiveEnd.open

    async def opened(self: ArchiveEnd, wanted: Selection) -> AsyncIterator[Identified]:
        async for number, one in as_numbered(before(self, wanted)):
            if number or wanted.instances:  # whole studies lack their first instance
                yield one

    monkeypatch.setattr(ArchiveEnd, "open", opened)
    summary = await (await jobs.copy(archive.url, other_archive.url, verify="none")).wait()
    assert counts(summary) == {State.DONE: 15}
    assert set(listed) == {uid(1), uid(2), uid(3)}
    assert await held(archive.url) == await held(other_archive.url)


async def as_numbered(each: AsyncIterator[Identified]) -> AsyncIterator[tuple[int, Identified]]:
    number = 0
    async for one in each:
        yield number, one
        number += 1


async def test_a_stricter_proof_than_before_looks_at_everything_again(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    await (await jobs.copy(folder, archive.url)).wait()
    changed = next(iter(files))
    flipped = bytearray(files[changed])
    flipped[-3] ^= 1
    archive.store.instance(changed).path.write_bytes(flipped)  # type: ignore[union-attr]
    summary = await (await jobs.copy(folder, archive.url, verify="bytes")).wait()
    assert counts(summary) == {State.DONE: 14, State.FAILED: 1, State.EXCLUDED: 1}
    assert [one.examples for one in summary.reasons if one.reason == Reason.DIFFERENT] == [(changed,)]


async def test_a_sample_is_compared_and_always_the_same(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    for name, data in files.items():
        flipped = bytearray(data)
        flipped[-3] ^= 1
        archive.store.instance(name).path.write_bytes(flipped)  # type: ignore[union-attr]
    found = [
        counts(await (await jobs.verify(folder, archive.url, level="bytes", sample=share, new=True)).wait())
        for share in (0.3, 0.3, 1.0)
    ]
    assert 0 < found[0][State.FAILED] < 15
    assert found[0] == found[1]
    assert found[2][State.FAILED] == 15


async def test_a_larger_sample_verifies_again_what_was_verified_before(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    ledger = tmp_path / "job.db"
    await (await jobs.copy(folder, archive.url, verify="bytes", sample=0.01, job=ledger)).wait()
    for name, data in files.items():
        archive.store.instance(name).path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])  # type: ignore[union-attr]
    again = await (await jobs.copy(folder, archive.url, verify="bytes", job=ledger)).wait()
    assert counts(again)[State.FAILED] == 15


@pytest.mark.parametrize(("first", "then"), [("bytes", "listed"), ("listed", "bytes")])
async def test_a_run_that_is_gone_on_with_claims_what_its_last_command_verified(
    folder: Path, archive: EmbeddedArchive, tmp_path: Path, first: VerifyLevel, then: VerifyLevel
) -> None:
    ledger = tmp_path / "job.db"
    async with await jobs.copy(folder, archive.url, verify=first, job=ledger) as job:
        async for _ in job:
            break  # which stops it
    summary = await (await jobs.copy(folder, archive.url, verify=then, job=ledger)).wait()
    assert (summary.facts.run, summary.facts.verify, summary.verified) == (1, then, 15)


async def test_a_target_that_has_far_more_is_asked_for_each_study(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    async with DicomWeb(other_archive.url) as client:
        await client.upload([small_dicom(uid(n), uid(n, 1), uid(n, 1, 1)) for n in range(3, 9)])
    monkeypatch.setattr(discovery, "_FEW", 0)
    monkeypatch.setattr(discovery, "_MANY_MORE", 1)
    summary = await (await jobs.copy(archive.url, other_archive.url)).wait()
    assert summary.of(State.DONE).instances + summary.of(State.PRESENT).instances == 15
    assert (await held(other_archive.url))[uid(3)] >= (await held(archive.url))[uid(3)]


async def test_a_job_that_was_told_to_stop_says_so(folder: Path, archive: EmbeddedArchive) -> None:
    job = await jobs.copy(folder, archive.url)
    job.pause()
    waiting = asyncio.create_task(job.wait())
    await asyncio.sleep(0)
    await job.stop()
    with pytest.raises(JobStopped, match="goes on where it stopped"):
        await waiting
    summary = await (await jobs.resume(job.path)).wait()
    assert counts(summary) == {State.DONE: 15, State.EXCLUDED: 1}
