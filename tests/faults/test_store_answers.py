"""Store: what each instance came to, whatever the archive answers, and what is sent again when it does not."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import Anonymization, ConnectionFailed, RateLimited, ServerError, Status, UploadReport
from postdicom_async.dicomweb.confirm import CONFIRMED
from postdicom_async.dicomweb.store import Storing
from tests.faults.archive import MemoryArchive, parts_sent, uids_of
from tests.faults.clients import FAST, settings
from tests.support.bodies import stow_answer
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

FILES = list(study_files(4, series=2).values())
UIDS = [uids_of(file).sop_instance_uid for file in FILES]
JSON = {"Content-Type": "application/dicom+json"}
STORED, FAILED, WARNED = Status.STORED, Status.FAILED, Status.WARNED
UNCONFIRMED, UNREADABLE = Status.UNCONFIRMED, Status.UNREADABLE


def posts(server: FaultyServer) -> list[Request]:
    return [request for request in server.requests if request.method == "POST"]


def statuses(report: UploadReport) -> list[Status]:
    return [outcome.status for outcome in report.outcomes]


def first_posts(*replies: Reply | Callable[[Request], Reply | None]) -> Callable[[Request], Reply | None]:
    """Answer the first stores so; everything else rightly."""
    left = list(replies)

    def fault(request: Request) -> Reply | None:
        if request.method != "POST" or not left:
            return None
        reply = left.pop(0)
        return reply(request) if callable(reply) else reply

    return fault


async def upload(
    connect: Connect, archive: MemoryArchive, sources: Any = None, using: Any = FAST
) -> tuple[UploadReport, FaultyServer]:
    async with FaultyServer(archive) as server, connect(server.url, using) as client:
        return await client.upload(FILES if sources is None else sources), server


# --- the request ------------------------------------------------------------------------------------------------------


async def test_bytes_go_out_as_they_are_on_disk(connect: Connect, tmp_path: Path) -> None:
    for number, file in enumerate(FILES):
        (tmp_path / f"no suffix {number}").write_bytes(file)
    archive = MemoryArchive()
    report, server = await upload(connect, archive, tmp_path, settings(batch_instances=2))
    assert report.ok
    assert sorted(archive.stored.values()) == sorted(FILES)
    requests = posts(server)
    assert len({request.header("content-type") for request in requests}) == len(requests) == 2
    for request in requests:
        assert (request.framing, int(request.header("content-length"))) == ("content-length", request.size)
        assert request.all_headers("transfer-encoding") == []
        assert request.header("accept") == "application/dicom+json"
    sent = {hashlib.sha256(part).hexdigest() for request in requests for part in parts_sent(request)}
    assert sent == {hashlib.sha256(file).hexdigest() for file in FILES}


async def test_chunked_when_asked_for(connect: Connect) -> None:
    archive = MemoryArchive()
    report, server = await upload(connect, archive, FILES, settings(chunked_upload=True))
    assert report.ok
    assert [request.framing for request in posts(server)] == ["chunked"]
    assert not posts(server)[0].all_headers("content-length")
    assert sorted(archive.stored.values()) == sorted(FILES)


# --- repeats ----------------------------------------------------------------------------------------------------------

SOON = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)


@pytest.mark.parametrize("status", [503, 429, 408])
@pytest.mark.parametrize(
    "after", [None, "0", "0.02", SOON, "nonsense"], ids=["none", "0", "0.02", "a date", "nonsense"]
)
async def test_refused_then_taken_sends_the_same_bytes(status: int, after: str | None, connect: Connect) -> None:
    headers = {} if after is None else {"Retry-After": after}
    archive = MemoryArchive(fault=first_posts(Reply(status, headers)))
    report, server = await upload(connect, archive)
    first, second = posts(server)
    assert first.complete
    assert first.body == second.body
    assert first.size > sum(map(len, FILES))
    assert first.header("content-type") == second.header("content-type")
    assert statuses(report) == [STORED] * 4
    assert report.bytes_sent == sum(map(len, FILES))


async def test_refused_early_then_taken(connect: Connect) -> None:
    """The archive answers 503 while the body is still on its way."""
    big = [small_dicom(instance=uid(1, 1, n), pixel_bytes=1 << 20) for n in range(1, 5)]
    archive = MemoryArchive()
    early = [Reply(503, {"Retry-After": "0"}, answer_before_body=True)]

    def on_head(request: Request) -> Reply | None:
        return early.pop() if request.method == "POST" and early else None

    async with FaultyServer(archive, on_head=on_head) as server, connect(server.url) as client:
        report = await client.upload(big)
    assert report.ok
    assert sorted(archive.stored.values()) == sorted(big)
    assert report.bytes_sent == sum(map(len, big))


@pytest.mark.parametrize(
    ("status", "after"), [(503, "9999"), (429, "9999"), (429, None), (503, "Fri, 01 Jan 2100 00:00:00 GMT")]
)
async def test_asked_to_wait_too_long(status: int, after: str | None, connect: Connect) -> None:
    headers = {} if after is None else {"Retry-After": after}
    archive = MemoryArchive(fault=first_posts(*[Reply(status, headers)] * 3))
    async with FaultyServer(archive) as server, connect(server.url) as client:
        with pytest.raises(RateLimited) as caught:
            await client.upload(FILES)
    assert (caught.value.temporary, caught.value.status) == (True, status)
    assert len(posts(server)) == (3 if after is None else 1)
    assert (caught.value.retry_after or 0) > 9000 or after is None
    report = caught.value.report
    assert isinstance(report, UploadReport)
    assert statuses(report) == [FAILED] * 4
    assert {one.reason for one in report.outcomes} == {"refused: the archive asks to wait"}


LOST = {"500": Reply(500), "502": Reply(502), "504": Reply(504), "no answer": Reply(raw=b"")}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("kept", [4, 2, 0])
async def test_a_lost_answer_is_resolved_by_looking(lost: str, kept: int, connect: Connect) -> None:
    """What the archive had stored is not sent again, the rest is, and no byte is counted twice."""
    archive = MemoryArchive()

    def store_and_fail(request: Request) -> Reply | None:
        archive.stored.update({uids_of(file): file for file in parts_sent(request)[:kept]})
        return LOST[lost]

    archive.fault = first_posts(store_and_fail)
    report, server = await upload(connect, archive)
    assert statuses(report) == [STORED] * 4
    again = [part for request in posts(server)[1:] for part in parts_sent(request)]
    assert sorted(again) == sorted(FILES[kept:])
    assert [outcome.reason for outcome in report.outcomes].count(CONFIRMED) == kept
    assert report.bytes_sent == sum(map(len, FILES))


ANON = Anonymization({"PatientName": "ANON"})
KEEPING: dict[str, Callable[[Request], Reply]] = {
    "says it stored them": lambda _: Reply(200, JSON, stow_answer(referenced=UIDS)),
    "says nothing": lambda _: Reply(200),
    "says it has them": lambda _: Reply(409, JSON, stow_answer(failed=[(one, 0x0111) for one in UIDS])),
    "warns that it has them": lambda _: Reply(202, JSON, stow_answer(warned=[(one, 0xB00E) for one in UIDS])),
    "never answers": lambda _: Reply(500),
}


@pytest.mark.parametrize("says", KEEPING)
async def test_the_original_does_not_pass_for_the_anonymised_copy(says: str, connect: Connect) -> None:
    """Several archives keep what they have, and say that all is well. What is retrieved is the original."""
    archive = MemoryArchive(fault=lambda request: KEEPING[says](request) if request.method == "POST" else None)
    archive.stored.update({uids_of(file): file for file in FILES})
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload(FILES, anonymize=ANON)
    said_so = says not in ("says nothing", "never answers")
    assert statuses(report) == [FAILED if said_so else UNCONFIRMED] * 4
    assert "holds another instance with this SOP Instance UID" in str(report.outcomes[0].reason)
    assert ("perhaps the original" in str(report.outcomes[0].reason)) == said_so
    assert not report.ok


@pytest.mark.parametrize("says", KEEPING)
async def test_an_archive_that_takes_the_copy_for_the_original_has_stored_it(says: str, connect: Connect) -> None:
    """Whatever it says: what is retrieved is the copy."""
    archive = MemoryArchive(FILES)

    def store(request: Request) -> Reply | None:
        if request.method != "POST":
            return None
        archive.store(request)
        return KEEPING[says](request)

    archive.fault = store
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload(FILES, anonymize=ANON)
    assert report.ok
    assert len(posts(server)) == 1
    assert set(FILES).isdisjoint(archive.stored.values())


OLDER = [small_dicom(*uids_of(file), patient_id="older") for file in FILES]
LOGIN = Reply(200, {"Content-Type": "text/html"}, b"<html><title>Sign in</title></html>")
UNCLEAR = {**LOST, "a login page": LOGIN, "an empty answer": Reply(200), "half an answer": Reply(200, JSON, b"[{")}


@pytest.mark.parametrize("answer", UNCLEAR)
async def test_an_older_instance_proves_nothing(answer: str, connect: Connect) -> None:
    """What was sent did not arrive, and a search would find the instance of that UID that was there before."""
    archive = MemoryArchive(OLDER, fault=first_posts(*[UNCLEAR[answer]] * 9))
    report, server = await upload(connect, archive)
    assert statuses(report) == [UNCONFIRMED] * 4
    assert all("holds another instance with this SOP" in str(outcome.reason) for outcome in report.outcomes)
    assert len(posts(server)) == FAST.retry.max_attempts
    assert sorted(archive.stored.values()) == sorted(OLDER)


@pytest.mark.parametrize("answer", UNCLEAR)
async def test_an_older_instance_is_replaced_when_the_store_is_repeated(answer: str, connect: Connect) -> None:
    archive = MemoryArchive(OLDER, fault=first_posts(UNCLEAR[answer]))
    report, server = await upload(connect, archive)
    assert statuses(report) == [STORED] * 4
    assert len(posts(server)) == 2
    assert sorted(archive.stored.values()) == sorted(FILES)


@pytest.mark.parametrize("code", [0x0111, 0xB00E])
@pytest.mark.parametrize("status", [200, 202, 409])
async def test_already_there_is_true_only_of_the_same_bytes(code: int, status: int, connect: Connect) -> None:
    """Two of what it says it has are older, one is not to be had, one is what was sent."""
    body = stow_answer(failed=[(one, code) for one in UIDS])
    archive = MemoryArchive([*OLDER[:2], FILES[3]], fault=first_posts(*[Reply(status, JSON, body)] * 9))
    report, server = await upload(connect, archive)
    assert statuses(report) == [FAILED, FAILED, UNCONFIRMED, WARNED]
    assert [outcome.reason_code for outcome in report.outcomes] == [code] * 4
    assert len(posts(server)) == 1


async def test_what_an_answer_forgets_is_sent_again(connect: Connect) -> None:
    """The first answer of 200 names two of the four, and the archive has only those."""

    def forgetful(request: Request) -> Reply:
        files = parts_sent(request)[:2]
        archive.stored.update({uids_of(file): file for file in files})
        return Reply(200, JSON, stow_answer(referenced=[uids_of(file).sop_instance_uid for file in files]))

    archive = MemoryArchive(fault=first_posts(forgetful))
    report, server = await upload(connect, archive)
    assert statuses(report) == [STORED] * 4
    assert [len(parts_sent(request)) for request in posts(server)] == [4, 2]


@pytest.mark.parametrize("lost", LOST)
async def test_where_no_original_was_the_copy_is_found(lost: str, connect: Connect) -> None:
    archive = MemoryArchive()

    def store_and_fail(request: Request) -> Reply | None:
        archive.stored.update({uids_of(file): file for file in parts_sent(request)})
        return LOST[lost]

    archive.fault = first_posts(store_and_fail)
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload(FILES, anonymize=ANON)
    assert statuses(report) == [STORED] * 4
    assert len(posts(server)) == 1


async def test_a_cut_answer_is_a_lost_one(connect: Connect) -> None:
    archive = MemoryArchive()

    def store_and_cut(request: Request) -> Reply | None:
        whole = archive.store(request)
        return Reply(200, JSON, whole.body, cut_after=40)

    archive.fault = first_posts(store_and_cut)
    report, server = await upload(connect, archive)
    assert statuses(report) == [STORED] * 4
    assert len(posts(server)) == 1


async def test_lost_each_time_is_unconfirmed(connect: Connect) -> None:
    archive = MemoryArchive(fault=first_posts(*[Reply(500)] * 9))
    report, server = await upload(connect, archive)
    assert statuses(report) == [UNCONFIRMED] * 4
    assert len(posts(server)) == FAST.retry.max_attempts
    assert not report.ok


async def test_the_connection_breaks_inside_the_body(connect: Connect) -> None:
    big = [small_dicom(instance=uid(1, 1, n), pixel_bytes=1 << 20) for n in range(1, 5)]
    archive = MemoryArchive()
    faults = [Reply(drop_mid_request_after=100_000, reset=reset) for reset in (True, False)]

    def on_head(request: Request) -> Reply | None:
        return faults.pop() if request.method == "POST" and faults else None

    async with FaultyServer(archive, on_head=on_head) as server, connect(server.url) as client:
        report = await client.upload(big)
    assert report.ok
    assert sorted(archive.stored.values()) == sorted(big)
    assert report.bytes_sent == sum(map(len, big))


async def test_nobody_there(connect: Connect) -> None:
    async with connect(f"http://127.0.0.1:{unused_port()}") as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.upload(FILES)
    assert (caught.value.attempts, caught.value.may_have_arrived, caught.value.temporary) == (3, False, True)


# --- the answer -----------------------------------------------------------------------------------------------------


def answering(status: int, body: bytes, headers: dict[str, str] | None = None, *, keeps: int = 0) -> MemoryArchive:
    archive = MemoryArchive()

    def answer(request: Request) -> Reply:
        kept = UIDS[:keeps]
        archive.stored.update({uids_of(file): file for file in parts_sent(request) if uids_of(file)[2] in kept})
        return Reply(status, JSON if headers is None else headers, body)

    archive.fault = first_posts(*[answer] * 9)
    return archive


async def test_some_failed(connect: Connect) -> None:
    body = stow_answer(referenced=UIDS[:2], failed=[(UIDS[2], 0xA700), (UIDS[3], 0xC122)])
    report, server = await upload(connect, answering(202, body, keeps=2))
    assert statuses(report) == [STORED, STORED, FAILED, FAILED]
    named = [(outcome.reason_code, outcome.reason) for outcome in report.outcomes[2:]]
    assert named == [(0xA700, "out of resources"), (0xC122, "referenced transfer syntax not supported")]
    assert len(server.requests) == 1
    assert (report.ok, len(report.failures)) == (False, 2)


async def test_all_failed(connect: Connect) -> None:
    codes = [0x0110, 0xA901, 0x0124, 0xC001]
    body = stow_answer(failed=list(zip(UIDS, codes, strict=True)))
    report, server = await upload(connect, answering(409, body))
    assert statuses(report) == [FAILED] * 4
    assert [outcome.reason_code for outcome in report.outcomes] == codes
    assert [outcome.reason for outcome in report.outcomes] == [
        "processing failure",
        "data set does not match SOP class",
        "not authorized",
        "cannot understand",
    ]
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [0xB000, 0xB006, 0xB007])
async def test_warnings_are_stored(code: int, connect: Connect) -> None:
    body = stow_answer(referenced=UIDS[:3], warned=[(UIDS[3], code)])
    report, _ = await upload(connect, answering(202, body, keeps=4))
    assert statuses(report) == [STORED] * 3 + [WARNED]
    assert report.outcomes[3].reason_code == code
    assert report.outcomes[3].reason
    assert report.ok


FORMS: dict[str, tuple[bytes, dict[str, str]]] = {
    "plain JSON": (stow_answer(referenced=UIDS), {"Content-Type": "application/json; charset=utf-8"}),
    "a list": (b"[" + stow_answer(referenced=UIDS) + b"]", JSON),
    "a list of several": (
        b"[" + b",".join(stow_answer(referenced=[one]) for one in UIDS) + b"]",
        JSON,
    ),
    "XML": (stow_answer(referenced=UIDS, form="xml"), {"Content-Type": "application/dicom+xml"}),
    "XML without a type": (stow_answer(referenced=UIDS, form="xml"), {}),
    "JSON without a type": (stow_answer(referenced=UIDS), {}),
    "JSON as text": (stow_answer(referenced=UIDS), {"Content-Type": "text/plain"}),
    "empty FailedSOPSequence": (
        json.dumps({**json.loads(stow_answer(referenced=UIDS)), "00081198": {"vr": "SQ"}}).encode(),
        JSON,
    ),
    "byte order mark": (b"\xef\xbb\xbf" + stow_answer(referenced=UIDS), JSON),
}


@pytest.mark.parametrize("form", FORMS)
async def test_forms_of_the_answer(form: str, connect: Connect) -> None:
    body, headers = FORMS[form]
    report, server = await upload(connect, answering(200, body, headers))
    assert statuses(report) == [STORED] * 4
    assert len(server.requests) == 1


EMPTY = {
    "nothing": b"",
    "HTML": b"<html>ok</html>",
    "empty object": b"{}",
    "empty list": b"[]",
    "half": b"{",
    "deep": b"[" * 100_000,
    "entities": b'<!DOCTYPE x [<!ENTITY a "b">]><NativeDicomModel>&a;</NativeDicomModel>',
}


@pytest.mark.parametrize("body", EMPTY)
@pytest.mark.parametrize(("status", "keeps"), [(200, 0), (200, 3), (202, 4), (204, 3)])
async def test_an_answer_that_names_nothing_proves_nothing(
    status: int, keeps: int, body: str, connect: Connect
) -> None:
    text = EMPTY[body] if status != 204 else b""
    report, server = await upload(connect, answering(status, text, {}, keeps=keeps))
    assert statuses(report) == [STORED] * keeps + [UNCONFIRMED] * (4 - keeps)
    left = [] if keeps == 4 else [4 - keeps] * (FAST.retry.max_attempts - 1)
    assert [len(parts_sent(request)) for request in posts(server)] == [4, *left]
    assert report.ok == (keeps == 4)


async def test_an_instance_that_is_not_named_is_looked_for(connect: Connect) -> None:
    body = stow_answer(referenced=[*UIDS[:2], "1.2.3.999"])
    report, server = await upload(connect, answering(200, body, keeps=3))
    assert statuses(report) == [STORED, STORED, STORED, UNCONFIRMED]
    assert report.outcomes[2].reason == CONFIRMED
    assert report.outcomes[3].reason == "no answer names it, and the archive does not hold it"
    assert [len(parts_sent(request)) for request in posts(server)] == [4, 1, 1]


async def test_named_both_stored_and_failed(connect: Connect) -> None:
    body = stow_answer(referenced=UIDS, failed=UIDS[:1])
    report, _ = await upload(connect, answering(202, body, keeps=0))
    assert statuses(report) == [UNCONFIRMED, STORED, STORED, STORED]


@pytest.mark.parametrize(("names", "sent"), [(True, [4, 1]), (False, [4, 1, 1, 1, 1])])
async def test_one_bad_part_answered_with_400_keeps_the_others(names: bool, sent: list[int], connect: Connect) -> None:
    """As Orthanc does, which names what it stored in the body of its 400; or with no word on that."""
    archive = MemoryArchive()

    def store(request: Request) -> Reply:
        files = parts_sent(request)
        good = [file for file in files if file != FILES[1]]
        archive.stored.update({uids_of(file): file for file in good})
        body = stow_answer(referenced=[uids_of(one)[2] for one in good])
        if len(good) == len(files):
            return Reply(200, JSON, body)
        return Reply(400, JSON, body) if names else Reply(400)

    archive.fault = first_posts(*[store] * 9)
    report, server = await upload(connect, archive)
    assert statuses(report) == [STORED, FAILED, STORED, STORED]
    assert "400" in (report.outcomes[1].reason or "")
    assert [len(parts_sent(request)) for request in posts(server)] == sent
    assert len(server.requests) == len(sent)


@pytest.mark.parametrize("status", [400, 409, 413])
@pytest.mark.parametrize("count", [1, 4])
async def test_an_older_copy_does_not_make_a_refusal_a_success(status: int, count: int, connect: Connect) -> None:
    older = [small_dicom(*uids_of(file), patient_id="older") for file in FILES]
    refusal = Reply(status, {"Content-Type": "text/plain", "Warning": '299 a "will not have it"'}, b"no")
    archive = MemoryArchive(older, fault=first_posts(*[refusal] * 9))
    report, server = await upload(connect, archive, FILES[:count])
    assert statuses(report) == [FAILED] * count
    assert all("will not have it" in (outcome.reason or "") for outcome in report.outcomes)
    assert len(server.requests) == len(posts(server)) == (1 if count == 1 else 1 + count)


async def test_lost_and_then_refused_is_failed(connect: Connect) -> None:
    archive = MemoryArchive(fault=first_posts(Reply(500), *[Reply(409)] * 9))
    report, server = await upload(connect, archive, FILES[:1])
    assert statuses(report) == [FAILED]
    assert len(posts(server)) == 2


@pytest.mark.parametrize("status", [400, 409, 413])
async def test_a_batch_refused_whole_is_taken_apart(status: int, connect: Connect) -> None:
    archive = MemoryArchive()

    def store(request: Request) -> Reply | None:
        return Reply(status, {"Warning": '299 a "one at a time"'}) if len(parts_sent(request)) > 1 else None

    archive.fault = first_posts(*[store] * 9)
    report, server = await upload(connect, archive)
    assert statuses(report) == [STORED] * 4
    assert len(posts(server)) == 5
    assert report.bytes_sent == sum(map(len, FILES))


async def test_too_large_by_itself(connect: Connect) -> None:
    archive = MemoryArchive(fault=first_posts(*[Reply(413, {"X-Error-Reason": "quota used up"})] * 9))
    report, _ = await upload(connect, archive)
    assert statuses(report) == [FAILED] * 4
    assert {outcome.reason for outcome in report.outcomes} == {"quota used up"}


async def test_already_there(connect: Connect) -> None:
    body = stow_answer(failed=[(one, 0x0111) for one in UIDS])
    report, _ = await upload(connect, answering(409, body, keeps=4))
    assert statuses(report) == [WARNED] * 4
    assert report.ok


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415, 501, 302])
async def test_an_archive_that_cannot_be_worked_with_is_an_exception(status: int, connect: Connect) -> None:
    archive = MemoryArchive(fault=first_posts(*[Reply(status)] * 9))
    async with FaultyServer(archive) as server, connect(server.url) as client:
        with pytest.raises(Exception, match=r".") as caught:
            await client.upload(FILES)
    assert getattr(caught.value, "status", None) == status
    assert not getattr(caught.value, "temporary", True)
    assert len(posts(server)) == 1


async def test_a_store_answer_beyond_the_cap(connect: Connect) -> None:
    """It may have stored: so it is looked for."""
    archive = MemoryArchive()

    def store(request: Request) -> Reply:
        archive.store(request)
        return Reply(200, JSON, b" " * 5000)

    archive.fault = first_posts(store)
    report, _ = await upload(connect, archive, FILES, settings(json_bytes=2000, page_size=2))
    assert statuses(report) == [STORED] * 4


@pytest.mark.parametrize(("status", "words"), [(501, "cannot be compared"), (403, "cannot be asked for it")])
async def test_where_it_cannot_be_looked_for_it_is_unconfirmed(status: int, words: str, connect: Connect) -> None:
    """An answer came, so sending it again would show nothing new."""

    def fault(request: Request) -> Reply | None:
        return Reply(200) if request.method == "POST" else Reply(status)

    report, server = await upload(connect, MemoryArchive(fault=fault))
    assert statuses(report) == [UNCONFIRMED] * 4
    assert words in str(report.outcomes[0].reason)
    assert len(posts(server)) == 1


async def test_store_instances_is_one_request(connect: Connect) -> None:
    archive = MemoryArchive()
    async with FaultyServer(archive) as server, connect(server.url, settings(batch_instances=1)) as client:
        outcomes = await client.store_instances(FILES, uid(1))
    assert [one.status for one in outcomes] == [STORED] * 4
    assert [request.path for request in server.requests] == [f"/studies/{uid(1)}"]


async def test_another_study_is_not_sent(connect: Connect) -> None:
    other = small_dicom(uid(7), uid(7, 1), uid(7, 1, 1))
    archive = MemoryArchive()
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload([*FILES, other], study_instance_uid=uid(1))
    assert statuses(report) == [STORED] * 4 + [FAILED]
    assert other not in archive.stored.values()


async def test_twins_are_sent_once(connect: Connect) -> None:
    twin = small_dicom(instance=UIDS[0], series=uids_of(FILES[0])[1], patient_id="changed")
    archive = MemoryArchive()
    report, server = await upload(connect, archive, [*FILES, FILES[0], twin])
    assert statuses(report) == [STORED] * 4 + [Status.DUPLICATE, FAILED]
    assert len(parts_sent(server.requests[0])) == 4


# --- sources that change -----------------------------------------------------------------------------------------


def in_files(folder: Path, files: list[bytes]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.dcm" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    return paths


def _shrink(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


def _become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], None]] = {
    "vanishes": lambda path: path.unlink(),
    "shrinks": _shrink,
    "grows": _grow,
    "is written anew": _rewrite,
    "becomes a folder": _become_a_folder,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", [0, 2, 3])
async def test_a_source_that_changes_before_it_is_sent(
    change: str, which: int, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one is unreadable, the others are stored, and the archive never gets half of it."""
    paths = in_files(tmp_path / "in", FILES)
    archive = MemoryArchive()
    deliver = Storing.deliver

    async def changed_first(self: Storing, *arguments: Any) -> None:
        CHANGES[change](paths[which])
        await deliver(self, *arguments)

    monkeypatch.setattr(Storing, "deliver", changed_first)
    report, server = await upload(connect, archive, paths)
    expected = [UNREADABLE if number == which else STORED for number in range(4)]
    assert statuses(report) == expected
    assert sorted(archive.stored.values()) == sorted(file for number, file in enumerate(FILES) if number != which)
    assert [request for request in posts(server) if request.complete] == posts(server)[-1:]
    assert report.outcomes[which].reason


