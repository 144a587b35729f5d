"""``existing="skip"``: what the archive lists is not sent again, and nothing else is left out for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import Anonymization, DicomWeb, PostDicom, Status, UploadReport, UsageError
from postdicom_async.emulator import EmbeddedArchive
from tests.faults.archive import MemoryArchive, is_search, parts_sent, uids_of
from tests.faults.clients import Connect, settings
from tests.support.anonymizing import anonymize
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

STUDIES = 3
FILES = [data for study in range(1, STUDIES + 1) for data in study_files(25, study=study, series=2).values()]
KEEPS_UIDS = Anonymization({"PatientName": "ANON"})
FILE = small_dicom()
COPY = anonymize(FILE, KEEPS_UIDS)
PRESENT, STORED, FAILED = Status.PRESENT, Status.STORED, Status.FAILED


def stores(server: FaultyServer) -> list[Request]:
    return [request for request in server.requests if request.method == "POST"]


def searches(server: FaultyServer) -> list[Request]:
    return [request for request in server.requests if is_search(request)]


async def upload(
    archive: Callable[[Request], Reply], sources: Any, **options: Any
) -> tuple[UploadReport, FaultyServer]:
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=settings()) as client:
        report = await client.upload(sources, **options)
    return report, server


async def test_the_same_again_sends_nothing(connect: Connect, tmp_path: Path) -> None:
    for number, data in enumerate(FILES):
        (tmp_path / f"{number:03}").write_bytes(data)
    archive = MemoryArchive()
    async with FaultyServer(archive) as server, connect(server.url) as client:
        first = await client.upload(tmp_path, existing="skip")
        asked = len(searches(server))
        again = await client.upload(tmp_path, existing="skip")
        assert first.counts == {STORED: len(FILES)}
        assert STUDIES <= asked <= 3 * STUDIES, "a list is asked for once a study, and once whose study it is"
        assert again.counts == {PRESENT: len(FILES)}
        assert again.ok
        assert again.bytes_sent == 0
        assert {one.reason for one in again.outcomes} == {"the archive lists it; not sent"}
        assert sum(len(parts_sent(request)) for request in stores(server)) == len(FILES)
        before = len(stores(server))
        sent_again = await client.upload(tmp_path)
        assert sent_again.counts == {STORED: len(FILES)}, "without the option all is sent"
        assert len(stores(server)) > before


async def test_only_the_rest_is_sent() -> None:
    archive = MemoryArchive(FILES[::3])
    report, server = await upload(archive, [*FILES, FILES[0], FILES[1]], existing="skip")
    expected = [PRESENT if number % 3 == 0 else STORED for number in range(len(FILES))]
    assert [one.status for one in report.outcomes] == [*expected, Status.DUPLICATE, Status.DUPLICATE]
    sent = [part for request in stores(server) for part in parts_sent(request)]
    assert sorted(sent) == sorted(data for number, data in enumerate(FILES) if number % 3)
    assert archive.stored == {uids_of(data): data for data in FILES}


async def test_in_one_request() -> None:
    archive = MemoryArchive(FILES[:3])
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=settings()) as client:
        outcomes = await client.store_instances(FILES[:5], existing="skip")
        assert [one.status for one in outcomes] == [PRESENT] * 3 + [STORED] * 2
        assert len(stores(server)) == 1
        assert {one.status for one in await client.store_instances(FILES[:5], existing="skip")} == {PRESENT}
        assert len(stores(server)) == 1


def of_another_study(_: Request) -> Reply:
    return json_reply([dicom_json(StudyInstanceUID=one[0], SeriesInstanceUID=one[1], SOPInstanceUID=one[2]) for one in (
        (uid(7), uid(7, 1), uids_of(FILE)[2]),
    )])  # fmt: skip


def in_another_series(_: Request) -> Reply:
    study, _series, instance = uids_of(FILE)
    return json_reply([dicom_json(StudyInstanceUID=study, SeriesInstanceUID=uid(7), SOPInstanceUID=instance)])


LISTS: dict[str, Callable[[Request], Reply]] = {
    "not offered": lambda _: Reply(404),
    "refused": lambda _: Reply(403),
    "fails": lambda _: Reply(500),
    "cut": lambda _: Reply(200, {"Content-Type": "application/dicom+json"}, b"[{}" * 99, cut_after=50),
    "no JSON": lambda _: Reply(200, {"Content-Type": "text/html"}, b"<html>"),
    "empty": lambda _: json_reply([]),
    "of another study": of_another_study,
    "in another series": in_another_series,
}


@pytest.mark.parametrize("kind", LISTS)
async def test_where_there_is_no_list_or_a_wrong_one_all_is_sent(kind: str) -> None:
    def fault(request: Request) -> Reply | None:
        return LISTS[kind](request) if is_search(request) else None

    archive = MemoryArchive([FILE], fault=fault)
    report, server = await upload(archive, [FILE], existing="skip")
    assert report.counts == {STORED: 1}
    assert len(stores(server)) == 1


# --- copies that keep the UIDs of what they were made from ------------------------------------------------------------


@pytest.mark.parametrize("held", ["the original", "the copy", "nothing"])
async def test_an_anonymised_copy_is_never_sent_over_what_may_be_its_original(held: str) -> None:
    files = {"the original": [FILE], "the copy": [COPY], "nothing": []}[held]
    archive = MemoryArchive(files)
    report, server = await upload(archive, [FILE], anonymize=KEEPS_UIDS, existing="skip")
    (outcome,) = report.outcomes
    if held == "the original":
        assert outcome.status is FAILED
        assert (
            "perhaps the original; not sent: anonymise the UIDs too (remap_uids=True), or give existing='send'"
            in str(outcome.reason)
        )
    else:
        assert outcome.status is (PRESENT if held == "the copy" else STORED)
    assert len(stores(server)) == (1 if held == "nothing" else 0)
    assert list(archive.stored.values()) == (files or [COPY])


@pytest.mark.parametrize(("status", "temporary"), [(500, True), (403, True), (406, False)])
async def test_a_copy_that_cannot_be_compared_is_not_sent(status: int, temporary: bool) -> None:
    def fault(request: Request) -> Reply | None:
        return Reply(status) if request.method == "GET" and not is_search(request) else None

    archive = MemoryArchive([COPY], fault=fault)
    report, server = await upload(archive, [FILE], anonymize=KEEPS_UIDS, existing="skip")
    assert [(one.status, one.temporary) for one in report.outcomes] == [(FAILED, temporary)]
    assert stores(server) == []


async def test_a_copy_that_is_listed_and_not_there_is_sent() -> None:
    def fault(request: Request) -> Reply | None:
        gone = request.method == "GET" and not is_search(request) and not stored
        stored.extend([1] if request.method == "POST" else [])
        return Reply(404) if gone else None

    stored: list[int] = []
    archive = MemoryArchive([FILE], fault=fault)
    report, server = await upload(archive, [FILE], anonymize=KEEPS_UIDS, existing="skip")
    assert [one.status for one in report.outcomes] == [STORED]
    assert len(stores(server)) == 1


async def test_copies_with_other_uids_are_new() -> None:
    rules = Anonymization({"PatientName": "ANON"}, remap_uids=True, secret="of the tests")
    archive = MemoryArchive([FILE])
    assert (await upload(archive, [FILE], anonymize=rules, existing="skip"))[0].counts == {STORED: 1}
    assert (await upload(archive, [FILE], anonymize=rules, existing="skip"))[0].counts == {PRESENT: 1}
    assert len(archive.stored) == 2


# --- against the embedded archive -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["DICOMweb", "PostDICOM"])
async def test_the_same_again_at_an_archive(kind: str, embedded_archive: EmbeddedArchive) -> None:
    auth = embedded_archive.auth
    assert auth is not None
    client = (
        DicomWeb(embedded_archive.url, auth=auth, settings=settings())
        if kind == "DICOMweb"
        else PostDicom(embedded_archive.url, *auth, settings=settings())
    )
    async with client as archive:
        assert (await archive.upload(FILES, existing="skip")).counts == {STORED: len(FILES)}
        outcomes = [one async for one in archive.upload_each(FILES, existing="skip")]
    assert [one.status for one in outcomes] == [PRESENT] * len(FILES)


@pytest.mark.parametrize("wrong", ["Skip", "", None, True])
async def test_another_word(wrong: Any) -> None:
    async with DicomWeb("http://127.0.0.1:1", settings=settings()) as client:
        with pytest.raises(UsageError, match="existing: give 'skip' or 'send'"):
            await client.upload([FILE], existing=wrong)
