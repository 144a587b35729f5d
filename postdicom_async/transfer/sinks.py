"""Where instances go as they arrive: into a folder (`FolderSink`), or on to another archive (`HoldingSink`).

A sink accepts bytes without waiting and reports later how it went, so that parsing an answer never waits for each part.
Its caller awaits `Sink.room` in between: so a slow disk, or a slow reader, slows down the network.

In a folder each file is whole under its final name and durable. A file belongs to one thread at a time: bytes that
arrive while a thread works on it wait for that thread, in order.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self, TypeAlias

from postdicom_async.dicom.header import InstanceHeader
from postdicom_async.dicom.layout import RelativeName
from postdicom_async.disk.files import QuickWork
from postdicom_async.disk.folder import PartialFile, SafeFolder
from postdicom_async.results import InstanceUids

Pieces: TypeAlias = Sequence[bytes | memoryview]

ArrivalEnded: TypeAlias = Callable[[BaseException | None], None]
"""Called once for each arrival, in the event loop: with None if it was kept, or dropped as requested; otherwise with
the error. It must not raise."""


class Arriving(NamedTuple):
    """An instance that begins to arrive.

    Attributes:
        header: its header.
        length: its bytes, None if the archive has not said.
        values: those of its header that the receiver was asked for.
    """

    header: InstanceHeader
    length: int | None
    values: Mapping[int, bytes] = MappingProxyType({})


class Arrival(Protocol):
    """One instance on its way into a sink. No method waits; `ArrivalEnded` reports the result."""

    @property
    def where(self) -> str:
        """The path of the file it will be, empty if there is none."""
        ...

    def write(self, pieces: Pieces, size: int, /) -> None:
        """Take its next bytes, ``size`` in all."""
        ...

    def end(self, pieces: Pieces, size: int, /) -> None:
        """Take its last bytes: it is whole."""
        ...

    def drop(self) -> None:
        """Discard all of it: the rest will not come."""
        ...


class Sink(Protocol):
    """Accepts instances, from several answers at once.

    Attributes:
        piece: bytes of a large instance that are gathered before they are passed on. A smaller one comes in one piece.
    """

    piece: int

    def open(self, arriving: Arriving, ended: ArrivalEnded, /) -> Arrival:
        """Begin to receive an instance.

        Raises:
            UsageError: it cannot be given a place there.
        """
        ...

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        ...

    async def room(self) -> None:
        """Wait until more may come."""
        ...


def by_uids(name: Callable[[InstanceUids], RelativeName]) -> Callable[[Arriving], RelativeName]:
    """Return how a `FolderSink` names files whose UIDs are enough."""
    return lambda arriving: name(arriving.header.uids)


# --- threads that make files durable ----------------------------------------------------------------------------------

AT_ONCE = 8
MOST_BYTES = 8 << 20

WhenDone: TypeAlias = Callable[[BaseException | None], None]
"""Called in the event loop with the exception of the work, or None; it must not raise."""


class DiskPool:
    """Runs work in up to `AT_ONCE` threads. Its methods are called in the event loop it was made in.

    One fsync after another takes ten times as long as eight at once, which a file system commits together. Work is
    submitted without waiting; its producer awaits `room` in between, so that the network is slowed down.

    State: the queue belongs to the lock; work in progress, and results, to the event loop. A thread takes the next work
    by itself, and wakes the loop once for all results: a thread switch costs more than a small file.
    """

    def __init__(self) -> None:
        self.users: int = 0
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="postdicom-disk")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], None], WhenDone]] = deque()
        self._busy = 0
        self._has_threads = False
        self._ended: deque[tuple[WhenDone, BaseException | None]] = deque()
        self._woken = False
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()

    def start(self, work: Callable[[], None], ended: WhenDone) -> None:
        """Run ``work`` when a thread is free; it is queued in memory until then.

        If the system gives no more threads, the existing ones do it; without any it is done here.
        """
        with self._lock:
            self._waiting.append((work, ended))
            if self._busy == AT_ONCE and self._has_threads:
                return
            self._busy += 1
        try:
            self._threads.submit(self._run)
        except RuntimeError:
            if not self._has_threads:
                self._run()
        else:
            self._has_threads = True

    def hold(self, size: int) -> None:
        """Count bytes that wait to be written; give the same number back with `release`."""
        self._held += size
        if self._held >= MOST_BYTES:
            self._room.clear()

    def release(self, size: int) -> None:
        """Count off bytes that were held."""
        self._held -= size
        if self._held < MOST_BYTES:
            self._room.set()

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        return self._held >= MOST_BYTES

    async def room(self) -> None:
        """Wait until few enough bytes are held."""
        await self._room.wait()

    def close(self) -> None:
        """End the threads. All work must have ended."""
        self._threads.shutdown(wait=False)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = max(0, self._busy - 1)  # a thread that seemed not to start may run late
                    return
                work, ended = self._waiting.popleft()
            problem: BaseException | None = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - passed to the submitter's callback
                problem = error
            with self._lock:
                self._ended.append((ended, problem))
                wake, self._woken = not self._woken, True
            del work, ended, problem  # no references stay while the thread waits
            if wake:
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        with self._lock:
            self._woken = False
            told, self._ended = self._ended, deque()
        for ended, problem in told:
            ended(problem)


_shared: dict[asyncio.AbstractEventLoop, DiskPool] = {}


@contextmanager
def shared_pool() -> Iterator[DiskPool]:
    """Yield the pool of the running event loop: its limits apply to all downloads together."""
    loop = asyncio.get_running_loop()
    pool = _shared.get(loop) or _shared.setdefault(loop, DiskPool())
    pool.users += 1
    try:
        yield pool
    finally:
        pool.users -= 1
        if not pool.users:
            del _shared[loop]
            pool.close()


# --- files ------------------------------------------------------------------------------------------------------------

_LEAST_HELD = 32 * 1024  # bytes the smallest file counts as, so that the number of waiting files is bounded too


class UsesDiskThreads:
    """Holds the disk's threads, which all downloads of an event loop share, while it is entered."""

    pool: DiskPool
    _threads: AbstractContextManager[DiskPool] | None = None

    def __enter__(self) -> Self:
        self._threads = shared_pool()
        self.pool: DiskPool = self._threads.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.__exit__(None, None, None)


