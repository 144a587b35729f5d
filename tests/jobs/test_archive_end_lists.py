"""What an archive lists, as an end of a job: whole lists, lists that are cut, and lists that contradict themselves."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from postdicom_async import AuthenticationFailed, ConnectionFailed, DicomWeb, ProtocolError, ServerError
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.end import ListedStudy
from tests.faults.archive import asked
from tests.faults.clients import FAST, settings
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import uid
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.support.large import large

STUDY, DATE = "0020000D", "00080020"
UIDS = (STUDY, "0020000E", "00080018")


@dataclass
class Lister:
    """Answers searches for studies, oddly.

    Attributes:
        dates: by Study Instance UID, "" for none.
        cap: at most so many results in one answer.
        total: at most so many in all, however they are paged.
        heeds: of ``offset``, ``limit``, ``date``, ``uid`` those that are heeded.
        refuses: a search that finds more than that is answered with 413.
        counts: whether it says how many instances a study has.
    """

    dates: dict[str, str]
    cap: int = 1 << 30
    total: int = 1 << 30
    heeds: frozenset[str] = frozenset({"offset", "limit", "date", "uid"})
    counts: bool = True
    refuses: int = 1 << 30
    extra: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        filters = asked(request)
        found = [*self.dates]
        if "uid" in self.heeds and STUDY in filters:
            found = [one for one in found if one == filters[STUDY]]
        if "date" in self.heeds and DATE in filters:
            first, dash, last = filters[DATE].partition("-")
            last = last if dash else first
            found = [one for one in found if self.dates[one] and first <= self.dates[one] <= (last or "9")]
        if len(found) > self.refuses:
            return Reply(413)
        found = found[: self.total]
        start = int(filters.get("offset", 0)) if "offset" in self.heeds else 0
        size = int(filters.get("limit", 1 << 30)) if "limit" in self.heeds else 1 << 30
        items = [self.item(one) for one in found[start : start + min(size, self.cap)]]
        return json_reply([*items, *(self.extra if not start else [])])

    def item(self, study: str) -> dict[str, Any]:
        made: dict[str, Any] = {STUDY: {"vr": "UI", "Value": [study]}}
        if self.dates[study]:
            made[DATE] = {"vr": "DA", "Value": [self.dates[study]]}
        if self.counts:
            made["00201208"] = {"vr": "IS", "Value": [3]}
        return made


def some_dates(number: int, *, undated: int = 0, days: int = 400, seed: int = 1) -> dict[str, str]:
    chance = random.Random(seed)
    made = {
        uid(5, n): f"{2020 + (day := chance.randrange(days)) // 336}{day // 28 % 12 + 1:02}{day % 28 + 1:02}"
        for n in range(number)
    }
    return made | {uid(6, n): "" for n in range(undated)}


def end_at(server: FaultyServer, **options: Any) -> ArchiveEnd:
    given = {"settings": FAST, **options}
    filters = given.pop("filters", None)
    return ArchiveEnd(DicomWeb(server.url, **given), filters=filters)


async def listed(end: ArchiveEnd, **bounds: str) -> list[ListedStudy]:
    return [one async for some in end.studies(**bounds) for one in some]


async def test_a_thousand_studies_are_listed_by_pages() -> None:
    dates = some_dates(1500, undated=3)
    async with FaultyServer(Lister(dates)) as server, end_at(server) as end:
        found = await listed(end)
        assert {one.uid: one.date for one in found} == dates
        assert len(found) == len(dates)
        assert {one.instances for one in found} == {3}
        assert len(server.requests) == 4  # two pages, an empty one, and what lies behind
        assert not end.notes


async def test_of_dated_studies_those_within_and_all_that_have_no_date() -> None:
    dates = some_dates(300, undated=3)
    async with FaultyServer(Lister(dates)) as server, end_at(server) as end:
        found = {one.uid: one.date for one in await listed(end, since="20200301", until="20200630")}
    assert found == {one: day for one, day in dates.items() if not day or "20200301" <= day <= "20200630"}


async def test_filters_go_with_the_search_and_undated_ones_are_outside_a_filter_on_dates() -> None:
    dates = some_dates(300, undated=3)
    async with FaultyServer(Lister(dates)) as server:
        async with end_at(server, filters={"StudyDate": "202005", "ModalitiesInStudy": "CT"}) as end:
            found = {one.uid: one.date for one in await listed(end)}
        assert all(("ModalitiesInStudy", "CT") in request.query for request in server.requests)
    assert found == {one: day for one, day in dates.items() if day[:6] == "202005"}
    assert found


CUTS: dict[str, dict[str, Any]] = {
    "pages are not known, and answers cut": {"cap": 100, "heeds": frozenset({"date", "uid"})},
    "a limit is heeded, pages are not": {"heeds": frozenset({"date", "uid", "limit"})},
    "a small cap, no paging at all": {"cap": 12, "heeds": frozenset({"date", "uid"})},
    "so many in all, however paged": {"total": 1000},
    "broad questions are refused": {"refuses": 150},
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("seed", [1, large(2), large(3)])
async def test_a_list_that_is_cut_is_asked_for_by_dates(cut: str, seed: int) -> None:
    dates = some_dates(2500 if "total" in CUTS[cut] else 700, days=2000, seed=seed)
    lister = Lister(dates, **CUTS[cut])
    async with (
        FaultyServer(lister) as server,
        end_at(server, settings=settings(page_size=100 if "limit" in lister.heeds else 1000)) as end,
    ):
        found = await listed(end)
        assert {one.uid: one.date for one in found} == dates
        assert len(found) == len(dates)
        assert end.notes  # whether there are undated ones besides cannot be known
        before = len(server.requests)
        some = {one.uid: one.date for one in await listed(end, since="20210101", until="20210228")}
        assert some == {one: day for one, day in dates.items() if "20210101" <= day <= "20210228"}
        assert len(server.requests) - before < before


async def test_undated_studies_that_a_list_shows_are_given_and_that_there_may_be_more_is_said() -> None:
    dates = some_dates(300)
    undated = {uid(6, n): "" for n in range(40)}
    everything = list((dates | undated).items())
    random.Random(4).shuffle(everything)
    mixed = dict(everything)
    async with (
        FaultyServer(Lister(mixed, cap=100, heeds=frozenset({"date", "uid"}))) as server,
        end_at(server) as end,
    ):
        found = {one.uid: one.date for one in await listed(end)}
        shown = {one for one in list(mixed)[:100] if not mixed[one]}
        assert shown
        assert found == dates | dict.fromkeys(shown, "")
        assert ["without a study date" in note for note in end.notes] == [True]
        end.notes.clear()
        await listed(end)
        assert not end.notes  # it has been said


@pytest.mark.parametrize("number", [0, 1, 7, 12, 100, 337])
async def test_a_list_without_paging_that_was_not_cut_is_whole(number: int) -> None:
    dates = some_dates(number, undated=number // 7)
    async with FaultyServer(Lister(dates, heeds=frozenset({"date", "uid"}))) as server, end_at(server) as end:
        assert {one.uid: one.date for one in await listed(end)} == dates
        assert not end.notes


async def test_more_in_one_day_than_can_be_listed_is_an_error() -> None:
    dates = {uid(5, n): "20240101" for n in range(150)}
    async with (
        FaultyServer(Lister(dates, cap=100, heeds=frozenset({"date", "uid"}))) as server,
        end_at(server) as end,
    ):
        with pytest.raises(ProtocolError, match="does not list all studies of one day"):
            await listed(end)


async def test_an_archive_that_ignores_dates_is_not_asked_for_ever() -> None:
    dates = some_dates(150)
    async with FaultyServer(Lister(dates, cap=100, heeds=frozenset({"uid"}))) as server, end_at(server) as end:
        with pytest.raises(ProtocolError, match="not what was asked for by StudyDate"):
            await listed(end)
        assert len(server.requests) < 10


async def test_filters_that_are_ignored_end_the_list() -> None:
    dates = some_dates(50)
    async with (
        FaultyServer(Lister(dates, heeds=frozenset({"offset", "limit"}))) as server,
        end_at(server, filters={"StudyDate": "20200101-20200105"}) as end,
    ):
        with pytest.raises(ProtocolError, match="not what was asked for"):
            await listed(end)


async def test_studies_that_are_stored_while_it_is_listed_are_listed_too() -> None:
    lister = Lister(some_dates(1500))
    late = {uid(8, n): "20240101" for n in range(4)}

    def growing(request: Request) -> Reply:
        reply = lister(request)
        if late and int(asked(request).get("offset", 0)) >= 1500:  # it has just said that there is no more
            one, date = late.popitem()
            lister.dates[one] = date
        return reply

    async with FaultyServer(growing) as server, end_at(server) as end:
        assert {one.uid: one.date for one in await listed(end)} == lister.dates
        assert len(server.requests) < 20
        assert not late
        assert not end.notes


async def test_a_study_that_is_listed_twice_is_given_once() -> None:
    dates = some_dates(20)
    lister = Lister(dates)
    first = next(iter(dates))
    lister.extra = [{**lister.item(first), "00100010": {"vr": "PN", "Value": [{"Alphabetic": "OTHER"}]}}]
    async with FaultyServer(lister) as server, end_at(server) as end:
        assert sorted(one.uid for one in await listed(end)) == sorted(dates)


async def test_a_study_without_a_uid_is_an_error() -> None:
    lister = Lister(some_dates(3))
    lister.extra = [dicom_json(StudyDate="20240101")]
    async with FaultyServer(lister) as server, end_at(server) as end:
        with pytest.raises(ProtocolError, match="without a valid UID"):
            await listed(end)


async def test_one_study_is_asked_for_and_another_is_no_answer() -> None:
    dates = some_dates(5)
    one = next(iter(dates))
    async with FaultyServer(Lister(dates)) as server, end_at(server) as end:
        assert await end.study(one) == ListedStudy(one, dates[one], 3)
        assert await end.study(uid(9)) is None
    async with FaultyServer(Lister(dates, counts=False)) as server, end_at(server) as end:
        assert await end.study(one) == ListedStudy(one, dates[one], None)
    async with FaultyServer(Lister(dates, heeds=frozenset())) as server, end_at(server) as end:
        with pytest.raises(ProtocolError):
            await end.study(uid(9))


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(401), AuthenticationFailed),
        (Reply(403), AuthenticationFailed),
        (Reply(500), ServerError),
        (Reply(503), ServerError),
        (Reply(200, {"Content-Type": "text/html"}, b"<html>log in</html>"), ProtocolError),
    ],
)
async def test_what_cannot_be_asked_is_no_empty_list(reply: Reply, error: type[Exception]) -> None:
    async with FaultyServer(reply) as server, end_at(server) as end:
        for ask in (lambda: listed(end), lambda: end.study(uid(1)), end.probe, lambda: anext(end.instances(uid(1)))):
            with pytest.raises(error):
                await ask()


async def test_an_archive_that_cannot_be_reached_is_no_empty_list() -> None:
    server = FaultyServer()
    async with server:
        end = end_at(server)
    async with end:
        for ask in (lambda: listed(end), lambda: end.study(uid(1)), end.probe):
            with pytest.raises(ConnectionFailed):
                await ask()


async def test_a_list_that_breaks_in_the_middle_is_an_error() -> None:
    lister = Lister(some_dates(1500))

    def fault(request: Request) -> Reply:
        return Reply(500) if asked(request).get("offset") == "1000" else lister(request)

    async with FaultyServer(fault) as server, end_at(server) as end:
        with pytest.raises(ServerError):
            await listed(end)


# --- instances of a study ---------------------------------------------------------------------------------------------


@dataclass
class Study:
    """A study of three series, with ways to list it.

    Attributes:
        count: what it says it has.
        whole: instances that the list of the study gives, None where it is not offered.
        each: instances that the list of each series gives.
    """

    count: int | None = 30
    whole: int | None = 30
    each: int | None = 10

    def __call__(self, request: Request) -> Reply:
        parts = request.path.strip("/").split("/")
        query = asked(request)
        items: list[dict[str, Any]] | None = None
        if parts == ["studies"]:
            count = {} if self.count is None else {"NumberOfStudyRelatedInstances": self.count}
            items = [dicom_json(StudyInstanceUID=uid(1), **count)]
        elif parts[-1] == "series":
            items = [dicom_json(SeriesInstanceUID=uid(1, one)) for one in (1, 2, 3)]
        elif len(parts) == 3:
            items = None if self.whole is None else [self.item(n % 3 + 1, n // 3) for n in range(self.whole)]
        elif self.each is not None:
            items = [self.item(int(parts[3].rpartition(".")[2]), n) for n in range(self.each)]
        if items is None:
            return Reply(404)
        start = int(query.get("offset", 0))
        return json_reply(items[start : start + int(query.get("limit", 1000))])

    def item(self, series: int, number: int) -> dict[str, Any]:
        uids = zip(UIDS, (uid(1), uid(1, series), uid(1, series, number + 1)), strict=True)
        return {tag: {"vr": "UI", "Value": [one]} for tag, one in uids}


async def instances_of(study: Study, **options: Any) -> list[str]:
    async with FaultyServer(study) as server, end_at(server, **options) as end:
        found = [one async for some in end.instances(uid(1)) for one in some]
    assert all(one.uid.startswith(f"{one.series}.") for one in found)
    return sorted(one.uid for one in found)


ALL = sorted(uid(1, series, number) for series in (1, 2, 3) for number in range(1, 11))


@pytest.mark.parametrize(
    "study",
    [
        Study(),
        Study(count=None),
        Study(whole=None),
        Study(each=None),
        Study(whole=0),
        Study(whole=12),
        Study(each=4),
        Study(count=None, whole=12),
        Study(count=3),
    ],
    ids=repr,
)
async def test_the_list_that_agrees_with_the_count_or_else_the_longest_is_taken(study: Study) -> None:
    if study.count is None and study.whole == 12:  # nothing says that it is too short
        assert len(await instances_of(study)) == 12
    else:
        assert await instances_of(study) == ALL


@pytest.mark.parametrize(
    "study",
    [Study(count=31), Study(whole=0, each=0), Study(whole=0, each=0, count=None), Study(whole=12, each=4)],
    ids=repr,
)
async def test_a_list_shorter_than_the_count_is_no_list(study: Study) -> None:
    with pytest.raises(ProtocolError, match="contradicts itself about a study"):
        await instances_of(study)


async def test_a_study_that_cannot_be_listed_at_all_is_an_error() -> None:
    with pytest.raises(Exception, match="list instances"):
        await instances_of(Study(whole=None, each=None))


async def test_a_study_that_shrinks_while_it_is_listed_is_listed_as_it_is_then() -> None:
    study = Study()

    def shrinking(request: Request) -> Reply:
        reply = study(request)
        study.count = 29
        study.whole = 29
        study.each = 4
        return reply

    async with FaultyServer(shrinking) as server, end_at(server) as end:
        assert len([one async for some in end.instances(uid(1)) for one in some]) == 29


async def test_a_large_study_comes_in_slices() -> None:
    study = Study(count=4500, whole=4500)
    async with FaultyServer(study) as server, end_at(server) as end:
        slices = [len(some) async for some in end.instances(uid(1))]
    assert sum(slices) == 4500
    assert max(slices) <= 1000


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked_for", ["CT", "CT,MR", "C*"])
async def test_studies_of_other_modalities_than_asked_for_end_the_list(asked_for: str) -> None:
    dates = some_dates(20)
    lister = Lister(dates)

    def answer(request: Request) -> Reply:
        assert ("includefield", "ModalitiesInStudy") in request.query or "*" in asked_for
        items = [lister.item(one) | {"00080061": {"vr": "CS", "Value": ["CT", "SR"]}} for one in dates]
        items[-1]["00080061"] = {"vr": "CS", "Value": [odd]}
        return json_reply([] if int(asked(request).get("offset", 0)) else items)

    odd = "CT"
    async with FaultyServer(answer) as server, end_at(server, filters={"ModalitiesInStudy": asked_for}) as end:
        assert len(await listed(end)) == len(dates)
        odd = "US"
        if "*" in asked_for:  # what it stands for is the archive's to say
            assert len(await listed(end)) == len(dates)
        else:
            with pytest.raises(ProtocolError, match="ModalitiesInStudy"):
                await listed(end)
