"""Servers that are silent, crawl, stall, never end a head or stop reading: when each kind of call ends, and how."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from postdicom_async import (
    ConnectionFailed,
    DicomWeb,
    DownloadReport,
    IncompleteDownload,
    OutcomeUnknown,
    PostDicom,
    Settings,
    Status,
    Timeouts,
    UploadReport,
)
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from tests.faults.archive import MemoryArchive, is_search, name_of
from tests.faults.clients import files_below, settings, transport_of
from tests.support.bodies import dicom_json, json_reply, multipart_related, stow_answer
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from tests.faults.clients import Connect

STUDY = uid(1)
FILES = list(study_files(3).values())
BIG = small_dicom(pixel_bytes=32 << 20)  # more than the system and the server buffer
PATIENCE = 20.0  # for machines that have other things to do: without a bound these servers take minutes or for ever

SLOW = Timeouts(
    connect=0.1, answer=0.2, search_answer=0.1, idle_read=0.15, idle_write=0.2, least_rate=1024, least_rate_window=0.2
)
ONCE = settings(max_attempts=1, max_silences=1, **{one: getattr(SLOW, one) for one in Timeouts.__slots__})
LONG = replace(SLOW, connect=30, answer=30, search_answer=30, idle_read=30, idle_write=30, least_rate_window=30)


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """Check that a block takes at least so long, and not very much longer."""
    started = time.monotonic()
    yield
    taken = time.monotonic() - started
    assert seconds * 0.9 <= taken < seconds + PATIENCE


class Pieces:
    """A body in pieces of one size, whose source may take its time."""

    def __init__(self, number: int, size: int = 100, pause: float = 0.0) -> None:
        self.length = number * size
        self._size = size
        self._pause = pause

    async def open(self) -> AsyncGenerator[bytes, None]:
        for _ in range(self.length // self._size):
            await asyncio.sleep(self._pause)
            yield b"x" * self._size


# --- the table: fault, kind of call, when a request ends ---------------------------------------------------------

CRAWLING_HEAD = b"HTTP/1.1 200 OK\r\nX-Slow: "
HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"

FAULTS: dict[str, dict[str, Any]] = {
    "silent": {"silent": True},
    "trickling": {"chunk_size": 1, "pause": 0.02},
    "stalled": {"stall_after": 10},
    "head without end": {"raw": CRAWLING_HEAD, "again": b"x", "pause": 0.02},
    "hints without end": {"raw": HINTS, "again": HINTS, "pause": 0.02},
    "stops reading": {"stop_reading_after": 1000},
}
NO_HEAD = {"silent", "head without end", "hints without end"}


def least_seconds(fault: str, kind: str) -> float:
    """Return what the documents say, for one request: ``upload``'s bounds do not hold the connecting."""
    if fault == "trickling":
        return SLOW.least_rate_window
    if fault == "stalled":
        return SLOW.idle_read
    if kind == "upload":
        return SLOW.answer if fault in NO_HEAD else SLOW.idle_write
    return SLOW.connect + (SLOW.search_answer if kind == "search" else SLOW.answer)


def faulty(fault: str, body: bytes, kind: str) -> Reply:
    """Return the answer, with a body that would take minutes to trickle."""
    return Reply(200, {"Content-Type": kind}, body, **FAULTS[fault])


@pytest.mark.parametrize("fault", FAULTS)
async def test_search(fault: str, connect: Connect) -> None:
    body = json_reply([dicom_json(StudyInstanceUID=uid(n)) for n in range(1, 200)]).body
    assert isinstance(body, bytes)
    reply = faulty(fault, body, "application/dicom+json")
    async with FaultyServer([reply]) as server, connect(server.url, ONCE) as archive:
        with ends_after(least_seconds(fault, "search")), pytest.raises(ConnectionFailed) as caught:
            await archive.search_for_studies().all()
    assert caught.value.temporary
    assert caught.value.attempts == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_download(fault: str, connect: Connect, tmp_path: Path) -> None:
    """What came whole is on disk, and the error says what is missing."""
    part = multipart_related(FILES)

    def answer(request: Request) -> Reply | None:
        return None if is_search(request) else faulty(fault, part.body, part.content_type)

    def on_head(request: Request) -> Reply | None:
        return answer(request) if fault == "stops reading" else None

    script = MemoryArchive(FILES, answer if fault != "stops reading" else lambda _: None)
    async with FaultyServer(script, on_head=on_head) as server, connect(server.url, ONCE) as archive:
        with ends_after(least_seconds(fault, "download")), pytest.raises(IncompleteDownload) as caught:
            await archive.download_study(STUDY, to=tmp_path)
    assert caught.value.temporary
    assert len(caught.value.report.missing) == len(FILES)
    assert files_below(tmp_path) == {}
    assert len([one for one in server.requests if not is_search(one)]) == 1


