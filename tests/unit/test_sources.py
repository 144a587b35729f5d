"""What to upload: found, recognised by content, opened again and again."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset

from postdicom_async.bodies import Body
from postdicom_async.dicom.anonymize import Anonymization
from postdicom_async.disk import files, scratch
from postdicom_async.disk.anonymized import anonymized
from postdicom_async.disk.files import FileBody, Unusable, explain_os_error
from postdicom_async.disk.sources import IdentifiedSource, Sources, Usable, measure, read_sources
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.results import Status
from tests.support.dicom_files import JPEG, small_dicom, study_files, uid
from tests.support.ids import shown

PIECE = 1000


async def found_in(sources: Sources, piece: int = PIECE) -> list[IdentifiedSource]:
    return [one async for group in read_sources(sources, piece=piece) for one in group]


async def content(body: Body) -> bytes:
    return b"".join([piece async for piece in body.open()])


def summary(found: list[IdentifiedSource]) -> list[tuple[str, str]]:
    """Return the last part of each label, and what became of it."""
    return [
        (Path(one.label).name, "usable" if isinstance(one, Usable) else f"{one.status}: {one.reason}") for one in found
    ]


def usable(found: list[IdentifiedSource]) -> Usable:
    (one,) = found
    assert isinstance(one, Usable), one
    return one


@pytest.fixture
def study(tmp_path: Path) -> dict[str, bytes]:
    """Fill tmp_path/study with folders two levels deep, names without a system; return path -> content."""
    files = list(study_files(6).values())
    names = ["b/IM0001", "b/notes.txt.dcm", "a/c/x.jpg", "a/IMG", "z", "DICOMDIR.bak"]
    for name, data in zip(names, files, strict=True):
        path = tmp_path / "study" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return dict(zip(names, files, strict=True))


class PathOf:
    """Says that it is a path."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def __fspath__(self) -> Any:
        return self.text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "sources: an empty path"),
        (PathOf(""), "sources: an empty path"),
        (PathOf(b"/tmp"), "sources: a path must be text"),
        (PathOf(5), "sources: a path must be text"),
    ],
)
async def test_paths_that_are_none(source: Any, message: str) -> None:
    async def stream() -> AsyncIterator[Any]:
        yield source

    for sources in (source, [source], iter([source]), stream()):
        with pytest.raises(UsageError, match=message):
            await found_in(sources)
    assert await measure(source) is None
    assert await measure([source]) is None


# --- files and folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path], lambda path: (str(path),), lambda path: iter([path])])
async def test_folder_recursively_by_content(tmp_path: Path, study: dict[str, bytes], kind: Any) -> None:
    found = await found_in(kind(tmp_path / "study"))
    made = {}
    for one in found:
        assert isinstance(one, Usable)
        made[str(Path(one.label).relative_to(tmp_path / "study"))] = await content(one.body)
    assert made == study


async def test_order_is_stable_and_sorted(tmp_path: Path, study: dict[str, bytes]) -> None:
    labels = [one.label for one in await found_in(tmp_path / "study")]
    assert labels == [one.label for one in await found_in(tmp_path / "study")]
    assert [str(Path(label).relative_to(tmp_path / "study")) for label in labels] == [
        "DICOMDIR.bak",
        "z",
        "a/IMG",
        "a/c/x.jpg",
        "b/IM0001",
        "b/notes.txt.dcm",
    ]


