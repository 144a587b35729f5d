"""A folder to receive into: whole files or none, and nothing outside it."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from postdicom_async.disk import folder as folder_module
from postdicom_async.disk.folder import NameTaken, SafeFolder
from postdicom_async.errors import LocalFileError
from postdicom_async.results import InstanceUids
from tests.support.dicom_files import small_dicom, uid

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are those of POSIX systems")

NAME = ("study", "series", "instance.dcm")
UIDS = InstanceUids(uid(1), uid(1, 1), uid(1, 1, 1))
DATA = [b"first ", b"", b"second", b" third" * 1000]
WHOLE = b"".join(DATA)


@pytest.fixture(params=["guarded", "unguarded"])
def guarded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test on the path with descriptors and on the one that Windows has."""
    if request.param == "unguarded":
        monkeypatch.setattr(folder_module, "_GUARDED", False)
    return bool(request.param == "guarded")


@pytest.fixture
def umask() -> Iterator[Callable[[int], object]]:
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


class Opened:
    """An open folder, as a context."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.folder = SafeFolder(root, fsync=fsync)

    def __enter__(self) -> SafeFolder:
        self.folder.open()
        return self.folder

    def __exit__(self, *_: object) -> None:
        self.folder.close()


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def open_descriptors() -> int:
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.exists() else 0


@pytest.fixture(autouse=True)
def no_descriptor_is_leaked() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() <= before


@pytest.mark.parametrize("fsync", [True, False])
@pytest.mark.parametrize("name", [NAME, ("instance.dcm",), ("a", "b", "c", "d", "e", "f.dcm")])
def test_save(guarded: bool, tmp_path: Path, name: tuple[str, ...], fsync: bool) -> None:
    with Opened(tmp_path / "to", fsync=fsync) as folder:
        folder.save(name, DATA)
    assert (tmp_path / "to").joinpath(*name).read_bytes() == WHOLE
    assert files_below(tmp_path / "to") == ["/".join(name)]


def test_many_pieces_and_many_folders(guarded: bool, tmp_path: Path) -> None:
    with Opened(tmp_path, fsync=False) as folder:
        folder.save(("large",), [bytes([n % 256]) for n in range(3000)])
        for number in range(200):
            folder.save((f"s{number % 100}", "x", f"{number}.dcm"), [b"x"])
    assert (tmp_path / "large").read_bytes() == bytes(n % 256 for n in range(3000))
    assert len(files_below(tmp_path)) == 201


def test_several_files_at_once_and_an_existing_one_replaced(guarded: bool, tmp_path: Path) -> None:
    with Opened(tmp_path) as folder:
        folder.save(NAME, [b"old"])
        partials = [folder.create((*NAME[:2], f"{n}.dcm")) for n in range(3)]
        for number, partial in enumerate(partials):
            partial.write([b"%d" % number])
        folder.save(NAME, DATA)
        assert len(list((tmp_path / "study" / "series").iterdir())) == 4
        for partial in partials[1:]:
            partial.commit()
        for partial in partials:
            partial.discard()
            partial.discard()
    assert files_below(tmp_path) == ["study/series/1.dcm", "study/series/2.dcm", "study/series/instance.dcm"]
    assert tmp_path.joinpath(*NAME).read_bytes() == WHOLE


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_modes_whatever_the_umask(guarded: bool, tmp_path: Path, umask: Callable[[int], object], mask: int) -> None:
    umask(mask)
    root = tmp_path / "made" / "for" / "this"
    with Opened(root) as folder:
        folder.save(NAME, DATA)
    made = [tmp_path / "made", tmp_path / "made" / "for", root, root / "study", root / "study" / "series"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700] * 5
    assert stat.S_IMODE(root.joinpath(*NAME).stat().st_mode) == 0o600


def test_an_existing_folder_keeps_its_mode(guarded: bool, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Opened(tmp_path) as folder:
        folder.save(("x",), DATA)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


# --- something in the way -------------------------------------------------------------------------------------------


def link(path: Path, to: Path) -> None:
    path.symlink_to(to)


OBSTACLES: dict[str, Callable[[Path, Path], None]] = {
    "link to a folder": link,
    "dangling link": lambda path, outside: link(path, outside / "nothing"),
    "link to itself": lambda path, _outside: link(path, path),
    "file": lambda path, _outside: path.touch(),
    "fifo": lambda path, _outside: os.mkfifo(path),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_obstacle_for_a_folder(guarded: bool, tmp_path: Path, obstacle: str, depth: int) -> None:
    outside, root, name = tmp_path / "outside", tmp_path / "to", ("a", "b", "c", "x.dcm")
    outside.mkdir()
    root.joinpath(*name[: depth - 1]).mkdir(parents=True)
    OBSTACLES[obstacle](root.joinpath(*name[:depth]), outside)
    with Opened(root) as folder:
        for _ in range(2):
            with pytest.raises(LocalFileError) as caught:
                folder.save(name, DATA)
        assert not folder.holds(name, UIDS)
    assert caught.value.__context__ is None
    assert list(outside.iterdir()) == []


def test_a_link_put_in_later_is_not_followed(guarded: bool, tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "to"
    outside.mkdir()
    with Opened(root) as folder:
        folder.save(("a", "1.dcm"), DATA)
        (root / "a").rename(root / "moved")
        (root / "a").symlink_to(outside)
        try:
            folder.save(("a", "2.dcm"), DATA)
        except LocalFileError:
            assert not guarded
    assert list(outside.iterdir()) == []


def test_a_link_of_the_final_name_is_replaced_and_not_followed(guarded: bool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    root = tmp_path / "to"
    with Opened(root) as folder:
        (root / "x.dcm").symlink_to(victim)
        if guarded:
            assert not folder.holds(("x.dcm",), UIDS)
        folder.save(("x.dcm",), DATA)
    assert victim.read_bytes() == b"precious"
    assert not (root / "x.dcm").is_symlink()
    assert (root / "x.dcm").read_bytes() == WHOLE


def test_a_folder_of_the_final_name(guarded: bool, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").mkdir()
    with Opened(tmp_path) as folder:
        assert not folder.holds(("x.dcm",), UIDS)
        with pytest.raises(LocalFileError, match="in the way"):
            folder.save(("x.dcm",), DATA)
    assert files_below(tmp_path) == []


def test_a_fifo_of_the_final_name_does_not_block(guarded: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.dcm")
    with Opened(tmp_path) as folder:
        assert not folder.holds(("x.dcm",), UIDS)
        folder.save(("x.dcm",), DATA)
    assert (tmp_path / "x.dcm").read_bytes() == WHOLE


@pytest.mark.parametrize("kind", ["file", "fifo", "below a file"])
def test_the_root_itself_is_no_folder(guarded: bool, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "to"
    os.mkfifo(root) if kind == "fifo" else root.touch()
    with pytest.raises(LocalFileError), Opened(root / "x" if kind == "below a file" else root):
        pass


def test_the_root_may_be_a_link(guarded: bool, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "to").symlink_to(tmp_path / "real")
    with Opened(tmp_path / "to") as folder:
        folder.save(NAME, DATA)
    assert (tmp_path / "real").joinpath(*NAME).read_bytes() == WHOLE


def test_a_name_too_long(guarded: bool, tmp_path: Path) -> None:
    with Opened(tmp_path) as folder, pytest.raises(LocalFileError, match="too long"):
        folder.save(("n" * 300,), DATA)


# --- failing system calls -------------------------------------------------------------------------------------------


class Failing:
    """Lets a system call of the folder fail the Nth time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, code: int) -> None:
        self.calls = 0
        real: Callable[..., Any] = getattr(os, call)

        def failing(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == nth:
                if call == "close":  # closed all the same, as Linux does
                    real(*arguments, **named)
                raise OSError(code, os.strerror(code))
            return real(*arguments, **named)

        monkeypatch.setattr(os, call, failing)

    @staticmethod
    def at_once(code: int) -> Callable[..., Any]:
        """Return a function that fails; it closes the descriptor that it is given."""

        def failing(descriptor: int, **_: Any) -> Any:
            os.close(descriptor)
            raise OSError(code, os.strerror(code))

        return failing


def problem_of_writing(folder: SafeFolder, name: tuple[str, ...]) -> LocalFileError | None:
    try:
        partial = folder.create(name)
        try:
            partial.write(DATA)
            partial.write(DATA)
            partial.commit()
        finally:
            partial.discard()
    except LocalFileError as error:
        return error
    return None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "writev", "fsync", "rename", "mkdir", "close"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, code: int) -> None:
    failed: set[str] = set()
    with Opened(tmp_path) as folder:
        with monkeypatch.context() as patched:
            failing = Failing(patched, call, nth, code)
            for name in (("a", "b", "1.dcm"), ("a", "b", "2.dcm")):
                error = problem_of_writing(folder, name)
                if error is not None:
                    assert error.temporary is (code in {errno.ENOSPC, errno.EDQUOT})
                    failed.add("/".join(name))
        made = set(files_below(tmp_path))
        assert not made & failed
        assert made | failed == {"a/b/1.dcm", "a/b/2.dcm"}
        assert all((tmp_path / name).read_bytes() == WHOLE * 2 for name in made)
        assert len(failed) == (failing.calls >= nth) or call == "close"


