"""What an archive end gives and stores when the archive breaks off, lies, refuses, or is slow."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, RawDataStorage

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    DicomWeb,
    LocalFileError,
    NotFound,
    PostdicomError,
    ServerError,
)
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.dicomweb import opening as opening_of
from postdicom_async.disk import spool
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.end import Identified, ListedInstance, Selection
from postdicom_async.results import Outcome, Status
from postdicom_async.transfer import holding_sink
from tests.faults.archive import MemoryArchive, is_search, parts_sent, uids_of
from tests.faults.clients import settings
from tests.support.bodies import multipart_related
from tests.support.dicom_files import small_dicom, uid
from tests.support.exchange import Request
from tests.support.faulty_server import FaultyServer, Reply

STUDY = uid(1)
FILES = [small_dicom(STUDY, uid(1, one), uid(1, one, n), pixel_bytes=64) for one in (1, 2) for n in (1, 2, 3)]
BY_UID = {uids_of(file).sop_instance_uid: file for file in FILES}
WHOLE = multipart_related(FILES)


def with_lengths(files: list[bytes]) -> Any:
    """Return an answer whose parts say how long they are."""
    return multipart_related(
        files, part_headers=lambda _, file: {"Content-Type": "application/dicom", "Content-Length": str(len(file))}
    )


def end_at(server: FaultyServer, **values: Any) -> ArchiveEnd:
    return ArchiveEnd(DicomWeb(server.url, settings=settings(**values)))


def wanted(files: list[bytes] = FILES, *, whole: bool = True, once: bool = False) -> Selection:
    every = [uids_of(file) for file in files]
    listed = [ListedInstance(one.series_instance_uid, one.sop_instance_uid) for one in every]
    return Selection(STUDY, None, listed, whole, once)


async def content(one: Identified) -> bytes:
    assert isinstance(one, Usable)
    return b"".join([piece async for piece in one.body.open()])


@dataclass
class Opened:
    """What an end gave, and what ended that."""

    found: dict[str, bytes]
    error: PostdicomError | None = None


async def opened(end: ArchiveEnd, what: Selection) -> Opened:
    result = Opened({})
    try:
        async for one in end.open(what):
            assert one.label not in result.found
            result.found[one.label] = await content(one)
    except PostdicomError as error:
        result.error = error
    return result


def usable(data: bytes) -> Usable:
    header = read_header(data, complete=True)
    assert isinstance(header, InstanceHeader)
    return Usable(header.uids.sop_instance_uid, header, BytesBody(data))


async def given(files: list[bytes]) -> AsyncIterator[Identified]:
    for file in files:
        yield usable(file)


@dataclass
class Stored:
    """The outcomes of a store, and what ended it."""

    outcomes: dict[str, Outcome]
    error: PostdicomError | None = None


async def stored(end: ArchiveEnd, sources: AsyncIterator[Identified], **options: Any) -> Stored:
    result = Stored({})
    try:
        async for one in end.store(sources, **options):
            assert one.where not in result.outcomes
            result.outcomes[one.where] = one
    except PostdicomError as error:
        result.error = error
    return result


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
async def test_an_answer_cut_anywhere_gives_what_was_whole_and_never_less(framing: Any) -> None:
    cuts = range(0, len(WHOLE.body), 61)
    at = 0

    def fault(request: Request) -> Reply | None:
        return None if is_search(request) else Reply(200, {"Content-Type": WHOLE.content_type}, WHOLE.body, **cut)

    cut: dict[str, Any] = {}
    async with FaultyServer(MemoryArchive(FILES, fault)) as server, end_at(server, max_attempts=1, budget=0) as end:
        for at in cuts:
            cut = {"cut_after": at, "framing": framing}
            result = await opened(end, wanted())
            proved = [file for file in FILES if WHOLE.body.find(file) + len(file) < at]
            assert all(BY_UID[one] == data for one, data in result.found.items())
            assert len(result.found) in {max(0, len(proved) - 1), len(proved)}


async def test_what_a_broken_answer_lacks_is_asked_for_one_by_one() -> None:
    def fault(request: Request) -> Reply | None:
        if request.path == f"/studies/{STUDY}":
            return WHOLE.reply(cut_after=len(WHOLE.body) // 2)
        return None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, end_at(server) as end:
        result = await opened(end, wanted())
        assert result == Opened(BY_UID)
        single = [one for one in server.requests if "/instances/" in one.path]
        assert len(single) < len(FILES)


async def test_an_archive_without_whole_studies_gives_them_one_by_one() -> None:
    def fault(request: Request) -> Reply | None:
        return None if is_search(request) or "/instances/" in request.path else Reply(404)

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, end_at(server) as end:
        assert await opened(end, wanted()) == Opened(BY_UID)


async def test_foreign_parts_second_copies_and_what_is_no_dicom_are_dropped() -> None:
    foreign = small_dicom(uid(7), uid(7, 1), uid(7, 1, 1))
    odd = multipart_related([foreign, FILES[0], b"no DICOM", *FILES, FILES[2], foreign])
    async with (
        FaultyServer(lambda request: Reply(404) if is_search(request) else odd.reply()) as server,
        end_at(server) as end,
    ):
        assert await opened(end, wanted()) == Opened(BY_UID)
        some = await opened(end, wanted(FILES[1:3]))
        assert some.found == {uids_of(file).sop_instance_uid: file for file in FILES[1:3]}


async def test_an_instance_that_is_cut_off_in_the_archive_is_told_as_that() -> None:
    short = FILES[0][:-20]
    parts = multipart_related([short, *FILES[1:]])
    async with FaultyServer(lambda _: parts.reply()) as server, end_at(server) as end:
        found = {one.label: one async for one in end.open(wanted())}
    label = uids_of(FILES[0]).sop_instance_uid
    broken = found.pop(label)
    assert isinstance(broken, Unusable)
    assert broken.status is Status.UNREADABLE
    assert set(found) == set(BY_UID) - {label}


@pytest.mark.parametrize("status", [404, 403, 500, 503])
async def test_one_instance_that_is_refused_costs_itself_only(status: int) -> None:
    def fault(request: Request) -> Reply | None:
        return Reply(status) if request.path.endswith(uid(1, 1, 2)) else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, end_at(server, max_attempts=2) as end:
        result = await opened(end, wanted(whole=False))
        assert result == Opened({one: data for one, data in BY_UID.items() if one != uid(1, 1, 2)})
        alone = await opened(end, wanted(FILES[1:2]))
        assert alone == Opened({})  # the archive can be asked, so it is the instance's own


@pytest.mark.parametrize(
    ("reply", "error"),
    [(Reply(401), AuthenticationFailed), (Reply(503), ServerError), (Reply(drop_after_request=True), ConnectionFailed)],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_an_archive_that_is_out_of_order_is_an_error(reply: Reply, error: type[Exception], whole: bool) -> None:
    async with FaultyServer(reply) as server, end_at(server, max_attempts=2) as end:
        result = await opened(end, wanted(whole=whole))
        assert result.found == {}
        assert isinstance(result.error, error)
        assert len(server.requests) < 12


async def test_an_archive_that_goes_away_gives_what_came_and_then_the_error() -> None:
    gone = False

    def fault(request: Request) -> Reply | None:
        nonlocal gone
        if gone:
            return Reply(503)
        if request.path == f"/studies/{STUDY}":
            gone = True
            return WHOLE.reply(cut_after=len(WHOLE.body) // 2)
        return None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, end_at(server, max_attempts=2) as end:
        result = await opened(end, wanted())
    assert result.found
    assert all(BY_UID[one] == data for one, data in result.found.items())
    assert isinstance(result.error, ServerError)
    assert result.error.temporary


async def test_an_archive_that_may_change_the_transfer_syntax_is_told_of() -> None:
    def fault(request: Request) -> Reply | None:
        return Reply(406) if "transfer-syntax=*" in request.header("accept") else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, end_at(server) as end:
        for _ in range(2):
            assert await opened(end, wanted()) == Opened(BY_UID)
        assert ["transfer syntax" in note for note in end.notes] == [True]


# --- bounded ----------------------------------------------------------------------------------------------------------

MIB = 1 << 20


def large_dicom(number: int, size: int) -> bytes:
    """Build an instance of series 9 with so many bytes in one element."""
    dataset = Dataset()
    dataset.SOPClassUID = RawDataStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = STUDY, uid(1, 9), uid(1, 9, number)
    dataset.EncapsulatedDocument = number.to_bytes(1, "big") * size
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


BIG = [large_dicom(n, MIB) for n in range(1, 121)]


def counted(body: bytes, sent: list[int]) -> Iterator[bytes]:
    for at in range(0, len(body), 65536):
        sent[0] = at
        yield body[at : at + 65536]
    sent[0] = len(body)


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("large", [True, False])
async def test_a_slow_taker_holds_the_network_back(lengths: bool, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:  # then they wait in files
        smaller = partial(holding_sink.HoldingSink, most=4 * MIB, in_memory=MIB // 2)
        monkeypatch.setattr(opening_of, "HoldingSink", smaller)
    made = with_lengths(BIG) if lengths else multipart_related(BIG)
    sent = [0]
    reply = Reply(200, {"Content-Type": made.content_type}, declared_length=len(made.body))

    def answer(_: Request) -> Reply:
        return Reply(200, reply.headers, counted(made.body, sent), declared_length=len(made.body))

    async with FaultyServer(answer) as server, end_at(server) as end:
        opening = end.open(wanted(BIG))
        taken = [await anext(opening)]
        before = -1
        while sent[0] != before:  # until nothing moves any more
            before = sent[0]
            await asyncio.sleep(0.3)
        assert before < 90 * MIB  # of 120: 32 are held, and each connection has buffers of the kernel's
        taken += [one async for one in opening]
        assert {one.label: await content(one) for one in taken} == {uids_of(one).sop_instance_uid: one for one in BIG}


async def test_a_large_instance_passes_while_it_comes_and_a_slow_reader_holds_the_network_back() -> None:
    large = large_dicom(1, 100 * MIB)
    made = with_lengths([large, FILES[0]])
    sent = [0]

    def answer(_: Request) -> Reply:
        headers = {"Content-Type": made.content_type}
        return Reply(200, headers, counted(made.body, sent), declared_length=len(made.body))

    async with FaultyServer(answer) as server, end_at(server) as end:
        opening = end.open(wanted([large, FILES[0]], once=True))
        one = await anext(opening)
        assert isinstance(one, Usable)
        assert one.body.length == len(large)
        pieces = one.body.open()
        got = [await anext(pieces)]
        await asyncio.sleep(0.5)
        assert sent[0] < 60 * MIB
        got += [piece async for piece in pieces]
        assert b"".join(got) == large
        with pytest.raises(LocalFileError, match="only once") as caught:
            await anext(one.body.open())
        assert caught.value.temporary
        assert await content(await anext(opening)) == FILES[0]
        await opening.aclose()


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_passing_instance_that_nobody_reads_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    monkeypatch.setattr(holding_sink, "_UNREAD", 0.2)
    large = [large_dicom(n, 50 * MIB) for n in (1, 2)]
    made = with_lengths([*large, *FILES])
    async with FaultyServer(lambda _: made.reply()) as server, end_at(server) as end:
        async with asyncio.timeout(20):
            kept: list[Identified] = []
            labels: list[str] = []
            async for one in end.open(wanted([*large, *FILES], once=True)):
                labels.append(one.label)
                if is_kept:
                    kept.append(one)
                del one
        assert len(labels) == len(FILES) + 2
        for one in kept[:2]:
            with pytest.raises(LocalFileError):
                await content(one)


async def test_large_instances_of_unknown_length_wait_in_files() -> None:
    large = [large_dicom(n, 12 * MIB) for n in (1, 2, 3, 4)]
    made = multipart_related([*large, *FILES])
    async with FaultyServer(lambda _: made.reply()) as server, end_at(server) as end:
        result = await opened(end, wanted([*large, *FILES], once=True))
    assert result == Opened({uids_of(one).sop_instance_uid: one for one in [*large, *FILES]})


# --- from one to the other --------------------------------------------------------------------------------------------


async def test_a_large_instance_that_breaks_on_its_way_is_never_stored() -> None:
    large = large_dicom(1, 20 * MIB)
    made = with_lengths([FILES[0], large, FILES[1]])
    broken = 0

    def fault(request: Request) -> Reply | None:
        nonlocal broken
        if is_search(request) or broken:
            return None
        broken += 1
        return Reply(200, {"Content-Type": made.content_type}, made.body, cut_after=len(made.body) // 2)

    target = MemoryArchive()
    files = [FILES[0], large, FILES[1]]
    async with (
        FaultyServer(MemoryArchive(files, fault)) as one,
        FaultyServer(target) as other,
        end_at(one) as source,
        end_at(other) as end,
    ):
        result = await stored(end, source.open(wanted(files, once=True)))
        assert set(target.stored.values()) == {FILES[0], FILES[1]}
        of_large = result.outcomes[uid(1, 9, 1)]
        assert not of_large.in_archive
        assert of_large.temporary
        again = await stored(end, source.open(wanted([large], once=True)))
        assert again.outcomes[uid(1, 9, 1)].status is Status.STORED
    assert set(target.stored.values()) == set(files)


async def test_a_target_that_is_out_of_order_shows_by_large_instances_too() -> None:
    large = large_dicom(1, 9 * MIB)
    made = with_lengths([large])
    works = False

    def answer(request: Request) -> Reply:
        return Reply(200, {"Content-Type": "application/dicom+json"}, b"[]") if works else Reply(503)

    async with (
        FaultyServer(lambda _: made.reply()) as one,
        FaultyServer(answer) as other,
        end_at(one) as source,
        end_at(other, max_attempts=2) as end,
    ):
        result = await stored(end, source.open(wanted([large], once=True)))
        assert isinstance(result.error, ServerError)
        assert result.error.temporary
        assert [one.status for one in result.outcomes.values()] == [Status.FAILED]
        works = True  # it refuses what is stored, and can be asked
        result = await stored(end, source.open(wanted([large], once=True)))
        assert result.error is None


async def test_a_source_that_fails_gives_what_came_and_then_its_error() -> None:
    async def failing() -> AsyncIterator[Identified]:
        for file in FILES[:4]:
            yield usable(file)
        raise ConnectionFailed("the source is gone")

    target = MemoryArchive()
    async with FaultyServer(target) as server, end_at(server) as end:
        result = await stored(end, failing())
    assert {one.status for one in result.outcomes.values()} == {Status.STORED}
    assert len(result.outcomes) == len(target.stored) == 4
    assert isinstance(result.error, ConnectionFailed)
    assert "the source is gone" in str(result.error)


async def test_a_target_that_fails_leaves_an_outcome_for_everything_taken() -> None:
    taken = []

    async def sources() -> AsyncIterator[Identified]:
        for file in BIG:
            taken.append(uids_of(file).sop_instance_uid)
            yield usable(file)

    async with FaultyServer(Reply(503)) as server, end_at(server, max_attempts=2, batch_instances=3) as end:
        result = await stored(end, sources())
    assert isinstance(result.error, ServerError)
    assert set(result.outcomes) == set(taken)
    assert len(taken) < len(BIG)
    assert all(one.temporary and not one.in_archive for one in result.outcomes.values())


async def test_what_cannot_be_sent_and_second_copies_have_their_outcomes() -> None:
    async def sources() -> AsyncIterator[Identified]:
        yield usable(FILES[0])
        yield Unusable("cut", Status.UNREADABLE, "cut off", 7)
        yield Usable("again", usable(FILES[0]).header, BytesBody(FILES[0]))

    target = MemoryArchive()
    async with FaultyServer(target) as server, end_at(server) as end:
        result = await stored(end, sources())
    assert result.error is None
    statuses = {label: one.status for label, one in result.outcomes.items()}
    assert statuses == {
        uids_of(FILES[0]).sop_instance_uid: Status.STORED, "cut": Status.UNREADABLE, "again": Status.FAILED,
    }  # fmt: skip
    assert len(target.stored) == 1


# --- side by side -----------------------------------------------------------------------------------------------------


def slowly(archive: Callable[[Request], Reply], most: list[int]) -> Callable[[Request], Any]:
    """Answer after a moment, noting how many requests that are no searches were under way at once."""
    running = 0

    async def answer(request: Request) -> Reply:
        nonlocal running
        if is_search(request):
            return archive(request)
        running += 1
        most[0] = max(most[0], running)
        await asyncio.sleep(0.02)
        running -= 1
        return archive(request)

    return answer


async def test_stores_side_by_side_share_one_limit() -> None:
    target, most = MemoryArchive(), [0]
    async with (
        FaultyServer(slowly(target, most)) as server,
        end_at(server, parallel_stores=4, batch_instances=1) as end,
    ):
        parts = [BIG[at::6] for at in range(6)]
        results = await asyncio.gather(*(stored(end, given(part)) for part in parts))
    assert sum(len(one.outcomes) for one in results) == len(BIG) == len(target.stored)
    assert 3 <= most[0] <= 4


async def test_retrieves_side_by_side_share_one_limit() -> None:
    most = [0]
    async with (
        FaultyServer(slowly(MemoryArchive(BIG), most)) as server,
        end_at(server, parallel_retrieves=4) as end,
    ):
        results = await asyncio.gather(*(opened(end, wanted(BIG[at::20], whole=False)) for at in range(20)))
    assert sum(len(one.found) for one in results) == len(BIG)
    assert 2 <= most[0] <= 4


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.02, 0.05, 0.1, 0.2])
async def test_cancelled_in_the_middle_nothing_is_left_and_the_end_goes_on(moment: float) -> None:
    before = asyncio.all_tasks()
    target = MemoryArchive()
    async with (
        FaultyServer(slowly(MemoryArchive(BIG), [0])) as one,
        FaultyServer(slowly(target, [0])) as other,
        end_at(one, parallel_retrieves=2) as source,
        end_at(other, parallel_stores=2) as end,
    ):
        part = BIG[:40]
        moving = [
            asyncio.ensure_future(stored(end, source.open(wanted(part[at::4], whole=False, once=True))))
            for at in range(4)
        ]
        await asyncio.sleep(moment)
        for task in moving:
            task.cancel()
        await asyncio.wait(moving)
        assert all(task.cancelled() or not task.exception() for task in moving)
        async with asyncio.timeout(20):  # every turn at the gates was given back
            results = await asyncio.gather(
                *(stored(end, source.open(wanted(part[at::4], whole=False))) for at in range(4))
            )
        assert sum(len(one.outcomes) for one in results) == len(part)
        assert set(target.stored.values()) == set(part)
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)


async def test_bytes_in_a_store_request_are_those_that_were_opened() -> None:
    async with FaultyServer(MemoryArchive(FILES)) as one, FaultyServer(MemoryArchive()) as other:
        async with end_at(one) as source, end_at(other) as end:
            await stored(end, source.open(wanted()))
        sent = [file for request in other.requests for file in parts_sent(request)]
    assert sorted(sent) == sorted(FILES)


async def test_of_a_study_that_is_gone_not_every_instance_is_asked_for() -> None:
    async with FaultyServer(MemoryArchive()) as server, end_at(server) as end:
        assert await opened(end, wanted(BIG)) == Opened({})
        assert len(server.requests) < 20


async def test_many_answers_at_once_with_large_instances_never_wait_for_each_other() -> None:
    every = [large_dicom(n, 7 * MIB) for n in range(1, 25)]
    made = {uids_of(one).sop_instance_uid: one for one in every}

    def answer(request: Request) -> Reply:
        one = made.get(request.path.rpartition("/")[2])
        return Reply(404) if one is None else multipart_related([one]).reply()

    async with FaultyServer(answer) as server, end_at(server, parallel_retrieves=16, connections=16) as end:
        end._retrieves.policy._now = 16
        async with asyncio.timeout(60):
            assert await opened(end, wanted(every, whole=False)) == Opened(made)


async def test_no_room_for_a_large_instance_is_told_as_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    large = large_dicom(1, 12 * MIB)
    made = multipart_related([FILES[0], large])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool.PrivateFile, "append", full)
    async with FaultyServer(lambda _: made.reply()) as server, end_at(server) as end:
        result = await opened(end, wanted([FILES[0], large]))
    assert result.found == {uids_of(FILES[0]).sop_instance_uid: FILES[0]}
    assert isinstance(result.error, LocalFileError)
    assert result.error.disk_full
    assert "temporary files: the disk is full" in str(result.error)


async def test_a_study_that_was_not_listed_is_given_as_it_comes_and_one_that_breaks_is_an_error() -> None:
    unlisted = Selection(STUDY, None, (), whole=True)
    foreign = small_dicom(uid(7), uid(7, 1), uid(7, 1, 1))
    odd = multipart_related([foreign, *FILES, FILES[0]])
    async with FaultyServer(lambda _: odd.reply()) as server, end_at(server) as end:
        assert await opened(end, unlisted) == Opened(BY_UID)
        assert len(server.requests) == 1
    async with FaultyServer(lambda _: WHOLE.reply(cut_after=len(WHOLE.body) // 2)) as server, end_at(server) as end:
        result = await opened(end, unlisted)
        assert 0 < len(result.found) < len(FILES)
        assert result.error is not None
        assert result.error.temporary
    async with FaultyServer(MemoryArchive()) as server, end_at(server) as end:
        assert isinstance((await opened(end, unlisted)).error, NotFound)
