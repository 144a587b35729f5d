"""An end that goes away while a job runs: nothing fails, nothing burns an attempt, and the job goes on by itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import AuthenticationFailed, ConnectionFailed, PostdicomError, ProtocolError, ServerError, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs import job as job_module
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.pace.outages import Outages
from postdicom_async.jobs.states import State
from tests.support.dicom_files import study_files


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Probed:
    """An end that can only be asked whether it works."""

    name = "far"

    def __init__(self, clock: Clock, back_at: float, problem: PostdicomError) -> None:
        self.probes = 0
        self._clock = clock
        self._back_at = back_at
        self._problem = problem

    async def probe(self) -> None:
        self.probes += 1
        if self._clock.now < self._back_at:
            raise self._problem


def waiting_for(end: Probed, clock: Clock, told: list[str], *, patience: float = 12 * 3600.0, **more: Any) -> Outages:
    return Outages(
        end,  # type: ignore[arg-type]  # it is only probed
        patience=OutagePatience(outage=patience),
        tell=told.append,
        clock=clock,
        sleep=clock.sleep,
        chance=lambda: 1.0,
        **more,
    )


@pytest.mark.parametrize("problem", [ConnectionFailed("gone"), ServerError("503", temporary=True)])
async def test_ten_hours_are_waited_out_with_few_probes(problem: PostdicomError) -> None:
    clock, told = Clock(), list[str]()
    end = Probed(clock, 10 * 3600, problem)
    outages = waiting_for(end, clock, told)
    assert await outages.outlasted(end, problem)  # type: ignore[arg-type]
    assert 10 * 3600 <= clock.now <= 10 * 3600 + 300, "noticed within one step"
    assert end.probes <= 10 * 12 + 10
    await outages.clear()
    outages.succeeded(end)  # type: ignore[arg-type]
    before = clock.now
    await outages.clear()
    assert clock.now == before
    assert ["waiting for it" in told[0], "works again" in told[1], len(told)] == [True, True, 2]


async def test_many_that_fail_at_once_ask_with_one_voice() -> None:
    clock, told = Clock(), list[str]()
    end = Probed(clock, 600, ConnectionFailed("gone"))
    outages = waiting_for(end, clock, told)
    failed = [outages.outlasted(end, ConnectionFailed("gone")) for _ in range(50)]  # type: ignore[arg-type]
    assert all(await asyncio.gather(*failed))
    assert end.probes <= 60


async def test_patience_has_an_end() -> None:
    clock, told = Clock(), list[str]()
    end = Probed(clock, 10 * 3600, ConnectionFailed("gone"))
    outages = waiting_for(end, clock, told, patience=3600)
    with pytest.raises(ConnectionFailed) as caught:
        await outages.outlasted(end, ConnectionFailed("gone"))  # type: ignore[arg-type]
    assert caught.value.temporary
    assert clock.now <= 3600 + 600


async def test_a_failure_of_an_end_that_answers_is_none_of_the_weather() -> None:
    clock, told = Clock(), list[str]()
    end = Probed(clock, 0, ConnectionFailed("gone"))
    outages = waiting_for(end, clock, told)
    assert not await outages.outlasted(end, ProtocolError("half an answer", temporary=True))  # type: ignore[arg-type]
    assert not told


async def test_what_the_archive_asks_for_is_never_undercut() -> None:
    clock, told = Clock(), list[str]()
    end = Probed(clock, 0, ConnectionFailed("gone"))
    outages = waiting_for(end, clock, told)
    asked = ServerError("busy", temporary=True, retry_after=3000.0)
    assert await outages.outlasted(end, asked)  # type: ignore[arg-type]
    assert clock.now >= 3000
    assert end.probes <= 1


async def test_lost_credentials_end_the_job_at_once() -> None:
    clock, told = Clock(), list[str]()
    end = Probed(clock, 10, AuthenticationFailed("401"))
    outages = waiting_for(end, clock, told)
    with pytest.raises(AuthenticationFailed):
        await outages.outlasted(end, AuthenticationFailed("401"))  # type: ignore[arg-type]
    assert clock.now < 10


def unknown_host() -> ConnectionFailed:
    problem = ConnectionFailed("the host name is not known", operation="list studies")
    problem.host_unknown = True
    return problem


@pytest.mark.parametrize("by_the_probe", [False, True], ids=["by the first question", "by the probe"])
async def test_a_host_name_that_was_never_known_is_not_waited_for(by_the_probe: bool) -> None:
    clock, told = Clock(), list[str]()
    end = Probed(clock, 3600, unknown_host())
    outages = waiting_for(end, clock, told, unreached=["source"])
    with pytest.raises(ConnectionFailed) as caught:
        await outages.outlasted(end, ServerError("502", temporary=True) if by_the_probe else unknown_host())  # type: ignore[arg-type]
    assert str(caught.value) == "source far: list studies: the host name is not known"
    assert (clock.now, caught.value.temporary) == (0, True)


async def test_a_host_name_that_was_known_is_waited_for() -> None:
    clock, told, reached = Clock(), list[str](), list[str]()
    end = Probed(clock, 3600, unknown_host())
    outages = waiting_for(end, clock, told, unreached=["source"], reached=reached.append)
    outages.succeeded(end)  # type: ignore[arg-type]
    assert await outages.outlasted(end, unknown_host())  # type: ignore[arg-type]
    assert clock.now >= 3600
    assert reached == ["source"], "told once"


async def test_an_outage_is_told_in_words() -> None:
    clock, told = Clock(), list[str]()
    problem = ConnectionFailed("the connection was refused")
    end = Probed(clock, 600, problem)
    assert await waiting_for(end, clock, told, unreached=["source"]).outlasted(end, problem)  # type: ignore[arg-type]
    until = r"at the longest until \d{4}-\d\d-\d\d \d\d:\d\d UTC \(--patience\)"
    assert re.fullmatch(f"source far: waiting for it, {until}: the connection was refused", told[0])


async def test_a_mistyped_source_ends_a_job_at_its_start(archive: EmbeddedArchive) -> None:
    with pytest.raises(ConnectionFailed, match=r"source .*no-such-host.*: the host name is not known") as caught:
        await asyncio.wait_for(jobs.copy("http://no-such-host.invalid/dicomweb", archive.url), 30)
    assert caught.value.temporary


async def test_the_end_that_refuses_is_named(archive: EmbeddedArchive) -> None:
    async with EmbeddedArchive(username="a", password="b") as closed:
        for source, target, words in [(closed, archive, "source"), (archive, closed, "target")]:
            with pytest.raises(AuthenticationFailed) as caught:
                await asyncio.wait_for(jobs.copy(source.url, target.url), 30)
            assert str(caught.value).startswith(f"{words} {closed.url.removesuffix('/dicomweb')}")
            assert "(status 401" in str(caught.value)
    with pytest.raises(ConnectionFailed, match=r"^target https://.*: the server does not speak TLS at this port"):
        await asyncio.wait_for(jobs.copy(archive.url, archive.url.replace("http:", "https:")), 30)


def _written(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    for name, data in files.items():
        (folder / f"{name}.dcm").write_bytes(data)
    return [folder / f"{name}.dcm" for name in files]


async def test_a_job_goes_on_by_itself_when_its_target_is_back(
    tmp_path: Path, archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "OutagePatience", partial(OutagePatience, first_step=0.1, last_step=0.3))
    for study in range(1, 9):
        for name, data in study_files(6, study=study).items():
            (tmp_path / name).write_bytes(data)
    archive.add_files(tmp_path.iterdir())
    there = tmp_path / "there"
    target = EmbeddedArchive(there, username=None, password=None)
    async with target:
        url = target.url
        job = await jobs.copy(archive.url, url, pace=jobs.Pace(max_rate="100K"))
        async for _ in job:
            break
    while not job.summary().notes:
        assert job.is_running
        await asyncio.sleep(0.1)
    async with EmbeddedArchive(there, username=None, password=None, port=int(url.rpartition(":")[2])) as target:
        job.pace.set(max_rate="off")
        summary = await asyncio.wait_for(job.wait(), 60)
    assert {state: count.instances for state, count in summary.counts.items()} == {State.DONE: 48}
    assert [note for note in summary.notes if "waiting for it" in note]
