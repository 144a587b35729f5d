"""Archives that ignore filters, or do not list: what a search, a download and an upload say of them is so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import DICOMWEB, POSTDICOM, IncompleteDownload, InstanceUids, NotFound, Status
from tests.faults.archive import name_of, uids_of
from tests.faults.clients import files_below, settings
from tests.faults.odd_archives import FILES, STUDY, make_odd, searches
from tests.support.bodies import dicom_json, json_reply, multipart_related
from tests.support.dicom_files import small_dicom, uid
from tests.support.exchange import Reply, Request
from tests.support.faulty_server import FaultyServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect
    from tests.faults.odd_archives import OddArchive

pytestmark = pytest.mark.above_the_transport

TAGS = replace(DICOMWEB, filter_form="tag")
WHOLE = {name_of(file): file for file in FILES}
EVERYTHING = [uid(2), uid(1), uid(3)]


async def found(connect: Connect, archive: OddArchive, filters: dict[str, Any], **arguments: Any) -> tuple[Any, Any]:
    """Return the Study Instance UIDs of a search, and its warnings."""
    dialect = arguments.pop("dialect", DICOMWEB)
    async with FaultyServer(archive) as server, connect(server.url, dialect=dialect) as client:
        results = client.search_for_studies(filters, **arguments)
        uids = [str(study.StudyInstanceUID) for study in await results.all()]
    return uids, results.warnings


# --- search ---------------------------------------------------------------------------------------------------------

FOUND = {
    "ignores filters written as tags": [STUDY],
    "ignores filters written as keywords": EVERYTHING,
    "ignores all filters": EVERYTHING,
    "ignores all filters and paging": EVERYTHING,
    "has no list of a study's instances": [STUDY],
    "answers [] to every search": [],
}


async def test_a_search_tells_when_it_was_not_heeded(odd_archive: OddArchive, connect: Connect) -> None:
    for filters in ({"StudyInstanceUID": STUDY}, {"PatientID": "P-1"}):
        uids, warnings = await found(connect, odd_archive, filters)
        assert uids == FOUND[odd_archive.odd]
        assert len(warnings) == (len(uids) == 3)
        for warning in warnings:
            assert warning.startswith(f"2 of 3 results are not what was asked for by {next(iter(filters))}: ")
            assert "written as keywords" in warning
            assert STUDY not in warning
            assert "P-1" not in warning


async def test_a_search_by_name_finds_whom_it_names(connect: Connect) -> None:
    """Real servers ignore filters written as tags, and then give everybody."""
    archive = make_odd("ignores filters written as tags")
    assert await found(connect, archive, {"PatientName": "DOE*"}) == ([uid(2), uid(1)], [])
    assert await found(connect, archive, {"00100010": "DOE*"}) == ([uid(2), uid(1)], [])
    assert (await found(connect, archive, {"PatientName": "DOE*"}, dialect=TAGS))[0] == EVERYTHING


async def test_the_other_form_is_one_switch_away(connect: Connect) -> None:
    archive = make_odd("ignores filters written as keywords")
    filters = {"StudyInstanceUID": STUDY}
    assert await found(connect, archive, filters, dialect=TAGS) == ([STUDY], [])
    assert await found(connect, archive, filters, dialect=replace(TAGS, filter_form="keyword")) != ([STUDY], [])


async def test_filters_and_fields_in_both_forms(connect: Connect) -> None:
    filters = {"PatientName": "X", "00091001": "private", "RequestAttributesSequence.ScheduledProcedureStepID": "1"}
    fields = ["StudyDescription", "00091002", "RequestAttributesSequence.ScheduledProcedureStepID"]
    sent: dict[str, list[str]] = {}
    for dialect in (DICOMWEB, TAGS, POSTDICOM):
        async with FaultyServer(json_reply([])) as server, connect(server.url, dialect=dialect) as archive:
            await archive.search_for_studies(filters, fields=fields).all()
        pairs = [pair for pair in server.requests[0].query if pair[0] not in {"limit", "offset"}]
        sent[f"{dialect.name}, {dialect.filter_form}"] = [
            name if value in filters.values() else value for name, value in pairs
        ]
    tags = ["00100010", "00091001", "00400275.00400009", "00081030", "00091002", "00400275.00400009"]
    step = "RequestAttributesSequence.ScheduledProcedureStepID"
    assert sent == {
        "dicomweb, keyword": ["PatientName", "00091001", step, "StudyDescription", "00091002", step],
        "dicomweb, tag": tags,
        "postdicom, tag": tags,
    }


async def test_the_warning_is_one_and_grows(connect: Connect) -> None:
    """Over pages, and again in a second reading; there as soon as the first wrong result is."""
    archive = make_odd("ignores all filters")
    async with FaultyServer(archive) as server, connect(server.url, settings(page_size=1)) as client:
        results = client.search_for_studies({"StudyInstanceUID": STUDY})
        said = [list(results.warnings) async for _ in results]
        await results.all()
    assert [[one[:6] for one in some] for some in said] == [["1 of 1"], ["1 of 2"], ["2 of 3"]]
    assert [one[:6] for one in results.warnings] == ["2 of 3"]


async def test_the_path_is_a_filter_too(connect: Connect) -> None:
    """A server that lists everything whatever study or series the path names."""
    every = [
        dicom_json(StudyInstanceUID=uid(n), SeriesInstanceUID=uid(n, 1), SOPInstanceUID=uid(n, 1, 1)) for n in (1, 2)
    ]
    async with FaultyServer(json_reply(every)) as server, connect(server.url) as archive:
        series = archive.search_for_series(study_instance_uid=STUDY)
        instances = archive.search_for_instances(study_instance_uid=STUDY, series_instance_uid=uid(1, 1))
        await series.all()
        await instances.all()
    assert "1 of 2 results" in series.warnings[0]
    assert "StudyInstanceUID and SeriesInstanceUID" in instances.warnings[0]


# --- download -------------------------------------------------------------------------------------------------------

CHECKED = {
    "ignores filters written as tags": "counted",
    "ignores filters written as keywords": "compared",
    "ignores all filters": "compared",
    "ignores all filters and paging": "compared",
    "has no list of a study's instances": "counted",
    "answers [] to every search": "unavailable",
}


async def test_a_download_says_what_its_check_was(odd_archive: OddArchive, connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer(odd_archive) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
        series = await archive.download_series(STUDY, uid(1, 2), to=tmp_path / "series")
    for one in (report, series):
        assert one.listing == CHECKED[odd_archive.odd]
        assert one.contradicted is odd_archive.finds_nothing
        assert one.ok is not odd_archive.finds_nothing
    assert {name: data for name, data in files_below(tmp_path).items() if not name.startswith("series")} == WHOLE


async def test_a_count_asks_for_one_result(connect: Connect, tmp_path: Path) -> None:
    """An archive that ignores the filter would send all it has."""
    async with FaultyServer(make_odd("ignores all filters")) as server, connect(server.url) as archive:
        await archive.download_study(STUDY, to=tmp_path)
        await archive.download_series(STUDY, uid(1, 1), to=tmp_path)
    for path in ("/studies", f"/studies/{STUDY}/series"):
        (request,) = [one for one in server.requests if one.path == path]
        assert dict(request.query)["limit"] == "1"


@pytest.mark.parametrize("status", [404, 501, 405, 400])
@pytest.mark.parametrize("counts", [False, True])
async def test_without_a_list_of_a_studys_instances(
    status: int, counts: bool, connect: Connect, tmp_path: Path
) -> None:
    """What an answer left out is found by series, and a second download fetches only what is missing."""

    def fault(request: Request) -> Reply | None:
        return multipart_related(FILES[:4]).reply() if request.path == f"/studies/{STUDY}" else None

    archive = make_odd(fault=fault, counts=counts, no_study_list=status)
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.download_study(STUDY, to=tmp_path)
        assert (report.ok, report.listing, len(report.saved)) == (True, "compared", 6)
        first = len(server.requests)
        report.saved[0].path.unlink()
        again = await client.with_options(fsync=False).download_study(STUDY, to=tmp_path)
    assert (again.ok, again.listing, len(again.saved), len(again.already_present)) == (True, "compared", 1, 5)
    assert files_below(tmp_path) == WHOLE
    paths = searches(server.requests)
    assert paths.count(f"/studies/{STUDY}/instances") <= (2 if status == 400 else 1), "it is remembered"
    retrieved = [one.path for one in server.requests[first:] if one.path not in paths]
    assert retrieved == ["/studies/{}/series/{}/instances/{}".format(*(report.saved[0].uids or ()))]


@pytest.mark.parametrize("answer", [Reply(404), json_reply([]), Reply(204)])
async def test_a_study_that_is_not_there_is_not_found(answer: Reply, connect: Connect, tmp_path: Path) -> None:
    """The list is not offered, and the study is unknown: the one is not taken for the other."""

    def fault(request: Request) -> Reply | None:
        return answer if request.path == f"/studies/{uid(9)}/series" else None

    odd = make_odd("has no list of a study's instances", fault=fault)
    async with FaultyServer(odd) as server, connect(server.url) as archive:
        with pytest.raises(NotFound):
            await archive.download_study(uid(9), to=tmp_path)
        assert (await archive.download_study(STUDY, to=tmp_path)).ok
    assert files_below(tmp_path) == WHOLE


@pytest.mark.parametrize("status", [404, 501])
async def test_without_a_list_of_a_series(status: int, connect: Connect, tmp_path: Path) -> None:
    """The list of the study, limited to the series, serves as well."""

    def fault(request: Request) -> Reply | None:
        if request.path == f"/studies/{STUDY}/series/{uid(1, 1)}":
            return multipart_related(FILES[:1]).reply()
        return Reply(status) if request.path.endswith(f"{uid(1, 1)}/instances") else None

    async with FaultyServer(make_odd(fault=fault, counts=False)) as server, connect(server.url) as archive:
        report = await archive.download_series(STUDY, uid(1, 1), to=tmp_path)
    assert (report.ok, report.listing, len(report.saved)) == (True, "compared", 2)


def lists(answer: Reply) -> Any:
    """Answer every list with this, and the retrieve of the study with two of six instances."""

    def fault(request: Request) -> Reply | None:
        if request.path.endswith(("/instances", "/series")):
            return answer
        return multipart_related(FILES[:2]).reply() if request.path == f"/studies/{STUDY}" else None

    return fault


def listed(*files: bytes) -> Reply:
    """Return a list of these."""
    return json_reply(
        [dicom_json(StudyInstanceUID=a, SeriesInstanceUID=b, SOPInstanceUID=c) for a, b, c in map(uids_of, files)]
    )


@pytest.mark.parametrize(
    ("answer", "contradicts"),
    [
        (json_reply([]), True),
        (Reply(204), True),
        (Reply(200), True),
        (listed(FILES[0]), True),
        (json_reply({"error": "not now"}), None),
        (Reply(404), False),
        (Reply(501), False),
        (Reply(200, {"Content-Type": "text/html"}, b"<html>"), False),
    ],
)
async def test_a_list_that_contradicts_what_arrived_is_no_check(
    answer: Reply, contradicts: bool | None, connect: Connect, tmp_path: Path
) -> None:
    """Two of six came, and the archive lists nothing, or less: that it is all, nobody can say."""
    async with FaultyServer(make_odd(fault=lists(answer), counts=False)) as server, connect(server.url) as archive:
        for _ in ("first", "into the same folder again") if answer != listed(FILES[0]) else ("first",):
            report = await archive.download_study(STUDY, to=tmp_path)
            assert report.listing == "unavailable"
            assert (len(report.saved) + len(report.already_present), report.missing) == (2, ())
            if contradicts is not None:  # an error in place of a list is either: it tells nothing
                assert report.contradicted is contradicts
                assert report.ok is not contradicts
        without = await archive.download_study(STUDY, to=tmp_path, compare_with_search=False)
    assert (without.ok, without.listing, without.contradicted) == (True, "not asked", False)


@pytest.mark.parametrize("count", [1, 5])
async def test_a_count_of_less_than_arrived_is_no_check(count: int, connect: Connect, tmp_path: Path) -> None:
    def fault(request: Request) -> Reply | None:
        if request.path == "/studies":
            return json_reply([dicom_json(StudyInstanceUID=STUDY, NumberOfStudyRelatedInstances=count)])
        return Reply(404) if request.path.endswith(("/instances", "/series")) else None

    async with FaultyServer(make_odd(fault=fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert (report.ok, report.listing, report.contradicted, len(report.saved)) == (False, "unavailable", True, 6)


@pytest.mark.parametrize("first", [listed(*FILES[:4]), json_reply([])], ids=["four of six", "nothing"])
async def test_what_is_stored_meanwhile_contradicts_nothing(first: Reply, connect: Connect, tmp_path: Path) -> None:
    """The list was made before the rest of the study came in; it is asked for again."""
    answers = [first]

    def fault(request: Request) -> Reply | None:
        at_once = request.path == f"/studies/{STUDY}/instances"
        by_series = request.path == f"/studies/{STUDY}/series"
        return answers.pop() if at_once and answers else (Reply(404) if by_series else None)

    async with FaultyServer(make_odd(fault=fault, counts=False)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert (report.ok, report.listing, len(report.saved)) == (True, "compared", 6)


async def test_an_empty_list_of_the_study_is_made_up_for_by_series(connect: Connect, tmp_path: Path) -> None:
    def fault(request: Request) -> Reply | None:
        if request.path == f"/studies/{STUDY}/instances":
            return json_reply([])
        return multipart_related(FILES[:2]).reply() if request.path == f"/studies/{STUDY}" else None

    async with FaultyServer(make_odd(fault=fault, counts=False)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert (report.ok, report.listing, len(report.saved)) == (True, "compared", 6)
    assert files_below(tmp_path) == WHOLE


async def test_a_list_of_everything_is_none(connect: Connect, tmp_path: Path) -> None:
    """PostDICOM's shapes name parents by filters: an archive that ignores them lists what was not asked for."""
    archive = make_odd("ignores all filters", counts=False)

    def vendors(request: Request) -> Reply:
        found = InstanceUids(*(("",) * 3))
        for uids in archive.stored:
            if request.path == f"/studies/series/{uids[1]}":
                found = uids
        if found != InstanceUids("", "", ""):
            return archive.retrieve(found[0], found[1], None)
        return archive(request)

    async with FaultyServer(vendors) as server, connect(server.url, dialect="postdicom") as client:
        report = await client.download_study(STUDY, to=tmp_path)
    assert (report.ok, report.listing, report.missing) == (True, "unavailable", ())
    assert files_below(tmp_path) == WHOLE


