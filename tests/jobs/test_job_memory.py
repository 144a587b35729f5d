"""A job holds what is under way, and not what it has moved."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from postdicom_async import InstanceUids, Outcome, jobs
from postdicom_async.disk.sources import Usable
from postdicom_async.jobs.ends.end import Identified, ListedStudy
from postdicom_async.jobs.states import State
from postdicom_async.results import Status
from tests.jobs.lying import MemoryEnd, adding_up, hurry, instances
from tests.support.large import large

EACH = 50
SIZES = [(20, 80), large(40, 160)]  # studies
MOST = 100.0  # bytes for each instance that was moved


class Source(MemoryEnd):
    """Finds the instances of a study at once, and keeps nothing of what it was asked."""

    def __init__(self, name: str, held: dict[InstanceUids, bytes]) -> None:
        super().__init__(name, held)
        self._of: dict[str, list[InstanceUids]] = {}
        for uids in held:
            self._of.setdefault(uids.study_instance_uid, []).append(uids)

    def of(self, study: str) -> list[InstanceUids]:
        return self._of.get(study, [])

    def _ask(self, what: str) -> None:
        self.fault(what)


class Target(Source):
    """Remembers of a study how many it was given, which are all or none."""

    def __init__(self, name: str, held: dict[InstanceUids, bytes]) -> None:
        super().__init__(name, held)
        self.given = dict.fromkeys(self._of, 0)

    def of(self, study: str) -> list[InstanceUids]:
        return super().of(study)[: self.given.get(study, 0)]

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        yield [ListedStudy(study, "", number) for study, number in self.given.items() if number]

    async def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Any = None
    ) -> AsyncGenerator[Outcome, None]:
        async for one in sources:
            assert isinstance(one, Usable)
            self.given[one.header.uids.study_instance_uid] += 1
            yield Outcome(one.label, Status.STORED, one.header.uids, one.body.length)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


async def peak_of(studies: int) -> int:
    """Return the most that a job of so many studies held, beside what its ends hold."""
    held = instances(studies, EACH)
    source, target = Source("a", held), Target("b", held)
    gc.collect()
    tracemalloc.start()
    try:
        async with await jobs.copy(source, target, new=True) as job:
            summary = await asyncio.wait_for(job.wait(), 300)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert adding_up(summary) == {State.DONE: studies * EACH}
    return peak


@pytest.mark.parametrize(("few", "many"), SIZES)
async def test_memory_does_not_grow_with_what_is_moved(few: int, many: int) -> None:
    await peak_of(2)  # what is loaded once
    small, large = await peak_of(few), await peak_of(many)
    slope = (large - small) / ((many - few) * EACH)
    assert slope < MOST, f"{slope:.0f} bytes an instance"
