"""Cancellation at any moment leaves a pool that works, and nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import DicomWeb, PostdicomError
from postdicom_async.disk.folder import SafeFolder
from tests.faults.archive import MemoryArchive, is_search, name_of
from tests.faults.clients import files_below, settings
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.support.large import large

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.faults.clients import Connect

SLOTS = 8
STUDY = uid(1)
FILES = list(study_files(6, series=2, pixel_bytes=60_000).values())
UPLOADED = small_dicom(pixel_bytes=4096)


async def cancelled_at(call: Coroutine[Any, Any, Any], delay: float) -> None:
    """Start a call, cancel it after a while, wait until it is over."""
    task = asyncio.ensure_future(call)
    if delay > 0:
        await asyncio.wait([task], timeout=delay)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def read_all(archive: DicomWeb) -> None:
    async with archive.iter_study(STUDY) as parts:
        async for part in parts:
            await part.read()


async def test_a_call_cancelled_at_any_turn_keeps_no_connection(no_leaks: Callable[[], None]) -> None:
    """On our own transport: httpx's pool (httpcore 1.0) loses one that is cancelled right after it was made."""
    using = settings(connections=1)
    for turns in range(200):
        async with (
            FaultyServer(lambda _: json_reply([]), keep_bodies=False) as server,
            DicomWeb(server.url, settings=using) as archive,
        ):
            search = asyncio.create_task(archive.search_for_studies(limit=1).first())
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = search.done()
            search.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await search
            async with asyncio.timeout(10):
                await archive.search_for_studies(limit=1).first()
            await server.until(lambda seen: seen.open_connections <= 1)
        if was_done:
            break
    else:
        pytest.fail("no call was ever done")
    no_leaks()


async def test_time_outs_around_calls_that_nearly_made_it(connect: Connect, no_leaks: Callable[[], None]) -> None:
    """A time-out that strikes while an answer is being closed must not keep its connection."""
    chance = random.Random(5)

    async def search(archive: DicomWeb) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.03):
                await archive.search_for_studies(limit=1).first()

    using = settings(connections=4)
    async with (
        FaultyServer(lambda _: json_reply([]), keep_bodies=False) as server,
        connect(server.url, using) as archive,
    ):
        for _ in range(60):
            await asyncio.gather(*(search(archive) for _ in range(20)))
            async with asyncio.timeout(10):
                await archive.search_for_studies(limit=1).first()
    no_leaks()


