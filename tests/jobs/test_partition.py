"""A job in parts, and back in one: nothing is lost, nothing comes twice, and the sums add up."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from postdicom_async import jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.errors import LedgerLocked, LedgerUnusable, UsageError
from postdicom_async.jobs import job_files
from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.partition import merge, partition
from postdicom_async.jobs.ledger.schema import ItemRow, Stage
from postdicom_async.jobs.plan import ItemEnd
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import ItemLine
from tests.jobs.ledgers import assert_adds_up, filled, reader


async def job(path: Path, studies: int = 11) -> None:
    """Make a job that has begun to move: with studies of every kind, and what is no instance."""
    async with await filled(path, studies=studies) as ledger:
        first = (await ledger.studies(Stage.PLANNED))[0]
        keys = [(item.series, item.uid) for item in await ledger.items(first.id)]
        ledger.run_items(first.id, keys)
        ledger.settle(first.id, [ItemEnd(*key, State.DONE) for key in keys])
        await ledger.note_studies(
            [ListedStudy("2.1", "20200101", 5), ListedStudy("2.2", "", 6)], at_target=False, run=1
        )
        equal = await ledger.study("2.1")
        nothing = await ledger.study("")
        assert equal is not None
        assert nothing is not None
        ledger.set_stage(equal.id, Stage.EQUAL, planned=5)
        ledger.plan(nothing.id, [ItemRow("", "d1gest", State.EXCLUDED, Reason.NOT_DICOM, size=9)])
        ledger.put("phase", "moving")
        ledger.put("seconds", 100.0)


async def run(path: Path, seconds: float = 60.0) -> int:
    """Move what is pending in a part; what was found and not planned is planned with one instance more."""
    moved = 0
    async with await Ledger.open(path, identity="of another machine") as ledger:
        for stage in (Stage.FOUND, Stage.PLANNED):
            for study in await ledger.studies(stage):
                if stage is Stage.FOUND:
                    ledger.plan(
                        study.id, [ItemRow(f"{study.uid}.7", f"{study.uid}.{n}", State.PENDING) for n in range(7)]
                    )
                keys = [(one.series, one.uid) for one in await ledger.items(study.id, states=[State.PENDING])]
                ledger.run_items(study.id, keys)
                ledger.settle(study.id, [ItemEnd(*key, State.DONE, size=50) for key in keys[:-1]])
                ledger.settle(study.id, [ItemEnd(*key, State.FAILED, Reason.REFUSED) for key in keys[-1:]])
                ledger.set_stage(study.id, Stage.MOVED)
                ledger.note_verified(study.id, max(0, len(keys) - 1))
                moved += len(keys)
        ledger.put("phase", "complete")
        ledger.put("seconds", seconds)
        ledger.note("done")
        ledger.note_coerced(["00100020"])
    return moved


def items_of(path: Path) -> list[ItemLine]:
    with reader(path) as one:
        return sorted(one.items())


@pytest.mark.parametrize("parts", [2, 3, 13])
async def test_split_run_apart_and_joined(tmp_path: Path, parts: int) -> None:
    path = tmp_path / "job.ledger"
    await job(path)
    before = items_of(path)
    made = await partition(path, parts, tmp_path / "parts")
    assert len(made) == parts
    assert stat.S_IMODE(made[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(made[0].parent.stat().st_mode) == 0o700
    assert (
        sorted([line for part in made for line in items_of(part)] + [line for line in before if not line.study])
        == before
    )
    for part in made:
        assert_adds_up(part)
    assert_adds_up(path)
    with pytest.raises(LedgerUnusable, match="parts of this job are out"):
        await Ledger.open(path)
    with pytest.raises(LedgerUnusable, match="parts of this job are out"):
        await partition(path, 2, tmp_path / "again")
    moved = [await run(part, seconds) for seconds, part in enumerate(made)]
    assert await merge(path, made[:1]) == parts - 1
    assert_adds_up(path)
    with pytest.raises(LedgerUnusable, match="back already"):
        await merge(path, made[:1])
    assert await merge(path, made[1:]) == 0
    assert_adds_up(path)
    with reader(path) as one:
        summary = one.summary()
    assert summary.of(State.PENDING).instances == summary.of(State.RUNNING).instances == 0
    assert summary.discovered == len(before) + 5 + 7
    assert summary.of(State.FAILED).instances == 11
    assert sum(moment.instances for moment in summary.moments) == sum(moved) - 11 + 4
    assert (summary.studies, summary.equal_by_count, summary.expected) == (13, 1, 0)
    assert summary.verified == sum(moved) - 11
    assert summary.seconds == 100 + parts - 1
    assert summary.coerced == {"00100020": parts}
    assert summary.facts.phase == "complete"
    with pytest.raises(LedgerUnusable, match="no part of this job is out"):
        await merge(path, made[:1])
    async with await Ledger.open(path, identity="0123") as ledger:
        study = await ledger.study("2.2")
        assert study is not None
        assert len(await ledger.items(study.id)) == 7
        await ledger.note_studies([ListedStudy("3.1", "20240101", 1)], at_target=False, run=2)
    assert_adds_up(path)


async def test_a_part_that_was_killed_is_joined_as_far_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "job.ledger"
    await job(path, studies=4)
    one, two = await partition(path, 2, tmp_path / "parts")
    async with await Ledger.open(one) as ledger:
        with pytest.raises(LedgerLocked):
            await merge(path, [one])
        study = (await ledger.studies(Stage.PLANNED))[-1]
        ledger.run_items(study.id, [(item.series, item.uid) for item in await ledger.items(study.id)])
        ledger.put("phase", "moving")
    await run(two)
    assert await merge(path, [two, one]) == 0
    assert_adds_up(path)
    with reader(path) as read:
        assert read.summary().facts.phase == "moving"
        assert State.RUNNING not in read.summary().counts
        assert State.PENDING in read.summary().counts


async def test_what_is_no_part_of_the_job_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "job.ledger", tmp_path / "other.ledger"
    await job(path)
    await job(other)
    made = await partition(path, 2, tmp_path / "parts")
    of_other = await partition(other, 2, tmp_path / "parts of other")
    before = path.read_bytes()
    for wrong in (of_other[0], tmp_path / "none.ledger"):
        with pytest.raises(LedgerUnusable):
            await merge(path, [wrong])
    with pytest.raises(LedgerUnusable, match="parts of this job are out"):
        await merge(path, [path.with_name("other.ledger")])
    database = sqlite3.connect(made[0])
    database.execute("DELETE FROM study WHERE id = (SELECT max(id) FROM study)")
    database.commit()
    database.close()
    with pytest.raises(LedgerUnusable):
        await merge(path, [made[0]])
    assert path.read_bytes() == before
    with pytest.raises(LedgerUnusable, match=r"back already|named twice"):
        await merge(path, [made[1], made[1]])
    assert_adds_up(path)


async def test_what_cannot_be_split_is_left_whole(tmp_path: Path) -> None:
    path = tmp_path / "job.ledger"
    async with await filled(path):
        with pytest.raises(LedgerLocked):
            await partition(path, 2, tmp_path / "parts")
    with pytest.raises(UsageError, match="not found all studies"):
        await partition(path, 2, tmp_path / "parts")
    async with await Ledger.open(path) as ledger:
        ledger.put("phase", "moving")
    for number, words in ((1, "from 2"), (4, "3 studies"), (2000, "to 1000")):
        with pytest.raises(UsageError, match=words):
            await partition(path, number, tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "job.part2of2.ledger").write_text("mine")
    with pytest.raises(UsageError, match="another folder"):
        await partition(path, 2, tmp_path / "parts")
    assert [file.name for file in (tmp_path / "parts").iterdir()] == ["job.part2of2.ledger"]
    async with await Ledger.open(path):
        pass


async def test_what_lies_beside_goes_along_and_parts_delete_nothing(tmp_path: Path) -> None:
    path = tmp_path / "job.ledger"
    await job(path)
    job_files.ResumeFile(path).write({"source": {"kind": "folder"}, "delete": "copied"})
    database = sqlite3.connect(job_files.beside(path, "source"))
    database.execute("CREATE TABLE files (path)")
    database.execute("INSERT INTO files VALUES ('a')")
    database.commit()
    database.close()
    made = await partition(path, 2, tmp_path / "parts")
    for part in made:
        assert job_files.ResumeFile(part).read() == {"source": {"kind": "folder"}, "delete": ""}
        index = job_files.beside(part, "source")
        assert stat.S_IMODE(index.stat().st_mode) == 0o600
        copy = sqlite3.connect(index)
        assert copy.execute("SELECT * FROM files").fetchall() == [("a",)]
        copy.close()


async def test_parts_of_a_real_job_are_run_joined_and_gone_on_with(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    path, out = tmp_path / "job.ledger", tmp_path / "out"
    out.mkdir()
    await (await jobs.copy(folder, archive.url)).wait()
    await (await jobs.copy(archive.url, out, job=path)).wait()
    shutil.rmtree(out)
    out.mkdir()
    async with await Ledger.open(path) as ledger:  # as if it had been killed before the first instance
        await ledger.reset([State.DONE])
        ledger.put("phase", "moving")
    made = await partition(path, 2, tmp_path / "parts")
    with pytest.raises(LedgerUnusable, match="parts of this job are out"):
        await jobs.copy(archive.url, out, job=path)
    for part in made:
        summary = await (await jobs.resume(part)).wait()
        assert summary.of(State.DONE).instances == summary.discovered > 0
        assert (await (await jobs.resume(part)).wait()).facts.run == summary.facts.run, "it is not begun anew"
    assert await merge(path, made) == 0
    assert {file.read_bytes() for file in out.rglob("*.dcm")} == set(files.values())
    summary = await (await jobs.copy(archive.url, out, job=path)).wait()
    assert (summary.of(State.DONE).instances, summary.discovered, summary.facts.run) == (15, 15, 2)
    assert_adds_up(path)
