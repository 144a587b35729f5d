"""Uploads to a service that refuses, drops connections, forgets or goes away: no file is lost, or said to be stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import CloudWire, ConnectionFailed, PostdicomError, Status
from postdicom_async.emulator.cloud.oddities import Drop
from tests.cloud.conftest import INSTITUTION, Account, client_of
from tests.cloud.files import PART, dicom_of_size, held_by, study_in
from tests.cloud.service import SESSION, CloudService, Received, envelope_frame, refusal, success, uuid
from tests.faults.clients import settings
from tests.support.dicom_files import small_dicom

CHECK, FILE_PART = (23, 2), (23, 3)
QUICK = settings(answer=0.3, max_attempts=2)


# --- refused --------------------------------------------------------------------------------------------------------


async def test_a_refused_part_is_sent_again_with_its_file(account: Account) -> None:
    data, cloud = dicom_of_size(4 * PART), account.server.cloud
    cloud.oddities.refused[FILE_PART] = 1
    report = await account.api.upload(data, institution_uuid=INSTITUTION, sockets=2)
    assert report.counts == {Status.STORED: 1}
    assert report.bytes_sent == len(data)
    assert list(held_by(account.server).values()) == [data]
    attempts = {part.parameters["FileIndex"] for part in cloud.sent(FILE_PART)}
    assert attempts == {0, 1}, "parts of two attempts are never taken for one file"
    assert set(cloud.most_in_flight.values()) == {1}


async def test_what_is_always_refused_is_told_after_a_bounded_number_of_attempts(
    account: Account, tmp_path: Path
) -> None:
    files = study_in(tmp_path, 4)
    cloud = account.server.cloud
    cloud.oddities.refused[FILE_PART] = 1000
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert report.counts == {Status.FAILED: len(files)}
    assert not report.ok
    assert {one.reason for one in report.failures} == {"this refusal was asked for"}
    assert len(cloud.sent(FILE_PART)) == 3 * len(files)
    assert not held_by(account.server)


async def test_a_refusal_is_repeated_less_often_than_a_lost_answer() -> None:
    def answer(request: Received) -> bytes:
        return refusal(request) if request.key == FILE_PART else success(request)

    patient = settings(max_attempts=9, base=0.001, cap=0.001)
    async with CloudService(answer) as service, service.client(settings=patient) as api:
        report = await api.upload(small_dicom())
    assert report.counts == {Status.FAILED: 1}
    assert [one.key for one in service.sent(23)].count(FILE_PART) == 3


async def test_one_that_is_refused_keeps_no_other_out(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path, 9)
    account.server.cloud.oddities.refused[FILE_PART] = 5
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=1)
    assert report.counts[Status.STORED] >= 7
    assert sum(report.counts.values()) == 9
    held = held_by(account.server)
    assert held.items() <= files.items()
    assert len(held) == report.counts[Status.STORED]


async def test_reasons_do_not_show_whose_file_it_is(account: Account) -> None:
    cloud = account.server.cloud
    cloud.oddities.refusal_text = "TEST^FILE (T-1, born 19700101, A-1) of Test File is blocked"
    cloud.oddities.refused[FILE_PART] = 1000
    report = await account.api.upload(small_dicom(), institution_uuid=INSTITUTION)
    reason = str(report.failures[0].reason).lower()
    assert "blocked" in reason
    assert not [text for text in ("test", "file", "t-1", "1970", "a-1") if text in reason]


# --- answers that are lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after", "during"])
@pytest.mark.parametrize("nth", range(1, 9))
async def test_dropped_at_any_part(account: Account, tmp_path: Path, when: Any, nth: int) -> None:
    files = study_in(tmp_path, 4)
    (tmp_path / "large.dcm").write_bytes(dicom_of_size(4 * PART - 9))
    cloud = account.server.cloud
    cloud.oddities.drops.append(Drop(when, FILE_PART, nth))
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=3)
    assert report.counts == {Status.STORED: 5}
    assert files.items() <= held_by(account.server).items()
    assert not cloud.oddities.drops


@pytest.mark.parametrize("when", ["before", "after", "during"])
@pytest.mark.parametrize("key", [(23, 1), (23, 2), (3, 2)])
async def test_dropped_before_the_parts(account: Account, tmp_path: Path, when: Any, key: tuple[int, int]) -> None:
    files = study_in(tmp_path, 3)
    account.server.cloud.oddities.drops.append(Drop(when, key))
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert report.counts == {Status.STORED: 3}
    assert held_by(account.server) == files


async def test_a_lost_answer_to_what_was_stored_is_asked_for_not_sent_again(account: Account) -> None:
    cloud = account.server.cloud
    cloud.oddities.drops.append(Drop("after", FILE_PART))
    report = await account.api.upload(small_dicom(), institution_uuid=INSTITUTION)
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.reason) == (Status.STORED, "confirmed by the service when asked")
    assert len(cloud.sent(FILE_PART)) == 1
    assert len(cloud.sent(CHECK)) == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_may_be_an_older_one_is_not_sent_blindly(account: Account, when: Any) -> None:
    cloud = account.server.cloud
    cloud.oddities.drops.append(Drop(when, FILE_PART))
    report = await account.api.upload(small_dicom(), institution_uuid=INSTITUTION, existing="send")
    assert report.counts == {Status.STORED if when == "before" else Status.UNCONFIRMED: 1}
    assert len(cloud.sent(FILE_PART)) == (2 if when == "before" else 1)


async def test_what_is_never_answered_is_unconfirmed() -> None:
    def answer(request: Received) -> bytes | None:
        return None if request.key == FILE_PART else success(request)

    async with CloudService(answer) as service, service.client(settings=QUICK) as api:
        report = await api.upload(small_dicom())
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.reason) == (Status.UNCONFIRMED, "the service did not answer in time")
    assert len(service.sent(23)) == 6, "announced, asked, sent, asked, sent, asked"


@pytest.mark.parametrize("result", [b"null", b"<html>", b"[1]"])
async def test_what_is_answered_in_words_nobody_can_read(result: bytes) -> None:
    def answer(request: Received) -> bytes:
        return envelope_frame(request, result) if request.key == FILE_PART else success(request)

    async with CloudService(answer) as service, service.client(settings=QUICK) as api:
        report = await api.upload(small_dicom(), existing="send")
    assert report.counts == {Status.UNCONFIRMED: 1}


# --- sessions -------------------------------------------------------------------------------------------------------


async def test_a_session_that_is_forgotten_on_the_way(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path, 12)
    cloud = account.server.cloud
    cloud.oddities.latency = 0.01

    async def forget() -> None:
        while len(cloud.sent(FILE_PART)) < 4:
            await asyncio.sleep(0.002)
        cloud.forget_sessions()
        cloud.drop_sockets()

    forgetting = asyncio.create_task(forget())
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=2)
    await forgetting
    assert report.counts == {Status.STORED: 12}
    assert held_by(account.server) == files
    assert len(cloud.sent((23, 1))) == 2


async def test_a_session_that_only_the_new_sockets_find_forgotten(account: Account) -> None:
    cloud = account.server.cloud
    cloud.oddities.session_needed = False
    await account.api.folders.search().all()
    cloud.forget_sessions()
    report = await account.api.upload(small_dicom(), institution_uuid=INSTITUTION)
    assert report.counts == {Status.STORED: 1}
    assert len(cloud.sent((3, 4))) == 2


async def test_sockets_of_a_lost_session_carry_nothing_of_the_new_one(tmp_path: Path) -> None:
    study_in(tmp_path, 12)
    registered: dict[int, str] = {}
    used: list[tuple[str, str]] = []

    class Losing(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            if request.message_type == 3:
                if request.fields["SessionUuid"] != self.session:
                    await connection.send(refusal(request))
                    return
                registered[request.socket] = self.session
            if request.key == FILE_PART:
                used.append((registered[request.socket], request.fields["SessionUniqueUuid"]))
                if len(used) == 4:
                    self.session = uuid(2)
                    self.open[0].transport.abort()
            await super()._reply(connection, request)

    def answer(request: Received) -> bytes:
        told = {"ResponseCode": 1, "ResponseMessage": {"Success": True}, "SessionUniqueUuid": service.session}
        return envelope_frame(request, told)

    async with Losing(answer) as service, service.client() as api:
        report = await api.upload(tmp_path, sockets=3)
    assert report.counts == {Status.STORED: 12}
    assert {under for under, _ in used} == {SESSION, uuid(2)}
    assert all(under == session for under, session in used)


async def test_a_service_that_never_likes_registrations() -> None:
    class Stubborn(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            if request.key == (3, 2):
                await connection.send(refusal(request))
            else:
                await super()._reply(connection, request)

    async with Stubborn() as service, service.client() as api:
        report = await api.upload([small_dicom()], sockets=3)
        assert report.counts == {Status.STORED: 1}
    assert len(service.asked) == 6, "the session was brought up anew once, to be sure"


@pytest.mark.parametrize("kind", ["new", "same", "missing"])
@pytest.mark.parametrize("followed", [True, False])
async def test_session_ids(account: Account, tmp_path: Path, kind: Any, followed: bool) -> None:
    files = study_in(tmp_path, 3)
    cloud = account.server.cloud
    cloud.oddities.upload_session = kind
    async with client_of(account.server, wire=CloudWire(upload_session_of_answer=followed)) as api:
        report = await api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert report.ok
    assert held_by(account.server) == files
    (used,) = {part.parameters["SessionUniqueUuid"] for part in cloud.sent(FILE_PART)}
    assert (used in cloud.sessions) == (kind != "new" or not followed)


# --- the service goes away, the caller goes away, the file goes away ------------------------------------------------


async def test_a_service_that_goes_away(account: Account, tmp_path: Path) -> None:
    study_in(tmp_path, 40)
    cloud = account.server.cloud
    cloud.oddities.latency = 0.01

    async def leave() -> None:
        while len(cloud.sent(FILE_PART)) < 6:
            await asyncio.sleep(0.002)
        await account.server.__aexit__(None, None, None)

    leaving = asyncio.create_task(leave())
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionFailed) as caught:
            await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=2)
    await leaving
    report: Any = caught.value.report
    counts = report.counts
    assert set(counts) <= {Status.STORED, Status.UNCONFIRMED, Status.FAILED}
    assert all(one.reason.startswith("not sent: ") for one in report.outcomes if one.status is Status.FAILED)
    assert counts[Status.STORED] >= 2
    assert len({one.where for one in report.outcomes}) == len(report.outcomes)
    assert len(report.patient_order_uuids) == 1


async def test_cancelled(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path, 30) | {"large": dicom_of_size(9 * PART)}
    (tmp_path / "large.dcm").write_bytes(files.pop("large"))
    cloud = account.server.cloud
    cloud.oddities.latency = 0.003
    open_before = _open_files()
    for moment in range(0, 60, 6):
        uploading = asyncio.create_task(account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=3))
        await asyncio.sleep(moment / 1000)
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    async with asyncio.timeout(5):
        while cloud.sockets > 1:
            await asyncio.sleep(0.01)
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert report.ok
    assert files.items() <= held_by(account.server).items()
    assert _open_files() <= open_before


def _open_files() -> int:
    """Return how many regular files and sockets are open."""
    descriptors = Path("/proc/self/fd")
    return len(list(descriptors.iterdir())) if descriptors.is_dir() else 0


async def test_a_file_that_changes_on_the_way_is_never_completed(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(dicom_of_size(6 * PART))
    study_in(tmp_path, 2)
    cloud = account.server.cloud
    cloud.oddities.latency = 0.02

    async def change() -> None:
        while not [part for part in cloud.sent(FILE_PART) if part.parameters["CurrentFileTotalPartCount"] > 1]:
            await asyncio.sleep(0.001)
        with path.open("r+b") as file:
            file.seek(5 * PART)
            file.write(b"other")

    changing = asyncio.create_task(change())
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=1)
    await changing
    assert report.counts == {Status.STORED: 2, Status.UNREADABLE: 1}
    (failure,) = report.failures
    assert "changed while it was read" in str(failure.reason)
    sent = {part.parameters["CurrentFilePartIndex"] for part in cloud.sent(FILE_PART)}
    assert 5 not in sent, "the last part would have completed it"
    assert len(held_by(account.server)) == 2


async def test_what_ends_an_upload_is_one_plain_error(account: Account, tmp_path: Path) -> None:
    study_in(tmp_path, 3)
    await account.server.__aexit__(None, None, None)
    with pytest.raises(PostdicomError) as caught:
        await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert isinstance(caught.value, ConnectionFailed)
    assert not isinstance(caught.value, BaseExceptionGroup)
