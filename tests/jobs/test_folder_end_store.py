"""What goes into a folder, and comes out of it: whole or not at all, and nothing private beside it."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from postdicom_async.dicom.anonymize import Anonymization
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import IdentifiedSource, Usable
from postdicom_async.errors import ConnectionFailed, LocalFileError, PostdicomError, UsageError
from postdicom_async.jobs.ends.end import ListedInstance, ListedStudy, Selection
from postdicom_async.jobs.ends.folder import FolderEnd
from postdicom_async.results import InstanceUids, Outcome, Status
from tests.jobs.folders import each, excluded, files_below, instances, opened, stored, studies, usable, written
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, study_files, uid

posix = pytest.mark.skipif(sys.platform == "win32", reason="the calls that fail here are those of POSIX systems")


@dataclass(frozen=True)
class Odd:
    """A body that is not what it says, or fails."""

    data: bytes
    length: int
    error: Exception | None = None

    async def open(self) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(self.data), 700):
            yield self.data[at : at + 700]
        if self.error is not None:
            raise self.error


class Once:
    """A body that can be read once, as one that passes through."""

    def __init__(self, source: Usable) -> None:
        self.source = source
        self.length = source.body.length
        self._read = False

    async def open(self) -> AsyncGenerator[bytes, None]:
        assert not self._read
        self._read = True
        async for piece in self.source.body.open():
            yield piece


def names_of(root: Path) -> set[str]:
    """Return what lies in a folder, and see that nothing else does: no partial file."""
    return set(files_below(root)) if root.exists() else set()


async def told(end: FolderEnd, sources: AsyncIterator[IdentifiedSource]) -> tuple[list[Outcome], PostdicomError | None]:
    """Store; return the outcomes, and what ended the call."""
    outcomes: list[Outcome] = []
    try:
        async for outcome in end.store(sources):
            outcomes.append(outcome)  # noqa: PERF401 - what came before an error counts
    except PostdicomError as error:
        return outcomes, error
    return outcomes, None


# --- storing ---------------------------------------------------------------------------------------------------------


async def test_large_and_small_instances(tmp_path: Path) -> None:
    files = [small_dicom(instance=uid(1, 1, n), pixel_bytes=size) for n, size in enumerate([64, 700_000, 3 << 20])]
    async with FolderEnd(tmp_path, fsync=False) as end:
        for expected in (Status.SAVED, Status.PRESENT):
            assert {outcome.status for outcome in await stored(end, files)} == {expected}
    assert sorted(files_below(tmp_path).values(), key=len) == files


async def test_from_folder_to_folder(tmp_path: Path) -> None:
    files = study_files(50, series=3)
    written(tmp_path / "from", {f"x/{n}": data for n, data in enumerate(files.values())})
    async with FolderEnd(tmp_path / "from") as source, FolderEnd(tmp_path / "to", target=True) as target:
        wanted = Selection(uid(1), None, await instances(source, uid(1)), whole=True)
        outcomes = [one async for one in target.store(source.open(wanted))]
        assert {one.status for one in outcomes} == {Status.SAVED}
        assert {one.where for one in outcomes} == set(files)
    assert {Path(name).stem: data for name, data in files_below(tmp_path / "to").items()} == files


async def test_what_cannot_be_sent_has_its_outcome(tmp_path: Path) -> None:
    good, data = usable(small_dicom()), small_dicom(instance=uid(1, 1, 2))
    lost = ConnectionFailed("the connection broke")
    changed = LocalFileError("a source changed while it was read")
    sources: list[IdentifiedSource] = [
        Unusable("cut", Status.UNREADABLE, "cut off", 99),
        replace(usable(data), label="short", body=Odd(data[:-1], len(data))),
        replace(usable(data), label="long", body=Odd(data + b"x", len(data))),
        replace(usable(data), label="changed", body=Odd(data[:2000], len(data), changed)),
        replace(usable(data), label="lost", body=Odd(data[:2000], len(data), lost)),
        good,
    ]
    async with FolderEnd(tmp_path) as end:
        outcomes = {one.where: one async for one in end.store(each(sources))}
    assert {label: one.status for label, one in outcomes.items()} == {
        "cut": Status.UNREADABLE,
        "short": Status.UNREADABLE,
        "long": Status.UNREADABLE,
        "changed": Status.UNREADABLE,
        "lost": Status.FAILED,
        uid(1, 1, 1): Status.SAVED,
    }
    assert outcomes["lost"].temporary
    assert list(files_below(tmp_path).values()) == [small_dicom()]


async def test_a_beginning_left_by_another_program_is_made_whole(tmp_path: Path) -> None:
    small, large = small_dicom(), small_dicom(instance=uid(1, 1, 2), pixel_bytes=17 << 20)
    name = f"{uid(1)}/{uid(1, 1)}/{{}}.dcm"
    written(tmp_path, {name.format(uid(1, 1, 1)): b"", name.format(uid(1, 1, 2)): large[: 2 << 20]})
    once = [Once(usable(data)) for data in (small, large)]
    async with FolderEnd(tmp_path, fsync=False) as end:
        outcomes = [one async for one in end.store(each(replace(one.source, body=one) for one in once))]
        assert {one.status for one in outcomes} == {Status.SAVED}
    assert sorted(files_below(tmp_path).values(), key=len) == [small, large]


async def test_the_same_data_set_is_there_already(tmp_path: Path) -> None:
    data = small_dicom()
    async with FolderEnd(tmp_path) as end:
        await stored(end, [b"another".ljust(128) + data[128:]])
        assert [one.status for one in await stored(end, [data])] == [Status.PRESENT]


@posix
@pytest.mark.parametrize("there", ["longer", "large", "link", "folder", "pipe", "text"])
async def test_what_lies_there_is_left_alone(tmp_path: Path, there: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    data = small_dicom(pixel_bytes=17 << 20 if there == "large" else 2048)
    path = root / uid(1) / uid(1, 1) / f"{uid(1, 1, 1)}.dcm"
    path.parent.mkdir(parents=True)
    if there == "folder":
        path.mkdir()
    elif there == "pipe":
        os.mkfifo(path)
    elif there == "link":
        outside.write_bytes(data)
        path.symlink_to(outside)
    else:
        path.write_bytes({"longer": data + b"xx", "large": data[:-2] + b"xx", "text": b"text"}[there])
    before = files_below(tmp_path)
    async with FolderEnd(root, fsync=False) as end:
        (outcome,) = await stored(end, [data])
    assert outcome.status is Status.FAILED
    assert not outcome.temporary
    assert files_below(tmp_path) == before
    assert path.is_symlink() is (there == "link")


async def test_one_name_for_two_instances(tmp_path: Path) -> None:
    def flat(uids: InstanceUids) -> str:
        return f"all/{uids.sop_instance_uid[-1]}"

    two = [small_dicom(instance=uid(1, 1, 1)), small_dicom(instance=uid(1, 2, 1), series=uid(1, 2))]
    async with FolderEnd(tmp_path, layout=flat) as end:
        outcomes = await stored(end, two)
    assert sorted(one.status for one in outcomes) == [Status.FAILED, Status.SAVED]
    assert len(files_below(tmp_path)) == 1


async def test_the_same_instance_twice_at_once(tmp_path: Path) -> None:
    data = small_dicom(pixel_bytes=900_000)
    async with FolderEnd(tmp_path, fsync=False) as end:
        outcomes = [one for some in await asyncio.gather(*(stored(end, [data] * 3) for _ in range(4))) for one in some]
    assert sorted(one.status for one in outcomes) == [Status.PRESENT] * 11 + [Status.SAVED]


async def test_anonymised(tmp_path: Path) -> None:
    anonymization = Anonymization({"PatientName": "nobody"}, remap_uids=True, secret=b"x" * 32)
    async with FolderEnd(tmp_path) as end:
        for expected in (Status.SAVED, Status.PRESENT):
            sources = each([usable(small_dicom(patient_name="CANARY^NAME")), Unusable("x", Status.NOT_DICOM, "no")])
            outcomes = {one.where: one async for one in end.store(sources, anonymize=anonymization)}
            assert outcomes[uid(1, 1, 1)].status is expected
            assert outcomes["x"].status is Status.NOT_DICOM
            uids = outcomes[uid(1, 1, 1)].uids or InstanceUids("", "", "")
            assert uids.sop_instance_uid != uid(1, 1, 1)
        assert await studies(end) == [ListedStudy(uids.study_instance_uid, (await studies(end))[0].date, 1)]
    ((name, data),) = files_below(tmp_path).items()
    assert name == f"{uids[0]}/{uids[1]}/{uids[2]}.dcm"
    assert b"CANARY" not in data


async def test_a_source_that_fails_ends_the_call_after_what_was_taken(tmp_path: Path) -> None:
    async def failing() -> AsyncIterator[IdentifiedSource]:
        for number in range(1, 21):
            yield usable(small_dicom(instance=uid(1, 1, number)))
        raise ConnectionFailed("the source is gone")

    async with FolderEnd(tmp_path) as end:
        outcomes, problem = await told(end, failing())
    assert isinstance(problem, ConnectionFailed)
    assert len({one.where for one in outcomes if one.status is Status.SAVED}) == 20
    assert len(files_below(tmp_path)) == 20


async def test_leaving_early_leaves_nothing_half_done(tmp_path: Path) -> None:
    closed: list[bool] = []

    async def endless() -> AsyncIterator[IdentifiedSource]:
        try:
            for number in itertools.count(1):
                yield usable(small_dicom(instance=uid(1, 1, number), pixel_bytes=300_000))
        finally:
            closed.append(True)

    async with FolderEnd(tmp_path, fsync=False) as end:
        async with aclosing(end.store(endless())) as outcomes:
            async for _ in outcomes:
                break
        assert closed
        whole = {len(data) for data in files_below(tmp_path).values()}
        assert whole == {len(small_dicom(instance=uid(1, 1, 1), pixel_bytes=300_000))}
        assert (await end.study(uid(1)) or ListedStudy("")).instances == len(files_below(tmp_path))


class Failing:
    """Makes the Nth of some system calls fail, and all after it where ``always``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, nth: int, *, always: bool) -> None:
        self.calls = 0
        self.broken = True
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **options: object) -> object:
            self.calls += 1
            if self.broken and (self.calls == nth or (always and self.calls > nth)):
                raise OSError(code, os.strerror(code), CANARIES["path"])
            return real(*args, **options)

        monkeypatch.setattr(os, name, call)


