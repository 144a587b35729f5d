"""The ways to an archive (names, proxies, SOCKS), and where a transport lives: event loops, threads, processes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from postdicom_async import AuthenticationFailed, ConnectionFailed, DicomWeb, PostdicomError, Settings, Tls, UsageError
from postdicom_async.http import endpoint as transports
from postdicom_async.http.aiohttp_transport import AiohttpTransport
from tests.faults.clients import FAST, settings
from tests.faults.test_tls_and_proxies import closing, proxy_to, pump
from tests.faults.test_transport import LOOPS, connections_to, run_in
from tests.support.bodies import dicom_json, json_reply
from tests.support.certificates import Authority
from tests.support.elsewhere import serving_elsewhere
from tests.support.faulty_server import FaultyServer, Reply, unused_port
from tests.support.large import large
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

EMPTY = json_reply([])
ONCE = settings(max_attempts=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


async def searched(url: str, using: Settings) -> Any:
    async with DicomWeb(url, settings=using) as archive:
        assert archive.transport_name == "aiohttp"
        return await archive.search_for_studies(limit=1).all()


@contextlib.contextmanager
def served_elsewhere(*script: Reply, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve from an event loop in a thread; give the address."""
    with serving_elsewhere(lambda: FaultyServer(script, ssl_context=context)) as server:
        yield server.url


# --- names ----------------------------------------------------------------------------------------------------------


async def test_a_name_that_is_looked_up_for_ever_is_no_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", for_ever)
    with pytest.raises(ConnectionFailed, match="no connection in time") as caught:
        await searched("http://archive.example", settings(max_attempts=1, connect=0.2))
    assert not caught.value.may_have_arrived


async def test_the_time_to_connect_counts_a_proxy_s_silence_too() -> None:
    async with FaultyServer(on_accept="silent") as server:
        for proxy in (server.url, server.url.replace("http", "socks5")):
            using = replace(settings(max_attempts=1, connect=0.2), proxy=proxy)
            with pytest.raises(ConnectionFailed, match="no connection in time") as caught:
                await searched("https://archive.invalid", using)
            assert not caught.value.may_have_arrived


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.1"])
async def test_an_address_that_is_not_written_as_one(host: str) -> None:
    """Some systems would take it for an address; no list of hosts does."""
    with pytest.raises((UsageError, ConnectionFailed)):
        await searched(f"http://{host}:{unused_port()}", ONCE)


# --- proxies --------------------------------------------------------------------------------------------------------

USERS = {
    "me:secret": ("me", "secret"),
    "me:a%40b%3Ac%2Fd": ("me", "a@b:c/d"),
    "%C3%A9tienne:p%C3%A4ss": ("étienne", "päss"),
    "me:": ("me", ""),
    "me": ("me", ""),
}


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("user", USERS)
async def test_a_proxy_gets_the_credentials_and_the_archive_does_not(
    user: str, secure: bool, authority: Authority
) -> None:
    wanted = base64.b64encode(":".join(USERS[user]).encode()).decode()
    context = authority.server("archive.invalid") if secure else None
    using = replace(FAST, tls=Tls(ca_file=authority.ca_file))
    async with FaultyServer(EMPTY, ssl_context=context) as server, proxy_to(server.port, wanted) as proxy:
        using = replace(using, proxy=f"http://{user}@127.0.0.1:{proxy.port}")
        url = f"http{'s' if secure else ''}://archive.invalid/x"
        assert await searched(url, using) == []
    assert [line.split()[0] for line in proxy.seen] == ["CONNECT" if secure else "GET"]
    assert secure is not bool(server.requests[0].all_headers("proxy-authorization"))


async def test_a_proxy_that_hangs_up_instead_of_opening_a_way() -> None:
    async with FaultyServer(on_accept="close") as server:
        with pytest.raises(ConnectionFailed, match=r"the proxy( did not open|, or .* hung up)") as caught:
            await searched("https://archive.invalid", replace(ONCE, proxy=server.url))
    assert not caught.value.may_have_arrived


# --- SOCKS ----------------------------------------------------------------------------------------------------------


