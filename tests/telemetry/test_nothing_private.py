"""Nothing private in a line of the log, an event, a span or a metric, whatever is asked for and answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from postdicom_async import ClientCredentials, DicomWeb, PostDicom, PostdicomError, jobs
from postdicom_async.events import Event, JobEnded, RequestEnded
from tests.cloud.service import ACCOUNT_KEY, API_KEY, SESSION, CloudService
from tests.cloud.test_canaries import CALLS as CLOUD_CALLS
from tests.cloud.test_canaries import MAIL, found, no
from tests.faults.archive import MemoryArchive
from tests.faults.clients import settings
from tests.faults.test_nothing_private_shows import BASIC, CALLS, FILE, STUDY, echoes, words
from tests.jobs.conftest import _state_folder
from tests.postdicom.test_canaries import CALLS as OPERATIONS
from tests.postdicom.test_canaries import everything_back, no_in_200, reason_header, reason_json
from tests.support.bodies import json_reply
from tests.support.canaries import CANARIES, CanaryWatch, canary_watch
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.telemetry.conftest import Traced

__all__ = ["_state_folder"]

KEYS = {"api_key": API_KEY, "account_key": ACCOUNT_KEY, "session": SESSION, "mail": MAIL, "study": STUDY}
TOKEN = CANARIES["token"]


class Watched:
    """Looks at all that is told, by whichever way."""

    def __init__(self, watch: CanaryWatch, traced: Traced) -> None:
        self._watch = watch
        self._traced = traced
        self.told: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.told.append(event)

    async def call(self, made: Awaitable[Any]) -> None:
        """Make a call, which may fail."""
        with suppress(PostdicomError, TimeoutError):
            await made

    def looked_at(self) -> str:
        """Give it all to the watch, which fails the test at its end; return it too."""
        events = "\n".join(f"{one!r} {asdict(one)}" for one in self.told)
        self._watch.feed_text(events, "events")
        exported = self._traced.everything()
        self._watch.feed_text(exported, "spans and metrics")
        return events + exported


@pytest.fixture
def watched(traced: Traced) -> Any:
    """Watch the log at DEBUG too; UIDs of studies may stand in errors, and are told to nobody."""
    with canary_watch({**CANARIES, **KEYS}) as watch:
        yield Watched(watch, traced)


HOSTILE = (
    "Warning", "X-Error-Reason", "a message", "conflict", "cut", "not HTTP", "rate limit", "reason phrase", "redirect",
    "server failure", "unauthorized",
)  # fmt: skip


@pytest.mark.parametrize(
    ("auth", "names"), [(BASIC, HOSTILE), (lambda: TOKEN, ("unauthorized", "X-Error-Reason"))], ids=["basic", "token"]
)
async def test_calls_of_dicomweb(auth: Any, names: tuple[str, ...], watched: Watched, tmp_path: Path) -> None:
    replies = echoes(words(*BASIC, TOKEN))
    using = settings(max_attempts=2, on_event=watched.on_event)
    for name in names:
        async with (
            FaultyServer(replies[name]) as server,
            DicomWeb(f"{server.url}/{CANARIES['path']}", auth=auth, settings=using) as archive,
        ):
            for call in CALLS.values():
                await watched.call(call(archive))
            await watched.call(archive.download_study(STUDY, to=tmp_path / CANARIES["path"]))
    shown = watched.looked_at()
    assert sum(isinstance(one, RequestEnded) for one in watched.told) > 5 * len(names)
    assert "http.client.request.duration" in shown
    assert server.url not in shown


async def test_calls_that_succeed_and_that_are_ended(watched: Watched, tmp_path: Path) -> None:
    letter = tmp_path / f"{CANARIES['path']}.dcm"
    letter.write_bytes(FILE)
    using = settings(on_event=watched.on_event)
    async with FaultyServer(MemoryArchive()) as server, DicomWeb(server.url, auth=BASIC, settings=using) as archive:
        await archive.upload(letter, report=tmp_path / "report")
        await archive.download_study(STUDY, to=tmp_path / "out")
    async with FaultyServer(Reply(silent=True)) as server, DicomWeb(server.url, auth=BASIC, settings=using) as archive:
        for call in CALLS.values():
            with suppress(PostdicomError, TimeoutError):
                async with asyncio.timeout(0.05):
                    await call(archive)
        await watched.call(archive.upload(tmp_path / CANARIES["path"]))
    watched.looked_at()


@pytest.mark.parametrize(
    "answer", [everything_back, reason_header, reason_json, no_in_200], ids=["back", "header", "json", "no"]
)
async def test_operations(answer: Callable[[Request], Reply], watched: Watched) -> None:
    using = settings(max_attempts=2, on_event=watched.on_event)
    async with FaultyServer(answer) as server, PostDicom(server.url, *BASIC, settings=using) as account:
        for call in OPERATIONS.values():
            await watched.call(call(account))
    shown = watched.looked_at()
    assert "create patient order" in shown
    assert "search folders" in shown


@pytest.mark.parametrize("answer", [found, no], ids=["yes", "no"])
async def test_the_cloud_api(answer: Any, watched: Watched) -> None:
    using = settings(max_attempts=2, answer=2, on_event=watched.on_event)
    async with CloudService(answer) as service, service.client(settings=using) as api:
        for call in CLOUD_CALLS.values():
            await watched.call(call(api))
    shown = watched.looked_at()
    assert "create folder" in shown
    assert "websocket" in shown


async def test_a_job(watched: Watched, tmp_path: Path) -> None:
    """From a folder whose path names the patient, to an archive that repeats what it gets."""
    folder = tmp_path / CANARIES["path"]
    folder.mkdir()
    for number in range(3):
        data = small_dicom(
            instance=uid(1, 1, number + 1), patient_name=CANARIES["patient_name"], patient_id=CANARIES["patient_id"]
        )
        (folder / f"{CANARIES['accession']}-{number}.dcm").write_bytes(data)
    (folder / "other.txt").write_text(CANARIES["patient_name"])
    failing = iter([echoes(words(*BASIC))[name] for name in ("server failure", "JSON", "conflict", "text instead")])
    fault = MemoryArchive(fault=lambda request: next(failing, None) if request.method == "POST" else None)
    using = settings(max_attempts=2, on_event=watched.on_event)
    async with FaultyServer(fault) as server:
        target = DicomWeb(f"{server.url}", auth=BASIC, settings=using)
        job = await jobs.copy(folder, target, on_event=watched.on_event, verify="none", patience=1.0, attempts=1)
        await watched.call(job.wait())
    watched.looked_at()
    assert any(isinstance(one, JobEnded) for one in watched.told)


async def test_requests_for_tokens(watched: Watched) -> None:
    """A client's secret, its token, and what a token endpoint says of both: granted, refused, in bad order."""
    secret, path = CANARIES["password"], CANARIES["path"]
    granted = json_reply({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 60})
    refused = json_reply({"error": "invalid_client", "error_description": f"{secret} of {CANARIES['username']}"}, 401)
    using = settings(max_attempts=2, on_event=watched.on_event)
    for script in ([granted], [refused], [Reply(503, body=secret.encode())] * 2, [Reply(drop_after_request=True)] * 2):
        for way in ("basic", "post"):
            async with FaultyServer(list(script)) as tokens, FaultyServer(json_reply([])) as server:
                auth = ClientCredentials(f"{tokens.url}/{path}?{CANARIES['query']}", "me", secret, client_auth=way)
                async with DicomWeb(server.url, auth=auth, settings=using) as archive:
                    await watched.call(archive.search_for_studies(limit=1).all())
    told = watched.looked_at()
    assert "AuthenticationFailed" in told
    assert {one.status for one in watched.told if isinstance(one, RequestEnded)} >= {200}


async def test_the_watch_would_see_it(traced: Traced) -> None:
    """All of this proves nothing if what is exported were not looked at."""
    with canary_watch({"operation": "store instances"}) as watch:
        looks = Watched(watch, traced)
        using = settings(on_event=looks.on_event)
        async with FaultyServer(MemoryArchive()) as server, DicomWeb(server.url, settings=using) as archive:
            await archive.upload(FILE)
        looks.looked_at()
        seen = {hit.rpartition(" in ")[2] for hit in watch.found()}
        assert seen == {"log of postdicom_async.http", "events", "spans and metrics"}
        watch._texts.clear()
    assert json.loads(traced.ended[0].to_json())["name"]
