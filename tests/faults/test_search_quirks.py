"""Searches against what servers do about paging, emptiness and warnings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import DICOMWEB, IncompleteDownload, UsageError
from tests.faults.archive import MemoryArchive, is_search, related, uids_of
from tests.faults.clients import FAST, settings
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

STUDIES = [dicom_json(StudyInstanceUID=uid(n)) for n in range(1, 26)]
TAGS = ("0020000D", "0020000E", "00080018")
UIDS = [uid(n) for n in range(1, 26)]


def page_of(request: Request, *, at_most: int = 1000) -> list[dict[str, Any]]:
    query = dict(request.query)
    first = int(query.get("offset", 0))
    return STUDIES[first : first + min(at_most, int(query.get("limit", at_most)))]


async def found(connect: Connect, script: Any, using: Any = FAST, **arguments: Any) -> tuple[list[str], FaultyServer]:
    async with FaultyServer(script) as server, connect(server.url, using) as archive:
        studies = await archive.search_for_studies(**arguments).all()
    return [str(study.StudyInstanceUID) for study in studies], server


EMPTY = {
    "204": Reply(204),
    "200 and nothing": Reply(200),
    "200 and white space": Reply(200, {"Content-Type": "application/dicom+json"}, b" \r\n "),
    "200 []": json_reply([]),
    "204 with a type": Reply(204, {"Content-Type": "application/dicom+json"}),
    "a byte order mark": Reply(200, {}, b"\xef\xbb\xbf"),
}


@pytest.mark.parametrize("empty", EMPTY)
async def test_nothing_found(empty: str, connect: Connect) -> None:
    async with FaultyServer(EMPTY[empty]) as server, connect(server.url) as archive:
        assert await archive.search_for_studies().all() == []
        assert await archive.search_for_series(study_instance_uid=uid(1)).first() is None
        assert [one async for one in archive.search_for_instances().raw] == []
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "content_type",
    [
        "application/dicom+json",
        "application/json",
        "application/json; charset=utf-8",
        'Application/DICOM+JSON;charset="UTF-8"; transfer-syntax=*',
        "text/plain",
        "",
    ],
)
async def test_content_types(content_type: str, connect: Connect) -> None:
    body = json.dumps([dicom_json(StudyInstanceUID=uid(1), PatientName="Müller^Jürgen")]).encode()
    reply = Reply(200, {"Content-Type": content_type} if content_type else {}, body)
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        (study,) = await archive.search_for_studies(limit=1).all()
    assert study.PatientName == "Müller^Jürgen"


async def test_one_object_instead_of_a_list(connect: Connect) -> None:
    uids, _ = await found(connect, json_reply(STUDIES[0]), limit=5)
    assert uids == UIDS[:1]


async def test_an_ignored_offset_ends(connect: Connect) -> None:
    """The server gives the same page for ever."""
    uids, server = await found(connect, json_reply(STUDIES[:10]))
    assert uids == UIDS[:10]
    assert len(server.requests) == 2


async def test_everything_ignored(connect: Connect) -> None:
    """The server knows neither limit nor offset."""
    uids, server = await found(connect, json_reply(STUDIES), limit=7)
    assert uids == UIDS[:7]
    assert len(server.requests) == 1


@pytest.mark.parametrize("hidden", [1, 3, 10])
async def test_a_hidden_page_limit(hidden: int, connect: Connect) -> None:
    def answer(request: Request) -> Reply:
        return json_reply(page_of(request, at_most=hidden))

    uids, server = await found(connect, answer)
    assert uids == UIDS
    offsets = [int(dict(request.query)["offset"]) for request in server.requests]
    assert offsets == [*range(0, 25, hidden), 25]


async def test_an_offset_past_the_end_is_204(connect: Connect) -> None:
    def answer(request: Request) -> Reply:
        page = page_of(request, at_most=10)
        return json_reply(page) if page else Reply(204)

    assert (await found(connect, answer))[0] == UIDS


async def test_pages_that_overlap_give_each_study_once(connect: Connect) -> None:
    """Something is stored while paging: the pages shift by one each time."""
    shift = 0

    def answer(request: Request) -> Reply:
        nonlocal shift
        first = max(0, int(dict(request.query)["offset"]) - shift)
        shift += 1
        return json_reply(STUDIES[first : first + 5])

    uids, server = await found(connect, answer, settings(page_size=5))
    assert uids == UIDS
    assert len(server.requests) < 12


@pytest.mark.parametrize(
    ("arguments", "pages"),
    [
        ({}, [(10, 0), (10, 10), (10, 20), (10, 25)]),
        ({"limit": 3}, [(3, 0)]),
        ({"limit": 10}, [(10, 0)]),
        ({"limit": 12}, [(10, 0), (2, 10)]),
        ({"limit": 100}, [(10, 0), (10, 10), (10, 20), (10, 25)]),
        ({"offset": 20}, [(10, 20), (10, 25)]),
        ({"offset": 4, "limit": 2}, [(2, 4)]),
        ({"offset": 100}, [(10, 100)]),
    ],
)
async def test_requests_made(arguments: dict[str, int], pages: list[tuple[int, int]], connect: Connect) -> None:
    uids, server = await found(
        connect, lambda request: json_reply(page_of(request)), settings(page_size=10), **arguments
    )
    first = arguments.get("offset", 0)
    assert uids == UIDS[first : first + arguments.get("limit", 100)]
    asked = [(int(dict(one.query)["limit"]), int(dict(one.query)["offset"])) for one in server.requests]
    assert asked == pages


async def test_first_asks_for_one(connect: Connect) -> None:
    async with FaultyServer(lambda request: json_reply(page_of(request))) as server, connect(server.url) as archive:
        results = archive.search_for_studies()
        study = await results.first()
        again = await results.raw.first()
    assert study is not None
    assert study.StudyInstanceUID == UIDS[0]
    assert again == STUDIES[0]
    assert [dict(request.query)["limit"] for request in server.requests] == ["1", "1"]


async def test_leaving_the_loop_early_asks_for_no_more(connect: Connect) -> None:
    using = settings(page_size=5)
    async with (
        FaultyServer(lambda request: json_reply(page_of(request))) as server,
        connect(server.url, using) as archive,
    ):
        async for study in archive.search_for_studies():
            if study.StudyInstanceUID == UIDS[6]:
                break
    assert len(server.requests) == 2


async def test_two_patients_under_one_study_uid(connect: Connect) -> None:
    """Both are given, on one page or on two; and an offset that is ignored still ends."""
    both = [dicom_json(StudyInstanceUID=uid(1), PatientID=patient) for patient in ("A", "B")]
    for size in (1, 2, 10):

        def answer(request: Request) -> Reply:
            query = dict(request.query)
            first = int(query["offset"])
            return json_reply(both[first : first + int(query["limit"])])

        async with FaultyServer(answer) as server, connect(server.url, settings(page_size=size)) as archive:
            assert await archive.search_for_studies().raw.all() == both
    async with FaultyServer(json_reply(both)) as server, connect(server.url) as archive:
        assert await archive.search_for_studies().raw.all() == both
    assert len(server.requests) == 2


async def test_one_sop_instance_uid_in_two_series(connect: Connect) -> None:
    both = [
        dicom_json(StudyInstanceUID=uid(1), SeriesInstanceUID=uid(1, series), SOPInstanceUID=uid(1, 1, 1))
        for series in (1, 2)
    ]
    async with FaultyServer(json_reply(both)) as server, connect(server.url) as archive:
        assert await archive.search_for_instances().raw.all() == both


async def test_within_a_page_only_what_is_equal_is_left_out(connect: Connect) -> None:
    texts = ["a", "b", "a", "c", "b"]
    page = [dicom_json(StudyInstanceUID=uid(1), StudyDescription=text) for text in texts]
    async with FaultyServer(json_reply(page)) as server, connect(server.url) as archive:
        found = await archive.search_for_studies().all()
    assert [study.StudyDescription for study in found] == ["a", "b", "c"]
    assert len(server.requests) == 2


async def test_warnings_are_surfaced(connect: Connect) -> None:
    headers = {"Content-Type": "application/json", "Warning": '299 archive "only 10 of the results are shown"'}
    reply = Reply(200, headers, json.dumps(STUDIES[:10]).encode())
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        results = archive.search_for_studies()
        assert len(await results.all()) == 10
    assert len(results.warnings) == 1
    assert "only 10 of the results are shown" in results.warnings[0]


async def test_paging_refused_goes_on_without(connect: Connect) -> None:
    def answer(request: Request) -> Reply:
        return Reply(400) if dict(request.query).get("limit") else json_reply(STUDIES)

    uids, server = await found(connect, answer)
    assert uids == UIDS
    assert len(server.requests) == 2


async def test_results_without_a_uid_are_not_lost(connect: Connect) -> None:
    plain = [dicom_json(PatientID=str(n)) for n in range(3)]
    async with FaultyServer(json_reply(plain)) as server, connect(server.url) as archive:
        assert await archive.search_for_studies().raw.all() == plain


async def test_a_page_that_fails_in_the_middle(connect: Connect) -> None:
    def answering() -> Callable[[Request], Reply]:
        failed: list[int] = []

        def answer(request: Request) -> Reply:
            if dict(request.query)["offset"] == "10" and len(failed) < 2:
                failed.append(1)
                return Reply(503)
            return json_reply(page_of(request))

        return answer

    uids, _ = await found(connect, answering(), settings(page_size=10))
    assert uids == UIDS


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"limit": -1}, {"offset": -1}, {"limit": "5"}, {"offset": 1.5}])
async def test_paging_arguments_that_make_no_sense(arguments: dict[str, Any], connect: Connect) -> None:
    async with FaultyServer([]) as server, connect(server.url, dialect=DICOMWEB) as archive:
        with pytest.raises(UsageError):
            await archive.search_for_studies(**arguments).all()


async def test_special_characters_arrive_as_they_are(connect: Connect) -> None:
    filters = {"PatientName": "Mü&ller^J=ü+r#g%en *?", "StudyDescription": "a/b;c"}
    async with FaultyServer(json_reply([])) as server, connect(server.url) as archive:
        await archive.search_for_studies(filters).all()
    query = dict(server.requests[0].query)
    assert (query["PatientName"], query["StudyDescription"]) == (filters["PatientName"], filters["StudyDescription"])


# --- a server that heeds limit and ignores offset ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page_size", "limit", "warned"), [(8, None, 1), (8, 12, 1), (8, 8, 0), (8, 3, 0), (40, None, 0)]
)
async def test_the_same_full_page_again_may_not_be_all(
    page_size: int, limit: int | None, warned: int, connect: Connect
) -> None:
    """A page of just the size that was asked for, twice; where it is smaller, it is all there is."""

    def script(request: Request) -> Reply:
        return json_reply(STUDIES[: int(dict(request.query)["limit"])])

    async with FaultyServer(script) as server, connect(server.url, settings(page_size=page_size)) as archive:
        results = archive.search_for_studies(limit=limit)
        assert len(await results.all()) == min(page_size, limit or len(STUDIES), len(STUDIES))
    assert len([one for one in results.warnings if "may be more" in one]) == len(results.warnings) == warned


async def test_a_list_that_may_not_be_all_is_no_comparison(connect: Connect, tmp_path: Path) -> None:
    """The study breaks off after three instances, which are also all that the list ever shows."""
    files = list(study_files(7, pixel_bytes=64).values())

    def fault(request: Request) -> Reply | None:
        if request.path == f"/studies/{uid(1)}":
            return Reply(200, {"Content-Type": archived.content_type}, archived.body, cut_after=len(archived.body) - 9)
        if not is_search(request) or not request.path.endswith("/instances"):
            return None
        every = [dict(zip(TAGS, uids_of(file), strict=True)) for file in files[: int(dict(request.query)["limit"])]]
        return json_reply([{tag: {"vr": "UI", "Value": [one[tag]]} for tag in TAGS} for one in every])

    archived = related(files[:3])
    server = FaultyServer(MemoryArchive(files, fault=fault))
    async with server, connect(server.url, settings(page_size=3)) as archive:
        with pytest.raises(IncompleteDownload) as caught:
            await archive.download_study(uid(1), to=tmp_path)
    assert caught.value.report is not None
    assert caught.value.report.listing == "unavailable"


@pytest.mark.parametrize("padding", ["\0", " "])
async def test_padded_uids_in_a_list(padding: str, connect: Connect, tmp_path: Path) -> None:
    files = list(study_files(3, pixel_bytes=64).values())

    def fault(request: Request) -> Reply | None:
        if not is_search(request) or not request.path.endswith("/instances"):
            return None
        items = [
            {tag: {"vr": "UI", "Value": [one + padding]} for tag, one in zip(TAGS, uids_of(file), strict=True)}
            for file in files
        ]
        return json_reply(items)

    server = FaultyServer(MemoryArchive(files, fault=fault))
    async with server, connect(server.url) as archive:
        report = await archive.download_study(uid(1), to=tmp_path)
    assert (report.ok, report.listing, len(report.saved)) == (True, "compared", 3)
