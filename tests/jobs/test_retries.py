"""A running job is told to try again what failed, through its socket and from its page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.pace.control import ask, control_paths
from postdicom_async.jobs.pace.pace import Pace
from postdicom_async.jobs.pages.serve import LivePage
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import Summary
from tests.jobs.test_serve import proof_in, visitor


class Holding(Pace):
    """A pace that does something each time the job asks whether it may go on: before each phase and chunk."""

    hook: Callable[[], Awaitable[None]]

    async def wait_until_open(self) -> None:
        await self.hook()


class Mending:
    """A file is cut off while the job moves; before verification it is whole again, and the job is told something."""

    def __init__(self, folder: Path, tell: Callable[[jobs.Job], Awaitable[None]]) -> None:
        self.file = folder / "3.dcm"
        self.content = self.file.read_bytes()
        self.tell = tell
        self.pace = Holding()
        self.pace.hook = self.hook
        self.phases: list[str] = []
        self.job: jobs.Job | None = None

    async def hook(self) -> None:
        assert self.job is not None
        phase = self.job.summary().facts.phase
        if phase != (self.phases or [""])[-1]:
            self.phases.append(phase)
        if self.phases == ["discovering", "moving"]:
            self.file.write_bytes(self.content[: len(self.content) // 2])
        elif self.phases == ["discovering", "moving", "verifying"]:
            self.file.write_bytes(self.content)
            assert self.job.summary().of(State.FAILED).instances == 1
            await self.tell(self.job)

    async def run(self, folder: Path, archive: EmbeddedArchive) -> Summary:
        self.job = await jobs.copy(folder, archive.url, pace=self.pace)
        async with self.job:
            return await self.job.wait()


async def asked(job: jobs.Job, message: dict[str, Any]) -> dict[str, Any]:
    return await ask(control_paths(job.path), message)


@pytest.mark.parametrize("order", [{}, {"reasons": [int(Reason.UNREADABLE)]}])
async def test_what_failed_is_tried_again(folder: Path, archive: EmbeddedArchive, order: dict[str, Any]) -> None:
    async def tell(job: jobs.Job) -> None:
        assert (await asked(job, {"do": "retry", **order}))["ok"]

    mending = Mending(folder, tell)
    summary = await mending.run(folder, archive)

    assert mending.phases == ["discovering", "moving", "verifying", "moving", "verifying", "deleting"]
    assert {state: count.instances for state, count in summary.counts.items()} == {State.DONE: 15, State.EXCLUDED: 1}
    assert (summary.facts.phase, summary.facts.run, summary.verified) == ("complete", 1, 15)


@pytest.mark.parametrize(
    ("reasons", "error"),
    [([4711], ""), ([], ""), *((bad, "retry: give reasons as a list of numbers") for bad in ("all", 5, ["5"], [True]))],
)
async def test_nothing_else_is(folder: Path, archive: EmbeddedArchive, reasons: Any, error: str) -> None:
    async def tell(job: jobs.Job) -> None:
        assert (await asked(job, {"do": "retry", "reasons": reasons})).get("error", "") == error

    summary = await Mending(folder, tell).run(folder, archive)

    assert summary.of(State.FAILED).instances == 1
    assert summary.facts.phase == "complete"


async def test_from_the_page_of_the_job(folder: Path, archive: EmbeddedArchive) -> None:
    async def tell(job: jobs.Job) -> None:
        page = LivePage(lambda: LedgerReader(job.path), ask=lambda message: asked(job, message), control=True)
        async with page, visitor(page) as client:
            await client.get(page.address)
            text = (await client.get("/")).text
            assert "1 failed" in text
            form = {"do": "retry", "reason": str(int(Reason.UNREADABLE)), "proof": proof_in(text)}
            answer = await client.post("/control", data=form, headers={"Origin": page.url})
            assert answer.status_code == 200

    summary = await Mending(folder, tell).run(folder, archive)

    assert summary.of(State.DONE).instances == 15
