"""Jobs killed by SIGKILL at every named point, in real processes: whoever comes after ends where a whole run would."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from postdicom_async import DicomWeb, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Summary
from tests.jobs.killed import POINTS
from tests.support.dicom_files import uid
from tests.support.large import large
from tests.support.warm import run_warm

OF_FOLDERS = {
    "temporary file made",
    "bytes written",
    "before fsync",
    "after fsync",
    "before rename",
    "after rename",
    "folder durable",
}
OF_UPLOADS = {"body begun", "body sent", "before the answer", "after the answer", "answer read"}
OF_DOWNLOADS = {"header read", "part whole"}
OF_DELETES = {"delete planned", "before delete", "after delete"}


async def killed(point: str, number: int, verb: str, source: str, target: str) -> bool:
    """Run a job in a process of its own; return whether it met the point."""
    code = await run_warm("tests.jobs.killed", point, str(number), verb, source, target)
    assert code in (0, -signal.SIGKILL), "it ended otherwise"
    return code != 0


def counts(summary: Summary) -> dict[State, int]:
    assert summary.discovered == sum(count.instances for count in summary.counts.values())
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".part" in path.name]


@pytest.mark.parametrize("number", [1, large(3)])
@pytest.mark.parametrize("point", sorted(POINTS.keys() - OF_FOLDERS - OF_DOWNLOADS - OF_DELETES - {"ledger opened"}))
async def test_a_folder_into_an_archive(
    point: str, number: int, folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    met = await killed(point, number, "copy", str(folder), archive.url)
    assert met or number > 1, "the point was not met"
    if met:
        await killed(point, number, "copy", str(folder), archive.url)  # and again while it goes on
    summary = await (await jobs.copy(folder, archive.url)).wait()
    found = counts(summary)
    assert found.pop(State.EXCLUDED) == 1
    assert found.get(State.DONE, 0) + found.get(State.PRESENT, 0) == 15
    async with DicomWeb(archive.url) as client:
        stored = await client.search_for_instances().all()
    assert sorted(one.SOPInstanceUID for one in stored) == sorted(files)


# A study that the target has nothing of is not listed, so that the points of listing are not met.
@pytest.mark.parametrize(
    "point", sorted(POINTS.keys() - OF_UPLOADS - OF_DELETES - {"ledger opened", "study listed", "study planned"})
)
async def test_an_archive_into_a_folder(
    point: str, folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    out = tmp_path / "out"
    assert await killed(point, 2 if point in OF_FOLDERS else 1, "copy", archive.url, str(out))
    summary = await (await jobs.copy(archive.url, out)).wait()
    found = counts(summary)
    assert found.get(State.DONE, 0) + found.get(State.PRESENT, 0) == sum(found.values()) == 15
    assert sorted(path.read_bytes() for path in out.rglob("*.dcm")) == sorted(files.values())
    assert not left_over(out)


@pytest.mark.parametrize("point", sorted(OF_DELETES | {"ledger opened", "after the commit"}))
async def test_a_sync_that_deletes(
    point: str, folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    await (await jobs.sync(archive.url, other_archive.url, delete="copied", max_delete=1)).wait()
    async with DicomWeb(archive.url) as client:
        await client.delete_study(uid(2))
    assert await killed(point, 1, "sync", archive.url, other_archive.url)
    summary = await (await jobs.sync(archive.url, other_archive.url, delete="copied", max_delete=1)).wait()
    assert sum(counts(summary).values()) == 15
    async with DicomWeb(other_archive.url) as client:
        left = {one.StudyInstanceUID for one in await client.search_for_studies().all()}
    assert left == {uid(1), uid(3)}


@pytest.mark.parametrize("point", ["page noted", "before the commit", "after the commit", "verification begun"])
async def test_a_verification(point: str, folder: Path, archive: EmbeddedArchive) -> None:
    archive.add_files(path for path in folder.iterdir() if path.suffix == ".dcm")
    assert await killed(point, 1, "verify", str(folder), archive.url)
    summary = await (await jobs.verify(folder, archive.url, level="bytes")).wait()
    assert counts(summary) == {State.PRESENT: 15, State.EXCLUDED: 1}
    assert summary.verified == 15
