"""One answer into a folder: what counts as saved, what is left of the rest, and what holds back the network."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from postdicom_async.dicom.layout import relative_names
from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.disk.folder import SafeFolder
from postdicom_async.errors import ConnectionFailed, LocalFileError, ProtocolError
from postdicom_async.http.answer import StreamedAnswer
from postdicom_async.results import BytesMoved, InstanceFinished, InstanceUids, Outcome, ProgressEvent
from postdicom_async.transfer import sinks as pool_module
from postdicom_async.transfer.arrivals import Arrivals
from postdicom_async.transfer.outcomes import Gathered, Meter
from postdicom_async.transfer.sinks import FolderSink, by_uids
from tests.support.bodies import Multipart, multipart_related
from tests.support.dicom_files import small_dicom, uid

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors of directories")

STUDY = uid(7)
Chunks = Callable[[], AsyncIterator[bytes]]


def uids(number: int) -> InstanceUids:
    return InstanceUids(STUDY, uid(7, 1), uid(7, 1, number))


def files(count: int, *, pixel_bytes: int = 2048) -> list[bytes]:
    return [small_dicom(*uids(number), pixel_bytes=pixel_bytes) for number in range(count)]


class Answer:
    """As much of an answer as the receiver looks at."""

    def __init__(self, made: Multipart, chunks: Chunks | None = None, *, by: int = 64 * 1024) -> None:
        self.content_type = made.content_type
        self.end_is_marked = True
        self._made = made
        self._by = by
        self.chunks = chunks or self._whole

    async def _whole(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._made.body), self._by):
            yield self._made.body[at : at + self._by]


class Case:
    """A folder that is received into."""

    def __init__(self, root: Path, *, fsync: bool, piece: int) -> None:
        self.root = root
        self.folder = SafeFolder(root, fsync=fsync)
        self.folder.open()
        self.told: list[ProgressEvent] = []
        self.gathered = Gathered(keeps_all=True)
        self.arrivals = Arrivals(STUDY, self.gathered)
        self.sink = FolderSink(self.folder, by_uids(relative_names("{series}/{instance}")), piece=piece)

    async def receive(self, answer: Answer, on_progress: Callable[[ProgressEvent], None] | None = None) -> None:
        meter = Meter(on_progress or self.told.append)
        receiver = Receiver(self.sink, Target(STUDY), self.arrivals.answer(), meter=meter)
        await receiver.receive(cast("StreamedAnswer", answer), 10_000)

    @property
    def saved(self) -> dict[InstanceUids, Outcome]:
        return {one.uids: one for one in self.gathered.outcomes if one.uids is not None}

    def on_disk(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def require_honest(self, contents: Sequence[bytes]) -> None:
        """Fail unless what is said to be saved is there and whole, and nothing else is there."""
        assert self.on_disk() == {uids[2]: contents[int(uids[2].split(".")[-1])] for uids in self.saved}
        assert all(one.size == one.path.stat().st_size for one in self.saved.values())
        finished = [event.outcome for event in self.told if isinstance(event, InstanceFinished)]
        assert sorted(finished, key=lambda one: one.uids or ()) == [self.saved[uids] for uids in sorted(self.saved)]
        assert self.arrivals.here == len(self.saved)


@contextmanager
def receiving(root: Path, *, fsync: bool = True, piece: int = 512 * 1024) -> Iterator[Case]:
    case = Case(root, fsync=fsync, piece=piece)
    with case.sink:
        yield case
        assert case.sink.pool._held == 0
    case.folder.close()
    case.arrivals.close()


@pytest.mark.parametrize("fsync", [True, False])
@pytest.mark.parametrize("by", [1 << 22, 64 * 1024, 1000, 7])
@pytest.mark.parametrize("piece", [512 * 1024, 1000, 1])
async def test_every_instance_however_it_is_cut(tmp_path: Path, fsync: bool, by: int, piece: int) -> None:
    contents = [*files(12), small_dicom(*uids(12), pixel_bytes=300_000 if by > 7 else 3000)]
    with receiving(tmp_path, fsync=fsync, piece=piece) as case:
        await case.receive(Answer(multipart_related(contents), by=by))
        assert case.arrivals.refused == 0
        assert case.saved.keys() == {uids(number) for number in range(13)}
        case.require_honest(contents)


@pytest.mark.parametrize("fsync", [True, False])
async def test_a_cut_answer_keeps_what_was_whole_and_nothing_else(tmp_path: Path, fsync: bool) -> None:
    contents = files(5, pixel_bytes=20_000)
    made = multipart_related(contents)
    for number, end in enumerate(range(1, len(made.body) - 2, 7919)):
        with receiving(tmp_path / str(number), fsync=fsync, piece=4000) as case:
            with pytest.raises(ProtocolError):
                await case.receive(Answer(Multipart(made.content_type, made.body[:end])))
            assert len(case.saved) == made.body[:end].count(b"\r\n--b0undary-of-the-tests\r\n")
            case.require_honest(contents)


async def test_what_came_is_not_held_back_when_nothing_more_comes(tmp_path: Path) -> None:
    """Small pieces are gathered before they are read, but not from an answer that stands still."""
    contents, go = files(3), asyncio.Event()
    made = multipart_related(contents)
    end_of_second = made.body.index(b"\r\n--b0undary-of-the-tests\r\n", made.body.index(contents[1][-50:]))

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, end_of_second + 27, 100):
            yield made.body[at : min(at + 100, end_of_second + 27)]
        await go.wait()
        yield made.body[end_of_second + 27 :]

    with receiving(tmp_path) as case:
        task = asyncio.create_task(case.receive(Answer(made, chunks)))
        await until(lambda: len([name for name in case.on_disk() if not name.startswith(".")]) == 2)
        go.set()
        await task
        case.require_honest(contents)


async def test_what_came_before_the_connection_broke_counts(tmp_path: Path) -> None:
    contents = files(3)
    made = multipart_related(contents)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(made.body) - 10, 500):
            yield made.body[at : min(at + 500, len(made.body) - 10)]
        raise ConnectionFailed("the connection broke", operation="retrieve")

    with receiving(tmp_path) as case:
        with pytest.raises(ConnectionFailed):
            await case.receive(Answer(made, chunks))
        assert len(case.saved) == 2
        case.require_honest(contents)


async def test_damage_in_an_answer_that_stands_still_is_told_with_the_next_piece(tmp_path: Path) -> None:
    made = multipart_related(files(2))

    async def chunks() -> AsyncIterator[bytes]:
        yield made.body[:-200].replace(b"application/dicom", b"application/dicom\r\nno header")
        await asyncio.sleep(0.1)
        for _ in range(1000):
            yield b"x"
        raise AssertionError

    with receiving(tmp_path) as case, pytest.raises(ProtocolError, match="header"):
        await case.receive(Answer(made, chunks))


# --- what saved means -----------------------------------------------------------------------------------------------


class Held:
    """Holds back the fsyncs of one kind of descriptor until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, directories: bool) -> None:
        self.go = threading.Event()
        self.waiting = 0
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{descriptor}") is directories:  # noqa: PTH112 - a descriptor
                self.waiting += 1
                assert self.go.wait(20)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    async def by_all_threads(self) -> None:
        await until(lambda: self.waiting == pool_module.AT_ONCE)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells directories from files there")