@dataclass
class Socks:
    """A SOCKS 5 proxy: every way leads to one port, or is refused with that code."""

    port_behind: int
    wants: tuple[str, str] | None = None
    refuses: int = 0
    seen: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), closing(writer):
            methods = await reader.readexactly((await reader.readexactly(2))[1])
            if self.wants is None:
                writer.write(b"\x05\x00")
            elif 2 not in methods:
                writer.write(b"\x05\xff")
                return
            else:
                writer.write(b"\x05\x02")
                await reader.readexactly(1)
                given = (await short_text(reader), await short_text(reader))
                writer.write(b"\x01\x00" if given == self.wants else b"\x01\x01")
                if given != self.wants:
                    return
            command = await reader.readexactly(4)
            host = await short_text(reader) if command[3] == 3 else "an address"
            port = int.from_bytes(await reader.readexactly(2), "big")
            self.seen.append(f"{host}:{port}")
            writer.write(b"\x05" + bytes([self.refuses]) + b"\x00\x01" + bytes(6))
            if not self.refuses:
                there, back = await asyncio.open_connection("127.0.0.1", self.port_behind)
                with closing(back):
                    await asyncio.gather(pump(reader, back), pump(there, writer))


async def short_text(reader: asyncio.StreamReader) -> str:
    return (await reader.readexactly((await reader.readexactly(1))[0])).decode()


@contextlib.asynccontextmanager
async def socks_to(port: int, wants: tuple[str, str] | None = None, refuses: int = 0) -> AsyncIterator[Socks]:
    proxy = Socks(port, wants, refuses)
    async with StreamServer(proxy.serve) as server:
        proxy.port = server.port
        yield proxy
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("secure", [True, False])
async def test_through_a_socks_proxy(scheme: str, secure: bool, authority: Authority) -> None:
    """The proxy looks up the name, which nobody else knows."""
    context = authority.server("archive.invalid") if secure else None
    async with FaultyServer(EMPTY, ssl_context=context) as server, socks_to(server.port, ("me", "p@ss")) as proxy:
        using = replace(FAST, tls=Tls(ca_file=authority.ca_file), proxy=f"{scheme}://me:p%40ss@127.0.0.1:{proxy.port}")
        async with DicomWeb(f"http{'s' if secure else ''}://archive.invalid/x", settings=using) as archive:
            for _ in range(3):
                assert await archive.search_for_studies(limit=1).all() == []
        await server.until(lambda seen: not seen.open_connections)
    assert proxy.seen == [f"archive.invalid:{443 if secure else 80}"]
    assert len(server.requests) == 3


SOCKS_REFUSALS: dict[str, tuple[str, int, str, type[PostdicomError]]] = {
    "another password": ("me:no@", 0, "the proxy refused the credentials or wants some", AuthenticationFailed),
    "no password": ("", 0, "the proxy refused the credentials or wants some", AuthenticationFailed),
    "a rule": ("me:yes@", 2, "the proxy did not open a way to the archive", ConnectionFailed),
    "nobody there": ("me:yes@", 5, "refused", ConnectionFailed),
}


@pytest.mark.parametrize("case", SOCKS_REFUSALS)
async def test_a_socks_proxy_that_refuses(case: str) -> None:
    user, code, words, kind = SOCKS_REFUSALS[case]
    async with socks_to(unused_port(), ("me", "yes"), code) as proxy:
        with pytest.raises(kind, match=words) as caught:
            await searched("http://archive.invalid", replace(ONCE, proxy=f"socks5://{user}127.0.0.1:{proxy.port}"))
    assert not getattr(caught.value, "may_have_arrived", False)
    assert caught.value.__context__ is None


async def test_a_socks_proxy_that_is_not_there() -> None:
    with pytest.raises(ConnectionFailed, match="the proxy refused the connection") as caught:
        await searched("http://archive.invalid", replace(ONCE, proxy=f"socks5://me:secret@127.0.0.1:{unused_port()}"))
    assert "secret" not in repr((caught.value, caught.value.__context__))