async def test_a_named_file_and_a_pathlike(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(small_dicom())

    class Like:
        def __fspath__(self) -> str:
            return str(path)

    for source in (path, str(path), Like()):
        one = usable(await found_in(source))
        assert one.label == str(path)
        assert one.header.uids.study_instance_uid == uid(1)
        assert one.body.length == len(small_dicom())


async def test_what_cannot_be_sent_is_listed_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "1 empty").touch()
    (tmp_path / "2 text").write_text("hello")
    (tmp_path / "3 pdf").write_bytes(b"%PDF" + bytes(5000))
    (tmp_path / "4 cut").write_bytes(small_dicom()[:180])
    (tmp_path / "5 no uids").write_bytes(bytes(128) + b"DICM" + bytes(5000))
    (tmp_path / "6 dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "7 fifo")
    (tmp_path / "8 good").write_bytes(small_dicom())
    (tmp_path / "9 link").symlink_to(tmp_path / "8 good")
    assert summary(await found_in(tmp_path)) == [
        ("1 empty", "not DICOM: empty file"),
        ("2 text", "not DICOM: no DICOM file (PS3.10)"),
        ("3 pdf", "not DICOM: no DICOM file (PS3.10)"),
        ("4 cut", "unreadable: cut off: MediaStorageSOPClassUID (0002,0002) needs 26 bytes, 14 are there"),
        ("5 no uids", "unreadable: no valid Study, Series and SOP Instance UID"),
        ("6 dangling", "unreadable: does not exist"),
        ("7 fifo", "unreadable: not a regular file"),
        ("8 good", "usable"),
        ("9 link", "usable"),
    ]


async def test_a_link_to_a_folder_is_not_followed_and_not_forgotten(tmp_path: Path, study: dict[str, bytes]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "loop").symlink_to(root)
    (root / "elsewhere").symlink_to(tmp_path / "study")
    (root / "x").write_bytes(small_dicom())
    found = dict(summary(await found_in(root)))
    assert found["x"] == "usable"
    assert set(found) == {"x", "loop", "elsewhere"}
    assert found["loop"] == found["elsewhere"] == "unreadable: a link to a folder is not followed; name the folder"


async def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert await found_in(tmp_path) == []


@pytest.mark.parametrize("wrap", [lambda path: path, lambda path: [path], lambda path: (path,)])
async def test_a_named_path_that_is_missing_is_an_error(tmp_path: Path, wrap: Any) -> None:
    with pytest.raises(LocalFileError, match="does not exist") as caught:
        await found_in(wrap(tmp_path / "nothing"))
    assert str(caught.value).startswith("sources: ")
    assert caught.value.__context__ is None


async def test_nothing_is_read_when_one_of_the_named_paths_is_missing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(small_dicom())
    with pytest.raises(LocalFileError):
        await anext(read_sources([tmp_path / "x", tmp_path / "nothing"], piece=PIECE))


async def test_a_missing_path_out_of_an_iterator_is_listed(tmp_path: Path) -> None:
    assert summary(await found_in(iter([tmp_path / "nothing"]))) == [("nothing", "unreadable: does not exist")]


@pytest.mark.parametrize("path", ["n" * 300, "a\0b", "/dev/null/x"], ids=shown)
async def test_impossible_paths(path: str) -> None:
    with pytest.raises((LocalFileError, UsageError)):
        await found_in([path])
    (one,) = await found_in(iter([path]))
    assert isinstance(one, Unusable)
    assert await measure([path]) == (1, 0)


async def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, study: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refusing(path: Any) -> Any:
        if not isinstance(path, int) and Path(path).name == "a":  # pytest clears its folders by descriptors
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = summary(await found_in(tmp_path / "study"))
    assert ("a", "unreadable: folder: permission denied") in found
    assert len(found) == 5


async def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(small_dicom())
    real = os.open

    def refusing(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path).name == "x":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refusing)
    assert summary(await found_in(tmp_path)) == [("x", "unreadable: permission denied")]


async def test_a_late_header_is_found(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(BytesIO(small_dicom()))
    dataset.add_new(0x00091001, "OB", bytes(200_000))
    dataset.save_as(tmp_path / "x", enforce_file_format=True)
    assert usable(await found_in(tmp_path)).header.uids.sop_instance_uid == uid(1, 1, 1)


# --- cut off ------------------------------------------------------------------------------------------------------


LARGE = small_dicom(pixel_bytes=1 << 20)
ENCAPSULATED = small_dicom(transfer_syntax=JPEG, pixel_bytes=1 << 20)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (small_dicom()[:-1], "cut off: its pixel data need 2048 bytes, 2047 are there"),
        (
            LARGE[:70_000],
            f"cut off: its pixel data need {1 << 20} bytes, {70_000 - (len(LARGE) - (1 << 20))} are there",
        ),
        (ENCAPSULATED[:-8], "cut off: its pixel data have no end"),
    ],
    ids=["small", "large", "encapsulated"],
)
async def test_what_is_cut_off_is_not_sent(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "x").write_bytes(data)
    for source in (data, tmp_path / "x", tmp_path):
        (one,) = await found_in(source)
        assert isinstance(one, Unusable)
        assert (one.status, one.reason, one.size) == (Status.UNREADABLE, reason, len(data))


