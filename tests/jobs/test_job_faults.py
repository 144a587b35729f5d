"""Jobs between archives of which a fifth of all requests goes wrong: in the end the target is what the source is."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from postdicom_async import jobs
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.pace import presets
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Summary
from tests.faults.clients import FAST
from tests.jobs.faulty_archive import FaultyArchive, Stored
from tests.jobs.lying import adding_up, hurry
from tests.support.dicom_files import small_dicom, uid
from tests.support.large import large

LARGE = bool(os.environ.get("POSTDICOM_TESTS_LARGE"))
STUDIES, EACH = (200, 50) if LARGE else (60, 10)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    quick = replace(FAST, retry=replace(FAST.retry, max_attempts=4))
    monkeypatch.setattr(presets, "limited_settings", lambda *_, **__: quick)


def files() -> list[bytes]:
    """Return studies in up to four series each, every instance with pixels of its own."""
    return [
        small_dicom.__wrapped__(uid(s), uid(s, 1 + n % (1 + s % 4)), uid(s, 1, n), pixel_bytes=64, number=n)
        for s in range(1, STUDIES + 1)
        for n in range(1, EACH + 1)
    ]


async def ended(job: jobs.Job) -> Summary:
    async with job:
        return await asyncio.wait_for(job.wait(), 600)


def failed_and_there(path: Path, target: Stored) -> list[str]:
    """Return what is told as failed and is at the target; what is unconfirmed may be there: nobody could say."""
    there = {uids.sop_instance_uid for uids in target}
    reader = LedgerReader(path)
    try:
        return [line.uid for line in reader.items(states=[State.FAILED]) if line.uid in there]
    finally:
        reader.close()


@pytest.mark.parametrize("seed", [1, large(2), large(3)])
async def test_a_fifth_of_all_requests_goes_wrong_at_both_ends(seed: int) -> None:
    source = FaultyArchive(files(), share=0.2, chance=random.Random(seed))
    target = FaultyArchive(share=0.2, chance=random.Random(-seed))
    async with source.serve() as here, target.serve() as there:
        summary = await ended(job := await jobs.copy(here.url, there.url))
        assert not failed_and_there(job.path, target.held)
        if adding_up(summary) != {State.DONE: STUDIES * EACH}:
            source.share = target.share = 0.0
            summary = await ended(await jobs.retry(job.path))
        assert summary.discovered == STUDIES * EACH
        assert target.held == source.held
        assert sum(target.faults.values()) > STUDIES
        assert sum(source.faults.values()) > STUDIES // 10
        assert adding_up(summary).keys() <= {State.DONE, State.PRESENT}, "after one retry nothing is open"
