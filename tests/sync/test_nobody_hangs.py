"""Whoever waits for the loop, or for a stream, hears of its end: whatever ends it, and however many wait."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any

import pytest

from postdicom_async.dicomweb.client import DicomWeb
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.errors import ConnectionFailed, ProtocolError, UsageError
from postdicom_async.sync import DICOMwebClient, ItemStream, portal
from postdicom_async.sync.portal import Portal
from postdicom_async.sync.streams import Channel
from tests.support.dicom_files import small_dicom
from tests.sync.raw_server import RawServer, raw_server

LONG = 20.0  # seconds after which something hangs; nothing here takes them

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\nConnection: close\r\n\r\n"
PART = b"--b\r\nContent-Type: application/dicom\r\n\r\n"


class Heard:
    """A call in a thread of its own, and how it ends."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._ended: Future[object] = Future()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._ended.set_result(self._call())
        except BaseException as error:
            self._ended.set_exception(error)

    def error(self) -> BaseException | None:
        try:
            return self._ended.exception(LONG)
        except TimeoutError:
            pytest.fail("it hangs")


class Watched(threading.Condition):
    """A condition that tells how many threads wait for it: whoever then takes its lock comes after them."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())
        self.waiting = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.release()
        return super().wait(timeout)

    def are_waiting(self, threads: int) -> None:
        for _ in range(threads):
            assert self.waiting.acquire(timeout=LONG)


@pytest.fixture(autouse=True)
def _ends_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the time that cleaning up may take no way out of a wait."""
    monkeypatch.setattr(portal, "_GRACE", 10 * LONG)
    yield
    gc.collect()


# --- a loop that cannot be made ---------------------------------------------------------------------------------------

