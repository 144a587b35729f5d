"""Every public call of a DICOMweb client, failed in each way: its error has no frame of the package in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from postdicom_async import Anonymization, DicomWeb, PostdicomError, diagnose, read_files
from tests.faults.archive import MemoryArchive, uids_of
from tests.faults.clients import settings
from tests.support.bodies import multipart_related
from tests.support.canaries import CANARIES, CanaryWatch, frames_that_left
from tests.support.dicom_files import small_dicom
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.unit.test_face import own_members

if TYPE_CHECKING:
    from tests.faults.clients import Connect

BASIC = (CANARIES["username"], CANARIES["password"])
NAME, QUERY, HEADER = CANARIES["patient_name"], CANARIES["query"], CANARIES["header"]
FILTERS = {
    "PatientName": f"{NAME}*",
    "PatientID": CANARIES["patient_id"],
    "PatientBirthDate": CANARIES["birth_date"],
    "AccessionNumber": CANARIES["accession"],
}
FILE = small_dicom(patient_name=NAME, patient_id=CANARIES["patient_id"])
STUDY, SERIES, INSTANCE = UIDS = uids_of(FILE)
VIEW: dict[str, Any] = {"media_type": f"image/{HEADER}", "parameters": {"annotation": NAME}}
ANONYMIZE = Anonymization({"PatientName": NAME, "PatientID": CANARIES["patient_id"]}, secret=CANARIES["token"])


async def several() -> AsyncIterator[bytes]:
    yield FILE
    yield small_dicom(instance="1.2.3.9", patient_name=NAME)


async def each(things: Any) -> None:
    async for _ in things:
        pass


async def each_chunk(parts: Any) -> None:
    async with parts:
        async for part in parts:
            await each(part)


async def read_and_drained(parts: Any) -> None:
    async for part in parts:
        await part.read(10)
        await part.drain()


Call = Callable[[DicomWeb, Path], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "search_for_studies": lambda a, _: a.search_for_studies(FILTERS).all(),
    "search_for_studies first": lambda a, _: a.search_for_studies(FILTERS).first(),
    "search_for_studies raw": lambda a, _: a.search_for_studies(FILTERS).raw.all(),
    "search_for_series": lambda a, _: each(a.search_for_series(FILTERS, study_instance_uid=STUDY)),
    "search_for_instances": lambda a, _: each(a.search_for_instances(FILTERS).raw),
    "retrieve_study_metadata": lambda a, _: a.retrieve_study_metadata(STUDY).all(),
    "retrieve_series_metadata": lambda a, _: a.retrieve_series_metadata(STUDY, SERIES).first(),
    "retrieve_instance_metadata": lambda a, _: each(a.retrieve_instance_metadata(*UIDS)),
    "retrieve_instance": lambda a, _: a.retrieve_instance(*UIDS),
    "retrieve_instance_frames": lambda a, _: a.retrieve_instance_frames(*UIDS, [1], media_type=f"image/{HEADER}"),
    "retrieve_bulkdata": lambda a, _: a.retrieve_bulkdata(f"bulk/{QUERY}?n={NAME}", media_type=f"image/{HEADER}"),
    "iter_study": lambda a, _: each_chunk(a.iter_study(STUDY)),
    "iter_series": lambda a, _: each(a.iter_series(STUDY, SERIES)),
    "iter_instance": lambda a, _: read_and_drained(a.iter_instance(*UIDS)),
    "iter_instance_frames": lambda a, _: each_chunk(a.iter_instance_frames(*UIDS, [1], media_type=f"image/{HEADER}")),
    "retrieve_study_rendered": lambda a, _: a.retrieve_study_rendered(STUDY, **VIEW),
    "retrieve_series_rendered": lambda a, _: a.retrieve_series_rendered(STUDY, SERIES, **VIEW),
    "retrieve_instance_rendered": lambda a, _: a.retrieve_instance_rendered(*UIDS, **VIEW),
    "retrieve_instance_frames_rendered": lambda a, _: a.retrieve_instance_frames_rendered(*UIDS, [1], **VIEW),
    "retrieve_study_thumbnail": lambda a, _: a.retrieve_study_thumbnail(STUDY, media_type=f"image/{HEADER}"),
    "retrieve_series_thumbnail": lambda a, _: a.retrieve_series_thumbnail(STUDY, SERIES),
    "retrieve_instance_thumbnail": lambda a, _: a.retrieve_instance_thumbnail(*UIDS),
    "store_instances": lambda a, _: a.store_instances([FILE, pydicom.dcmread(BytesIO(FILE))]),
    "upload": lambda a, folder: a.upload([folder, FILE], anonymize=ANONYMIZE),
    "upload iterable": lambda a, _: a.upload(several()),
    "upload_each": lambda a, folder: each(a.upload_each([folder, FILE], anonymize=ANONYMIZE)),
    "download_each": lambda a, folder: each(a.download_each(STUDY, to=folder / CANARIES["path"])),
    "download_study": lambda a, folder: a.download_study(STUDY, to=folder / CANARIES["path"]),
    "download_series": lambda a, folder: a.download_series(STUDY, SERIES, to=folder / CANARIES["path"]),
    "download_instance": lambda a, folder: a.download_instance(*UIDS, to=folder / CANARIES["path"]),
    "delete_study": lambda a, _: a.delete_study(STUDY),
    "delete_series": lambda a, _: a.delete_series(STUDY, SERIES),
    "delete_instance": lambda a, _: a.delete_instance(*UIDS),
}  # fmt: skip

OTHERS = {"with_options", "settings", "transport_name", "internals"}
MISTAKES: dict[str, Call] = {
    "search": lambda a, _: a.search_for_studies({"PatientName": f"{NAME}\0"}).all(),
    "search by what is no attribute": lambda a, _: a.search_for_studies({NAME: NAME}).all(),
    "fields": lambda a, _: a.search_for_studies(FILTERS, fields=[NAME]).all(),
    "limit": lambda a, _: a.search_for_series(FILTERS, limit=NAME).all(),  # type: ignore[arg-type]
    "uid": lambda a, _: a.retrieve_study_metadata(CANARIES["patient_id"]).all(),
    "frames": lambda a, _: each(a.iter_instance_frames(*UIDS, [NAME])),  # type: ignore[list-item]
    "media type": lambda a, _: a.retrieve_instance_rendered(*UIDS, media_type=f"{HEADER}\n"),
    "parameters": lambda a, _: a.retrieve_instance_rendered(*UIDS, parameters=NAME),  # type: ignore[arg-type]
    "bulk data": lambda a, _: a.retrieve_bulkdata(f"http://x.example/{NAME}"),
    "source": lambda a, _: a.upload([object(), NAME.encode()]),  # type: ignore[list-item]
    "anonymize": lambda a, _: a.upload(FILE, anonymize={"PatientName": NAME}),  # type: ignore[arg-type]
    "no such argument": lambda a, _: a.upload(FILE, study=NAME),  # type: ignore[call-arg]
    "an argument too many": lambda a, _: a.delete_study(STUDY, NAME),  # type: ignore[call-arg]
    "folder": lambda a, _: a.download_study(STUDY, to=f"{CANARIES['path']}\0"),
    "layout": lambda a, folder: a.download_study(STUDY, to=folder, layout="{" + NAME + "}"),
    "opened twice": lambda a, _: a.__aenter__(),
}  # fmt: skip

WORDS = " ".join([*CANARIES.values(), NAME.replace("^", " ")])
ABOUT = json.dumps({"Message": WORDS}).encode()
JSON = {"Content-Type": "application/dicom+json"}
FAULTS: dict[str, Callable[[Request], Reply]] = {
    "refused": lambda _: Reply(400, {"X-Error-Reason": WORDS, "Content-Type": "application/json"}, ABOUT),
    "gone": lambda _: Reply(410, {"Content-Type": "text/plain"}, WORDS.encode()),
    "no DICOM": lambda _: Reply(200, {"Content-Type": "text/plain"}, WORDS.encode()),
    "an object": lambda _: Reply(200, JSON, ABOUT),
    "cut": lambda _: multipart_related([FILE]).reply(cut_after=700),
    "lost": lambda _: Reply(raw=b""),
}


def test_every_public_method_is_called() -> None:
    called = {name.partition(" ")[0] for name in CALLS}
    assert {name for name in own_members(DicomWeb) if not name.startswith("_")} == called | OTHERS


async def looked_at(call: Awaitable[Any], watch: CanaryWatch) -> BaseException | None:
    """Make a call; look at what came out, and at the error's frames, as a crash reporter would."""
    error: BaseException | None = None
    found: Any = None
    try:
        found = await call
    except (PostdicomError, TypeError, asyncio.CancelledError, TimeoutError) as caught:
        error = caught
    if error is not None:
        watch.feed(error)
        watch.feed(getattr(error, "origin", ()))
        assert not frames_that_left(error)
    outcomes = found if isinstance(found, tuple) else getattr(found, "outcomes", ())
    assert all(outcome.status != "stored" for outcome in outcomes)
    return error