async def test_ten_requests_cancelled_behind_a_socks_proxy_leave_no_connection() -> None:
    async with FaultyServer(Reply(silent=True)) as server, socks_to(server.port) as proxy:
        using = settings(parallel_searches=10, proxy=f"socks5://127.0.0.1:{proxy.port}")
        async with DicomWeb("http://archive.invalid", settings=using) as archive:
            tasks = [asyncio.ensure_future(archive.delete_study("1.2.3")) for _ in range(10)]
            await server.until(lambda seen: seen.in_flight == 10)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert len(proxy.seen) == 10
            await server.until(lambda _: not connections_to(proxy.port), timeout=1)


def test_socks_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"^proxy: SOCKS needs .* pip install \"postdicom-async\[socks\]\""):
        DicomWeb("https://archive.example", settings=Settings(proxy="socks5://127.0.0.1:1080"))


# --- event loops, threads, processes --------------------------------------------------------------------------------


def test_a_transport_begins_anew_in_another_event_loop() -> None:
    """In one after the other, closed or not, and what was forgotten is not complained about."""
    transport = AiohttpTransport(FAST)
    complaints: list[Any] = []

    async def use(*, close: bool) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with FaultyServer(Reply(keep_alive=False)) as server:
            for _ in range(2):
                answer = await transport.handle_async_request(httpx.Request("GET", server.url))
                await answer.aread()
                await answer.aclose()
            if close:
                await transport.aclose()

    for close in (True, False, False, True):
        asyncio.run(use(close=close))
    asyncio.run(transport.aclose())
    gc.collect()
    assert not complaints


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure", [True, False])
def test_connections_of_an_event_loop_that_has_ended_are_closed(secure: bool, loop: str, authority: Authority) -> None:
    """By the next loop that has to do with them; uvloop does it itself, and complains."""
    transport = AiohttpTransport(settings(tls=Tls(ca_file=authority.ca_file)))
    context = authority.server("127.0.0.1") if secure else None

    async def use(url: str) -> None:
        for answer in [await transport.handle_async_request(httpx.Request("GET", url)) for _ in range(3)]:
            await answer.aread()
            await answer.aclose()
        left = await transport.handle_async_request(httpx.Request("GET", url))
        assert left.status_code == 200

    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        with served_elsewhere(*[Reply(body=b"x" * 100)] * 4, context=context) as url:
            run_in(loop, lambda: use(url))
            run_in(loop, transport.aclose)
            gc.collect()
            assert not connections_to(int(url.rpartition(":")[2]))
    assert loop == "uvloop" or not [str(one.message) for one in complaints if "unclosed" in str(one.message)]


def test_a_transport_closed_from_another_thread() -> None:
    transport = AiohttpTransport(FAST)
    used, closed = threading.Event(), threading.Event()

    async def use() -> None:
        async with FaultyServer() as server:
            answer = await transport.handle_async_request(httpx.Request("GET", server.url))
            await answer.aclose()
            assert server.open_connections == 1
            used.set()
            await asyncio.to_thread(closed.wait, 10)
            await server.until(lambda seen: not seen.open_connections)

    thread = threading.Thread(target=asyncio.run, args=(use(),))
    thread.start()
    assert used.wait(10)
    asyncio.run(transport.aclose())
    closed.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_forgotten_answer_lets_go_of_its_connection() -> None:
    """Whatever the garbage collector finds first."""
    complaints: list[Any] = []

    async def use() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with FaultyServer(Reply(body=b"x" * 1000, stall_after=10)) as server:
            transport = AiohttpTransport(FAST)
            gc.disable()  # or it may find them before they are counted
            try:
                for _ in range(3):
                    answer: Any = await transport.handle_async_request(httpx.Request("GET", server.url))
                    answer.circle = answer
                del answer
                assert connections_to(server.port) == 3
            finally:
                gc.enable()
            gc.collect()
            await server.until(lambda seen: not connections_to(seen.port))
            await transport.aclose()

    asyncio.run(use())
    assert not complaints


