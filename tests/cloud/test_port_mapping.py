"""Behind a port mapping (a container's, an SSH tunnel's) the Cloud API works: it tells the port that was used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postdicom_async import CloudApi
from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.cloud.conftest import INSTITUTION, USER
from tests.cloud.files import held_by, study_in
from tests.emulator.cloud_support import address_of, bring_up, bring_up_url, told
from tests.emulator.support import client_of
from tests.faults.clients import FAST


@asynccontextmanager
async def forwarder(port: int) -> AsyncIterator[int]:
    """Listen on another port and pass bytes on, both ways; give that port."""
    tasks: set[asyncio.Task[None]] = set()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for work in (pour(reader, back), pour(there, writer)):
            task = asyncio.ensure_future(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_cloud_api_behind_another_port(tmp_path: Path, host: str) -> None:
    files = study_in(tmp_path / "in")
    options = ArchiveOptions(institutions={INSTITUTION: "North"}, users={USER: "Some Body"})
    async with EmbeddedArchive(options=options) as archive, forwarder(int(archive.url.rpartition(":")[2])) as port:
        keys = archive.cloud_api_key, archive.cloud_account_key
        router = f"http://{host}:{port}/wssShellService/"
        async with CloudApi(*keys, user=USER, router_url=router, settings=FAST) as api:
            report = await api.upload(tmp_path / "in", institution_uuid=INSTITUTION)
            orders = await api.orders.search().all()
            link = await api.shares.create_link([str(orders[0].patient_order_uuid)])

        assert report.ok
        assert held_by(archive) == files
        assert str(link.url).startswith(f"http://{host}:{port}/share/"), "the page too must be found"
        async with client_of() as visitor:
            assert (await visitor.get(str(link.url))).status_code == 200


async def test_every_address_is_by_the_host_that_was_used(embedded_archive: EmbeddedArchive) -> None:
    key, account = embedded_archive.cloud_api_key, embedded_archive.cloud_account_key
    async with forwarder(int(embedded_archive.url.rpartition(":")[2])) as port:
        router = f"http://127.0.0.1:{port}/wssShellService/"
        asked = {kind: bring_up_url(router, 4, address_of(kind, account), key) for kind in ("1", "2")}

        assert await told(asked["1"]) == f"http://127.0.0.1:{port}/regionService/"
        assert await told(asked["2"]) == f"ws://127.0.0.1:{port}"
        foreign = asked["2"].replace(f"127.0.0.1:{port}", f"rebound.example:{port}")
        assert await _status_of(foreign, port) == 421, "nobody can have others sent elsewhere"
    assert (await bring_up(embedded_archive))[1] == embedded_archive.url.replace("http", "ws")


async def _status_of(url: str, port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host, _, target = url.removeprefix("http://").partition("/")
    writer.write(f"GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.read()).split()[1])
    writer.close()
    return status