class FolderSink(UsesDiskThreads):
    """A `Sink` of files, each written under a temporary name, made durable, and then given its final one.

    Enter it for as long as it is used.

    An instance that arrives in one piece is one job for the pool's threads; a large one is written as it arrives.
    Without fsync, work runs in the event loop as long as it is quick: writing half a megabyte into the page cache takes
    less time than handing it to a thread.
    """

    def __init__(self, folder: SafeFolder, name: Callable[[Arriving], RelativeName], *, piece: int) -> None:
        self.piece: int = piece
        self.folder: SafeFolder = folder
        self._name = name
        self._quick = QuickWork()
        self._beginning_of_path = lru_cache(64)(lambda parts: str(folder.root.joinpath(*parts, "x"))[:-1])

    def open(self, arriving: Arriving, ended: ArrivalEnded, /) -> Arrival:
        """Name the file; it is created when there is something to write.

        Raises:
            UsageError: the layout gives it no name, or that of another instance.
        """
        name = self._name(arriving)
        return _Filing(self, name, arriving.header.uids, self._beginning_of_path(name[:-1]) + name[-1], ended)

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        return self.pool.is_full()

    async def room(self) -> None:
        """Wait until the disk has caught up."""
        await self.pool.room()

    def run(self, work: Callable[[], None], ended: ArrivalEnded) -> None:
        """Do disk work: here, or in a thread."""
        if self.folder.fsync or not self._quick.is_quick():
            self.pool.start(work, ended)
            return
        problem: BaseException | None = None
        try:
            self._quick.here(work)
        except Exception as error:  # noqa: BLE001 - reported as a thread would
            problem = error
        ended(problem)


class _Filing:
    """One file. Bytes that arrive while a thread works on it wait for that thread, in order."""

    def __init__(
        self, sink: FolderSink, name: RelativeName, uids: InstanceUids, where: str, ended: ArrivalEnded
    ) -> None:
        self.where: str = where
        self._sink = sink
        self._name = name
        self._uids = uids
        self._ended = ended
        self._file: PartialFile | None = None
        self._pieces: list[bytes | memoryview] = []
        self._held = 0
        self._kept: bool | None = None  # what to do once all is written: keep the file, or remove it
        self._at_work = False
        self._over = False

    def write(self, pieces: Pieces, size: int, /) -> None:
        if self._over:
            return
        self._pieces += pieces
        self._held += (held := max(size, _LEAST_HELD))
        self._sink.pool.hold(held)
        self._go_on()

    def end(self, pieces: Pieces, size: int, /) -> None:
        self._kept = True
        self.write(pieces, size)

    def drop(self) -> None:
        self._pieces.clear()
        self._kept = False
        self._go_on()

    def _go_on(self) -> None:
        if self._at_work or self._over:
            return
        pieces, self._pieces = self._pieces, []
        held, self._held = self._held, 0
        self._at_work = True
        self._sink.run(partial(self._work, pieces, self._kept), partial(self._worked, held, self._kept is not None))

    def _worked(self, held: int, was_last: bool, problem: BaseException | None) -> None:
        self._sink.pool.release(held)
        self._at_work = False
        if problem is not None or was_last:
            self._over = True
            self._sink.pool.release(self._held)
            self._pieces, self._held = [], 0
            self._ended(problem)
        elif self._pieces or self._kept is not None:
            self._go_on()

    # --- in a thread -------------------------------------------------------------------------------------------------

    def _work(self, pieces: Pieces, kept: bool | None) -> None:
        goes_on = False
        try:
            if pieces or kept:
                file = self._file = self._file or self._sink.folder.create(self._name, self._uids)
                file.write(pieces)
                if kept:
                    file.commit()
            goes_on = kept is None
        finally:
            if not goes_on and self._file is not None:
                self._file.discard()  # leaves a committed file as it is
                self._file = None