def test_a_disk_that_is_full_from_now_on(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with Opened(tmp_path) as folder:
        folder.save(("1.dcm",), DATA)
        monkeypatch.setattr(os, "writev", full)
        with pytest.raises(LocalFileError, match="disk is full") as caught:
            folder.save(("2.dcm",), DATA)
    assert caught.value.temporary
    assert files_below(tmp_path) == ["1.dcm"]


def test_short_writes_are_finished(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real_write(fd, b"".join(pieces)[:7]))
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data)[:5]))
    with Opened(tmp_path) as folder:
        folder.save(NAME, DATA)
    assert tmp_path.joinpath(*NAME).read_bytes() == WHOLE


def test_without_writev(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "writev")
    with Opened(tmp_path) as folder:
        folder.save(NAME, DATA)
    assert tmp_path.joinpath(*NAME).read_bytes() == WHOLE


def test_fsync_comes_before_the_rename_and_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def noting(call: str) -> Callable[..., Any]:
        real = getattr(os, call)

        def noted(*arguments: Any, **named: Any) -> Any:
            order.append(call)
            return real(*arguments, **named)

        return noted

    for call in ("fsync", "rename"):
        monkeypatch.setattr(os, call, noting(call))
    with Opened(tmp_path) as folder:
        folder.save(("x",), DATA)
    assert order == ["fsync", "rename", "fsync"]
    order.clear()
    with Opened(tmp_path, fsync=False) as folder:
        folder.save(("a", "y"), DATA)
    assert order == ["rename"]


