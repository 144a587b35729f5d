"""An archive that takes nothing for a while, in whichever way: no item fails, and none pays for a whole outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from postdicom_async import DicomWeb, Settings, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs import context
from postdicom_async.jobs import job as job_module
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.pace.outage_policy import OutagePatience, RetryWaves
from postdicom_async.jobs.states import State
from tests.faults import clients


def refused(_: httpx.Request) -> httpx.Response:
    return httpx.Response(503)


def broken(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("the connection broke")


HOW: Mapping[str, tuple[Callable[[httpx.Request], httpx.Response], frozenset[str]]] = {
    "everything is answered 503": (refused, frozenset({"GET", "POST"})),
    "stores are answered 503": (refused, frozenset({"POST"})),
    "every connection breaks": (broken, frozenset({"GET", "POST"})),
    "stores break": (broken, frozenset({"POST"})),
}


class Faulty(httpx.AsyncBaseTransport):
    """Meets the archive's faults until a moment, and then the archive."""

    def __init__(self, using: Settings, how: str) -> None:
        self.until = 0.0
        self.requests = 0
        self._how = HOW[how]
        self._within = clients.transport_of("aiohttp", using)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer, methods = self._how
        self.requests += 1
        moves = request.method == "POST" or "multipart" in request.headers.get("accept", "")
        if moves and not self.until:
            self.until = time.monotonic() + 3
        if request.method in methods and time.monotonic() < self.until:
            return answer(request)
        return await self._within.handle_async_request(request)

    async def aclose(self) -> None:
        await self._within.aclose()


@pytest.mark.parametrize("how", HOW)
async def test_no_item_pays_for_an_outage(
    how: str, folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "OutagePatience", partial(OutagePatience, first_step=0.1, last_step=0.3))
    monkeypatch.setattr(context, "RetryWaves", partial(RetryWaves, first=0.1, last=0.2))
    using = clients.settings(batch_instances=2)
    transport = Faulty(using, how)
    async with DicomWeb(archive.url, settings=using, transport=transport) as target:
        job = await jobs.copy(folder, target)
        async with job:
            summary = await asyncio.wait_for(job.wait(), 200)
    with closing(LedgerReader(job.path)) as reader:
        attempts = sorted(item.attempts for item in reader.items(states=[State.DONE, State.FAILED]))
    assert summary.of(State.DONE).instances == len(files)
    if "POST" in HOW[how][1] and "GET" in HOW[how][1]:
        assert set(attempts) == {1}
    else:  # where questions are answered, the first that are refused may have been at fault themselves
        assert max(attempts) <= 3


@pytest.mark.parametrize("how", ["everything is answered 503", "every connection breaks"])
async def test_no_item_pays_for_an_outage_of_its_source(
    how: str, folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "OutagePatience", partial(OutagePatience, first_step=0.1, last_step=0.3))
    monkeypatch.setattr(context, "RetryWaves", partial(RetryWaves, first=0.1, last=0.2))
    await (await jobs.copy(folder, archive.url)).wait()
    using = clients.settings()
    transport = Faulty(using, how)
    async with DicomWeb(archive.url, settings=using, transport=transport) as source:
        job = await jobs.copy(source, folder.with_name("out"))
        async with job:
            summary = await asyncio.wait_for(job.wait(), 200)
    with closing(LedgerReader(job.path)) as reader:
        attempts = sorted(item.attempts for item in reader.items(states=[State.DONE, State.FAILED]))
    assert summary.of(State.DONE).instances == len(files)
    assert set(attempts) == {1}
    assert [note for note in summary.notes if "waiting for it" in note]
