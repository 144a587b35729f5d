"""The API as a user writes it. Nothing here runs: a type checker reads it, see test_public_api.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, assert_type

import httpx
from pydicom.dataset import Dataset

from postdicom_async import (
    DICOMWEB,
    Account,
    Anonymization,
    BytesMoved,
    CloudApi,
    CloudWire,
    DicomWeb,
    DownloadReport,
    Folder,
    IncompleteDownload,
    InstanceFinished,
    InstanceUids,
    Institution,
    Limits,
    Outcome,
    Outcomes,
    Part,
    PatientOrder,
    PostDicom,
    PostdicomError,
    ProgressEvent,
    Rendered,
    Results,
    Retry,
    Scan,
    ScanProgress,
    Settings,
    ShareLink,
    Status,
    Timeouts,
    Tls,
    UploadReport,
    User,
    read_files,
)
from postdicom_async.events import ArchiveSilent, AttemptFailed, Event, GaveUp, InstanceEnded, JobEnded, RequestEnded


def on_event(event: Event) -> None:
    if isinstance(event, AttemptFailed):
        assert_type(event.attempt, int)
        assert_type(event.status, int | None)
        assert_type(event.next_in, float)
    elif isinstance(event, GaveUp):
        assert_type(event.attempts, int)
        assert_type(event.temporary, bool)
    elif isinstance(event, ArchiveSilent):
        assert_type(event.silences, int)
    elif isinstance(event, RequestEnded):
        assert_type(event.seconds, float)
        assert_type(event.error, str | None)
    elif isinstance(event, InstanceEnded):
        assert_type(event.size, int)
    elif isinstance(event, JobEnded):
        assert_type(event.counts, Mapping[str, int])


SETTINGS = Settings(
    timeouts=Timeouts(connect=5, search_answer=30, least_rate=0, least_rate_window=30, deadline=20),
    retry=Retry(max_attempts=2, max_silences=1),
    limits=Limits(connections=4, json_item_bytes=1 << 20, parallel_searches=2, parallel_retrieves=4),
    tls=Tls(ca_file=Path("ca.pem")),
    fsync=False,
    on_event=on_event,
)


async def token() -> str:
    return "token"


CLIENTS = [
    DicomWeb("https://archive.example/dicom-web"),
    DicomWeb("https://archive.example", auth=("user", "password"), settings=SETTINGS),
    DicomWeb("https://archive.example", auth="token", dialect="postdicom"),
    DicomWeb("https://archive.example", auth=token, transport=httpx.MockTransport(lambda _: httpx.Response(200))),
    DicomWeb("https://archive.example", auth=lambda: "token"),
    DicomWeb("https://archive.example", auth=httpx.BasicAuth("user", "password")),
    PostDicom("https://account.example", "user", "password"),
]


def on_progress(event: ProgressEvent) -> None:
    if isinstance(event, BytesMoved):
        assert_type(event.totals.bytes_done, int)
    else:
        assert_type(event, InstanceFinished)
        assert_type(event.outcome, Outcome)
    assert_type(event.totals.bytes_total, int | None)


def dialects() -> None:
    DicomWeb("https://archive.example", dialect=replace(DICOMWEB, filter_form="tag", url_bytes=4000))


async def search(archive: DicomWeb) -> None:
    studies = archive.search_for_studies(
        {"PatientName": "DOE*", "StudyDate": (date(2020, 1, 1), None)}, fields=["StudyDescription"], limit=10, offset=5
    )
    assert_type(studies, Results[Dataset])
    async for study in studies:
        assert_type(study, Dataset)
    assert_type(await studies.first(), Dataset | None)
    assert_type(await studies.all(), list[Dataset])
    assert_type(await studies.raw.all(), list[dict[str, Any]])
    assert_type(studies.warnings, list[str])
    archive.search_for_series(study_instance_uid="1.2")
    archive.search_for_instances({"StudyInstanceUID": ["1.2", "1.3"]}, fuzzymatching=True)
    assert_type(await archive.retrieve_series_metadata("1.2", "1.3").first(), Dataset | None)


async def chunks_of_files() -> AsyncIterator[bytes]:
    yield b""


class Reader:
    async def read(self, size: int, /) -> bytes:
        return b""[:size]


async def streams(archive: DicomWeb, part: Part) -> None:
    assert_type(part.uids, InstanceUids | None)
    await archive.upload(part)
    await archive.upload(Reader())
    await archive.upload([part, Reader(), chunks_of_files(), Path("file")])
    await archive.upload(archive.iter_study("1.2"))


async def store(archive: DicomWeb) -> None:
    report = await archive.upload(["folder", Path("file"), Dataset(), b"bytes"], progress=on_progress)
    assert_type(report, UploadReport)
    assert_type(report.counts, Mapping[Status, int])
    for source in ("folder", Path("folder"), b"bytes", Dataset(), [Path("x")], (b"x", b"y"), chunks_of_files()):
        await archive.upload(source)
    outcomes = await archive.store_instances([b"bytes"], study_instance_uid="1.2")
    assert_type(outcomes, tuple[Outcome, ...])
    assert_type(outcomes[0].uids, InstanceUids | None)
    assert_type(outcomes[0].temporary, bool)
    await archive.upload("folder", study_instance_uid="1.2", send_truncated=True, existing="skip")
    await archive.store_instances([b"bytes"], existing="skip")
    kept = await archive.upload("folder", report=Path("report.jsonl"), report_paths=True)
    assert_type(kept.outcomes, tuple[Outcome, ...])
    await archive.delete_study("1.2")


async def one_by_one(archive: DicomWeb, api: CloudApi) -> None:
    sending = archive.upload_each("folder", existing="skip", progress=on_progress)
    assert_type(sending, Outcomes[UploadReport])
    async with sending as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Outcome)
            assert_type(outcome.status, Status)
            assert_type(outcome.ok, bool)
            assert_type(outcome.in_archive, bool)
            assert_type(outcome.where, str)
            assert_type(outcome.size, int)
            assert_type(outcome.reason_code, int | None)
            assert_type(outcome.reason, str | None)
            assert_type(outcome.patient_order_uuid, str | None)
    assert_type(outcomes.report, UploadReport)
    arriving = archive.download_each("1.2", "1.3", to="out", compare_with_search=False)
    assert_type(arriving, Outcomes[DownloadReport])
    async for outcome in arriving:
        assert_type(outcome.path, Path)
    assert_type(arriving.report.counts, Mapping[Status, int])
    assert_type(api.upload_each(["folder"], existing="send", sockets=2), Outcomes[UploadReport])
    await api.upload("folder", report="report.jsonl", report_paths=True)


async def retrieve(archive: DicomWeb) -> None:
    try:
        report = await archive.download_study("1.2", to="out", layout=lambda uids: Path(uids.sop_instance_uid))
    except IncompleteDownload as error:
        assert_type(error.report, DownloadReport)
        assert_type(error.report.missing, tuple[InstanceUids, ...])
    except PostdicomError as error:
        assert_type(error.temporary, bool)
        assert_type(error.origin, tuple[str, ...])
        assert_type(error.server_words, str | None)
    else:
        assert_type(report.contradicted, bool)
        assert_type(report.failed, bool)
        assert_type(report.listing, Literal["compared", "counted", "unavailable", "not asked"])
        assert_type(report.saved, tuple[Outcome, ...])
        assert_type(report.saved[0].path, Path)
    await archive.download_series("1.2", "1.3", to="out", report="report.jsonl", report_paths=True)
    await archive.download_instance("1.2", "1.3", "1.4", to="out", report=Path("report.jsonl"))
    async for part in archive.iter_study("1.2"):
        async for chunk in part:
            assert_type(chunk, bytes)
    assert_type(await archive.retrieve_instance("1.2", "1.3", "1.4"), Dataset)
    assert_type(await archive.retrieve_instance_frames("1.2", "1.3", "1.4", [1, 2]), list[bytes])
    assert_type(await archive.retrieve_instance_rendered("1.2", "1.3", "1.4"), Rendered)
    assert_type(await archive.retrieve_bulkdata("bulk/1"), bytes)


async def options(archive: PostDicom) -> None:
    async with archive as opened:
        assert_type(opened, PostDicom)
        assert_type(opened.with_options(retry=Retry(max_attempts=1)), PostDicom)
        for auth in (("user", "password"), "token", token, httpx.BasicAuth("user", "password"), None):
            assert_type(opened.with_options(auth=auth), PostDicom)
        assert_type(opened.transport_name, str)
        order = await opened.orders.create(
            institution_uuid="uuid",
            patient_name="DOE^JANE",
            patient_id="1",
            patient_birthdate="1970-01-31",
            modality="CT",
        )
        assert_type(order.patient_order_uuid, str)
        folder = await opened.folders.create("name")
        assert_type(folder.folder_uuid, str)
        await opened.folders.add_order(order.patient_order_uuid, [folder.folder_uuid])
        assert_type(await opened.orders.search(modalities=[], institution_uuids=[]).first(), PatientOrder | None)


async def cloud(api_key: str, account_key: str) -> None:
    wire = CloudWire(trailing_zero=False)
    async with CloudApi(api_key, account_key, user="somebody", settings=SETTINGS, wire=wire) as api:
        assert_type(api.account, Account)
        assert_type(api.account.users[0], User)
        assert_type(api.account.users[0].institutions, list[Institution])
        assert_type(await api.orders.search(study_date_from=date(2024, 1, 1)).all(), list[PatientOrder])
        assert_type(await api.orders.properties("uuid", "uuid"), PatientOrder)
        order = await api.orders.create(
            patient_name="DOE^JANE", patient_id="1", modality="CT", order_scheduled_datetime=date(2030, 1, 1)
        )
        assert_type(order.patient_order_uuid, str)
        await api.flags.set(order.patient_order_uuid, group_id="1", flag_id=2)
        await api.folders.share_with_users("uuid", ["uuid"], expires=date(2030, 1, 1), downloadable=True)
        api.as_user(api.account.users[0].user_uuid)
        assert_type(api.account.users[0].institutions[0].institution_uuid, str)
        assert_type(await api.folders.contents(), Folder)
        assert_type(await api.view.order("uuid"), ShareLink)
        assert_type(await api.users.all(), list[User])
        rules = Anonymization({"PatientName": "ANON", "PatientBirthDate": None}, remap_uids=True)
        report = await api.upload(
            [Path("a.dcm"), b"DICM"], institution_uuid="North", anonymize=rules, existing="send", progress=on_progress
        )
        assert_type(report, UploadReport)
        assert_type(report.patient_order_uuids, tuple[str, ...])
        assert_type(await api.upload_documents("letter.pdf", "uuid"), UploadReport)
        assert_type(api.as_user("other"), CloudApi)


def on_scan(event: ScanProgress) -> None:
    assert_type(event.files_done, int)


async def scan() -> None:
    found = await read_files(["folder", Path("file")], progress=on_scan)
    assert_type(found, Scan)
    assert_type(found.studies[0].paths, tuple[Path, ...])