def test_a_folder_that_could_not_be_made_durable_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds it there would take it for durable."""
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        if len(synced) == 1:
            raise OSError(errno.EIO, "disk")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with Opened(tmp_path) as folder:
        with pytest.raises(LocalFileError):
            folder.save(("a", "1.dcm"), DATA)
        assert list(tmp_path.iterdir()) == []
        folder.save(("a", "1.dcm"), DATA)
    root, below = tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino
    assert synced == [root, root, (tmp_path / "a" / "1.dcm").stat().st_ino, below]


def test_threads_share_a_folder_and_its_descriptors(guarded: bool, tmp_path: Path) -> None:
    """More directories than are kept open, and files on their way into those that are let go of meanwhile."""
    with Opened(tmp_path, fsync=False) as folder, ThreadPoolExecutor(8) as threads:

        def work(number: int) -> None:
            partial = folder.create((f"s{number % 150}", f"{number}.dcm"))
            try:
                partial.write([b"%d" % number])
                time.sleep(0.0005)
                partial.commit()
            finally:
                partial.discard()

        list(threads.map(work, range(600)))
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.dcm")} == {
        f"{number}.dcm": b"%d" % number for number in range(600)
    }
    assert len(files_below(tmp_path)) == 600


# --- abandoned files ------------------------------------------------------------------------------------------------


def test_abandoned_partial_files_are_cleared(guarded: bool, tmp_path: Path) -> None:
    below = tmp_path / "study"
    below.mkdir()
    old = time.time() - 7200
    kept = ["study/.postdicom-1.part", "study/.other.part", "study/1.dcm", "notes.txt"]
    for name in (*kept, ".postdicom-2.part", "study/.postdicom-3.part"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (old, old))
    os.utime(below / ".postdicom-1.part")
    (tmp_path / ".postdicom-4.part").symlink_to(tmp_path / "notes.txt")
    os.utime(tmp_path / ".postdicom-4.part", (old, old), follow_symlinks=False)
    with Opened(tmp_path) as folder:
        folder.save(("study", "2.dcm"), DATA)
    assert files_below(tmp_path) == sorted([*kept, "study/2.dcm"])


# --- what is there ----------------------------------------------------------------------------------------------------


def test_holds_what_it_says_it_is(guarded: bool, tmp_path: Path) -> None:
    with Opened(tmp_path) as folder:
        folder.save(NAME, [small_dicom()])
        assert folder.holds(NAME, UIDS)
        assert not folder.holds(NAME, UIDS._replace(sop_instance_uid="9.9"))
        assert not folder.holds(("nothing",), UIDS)
        assert not folder.holds(("no", "folder", "x"), UIDS)
    assert files_below(tmp_path) == ["/".join(NAME)]
    assert not (tmp_path / "no").exists()


OTHERS = UIDS._replace(study_instance_uid="9", sop_instance_uid="9.9")


def save_as(folder: SafeFolder, name: tuple[str, ...], uids: InstanceUids) -> None:
    partial = folder.create(name, uids)
    try:
        partial.write([small_dicom(*uids)])
        partial.commit()
    finally:
        partial.discard()


@pytest.mark.parametrize("there", [small_dicom(), small_dicom()[:-1]], ids=["whole", "cut off"])
def test_another_instance_is_never_replaced(guarded: bool, tmp_path: Path, there: bytes) -> None:
    with Opened(tmp_path) as folder:
        folder.has_private_names = True
        folder.save(NAME, [there])
        for _ in range(2):
            with pytest.raises(NameTaken, match="a file of its name holds another instance") as caught:
                save_as(folder, NAME, OTHERS)
        assert NAME[-1] not in str(caught.value)
        assert files_below(tmp_path) == ["/".join(NAME)]
        assert tmp_path.joinpath(*NAME).read_bytes() == there
        save_as(folder, NAME, UIDS)
        assert folder.holds(NAME, UIDS)


@pytest.mark.parametrize("there", [b"", b"x", small_dicom()[:200], bytes(200_000)])
def test_what_is_no_instance_is_replaced(guarded: bool, tmp_path: Path, there: bytes) -> None:
    with Opened(tmp_path) as folder:
        folder.save(NAME, [there])
        save_as(folder, NAME, OTHERS)
        assert folder.holds(NAME, OTHERS)


def test_what_cannot_be_looked_into_is_not_replaced(guarded: bool, tmp_path: Path, monkeypatch: Any) -> None:
    with Opened(tmp_path) as folder:
        folder.save(NAME, [b"x"])
        with monkeypatch.context() as patched:
            patched.setattr(folder_module, "_header_in", Failing.at_once(errno.EIO))
            with pytest.raises(LocalFileError, match="the disk failed"):
                save_as(folder, NAME, OTHERS)
    assert tmp_path.joinpath(*NAME).read_bytes() == b"x"


def test_links_and_pipes_of_the_name_are_replaced(guarded: bool, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(small_dicom())
    with Opened(tmp_path / "to") as folder:
        (tmp_path / "to" / "link").symlink_to(tmp_path / "victim")
        os.mkfifo(tmp_path / "to" / "pipe")
        for name in ("link", "pipe"):
            save_as(folder, (name,), OTHERS)
            assert folder.holds((name,), OTHERS)
    assert (tmp_path / "victim").read_bytes() == small_dicom()


def test_of_two_downloads_that_end_at_once_one_has_the_name(
    guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins to commit when the first has found that nothing is there, but has not taken the name."""
    looked = folder_module._Directory.holds_another
    outcomes: list[bool] = []
    with Opened(tmp_path) as mine, Opened(tmp_path) as others:

        def second() -> None:
            with suppress(NameTaken):
                save_as(others, NAME, OTHERS)
                outcomes.append(True)

        thread = Thread(target=second)

        def looking(*arguments: Any) -> bool:
            found = looked(*arguments)
            if thread.ident is None:
                thread.start()
                thread.join(0.2)  # it waits for this one; if it did not, it would be done by then
            return found

        monkeypatch.setattr(folder_module._Directory, "holds_another", looking)
        save_as(mine, NAME, UIDS)
        thread.join()
        assert outcomes == []
        assert mine.holds(NAME, UIDS)
    assert files_below(tmp_path) == ["/".join(NAME)]


@pytest.mark.parametrize("data", [b"", b"x", small_dicom()[:200], small_dicom()[:-1], bytes(200_000)])
def test_what_is_no_instance_is_not_held(guarded: bool, tmp_path: Path, data: bytes) -> None:
    with Opened(tmp_path) as folder:
        folder.save(NAME, [data])
        assert not folder.holds(NAME, UIDS)


def test_a_file_that_cannot_be_read_is_not_held(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> os.stat_result:
        raise OSError(errno.EIO, "disk")

    with Opened(tmp_path) as folder:
        folder.save(NAME, [small_dicom()])
        with monkeypatch.context() as patched:
            patched.setattr(os, "fstat", broken)
            assert not folder.holds(NAME, UIDS)