@pytest.mark.parametrize("data", [LARGE[:-1], ENCAPSULATED[:-8]])
async def test_unless_the_caller_insists(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    for source in (data, tmp_path / "x"):
        (one,) = [one async for group in read_sources(source, piece=PIECE, send_truncated=True) for one in group]
        assert isinstance(one, Usable)
        assert await content(one.body) == data


async def test_the_end_of_a_large_file_is_looked_at_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(ENCAPSULATED)
    sizes: list[int] = []
    real = files.read_fully

    def noted(file: FileIO, size: int) -> bytes:
        data = real(file, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(files, "read_fully", noted)
    usable(await found_in(tmp_path / "x"))
    assert sizes == [64 * 1024, 8]


async def test_a_look_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(ENCAPSULATED[:-4])
    monkeypatch.setattr(files, "_PATIENCE", -1.0)
    usable(await found_in(tmp_path / "x"))


# --- in memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_bytes(kind: Any) -> None:
    one = usable(await found_in(kind(small_dicom())))
    assert one.label == "bytes 1"
    assert await content(one.body) == small_dicom()
    assert await content(one.body) == small_dicom()


async def test_a_data_set_is_written_once_and_left_as_it_was() -> None:
    dataset = pydicom.dcmread(BytesIO(small_dicom()))
    before = dataset.to_json(), str(dataset.file_meta)
    one = usable(await found_in(dataset))
    assert one.label == "data set 1"
    assert pydicom.dcmread(BytesIO(await content(one.body))) == dataset
    assert (dataset.to_json(), str(dataset.file_meta)) == before


async def test_a_data_set_that_cannot_be_written() -> None:
    dataset = Dataset()
    dataset.PatientName = "QUILLFEATHER^J"
    (one,) = await found_in(dataset)
    assert isinstance(one, Unusable)
    assert one.status is Status.UNREADABLE
    assert "QUILL" not in one.reason


async def test_a_mixture_in_order(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(small_dicom())
    dataset = pydicom.dcmread(BytesIO(small_dicom()))
    mixture = [small_dicom(), tmp_path / "x", dataset, b"junk", str(tmp_path)]
    expected = ["bytes 1", "x", "data set 3", "bytes 4", "x"]

    async def arriving() -> AsyncIterator[Any]:
        for one in mixture:
            yield one

    kinds: list[Any] = [mixture, tuple(mixture), iter(mixture), arriving()]
    for sources in kinds:
        assert [name for name, _ in summary(await found_in(sources))] == expected


@pytest.mark.parametrize("sources", [None, 5, [None], [5], [[small_dicom()]], iter([1.5]), object()], ids=shown)
async def test_what_cannot_be_sent_at_all(sources: Any) -> None:
    with pytest.raises(UsageError, match=r"^sources: "):
        await found_in(sources)


@pytest.mark.parametrize("sources", [[], (), iter(()), {}])
async def test_nothing(sources: Any) -> None:
    assert await found_in(sources) == []


async def test_an_iterable_is_read_only_as_far_as_needed() -> None:
    drawn = 0

    def many() -> Iterator[bytes]:
        nonlocal drawn
        for data in study_files(200).values():
            drawn += 1
            yield data

    async for group in read_sources(many(), piece=PIECE):
        assert 0 < len(group) <= 64
        break
    assert drawn <= 64


async def test_an_exception_of_the_callers_iterable_is_the_callers() -> None:
    def broken() -> Iterator[bytes]:
        yield small_dicom()
        raise LookupError("theirs")

    with pytest.raises(LookupError, match="theirs"):
        await found_in(broken())


@pytest.mark.parametrize("most", [0, 1, 4, 1000])
async def test_a_folder_with_more_names_than_are_held(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted in memory or on disk, the order is the same."""
    names = ["b/2", "b/1", "b/a/x", "a/1", "10", "9", "Z", "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "b.dcm"]
    for name in names:
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(small_dicom())
    (tmp_path / "f" / "b" / "link").symlink_to(tmp_path)
    monkeypatch.setattr("postdicom_async.disk.sources._MOST_NAMES", most)
    found = [one.label.removeprefix(f"{tmp_path}/f/") for one in await found_in(tmp_path / "f")]
    assert found == ["10", "9", "Z", "b.dcm", names[-2], "a/1", "b/link", "b/1", "b/2", "b/a/x"]
    assert await measure(tmp_path / "f") == (10, 9 * len(small_dicom()))


async def test_a_folder_with_many_names_where_there_is_no_room_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("postdicom_async.disk.sources._MOST_NAMES", 3)
    monkeypatch.setattr(scratch, "_new_database", full)
    for number in range(10):
        (tmp_path / f"{number}").touch()
    with pytest.raises(LocalFileError, match=r"temporary files.*full"):
        await found_in(tmp_path)


# --- measuring --------------------------------------------------------------------------------------------------------


async def test_measure(tmp_path: Path, study: dict[str, bytes]) -> None:
    total = sum(map(len, study.values()))
    (tmp_path / "study" / "dangling").symlink_to(tmp_path / "nothing")
    assert await measure(tmp_path / "study") == (7, total)
    assert await measure([tmp_path / "study", tmp_path / "study" / "z"]) == (8, total + len(study["z"]))
    assert await measure([]) == (0, 0)
    assert await measure(small_dicom()) == (1, len(small_dicom()))
    assert await measure([tmp_path / "study", b"12345"]) == (8, total + 5)
    unmeasured: list[Any] = [pydicom.Dataset(), [tmp_path, pydicom.Dataset()], iter([tmp_path])]
    for unknown in unmeasured:
        assert await measure(unknown) is None


# --- bodies -----------------------------------------------------------------------------------------------------------


async def body_of(path: Path, data: bytes, piece: int = PIECE) -> FileBody:
    path.write_bytes(data)
    body = usable(await found_in(path, piece)).body
    assert isinstance(body, FileBody)
    return body


async def test_pieces_of_the_right_size_again_and_again(tmp_path: Path) -> None:
    data = small_dicom()
    body = await body_of(tmp_path / "x", data, 777)
    for _ in range(3):
        pieces = [piece async for piece in body.open()]
        assert b"".join(pieces) == data
        assert all(len(piece) == 777 for piece in pieces[:-1])


@pytest.mark.parametrize(
    "change", ["longer", "shorter", "touched", "rewritten", "mode", "replaced", "gone", "a folder now"]
)
async def test_a_file_that_changed_before_it_is_sent(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    body = await body_of(path, small_dicom())
    _change(path, change)
    with pytest.raises(LocalFileError) as caught:
        await content(body)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("change", ["longer", "shorter", "touched", "rewritten"])
async def test_a_file_that_changes_while_it_is_sent(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    body = await body_of(path, small_dicom())
    pieces = body.open()
    sent = len(await anext(pieces))
    _change(path, change)
    with pytest.raises(LocalFileError, match="changed while"):
        sent += len(b"".join([piece async for piece in pieces]))
    assert sent <= body.length


def _change(path: Path, change: str) -> None:
    data = path.read_bytes()
    match change:
        case "longer":
            path.write_bytes(data + b"x")
        case "shorter":
            path.write_bytes(data[:-1])
        case "touched":
            os.utime(path, (1, 1))
        case "rewritten":
            before = path.stat()
            with path.open("r+b") as file:
                file.write(data[::-1])
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "mode":
            path.chmod(0o400)
        case "replaced":
            other = path.with_name("other")
            shutil.copy2(path, other)
            other.replace(path)
        case _:
            path.unlink()
            if change == "a folder now":
                path.mkdir()


@pytest.mark.parametrize("size", [100, 300_000])
async def test_a_file_rewritten_in_place_while_it_is_anonymised(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(small_dicom(pixel_bytes=size))
    (source,) = await found_in(path)
    changed = usable([await anonymized(source, Anonymization({"PatientName": "Q"}))])
    assert await content(changed.body)
    _change(path, "rewritten")
    with pytest.raises(LocalFileError, match="changed while"):
        await content(changed.body)


async def test_reading_a_file_is_no_change(tmp_path: Path) -> None:
    body = await body_of(tmp_path / "x", small_dicom())
    for _ in range(2):
        assert await content(body) == small_dicom() == (tmp_path / "x").read_bytes()


async def test_no_repr_shows_a_path(tmp_path: Path) -> None:
    (tmp_path / "QUILLFEATHER").write_bytes(small_dicom())
    (tmp_path / "QUILLFEATHER.txt").write_bytes(b"x")
    for one in await found_in(tmp_path):
        assert "QUILL" not in repr(one)


@pytest.mark.parametrize(
    ("code", "words"),
    [(2, "does not exist"), (13, "permission denied"), (28, "the disk is full"), (40, "symbolic link")],
)
def test_words_for_system_errors(code: int, words: str) -> None:
    assert words in explain_os_error(OSError(code, os.strerror(code), "/secret/path"))


def test_words_for_unknown_system_errors() -> None:
    assert explain_os_error(OSError(98, "Address in use")) == "address in use"
    assert explain_os_error(OSError()) == "cannot be accessed"


async def test_a_data_set_that_is_not_valid_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """What pydicom warns of, it logs with the value."""
    dataset = pydicom.dcmread(BytesIO(small_dicom()))
    dataset.SpecificCharacterSet = "CANARY"
    dataset.PatientName = "DOE^JANE"
    with caplog.at_level("DEBUG"), pytest.warns(UserWarning, match="Unknown encoding"):
        found = await found_in([dataset])
    assert summary(found) == [("data set 1", "usable")]
    assert "CANARY" not in caplog.text


async def test_a_table_is_no_list_of_paths(tmp_path: Path) -> None:
    """Going through one gives the names of its columns."""
    path = tmp_path / "1.dcm"
    path.write_bytes(small_dicom())
    frame = pd.DataFrame({"path": [str(path)]})
    for table in (frame, {"path": [str(path)]}):
        with pytest.raises(UsageError, match=r'^sources: a table: give its column of paths, such as frame\["path"\]$'):
            await found_in(table)
    assert [one.label for one in await found_in(frame["path"]) if isinstance(one, Usable)] == [str(path)]
