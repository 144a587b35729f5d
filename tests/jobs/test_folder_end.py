"""A folder as an end of a job: what it lists, gives, takes and deletes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from postdicom_async.errors import LedgerUnusable, LocalFileError, UsageError
from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ends.folder import FolderEnd
from postdicom_async.jobs.states import Reason
from postdicom_async.results import InstanceUids, Status
from tests.jobs.folders import excluded, files_below, instances, opened, stored, studies, written
from tests.support.dicom_files import small_dicom, study_files, uid


async def test_files_without_extension_are_listed_and_opened(tmp_path: Path) -> None:
    files = study_files(5, series=2) | study_files(3, study=2)
    written(tmp_path, {f"some where/IM{number}": data for number, data in enumerate(files.values())})
    async with FolderEnd(tmp_path) as end:
        assert await studies(end) == [ListedStudy(uid(1), "20200102", 5), ListedStudy(uid(2), "20200102", 3)]
        assert await end.study(uid(2)) == ListedStudy(uid(2), "20200102", 3)
        assert await end.study(uid(3)) is None
        assert await instances(end, uid(3)) == []
        listed = await instances(end, uid(1))
        assert {(one.series, one.uid, one.size) for one in listed} == {
            (uid(1, 1 + n % 2), uid(1, 1 + n % 2, n + 1), len(files[uid(1, 1 + n % 2, n + 1)])) for n in range(5)
        }
        assert await opened(end, uid(1), listed) == {one.uid: files[one.uid] for one in listed}
        assert await excluded(end) == []


async def test_every_file_is_one_item(tmp_path: Path) -> None:
    one = small_dicom()
    other = small_dicom(patient_name="OTHER^NAME")
    written(
        tmp_path,
        {
            "b": one,
            "c/copy": one,
            "d/other": other,
            "readme.txt": b"not DICOM",
            "empty": b"",
            "cut": small_dicom(instance=uid(1, 1, 2))[:-100],
        },
    )
    async with FolderEnd(tmp_path) as end:
        assert [one.place for one in await instances(end, uid(1))] == ["b"]
        found = await excluded(end)
        assert {one.place: one.flaw for one in found} == {
            "c/copy": Reason.DUPLICATE_FILE,
            "d/other": Reason.OTHER_CONTENT,
            "readme.txt": Reason.NOT_DICOM,
            "empty": Reason.NOT_DICOM,
            "cut": Reason.UNREADABLE,
        }
        assert len({one.uid for one in found}) == 5
        assert all(len(one.uid) == 16 and int(one.uid, 16) >= 0 and not one.series for one in found)
        (tmp_path / "b").unlink()
        await end.refresh()
        assert [one.place for one in await instances(end, uid(1))] == ["c/copy"]
        assert {one.place: one.flaw for one in await excluded(end)}["d/other"] == Reason.OTHER_CONTENT


async def test_stored_files_lie_where_the_layout_says(tmp_path: Path) -> None:
    files = study_files(40, series=3)
    root = tmp_path / "to" / "here"
    async with FolderEnd(root, target=True) as end:
        assert await studies(end) == []
        outcomes = await stored(end, files.values())
        assert {outcome.where for outcome in outcomes} == set(files)
        assert {outcome.status for outcome in outcomes} == {Status.SAVED}
        assert await end.study(uid(1)) == ListedStudy(uid(1), "20200102", 40)
        assert {outcome.status for outcome in await stored(end, files.values())} == {Status.PRESENT}
        assert len(await instances(end, uid(1))) == 40
    below = files_below(root)
    assert {Path(name).stem: data for name, data in below.items()} == files
    assert f"{uid(1)}/{uid(1, 1)}/{uid(1, 1, 1)}.dcm" in below
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


async def test_other_content_is_never_replaced(tmp_path: Path) -> None:
    mine, other = small_dicom(), small_dicom(patient_name="OTHER^NAME")
    async with FolderEnd(tmp_path) as end:
        assert [one.status for one in await stored(end, [mine])] == [Status.SAVED]
        (outcome,) = await stored(end, [other])
        assert outcome.status is Status.FAILED
        assert not outcome.temporary
    assert list(files_below(tmp_path).values()) == [mine]


async def test_delete(tmp_path: Path) -> None:
    files = study_files(6, series=2) | study_files(2, study=2)
    root = tmp_path / "root"
    async with FolderEnd(root, target=True) as end:
        await stored(end, files.values())
        (root / "notes.txt").write_text("mine")
        await end.delete(uid(1), [InstanceUids(uid(1), uid(1, 1), uid(1, 1, n)) for n in (1, 3, 5)])
        assert not (root / uid(1) / uid(1, 1)).exists()
        assert await end.study(uid(1)) == ListedStudy(uid(1), "20200102", 3)
        await end.delete(uid(1), None)
        assert await studies(end) == [ListedStudy(uid(2), "20200102", 2)]
        await end.refresh()
        assert await studies(end) == [ListedStudy(uid(2), "20200102", 2)]
    assert sorted(path.name for path in root.iterdir()) == sorted([uid(2), "notes.txt"])


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    async with FolderEnd(tmp_path / "nowhere") as end:
        with pytest.raises(UsageError, match="does not exist"):
            await studies(end)
        with pytest.raises(UsageError, match="does not exist"):
            await end.probe()
    async with FolderEnd(tmp_path / "nowhere", target=True) as end:
        await end.probe()
        assert await studies(end) == []
        assert await excluded(end) == []
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").touch()
    async with FolderEnd(tmp_path / "file") as end:
        with pytest.raises(UsageError, match="a file"):
            await studies(end)


async def test_the_index_is_private_and_not_in_the_folder(tmp_path: Path) -> None:
    root, index = tmp_path / "root", tmp_path / "job.index"
    written(root, {"a": small_dicom()})
    with pytest.raises(UsageError, match="index"):
        FolderEnd(root, index=root / "sub" / "index")
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        async with FolderEnd(root, index=index) as end:
            await studies(end)
            assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("job.index*")} == {0o600}
    finally:
        os.umask(before)
    assert list(files_below(root)) == ["a"]
    index.write_bytes(b"something else" * 100)
    async with FolderEnd(root, index=index) as end:
        with pytest.raises(LedgerUnusable):
            await studies(end)
    assert index.read_bytes() == b"something else" * 100


async def test_a_target_that_is_gone_is_not_an_empty_one(tmp_path: Path) -> None:
    root, index = tmp_path / "root", tmp_path / "job.index"
    async with FolderEnd(root, index=index, target=True) as end:
        await studies(end)
        await stored(end, [small_dicom()])
    root.rename(tmp_path / "elsewhere")
    async with FolderEnd(root, index=index, target=True) as end:
        with pytest.raises(LocalFileError, match="gone"):
            await studies(end)