@posix
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["writev", "fsync", "rename", "mkdir"])
@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
async def test_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, always: bool
) -> None:
    files = study_files(12, series=4)
    root = tmp_path / "root"
    written(root, {"other": b"x"})
    async with FolderEnd(root) as end:
        await studies(end)
        await stored(end, [])
        for nth in itertools.count(1, 3):
            with monkeypatch.context() as patch:
                failing = Failing(patch, name, code, nth, always=always)
                outcomes, problem = await told(end, each(map(usable, files.values())))
            if failing.calls < nth:
                assert problem is None
                break
            assert isinstance(problem, LocalFileError)
            assert problem.disk_full is (code != errno.EIO)
            assert str(problem).startswith("the folder: ")
            assert CANARIES["path"] not in str(problem)
            assert str(root) not in str(problem)
            done = {one.where for one in outcomes}
            assert {one.status for one in outcomes} <= {Status.SAVED, Status.PRESENT}
            below = files_below(root)
            assert below.pop("other") == b"x"
            assert {Path(path).stem for path in below} >= done
            assert all(files[Path(path).stem] == data for path, data in below.items()), "nothing half written"
            await end.delete(uid(1), None)
        await stored(end, files.values())
        assert (await end.study(uid(1)) or ListedStudy("")).instances == 12
    assert {data for name, data in files_below(root).items() if name != "other"} == set(files.values())


