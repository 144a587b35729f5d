"""Documents: told by content and name, attached to an order once, never twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import (
    CloudWire,
    ConnectionFailed,
    LocalFileError,
    ProgressEvent,
    ServerError,
    Status,
    UsageError,
)
from postdicom_async.cloud.documents import type_by_content, type_by_name
from postdicom_async.emulator.cloud.oddities import Drop
from tests.cloud.conftest import INSTITUTION, Account, client_of
from tests.cloud.files import PART
from tests.cloud.service import CloudService, Received, envelope_frame, refusal, success, uuid
from tests.faults.clients import settings

DOCUMENT_PART = (23, 4)
UNKNOWN = "5a1c0000-0000-4000-8000-999999999999"
BEGINNINGS = {
    "pdf": b"%PDF-1.7\n",
    "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "jpeg": b"\xff\xd8\xff\xe1",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "bmp": b"BM\x36\x00\x0c\x00\0\0\0\0\x36\0\0\0",
    "mp4": b"\0\0\0\x18ftypmp42",
}
MEDIA_TYPES = {"pdf": "application/pdf", "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png",
               "bmp": "image/bmp", "mp4": "video/mp4"}  # fmt: skip


def document(path: Path, size: int, kind: str = "pdf") -> bytes:
    beginning = BEGINNINGS[kind]
    data = beginning + random.Random(size).randbytes(size - len(beginning))
    path.write_bytes(data)
    return data


async def an_order(account: Account) -> str:
    order = await account.api.orders.create(
        institution_uuid=INSTITUTION, patient_name="Doe^Jane", patient_id="1", modality="CT"
    )
    return str(order.patient_order_uuid)


def attached(account: Account, order: str) -> dict[str, tuple[str, bytes]]:
    found = account.server.cloud.documents(order)
    assert len({one.name for one in found}) == len(found), "attached twice"
    return {one.name: (one.type, one.path.read_bytes()) for one in found}


async def test_all_five_kinds(account: Account, tmp_path: Path) -> None:
    files = {f"Scan.{kind}": document(tmp_path / f"Scan.{kind}", 2000, kind) for kind in BEGINNINGS}
    order = await an_order(account)
    report = await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    assert report.counts == {Status.STORED: 6}
    assert report.bytes_sent == 12_000
    assert report.patient_order_uuids == (order,)
    assert attached(account, order) == {
        name: (MEDIA_TYPES[name.rpartition(".")[2]], data) for name, data in files.items()
    }


async def test_one_that_is_given_twice_is_attached_once(account: Account, tmp_path: Path) -> None:
    files = {"Scan.pdf": document(tmp_path / "Scan.pdf", PART + 1)}
    document(tmp_path / "Scan.txt", 10)
    order = await an_order(account)
    given = [tmp_path / "Scan.pdf", tmp_path, tmp_path / "." / "Scan.pdf"]
    report = await account.api.upload_documents(given, order, institution_uuid=INSTITUTION)
    assert [one.status for one in report.outcomes] == ["stored", "duplicate", "failed", "duplicate"]
    assert [one.patient_order_uuid for one in report.outcomes] == [order, order, None, order]
    assert {name: data for name, (_, data) in attached(account, order).items()} == files
    assert [part.parameters["TotalFileCount"] for part in account.server.cloud.sent(DOCUMENT_PART)] == [1, 1]


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 17])
async def test_parts(account: Account, tmp_path: Path, size: int) -> None:
    data = document(tmp_path / "Scan.pdf", size)
    order = await an_order(account)
    report = await account.api.upload_documents([tmp_path / "Scan.pdf"], order, institution_uuid=INSTITUTION)
    assert report.ok
    assert attached(account, order) == {"Scan.pdf": ("application/pdf", data)}
    parts = account.server.cloud.sent(DOCUMENT_PART)
    total = -(-size // PART)
    assert [part.parameters["CurrentFilePartIndex"] for part in parts] == list(range(total))
    assert sum(part.data_length for part in parts) == size
    assert set(account.server.cloud.most_in_flight.values()) == {1}
    assert {part.socket for part in parts} == {1}, "documents travel on the main socket"
    one_part = size < PART
    expected = ["SessionUniqueUuid", "InstitutionUuid", "UserUuid", "FileIndex"]
    expected += [] if one_part else ["TotalFileCount"]
    expected += ["CurrentFilePartIndex", "CurrentFileTotalPartCount", "PatientOrderUuid", "FileName", "FileType"]
    assert list(parts[0].parameters) == [*expected, "IsDocument", "ApiKey", "AccountKey"]


async def test_as_the_vendors_library_sends_them(account: Account, tmp_path: Path) -> None:
    data = document(tmp_path / "Scan.pdf", 2 * PART + 5)
    order = await an_order(account)
    async with client_of(account.server, wire=CloudWire(documents_as_script=True)) as api:
        assert (await api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)).ok
    assert attached(account, order) == {"Scan.pdf": ("application/pdf", data)}
    parts = account.server.cloud.sent(DOCUMENT_PART)
    assert [part.data_length for part in parts] == [len(data)] * 3
    assert [part.parameters["FileBuffer"] for part in parts] == [PART, PART, 5]
    names = list(parts[0].parameters)
    assert names[6:9] == ["CurrentFileTotalPartCount", "FileBuffer", "PatientOrderUuid"]


async def test_others_are_refused_by_name(account: Account, tmp_path: Path) -> None:
    document(tmp_path / "fine.pdf", 100)
    (tmp_path / "letter.docx").write_bytes(b"PK\3\4" + b"\0" * 100)
    (tmp_path / "picture.png").write_bytes(BEGINNINGS["jpg"])
    (tmp_path / "nameless").write_bytes(BEGINNINGS["pdf"])
    (tmp_path / "empty.pdf").write_bytes(b"")
    order = await an_order(account)
    report = await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    reasons = {Path(one.where).name: (one.status, one.reason) for one in report.outcomes}
    assert reasons == {
        "fine.pdf": (Status.STORED, None),
        "letter.docx": (Status.FAILED, "no PDF, JPEG, PNG, BMP or MP4"),
        "picture.png": (Status.FAILED, "it is JPEG, but its name does not say so"),
        "nameless": (Status.FAILED, "it is PDF, but its name does not say so"),
        "empty.pdf": (Status.UNREADABLE, "empty file"),
    }
    assert not report.ok
    assert list(attached(account, order)) == ["fine.pdf"]


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_kinds(kind: str) -> None:
    found = type_by_content(BEGINNINGS[kind])
    assert found is not None
    assert found is type_by_name(f"Some. file.{kind.upper()}")
    assert found.media_type == MEDIA_TYPES[kind]


@pytest.mark.parametrize("data", [b"", b"B", b"BM", b"BMW is no bitmap", b"\xff\xd8", b"ftyp", b"\0" * 1030 + b"%PDF-"])
def test_what_is_no_document(data: bytes) -> None:
    assert type_by_content(data) is None


@pytest.mark.parametrize("name", ["", "pdf", "a.pdfx", "a.", "a.dcm"])
def test_names_of_no_document(name: str) -> None:
    assert type_by_name(name) is None


def test_a_pdf_may_begin_a_little_late() -> None:
    found = type_by_content(b"\n" * 1000 + b"%PDF-1.4")
    assert found is not None
    assert found.name == "PDF"


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2])
async def test_a_refused_part_is_sent_again_with_its_document(account: Account, tmp_path: Path, nth: int) -> None:
    data = document(tmp_path / "Scan.pdf", 3 * PART)
    order, oddities = await an_order(account), account.server.cloud.oddities
    seen = 0

    def refuse(key: Any, envelope: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        seen += key == DOCUMENT_PART
        if key == DOCUMENT_PART and seen == nth:
            return {"ResponseCode": 0, "ResponseMessage": None, "Message": "not now"}
        return envelope

    oddities.envelope = refuse
    report = await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    assert report.ok
    assert attached(account, order) == {"Scan.pdf": ("application/pdf", data)}


async def test_a_refused_last_part_is_not_repeated(account: Account, tmp_path: Path) -> None:
    """Nobody knows what a service that says no to a whole document has made of it."""
    document(tmp_path / "Scan.pdf", 100)
    order = await an_order(account)
    account.server.cloud.oddities.refused[DOCUMENT_PART] = 1
    report = await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    assert report.counts == {Status.FAILED: 1}
    assert len(account.server.cloud.sent(DOCUMENT_PART)) == 1


@pytest.mark.parametrize("when", ["before", "after", "during"])
async def test_a_lost_answer_inside_a_document(account: Account, tmp_path: Path, when: Any) -> None:
    data = document(tmp_path / "Scan.pdf", 3 * PART)
    order = await an_order(account)
    account.server.cloud.oddities.drops.append(Drop(when, DOCUMENT_PART, 2))
    report = await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    assert report.ok
    assert attached(account, order) == {"Scan.pdf": ("application/pdf", data)}


@pytest.mark.parametrize("own_session", [False, True])
async def test_a_lost_session_inside_a_document(tmp_path: Path, own_session: bool) -> None:
    """What the service held of it may be lost as well, even where it knows the id of the upload."""
    data = document(tmp_path / "Scan.pdf", 3 * PART)
    held: list[bytes] = []
    attached: list[bytes] = []
    lost = False

    class Losing(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            nonlocal lost
            if request.message_type == 3 and request.fields["SessionUuid"] != self.session:
                await connection.send(refusal(request))
                return
            await super()._reply(connection, request)
            if len(held) == 2 and not lost:
                lost, self.session = True, uuid(2)
                held.clear()
                self.drop()

    def answer(request: Received) -> bytes:
        if request.key == DOCUMENT_PART:
            held.append(request.data)
            if request.fields["CurrentFilePartIndex"] == 2:
                attached.append(b"".join(held))
        own = {"SessionUniqueUuid": uuid(7)} if own_session else {}
        return envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": {"Success": True}, **own})

    async with Losing(answer) as service, service.client() as api:
        report = await api.upload_documents(tmp_path, uuid(1))
    assert report.ok
    assert attached == [data]


@pytest.mark.parametrize("when", ["before", "after", "during"])
async def test_a_lost_last_answer_is_not_repeated(account: Account, tmp_path: Path, when: Any) -> None:
    document(tmp_path / "A.pdf", 2 * PART)
    document(tmp_path / "B.pdf", 100)
    order = await an_order(account)
    account.server.cloud.oddities.drops.append(Drop(when, DOCUMENT_PART, 2))
    report = await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    assert [(one.status, one.reason) for one in report.outcomes] == [
        (Status.UNCONFIRMED, "the connection broke"),
        (Status.STORED, None),
    ]
    assert "B.pdf" in attached(account, order)
    assert len(account.server.cloud.sent(DOCUMENT_PART)) == 3


async def test_reasons_do_not_name_the_file(account: Account, tmp_path: Path) -> None:
    document(tmp_path / "Quillfeather Jane.pdf", 100)
    order, oddities = await an_order(account), account.server.cloud.oddities
    oddities.refused[DOCUMENT_PART] = 99
    oddities.refusal_text = "Quillfeather Jane.pdf is not wanted"
    report = await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    assert report.failures[0].status is Status.FAILED
    assert report.failures[0].reason == "[sent value] is not wanted"


async def test_the_service_goes_away(account: Account, tmp_path: Path) -> None:
    for name in "abcd":
        document(tmp_path / f"{name}.pdf", PART + 10)
    order, cloud = await an_order(account), account.server.cloud
    cloud.oddities.latency = 0.01

    async def leave() -> None:
        while len(cloud.sent(DOCUMENT_PART)) < 4:
            await asyncio.sleep(0.001)
        await account.server.__aexit__(None, None, None)

    leaving = asyncio.create_task(leave())
    with pytest.raises(ConnectionFailed) as caught:
        await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION)
    await leaving
    report: Any = caught.value.report
    assert report.outcomes[0].status is Status.STORED
    assert [one.status for one in report.outcomes[2:]] == [Status.FAILED] * 2
    assert report.outcomes[3].reason.startswith("not sent: ")


async def test_progress(account: Account, tmp_path: Path) -> None:
    document(tmp_path / "A.pdf", 3 * PART)
    document(tmp_path / "B.pdf", 100)
    events: list[ProgressEvent] = []
    order = await an_order(account)
    account.server.cloud.oddities.drops.append(Drop("after", DOCUMENT_PART, 2))
    await account.api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION, progress=events.append)
    done = [event.totals.bytes_done for event in events]
    assert done == sorted(done)
    last = events[-1].totals
    assert (last.bytes_done, last.instances_done) == (last.bytes_total, last.instances_total) == (3 * PART + 100, 2)


async def test_mistakes(account: Account, tmp_path: Path) -> None:
    api, order = account.api, await an_order(account)
    with pytest.raises(UsageError, match="patient_order_uuid: not a UUID"):
        await api.upload_documents(tmp_path, "no", institution_uuid=INSTITUTION)
    with pytest.raises(UsageError, match="institution_uuid: the account has 2"):
        await api.upload_documents(tmp_path, order)
    with pytest.raises(UsageError, match="sources: give paths"):
        await api.upload_documents([b"%PDF-1.7"], order, institution_uuid=INSTITUTION)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="progress: "):
        await api.upload_documents(tmp_path, order, institution_uuid=INSTITUTION, progress=5)  # type: ignore[arg-type]
    with pytest.raises(LocalFileError, match="does not exist"):
        await api.upload_documents(tmp_path / "none", order, institution_uuid=INSTITUTION)
    assert not [frame for frame in account.server.cloud.frames if frame.message_type == 23]
    document(tmp_path / "a.pdf", 100)
    report = await api.upload_documents(tmp_path, UNKNOWN, institution_uuid=INSTITUTION)
    assert "no such" in str(report.failures[0].reason)


async def test_an_upload_that_is_refused(account: Account, tmp_path: Path) -> None:
    document(tmp_path / "a.pdf", 100)
    account.server.cloud.oddities.refused[(23, 1)] = 1
    with pytest.raises(ServerError, match="upload documents: the service refused the upload"):
        await account.api.upload_documents(tmp_path, await an_order(account), institution_uuid=INSTITUTION)


async def test_never_answered(tmp_path: Path) -> None:
    document(tmp_path / "a.pdf", 100)

    def answer(request: Received) -> bytes | None:
        return None if request.key == DOCUMENT_PART else success(request)

    async with CloudService(answer) as service, service.client(settings=settings(answer=0.2)) as api:
        report = await api.upload_documents(tmp_path, UNKNOWN)
    assert report.counts == {Status.UNCONFIRMED: 1}
    assert [one.key for one in service.sent(23)] == [(23, 1), DOCUMENT_PART]