@needs_proc
@pytest.mark.parametrize("directories", [False, True])
async def test_saved_only_when_its_folder_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directories: bool
) -> None:
    """Eight are on their way at once; none of them counts, nor has its final name, before it is durable."""
    contents = files(20)
    with receiving(tmp_path) as case:
        case.folder.borrow((uid(7, 1),)).users -= 1  # made now, so that only files are waited for
        held = Held(monkeypatch, directories=directories)
        task = asyncio.create_task(case.receive(Answer(multipart_related(contents))))
        await held.by_all_threads()
        await asyncio.sleep(0.02)
        assert held.waiting == pool_module.AT_ONCE
        assert case.saved == {}
        assert [event for event in case.told if isinstance(event, InstanceFinished)] == []
        if not directories:
            assert not any(name.startswith(uid(7)) for name in case.on_disk())
        held.go.set()
        await task
        assert len(case.saved) == 20
        case.require_honest(contents)


@needs_proc
async def test_a_slow_disk_holds_back_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded in bytes, and in number where files are small; the event loop goes on."""
    for name, contents in (("large", files(60, pixel_bytes=400_000)), ("small", files(1500, pixel_bytes=0))):
        made, asked = multipart_related(contents), 0

        async def chunks(body: bytes = made.body) -> AsyncIterator[bytes]:
            nonlocal asked
            for at in range(0, len(body), 16_384):
                asked += 1
                yield body[at : at + 16_384]

        with receiving(tmp_path / name) as case, monkeypatch.context() as patched:
            held = Held(patched, directories=False)
            task = asyncio.create_task(case.receive(Answer(made, chunks)))
            await held.by_all_threads()
            await asyncio.sleep(0.05)
            so_far = asked * 16_384
            assert so_far <= pool_module.MOST_BYTES + 600_000
            assert so_far < len(made.body) / 2
            assert so_far / len(contents[0]) < 700
            held.go.set()
            await task
            assert len(case.saved) == len(contents)


# --- a disk that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "writev", "fsync", "rename"])
@pytest.mark.parametrize("nth", [1, 2, 9, 10, 30])
@pytest.mark.parametrize("piece", [512 * 1024, 2000])
async def test_a_failing_call_is_one_error_and_costs_only_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, piece: int
) -> None:
    contents = files(20, pixel_bytes=6000)
    real: Callable[..., Any] = getattr(os, call)
    lock, calls = threading.Lock(), 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            fails = calls == nth
        if fails:
            raise OSError(errno.ENOSPC, "full")
        return real(*arguments, **named)

    with receiving(tmp_path, piece=piece) as case, monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        problem: LocalFileError | None = None
        try:
            await case.receive(Answer(multipart_related(contents)))
        except LocalFileError as error:
            problem = error
        if problem is not None:
            assert problem.disk_full
            assert problem.__context__ is None
        assert (problem is not None) is (calls >= nth)
        assert len(case.saved) == (20 if problem is None else 19)
        case.require_honest(contents)


async def test_a_disk_that_is_full_from_now_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many fail at once in the pool; there is one error, and what was saved before stays."""
    contents = files(200, pixel_bytes=6000)
    real = os.writev
    written = 0

    def writev(descriptor: int, pieces: Any) -> int:
        nonlocal written
        written += 1
        if written > 50:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, pieces)

    with receiving(tmp_path) as case:
        with monkeypatch.context() as patched:
            patched.setattr(os, "writev", writev)
            with pytest.raises(LocalFileError, match="disk is full"):
                await case.receive(Answer(multipart_related(contents)))
        assert len(case.saved) == 50
        case.require_honest(contents)