async def test_a_large_download_that_trickles(connect: Connect, tmp_path: Path) -> None:
    """Whatever is read ahead, what trickles is seen."""
    many = list(study_files(40).values())
    part = multipart_related(many)
    patient = replace(SLOW, answer=0.4, idle_read=0.4, least_rate_window=0.4)

    def answer(request: Request) -> Reply | None:
        return None if is_search(request) else faulty("trickling", part.body, part.content_type)

    async with (
        FaultyServer(MemoryArchive(many, answer, counts=True)) as server,
        connect(server.url, replace(ONCE, timeouts=patient, retry=settings(max_silences=2).retry)) as archive,
    ):
        with ends_after(0.8), pytest.raises(IncompleteDownload, match="sends less than") as caught:
            await archive.download_study(STUDY, to=tmp_path)
    assert len(caught.value.report.missing) == 40


@pytest.mark.parametrize("fault", FAULTS)
async def test_upload(fault: str, connect: Connect) -> None:
    """The outcome is unconfirmed: the archive may have taken it, and a search does not find it."""
    reply = faulty(fault, stow_answer(referenced=[uid(1, 1, 1)]) + b" " * 5000, "application/dicom+json")

    def on_head(request: Request) -> Reply | None:
        return reply if request.method == "POST" else None

    source = BIG if fault == "stops reading" else FILES[0]
    async with FaultyServer(MemoryArchive(), on_head=on_head) as server, connect(server.url, ONCE) as archive:
        with ends_after(least_seconds(fault, "upload")):
            report = await archive.upload(source)
    assert [one.status for one in report.outcomes] == [Status.UNCONFIRMED]
    assert len([one for one in server.requests if one.method == "POST"]) == 1


