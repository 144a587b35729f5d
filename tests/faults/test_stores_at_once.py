"""How many store requests run at once, on real sockets: more where the archive gains, fewer where it refuses."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import AuthenticationFailed, DicomWeb, RateLimited, Status, UploadReport
from postdicom_async.transfer.adaptive import AtOnce
from tests.faults.archive import MemoryArchive
from tests.faults.clients import settings
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request


class Crowded:
    """An archive that takes so many store requests at a time and says 429 to the others."""

    def __init__(self, allowed: int, *, seconds: float = 0.02, status: int = 429, **headers: str) -> None:
        self.archive = MemoryArchive()
        self.allowed = allowed
        self.seconds = seconds
        self.status = status
        self.headers = headers
        self.running = self.most = self.taken = self.refused = 0

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        if request.method != "POST":
            return self.archive(request)
        if self.running >= self.allowed:
            self.refused += 1
            return Reply(self.status, self.headers)
        return self._take(request)

    async def _take(self, request: Request) -> Reply:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        self.taken += 1
        return self.archive(request)


async def upload(crowd: Crowded, count: int, **limits: Any) -> tuple[UploadReport, FaultyServer]:
    quick = settings(batch_instances=1, **limits)
    async with FaultyServer(crowd, keep_bodies=True) as server, DicomWeb(server.url, settings=quick) as archive:
        report = await archive.upload(list(study_files(count, pixel_bytes=64).values()))
    return report, server


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("seconds", [0.002, 0.05])
@pytest.mark.parametrize("allowed", [1, 2, 4])
async def test_an_archive_that_takes_only_so_many_loses_nothing(allowed: int, seconds: float, status: int) -> None:
    """However quick the client gives up on one request: what is refused waits for its turn, and is stored once."""
    crowd = Crowded(allowed, seconds=seconds, status=status)
    count = 120 if seconds < 0.01 else 60
    report, _ = await upload(crowd, count, parallel_stores=12, budget=3, max_attempts=2)
    assert report.counts == {Status.STORED: count}
    assert {one.sop_instance_uid for one in crowd.archive.stored} == {uid(1, 1, n) for n in range(1, count + 1)}
    assert crowd.taken == count, "nothing is sent again that was taken"
    assert crowd.most <= allowed
    assert crowd.refused < count, "it steps back"


async def test_more_at_once_where_that_is_faster() -> None:
    crowd = Crowded(100, seconds=0.05)
    report, server = await upload(crowd, 400, parallel_stores=8)
    assert report.ok
    assert crowd.refused == 0
    assert 3 < crowd.most <= 8
    assert server.peak_in_flight == crowd.most


async def test_an_archive_that_refuses_everything_ends_the_upload() -> None:
    crowd = Crowded(0)
    with pytest.raises(RateLimited) as caught:
        await upload(crowd, 20, parallel_stores=4, max_attempts=2)
    assert isinstance(caught.value.report, UploadReport)
    assert caught.value.report.counts.keys() == {Status.FAILED}
    assert crowd.refused <= 4 * 2 + 2


REPLIES = {
    "429": (Reply(429), True),
    "503": (Reply(503), True),
    "408": (Reply(408), True),
    "502": (Reply(502), True),
    "cut": (Reply(body=b"{" * 100, reset=True, cut_after=10), True),
    "no answer in time": (Reply(delay_before=60), True),
    "400": (Reply(400), False),
    "409": (Reply(409), False),
    "401": (Reply(401), False),
}


@pytest.mark.parametrize("kind", REPLIES)
async def test_what_makes_it_step_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, steps_back = REPLIES[kind]
    refusals: list[float] = []
    monkeypatch.setattr(AtOnce, "refused", lambda _, now: refusals.append(now))
    archive = MemoryArchive(fault=lambda request: next(replies, None) if request.method == "POST" else None)
    replies = iter([first])
    quick = settings(answer=0.5, idle_read=0.5)
    with suppress(AuthenticationFailed):
        async with FaultyServer(archive) as server, DicomWeb(server.url, settings=quick) as client:
            await client.upload(list(study_files(2, pixel_bytes=64).values()))
    assert bool(refusals) is steps_back


async def test_what_was_refused_and_waits_when_all_ends_was_not_stored(tmp_path: Path) -> None:
    """One is under way and may be stored; those that were refused beside it are known not to be."""
    crowd = Crowded(1, seconds=60)
    quick = settings(batch_instances=1, max_attempts=1)
    report = tmp_path / "report"
    async with FaultyServer(crowd) as server, DicomWeb(server.url, settings=quick) as archive:
        files = list(study_files(9, pixel_bytes=64).values())
        sending = asyncio.create_task(archive.upload(files, report=report))
        async with asyncio.timeout(30):
            while crowd.refused < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
    statuses = Counter(json.loads(line)["status"] for line in report.read_text().splitlines())
    assert statuses["unconfirmed"] == 1
    assert statuses.keys() == {"unconfirmed", "failed"}
