"""How the synchronous client ends: closed, dropped, interrupted, with the interpreter, and in a forked child."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.errors import ConnectionFailed, UsageError
from postdicom_async.settings import Limits, Settings
from postdicom_async.sync import DICOMwebClient
from tests.support.dicom_files import small_dicom, uid
from tests.sync.conftest import UIDS
from tests.sync.raw_server import RawServer, raw_server

STUDY, SERIES, INSTANCE = UIDS[0]


def soon(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "postdicom-sync"]


def endless_study(server: RawServer, connection: socket.socket) -> None:
    """Answer with instances that never end."""
    server.send(
        connection, b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\nConnection: close\r\n\r\n"
    )
    part = small_dicom(pixel_bytes=256 << 10)
    while True:
        server.send(connection, b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n")


def silence(server: RawServer, connection: socket.socket) -> None:
    server.until_left(connection)


@pytest.fixture(autouse=True)
def _nothing_before() -> None:
    gc.collect()  # what other tests left in an exception's frames
    assert soon(lambda: not own_threads()), "a test before this one left a client open"


# --- in this process --------------------------------------------------------------------------------------------------


def test_the_thread_ends_with_the_last_client(archive: EmbeddedArchive) -> None:
    with DICOMwebClient(archive.url, auth=archive.auth) as one, DICOMwebClient(archive.url, auth=archive.auth) as other:
        assert len(one.search_for_studies()) == 3
        assert len(other.search_for_studies()) == 3
        (thread,) = own_threads()
        one.close()
        assert len(other.search_for_studies()) == 3
        assert thread.is_alive()
    assert not own_threads()
    with pytest.raises(UsageError, match="closed"):
        one.search_for_studies()
    one.close()


def test_a_client_that_nobody_holds_ends(archive: EmbeddedArchive) -> None:
    client = DICOMwebClient(archive.url, auth=archive.auth)
    client.search_for_studies()
    assert own_threads()
    del client
    assert soon(lambda: not own_threads())


def test_an_iterator_outlives_its_client(archive: EmbeddedArchive) -> None:
    arriving = DICOMwebClient(archive.url, auth=archive.auth).iter_study(STUDY)
    gc.collect()
    assert {str(each.SOPInstanceUID) for each in arriving} == {uids[2] for uids in UIDS if uids[0] == STUDY}
    del arriving
    assert soon(lambda: not own_threads())


@pytest.mark.parametrize("how", ["closed", "left", "dropped", "client closed"])
def test_an_iterator_that_is_given_up_stops_its_request(how: str) -> None:
    """With one connection, the next call shows that it was given back."""

    def serve(server: RawServer, connection: socket.socket) -> None:
        if b"GET /studies/" in server.heads[-1]:
            endless_study(server, connection)
        server.send(connection, b"HTTP/1.1 204 No Content\r\n\r\n")

    with raw_server(serve) as server:
        client = DICOMwebClient(server.url, settings=Settings(limits=Limits(connections=1, parallel_searches=1)))
        arriving = client.iter_study(STUDY)
        assert next(arriving).SOPInstanceUID == uid(1, 1, 1)
        if how == "closed":
            arriving.close()
        elif how == "left":
            with arriving:
                pass
        elif how == "dropped":
            del arriving
        else:
            client.close()
            with pytest.raises((UsageError, ConnectionFailed)):
                list(arriving)
        assert server.left.wait(20)
        if how != "client closed":
            assert client.search_for_studies() == []
        client.close()
        assert not own_threads()


def test_whoever_reads_slowly_slows_the_network_down() -> None:
    """What waits is a few megabytes, and what the system buffers, however much comes."""
    with raw_server(endless_study) as server, DICOMwebClient(server.url) as client:
        with client.iter_study(STUDY) as arriving:
            next(arriving)
            assert soon(lambda: stands_still(server))
            assert server.sent < 64 << 20
            stood = server.sent
            for _, each in zip(range(400), arriving, strict=False):  # it goes on when it is read: 100 MB
                assert each.Rows
            assert server.sent > stood + (64 << 20)
        assert server.left.wait(20)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_flat_however_large_a_study_is() -> None:
    """In a process of its own: its peak after a quarter of a gigabyte is that after a fifth of it."""
    script = """
from pathlib import Path

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10

with DICOMwebClient(url) as client, client.iter_study("1.2.3") as arriving:
    for number, dataset in zip(range(1000), arriving):
        assert dataset.Rows
        if number == 200:
            before = peak()
    print(peak() - before)
