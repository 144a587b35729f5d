"""What is found in a folder, and that it is read once."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from postdicom_async.disk import files as files_module
from postdicom_async.errors import LedgerUnusable, LocalFileError, UsageError
from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ends.folder import FolderEnd
from postdicom_async.jobs.ends.folder_match import StudyFilter, day_of
from postdicom_async.jobs.states import Reason
from tests.jobs.folders import excluded, files_below, instances, opened, stored, studies, written
from tests.support.dicom_files import small_dicom, study_files, uid

posix = pytest.mark.skipif(sys.platform == "win32", reason="names and links are those of POSIX systems")


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file is opened."""
    counted: Counter[str] = Counter()
    real = files_module.open_at_once

    def counting(path: Path) -> object:
        counted[path.name] += 1
        return real(path)

    for module in list(sys.modules.values()):
        if getattr(module, "open_at_once", None) is real:
            monkeypatch.setattr(module, "open_at_once", counting)
    return counted


def numbered(count: int) -> dict[str, bytes]:
    """Make different instances quickly: of ten in a study, two series each."""
    base = small_dicom(uid(111111), uid(111111, 2222), uid(111111, 2222, 333333), pixel_bytes=64)
    return {
        f"{number % 7}/{number}": base.replace(b"111111", b"%06d" % (200000 + number // 10))
        .replace(b"2222", b"%04d" % (3000 + number % 2))
        .replace(b"333333", b"%06d" % (400000 + number))
        for number in range(count)
    }


async def test_three_thousand_files_add_up(tmp_path: Path) -> None:
    root = tmp_path / "root"
    files = numbered(2600)
    whole = list(files.values())
    other = small_dicom(instance=uid(9, 9, 9), pixel_bytes=64)
    written(root, files)
    written(root, {f"cut/{n}": whole[n][:-5] for n in range(100)})
    written(root, {f"copies/{n}": whole[n] for n in range(100)})
    written(root, {f"text/{n}.txt": b"text %d" % n for n in range(150)})
    written(root, {f"z/{n}": other.replace(b"T-1 ", b"T%03d" % n) for n in range(50)})
    told: list[int] = []
    async with FolderEnd(root, index=tmp_path / "index", on_scan=told.append) as end:
        listed = await studies(end)
        found = [one for study in listed for one in await instances(end, study.uid)]
        left = await excluded(end)
        assert sum(study.instances or 0 for study in listed) == len(found) == 2601
        # "0/…" comes before "copies", and "cut" is read for itself.
        assert Counter(one.flaw for one in left) == {
            Reason.NOT_DICOM: 150,
            Reason.UNREADABLE: 100,
            Reason.DUPLICATE_FILE: 100,
            Reason.OTHER_CONTENT: 49,
        }
        assert {one.place for one in found} | {one.place for one in left} == set(files_below(root))
        assert len({one.uid for one in left}) == len(left)
    assert told[-1] == 3000
    assert told == sorted(told)


async def test_a_second_search_reads_only_what_has_changed(tmp_path: Path, opens: Counter[str]) -> None:
    root, index = tmp_path / "root", tmp_path / "index"
    written(root, {f"{n}": data for n, data in enumerate(study_files(20).values())})
    written(root, {"copy": small_dicom(), "text": b"text", "cut": small_dicom(instance=uid(3))[:-9]})
    async with FolderEnd(root, index=index) as end:
        await studies(end)
        before = await excluded(end)
    assert opens["1"] == opens["text"] == opens["cut"] == 1
    assert opens["0"] == opens["copy"] == 2, "once more to compare the two"
    opens.clear()
    async with FolderEnd(root, index=index) as end:
        assert await studies(end) == [ListedStudy(uid(1), "20200102", 20)]
        assert await excluded(end) == before, "names of what is no instance stay"
        assert not opens
        (root / "5").unlink()
        (root / "6").rename(root / "renamed")
        (root / "new").write_bytes(small_dicom(instance=uid(1, 1, 99)))
        (root / "7").write_bytes(small_dicom(instance=uid(1, 1, 100)))
        await end.refresh()
        assert set(opens) == {"7", "new", "renamed"}
        listed = await instances(end, uid(1))
        assert {one.place for one in listed} == {*map(str, range(20)), "new", "renamed"} - {"5", "6"}
    assert {one.uid for one in listed} >= {uid(1, 1, 99), uid(1, 1, 100)}


async def test_what_was_stored_is_not_read_for_a_second_search(tmp_path: Path, opens: Counter[str]) -> None:
    root, index = tmp_path / "root", tmp_path / "index"
    async with FolderEnd(root, index=index, target=True) as end:
        await studies(end)
        await stored(end, study_files(30).values())
    opens.clear()
    async with FolderEnd(root, index=index, target=True) as end:
        assert await studies(end) == [ListedStudy(uid(1), "20200102", 30)]
    assert not opens


async def test_a_cancelled_search_goes_on_where_it_was(
    tmp_path: Path, opens: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postdicom_async.jobs.ends.folder_files._FILES_A_STEP", 20)
    root, index = tmp_path / "root", tmp_path / "index"
    written(root, numbered(200))
    running: list[asyncio.Task[object]] = []

    def cancel(met: int) -> None:
        if met == 100:
            running[0].cancel()

    async with FolderEnd(root, index=index, on_scan=cancel) as end:
        running.append(asyncio.ensure_future(studies(end)))
        with pytest.raises(asyncio.CancelledError):
            await running[0]
        assert sum(opens.values()) < 200
        assert sum(study.instances or 0 for study in await studies(end)) == 200
    assert max(opens.values()) == 1


async def test_several_tasks_make_one_search(tmp_path: Path, opens: Counter[str]) -> None:
    written(tmp_path, {f"{n}": data for n, data in enumerate(study_files(10).values())})
    async with FolderEnd(tmp_path) as end:
        found = await asyncio.gather(*(studies(end) for _ in range(5)), end.study(uid(1)), instances(end, uid(1)))
    assert found[0] == found[4] == [found[5]]
    assert max(opens.values()) == 1


@pytest.mark.parametrize("harm", ["cut", "flip"])
async def test_a_damaged_index_is_told_and_costs_time_alone(tmp_path: Path, harm: str) -> None:
    root, index = tmp_path / "root", tmp_path / "index"
    written(root, numbered(60))
    written(root, {"text": b"text"})
    filters = {"PatientID": "T*"}
    async with FolderEnd(root, index=index, filters=filters) as end:
        expected = await studies(end)
    whole, random = index.read_bytes(), Random(5)
    said: list[str] = []
    for number in range(30):
        data = bytearray(whole)
        if harm == "cut":
            del data[len(whole) * number // 30 :]
        else:
            for _ in range(20):
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        index.write_bytes(data)
        try:
            async with FolderEnd(root, index=index, filters=filters) as end:
                for study in await studies(end):
                    await opened(end, study.uid, await instances(end, study.uid))
                await excluded(end)
        except LedgerUnusable as error:
            said.append(str(error))
            index.unlink()
        async with FolderEnd(root, index=index, filters=filters) as end:
            if not index.exists():
                assert await studies(end) == expected
    assert len(said) > 5
    assert all(one.startswith("the index of a folder") and "T-1" not in one for one in said)


async def test_an_index_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, index = tmp_path / "root", tmp_path / "index"
    written(root, {"a": small_dicom()})
    async with FolderEnd(root, index=index) as end:
        await studies(end)
        written(root, numbered(300))
        database = end._index._database  # type: ignore[union-attr]
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(LocalFileError, match="the disk is full") as caught:
            await end.refresh()
        assert caught.value.disk_full
        database.execute("PRAGMA max_page_count=100000")
        await end.refresh()
        assert sum(study.instances or 0 for study in await studies(end)) == 301


# --- odd names, links, and what cannot be read -----------------------------------------------------------------------


@posix
async def test_hostile_names(tmp_path: Path) -> None:
    names = [
        b"-rf", b"a\nb", b"\xff\xfe", b"~", b"$(id)", b"%2e%2e", b"con", b" ", b"a" * 255, "ä".encode(), b"..x",
        b"\x1b[2J", b"'; DROP TABLE files; --", "\u202egnp".encode(), b".hidden", b"*?[x]", b"back\\slash",
    ]  # fmt: skip
    files = list(study_files(len(names)).values())
    for name, data in zip(names, files, strict=True):
        (tmp_path / os.fsdecode(name)).write_bytes(data)
    async with FolderEnd(tmp_path) as end:
        listed = await instances(end, uid(1))
        assert sorted((await opened(end, uid(1), listed)).values(), key=str) == sorted(files, key=str)
        await end.delete(uid(1), None)
    assert list(tmp_path.iterdir()) == []


@posix
async def test_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    written(outside, {"one": small_dicom(), "folder/two": small_dicom(instance=uid(1, 1, 2))})
    written(root, {"mine": small_dicom(instance=uid(1, 1, 3))})
    (root / "to file").symlink_to(outside / "one")
    (root / "to folder").symlink_to(outside / "folder")
    (root / "to nothing").symlink_to(outside / "nothing")
    os.mkfifo(root / "pipe")
    async with FolderEnd(root) as end:
        assert {one.place for one in await instances(end, uid(1))} == {"mine", "to file"}
        found = await excluded(end)
        assert {one.place: one.flaw for one in found} == dict.fromkeys(
            ("to folder", "to nothing", "pipe"), Reason.UNREADABLE
        )
        await end.delete(uid(1), None)
    assert sorted(path.name for path in root.iterdir()) == ["pipe", "to folder", "to nothing"]
    assert sorted(files_below(outside)) == ["folder/two", "one"], "a link was deleted, and nothing behind it"


@posix
async def test_what_cannot_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, {"a": small_dicom(), "b": small_dicom(instance=uid(1, 1, 2))})
    real = files_module.open_at_once

    def failing(path: Path) -> object:
        if path.name == "b":
            raise PermissionError(13, "no", str(path))
        return real(path)

    monkeypatch.setattr(files_module, "open_at_once", failing)
    async with FolderEnd(tmp_path) as end:
        assert [one.place for one in await instances(end, uid(1))] == ["a"]
        assert [(one.place, one.flaw) for one in await excluded(end)] == [("b", Reason.UNREADABLE)]
        monkeypatch.setattr(files_module, "open_at_once", real)
        await end.refresh()
        assert [one.place for one in await instances(end, uid(1))] == ["a", "b"]
        assert await excluded(end) == []


async def test_a_folder_that_cannot_be_searched_is_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, {"a": small_dicom(), "locked/b": small_dicom(instance=uid(1, 1, 2))})
    locked = {tmp_path / "locked"}
    real = os.scandir

    def failing(path: Path) -> object:
        if path in locked:
            raise PermissionError(13, "no", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", failing)
    async with FolderEnd(tmp_path) as end:
        assert [one.place for one in await instances(end, uid(1))] == ["a"]
        assert [(one.place, one.flaw) for one in await excluded(end)] == [("locked", Reason.UNREADABLE)]
        locked.clear()
        locked.add(tmp_path)
        with pytest.raises(LocalFileError, match="the folder: permission denied") as caught:
            await end.refresh()
        assert str(tmp_path) not in str(caught.value)


async def test_partial_files_are_no_items(tmp_path: Path) -> None:
    written(tmp_path, {"a": small_dicom(), ".postdicom-0123-1.part": small_dicom(instance=uid(1, 1, 2))[:900]})
    async with FolderEnd(tmp_path) as end:
        assert [one.place for one in await instances(end, uid(1))] == ["a"]
        assert await excluded(end) == []


# --- filters ---------------------------------------------------------------------------------------------------------


def of(**values: str) -> Callable[[bytes], bytes]:
    """Return what changes values of the same length in a file."""
    changes = {"date": b"20200102", "name": b"TEST^FILE ", "modality": b"CT", "accession": b"A-1 ", "id": b"T-1 "}

    def change(data: bytes) -> bytes:
        for key, value in values.items():
            assert data.count(changes[key]) >= 1
            data = data.replace(changes[key], value.encode().ljust(len(changes[key])))
        return data

    return change


async def test_filters_choose_studies(tmp_path: Path) -> None:
    one = [of(date="20240229")(data) for data in study_files(3, study=1).values()]
    two = [of(date="20231231", id="X-9")(data) for data in study_files(2, study=2).values()]
    three = [of(date="        ")(data) for data in study_files(4, study=3).values()]
    written(tmp_path, {f"{n}": data for n, data in enumerate([*one, *two, *three])})
    written(tmp_path, {"text": b"text", "copy of two": two[0]})
    cases: list[tuple[dict[str, object], set[int]]] = [
        ({}, {1, 2, 3}),
        ({"StudyDate": "20240101-"}, {1}),
        ({"StudyDate": ("20230101", "20231231")}, {2}),
        ({"StudyDate": "202402"}, {1}),
        ({"StudyInstanceUID": [uid(2), uid(3)]}, {2, 3}),
        ({"PatientID": "X*"}, {2}),
        ({"PatientID": "T-?", "ModalitiesInStudy": "CT"}, {1, 3}),
        ({"PatientName": "test^*"}, {1, 2, 3}),
        ({"Modality": "MR"}, set()),
    ]
    for filters, expected in cases:
        async with FolderEnd(tmp_path, filters=filters) as end:
            listed = await studies(end)
            assert {study.uid for study in listed} == {uid(number) for number in expected}, filters
            left = await excluded(end)
            counted = Counter(one.flaw for one in left)
            assert sum(study.instances or 0 for study in listed) + len(left) == 11
            assert counted[Reason.NOT_DICOM] == 1
            assert counted[Reason.DUPLICATE_FILE] == (2 in expected)
            for number in {1, 2, 3} - expected:
                assert await end.study(uid(number)) is None
                assert await instances(end, uid(number)) == []


async def test_dates_choose_what_is_asked_and_all_that_is_undated(tmp_path: Path) -> None:
    written(tmp_path, {"1": of(date="20240229")(small_dicom(uid(1), instance=uid(1, 1)))})
    written(tmp_path, {"2": of(date="20231231")(small_dicom(uid(2), instance=uid(2, 1)))})
    written(tmp_path, {"3": of(date="unknown ")(small_dicom(uid(3), instance=uid(3, 1)))})
    async with FolderEnd(tmp_path) as end:
        assert [one.date for one in await studies(end)] == ["20240229", "20231231", ""]
        assert [one.uid for one in await studies(end, since="20240101")] == [uid(1), uid(3)]
        assert [one.uid for one in await studies(end, until="20231231")] == [uid(2), uid(3)]
        assert [one.uid for one in await studies(end, since="20231231", until="20231231")] == [uid(2), uid(3)]


async def test_another_filter_with_the_same_index(tmp_path: Path) -> None:
    root, index = tmp_path / "root", tmp_path / "index"
    written(root, {"a": small_dicom()})
    for filters in ({}, {"PatientID": "T-1"}, {"AccessionNumber": "A-1"}, {"AccessionNumber": "A-2"}):
        async with FolderEnd(root, index=index, filters=filters) as end:
            assert len(await studies(end)) == (filters != {"AccessionNumber": "A-2"})


@pytest.mark.parametrize("filters", [{"SOPInstanceUID": "1.2"}, {"Rows": 5}, {"Nonsense": "x"}, {"StudyDate": "x"}])
def test_filters_that_a_folder_has_not(filters: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="filters"):
        FolderEnd(tmp_path, filters=filters)


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("PatientName", "DOE^*", "Doe^Jane", True),
        ("PatientName", "doe^jane", "Doe^Jane^^", True),
        ("PatientName", "Yamada*", "Yamada^Tarou=山田^太郎", True),
        ("PatientName", "山田^太郎", "Yamada^Tarou=山田^太郎", True),
        ("PatientName", "Jane", "Doe^Jane", False),
        ("PatientID", "a-1", "A-1", False),
        ("PatientID", "A?1", "A-1", True),
        ("PatientID", "A.1", "A-1", False),
        ("PatientID", "B\\A-1", "A-1", True),
        ("ModalitiesInStudy", "MR,CT", "CT", True),
        ("ModalitiesInStudy", "C*", "CT", True),
        ("StudyDescription", "*", "", True),
        ("StudyDescription", "?*", "", False),
        ("PatientBirthDate", "1950", "19500607", True),
        ("PatientBirthDate", "-19491231", "19500607", False),
        ("PatientBirthDate", "19500607", "1950.06.07", True),
    ],
)
def test_how_values_match(name: str, key: str, value: str, expected: bool) -> None:
    chosen = StudyFilter({name: key})
    said = dict.fromkeys(chosen.texts, value)
    assert chosen.matches("1.2", [{}, said]) is expected
    assert chosen.matches("1.2", [{}]) is (not chosen)


def test_days() -> None:
    assert [day_of(text) for text in ("20240229", "2024.02.29", "2024", "", "2024-02-29", "٢٠٢٤٠٢٢٩")] == [
        "20240229", "20240229", "", "", "", "",
    ]  # fmt: skip