async def test_less_than_is_listed_is_still_an_error(connect: Connect, tmp_path: Path) -> None:
    """A list with one that does not come and without one that did: nothing is taken back of what it says is missing."""
    strange = small_dicom(STUDY, uid(1, 9), uid(1, 9, 9))

    def fault(request: Request) -> Reply | None:
        return (
            listed(*FILES[1:], strange)
            if request.path == f"/studies/{STUDY}/instances"
            else (Reply(404) if request.path == f"/studies/{STUDY}/series" else None)
        )

    async with FaultyServer(make_odd(fault=fault, counts=False)) as server, connect(server.url) as archive:
        with pytest.raises(IncompleteDownload) as caught:
            await archive.download_study(STUDY, to=tmp_path)
    assert caught.value.report.missing == (uids_of(strange),)
    assert caught.value.report.listing == "unavailable"
    assert files_below(tmp_path) == WHOLE


# --- upload ---------------------------------------------------------------------------------------------------------


async def test_an_upload_is_told_of_rightly(odd_archive: OddArchive, connect: Connect) -> None:
    more = [small_dicom(uid(7), uid(7, 1), uid(7, 1, n)) for n in range(3)]
    async with FaultyServer(odd_archive) as server, connect(server.url) as archive:
        report = await archive.upload(more)
    assert report.ok
    assert dict(report.counts) == {Status.STORED: 3}


async def test_what_the_archive_dropped_is_not_found_by_a_search_that_ignores_filters(connect: Connect) -> None:
    """It names nothing and keeps nothing; its lists, whatever they hold, are no proof that it has this one."""

    def fault(request: Request) -> Reply | None:
        return Reply(200) if request.method == "POST" else None

    for odd in ("ignores all filters", "answers [] to every search"):
        async with FaultyServer(make_odd(odd, fault=fault)) as server, connect(server.url) as archive:
            report = await archive.upload([small_dicom(uid(7), uid(7, 1), uid(7, 1, 1))])
        assert dict(report.counts) == {Status.UNCONFIRMED: 1}