def test_a_forgotten_transport_lets_go_of_its_connections() -> None:
    complaints: list[Any] = []

    async def use() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with FaultyServer() as server:
            transport = AiohttpTransport(FAST)
            answer = await transport.handle_async_request(httpx.Request("GET", server.url))
            await answer.aclose()
            del transport, answer
            gc.collect()
            await server.until(lambda seen: not seen.open_connections)

    asyncio.run(use())
    assert not complaints


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "always", "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_nothing_of_aiohttp_is_imported_before_the_first_request() -> None:
    code = """
import asyncio, sys
from postdicom_async import DicomWeb

async def main():
    async with DicomWeb("https://archive.example"):
        pass

asyncio.run(main())
print([name for name in ("aiohttp", "yarl", "aiohttp_socks") if name in sys.modules])
"""
    ended = run(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


BEGINNING = """
import asyncio, sys, threading
from postdicom_async import DicomWeb, PostdicomError, Retry, Settings
from postdicom_async.http import tls

imported, read = {}, []

def note(what, words):
    if what == "import":
        imported.setdefault(words[0], threading.current_thread())

sys.addaudithook(note)
made = tls.tls_context
tls.tls_context = lambda tls: (read.append(threading.current_thread()), made(tls))[1]

async def search(archive):
    try:
        await archive.search_for_studies(limit=1).all()
    except PostdicomError as error:
        return error

async def main():
    settings = Settings(proxy=sys.argv[2] or None, retry=Retry(max_attempts=1))
    async with DicomWeb(sys.argv[1], settings=settings) as archive:
        tasks = [asyncio.create_task(search(archive)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
    slow = [imported[name] for name in ("aiohttp", *["aiohttp_socks"] * bool(sys.argv[2]))] + read
    assert threading.main_thread() not in slow, slow
    print(len(read))

asyncio.run(main())
"""


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("scheme", ["", "socks5"])
def test_a_first_request_does_not_stop_the_event_loop(secure: bool, scheme: str) -> None:
    """To import aiohttp and to read the system's certificates is a thread's work, done once for all who wait."""
    nobody = f"127.0.0.1:{unused_port()}"
    ended = run(BEGINNING, f"http{'s' if secure else ''}://{nobody}", scheme and f"{scheme}://{nobody}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{int(secure)}\n", "")


ALL_WAIT = """
import asyncio, sys
from postdicom_async import DicomWeb

async def main():
    loop = asyncio.get_running_loop()
    async with DicomWeb(sys.argv[1]) as archive:

        def search():
            found = archive.search_for_studies(limit=1).all()
            return asyncio.run_coroutine_threadsafe(found, loop).result(50)

        found = await asyncio.gather(*(asyncio.to_thread(search) for _ in range(64)))
        assert [one.StudyInstanceUID for (one,) in found] == ["1.2"] * 64

asyncio.run(main())
"""


def test_a_first_request_while_all_threads_wait_for_it() -> None:
    """The threads of the event loop may all be at work that needs the archive."""
    with served_elsewhere(*[json_reply([dicom_json(StudyInstanceUID="1.2")])] * 64) as url:
        ended = run(ALL_WAIT, url)
    assert (ended.returncode, ended.stderr) == (0, "")


def making_takes(seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[httpx.AsyncBaseTransport]:
    """Make transports slowly, as where aiohttp is imported from a slow disk; return those made."""
    made: list[httpx.AsyncBaseTransport] = []
    make = transports._on_aiohttp

    def slowly(*arguments: Any) -> httpx.AsyncBaseTransport:
        time.sleep(seconds)
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(transports, "_on_aiohttp", slowly)
    return made


async def test_first_requests_at_once_share_one_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them are cancelled while aiohttp is imported."""
    made = making_takes(0.05, monkeypatch)
    async with FaultyServer(EMPTY) as server:
        async with DicomWeb(server.url, settings=FAST) as archive:
            tasks = [asyncio.create_task(archive.search_for_studies().all()) for _ in range(30)]
            await asyncio.sleep(0.01)
            for task in tasks[::3]:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in ends] == [asyncio.CancelledError, list, list] * 10
            before = server.connections
            await archive.search_for_studies().all()
            assert server.connections == before <= 20
        assert len(made) == 1
        await server.until(lambda seen: not seen.open_connections)


async def searched_raw(transport: AiohttpTransport, url: str) -> int:
    answer = await transport.handle_async_request(httpx.Request("GET", url))
    await answer.aread()
    await answer.aclose()
    return answer.status_code


async def test_closed_while_the_transport_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    making_takes(0.1, monkeypatch)
    async with FaultyServer() as server:
        async with DicomWeb(server.url, settings=settings(max_attempts=1)) as archive:
            task = asyncio.create_task(archive.search_for_studies().all())
            await asyncio.sleep(0.02)
        with pytest.raises(ConnectionFailed):
            await task
        assert not server.connections


async def test_closed_while_certificates_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = AiohttpTransport._read_certificates

    def slowly(transport: AiohttpTransport) -> None:
        time.sleep(0.1)
        read(transport)

    monkeypatch.setattr(AiohttpTransport, "_read_certificates", slowly)
    async with FaultyServer() as server:
        transport = AiohttpTransport(FAST)
        task = asyncio.create_task(searched_raw(transport, server.url.replace("http:", "https:")))
        await asyncio.sleep(0.02)
        await transport.aclose()
        with pytest.raises(httpx.ConnectError):
            await task
        assert not server.connections


def test_a_client_in_one_event_loop_after_the_other() -> None:
    """Time-outs still come, too: the timer of a loop that has ended never rings."""
    using = settings(max_attempts=1, answer=1, idle_read=1)

    async def begin(archive: DicomWeb) -> None:
        await archive.__aenter__()
        assert await archive.search_for_studies(limit=1).all() == []

    async def go_on(archive: DicomWeb) -> None:
        assert await archive.search_for_studies(limit=1).all() == []
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionFailed, match="did not answer in time"):
                await archive.search_for_studies(limit=1).all()
        await archive.__aexit__(None, None, None)

    with served_elsewhere(EMPTY, EMPTY, Reply(silent=True)) as url:
        archive = DicomWeb(url, settings=using)
        asyncio.run(begin(archive))
        asyncio.run(go_on(archive))


async def test_a_client_is_not_shared_by_event_loops_that_run() -> None:
    async with FaultyServer(EMPTY) as server, DicomWeb(server.url, settings=FAST) as archive:
        with pytest.raises(UsageError, match="open in another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(archive.search_for_studies(limit=1).all()))
        assert await archive.search_for_studies(limit=1).all() == []
    assert len(server.requests) == 1


def test_two_event_loops_at_once_have_connections_of_their_own() -> None:
    transport = AiohttpTransport(FAST)
    problems: list[Exception] = []

    async def use() -> None:
        async with FaultyServer(Reply(body=b"x" * 1000, delay_before=0.002)) as server:
            for _ in range(50):
                await searched_raw(transport, server.url)
            assert server.connections == 1

    def run_one() -> None:
        try:
            asyncio.run(use())
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=run_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems
    asyncio.run(transport.aclose())


ENDINGS = """
import asyncio, contextlib, sys
from postdicom_async import DicomWeb, PostdicomError, Retry, Settings

try:
    import uvloop
except ImportError:
    uvloop = asyncio
url, how, loop = sys.argv[1:]

async def search(archive):
    with contextlib.suppress(PostdicomError):
        await archive.search_for_studies(limit=1).all()

async def main():
    async with DicomWeb(url, settings=Settings(retry=Retry(max_attempts=1))) as archive:
        tasks = [asyncio.create_task(search(archive)) for _ in range(5)]
        await asyncio.sleep(0.3 if how == "left" else 0)
        if how != "left":
            await asyncio.wait(tasks, timeout=0.3)
        if how == "raises":
            raise SystemExit(0)

(uvloop if loop == "uvloop" else asyncio).run(main())
"""


@pytest.mark.parametrize("server", ["answers", "is silent", "hangs up", "is not there", "wants TLS"])
@pytest.mark.parametrize(
    ("how", "loop"),
    [("left", "asyncio"), ("raises", "uvloop"), large("left", "uvloop"), large("raises", "asyncio")],
)
async def test_a_process_ends_cleanly(server: str, how: str, loop: str) -> None:
    """Right after its last request, or in the middle of one; with nothing said at its end."""
    replies = {"is silent": Reply(silent=True), "hangs up": Reply(drop_after_request=True)}
    async with FaultyServer(replies.get(server, EMPTY)) as archive:
        url = f"http://127.0.0.1:{unused_port()}" if server == "is not there" else archive.url
        if server == "wants TLS":
            url = url.replace("http:", "https:")
        ended = await asyncio.to_thread(run, ENDINGS, url, how, loop)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
