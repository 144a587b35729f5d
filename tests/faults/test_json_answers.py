"""JSON answers as they arrive: what is no data set is no result, a cut is mended, and no answer swells or stalls."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import pytest

from postdicom_async import PostDicom, PostdicomError, ProtocolError, Status, paging
from postdicom_async.dicomweb import json_answer
from postdicom_async.doctor.diagnosis import diagnose
from tests.faults.archive import MemoryArchive
from tests.faults.clients import FAST, settings, transport_of
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.support.large import large
from tests.support.stalls import StallWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postdicom_async import DicomWeb, Results
    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

STUDY = uid(1)
STUDIES = [dicom_json(StudyInstanceUID=uid(n), StudyDescription="x" * 50) for n in range(1, 31)]
TEXT = json.dumps(STUDIES).encode()
JSON = {"Content-Type": "application/dicom+json"}
MIB = 1 << 20
STALL = 0.25  # of the processor's time; what is wanted is a fifth of it

READS: dict[str, Callable[[DicomWeb], Results[Any]]] = {
    "studies": lambda archive: archive.search_for_studies(limit=30),
    "series": lambda archive: archive.search_for_series(limit=30),
    "instances": lambda archive: archive.search_for_instances(study_instance_uid=STUDY, limit=30),
    "metadata": lambda archive: archive.retrieve_study_metadata(STUDY),
    "metadata of an instance": lambda archive: archive.retrieve_instance_metadata(STUDY, uid(1, 1), uid(1, 1, 1)),
}


@pytest.fixture(params=READS)
def read(request: pytest.FixtureRequest) -> Callable[[DicomWeb], Results[Any]]:
    return READS[request.param]


# --- what is no data set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "no index"},
        [{"error": "no index"}],
        [*STUDIES[:5], {"error": "no index"}],
        [{"error": "no index"}, *STUDIES[:5]],
        {**STUDIES[0], "error": "no index"},
        [{"Message": "no index", "Status": 500}],
    ],
    ids=["alone", "in a list", "last in a list", "first in a list", "in a data set", "with a status"],
)
async def test_an_error_with_status_200_is_no_result(
    answer: Any, read: Callable[[DicomWeb], Results[Any]], connect: Connect
) -> None:
    async with FaultyServer(json_reply(answer)) as server, connect(server.url) as archive:
        for results in (read(archive), read(archive).raw):
            with pytest.raises(ProtocolError, match="not DICOM JSON") as caught:
                await results.all()
            assert (caught.value.status, caught.value.attempts) == (200, 1)
            assert caught.value.reason == "no index"


@pytest.mark.parametrize("answer", [["8f1c", "77aa"], Reply(200, {}, b"<html>")], ids=["other JSON", "a page"])
async def test_another_address_of_the_archive_is_told(answer: Any, connect: Connect) -> None:
    reply = answer if isinstance(answer, Reply) else json_reply(answer)
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        with pytest.raises(ProtocolError, match=r"not DICOM JSON.*, or the address is not .* ends in /dicom-web\)"):
            await archive.search_for_studies().all()


async def test_the_words_of_an_error_show_nothing_that_was_sent(connect: Connect) -> None:
    answer = {"error": "no patient QUILLFEATHER^JANE, 12345678"}
    async with FaultyServer(json_reply(answer)) as server, connect(server.url) as archive:
        with pytest.raises(ProtocolError) as caught:
            await archive.search_for_studies({"PatientName": "QUILLFEATHER^JANE"}).all()
    assert "QUILL" not in str(caught.value)
    assert "12345678" not in str(caught.value)


async def test_attributes_under_their_names_are_said_to_be_that(connect: Connect) -> None:
    answer = [{"StudyInstanceUID": STUDY, "PatientName": "QUILLFEATHER^JANE"}]
    async with FaultyServer(json_reply(answer)) as server, connect(server.url) as archive:
        with pytest.raises(ProtocolError, match="names instead of their tags") as caught:
            await archive.search_for_studies().all()
    assert "QUILL" not in str(caught.value)


async def test_tags_in_lower_case_are_read(connect: Connect) -> None:
    answer = [{"0020000d": {"vr": "UI", "Value": [STUDY]}}]
    async with FaultyServer(json_reply(answer)) as server, connect(server.url) as archive:
        (study,) = await archive.search_for_studies(limit=1).all()
    assert study.StudyInstanceUID == STUDY


async def test_a_list_that_holds_an_error_compares_with_nothing(connect: Connect, tmp_path: Path) -> None:
    files = list(study_files(3).values())

    def fault(request: Request) -> Reply | None:
        return json_reply([{"error": "no index"}]) if request.path.endswith("/instances") else None

    async with FaultyServer(MemoryArchive(files, fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert report.listing == "unavailable"


# --- what ends early --------------------------------------------------------------------------------------------------

CUTS = [1, 2, 40, len(TEXT) // 2, len(TEXT) - 20, len(TEXT) - 2]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
async def test_a_cut_that_nothing_marks_is_mended(
    cut: int, framing: Any, read: Callable[[DicomWeb], Results[Any]], connect: Connect
) -> None:
    """As by a proxy that cuts and counts, or an archive that ends an answer by closing."""
    half, whole = (Reply(200, JSON, text, framing=framing) for text in (TEXT[:cut], TEXT))
    async with FaultyServer([half, half, whole]) as server, connect(server.url) as archive:
        assert await read(archive).raw.all() == STUDIES
    assert len(server.requests) == 3


@pytest.mark.parametrize("packed", [True, False])
async def test_a_cut_that_stays_is_said_to_be_one(
    packed: bool, read: Callable[[DicomWeb], Results[Any]], connect: Connect
) -> None:
    text, headers = TEXT[:-30], dict(JSON)
    if packed:
        text, headers = gzip.compress(text), {**JSON, "Content-Encoding": "gzip"}
    async with FaultyServer(Reply(200, headers, text)) as server, connect(server.url) as archive:
        with pytest.raises(ProtocolError, match="answer ends early") as caught:
            await read(archive).all()
    assert caught.value.temporary
    assert "address" not in str(caught.value)
    assert len(server.requests) == caught.value.attempts == FAST.retry.max_attempts


async def test_a_cut_answer_spends_of_the_budget(connect: Connect) -> None:
    reply, using = Reply(200, JSON, TEXT[:-1]), settings(budget=1)
    async with FaultyServer(reply) as server, connect(server.url, using) as archive:
        for _ in range(3):
            with pytest.raises(ProtocolError):
                await archive.search_for_studies().all()
    assert len(server.requests) == 4


async def test_the_doctor_asks_again_for_a_cut_answer(transport_name: str) -> None:
    answers = iter([Reply(200, JSON, TEXT[:-5])])

    def answer(_request: Request) -> Reply:
        return next(answers, json_reply([]))

    async with (
        FaultyServer(answer) as server,
        PostDicom(server.url, "u", "p", settings=FAST, transport=transport_of(transport_name, FAST)) as archive,
    ):
        report = await diagnose(archive)
    first, second, *_ = server.requests
    assert first.target == second.target
    assert "ends early" not in str(report)


@pytest.mark.parametrize("changes", [True, False])
async def test_an_operation_is_repeated_only_when_it_reads(changes: bool, transport_name: str) -> None:
    whole = b'[{"FolderUuid": "00000000-0000-0000-0000-000000000001", "FolderName": "x"}]'
    async with (
        FaultyServer([Reply(200, {}, whole[:-9]), Reply(200, {}, whole)]) as server,
        PostDicom(server.url, "u", "p", settings=FAST, transport=transport_of(transport_name, FAST)) as archive,
    ):
        if changes:
            with pytest.raises(PostdicomError, match="ends early"):
                await archive.folders.create("x")
        else:
            assert len(await archive.folders.search().all()) == 1
    assert len(server.requests) == (1 if changes else 2)


# --- what is large ----------------------------------------------------------------------------------------------------


SMALL = {f"0018{n:04X}": {"vr": "LO", "Value": [f"value {n} of some length"]} for n in range(8)}
LARGE = {f"0018{n:04X}": {"vr": "LO", "Value": [f"value {n} of some length"]} for n in range(60)}


def instance(number: int, elements: dict[str, Any] = LARGE) -> bytes:
    found = dicom_json(StudyInstanceUID=STUDY, SeriesInstanceUID=uid(1, 1), SOPInstanceUID="9.9.9")
    text = json.dumps({**found, **elements}, separators=(",", ":"))
    return text.replace("9.9.9", uid(1, 1, number)).encode()


def listed(count: int, elements: dict[str, Any] = LARGE) -> Iterator[bytes]:
    before, after = instance(0, elements).split(uid(1, 1, 0).encode())
    for number in range(count):
        yield (b"," if number else b"[") + before + uid(1, 1, number).encode() + after
    yield b"]"


def pieces(text: bytes) -> Iterator[bytes]:
    return (text[start : start + 65536] for start in range(0, len(text), 65536))


class Measured:
    """What reading took: the longest stall, or the most that Python held; watching the one would disturb the other."""

    def __init__(self, *, memory: bool) -> None:
        self.watch = StallWatch()
        self.memory = memory
        self.peak = 0

    async def __aenter__(self) -> Self:
        if self.memory:
            tracemalloc.start()
        else:
            await self.watch.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.memory:
            self.peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        else:
            await self.watch.__aexit__()


HOSTILE = {
    "empty objects": b"{},",
    "small data sets": b'{"00080005":{}},',
    "values without a UID": b'{"00080005":{"vr":"CS","Value":[' + b"1," * 40 + b"1]}},",
    "the same UID again": json.dumps(STUDIES[0]).encode() + b",",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(("limit", "memory"), [(10, True), (None, False), large(None, True), large(10, False)])
async def test_many_small_results_neither_swell_nor_stall(
    kind: str, limit: int | None, memory: bool, connect: Connect
) -> None:
    """24 MB of them; with a limit no more is read than that takes, and what repeats itself is left."""
    count = 0
    piece = HOSTILE[kind] * (MIB // len(HOSTILE[kind]))
    sent = []

    def body() -> Iterator[bytes]:
        yield b"["
        for number in range(24):
            sent.append(number)
            yield piece
        yield STUDIES_END

    def answer(_request: Request) -> Reply:
        return Reply(200, JSON, body(), framing="chunked")

    async with FaultyServer(answer) as server, connect(server.url) as archive, Measured(memory=memory) as measured:
        with suppress(ProtocolError):
            async for _ in archive.search_for_studies(limit=limit).raw:
                count += 1
    assert measured.watch.longest < STALL
    assert measured.peak < 24 * MIB
    assert count <= (limit or 2)
    assert len(sent) < 24


STUDIES_END = json.dumps(STUDIES[1]).encode() + b"]"


async def test_what_follows_the_results_wanted_is_not_read(connect: Connect) -> None:
    """An archive that ignores the limit; the connection that is left in the middle is not used again."""
    reply = Reply(200, JSON, list(pieces(b"".join(listed(20_000)))), framing="chunked")
    async with FaultyServer(lambda _: reply) as server, connect(server.url) as archive:
        for _ in range(3):
            assert len(await archive.search_for_instances(limit=10).raw.all()) == 10
            assert await archive.search_for_instances().raw.first() == json.loads(instance(0))
            assert await archive.retrieve_study_metadata(STUDY).raw.first() == json.loads(instance(0))
    assert len(server.requests) == 9


async def test_an_answer_that_ends_where_it_should_leaves_the_connection_usable(connect: Connect) -> None:
    async with FaultyServer(json_reply(STUDIES[:10])) as server, connect(server.url) as archive:
        for _ in range(3):
            assert len(await archive.search_for_studies(limit=10).raw.all()) == 10
    assert server.connections == 1


async def test_honest_metadata_is_read_in_flat_memory(connect: Connect) -> None:
    """20,000 instances, far more than is held; the more there are, the longer it takes and that is all."""
    count, sizes = 20_000, []
    body = list(pieces(b"".join(listed(count, SMALL))))
    reply = Reply(200, JSON, body, framing="chunked")
    seen = set()
    async with (
        FaultyServer(lambda _: reply) as server,
        connect(server.url) as archive,
        Measured(memory=True) as measured,
    ):
        async for one in archive.retrieve_study_metadata(STUDY).raw:
            seen.add(one["00080018"]["Value"][0])
            if len(seen) % 5000 == 0:
                sizes.append(tracemalloc.get_traced_memory()[0])
    assert len(seen) == count
    assert measured.peak < 40 * MIB  # 16 MB of text, 100 MB as objects
    assert max(sizes) - sizes[0] < 20 * MIB


async def test_the_event_loop_goes_on_while_metadata_is_read(connect: Connect) -> None:
    reply = Reply(200, JSON, b"".join(listed(1000)))
    async with FaultyServer(reply) as server, connect(server.url) as archive, StallWatch() as watch:
        for results in (archive.retrieve_study_metadata(STUDY).raw, archive.retrieve_study_metadata(STUDY)):
            assert len([1 async for _ in results]) == 1000
    assert watch.longest < STALL


async def test_one_large_instance_neither_swells_nor_stalls(connect: Connect) -> None:
    """A multi-frame image of half a MB of metadata, far more than is read at once."""
    position = {"00209113": {"vr": "SQ", "Value": [{"00200032": {"vr": "DS", "Value": [1.5, -2.25, 100]}}]}}
    whole = {**json.loads(instance(1)), "52009230": {"vr": "SQ", "Value": [position] * 5000}}
    text = json.dumps([whole]).encode()
    reply = Reply(200, JSON, text)
    async with FaultyServer(reply) as server, connect(server.url) as archive, StallWatch() as watch:
        results = archive.retrieve_instance_metadata(STUDY, uid(1, 1), uid(1, 1, 1))
        (found,) = await results.raw.all()
        assert found == whole
        dataset = await results.first()
    assert dataset is not None
    assert len(dataset.PerFrameFunctionalGroupsSequence) == 5000
    assert watch.longest < STALL


async def test_a_large_answer_that_breaks_goes_on_where_it_was(connect: Connect) -> None:
    """Each instance once, whether the cut is marked or not, and also when the archive then sends another order."""
    texts = [text.strip(b"[,]") for text in listed(1500)][:-1]
    whole, turned = (b"[" + b",".join(order) + b"]" for order in (texts, texts[::-1]))
    for first, second in ((whole, whole), (whole, turned)):
        replies = [
            Reply(200, JSON, first, cut_after=len(first) // 2),
            Reply(200, JSON, first[: len(first) * 3 // 4]),
            Reply(200, JSON, second),
        ]
        async with FaultyServer(replies) as server, connect(server.url) as archive:
            found = [one["00080018"]["Value"][0] async for one in archive.retrieve_study_metadata(STUDY).raw]
        assert sorted(found) == sorted(uid(1, 1, number) for number in range(1500))
        assert len(server.requests) == 3


async def test_a_large_page_that_breaks_goes_on_where_it_was(connect: Connect) -> None:
    whole = b"".join(listed(3000))
    replies = [Reply(200, JSON, whole[:-2000]), Reply(200, JSON, whole), json_reply([])]
    async with FaultyServer(replies) as server, connect(server.url) as archive:
        found = [one["00080018"]["Value"][0] async for one in archive.search_for_instances().raw]
    assert found == [uid(1, 1, number) for number in range(3000)]


async def test_requests_amid_a_large_answer_do_not_wait_for_it(connect: Connect) -> None:
    """Each reader holds the only connection while it makes another request: one gives way, nobody waits for ever."""
    text = b"".join(listed(1500))

    def answer(request: Request) -> Reply:
        return Reply(200, JSON, text) if request.path.endswith("/metadata") else json_reply(STUDIES[:1])

    async def reader(archive: DicomWeb) -> int:
        count = 0
        async for _ in archive.retrieve_study_metadata(STUDY).raw:
            if count % 500 == 0:
                assert len(await archive.search_for_studies(limit=1).raw.all()) == 1
            count += 1
        return count

    using = settings(connections=1)
    async with FaultyServer(answer) as server, connect(server.url, using) as archive:
        async with asyncio.timeout(60):
            assert await asyncio.gather(*(reader(archive) for _ in range(3))) == [1500] * 3


async def test_a_request_that_waited_before_is_not_waited_for_in_vain(connect: Connect) -> None:
    """It was begun, in a task, while the answer was being read; now who reads that waits for the task."""

    def answer(request: Request) -> Reply:
        return Reply(200, JSON, text) if request.path.endswith("/metadata") else json_reply(STUDIES[:1])

    text = b"".join(listed(3000))
    using = settings(connections=1)
    async with FaultyServer(answer) as server, connect(server.url, using) as archive, asyncio.timeout(60):
        count, waiting = 0, asyncio.create_task(begin_a_little_later(archive))
        async for _ in archive.retrieve_study_metadata(STUDY).raw:
            if not count:
                assert len(await waiting) == 1
            count += 1
    assert count == 3000


async def begin_a_little_later(archive: DicomWeb) -> list[Any]:
    while not archive._session._open_link().slots.borrowed_tokens:
        await asyncio.sleep(0)
    return await archive.search_for_studies(limit=1).raw.all()


async def test_a_loop_that_is_left_early_gives_the_connection_back(connect: Connect) -> None:
    using = settings(connections=1)
    reply = Reply(200, JSON, b"".join(listed(3000)))
    async with FaultyServer(reply) as server, connect(server.url, using) as archive, asyncio.timeout(60):
        for _ in range(4):
            async for one in archive.retrieve_study_metadata(STUDY).raw:
                assert one
                break


@pytest.mark.parametrize("read_all", [True, False])
async def test_an_answer_that_repeats_itself_for_ever_is_left(
    read_all: bool, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_answer, "_BATCH_BYTES", 64 << 10)
    piece = b"".join(listed(20))[1:-1] + b","
    endless = Reply(200, JSON, (piece if sent else b"[" for sent in range(100_000)), framing="chunked")
    async with FaultyServer(lambda _: endless) as server, connect(server.url) as archive:
        with pytest.raises(ProtocolError, match="repeats itself"):
            await (archive.retrieve_study_metadata(STUDY) if read_all else archive.search_for_instances()).raw.all()


async def test_results_that_came_before_are_told_by_little(connect: Connect) -> None:
    """What is kept of each result, to find one that comes again."""
    turns = paging.Turns()
    marks: set[bytes] = set()
    tracemalloc.start()
    try:
        for number in range(100_000):
            marks.add(await json_answer.mark_of({"00080018": {"vr": "UI", "Value": [str(number)]}}, "00080018", turns))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(marks) == 100_000
    assert held / len(marks) < 110


@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize("piece", [b"{},", b'{"00080005":{"vr":"CS","Value":[1,2,3,4]}},', b"[[[]]],"], ids=repr)
async def test_a_large_store_answer_confirms_nothing_and_stalls_nothing(
    status: int, piece: bytes, connect: Connect
) -> None:
    text = b"[" + piece * (2 * MIB // len(piece)) + b'{"error": "index is read-only"}]'

    def answer(request: Request) -> Reply:
        return Reply(status, JSON, text) if request.method == "POST" else Reply(404)

    files = list(study_files(1).values())
    async with FaultyServer(answer) as server, connect(server.url) as archive, StallWatch() as watch:
        (outcome,) = await archive.store_instances(files)
    assert outcome.status is (Status.UNCONFIRMED if status == 200 else Status.FAILED)
    assert watch.longest < STALL
