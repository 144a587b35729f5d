from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import resource
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Mount
from starlette.types import Send
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive, create_app, serve
from postdicom_async.emulator.cloud.listener import CloudListener
from postdicom_async.emulator.samples import write_benchmark_series
from postdicom_async.errors import UsageError
from tests.emulator.support import STOW_TYPE, client_of, make_instance, store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INSTANCE = make_instance()


async def test_a_restart_on_the_same_folder_keeps_everything(tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path / "data") as archive, client_of(archive) as client:
        await store(client, INSTANCE, path=f"{archive.url}/studies")
        (tmp_path / "data" / "incoming" / "left.part").write_bytes(b"by a crash")

    async with EmbeddedArchive(tmp_path / "data") as archive, client_of(archive) as client:
        found = (await client.get(f"{archive.url}/studies")).json()
        answer = await client.get(f"{archive.url}/studies/1.2.3")
        left = list((tmp_path / "data" / "incoming").iterdir())

    assert len(found) == 1
    assert INSTANCE in answer.content
    assert left == []


async def test_a_temporary_folder_is_gone_at_the_end() -> None:
    async with EmbeddedArchive() as archive:
        folder = archive.folder
        assert folder.is_dir()

    assert not folder.exists()


async def test_one_archive_may_run_twice(tmp_path: Path) -> None:
    archive = EmbeddedArchive(tmp_path)
    for _ in range(2):
        async with archive, client_of(archive) as client:
            assert (await client.get(f"{archive.url}/studies")).status_code == 200


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("demo:wrong"),
        basic("demo"),
        basic("Demo:demo"),
        basic("demo:dem\u00f6"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer ZGVtbzpkZW1v"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/studies"), ("POST", "/"), ("DELETE", "/studies/1"), ("GET", "/x")]
)
async def test_wrong_credentials_are_401(
    embedded_archive: EmbeddedArchive, headers: dict[str, str], method: str, path: str
) -> None:
    async with client_of() as client:
        answer = await client.request(
            method, embedded_archive.url + path, headers=headers, content=b"x" * 300_000 if method == "POST" else b""
        )

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="embedded archive", charset="UTF-8"'
    assert answer.headers["x-error-reason"]
    assert answer.json()["status"] == 401


