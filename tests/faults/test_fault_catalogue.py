"""Every fault of the catalogue meets an upload, a download and a search, on both transports."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from postdicom_async import (
    ConnectionFailed,
    DicomWeb,
    DownloadReport,
    PostdicomError,
    Status,
    Timeouts,
    Tls,
    UploadReport,
)
from postdicom_async.cli.exits import Exit, code_of, code_of_failures
from tests.faults.archive import MemoryArchive, name_of, uids_of
from tests.faults.catalogue import FAULTS, FILES, OLDER, STUDY, Fault, Verb
from tests.faults.clients import FAST, files_below, transport_of
from tests.support.certificates import Authority
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port

if TYPE_CHECKING:
    from tests.support.faulty_server import OnAccept

BOUND = 20.0  # seconds for a whole call, where a time-out is 0.3 s
MANY = 60  # requests that no call may make
SHORT = Timeouts(
    **dict.fromkeys(("connect", "idle_write", "answer", "search_answer", "idle_read", "least_rate_window"), 0.3),
    least_rate=2000.0,
)
PATIENT = replace(FAST, retry=replace(FAST.retry, max_attempts=2))
SILENT = replace(PATIENT, timeouts=SHORT)
DAY = timedelta(days=1)
NEVER_LEFT = {"refused", "other name", "expired", "unknown authority", "reset in the handshake"}

KINDS: dict[Verb, str] = {"upload": "POST", "download": "GET", "search": "GET"}
CASES = [(name, verb) for name, fault in FAULTS.items() for verb in KINDS if fault.expected(verb)]
ONCE = [(name, verb) for name, verb in CASES if verb in FAULTS[name].mended]


def is_of(verb: Verb, request: Request) -> bool:
    """Whether a request is one of those that the fault is to meet."""
    if verb == "upload":
        return request.method == "POST"
    return request.method == "GET" and request.path.endswith("/instances") is (verb == "search")


@dataclass
class Stage:
    """An archive with a fault in it."""

    fault: Fault
    verb: Verb
    at_most: int
    met: int = 0

    def __post_init__(self) -> None:
        there = OLDER if self.fault.older else ()
        self.archive = MemoryArchive(there if self.verb == "upload" else FILES)

    def _meets(self, request: Request) -> bool:
        return is_of(self.verb, request) and self.met < self.at_most

    def head(self, request: Request) -> Reply | None:
        """Read a request as the fault has it."""
        if self.fault.head is None or not self._meets(request):
            return None
        self.met += 1
        return self.fault.head

    def __call__(self, request: Request) -> Reply:
        """Answer a request as the fault has it."""
        if self.fault.answer is None or not self._meets(request):
            return self.archive(request)
        self.met += 1
        return self.fault.answer(request, lambda: self.archive(request))


class KnownLater(httpx.AsyncBaseTransport):
    """Sends the first requests to a host whose name is not known, and all others where they belong."""

    def __init__(self, transport: httpx.AsyncBaseTransport, failing: int = 1) -> None:
        self.transport, self.failing = transport, failing

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.failing:
            self.failing -= 1
            request = httpx.Request(request.method, "http://archive.invalid/", headers={"Content-Length": "0"})
        return await self.transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self.transport.aclose()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def contexts(authority: Authority) -> dict[str, ssl.SSLContext]:
    now = datetime.now(UTC)
    return {
        "other name": authority.server("archive.example"),
        "expired": authority.server("127.0.0.1", not_before=now - 2 * DAY, not_after=now - DAY),
        "unknown authority": Authority(authority.folder / "other").server("127.0.0.1"),
    }


@dataclass
class Scene:
    """A client in front of an archive with a fault."""

    stage: Stage
    server: FaultyServer
    client: DicomWeb


@pytest.fixture
def scene(transport_name: str, authority: Authority, contexts: dict[str, ssl.SSLContext]) -> Any:
    @contextlib.asynccontextmanager
    async def made(name: str, verb: Verb, *, at_most: int = 1_000_000) -> AsyncIterator[Scene]:
        fault = FAULTS[name]
        stage = Stage(fault, verb, at_most)
        context = contexts.get(fault.way)
        accept: dict[str, OnAccept] = {"silent": "silent", "reset": "reset", "reset in the handshake": "reset"}
        using = SILENT if fault.silent else PATIENT
        if context is not None:
            using = replace(using, tls=Tls(ca_file=authority.ca_file))
        transport = transport_of(transport_name, using)
        if fault.way == "unknown at first":
            transport = KnownLater(transport)
        tokens = iter(f"token-{n}" for n in range(1000))
        server = FaultyServer(stage, on_head=stage.head, on_accept=accept.get(fault.way, "serve"), ssl_context=context)
        async with server:
            url = server.url.replace("http:", "https:") if fault.way == "reset in the handshake" else server.url
            if fault.way == "refused":
                url = f"http://127.0.0.1:{unused_port()}"
            auth = (lambda: next(tokens)) if name == "F29" else None
            async with DicomWeb(url, settings=using, transport=transport, auth=auth) as client:
                yield Scene(stage, server, client)
            assert len(server.requests) <= MANY

    return made


# --- what comes of it -----------------------------------------------------------------------------------------------


async def outcome_of(scene: Scene, verb: Verb, to: Path) -> tuple[str, PostdicomError | None]:
    """Do it, and tell what came of it as the catalogue writes it, having looked that nothing false is told."""
    problem: PostdicomError | None = None
    result: Any = None
    try:
        async with asyncio.timeout(BOUND):
            if verb == "upload":
                result = await scene.client.upload(FILES)
            elif verb == "download":
                result = await scene.client.download_study(STUDY, to=to)
            else:
                result = await scene.client.search_for_instances(study_instance_uid=STUDY).raw.all()
    except PostdicomError as error:
        problem = error
    outcome = told(scene, verb, to, result if problem is None else problem.report, problem)
    return f"{outcome}/{exit_of(problem, result):d}", problem


def told(scene: Scene, verb: Verb, to: Path, result: Any, problem: PostdicomError | None) -> str:
    """Return the outcome in a word."""
    if verb == "upload":
        statuses = checked_upload(scene, result)
        if scene.stage.fault.way in NEVER_LEFT:
            assert isinstance(problem, ConnectionFailed)
            assert not problem.may_have_arrived
            assert not statuses & {"stored", "unconfirmed"}, "nothing left this machine"
        return ", ".join(sorted(statuses)) if problem is None else type(problem).__name__
    if verb == "download":
        checked_download(to, result)
        if problem is not None:
            return type(problem).__name__
        assert sorted(files_below(to).values()) == sorted(FILES)
        return "complete" if result.ok else f"complete, {'one' if result.refused == 1 else result.refused} refused"
    if problem is not None:
        return type(problem).__name__
    uids = [item.get("00080018", {"Value": [None]})["Value"][0] for item in result]
    assert uids == [uids_of(file).sop_instance_uid for file in FILES]
    return "found"


def checked_upload(scene: Scene, report: UploadReport | None) -> set[str]:
    """No instance is said to be in the archive that is not there as it was sent; and each has an outcome."""
    outcomes = report.outcomes if report is not None else ()
    for outcome in outcomes:
        if outcome.status in (Status.STORED, Status.WARNED):
            assert outcome.uids is not None
            sent = next(file for file in FILES if uids_of(file) == outcome.uids)
            assert scene.stage.archive.stored.get(outcome.uids) == sent
    return {str(outcome.status) for outcome in outcomes}


def checked_download(to: Path, report: DownloadReport | None) -> None:
    """Whatever has a final name is whole and right, nothing else lies about, and it is what the report says."""
    found = files_below(to)
    right = {name_of(file): file for file in FILES}
    assert found == {name: right.get(name) for name in found}
    assert report is not None
    assert len(found) == len(report.saved)


def exit_of(problem: PostdicomError | None, result: Any) -> Exit:
    """Return the code the command would end with."""
    if problem is not None:
        return code_of(problem)
    if isinstance(result, UploadReport):
        return code_of_failures(result.failures)
    return Exit.OK if not isinstance(result, DownloadReport) or result.ok else Exit.ITEMS_FAILED


def cases(chosen: list[tuple[str, Verb]]) -> list[Any]:
    """Return the parameters of a test."""
    return [pytest.param(name, verb, id=f"{name.replace(' ', '_')}-{verb}") for name, verb in chosen]


def test_the_catalogue_is_whole() -> None:
    assert {name[:3] for name in FAULTS} == {f"F{number:02}" for number in range(1, 37)}
    assert all(fault.upload or fault.download or fault.search for fault in FAULTS.values())
    assert len({fault.what for fault in FAULTS.values()}) == len(FAULTS)


@pytest.mark.parametrize(("name", "verb"), cases(CASES))
async def test_a_fault_that_lasts(name: str, verb: Verb, scene: Any, tmp_path: Path) -> None:
    async with scene(name, verb) as made:
        outcome, problem = await outcome_of(made, verb, tmp_path)
    expected = FAULTS[name].expected(verb).split(" or ")
    assert outcome in expected, (FAULTS[name].what, problem)


@pytest.mark.parametrize(("name", "verb"), cases(ONCE))
async def test_a_fault_that_happens_once(name: str, verb: Verb, scene: Any, tmp_path: Path) -> None:
    async with scene(name, verb, at_most=1) as made:
        outcome, problem = await outcome_of(made, verb, tmp_path)
    assert made.stage.met == 1
    assert outcome == {"upload": "stored/0", "download": "complete/0", "search": "found/0"}[verb], problem
    if verb == "upload":
        assert sorted(made.stage.archive.stored.values()) == sorted(FILES)
