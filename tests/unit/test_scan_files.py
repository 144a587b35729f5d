"""Files and folders read for what lies in them: everything ends in one place, and nothing raises or hangs."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async import LocalFileError, Scan, ScanProgress, ScanStatus, UsageError, read_files
from postdicom_async.disk import scan as scan_module
from postdicom_async.disk import sources
from postdicom_async.emulator import EmbeddedArchive
from tests.support.canaries import CANARIES, canary_watch
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.large import examples

SHIPPED = Path(pydicom.data.__file__).parent
META = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
LINK = "a link to a folder is not followed; name the folder"


def places(scan: Scan) -> Counter[Path]:
    """Return every file with the number of places it ended in."""
    return Counter([*scan.paths, *(skipped.path for skipped in scan.skipped)])


def reasons(scan: Scan) -> dict[str, str]:
    return {skipped.path.name: f"{skipped.status}: {skipped.reason}" for skipped in scan.skipped}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fill a folder with two studies, five folders deep, named in every way."""
    root = tmp_path / "root"
    for study in (1, 2):
        for number, data in enumerate(study_files(4, study=study, series=2).values()):
            path = root.joinpath(f"s{study}", *"abcd"[:number], "IMG" if number % 2 else "x.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


# --- what is given ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path], lambda path: iter([str(path)])])
async def test_a_folder_recursively(folder: Path, kind: Any) -> None:
    scan = await read_files(kind(folder))
    assert [study.study_instance_uid for study in scan.studies] == [uid(1), uid(2)]
    assert [len(study.series) for study in scan.studies] == [2, 2]
    assert places(scan) == Counter(path for path in folder.rglob("*") if path.is_file())
    assert scan.files == 8
    assert scan.instances[0].size == scan.instances[0].path.stat().st_size


async def test_an_async_iterable_of_files(folder: Path) -> None:
    async def some() -> AsyncIterator[Path]:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path

    assert (await read_files(some())).files == 8


async def test_the_same_folder_twice_is_duplicates(folder: Path) -> None:
    scan = await read_files([folder, folder])
    assert scan.counts == {ScanStatus.DUPLICATE: 8}
    assert all(skipped.duplicate_of == skipped.path for skipped in scan.skipped)
    assert len(scan.instances) == 8


@pytest.mark.parametrize("kind", [list, tuple, iter])
async def test_no_selection(kind: Any) -> None:
    events: list[ScanProgress] = []
    scan = await read_files(kind([]), progress=events.append)
    assert (scan.patients, scan.skipped, scan.files, scan.ok) == ((), (), 0, True)
    assert not events


async def test_an_empty_folder(tmp_path: Path) -> None:
    assert (await read_files(tmp_path)).files == 0


async def test_what_is_no_path(tmp_path: Path) -> None:
    for wrong in (b"bytes", [b"bytes"], 5, [5], "", [""], pydicom.Dataset(), "a\0b", ["a\0b"]):
        with pytest.raises(UsageError, match="sources"):
            await read_files(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="progress"):
        await read_files(tmp_path, progress="loud")  # type: ignore[arg-type]
    with pytest.raises(LocalFileError, match="does not exist"):
        await read_files(tmp_path / "nothing")


async def test_a_study_of_it_is_uploaded(folder: Path, embedded_archive: EmbeddedArchive) -> None:
    from postdicom_async import DicomWeb

    scan = await read_files(folder)
    async with DicomWeb(embedded_archive.url, auth=embedded_archive.auth) as archive:
        report = await archive.upload(scan.studies[1].paths)
        assert report.ok
        assert [study.StudyInstanceUID async for study in archive.search_for_studies()] == [uid(2)]


# --- what is no instance ----------------------------------------------------------------------------------------------


async def test_every_kind_of_file_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "1 empty").touch()
    (tmp_path / "2 text").write_text("hello")
    (tmp_path / "3 cut").write_bytes(small_dicom()[:180])
    (tmp_path / "4 dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "5 fifo")
    (tmp_path / "6 good").write_bytes(small_dicom())
    (tmp_path / "7 same").symlink_to(tmp_path / "6 good")
    (tmp_path / "8 loop").symlink_to(tmp_path)
    (tmp_path / "9 itself").symlink_to(tmp_path / "9 itself")
    async with asyncio.timeout(20):
        scan = await read_files(tmp_path)
    assert reasons(scan) == {
        "1 empty": "not DICOM: empty file",
        "2 text": "not DICOM: no DICOM file (PS3.10)",
        "3 cut": "unreadable: cut off: MediaStorageSOPClassUID (0002,0002) needs 26 bytes, 14 are there",
        "4 dangling": "unreadable: does not exist",
        "5 fifo": "unreadable: not a regular file",
        "7 same": "duplicate: as large as the first one, and begins alike",
        "8 loop": f"unreadable: {LINK}",
        "9 itself": "unreadable: a symbolic link is in the way",
    }
    assert [path.name for path in scan.paths] == ["6 good"]
    assert not scan.ok


@pytest.mark.parametrize("name", ["DICOMDIR", "other name"])
async def test_a_directory_is_told_and_stops_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes((SHIPPED / "test_files" / "dicomdirtests" / "DICOMDIR").read_bytes())
    (tmp_path / "DICOMDIR.x").write_bytes(small_dicom())
    (tmp_path / "z").write_text("the last one")
    events: list[ScanProgress] = []
    scan = await read_files(tmp_path, progress=events.append)
    assert scan.counts == {ScanStatus.DICOMDIR: 1, ScanStatus.NOT_DICOM: 1}
    assert [path.name for path in scan.paths] == ["DICOMDIR.x"]
    assert scan.ok
    assert events[-1] == ScanProgress(3, 3)


async def test_what_may_not_be_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open, real_scandir = os.open, os.scandir

    def refuse_file(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path).name == "IMG":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *arguments, **named)

    def refuse_folder(path: Any) -> Any:
        if not isinstance(path, int) and Path(path).name == "s2":  # pytest clears its folders by descriptors
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "open", refuse_file)
    monkeypatch.setattr(os, "scandir", refuse_folder)
    events: list[ScanProgress] = []
    scan = await read_files(folder, progress=events.append)
    assert reasons(scan) == {"IMG": "unreadable: permission denied", "s2": "unreadable: folder: permission denied"}
    assert scan.counts == {ScanStatus.UNREADABLE: 3}
    assert len(scan.instances) == 2
    assert events[-1] == ScanProgress(5, 5)