async def test_tokens_are_let_in_until_they_end() -> None:
    options = ArchiveOptions(tokens={"b-token": "bob"})
    async with EmbeddedArchive(tokens={"a-token": "alice"}, options=options) as archive, client_of() as client:

        async def status(headers: dict[str, str]) -> int:
            return (await client.get(f"{archive.url}/studies", headers=headers)).status_code

        def bearer(token: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {token}"}

        assert [await status(bearer(token)) for token in ("a-token", "b-token", "c-token")] == [200, 200, 401]
        assert await status(basic("demo:demo")) == 200
        assert archive.requests_by_user == {"alice": 1, "bob": 1, "demo": 1}
        archive.tokens["c-token"] = archive.tokens.pop("a-token")
        assert [await status(bearer(token)) for token in ("a-token", "c-token")] == [401, 200]
        challenge = (await client.get(f"{archive.url}/studies")).headers["www-authenticate"]
        assert "Basic realm=" in challenge
        assert "Bearer realm=" in challenge
    assert repr(options) == "ArchiveOptions()"
    assert repr(ArchiveOptions(max_page=7)) == "ArchiveOptions(max_page=7)"


async def test_when_the_last_token_has_ended_nobody_is_let_in() -> None:
    async with EmbeddedArchive(username=None, tokens={"a-token": "alice"}) as archive, client_of() as client:
        archive.tokens.clear()
        answer = await client.get(f"{archive.url}/studies")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="embedded archive"'


@pytest.mark.parametrize("tokens", [{"a b": "x"}, {"": "x"}, {"ä": "x"}, {"t": ""}])
def test_what_is_no_token(tokens: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        EmbeddedArchive(tokens=tokens)
    assert caught.value.argument == "tokens"


async def test_credentials_are_utf_8() -> None:
    async with (
        EmbeddedArchive(username="łukasz@example.org", password="päss:wörd") as archive,
        client_of() as client,
    ):
        answer = await client.get(f"{archive.url}/studies", headers=basic("łukasz@example.org:päss:wörd"))

    assert answer.status_code == 200


async def test_without_a_user_name_all_are_let_in() -> None:
    async with EmbeddedArchive(username=None, password=None) as archive, client_of() as client:
        assert archive.auth is None
        assert (await client.get(f"{archive.url}/studies")).status_code == 200


def test_the_password_is_not_shown() -> None:
    archive = EmbeddedArchive(password="s3cret")

    assert "s3cret" not in repr(archive)
    assert "s3cret" not in repr(archive._options)


async def test_addresses_keep_their_port_when_the_client_forgets_it(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    await store(client, INSTANCE)

    answer = await client.get("/studies", headers={"Host": "127.0.0.1"})

    assert answer.json()[0]["00081190"]["Value"] == [f"{embedded_archive.url}/studies/1.2.3"]


async def test_a_wrong_method_is_405_with_a_reason(client: httpx.AsyncClient) -> None:
    answer = await client.put("/studies")

    assert answer.status_code == 405
    assert answer.headers["x-error-reason"]


async def test_a_bug_is_500_with_a_reason_and_the_log_names_its_place_alone(
    embedded_archive: EmbeddedArchive,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("CANARY^PATIENT")

    monkeypatch.setattr(embedded_archive.store, "rows", fail)

    answer = await client.get("/studies", params={"PatientName": "CANARY^PATIENT"})

    assert answer.status_code == 500
    assert answer.headers["x-error-reason"] == "the archive failed: ZeroDivisionError"
    assert "a request failed: ZeroDivisionError at app:" in caplog.text
    assert "CANARY" not in caplog.text
    assert "CANARY" not in answer.text


async def test_a_bug_in_the_middle_of_an_answer_cuts_it_and_logs_nothing_of_it(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store(client, INSTANCE)

    async def broken(self: StreamingResponse, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        raise ZeroDivisionError("CANARY^PATIENT")

    monkeypatch.setattr(StreamingResponse, "stream_response", broken)

    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/studies/1.2.3")

    assert "a request failed: ZeroDivisionError at" in caplog.text
    assert "CANARY" not in caplog.text


async def test_a_bug_while_a_websocket_opens_logs_nothing_of_it(
    embedded_archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("CANARY^PATIENT")

    monkeypatch.setattr(CloudListener, "_refused", fail)

    with pytest.raises(WebSocketException):
        async with connect(f"ws{embedded_archive.url.removeprefix('http')}/?ClientUniqueId=x"):
            pass

    assert "a request failed: ZeroDivisionError at" in caplog.text
    assert "CANARY" not in caplog.text


async def test_a_port_in_use_is_a_usage_error(embedded_archive: EmbeddedArchive) -> None:
    port = int(embedded_archive.url.rpartition(":")[2])

    with pytest.raises(UsageError, match="cannot listen"):
        async with EmbeddedArchive(port=port):
            pass


async def test_a_file_for_a_folder_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OSError):
        async with EmbeddedArchive(tmp_path / "file"):
            pass
    gc.collect()


def test_outside_async_with_there_is_no_store() -> None:
    with pytest.raises(UsageError):
        _ = EmbeddedArchive().store


async def test_the_signal_handlers_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async with EmbeddedArchive():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("turns", range(6))
async def test_it_stops_at_once_though_clients_have_not_said_anything_yet(turns: int) -> None:
    others = asyncio.all_tasks()
    archive = EmbeddedArchive()
    with contextlib.ExitStack() as mute:
        async with archive:
            for url in (archive.url, archive.cloud.socket_url):
                to = urlsplit(url)
                mute.enter_context(socket.create_connection((to.hostname, to.port)))
            for _ in range(turns):
                await asyncio.sleep(0)
            started = time.perf_counter()
        took = time.perf_counter() - started
    gc.collect()  # a socket that nobody closed would warn

    assert took < 5
    assert asyncio.all_tasks() <= others


@pytest.mark.parametrize("turns", range(6))
def test_so_it_does_on_uvloop(turns: int) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_it_stops_at_once_though_clients_have_not_said_anything_yet(turns))


async def test_entering_twice_is_a_mistake_and_stops_nothing() -> None:
    async with EmbeddedArchive() as archive:
        with pytest.raises(UsageError, match="the archive is running already"):
            await archive.__aenter__()
        async with client_of(archive) as client:
            assert (await client.get(f"{archive.url}/studies")).status_code == 200


async def test_it_stops_at_once_though_clients_stay_connected_and_stream(tmp_path: Path) -> None:
    others = asyncio.all_tasks()
    archive = EmbeddedArchive()

    async def endless() -> AsyncIterator[bytes]:
        yield b"--limit\r\n\r\n"
        while True:
            yield bytes(100_000)
            await asyncio.sleep(0.001)

    async with client_of() as client:
        async with archive:
            client.auth = httpx.BasicAuth(*archive.auth or ())
            (stored,) = await archive.add(write_benchmark_series(tmp_path, 1, 30_000_000))
            idle = await client.get(f"{archive.url}/studies")
            headers = {"Content-Type": STOW_TYPE.format("limit")}
            uploading = asyncio.create_task(client.post(archive.url, content=endless(), headers=headers))
            request = client.build_request("GET", f"{archive.url}/studies/{stored.uids.study_instance_uid}")
            unread = await client.send(request, stream=True)
            await asyncio.sleep(0.1)
            started = time.perf_counter()
        took = time.perf_counter() - started
        await asyncio.gather(uploading, return_exceptions=True)
        with pytest.raises(httpx.TransportError):
            await unread.aread()

    assert idle.status_code == 200
    assert took < 1
    assert asyncio.all_tasks() <= others
    gc.collect()


async def test_an_error_in_the_block_comes_out_of_it() -> None:
    with pytest.raises(ZeroDivisionError):
        async with EmbeddedArchive():
            raise ZeroDivisionError


async def test_serve_runs_until_cancelled(tmp_path: Path) -> None:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(tmp_path, port=0, username="u", password="p", on_ready=url.set_result))
    async with client_of() as client:
        client.auth = httpx.BasicAuth("u", "p")
        assert (await client.get(f"{await url}/studies")).status_code == 200
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url.result()}/studies")


async def test_the_application_may_be_mounted(tmp_path: Path) -> None:
    app = create_app(tmp_path, username=None)
    outer = Starlette(routes=[Mount("/dicom-web", app=app)])
    transport = httpx.ASGITransport(app=outer)

    async with httpx.AsyncClient(transport=transport, base_url="http://archive.test/dicom-web") as client:
        for path in ("/", "/studies", "/studies/"):
            assert (await store(client, INSTANCE, path=path)).status_code == 200
        (study,) = (await client.get("/studies/")).json()

    app.state.close()
    assert study["00081190"]["Value"] == ["http://archive.test/dicom-web/studies/1.2.3"]


async def test_the_applications_lifespan_closes_it(tmp_path: Path) -> None:
    app = create_app(tmp_path)

    async with app.router.lifespan_context(app):
        pass

    gc.collect()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_a_large_instance_passes_in_flat_memory(client: httpx.AsyncClient, tmp_path: Path) -> None:
    (path,) = write_benchmark_series(tmp_path, 1, 120_000_000)

    async def body() -> AsyncIterator[bytes]:
        yield b"--limit\r\n\r\n"
        with path.open("rb") as file:
            while piece := file.read(256 * 1024):
                yield piece
        yield b"\r\n--limit--\r\n"

    await store(client, make_instance("5.5", "5.5.1", "5.5.1.1"))
    async with _MemoryWatch() as watch:
        answer = await client.post("/", content=body(), headers={"Content-Type": STOW_TYPE.format("limit")})
        received = 0
        async with client.stream("GET", answer.json()["00081190"]["Value"][0]) as download:
            async for chunk in download.aiter_raw():
                received += len(chunk)

    assert received == int(download.headers["content-length"]) > 120_000_000
    assert watch.growth < 24_000_000


class _MemoryWatch:
    """Looks at the resident memory of this process, client and server both, every few milliseconds."""

    async def __aenter__(self) -> Self:
        self.before = self.peak = self._resident()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()

    @property
    def growth(self) -> int:
        return self.peak - self.before

    def _resident(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._resident())
            await asyncio.sleep(0.005)
