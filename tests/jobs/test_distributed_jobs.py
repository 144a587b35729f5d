"""Whole archives moved by workers on several machines, which die, as the scheduler does: the target is exact."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from postdicom_async import Anonymization, ConnectionFailed, DicomWeb, UsageError, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs import Pace, Scheduler, State, Summary
from tests.jobs.cluster import Cluster, running_cluster
from tests.support.dicom_files import study_files
from tests.support.faulty_server import unused_port

STUDIES, FEW, EACH = 40, 6, 5


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    with running_cluster(tmp_path / "cluster", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="3") as cluster:
        yield cluster


@pytest.fixture
async def full(archive: EmbeddedArchive) -> EmbeddedArchive:
    """Give an archive with many studies."""
    async with DicomWeb(archive.url) as client:
        for study in range(1, STUDIES + 1):
            await client.upload(list(study_files(EACH, study=study).values()))
    return archive


@pytest.fixture
async def few(archive: EmbeddedArchive) -> EmbeddedArchive:
    """Give an archive with some studies."""
    async with DicomWeb(archive.url) as client:
        for study in range(1, FEW + 1):
            await client.upload(list(study_files(EACH, study=study).values()))
    return archive


def counts(summary: Summary) -> dict[State, int]:
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


def done(job: jobs.Job) -> int:
    return counts(job.summary()).get(State.DONE, 0)


async def until_done(job: jobs.Job, count: int) -> None:
    async with asyncio.timeout(40):
        while await asyncio.to_thread(done, job) < count:
            assert job.is_running
            await asyncio.sleep(0.05)


def contents(archive: EmbeddedArchive) -> dict[str, bytes]:
    """Return every file that an archive holds, by SOP Instance UID."""
    held = archive.store.instances()
    assert len({one.uids.sop_instance_uid for one in held}) == len(held)
    return {one.uids.sop_instance_uid: one.path.read_bytes() for one in held}


async def test_workers_and_the_scheduler_are_killed_and_the_target_is_exact(
    cluster: Cluster, full: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    pace = Pace(max_rate=100_000)
    async with await jobs.copy(full.url, other_archive.url, pace=pace, scheduler=Scheduler(cluster.address)) as job:
        await until_done(job, 10)
        cluster.workers[0].kill()
        await until_done(job, 40)
        cluster.kill_scheduler()
        await asyncio.sleep(1)
        cluster.start_scheduler()
        await until_done(job, 80)
        cluster.workers[1].kill()
        pace.set(max_rate=0)
        summary = await job.wait()
    assert counts(summary) == {State.DONE: STUDIES * EACH}
    assert summary.discovered == summary.verified == STUDIES * EACH
    assert summary.of(State.DONE).bytes == sum(map(len, contents(full).values()))
    assert contents(other_archive) == contents(full)
    assert any("scheduler is lost" in note for note in summary.notes)
    assert any("scheduler is back" in note for note in summary.notes)


async def test_the_rate_holds_for_all_workers_together(
    cluster: Cluster, few: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    rate = 10_000
    sizes = [len(data) for data in contents(few).values()]
    began = time.monotonic()
    scheduler = Scheduler(cluster.address)
    async with await jobs.copy(few.url, other_archive.url, pace=Pace(max_rate=rate), scheduler=scheduler) as job:
        summary = await job.wait()
    assert counts(summary) == {State.DONE: FEW * EACH}
    # What may come at once: a second of the rate, half of it more if the second worker came later, and of each worker
    # the instance that was begun.
    assert time.monotonic() - began >= (sum(sizes) - 2 * max(sizes)) / rate - 1.5


async def test_the_coordinator_is_stopped_and_goes_on(
    cluster: Cluster, full: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    scheduler = Scheduler(cluster.address)
    async with await jobs.copy(full.url, other_archive.url, pace=Pace(max_rate=100_000), scheduler=scheduler) as job:
        await until_done(job, 20)
    async with await jobs.copy(full.url, other_archive.url, verify="bytes", scheduler=scheduler) as job:
        summary = await job.wait()
    assert counts(summary) == {State.DONE: STUDIES * EACH}
    assert contents(other_archive) == contents(full)


async def test_the_command_is_killed_and_the_same_command_goes_on(
    cluster: Cluster, full: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    command = [
        sys.executable,
        "-m",
        "postdicom_async.cli",
        "copy",
        full.url,
        other_archive.url,
        "--scheduler",
        cluster.address,
    ]
    first = await asyncio.create_subprocess_exec(*command, "--max-rate", "100k", stderr=PIPE, stdout=PIPE)
    async with asyncio.timeout(40):
        while len(contents(other_archive)) < 20:
            await asyncio.sleep(0.02)
    first.kill()
    await first.communicate()
    assert len(contents(other_archive)) < STUDIES * EACH
    again = await asyncio.create_subprocess_exec(*command, "--json", "--quiet", stderr=PIPE, stdout=PIPE)
    out, error = await again.communicate()
    assert (again.returncode, error) == (0, b"")
    assert f'"done": {STUDIES * EACH}' in out.decode()
    assert contents(other_archive) == contents(full)


async def test_from_a_folder_to_a_folder_that_all_share(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    async with await jobs.copy(folder, tmp_path / "out", scheduler=Scheduler(cluster.address)) as job:
        summary = await job.wait()
    assert counts(summary) == {State.DONE: 15, State.EXCLUDED: 1}
    there = {path.read_bytes() for path in folder.glob("*.dcm")}
    assert {path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")} == there


# --- anonymised ------------------------------------------------------------------------------------------------------

SECRET = "a secret of the tests"


@pytest.mark.parametrize("rules", [{"PatientName": "ANON"}, {}])
async def test_what_is_anonymised_on_several_machines_is_as_here(
    few: EmbeddedArchive, other_archive: EmbeddedArchive, tmp_path: Path, rules: dict[str, str | None]
) -> None:
    anonymize = Anonymization(rules, remap_uids=True, secret=SECRET)
    (tmp_path / "cluster").mkdir()
    async with EmbeddedArchive(username=None, password=None) as here:
        await (await jobs.copy(few.url, here.url, anonymize=anonymize)).wait()
        with running_cluster(tmp_path / "cluster", POSTDICOM_ANONYMIZE_SECRET=SECRET) as cluster:
            scheduler = Scheduler(cluster.address)
            async with await jobs.copy(few.url, other_archive.url, anonymize=anonymize, scheduler=scheduler) as job:
                summary = await job.wait()
            assert SECRET not in cluster.logs()
        assert counts(summary) == {State.DONE: FEW * EACH}
        assert contents(other_archive) == contents(here)


@pytest.mark.parametrize(
    ("theirs", "says"),
    [({}, "has no secret"), ({"POSTDICOM_ANONYMIZE_SECRET": "another one"}, "has another secret or table")],
)
async def test_a_worker_without_the_secret_changes_nothing(
    few: EmbeddedArchive, other_archive: EmbeddedArchive, tmp_path: Path, theirs: dict[str, str], says: str
) -> None:
    anonymize = Anonymization(remap_uids=True, secret=SECRET)
    (tmp_path / "cluster").mkdir()
    with running_cluster(tmp_path / "cluster", workers=1, **theirs) as cluster:
        scheduler = Scheduler(cluster.address)
        async with await jobs.copy(few.url, other_archive.url, anonymize=anonymize, scheduler=scheduler) as job:
            with pytest.raises(UsageError, match=f"on a worker: anonymize: this machine {says}"):
                await job.wait()
    assert not contents(other_archive)


async def test_uids_that_every_worker_would_make_anew_are_refused(
    few: EmbeddedArchive, other_archive: EmbeddedArchive
) -> None:
    scheduler = Scheduler("tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"^anonymize: give a secret"):
        await jobs.copy(few.url, other_archive.url, anonymize=Anonymization(remap_uids=True), scheduler=scheduler)


async def test_a_client_cannot_be_sent_to_workers(archive: EmbeddedArchive) -> None:
    with pytest.raises(UsageError, match=r"^scheduler: name both ends by profile, address or path"):
        await jobs.copy(
            DicomWeb(archive.url), "https://other.example/dicom-web", scheduler=Scheduler("tcp://127.0.0.1:1")
        )


async def test_a_scheduler_that_is_not_there_is_said_and_the_job_goes_on_later(
    few: EmbeddedArchive, other_archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postdicom_async.jobs.machines.dispatcher.ANSWERS_WITHIN", 1.0)
    scheduler = Scheduler(f"tcp://127.0.0.1:{unused_port()}")
    async with await jobs.copy(few.url, other_archive.url, scheduler=scheduler) as job:
        with pytest.raises(ConnectionFailed, match=r"^scheduler: nothing answers"):
            await job.wait()
    summary = await (await jobs.copy(few.url, other_archive.url)).wait()
    assert counts(summary) == {State.DONE: FEW * EACH}