@pytest.mark.parametrize("fault", FAULTS)
async def test_calls_that_fail(fault: str, connect: Connect, canary_watch: CanaryWatch, tmp_path: Path) -> None:
    failed = set()
    using = settings(max_attempts=1, idle_read=1)
    (tmp_path / "one.dcm").write_bytes(FILE)
    async with (
        FaultyServer(FAULTS[fault]) as server,
        connect(f"{server.url}/{CANARIES['path']}", using, auth=BASIC) as archive,
    ):
        for name, call in CALLS.items():
            if await looked_at(call(archive, tmp_path), canary_watch):
                failed.add(name)
    assert len(failed) >= 8


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistakes(mistake: str, connect: Connect, canary_watch: CanaryWatch, tmp_path: Path) -> None:
    async with FaultyServer(MemoryArchive([FILE])) as server, connect(server.url, auth=BASIC) as archive:
        failed = None
        try:
            failed = await looked_at(MISTAKES[mistake](archive, tmp_path), canary_watch)
        except (PostdicomError, TypeError) as error:  # raised before there was anything to await
            canary_watch.feed(error)
            assert not frames_that_left(error)  # noqa: PT017
            failed = error
    assert failed is not None or mistake == "anonymize"


async def test_a_session_that_is_not_open(connect: Connect, canary_watch: CanaryWatch, tmp_path: Path) -> None:
    archive = connect("http://127.0.0.1:1", auth=BASIC)
    for name, call in CALLS.items():
        assert await looked_at(call(archive, tmp_path), canary_watch), name


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_calls_that_are_ended_by_their_caller(
    how: str, connect: Connect, canary_watch: CanaryWatch, tmp_path: Path
) -> None:
    """``asyncio.timeout`` hands the cancellation on as the cause of its own exception, frames and all."""

    async def ended(call: Awaitable[Any]) -> None:
        if how == "timed out":
            async with asyncio.timeout(0.05):
                await call
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    async with FaultyServer(Reply(silent=True)) as server, connect(server.url, settings(), auth=BASIC) as archive:
        for name in ("search_for_studies", "upload", "retrieve_bulkdata", "iter_study", "download_study"):
            assert await looked_at(ended(CALLS[name](archive, tmp_path)), canary_watch), name


async def test_what_a_diagnosis_holds(connect: Connect, canary_watch: CanaryWatch) -> None:
    async with FaultyServer(FAULTS["refused"]) as server, connect(server.url, settings(max_attempts=1)) as archive:
        found = await diagnose(archive)
    assert found.problem is not None
    canary_watch.feed(found)
    canary_watch.feed(found.problem)
    assert not frames_that_left(found.problem)


async def test_reports_on_errors(connect: Connect, canary_watch: CanaryWatch, tmp_path: Path) -> None:
    async with FaultyServer(FAULTS["cut"]) as server, connect(server.url, settings(max_attempts=1)) as archive:
        error = await looked_at(archive.download_study(STUDY, to=tmp_path / CANARIES["path"]), canary_watch)
    assert error is not None
    canary_watch.feed(getattr(error, "report", None))


async def test_files_that_are_read(tmp_path: Path, canary_watch: CanaryWatch) -> None:
    folder = tmp_path / CANARIES["path"]
    folder.mkdir()
    (folder / "a").write_bytes(FILE)
    scan = await read_files(folder)
    canary_watch.feed(scan)
    canary_watch.feed(scan.studies)