class Sipping(httpx.AsyncBaseTransport):
    """Takes a piece, and waits before the next; what a socket does behind the buffers of a system."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async for _ in request.stream:  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
        return httpx.Response(200, content=b"taken")


@pytest.mark.parametrize("rate", [1_000_000, 10])
async def test_an_upload_that_is_taken_too_slowly(rate: int) -> None:
    """Each piece is taken in time; 100,000 bytes a second are enough or not."""
    slow = at(replace(LONG, idle_write=0.5, least_rate=rate, least_rate_window=0.3))
    call = Call("store instances", "POST", "/studies", Repeat.STORE, body=Pieces(30, 5000))
    session = Session("http://127.0.0.1:1", auth=None, settings=slow, transport=Sipping())
    await session.open()
    if rate == 10:
        assert (await session.fetch(call, cap=100)).body == b"taken"
    else:
        with ends_after(0.5), pytest.raises(ConnectionFailed, match=r"takes less than 1e\+06 bytes a second") as caught:
            await session.fetch(call, cap=100)
        assert caught.value.may_have_arrived
    await session.close()


# --- what is slow, and not the archive ---------------------------------------------------------------------------


async def test_a_slow_consumer_is_not_the_archive(connect: Connect) -> None:
    """It takes its time between the pieces, more than window and deadline; the archive has them all ready."""
    part = multipart_related([small_dicom(pixel_bytes=16 << 20)])
    strict = replace(SLOW, idle_read=0.5, least_rate=1 << 30, least_rate_window=0.5, deadline=0.5)
    pieces = 0
    async with (
        FaultyServer(part.reply()) as server,
        connect(server.url, at(strict)) as archive,
        archive.iter_study(STUDY) as parts,
    ):
        one = await anext(aiter(parts))
        async for _ in one:
            pieces += 1
            await asyncio.sleep(0.15)
            if pieces == 6:
                break
    assert pieces == 6


async def test_a_slow_source_is_not_the_archive(transport_name: str) -> None:
    quick = at(replace(SLOW, idle_write=0.1, connect=0.1, answer=0.1, least_rate=1_000_000, least_rate_window=0.1))
    call = Call("store instances", "POST", "/studies", Repeat.STORE, body=Pieces(3, pause=0.25))
    async with FaultyServer([Reply(200, body=b"taken")]) as server:
        session = Session(server.url, auth=None, settings=quick, transport=transport_of(transport_name, quick))
        await session.open()
        answer = await session.fetch(call, cap=100)
        await session.close()
    assert answer.body == b"taken"
    assert server.bodies == [b"x" * 300]


async def test_a_small_answer_that_comes_slowly(connect: Connect) -> None:
    """Far below the least rate, and over before a window is."""
    slow = json_reply([dicom_json(StudyInstanceUID=STUDY)])
    steady = Reply(200, slow.headers, slow.body, chunk_size=40, pause=0.1)
    patient = replace(SLOW, idle_read=5, least_rate=1 << 20, least_rate_window=20)
    async with FaultyServer([steady, json_reply([])]) as server, connect(server.url, at(patient)) as archive:
        assert [one.StudyInstanceUID for one in await archive.search_for_studies().all()] == [STUDY]


async def test_the_rate_can_be_switched_off(connect: Connect) -> None:
    slow = json_reply([])
    reply = Reply(200, slow.headers, b" " * 15 + b"[]", chunk_size=1, pause=0.02)
    off = replace(SLOW, idle_read=5, least_rate_window=0.1, least_rate=0)
    async with FaultyServer([reply]) as server, connect(server.url, at(off)) as archive:
        assert await archive.search_for_studies().all() == []


async def test_metadata_and_stores_wait_longer_than_searches(connect: Connect) -> None:
    thinking = json_reply([dicom_json(SOPInstanceUID=uid(1, 1, 1))])
    slow = Reply(200, thinking.headers, thinking.body, delay_before=0.6)
    long = replace(LONG, connect=0.1, search_answer=0.1)
    async with FaultyServer(slow) as server, connect(server.url, at(long)) as archive:
        assert len(await archive.retrieve_study_metadata(STUDY).all()) == 1
        with pytest.raises(ConnectionFailed, match="did not answer in time"):
            await archive.search_for_studies().all()


def at(timeouts: Timeouts, **values: Any) -> Settings:
    """Return settings with these time-outs and one attempt."""
    return replace(settings(max_attempts=1, **values), timeouts=timeouts)


# --- silence again and again ---------------------------------------------------------------------------------------


async def test_a_download_from_an_archive_that_fell_silent(connect: Connect, tmp_path: Path) -> None:
    """30 instances one by one would be 30 silences, in each of several rounds; the next call asks again."""
    many = list(study_files(30).values())
    held = many[:3]
    silent = True

    def fault(request: Request) -> Reply | None:
        return Reply(silent=True) if silent and not is_search(request) else None

    quick = settings(connect=0.1, answer=0.2, max_attempts=5, max_silences=3, parallel_retrieves=4)
    for file in held:  # so that the others are asked for one by one
        (tmp_path / name_of(file)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name_of(file)).write_bytes(file)
    async with FaultyServer(MemoryArchive(many, fault)) as server, connect(server.url, quick) as archive:
        with ends_after(0.6), pytest.raises(IncompleteDownload) as caught:
            await archive.download_study(STUDY, to=tmp_path)
        asked = len([one for one in server.requests if not is_search(one)])
        silent = False
        report = await archive.download_study(STUDY, to=tmp_path)
    assert caught.value.temporary
    assert "did not answer in time" in str(caught.value)
    assert len(caught.value.report.missing) == 27
    assert asked <= 3 * 4
    assert report.ok
    assert files_below(tmp_path) == {name_of(file): file for file in many}


async def test_a_download_goes_on_while_instances_come(connect: Connect, tmp_path: Path) -> None:
    """The answer with all of them stalls after one: that is not silence without anything new."""
    many = list(study_files(12).values())
    archive_side = MemoryArchive(many)
    given: set[bytes] = set()

    def stalls(request: Request) -> Reply | None:
        if is_search(request):
            return None
        wanted = request.path.rpartition("/")[2]
        files = [file for uids, file in archive_side.stored.items() if wanted in uids and file not in given]
        if len(files) < 2:
            return None
        given.add(files[0])
        body = multipart_related([files[0], *files])
        return body.reply(stall_after=len(multipart_related([files[0]]).body) + 300)

    archive_side.fault = stalls
    quick = settings(idle_read=0.15, max_attempts=2, max_silences=1)
    async with FaultyServer(archive_side) as server, connect(server.url, quick) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert report.ok
    assert len(report.saved) == 12


async def test_an_upload_to_an_archive_that_fell_silent(connect: Connect) -> None:
    """Searches are answered, stores are not; 300 batches would be 300 silences and more."""
    many = list(study_files(300).values())

    def fault(request: Request) -> Reply | None:
        return Reply(silent=True) if request.method == "POST" else None

    quick = settings(
        connect=0.1, answer=0.1, idle_write=0.1, max_attempts=5, max_silences=3, batch_instances=1, parallel_stores=4
    )
    async with FaultyServer(MemoryArchive((), fault)) as server, connect(server.url, quick) as archive:
        with ends_after(0.3), pytest.raises(ConnectionFailed, match="silent too often") as caught:
            await archive.upload(many)
    assert isinstance(caught.value.report, UploadReport)
    asked = len([one for one in server.requests if one.method == "POST"])
    assert asked <= 3 * 4 + 4
    counts = caught.value.report.counts
    assert set(counts) == {Status.UNCONFIRMED, Status.FAILED}
    assert counts[Status.UNCONFIRMED] <= asked
    not_sent = [one for one in caught.value.report.outcomes if one.status is Status.FAILED]
    assert all(str(one.reason).startswith("not sent: ") for one in not_sent)


async def test_a_read_is_not_repeated_for_ever(connect: Connect) -> None:
    quick = settings(connect=0.05, search_answer=0.05, max_attempts=9, max_silences=3)
    async with FaultyServer(Reply(silent=True)) as server, connect(server.url, quick) as archive:
        with ends_after(0.3), pytest.raises(ConnectionFailed, match="did not answer in time") as caught:
            await archive.search_for_studies().all()
    assert caught.value.attempts == len(server.requests) == 3


# --- deadlines -----------------------------------------------------------------------------------------------------


def due(seconds: float, **values: Any) -> Settings:
    """Return patient settings with a deadline."""
    return replace(settings(**values), timeouts=replace(LONG, deadline=seconds))


Calls = dict[str, "Callable[[DicomWeb], Any]"]
READS: Calls = {
    "search": lambda archive: archive.search_for_studies().all(),
    "metadata": lambda archive: archive.retrieve_study_metadata(STUDY).all(),
    "retrieve": lambda archive: archive.retrieve_instance(STUDY, uid(1, 1), uid(1, 1, 1)),
    "rendered": lambda archive: archive.retrieve_instance_rendered(STUDY, uid(1, 1), uid(1, 1, 1)),
}


@pytest.mark.parametrize("reply", [Reply(silent=True), Reply(200, {}, b" " * 5000, chunk_size=1, pause=0.05)])
@pytest.mark.parametrize("call", READS)
async def test_a_read_with_a_deadline(call: str, reply: Reply, connect: Connect) -> None:
    kinds = {"search": "application/dicom+json", "metadata": "application/dicom+json"}
    reply = replace(reply, headers={"Content-Type": kinds.get(call, "application/dicom")})
    async with FaultyServer(reply) as server, connect(server.url, due(0.2)) as archive:
        with ends_after(0.2), pytest.raises(ConnectionFailed, match=r"deadline of 0\.2 s") as caught:
            await READS[call](archive)
    assert caught.value.temporary


async def test_repeats_and_their_waits_are_within_the_deadline(connect: Connect) -> None:
    busy = due(0.3, max_attempts=100, base=0.05, cap=0.05)
    async with FaultyServer(Reply(500)) as server, connect(server.url, busy) as archive:
        with ends_after(0.3), pytest.raises(ConnectionFailed, match="deadline") as caught:
            await archive.search_for_studies().all()
    assert caught.value.attempts > 1
    assert not caught.value.report


async def test_pages_share_a_deadline_and_the_caller_has_time(connect: Connect) -> None:
    numbers = iter(range(1, 10_000))

    def page(_: Request) -> Reply:
        reply = json_reply([dicom_json(StudyInstanceUID=uid(next(numbers)))])
        return Reply(200, reply.headers, reply.body, delay_before=0.05)

    async with FaultyServer(page) as server, connect(server.url, due(0.3)) as archive:
        results = aiter(archive.search_for_studies())
        for _ in range(3):
            await anext(results)
            await asyncio.sleep(0.15)  # the caller's
        with pytest.raises(ConnectionFailed, match="deadline"):
            _ = [one async for one in results]


@pytest.mark.parametrize("fault", ["silent", "trickling"])
async def test_a_download_with_a_deadline(fault: str, connect: Connect, tmp_path: Path) -> None:
    """What came by then is there, and the report says what is missing."""
    whole = multipart_related(FILES)
    first = len(multipart_related(FILES[:1]).body) + 300

    def answer(request: Request) -> Reply | None:
        if is_search(request):
            return None
        return Reply(silent=True) if fault == "silent" else whole.reply(stall_after=first)

    async with FaultyServer(MemoryArchive(FILES, answer)) as server, connect(server.url, due(0.4)) as archive:
        with ends_after(0.4), pytest.raises(ConnectionFailed, match=r"deadline of 0\.4 s") as caught:
            await archive.download_study(STUDY, to=tmp_path)
    report = caught.value.report
    assert isinstance(report, DownloadReport)
    assert caught.value.temporary
    saved = FILES[:1] if fault == "trickling" else []
    assert len(report.missing) == len(FILES) - len(saved)
    assert files_below(tmp_path) == {name_of(file): file for file in saved}


async def test_an_upload_with_a_deadline(connect: Connect) -> None:
    archive_side = MemoryArchive()

    def fault(request: Request) -> Reply | None:
        return Reply(silent=True) if request.method == "POST" and len(archive_side.stored) >= 1 else None

    archive_side.fault = fault
    one_by_one = due(0.4, batch_instances=1, parallel_stores=1)
    async with FaultyServer(archive_side) as server, connect(server.url, one_by_one) as archive:
        with ends_after(0.4), pytest.raises(ConnectionFailed, match=r"deadline of 0\.4 s") as caught:
            await archive.upload(FILES)
    assert caught.value.may_have_arrived
    assert isinstance(caught.value.report, UploadReport)
    first, second, *others = (one.status for one in caught.value.report.outcomes)
    assert (first, second) == (Status.STORED, Status.UNCONFIRMED)
    assert set(others) <= {Status.FAILED}  # not sent


async def test_a_change_that_left_before_the_deadline(connect: Connect, transport_name: str) -> None:
    async with FaultyServer(Reply(silent=True)) as server:
        async with connect(server.url, due(0.15)) as archive:
            with ends_after(0.15), pytest.raises(ConnectionFailed, match="deadline") as caught:
                await archive.delete_study(STUDY)
            assert caught.value.may_have_arrived
        transport = transport_of(transport_name, due(0.15))
        async with PostDicom(server.url, "user", "password", settings=due(0.15), transport=transport) as vendor:
            with ends_after(0.15), pytest.raises(OutcomeUnknown, match="deadline"):
                await vendor.folders.create("Second opinion")
            with ends_after(0.15), pytest.raises(ConnectionFailed, match="deadline") as read:
                await vendor.folders.search().all()
        assert not isinstance(read.value, OutcomeUnknown)
    assert len(server.requests) == 3


async def test_a_change_that_waited_for_its_turn_till_the_deadline(connect: Connect) -> None:
    """It never left: the only slot is taken by somebody else's stream."""
    part = multipart_related(FILES)
    narrow = due(0.15, connections=1)
    async with FaultyServer(part.reply(stall_after=600)) as server, connect(server.url, narrow) as archive:
        long = archive.with_options(timeouts=LONG)
        async with long.iter_study(STUDY) as parts:
            await anext(aiter(parts))
            with ends_after(0.15), pytest.raises(ConnectionFailed, match="deadline") as caught:
                await archive.delete_study(STUDY)
    assert not caught.value.may_have_arrived
    assert [one.method for one in server.requests] == ["GET"]


async def test_a_deadline_by_with_options_on_the_same_connections(connect: Connect) -> None:
    async with FaultyServer([json_reply([]), Reply(silent=True)]) as server:
        async with connect(server.url, at(LONG)) as archive:
            hasty = archive.with_options(timeouts=replace(archive.settings.timeouts, deadline=0.3))
            assert await hasty.search_for_studies().all() == []
            with ends_after(0.3), pytest.raises(ConnectionFailed, match=r"deadline of 0\.3 s"):
                await hasty.search_for_studies().all()
        assert server.connections == 1


async def test_somebody_elses_time_out_and_cancellation_go_through(connect: Connect, tmp_path: Path) -> None:
    calls: Calls = {
        **READS,
        "download": lambda archive: archive.download_study(STUDY, to=tmp_path),
        "upload": lambda archive: archive.upload(FILES),
        "delete": lambda archive: archive.delete_study(STUDY),
    }
    async with FaultyServer(Reply(silent=True)) as server, connect(server.url, due(30)) as archive:
        for call in calls.values():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await call(archive)
            task = asyncio.ensure_future(call(archive))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