async def test_the_disk_s_error_comes_before_that_of_the_cut_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which ends the download; a cut answer alone would be asked for again."""

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    made = multipart_related(files(2))
    with receiving(tmp_path) as case, monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        with pytest.raises(LocalFileError):
            await case.receive(Answer(Multipart(made.content_type, made.body[:-10])))
        case.require_honest([])


# --- cancellation ---------------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("turns", range(0, 40, 3))
@pytest.mark.parametrize("piece", [512 * 1024, 2000])
async def test_nothing_half_written_is_left_by_a_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int, piece: int
) -> None:
    contents = files(30, pixel_bytes=6000)
    made = multipart_related(contents)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(made.body), 10_000):
            await asyncio.sleep(0)
            yield made.body[at : at + 10_000]
        await asyncio.sleep(60)

    with receiving(tmp_path, piece=piece) as case:
        task = asyncio.create_task(case.receive(Answer(made, chunks)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        case.require_honest(contents)


@needs_proc
async def test_a_cancellation_waits_for_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is closed after them: their descriptors may not become somebody else's."""
    contents = files(3)
    with receiving(tmp_path) as case:
        case.folder.borrow((uid(7, 1),)).users -= 1
        held = Held(monkeypatch, directories=False)
        task = asyncio.create_task(case.receive(Answer(multipart_related(contents))))
        await until(lambda: held.waiting == 3)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.005)
            assert not task.done()
        held.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(case.saved) == 3
        case.require_honest(contents)


@pytest.mark.parametrize("kind", [InstanceFinished, BytesMoved])
@pytest.mark.parametrize("piece", [512 * 1024, 1000])
async def test_a_listener_that_raises_ends_it_in_the_caller_s_task(
    kind: type[ProgressEvent], piece: int, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def listener(event: ProgressEvent) -> None:
        if isinstance(event, kind):
            raise Enough

    with receiving(tmp_path, piece=piece) as case:
        with pytest.raises(Enough):
            async with asyncio.timeout(20):
                await case.receive(Answer(multipart_related(files(5))), listener)
        assert case.on_disk().keys() >= {uids[2] for uids in case.saved}
        assert not any(name.startswith(".") for name in case.on_disk())


async def test_quick_writes_run_in_the_event_loop_and_slow_ones_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without fsync."""
    threads: list[int] = []
    real = os.writev

    def writev(descriptor: int, pieces: Any) -> int:
        threads.append(threading.get_ident())
        if len(threads) == 10:
            threading.Event().wait(0.6)
        return real(descriptor, pieces)

    monkeypatch.setattr("postdicom_async.disk.files._QUICK", 0.5)
    monkeypatch.setattr(os, "writev", writev)
    with receiving(tmp_path, fsync=False) as case:
        await case.receive(Answer(multipart_related(files(40))))
        assert len(case.saved) == 40
    assert threads[9] == threading.get_ident()
    assert threading.get_ident() not in threads[10:]