async def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n\x1b[2J")  # noqa: PTH118 - bytes
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(small_dicom())
    (instance,) = (await read_files(tmp_path)).instances
    assert os.fsencode(instance.path) == path


async def test_folders_as_deep_as_paths_go(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1500):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x").write_bytes(small_dicom())
    assert (await read_files(tmp_path)).paths == (deep / "x",)
    (deep / "x").unlink()
    while deep != tmp_path:  # what removes the folder of the test later is recursive
        deep.rmdir()
        deep = deep.parent


async def test_the_files_that_pydicom_ships() -> None:
    scan = await read_files(SHIPPED)
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert places(scan) == Counter(files)
    assert scan.counts[ScanStatus.DICOMDIR] >= 5
    names = {patient.patient_name for patient in scan.patients}
    assert {"CompressedSamples^CT1", "Διονυσιος", "Hong^Gildong=洪^吉洞=홍^길동", "김희중"} <= names
    warnings.simplefilter("ignore")  # pydicom's, of what is odd in these files
    for instance in scan.instances:
        dataset = pydicom.dcmread(instance.path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        assert dataset.SOPInstanceUID == instance.sop_instance_uid


async def test_a_cut_file_is_not_the_instance(tmp_path: Path) -> None:
    whole = small_dicom(pixel_bytes=300_000)
    (tmp_path / "a").write_bytes(whole[:200_000])
    (tmp_path / "b").write_bytes(whole)
    (tmp_path / "c").write_bytes(small_dicom(uid(2), uid(2, 1), uid(2, 1, 1))[:-1])
    scan = await read_files(tmp_path)
    assert scan.paths == (tmp_path / "b",)
    assert reasons(scan) == {
        "a": f"unreadable: cut off: its pixel data need 300032 bytes, {200_000 - len(whole) + 300_032} are there",
        "c": "unreadable: cut off: its pixel data need 2048 bytes, 2047 are there",
    }
    assert [study.study_instance_uid for study in scan.studies] == [uid(1)]
    assert not scan.ok


# --- hostile ----------------------------------------------------------------------------------------------------------


def hostile() -> dict[str, bytes]:
    whole = small_dicom()
    name = whole.index(b"\x10\x00\x10\x00PN") + 6
    nested = b"\x08\x00\x96\x00SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    start = bytes(128) + b"DICM" + META
    return {
        "huge length": whole[:name] + b"\xff\xff" + whole[name + 2 :],
        "huge long length": start + b"\x08\x00\x05\x00UT\0\0" + struct.pack("<I", 0xFFFFFFFE) + b"x",
        "never ends": start + b"\x08\x00\x96\x00SQ\0\0\xff\xff\xff\xff" * 50_000,
        "deep": start + nested * 20_000,
        "deep items only": start + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 100_000,
        "ends": start + b"\xfe\xff\xdd\xe0\0\0\0\0" * 100,
        "zeros": start + bytes(2_000_000),
        "bomb": start.replace(b"1.2.1\0", b"1.2.1.99").replace(b"\x14\x00", b"\x16\x00", 1) + bytes(1000),
        "character set": whole[: name - 6] + b"\x08\x00\x05\x00CS\x04\0\xff\x1b\\\x1b" + whole[name - 6 :],
        "long value": whole[: name - 6] + b"\x10\x00\x10\x00PN\xfe\xff" + b"x" * 0xFFFE + whole[name + 11 :],
    }


async def test_hostile_files(tmp_path: Path) -> None:
    for name, data in hostile().items():
        (tmp_path / name).write_bytes(data)
    with canary_watch():
        scan = await read_files(tmp_path)
    assert places(scan) == Counter(tmp_path.iterdir())
    for patient in scan.patients:
        assert len(patient.patient_name or "") <= 4096


async def test_mutated_files(tmp_path: Path) -> None:
    rng = random.Random(5)
    for number in range(200):
        data = bytearray(small_dicom(pixel_bytes=0, patient_name=CANARIES["patient_name"]))
        for _ in range(rng.randint(1, 12)):
            data[rng.randrange(132, len(data))] = rng.randrange(256)
        (tmp_path / str(number)).write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    with canary_watch() as watch:
        scan = await read_files(tmp_path)
        watch.feed_text(repr([scan, scan.studies, scan.patients, scan.skipped]))
    assert places(scan) == Counter(tmp_path.iterdir())


# --- one place for each -----------------------------------------------------------------------------------------------

KINDS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "cut": small_dicom()[:200],
    "directory": small_dicom().replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0", 1),
    **{
        f"{study}-{series}-{number}": small_dicom(uid(study), uid(study, series), uid(study, series, number))
        for study in (1, 2)
        for series in (1, 2)
        for number in (1, 2)
    },
}


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 2)), max_size=40))
def test_every_file_ends_in_one_place(chosen: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        given_paths = []
        for number, (kind, depth) in enumerate(chosen):
            path = Path(name).joinpath(*"ab"[:depth], f"{number} {kind}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(KINDS[kind])
            given_paths.append(path)
        events: list[ScanProgress] = []
        scan = asyncio.run(read_files([*given_paths, name], progress=events.append))
    assert places(scan) == Counter(given_paths * 2)
    assert scan.files == 2 * len(chosen)
    instances = {kind for kind, _ in chosen if kind[0].isdigit()}
    assert {path.name.split()[1] for path in scan.paths} == instances
    assert len(scan.paths) == len(instances)
    expected = Counter(2 * [kind for kind, _ in chosen])
    assert scan.counts.get(ScanStatus.DICOMDIR, 0) == expected["directory"]
    assert scan.counts.get(ScanStatus.NOT_DICOM, 0) == expected["empty"] + expected["text"]
    assert scan.counts.get(ScanStatus.UNREADABLE, 0) == expected["cut"]
    assert events == [ScanProgress(done, 2 * len(chosen)) for done in range(1, 2 * len(chosen) + 1)]


# --- progress and cancellation ----------------------------------------------------------------------------------------


async def test_progress_of_an_iterator_has_no_total(folder: Path) -> None:
    events: list[ScanProgress] = []
    await read_files(iter([folder]), progress=events.append)
    assert events == [ScanProgress(done, None) for done in range(1, 9)]


async def test_an_error_of_the_listener_ends_it(folder: Path) -> None:
    def listener(event: ScanProgress) -> None:
        raise RuntimeError(str(event.files_done))

    with pytest.raises(RuntimeError, match="1"):
        await read_files(folder, progress=listener)


async def test_cancelled_between_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop stays free while a file is read, and what comes after the files under way is never looked at."""
    for number in range(100):
        (tmp_path / f"{number:03}").write_bytes(b"x")
    reading, go_on = threading.Event(), threading.Event()
    looked: list[Path] = []
    real = scan_module._look

    def slow(path: Path) -> Any:
        looked.append(path)
        reading.set()
        go_on.wait(20)
        return real(path)

    monkeypatch.setattr(scan_module, "_look", slow)
    task = asyncio.create_task(read_files(tmp_path))
    await asyncio.to_thread(reading.wait, 20)
    assert len(looked) == 1
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    assert len(looked) <= sources._FILES_A_HOP