@posix
async def test_the_probe_tells_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FolderEnd(tmp_path) as end:
        await end.probe()
        assert names_of(tmp_path) == set()
        await stored(end, [small_dicom()])
        with monkeypatch.context() as patch:
            Failing(patch, "writev", errno.ENOSPC, 1, always=True)
            with pytest.raises(LocalFileError, match="the disk is full") as caught:
                await end.probe()
            assert caught.value.disk_full
        await end.probe()
        assert len(names_of(tmp_path)) == 1


async def test_what_a_killed_process_left_half_written_is_cleared_by_the_next(tmp_path: Path) -> None:
    root, index = tmp_path / "root", tmp_path / "index"
    code = f"""
import asyncio, os
from pathlib import Path
from postdicom_async.jobs.ends.folder import FolderEnd
async def main():
    async with FolderEnd(Path({str(root)!r}), index=Path({str(index)!r}), target=True) as end:
        sink = (await end._opened_store()).sink
        sink.folder.create(("half",)).write([b"half"])
        sink.folder.create(("a", "b", "half")).write([b"half"])
        os._exit(9)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 9
    (root / ".postdicom-of-another-job.part").write_bytes(b"half")
    assert len(names_of(root)) == 3
    async with FolderEnd(root, index=index, target=True, layout="a/b/{instance}") as end:
        folder = (await end._opened_store()).sink.folder
        mine = folder.create(("x", "y"))  # what is on its way now stays
        for number in range(100):
            folder.save((f"{number}", "z"), [b"x"])
        folder.save(("x", "z"), [b"x"])
        mine.commit()
        mine.discard()
        await stored(end, [small_dicom()])
    left = {name for name in names_of(root) if name.endswith(".part")}
    assert left == {".postdicom-of-another-job.part"}
    assert {f"a/b/{uid(1, 1, 1)}", "x/y"} <= names_of(root)


@pytest.mark.parametrize("layout", ["{study}", "{patient}/{instance}", "{instance"])
def test_layouts_are_checked_at_once(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UsageError, match="layout"):
        FolderEnd(tmp_path, layout=layout)


# --- opening ---------------------------------------------------------------------------------------------------------


async def test_what_has_changed_since_it_was_listed(tmp_path: Path) -> None:
    files = study_files(7)
    written(tmp_path, {f"{n}": data for n, data in enumerate(files.values(), 1)})
    async with FolderEnd(tmp_path) as end:
        listed = await instances(end, uid(1))
        (tmp_path / "1").unlink()
        (tmp_path / "2").write_bytes(small_dicom(instance=uid(1, 1, 77)))
        (tmp_path / "3").write_bytes(files[uid(1, 1, 3)][:-50])
        (tmp_path / "4").write_bytes(b"text")
        (tmp_path / "5").write_bytes(small_dicom(uid(4), uid(1, 1), uid(1, 1, 5)))
        (tmp_path / "6").unlink()
        (tmp_path / "6").mkdir()
        found = await opened(end, uid(1), listed)
    assert {name for name, one in found.items() if isinstance(one, Unusable)} == {uid(1, 1, n) for n in range(2, 7)}
    assert found[uid(1, 1, 7)] == files[uid(1, 1, 7)]
    assert uid(1, 1, 1) not in found, "what the source does not give does not come"


@pytest.mark.parametrize("size", [2048, 3 << 20])
@pytest.mark.parametrize("change", ["grows", "shrinks", "vanishes", "is rewritten", "is replaced"])
async def test_what_changes_while_it_is_read(tmp_path: Path, size: int, change: str) -> None:
    data = small_dicom(pixel_bytes=size)
    root, to = tmp_path / "root", tmp_path / "to"
    written(root, {"a": data})
    file = root / "a"

    async def changing(source: AsyncIterator[IdentifiedSource]) -> AsyncIterator[IdentifiedSource]:
        async for one in source:
            if change == "grows":
                file.write_bytes(data + b"x")
            elif change == "shrinks":
                os.truncate(file, len(data) - 1)
            elif change == "vanishes":
                file.unlink()
            elif change == "is rewritten":
                file.write_bytes(data[:-1] + b"x")
            else:
                file.rename(root / "b")
                file.write_bytes(data)
            yield one

    async with FolderEnd(root) as source, FolderEnd(to, target=True) as target:
        wanted = Selection(uid(1), uid(1, 1), await instances(source, uid(1)))
        (outcome,) = [one async for one in target.store(changing(source.open(wanted)))]
    assert outcome.status is Status.UNREADABLE
    assert names_of(to) == set()


@pytest.mark.parametrize("place", ["../outside", "/etc/hostname", "sub/../../outside", "a\0b", "link/outside", "."])
async def test_places_outside(tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    written(tmp_path, {"outside": small_dicom(), "root/sub/inside": small_dicom()})
    (root / "link").symlink_to(tmp_path)
    async with FolderEnd(root) as end:
        found = await opened(end, uid(1), [ListedInstance(uid(1, 1), uid(1, 1, 1), 0, place)])
    assert isinstance(found[uid(1, 1, 1)], Unusable)


async def test_without_places(tmp_path: Path) -> None:
    """As a worker has it, or a job that goes on: the index of an earlier run will do, or the layout, or a search."""
    files = study_files(3)
    root, index = tmp_path / "root", tmp_path / "index"
    written(root, {f"{n}": data for n, data in enumerate(files.values())})
    wanted = [ListedInstance(uid(1, 1), name) for name in [*files, uid(1, 1, 9)]]
    for _ in range(2):
        async with FolderEnd(root, index=index) as end:
            assert await opened(end, uid(1), wanted) == files
    async with FolderEnd(tmp_path / "to", target=True) as end:
        await stored(end, files.values())
    told: list[int] = []
    async with FolderEnd(tmp_path / "to", on_scan=told.append) as end:
        assert await opened(end, uid(1), wanted[:3]) == files
        assert not told, "no search"


async def test_a_folder_that_is_unmounted_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "root"
    written(root, {"a": small_dicom()})
    async with FolderEnd(root) as end:
        listed = await instances(end, uid(1))
        assert await opened(end, uid(1), listed)
        root.rename(tmp_path / "elsewhere")
        with pytest.raises(LocalFileError, match="gone") as caught:
            await opened(end, uid(1), listed)
        assert caught.value.temporary
        root.mkdir()
        for question in (lambda: opened(end, uid(1), listed), end.probe, end.refresh):
            with pytest.raises(LocalFileError, match="another") as caught:
                await question()
            assert caught.value.temporary, "it may be mounted again"
        root.rmdir()
        (tmp_path / "elsewhere").rename(root)
        await end.probe()
        assert await opened(end, uid(1), listed)


# --- deleting --------------------------------------------------------------------------------------------------------


async def test_delete_takes_copies_along_and_nothing_that_has_changed(tmp_path: Path) -> None:
    data, other = small_dicom(), small_dicom(patient_name="OTHER^NAME")
    second = small_dicom(instance=uid(1, 1, 2))
    written(tmp_path, {"a": data, "b/copy": data, "c": other, "d": second})
    async with FolderEnd(tmp_path) as end:
        await studies(end)
        (tmp_path / "d").write_bytes(second + b"x")
        uids = [InstanceUids(uid(1), uid(1, 1), uid(1, 1, n)) for n in (1, 2, 3)]
        with pytest.raises(LocalFileError, match="changed"):
            await end.delete(uid(1), uids)
        assert sorted(files_below(tmp_path)) == ["c", "d"]
        assert not (tmp_path / "b").exists()


async def test_delete_a_study(tmp_path: Path) -> None:
    data, other = small_dicom(), small_dicom(patient_name="OTHER^NAME")
    written(tmp_path, {"a": data, "b/copy": data, "c": other, "d": small_dicom(uid(2), uid(2, 1), uid(2, 1, 1))})
    async with FolderEnd(tmp_path, filters={"StudyInstanceUID": uid(1)}) as end:
        await end.delete(uid(1), None)
        with pytest.raises(UsageError, match="filter"):
            await end.delete(uid(2), None)
    assert sorted(files_below(tmp_path)) == ["c", "d"], "neither what was never listed, nor outside the filter"


@posix
async def test_delete_follows_no_link(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    written(root, {"sub/a": small_dicom()})
    async with FolderEnd(root) as end:
        await studies(end)
        (root / "sub").rename(outside)
        (root / "sub").symlink_to(outside)
        with pytest.raises(LocalFileError):
            await end.delete(uid(1), None)
    assert list(files_below(outside)) == ["a"]


# --- nothing private -------------------------------------------------------------------------------------------------


async def noted(errors: list[BaseException], question: Callable[[], Awaitable[object]]) -> None:
    """Note what a question raises."""
    try:
        await question()
    except PostdicomError as error:
        errors.append(error)


async def test_paths_and_names_are_in_the_index_alone(tmp_path: Path, canary_watch: CanaryWatch) -> None:
    root, index = tmp_path / CANARIES["path"], tmp_path / "index"
    name, number = CANARIES["patient_name"], CANARIES["patient_id"]
    data = small_dicom(patient_name=name, patient_id=number)
    written(root, {f"{name}/{number}": data, f"{name}/text": b"text", f"{name}/cut": data[:-20]})
    to = tmp_path / "to" / CANARIES["path"]
    async with (
        FolderEnd(root, index=index, filters={"PatientName": name}) as source,
        FolderEnd(to, target=True) as target,
    ):
        listed = await instances(source, uid(1))
        for one in await excluded(source):
            canary_watch.feed_text(one.uid)
        outcomes = [one async for one in target.store(source.open(Selection(uid(1), None, listed)))]
        assert [one.status for one in outcomes] == [Status.SAVED]
        sources: list[object] = [one async for one in source.open(Selection(uid(1), None, listed))]
        for thing in (source, target, *outcomes, *sources, *(one.where for one in outcomes)):
            canary_watch.feed(thing)
        assert isinstance(sources[0], Usable)
        (root / name / number).unlink()
        body = sources[0].body

        async def read() -> None:
            async for _ in body.open():
                pass

        errors: list[BaseException] = []
        await noted(errors, read)
        root.rename(tmp_path / "gone")
        for question in (lambda: opened(source, uid(1), listed), source.refresh, source.probe):
            await noted(errors, question)
        assert len(errors) == 4
        for error in errors:
            canary_watch.feed_text(f"{error} {error!r} {error.args}")
    assert number.encode() in index.read_bytes()
    assert os.fsencode(root) in index.read_bytes()
