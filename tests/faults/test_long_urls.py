"""Lists of UIDs and of frames that are too long for one URL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import DICOMWEB, ProtocolError, ServerError
from tests.faults.clients import settings
from tests.faults.odd_archives import make_odd
from tests.support.bodies import dicom_json, json_reply, multipart_related
from tests.support.dicom_files import uid
from tests.support.exchange import Reply, Request
from tests.support.faulty_server import FaultyServer

if TYPE_CHECKING:
    from postdicom_async import DicomWeb
    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

INSTANCE = (uid(1), uid(1, 1), uid(1, 1, 1))
STUDIES = [uid(n) for n in range(100, 400)]
SHORT = replace(DICOMWEB, url_bytes=600)


def archive_of(uids: list[str], *, longest: int = 2048, heeds: bool = True) -> Any:
    """Answer searches for studies by UID, paged; a longer target is refused."""

    def answer(request: Request) -> Reply:
        if len(request.target) > longest:
            return Reply(414)
        query = dict(request.query)
        wanted = query["StudyInstanceUID"].split(",") if heeds else uids
        items = [dicom_json(StudyInstanceUID=one) for one in uids if one in wanted]
        first, size = int(query["offset"]), int(query["limit"])
        return json_reply(items[first : first + size])

    return answer


async def search(
    connect: Connect, archive: Any, uids: Any, using: Any = None, **arguments: Any
) -> tuple[list[str], FaultyServer, Any]:
    async with FaultyServer(archive) as server, connect(server.url, using or settings()) as client:
        results = client.search_for_studies({"StudyInstanceUID": uids}, **arguments)
        found = [str(study.StudyInstanceUID) for study in await results.all()]
    return found, server, results


@pytest.mark.parametrize("page_size", [1000, 7])
async def test_a_long_list_of_uids_makes_several_searches(page_size: int, connect: Connect) -> None:
    found, server, results = await search(connect, archive_of(STUDIES), STUDIES, settings(page_size=page_size))
    assert found == STUDIES
    assert results.warnings == []
    assert max(len(request.target) for request in server.requests) <= 2000


async def test_a_list_as_text_is_one_too(connect: Connect) -> None:
    found, _, _ = await search(connect, archive_of(STUDIES), ",".join(STUDIES))
    assert found == STUDIES


async def test_a_uid_that_is_listed_twice_is_found_once(connect: Connect) -> None:
    found, _, _ = await search(connect, archive_of(STUDIES), STUDIES + STUDIES[:50])
    assert found == STUDIES


@pytest.mark.parametrize(
    ("limit", "offset"),
    [(1, 0), (40, 0), (100, 0), (299, 0), (300, 0), (500, 0), (None, 120), (40, 120), (10, 295), (1, 300)],
)
@pytest.mark.parametrize("page_size", [1000, 16])
async def test_limit_and_offset_are_those_of_the_whole(
    limit: int | None, offset: int, page_size: int, connect: Connect
) -> None:
    found, _, _ = await search(
        connect, archive_of(STUDIES), STUDIES, settings(page_size=page_size), limit=limit, offset=offset
    )
    assert found == STUDIES[offset:][:limit]


async def test_the_first_of_many_takes_one_request(connect: Connect) -> None:
    async with FaultyServer(archive_of(STUDIES)) as server, connect(server.url) as client:
        first = await client.search_for_studies({"StudyInstanceUID": STUDIES}).first()
    assert first is not None
    assert first.StudyInstanceUID == STUDIES[0]
    assert len(server.requests) == 1


@pytest.mark.parametrize("limit", [None, 3, 320])
async def test_an_archive_that_ignores_the_list_gives_each_once(limit: int | None, connect: Connect) -> None:
    held = [*STUDIES[:5], *(uid(n) for n in range(1, 6))]
    found, _, results = await search(connect, archive_of(held, heeds=False), STUDIES, limit=limit)
    assert found == held[:limit]
    assert len(results.warnings) == (limit != 3)
    assert all(
        one.startswith("5 of 10 results are not what was asked for by StudyInstanceUID") for one in results.warnings
    )


async def test_two_long_lists(connect: Connect) -> None:
    """All of one list with all of the other, however they are cut."""
    held = [(study, series) for study in STUDIES[:60] for series in (f"{study}.1", f"{study}.2")]

    def answer(request: Request) -> Reply:
        query = dict(request.query)
        studies, series = query["StudyInstanceUID"].split(","), query["SeriesInstanceUID"].split(",")
        items = [dicom_json(StudyInstanceUID=a, SeriesInstanceUID=b) for a, b in held if a in studies and b in series]
        return json_reply(items if query["offset"] == "0" else [])

    wanted = [series for _, series in held[::3]]
    filters = {"StudyInstanceUID": STUDIES[:50], "SeriesInstanceUID": wanted}
    async with FaultyServer(answer) as server, connect(server.url) as client:
        found = [str(one.SeriesInstanceUID) for one in await client.search_for_series(filters).all()]
    assert sorted(found) == sorted(series for study, series in held if study in STUDIES[:50] and series in wanted)
    assert len(found) == len(set(found))
    assert max(len(request.target) for request in server.requests) <= 2000


async def test_what_cannot_be_cut_is_sent_as_it_is(connect: Connect) -> None:
    async with FaultyServer(Reply(414)) as server, connect(server.url) as client:
        with pytest.raises(ServerError):
            await client.search_for_studies({"PatientName": "X" * 4000}).all()
    assert len(server.requests) == 1


async def test_the_bound_is_a_field_of_the_dialect(connect: Connect) -> None:
    for dialect in (SHORT, replace(DICOMWEB, url_bytes=4000)):
        async with (
            FaultyServer(archive_of(STUDIES, longest=9000)) as server,
            connect(server.url, dialect=dialect) as one,
        ):
            assert len(await one.search_for_studies({"StudyInstanceUID": STUDIES}).all()) == 300
        longest = max(len(server.url) + len(request.target) for request in server.requests)
        assert dialect.url_bytes // 2 < longest <= dialect.url_bytes


# --- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["dicomweb", "postdicom"])
async def test_many_frames_come_in_the_order_asked_for(dialect: str, connect: Connect) -> None:
    numbers = [*range(3000, 0, -1), 7, 5]
    async with FaultyServer(make_odd(frames=3000, longest=2048)) as server, connect(server.url, dialect=dialect) as one:
        frames = await one.retrieve_instance_frames(*INSTANCE, numbers)
        streamed = [await part.read() async for part in one.iter_instance_frames(*INSTANCE, range(1, 3001))]
    assert frames == [b"frame %d" % number for number in numbers]
    assert streamed == [b"frame %d" % number for number in range(1, 3001)]
    assert max(len(request.target) for request in server.requests) <= 2000


async def test_few_frames_take_one_request(connect: Connect) -> None:
    async with FaultyServer(make_odd(frames=300)) as server, connect(server.url) as archive:
        await archive.retrieve_instance_frames(*INSTANCE, range(1, 301))
        await archive.retrieve_instance_frames_rendered(*INSTANCE, range(1, 301))
    assert len(server.requests) == 2


async def test_left_early_no_more_is_asked_for(connect: Connect) -> None:
    async with FaultyServer(make_odd(frames=3000)) as server, connect(server.url) as archive:
        async with archive.iter_instance_frames(*INSTANCE, range(1, 3001)) as parts:
            async for part in parts:
                if await part.read() == b"frame 2":
                    break
        assert len(server.requests) == 1


def streamed(archive: DicomWeb) -> Any:
    """Return a function that reads a stream of frames to its end."""

    async def read(*arguments: Any) -> list[bytes]:
        return [await part.read() async for part in archive.iter_instance_frames(*arguments)]

    return read


@pytest.mark.parametrize("difference", [-1, 1])
async def test_an_answer_with_another_number_of_frames_is_an_error(difference: int, connect: Connect) -> None:
    """The frames go by their order: one that lacks would put every later one in the wrong place."""
    asked = []

    def answer(request: Request) -> Reply:
        numbers = request.path.rpartition("/")[2].split(",")
        asked.append(len(numbers))
        wrong = difference if len(asked) == 2 else 0
        return multipart_related([b"frame"] * (len(numbers) + wrong), part_type="application/octet-stream").reply()

    for start in ("retrieve", "iter"):
        asked.clear()
        async with FaultyServer(answer) as server, connect(server.url) as archive:
            with pytest.raises(ProtocolError, match="parts"):
                await (archive.retrieve_instance_frames if start == "retrieve" else streamed(archive))(
                    *INSTANCE, range(1, 3001)
                )
        assert len(server.requests) == 2


async def test_many_rendered_frames_come_as_one_answer(connect: Connect) -> None:
    from postdicom_async.dicomweb.multipart import PartEvents, PartStart, reader_for

    numbers = [*range(1000, 0, -1), 5]
    async with FaultyServer(make_odd(frames=1000, longest=2048)) as server, connect(server.url) as archive:
        rendered = await archive.retrieve_instance_frames_rendered(
            *INSTANCE, numbers, parameters={"viewport": "64,64", "quality": "90"}
        )
    events = PartEvents()
    reader = reader_for(rendered.media_type, events, end_is_marked=True, max_parts=2000)
    reader.feed(rendered.content)
    reader.close()
    kinds = {event.media_type.essence for event in events if isinstance(event, PartStart)}
    assert kinds == {"image/jpeg"}
    assert [event for event in events if isinstance(event, bytes) and event] == [b"frame %d" % one for one in numbers]
    assert len(server.requests) > 1
    for request in server.requests:
        assert len(request.target) <= 2000
        assert dict(request.query) == {"viewport": "64,64", "quality": "90"}


async def test_pictures_of_several_frames_cannot_be_put_together(connect: Connect) -> None:
    archive = make_odd(frames=1000, one_picture=True)
    async with FaultyServer(archive) as server, connect(server.url) as client:
        few = await client.retrieve_instance_frames_rendered(*INSTANCE, [3, 4])
        assert (few.media_type, few.content) == ("image/gif", b"3,4")
        with pytest.raises(ProtocolError, match=r"1 picture for .* frames; ask for fewer frames at a time"):
            await client.retrieve_instance_frames_rendered(*INSTANCE, range(1, 1001))
    assert len(server.requests) < 10


async def test_rendered_frames_are_bounded_as_a_whole(connect: Connect) -> None:
    async with (
        FaultyServer(make_odd(frames=1000)) as server,
        connect(server.url, settings(in_memory_bytes=40_000)) as one,
    ):
        with pytest.raises(ProtocolError):
            await one.retrieve_instance_frames_rendered(*INSTANCE, range(1, 1001))
    assert len(server.requests) > 1