NO_DESCRIPTORS = """
import os, resource, sys, threading
from postdicom_async.errors import ConnectionFailed
from postdicom_async.sync import DICOMwebClient

with DICOMwebClient(sys.argv[1], auth=("demo", "demo")) as client:
    client.search_for_studies()  # what is imported late is imported
client = DICOMwebClient(sys.argv[1], auth=("demo", "demo"))
resource.setrlimit(resource.RLIMIT_NOFILE, (80, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held, told = [], []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for _ in range(int(sys.argv[2])):
    os.close(held.pop())

def call():
    try:
        client.search_for_studies()
    except ConnectionFailed as error:
        told.append(str(error))

threads = [threading.Thread(target=call, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
print(len(told), *set(told))
for each in held:
    os.close(each)
print(len(client.search_for_studies()), flush=True)
client.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors there")
@pytest.mark.parametrize("free", ["0", "2"])  # a loop takes three
def test_every_call_hears_that_there_are_no_descriptors_and_the_next_one_works(
    archive: EmbeddedArchive, free: str
) -> None:
    command = [sys.executable, "-W", "error", "-c", NO_DESCRIPTORS, archive.url, free]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LONG, check=False)
    why = "the system gives no event loop for the connections: too many open files"
    assert (done.stdout, done.stderr) == (f"3 {why}\n3\n", "")


def test_a_system_that_gives_no_thread(archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = DICOMwebClient(archive.url, auth=archive.auth)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConnectionFailed, match="no thread"):
            client.search_for_studies()
    assert len(client.search_for_studies()) == 3
    client.close()


# --- calls that come while the loop ends, and after it ----------------------------------------------------------------


async def forever() -> None:
    await asyncio.Event().wait()


def portal_of(client: DICOMwebClient) -> Portal:
    return client._line().portal


def test_a_call_that_comes_while_the_last_client_is_closed(archive: EmbeddedArchive) -> None:
    """After the loop has cancelled what ran in it, while it waits for a thread: a look-up of a name, say."""
    swept, looked_up = threading.Event(), threading.Event()
    kept: list[asyncio.Task[None]] = []

    async def told() -> None:
        try:
            await forever()
        finally:
            swept.set()

    async def before(_archive: DicomWeb) -> None:
        kept.append(asyncio.create_task(told()))
        asyncio.get_running_loop().run_in_executor(None, looked_up.wait)
        await asyncio.sleep(0)

    client = DICOMwebClient(archive.url, auth=archive.auth)
    client.call(before)
    late = portal_of(client)
    closing = Heard(client.close)
    assert swept.wait(LONG)
    ended: Future[None] = Future()
    late.start(forever, ended, [])
    looked_up.set()
    with pytest.raises(CancelledError):
        ended.result(LONG)
    assert closing.error() is None


def test_a_call_that_the_loop_was_told_of_and_never_came_to(archive: EmbeddedArchive) -> None:
    client = DICOMwebClient(archive.url, auth=archive.auth)
    late = portal_of(client)
    ended: Future[None] = Future()

    async def before(_archive: DicomWeb) -> None:
        loop: Any = asyncio.get_running_loop()
        close = loop.close

        def told_and_closed() -> None:
            late.start(forever, ended, [])
            close()

        loop.close = told_and_closed

    client.call(before)
    client.close()
    with pytest.raises(CancelledError):
        ended.result(LONG)


def test_calls_after_the_end_of_the_loop_do_not_wait(archive: EmbeddedArchive) -> None:
    """As at the end of the interpreter, which ends the loop under clients that are open."""
    client = DICOMwebClient(archive.url, auth=archive.auth)
    assert len(client.search_for_studies()) == 3
    portal_of(client).stop()
    for call in (client.search_for_studies, lambda: client.iter_study("1.2.3")):
        assert str(Heard(call).error()) == "the client is closed"
    assert Heard(client.close).error() is None
    with DICOMwebClient(archive.url, auth=archive.auth) as another:
        assert len(another.search_for_studies()) == 3


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_that_is_begun_as_the_last_client_closes(archive: EmbeddedArchive) -> None:
    """Its task is cancelled before its first step."""
    client = DICOMwebClient(archive.url, auth=archive.auth)
    line, is_told, steps = client._line(), threading.Event(), []

    async def items(_archive: DicomWeb) -> AsyncGenerator[tuple[bytes, int], None]:
        steps.append(1)
        yield b"", 0

    line.portal.note(is_told.wait)  # the loop is busy, and hears of both at once
    line.portal.note(line.portal._end.set)
    channel: Channel[bytes] = Channel(line)
    channel.begin(items, "retrieve study")
    is_told.set()
    assert str(Heard(channel.wait).error()) == "the client was closed while this was read"
    assert str(Heard(channel.take).error()) == "the client was closed while this was read"
    assert not steps
    client.close()


@contextmanager
def shared_stream(then: bytes) -> Iterator[tuple[ItemStream[Any], Watched, Callable[[], None]]]:
    """Give an iterator whose first item has been taken, what its readers wait for, and what sends the rest."""
    goes_on = threading.Event()

    def serve(server: RawServer, connection: socket.socket) -> None:
        server.send(connection, HEAD + PART + small_dicom() + b"\r\n" + PART)
        assert goes_on.wait(LONG)
        server.send(connection, then)
        if then:
            server.until_left(connection)

    with raw_server(serve) as server, DICOMwebClient(server.url) as client:
        client.set_http_retry_params(retry=False)
        arriving = client.iter_study("1.2.3")
        next(arriving)
        arriving._channel._changed = watched = Watched()
        yield arriving, watched, goes_on.set
        goes_on.set()


def test_every_thread_hears_that_the_stream_broke() -> None:
    with shared_stream(b"") as (arriving, watched, go_on):
        heard = [Heard(lambda: list(arriving)) for _ in range(3)]
        watched.are_waiting(3)
        go_on()
        errors = [each.error() for each in heard]
        assert {type(error).__name__ for error in errors} <= {"ConnectionFailed", "ProtocolError"}
        assert len({id(error) for error in errors}) == 3
        assert len({str(error) for error in errors}) == 1
        # one that was busy with an item meanwhile, when another has closed the stream
        arriving.close()
        with pytest.raises((ConnectionFailed, ProtocolError)):
            next(arriving)


def test_every_thread_hears_that_a_stream_was_closed() -> None:
    with shared_stream(b"") as (arriving, watched, _):
        heard = [Heard(lambda: next(arriving)) for _ in range(3)]
        watched.are_waiting(3)
        assert Heard(arriving.close).error() is None
        assert {str(each.error()) for each in heard} == {"this iterator was closed while it was read"}
        assert list(arriving) == []


@pytest.mark.parametrize(
    ("failure", "others"),
    [(ProtocolError("no DICOM"), ProtocolError), (KeyboardInterrupt(), UsageError)],
)
def test_a_failure_in_one_thread_ends_the_stream_for_all(failure: BaseException, others: type[Exception]) -> None:
    """An item that cannot be read; and an interrupt, which is for the thread that it came to."""

    def fail(_item: bytes) -> None:
        raise failure

    with shared_stream(small_dicom() + b"\r\n--b\r\n") as (arriving, watched, go_on):
        arriving._convert = fail
        heard = [Heard(lambda: list(arriving)) for _ in range(3)]
        watched.are_waiting(3)
        go_on()
        errors = [each.error() for each in heard]
        assert sum(isinstance(error, type(failure)) for error in errors) == (3 if isinstance(failure, others) else 1)
        assert sum(isinstance(error, others) for error in errors) >= 2
        assert len({id(error) for error in errors}) == 3
        with pytest.raises(others):
            next(arriving)
