"""What an upload claims of instances that no answer vouches for, and of those that never left this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from postdicom_async import ConnectionFailed, PostdicomError, Status, UploadReport
from postdicom_async.dicomweb.confirm import CONFIRMED
from postdicom_async.transfer import comparing
from tests.faults.archive import MemoryArchive, parts_sent, related, uids_of
from tests.faults.clients import settings
from tests.support.bodies import stow_answer
from tests.support.dicom_files import JPEG, small_dicom, study_files
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

FILE = small_dicom(pixel_bytes=3 << 20)
UIDS = uids_of(FILE)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def other_meta(data: bytes) -> bytes:
    """Another preamble, which counts as little as the rest of what stands before the data set."""
    return b"II*\0" + data[4:]


HELD: dict[str, tuple[bytes, bool, str]] = {
    "the same": (FILE, True, ""),
    "another preamble": (other_meta(FILE), True, ""),
    "the last bit flipped": (flipped(FILE, len(FILE) - 1), False, "another instance"),
    "a bit in the middle": (flipped(FILE, len(FILE) // 2), False, "another instance"),
    "an older one": (small_dicom(*UIDS, patient_id="T-2", pixel_bytes=3 << 20), False, "another instance"),
    "shorter": (small_dicom(*UIDS, pixel_bytes=2 << 20), False, ""),
    "longer": (small_dicom(*UIDS, pixel_bytes=4 << 20), False, ""),
    "compressed": (small_dicom(*UIDS, transfer_syntax=JPEG), False, "cannot be compared"),
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("held", HELD)
async def test_only_the_same_data_set_confirms(
    held: str, in_memory: bool, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small instances are compared in memory, large ones as they arrive; the last answer is lost each time."""
    if not in_memory:
        monkeypatch.setattr(comparing, "COMPARED_WHOLE", 1 << 20)
    data, same, words = HELD[held]

    def fault(request: Request) -> Reply | None:
        return Reply(500) if request.method == "POST" else None

    archive = MemoryArchive(fault=fault)
    archive.stored[UIDS] = data
    async with FaultyServer(archive) as server, connect(server.url) as client:
        (outcome,) = (await client.upload([FILE])).outcomes
    assert outcome.status is (Status.STORED if same else Status.UNCONFIRMED)
    assert words in str(outcome.reason)


RETRIEVED: dict[str, Callable[[], Reply]] = {
    "two parts": lambda: related([FILE, FILE]).reply(),
    "none": lambda: related([]).reply(),
    "half": lambda: Reply(200, {"Content-Type": "application/dicom"}, FILE, cut_after=len(FILE) // 2),
    "no DICOM": lambda: related([b"sorry"]).reply(),
    "a message": lambda: Reply(200, {"Content-Type": "text/html"}, b"<html>"),
    "not for this account": lambda: Reply(403),
    "no such service": lambda: Reply(405),
    "far too much": lambda: related([FILE + b"\0" * (8 << 20)]).reply(),
}


@pytest.mark.parametrize("answer", RETRIEVED)
async def test_what_is_retrieved_instead_confirms_nothing(answer: str, connect: Connect) -> None:
    def fault(request: Request) -> Reply | None:
        return Reply(500) if request.method == "POST" else RETRIEVED[answer]()

    async with FaultyServer(MemoryArchive(fault=fault)) as server, connect(server.url) as client:
        (outcome,) = (await client.upload([FILE])).outcomes
    assert outcome.status is Status.UNCONFIRMED


# --- what is told of each instance by itself --------------------------------------------------------------------------


async def test_instances_of_a_batch_taken_apart_are_each_sent_again(connect: Connect) -> None:
    """Eight go one by one, and the first answer to each is lost: none has fewer attempts for what befell the others."""
    files = list(study_files(8).values())
    seen: set[bytes] = set()

    def fault(request: Request) -> Reply | None:
        if request.method != "POST":
            return None
        first, *others = parts_sent(request)
        if others:
            return Reply(413)
        is_new = first not in seen
        seen.add(first)
        return Reply(500) if is_new else None

    archive = MemoryArchive(fault=fault)
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload(files)
    assert [outcome.status for outcome in report.outcomes] == [Status.STORED] * 8
    assert sorted(archive.stored.values()) == sorted(files)


NAMED = stow_answer(failed=[(UIDS.sop_instance_uid, 0x0110)])
REFUSED_LATER: dict[str, Reply] = {
    "without a word": Reply(409),
    "by name": Reply(409, {"Content-Type": "application/dicom+json"}, NAMED),
}


@pytest.mark.parametrize("how", REFUSED_LATER)
@pytest.mark.parametrize("held", [FILE, None, "not to be had"], ids=["has it", "has it not", "not to be had"])
async def test_refused_after_a_lost_answer(how: str, held: bytes | str | None, connect: Connect) -> None:
    """An archive that indexes late refuses in the second request what it took in the first."""
    posts: list[Request] = []

    def fault(request: Request) -> Reply | None:
        if request.method != "POST":
            return Reply(403) if len(posts) > 1 and isinstance(held, str) else None
        posts.append(request)
        if len(posts) > 1 and isinstance(held, bytes):
            archive.stored[UIDS] = held
        return Reply(500) if len(posts) == 1 else REFUSED_LATER[how]

    archive = MemoryArchive(fault=fault)
    async with FaultyServer(archive) as server, connect(server.url) as client:
        (outcome,) = (await client.upload([FILE])).outcomes
    assert len(posts) == 2
    if isinstance(held, bytes):
        assert (outcome.status, outcome.reason) == (Status.STORED, CONFIRMED)
    else:
        assert outcome.status is (Status.FAILED if held is None else Status.UNCONFIRMED)


# --- what never left ------------------------------------------------------------------------------------------------


def refusing() -> str:
    return f"http://127.0.0.1:{unused_port()}"


UNREACHED: dict[str, Callable[[], str]] = {
    "nobody listens": refusing,
    "no such host": lambda: "http://no-such-host.invalid",
}


@pytest.mark.parametrize("why", UNREACHED)
@pytest.mark.parametrize("batch", [1, 20])
async def test_what_never_left_is_not_sent(why: str, batch: int, connect: Connect) -> None:
    """Also the requests that were under way beside the one that ended the upload."""
    files = list(study_files(8).values())
    async with connect(UNREACHED[why](), settings(batch_instances=batch)) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.upload(files)
    report = caught.value.report
    assert isinstance(report, UploadReport)
    assert {outcome.status for outcome in report.outcomes} == {Status.FAILED}
    assert all(str(outcome.reason).startswith("not sent: ") for outcome in report.outcomes)


async def test_what_left_before_the_archive_went_away_is_unconfirmed(connect: Connect) -> None:
    """The first store is lost, and nobody listens afterwards: what was in it may be there, the rest is not."""
    files = list(study_files(4).values())
    closing: list[asyncio.Task[None]] = []

    def gone(_request: Request) -> Reply:
        closing.append(asyncio.ensure_future(server.close()))
        return Reply(raw=b"")

    server = FaultyServer([gone])
    async with server, connect(server.url, settings(batch_instances=1, parallel_stores=1)) as client:
        with pytest.raises(PostdicomError) as caught:
            await client.upload(files)
    await asyncio.gather(*closing)
    report = caught.value.report
    assert isinstance(report, UploadReport)
    first, *others = report.outcomes
    assert first.status is Status.UNCONFIRMED
    assert str(first.reason).startswith("sent and not confirmed: ")
    assert {(one.status, str(one.reason).partition(":")[0]) for one in others} <= {(Status.FAILED, "not sent")}