@pytest.mark.parametrize("change", ["shrinks", "grows", "is written anew"])
async def test_a_source_that_changes_while_it_is_sent(change: str, connect: Connect, tmp_path: Path) -> None:
    big = [small_dicom(instance=uid(1, 1, n), pixel_bytes=4 << 20) for n in range(1, 4)]
    paths = in_files(tmp_path / "in", big)
    archive = MemoryArchive()
    changed: list[str] = []

    def on_head(request: Request) -> Reply | None:
        if request.method != "POST" or changed:
            return None
        changed.append("now")
        # The archive takes the request slowly, so most of it is still on disk when the file changes.
        CHANGES[change](paths[1])
        return Reply(read_rate=200 << 20)

    quick = settings(piece=64 * 1024)
    async with FaultyServer(archive, on_head=on_head) as server, connect(server.url, quick) as client:
        report = await client.upload(paths)
    assert statuses(report) == [STORED, UNREADABLE, STORED]
    assert sorted(archive.stored.values()) == sorted([big[0], big[2]])
    assert not posts(server)[0].complete


async def test_everything_else_in_a_folder_is_listed(connect: Connect, tmp_path: Path) -> None:
    paths = in_files(tmp_path / "in", [*FILES, b"", b"text", FILES[0][:200]])
    report, _ = await upload(connect, MemoryArchive(), paths[0].parent)
    assert statuses(report) == [STORED] * 4 + [Status.NOT_DICOM] * 2 + [UNREADABLE]


async def test_report_of_a_job_that_broke_in_the_middle(connect: Connect) -> None:
    calls: list[int] = []

    def fault(request: Request) -> Reply | None:
        calls.append(1)
        return Reply(403) if len(calls) == 3 else None

    archive = MemoryArchive(fault=fault)
    async with (
        FaultyServer(archive) as server,
        connect(server.url, settings(batch_instances=1, parallel_stores=1)) as client,
    ):
        with pytest.raises(Exception, match="account") as caught:
            await client.upload(FILES)
    report = getattr(caught.value, "report", None)
    assert isinstance(report, UploadReport)
    assert statuses(report)[:3] == [STORED, STORED, FAILED]
    assert report.outcomes[2].reason == "refused: this account may not do that"
    assert not isinstance(caught.value, ServerError)
