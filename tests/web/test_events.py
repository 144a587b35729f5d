"""Progress as server-sent events: what is told, when it ends, and what ends with the listener."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from postdicom_async import BytesMoved, DicomWeb, NotFound, Totals, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.results import OnProgress
from postdicom_async.web import events_response, progress_events, sse
from tests.support.dicom_files import study_files
from tests.web.serving import browser, served

FILES = list(study_files(4, study=1, series=1).values())
WRONG = "cnry-wr0ng"


def totals(done: int) -> Totals:
    return Totals(instances_done=done, instances_total=4, bytes_done=10 * done, bytes_total=None)


async def test_an_upload_through_a_browser() -> None:
    async with EmbeddedArchive() as embedded, DicomWeb(embedded.url, auth=embedded.auth) as archive:

        async def ask(_request: Request) -> Response:
            return events_response(sse(lambda tell: archive.upload(FILES, progress=tell)))

        async with served(Starlette(routes=[Route("/", ask)])) as url, browser() as client:
            answer = await client.get(url)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = [event.split("\n") for event in answer.text.removesuffix("\n\n").split("\n\n")]
    assert [name for name, _ in events][-2:] == ["event: progress", "event: ended"]
    last, end = (json.loads(data.removeprefix("data: ")) for _, data in events[-2:])
    assert (last["instances_done"], last["bytes_done"]) == (4, sum(map(len, FILES)))
    assert end == {"problem": "", "counts": {"stored": 4}}


async def test_only_what_has_changed_is_told_and_a_comment_keeps_it_alive() -> None:
    tells: list[OnProgress] = []
    may_end = asyncio.Event()

    async def work(tell: OnProgress) -> None:
        tells.append(tell)
        await may_end.wait()
        tell(BytesMoved(totals(4)))

    async with aclosing(sse(work, every=0.005, alive=0.01)) as events:
        assert await anext(events) == ": still here\n\n"
        tells[0](BytesMoved(totals(1)))
        tells[0](BytesMoved(totals(2)))
        while (event := await anext(events)).startswith(":"):
            pass
        assert json.loads(event.partition("data: ")[2])["instances_done"] == 2
        assert await anext(events) == ": still here\n\n"
        may_end.set()
        rest = [event async for event in events if not event.startswith(":")]
    assert [event.partition("\n")[0] for event in rest] == ["event: progress", "event: ended"]
    assert rest[-1].endswith('data: {"problem": ""}\n\n')


async def test_what_ended_it_is_told() -> None:
    async def work(_tell: OnProgress) -> None:
        raise NotFound("it is not there")

    assert [tuple(told) async for told in progress_events(work)] == [("ended", {"problem": "it is not there"})]


async def test_no_path_of_the_backend_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "CANARY^JANE"
    async with EmbeddedArchive() as embedded, DicomWeb(embedded.url, auth=embedded.auth) as archive:
        told = [told async for told in progress_events(lambda tell: archive.upload(missing, progress=tell))]
    assert told[-1].content["problem"] == "a file of the backend cannot be used"
    assert "CANARY" not in str(told)


async def test_a_transfer_that_ended_early_tells_how_far_it_came(tmp_path: Path) -> None:
    async with EmbeddedArchive() as embedded, DicomWeb(embedded.url, auth=embedded.auth) as archive:
        report = await archive.upload([*FILES, FILES[0][:-50]])

    async def work(_tell: OnProgress) -> Any:
        report.raise_for_failures()

    (told,) = [told async for told in progress_events(work)]
    assert told.name == "ended"
    assert told.content["problem"]
    assert told.content["counts"] == {"stored": 4, "unreadable": 1}


async def test_other_errors_are_raised() -> None:
    async def work(_tell: OnProgress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await anext(progress_events(work))


async def test_a_listener_that_leaves_ends_a_transfer() -> None:
    ended = asyncio.Event()

    async def work(tell: OnProgress) -> None:
        try:
            tell(BytesMoved(totals(1)))
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with aclosing(sse(work, every=0.05)) as events:
        while "instances_done" not in await anext(events):
            pass
        assert not ended.is_set()
    assert ended.is_set()


async def test_a_listener_that_leaves_does_not_end_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDICOM_STATE", str(tmp_path / "state"))
    async with EmbeddedArchive() as embedded:
        async with DicomWeb(embedded.url, auth=embedded.auth) as archive:
            await archive.upload(FILES)
        job = await jobs.copy(DicomWeb(embedded.url, auth=embedded.auth), tmp_path / "backup")
        async with job:
            job.pause()
            async with aclosing(sse(job)) as events:
                first = json.loads((await anext(events)).partition("data: ")[2])
            assert first["paused"] is True
            assert job.is_running
            job.resume()
            two = await asyncio.gather(*(_all(job) for _ in range(2)))
    for told in two:
        assert told[-2]["counts"] == {"done": 4}
        assert told[-2]["phase"] == "complete"
        assert told[-1] == {"problem": ""}
    assert len(list((tmp_path / "backup").rglob("*.dcm"))) == 4


async def _all(job: jobs.Job) -> list[dict[str, Any]]:
    return [told.content async for told in progress_events(job, every=0.05)]


async def test_a_job_that_cannot_go_on_says_so_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDICOM_STATE", str(tmp_path / "state"))
    async with (
        EmbeddedArchive(tokens={WRONG: "demo"}) as embedded,
        await jobs.copy(DicomWeb(embedded.url, auth=WRONG), tmp_path / "backup") as job,
    ):
        del embedded.tokens[WRONG]  # it has begun; now its token is no longer good
        told = await _all(job)
    assert told[-1]["problem"]
    assert WRONG not in json.dumps(told)
