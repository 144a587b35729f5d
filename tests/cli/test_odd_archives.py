"""The command on archives that ignore filters or do not list: what it says, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Ran
from tests.faults.odd_archives import FILES, ODD, STUDY, OddArchive, make_odd
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer

IGNORES = {"ignores filters written as keywords", "ignores all filters", "ignores all filters and paging"}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> OddArchive:
    """Give one odd archive after the other."""
    return make_odd(request.param)


async def run(cli: Cli, archive: Any, *arguments: str | Path) -> Ran:
    async with FaultyServer(archive) as server:
        return await cli.here(*arguments, "--url", server.url, "--attempts", "1")


async def test_search(cli: Cli, odd: OddArchive) -> None:
    ran = await run(cli, odd, "search", "studies", "-f", f"StudyInstanceUID={STUDY}", "--json")
    assert ran.code == 0
    assert len(ran.json["items"]) == (3 if odd.odd in IGNORES else 0 if odd.finds_nothing else 1)
    if odd.odd in IGNORES:
        assert ran.err.startswith("warning: 2 of 3 results are not what was asked for by StudyInstanceUID: ")
        assert len(ran.err.splitlines()) == 1
    else:
        assert ran.err == ""


async def test_the_other_form_by_option(cli: Cli) -> None:
    """As the doctor says."""
    archive = make_odd("ignores filters written as keywords")
    ran = await run(cli, archive, "search", "studies", "-f", "PatientName=DOE*", "--json", "-o", "filter_form=tag")
    assert (ran.code, len(ran.json["items"]), ran.err) == (0, 2, "")
    told = await run(cli, archive, "doctor", "--json", "-o", "filter_form=tag", "-o", "url_bytes=4000")
    found = {one["check"]: f"{one['verdict']}: {one['found']}" for one in told.json["findings"]}
    assert found["filters are written as"] == "ok: tags are heeded; keywords are not"
    assert found["the longest URL"] == "ok: about 4000 bytes: taken"
    wrong = await run(cli, archive, "search", "studies", "-o", "filter_form=Keyword")
    assert wrong.code == 2
    assert "give keyword or tag" in wrong.error_line


async def test_download(cli: Cli, odd: OddArchive, tmp_path: Path) -> None:
    ran = await run(cli, odd, "download", "study", STUDY, "--to", tmp_path / "to", "--json")
    assert ran.json["summary"]["saved"] == len(FILES)
    assert ran.json["ok"] is not odd.finds_nothing
    if odd.finds_nothing:
        assert (ran.code, ran.json["summary"]["listing"]) == (1, "unavailable")
        assert "contradicts" in ran.error_line
        quiet = await run(cli, odd, "download", "study", STUDY, "--to", tmp_path / "to", "--quiet")
        assert (quiet.code, quiet.out) == (1, "")
        assert "contradicts" in quiet.error_line
    else:
        assert (ran.code, ran.err) == (0, "")
        assert ran.json["summary"]["listing"] in {"counted", "compared"}


async def test_upload(cli: Cli, odd: OddArchive, tmp_path: Path) -> None:
    file = tmp_path / "one.dcm"
    file.write_bytes(small_dicom(uid(7), uid(7, 1), uid(7, 1, 1)))
    ran = await run(cli, odd, "upload", file, "--json")
    assert (ran.code, ran.json["summary"]["stored"]) == (0, 1)


FOUND = {
    "ignores filters written as tags": "ok: keywords are heeded; tags are not",
    "ignores filters written as keywords": "differs: keywords are not heeded, tags are",
    "ignores all filters": "differs: neither keywords nor tags are heeded",
    "ignores all filters and paging": "differs: neither keywords nor tags are heeded",
    "has no list of a study's instances": "ok: keywords are heeded; so are tags",
    "answers [] to every search": "unknown: nothing was found to tell whether they are heeded",
}


async def test_doctor(cli: Cli, odd: OddArchive) -> None:
    ran = await run(cli, odd, "doctor", "--json")
    found = {one["check"]: f"{one['verdict']}: {one['found']}" for one in ran.json["findings"]}
    assert found["filters are written as"] == FOUND[odd.odd]
    assert ran.code == (1 if odd.odd in IGNORES else 0)
    assert ran.json["usable"] is (ran.code == 0)
    (form,) = [one for one in ran.json["findings"] if one["check"] == "filters are written as"]
    assert form["switch"] == 'dialect=replace(DICOMWEB, filter_form="tag")'
    if odd.odd == "ignores filters written as keywords":
        assert 'set filter_form="tag"' in ran.err
        assert found["search by keyword"].startswith("differs: ignored: ")
        assert found["search by tag"] == "note: 200, application/dicom+json, 1 result"
    if odd.odd == "ignores filters written as tags":
        assert found["search by tag"].startswith("note: ignored: ")
        assert found["search by keyword"] == "ok: 200, application/dicom+json, 1 result"
    if odd.no_study_list:
        text = "differs: 404, no type; they are listed series by series"
        assert found["search instances of a study"] == text
    if odd.finds_nothing:
        assert ran.err == "it answers, but nothing was found in it to try searches and retrieves on\n"
        assert ran.json["tried"] is False


async def test_doctor_on_long_urls(cli: Cli) -> None:
    ran = await run(cli, make_odd(longest=1000), "doctor", "--json")
    found = {one["check"]: f"{one['verdict']}: {one['found']}" for one in ran.json["findings"]}
    assert found["the longest URL"] == "differs: about 2000 bytes: 414"


async def test_doctor_where_parents_are_filters(cli: Cli) -> None:
    """An archive in PostDICOM's shapes that ignores the filters which name a study and a series.

    The first series it has is of the study asked for; so it is for a study that nobody has.
    """
    for odd in ("ignores all filters", "ignores all filters and paging"):
        ran = await run(cli, make_odd(odd), "doctor", "--json", "--dialect", "postdicom")
        found = {one["check"]: f"{one['verdict']}: {one['found']}" for one in ran.json["findings"]}
        assert found["search series of a study"].startswith("differs: 200, application/dicom+json, ")
        assert found["search series of a study"].endswith(", not of the one asked for")
        assert ran.code == 1
        assert "search series of a study" in ran.error_line
        assert uid() not in ran.out + ran.err