async def test_a_download_cancelled_while_its_folder_opens(
    connect: Connect, no_leaks: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = SafeFolder.open

    def slowly(folder: SafeFolder) -> None:
        time.sleep(0.02)
        opened(folder)

    monkeypatch.setattr(SafeFolder, "open", slowly)
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        for _ in range(10):
            await cancelled_at(archive.download_study(STUDY, to=tmp_path), 0.005)
    no_leaks()


@pytest.mark.parametrize("cancellations", [1200, large(5000)])
async def test_thousands_of_cancellations_then_everything_works(
    cancellations: int, connect: Connect, no_leaks: Callable[[], None]
) -> None:
    chance = random.Random(20_240_501)
    body = b"[" + b" " * 3000 + b"]"

    def answer(request: Request) -> Reply:
        delay = chance.choice([0, 0, 0.001, 0.003])
        if request.method == "POST":
            return Reply(503 if chance.random() < 0.1 else 200, delay_before=delay)
        pause = chance.choice([0, 0, 0.001])
        headers = {"Content-Type": "application/json"}
        return Reply(200, headers, body, delay_before=delay, pause=pause, chunk_size=1024, framing="chunked")

    using = settings(connections=SLOTS, budget=1 << 30, base=0.0005, cap=0.001)
    async with FaultyServer(answer, keep_bodies=False) as server, connect(server.url, using) as archive:
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: archive.search_for_studies(limit=1).all(),
            lambda: archive.retrieve_instance_rendered(STUDY, uid(1, 1), uid(1, 1, 1)),
            lambda: archive.delete_study(STUDY),
            lambda: archive.upload(UPLOADED),
        ]

        async def worker(count: int) -> None:
            for _ in range(count):
                await cancelled_at(chance.choice(calls)(), chance.choice([0, 0.0002, 0.001, 0.002, 0.004]))

        await asyncio.gather(*[worker(cancellations // 20) for _ in range(20)])
        async with asyncio.timeout(10):
            found = await asyncio.gather(*[archive.search_for_studies(limit=1).all() for _ in range(20)])
        assert found == [[]] * 20
        link = archive._session._open_link()
        assert link.slots.borrowed_tokens == 0
        # Cancelled requests may still be on the server's side of the socket when the next one arrives.
        await server.until(lambda seen: seen.in_flight == 0)
    no_leaks()


async def test_never_more_in_flight_than_slots(connect: Connect) -> None:
    async with (
        FaultyServer(json_reply([], delay_before=0.005)) as server,
        connect(server.url, settings(connections=5, parallel_searches=5)) as archive,
    ):
        await asyncio.gather(*[archive.search_for_studies(limit=1).all() for _ in range(60)])
    assert server.peak_in_flight == 5
    assert server.connections <= 5


async def test_cancelled_downloads_leave_no_partial_files(
    connect: Connect, tmp_path: Path, no_leaks: Callable[[], None]
) -> None:
    chance = random.Random(7)
    archive = MemoryArchive(FILES)
    expected = {name_of(file): file for file in FILES}

    def fault(request: Request) -> Reply | None:
        if is_search(request):
            return None
        found = archive.retrieve(STUDY, None, None)
        return Reply(200, found.headers, found.body, chunk_size=16384, pause=chance.choice([0, 0.001]))

    archive.fault = fault
    using = settings(piece=20_000)
    async with FaultyServer(archive) as server, connect(server.url, using) as client:
        for number in range(80):
            folder = tmp_path / str(number)
            await cancelled_at(client.download_study(STUDY, to=folder), chance.uniform(0, 0.04))
            files = files_below(folder) if folder.exists() else {}
            assert files.items() <= expected.items(), sorted(files)
        report = await client.download_study(STUDY, to=tmp_path / "whole")
        assert report.ok
        assert client._session._open_link().slots.borrowed_tokens == 0
    no_leaks()


@pytest.mark.parametrize("twice", [False, True])
async def test_cancelled_uploads_close_their_files(
    twice: bool, connect: Connect, tmp_path: Path, no_leaks: Callable[[], None]
) -> None:
    chance = random.Random(8)
    for number, file in enumerate(FILES):
        (tmp_path / str(number)).write_bytes(file)

    archive = MemoryArchive()
    using = settings(piece=8192, batch_instances=2, parallel_stores=2)
    async with FaultyServer(archive, keep_bodies=True) as server, connect(server.url, using) as client:
        for _ in range(20):
            task = asyncio.ensure_future(client.upload(tmp_path))
            await asyncio.wait([task], timeout=chance.uniform(0, 0.03))
            task.cancel()
            if twice:
                await asyncio.sleep(0)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        report = await client.upload(tmp_path)
        assert report.ok
        assert client._session._open_link().slots.borrowed_tokens == 0
    assert set(archive.stored.values()) == set(FILES)
    no_leaks()


async def test_a_stream_that_is_left_gives_its_slot_back(connect: Connect) -> None:
    async with (
        FaultyServer(MemoryArchive(FILES)) as server,
        connect(server.url, settings(connections=2)) as archive,
    ):
        for _ in range(20):
            async with archive.iter_study(STUDY) as parts:
                async for part in parts:
                    async for _chunk in part:
                        break
                    break
        async with asyncio.timeout(5):
            await asyncio.gather(*[read_all(archive) for _ in range(4)])


async def test_a_task_group_that_fails_takes_its_calls_along(connect: Connect, no_leaks: Callable[[], None]) -> None:
    async with FaultyServer(Reply(silent=True)) as server, connect(server.url) as archive:

        async def fails() -> None:
            await server.until(lambda seen: seen.in_flight >= 3)
            raise LookupError

        async def all_at_once() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(archive.search_for_studies().all())
                group.create_task(fails())

        with pytest.raises(ExceptionGroup):
            await all_at_once()
        assert archive._session._open_link().slots.borrowed_tokens == 0
    no_leaks()


@pytest.mark.parametrize("status", [401, 404, 500, 302])
@pytest.mark.parametrize("search_is_slow", [True, False])
async def test_no_exception_is_left_unseen(status: int, search_is_slow: bool, connect: Connect, tmp_path: Path) -> None:
    """Where several requests of one job fail, one error is raised and the others are seen to."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unseen.append(context))
    using = settings(max_attempts=1, batch_instances=1)

    def answer(request: Request) -> Reply:
        return Reply(status, delay_before=0.02 if is_search(request) == search_is_slow else 0)

    async with FaultyServer(answer) as server, connect(server.url, using) as archive:
        with contextlib.suppress(PostdicomError):
            await archive.download_study(STUDY, to=tmp_path)
        with contextlib.suppress(PostdicomError):
            await archive.download_series(STUDY, uid(1, 1), to=tmp_path)
        with contextlib.suppress(PostdicomError):
            await archive.upload(FILES)
    gc.collect()
    await asyncio.sleep(0)
    assert not unseen


# --- searches beside transfers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["searches", "metadata"])
async def test_searches_never_take_all_connections(kind: str, connect: Connect, tmp_path: Path) -> None:
    """Sixty that hang, and a download that goes on beside them."""
    archive = MemoryArchive(FILES)
    release = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if "PatientID" in request.target or "metadata" in request.target:
            await release.wait()
            return json_reply([])
        return archive(request)

    using = settings(connections=6, answer=60, search_answer=60)
    async with FaultyServer(answer) as server, connect(server.url, using) as client:
        asked = [
            client.search_for_studies({"PatientID": "1"}, limit=1).all()
            if kind == "searches"
            else client.retrieve_study_metadata(STUDY).all()
            for _ in range(60)
        ]
        waiting = asyncio.ensure_future(asyncio.gather(*asked))
        await server.until(lambda seen: seen.in_flight == 4)
        async with asyncio.timeout(20):
            async with client.iter_study(STUDY) as parts:
                assert len([await part.read() async for part in parts]) == len(FILES)
            assert (await client.upload(FILES[0])).ok
        assert server.in_flight == 4
        release.set()
        await waiting
        link = client._session._open_link()
        assert link.listings.borrowed_tokens == link.slots.borrowed_tokens == 0


@pytest.mark.parametrize("depth", [1, 2, 5])
async def test_searches_within_searches_do_not_wait_for_one_another(depth: int, connect: Connect) -> None:
    """More streamed listings open than may run at once, each waiting for one within it."""
    rows = [dicom_json(StudyInstanceUID=uid(number)) for number in range(1, 400)]
    reply = json_reply(rows, chunk_size=4096)
    using = settings(connections=16, parallel_searches=2, page_size=1000)

    async def nested(archive: DicomWeb, level: int) -> int:
        count = 0
        async for _ in archive.search_for_studies({"PatientID": str(level)}, limit=399):
            count += 1
            if count == 1 and level:
                assert await nested(archive, level - 1) == 399
        return count

    async with FaultyServer(reply) as server, connect(server.url, using) as archive, asyncio.timeout(60):
        assert await asyncio.gather(*(nested(archive, depth) for _ in range(3))) == [399] * 3
        assert server.peak_in_flight <= 2
        assert archive._session._open_link().listings.borrowed_tokens == 0


async def test_a_search_cancelled_while_it_waits_keeps_no_slot(connect: Connect) -> None:
    using = settings(connections=1, parallel_searches=4)
    async with FaultyServer([Reply(silent=True), *[json_reply([])] * 8]) as server, connect(server.url, using) as one:
        silent = asyncio.create_task(one.delete_study(STUDY))
        await server.until(lambda seen: seen.in_flight == 1)
        for _ in range(8):
            await cancelled_at(one.search_for_studies(limit=1).all(), 0.01)
        silent.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await silent
        async with asyncio.timeout(20):
            assert await asyncio.gather(*(one.search_for_studies(limit=1).all() for _ in range(8))) == [[]] * 8
        link = one._session._open_link()
        assert link.listings.borrowed_tokens == link.slots.borrowed_tokens == 0