"""
    with raw_server(endless_study) as server:
        out, err, code = ended(run(script, server.url))
    assert (err, code) == ("", 0)
    assert int(out) < 16


def stands_still(server: RawServer) -> bool:
    before = server.sent
    time.sleep(0.3)
    return before == server.sent


def test_a_call_from_the_clients_own_thread_is_refused(client: DICOMwebClient, tmp_path: object) -> None:
    met: list[BaseException] = []

    def progress(_event: object) -> None:
        try:
            client.search_for_studies()
        except UsageError as error:
            met.append(error)

    client.download_series(STUDY, SERIES, to=str(tmp_path), progress=progress)
    assert "thread" in str(met[0])


def test_many_threads(client: DICOMwebClient) -> None:
    found: list[int] = []

    def work(number: int) -> None:
        for _ in range(4):
            uids = UIDS[number % len(UIDS)]
            assert client.retrieve_instance(*uids).SOPInstanceUID == uids[2]
            assert len(client.search_for_instances(uids[0])) == 4
            assert len(list(client.iter_study(uids[0]))) == 4
        found.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(12))
    assert len(own_threads()) == 1


def test_the_first_calls_of_many_threads(archive: EmbeddedArchive) -> None:
    """They connect at once: one line is kept, the others are given back, so that the thread ends with the client."""
    client = DICOMwebClient(archive.url, auth=archive.auth)
    begin = threading.Barrier(8)
    found: list[int] = []

    def work() -> None:
        begin.wait()
        found.append(len(client.search_for_studies()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 8
    client.close()
    assert soon(lambda: not own_threads())


# --- in a process of its own ------------------------------------------------------------------------------------------

PRELUDE = """
import os, sys, threading
from postdicom_async.sync import DICOMwebClient

url = sys.argv[1]
auth = ("demo", "demo")
"""


def run(script: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", PRELUDE + script, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    out, err = process.communicate(timeout=60)
    return out, err, process.returncode


@pytest.mark.parametrize("call", ["client.search_for_studies()", "list(client.iter_study('1.2.3'))"])
def test_ctrl_c_interrupts_a_call_that_waits(call: str) -> None:
    script = f"""
client = DICOMwebClient(url)
try:
    {call}
except KeyboardInterrupt as error:
    print("interrupted", flush=True)
    client.close()
    print([thread.name for thread in threading.enumerate() if "AnyIO" not in thread.name])
"""
    with raw_server(silence) as server:
        process = run(script, server.url)
        assert server.met.wait(60)
        process.send_signal(signal.SIGINT)
        assert server.left.wait(20)
        assert ended(process) == ("interrupted\n['MainThread']\n", "", 0)


def test_ctrl_c_tells_what_a_cancelled_call_has_done() -> None:
    """As `PostDicom.upload_and_share` does: by attributes of the exception."""
    script = """
async def work(archive):
    try:
        async for _ in archive.search_for_studies():
            pass
    except BaseException as error:
        error.shared = "a folder"
        raise

with DICOMwebClient(url) as client:
    try:
        client.call(work)
    except KeyboardInterrupt as error:
        print(type(error).__name__, error.shared)
"""
    with raw_server(silence) as server:
        process = run(script, server.url)
        assert server.met.wait(60)
        process.send_signal(signal.SIGINT)
        assert ended(process) == ("KeyboardInterrupt a folder\n", "", 0)


def test_ctrl_c_that_nobody_catches_ends_the_program() -> None:
    with raw_server(silence) as server:
        process = run("client = DICOMwebClient(url)\nclient.search_for_studies()\n", server.url)
        assert server.met.wait(60)
        process.send_signal(signal.SIGINT)
        out, err, code = ended(process)
    assert (out, code) == ("", -signal.SIGINT)
    assert err.endswith("KeyboardInterrupt\n")
    assert "postdicom_async" not in err, "frames hold arguments"


def test_the_interpreter_ends_with_everything_open(archive: EmbeddedArchive) -> None:
    """A client in a global name, an iterator in the middle, a thread that still works when the main one has ended."""
    script = f"""
import time

client = DICOMwebClient(url, auth=auth)
arriving = client.iter_study("{STUDY}")
next(arriving)

def late():
    threading.main_thread().join()
    for _ in range(3):
        print(len(client.search_for_studies()), flush=True)

threading.Thread(target=late).start()
"""
    # by name: the system is asked for the address in a thread, of which there are none at the very end
    assert ended(run(script, archive.url.replace("127.0.0.1", "localhost"))) == ("3\n3\n3\n", "", 0)


def test_the_interpreter_ends_in_the_middle_of_an_endless_answer() -> None:
    with raw_server(endless_study) as server:
        script = "client = DICOMwebClient(url)\narriving = client.iter_study('1.2.3')\nnext(arriving)\nprint('over')"
        assert ended(run(script, server.url)) == ("over\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_connects_anew_and_leaves_its_parent_alone(archive: EmbeddedArchive) -> None:
    script = f"""
import gc

client = DICOMwebClient(url, auth=auth)
other = DICOMwebClient(url, auth=auth)
assert len(client.search_for_studies()) == 3
other.search_for_studies()
arriving = client.iter_study("{STUDY}")
next(arriving)
sys.stdout.flush()
child = os.fork()
if child == 0:
    try:
        next(arriving)
    except ValueError as error:
        print(error)
    del arriving, other
    gc.collect()
    print("child", len(client.search_for_studies()), len(client.retrieve_study("{STUDY}")), flush=True)
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "postdicom-sync"]
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0
print("parent", len(list(arriving)), len(client.search_for_studies()), len(other.search_for_studies()))
client.close()
other.close()
"""
    told = "this iterator was made before the process was forked"
    assert ended(run(script, archive.url)) == (f"{told}\nchild 3 4\nparent 3 3 3\n", "", 0)
