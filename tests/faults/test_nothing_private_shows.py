"""Passwords, tokens and patient data in no log, error, repr or report, whatever fails."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import DicomWeb, PostdicomError, Tls
from postdicom_async.dicomweb.dialects import DICOMWEB
from postdicom_async.dicomweb.search import SearchQuery
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from tests.faults.archive import MemoryArchive, is_search, parts_sent, uids_of
from tests.faults.clients import FAST, settings
from tests.support.bodies import multipart_related, stow_answer
from tests.support.canaries import CANARIES, CanaryWatch, frames_that_left
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.faults.clients import Connect

BASIC = (CANARIES["username"], CANARIES["password"])
FILTERS = {
    "PatientName": CANARIES["patient_name"] + "*",
    "PatientID": CANARIES["patient_id"],
    "PatientBirthDate": CANARIES["birth_date"],
    "AccessionNumber": CANARIES["accession"],
}
FILE = small_dicom(patient_name=CANARIES["patient_name"], patient_id=CANARIES["patient_id"])
STUDY, SERIES, INSTANCE = uids_of(FILE)
PATIENT = f"{CANARIES['patient_name']} ({CANARIES['patient_id']})"
ADDRESS = f"http://x/{CANARIES['accession']}?a={CANARIES['query']}"


def words(*credentials: str) -> str:
    """Return what a server could say that knows no manners: of the patient, of the request and of who made it."""
    path = f"/{CANARIES['path']}/{CANARIES['query']}"
    return f"no match for {PATIENT} by {' with '.join(credentials)} at {ADDRESS}, see {path}"


def echoes(echo: str) -> dict[str, Reply]:
    text = {"Content-Type": "text/plain"}
    message = json.dumps({"Message": echo, "Details": echo}).encode()
    return {
        "X-Error-Reason": Reply(400, {"X-Error-Reason": echo}),
        "Warning": Reply(400, {"Warning": f'299 x "{echo}"'}),
        "plain text": Reply(400, text, echo.encode()),
        "JSON": Reply(400, {"Content-Type": "application/json"}, message),
        "HTML": Reply(400, {"Content-Type": "text/html"}, f"<html>{echo}</html>".encode()),
        "reason phrase": Reply(400, reason=echo),
        "any header": Reply(400, {"X-Echo": echo, "Location": f"/{CANARIES['query']}", "Set-Cookie": echo}),
        "server failure": Reply(500, text, echo.encode()),
        "unauthorized": Reply(401, {"WWW-Authenticate": f'Basic realm="{echo}"'}, echo.encode()),
        "forbidden": Reply(403, text, echo.encode()),
        "not found": Reply(404, text, echo.encode()),
        "conflict": Reply(409, text, echo.encode()),
        "rate limit": Reply(429, {"Retry-After": "9999", "X-Error-Reason": echo}),
        "redirect": Reply(302, {"Location": f"http://127.0.0.1:1/?name={CANARIES['patient_name']}"}),
        "text instead": Reply(200, text, echo.encode()),
        "not JSON": Reply(200, {"Content-Type": "application/json"}, echo.encode()),
        "JSON of another kind": Reply(200, {"Content-Type": "application/json"}, json.dumps([echo]).encode()),
        "a message": Reply(200, {"Content-Type": "application/json"}, message),
        "not HTTP": Reply(raw=echo.encode() + b"\r\n\r\n"),
        "lost": Reply(raw=b""),
        "cut": Reply(200, {"X-Echo": echo}, message, cut_after=50),
        "packed": Reply(200, {"Content-Encoding": echo}, echo.encode()),
    }


ECHO = words(*BASIC)
CALLS: dict[str, Callable[[DicomWeb], Awaitable[Any]]] = {
    "search": lambda archive: archive.search_for_studies(FILTERS).all(),
    "store": lambda archive: archive.upload(FILE),
    "store one by one": lambda archive: archive.store_instances([FILE, small_dicom(instance=uid(1, 1, 2))]),
    "metadata": lambda archive: archive.retrieve_study_metadata(STUDY).all(),
    "bulk data": lambda archive: archive.retrieve_bulkdata(f"bulk/{CANARIES['query']}?n={CANARIES['patient_name']}"),
    "rendered": lambda archive: archive.retrieve_instance_rendered(
        STUDY, SERIES, INSTANCE, parameters={"annotation": CANARIES["patient_name"]}
    ),
    "delete": lambda archive: archive.delete_study(STUDY),
    "stream": lambda archive: read_all(archive),
}


async def read_all(archive: DicomWeb) -> None:
    async with archive.iter_study(STUDY) as parts:
        async for part in parts:
            await part.read()


async def watched(watch: CanaryWatch, call: Awaitable[Any], *, must_fail: bool = False) -> None:
    """Look at all that comes out of a call."""
    failed = False
    left_with_it: list[str] = []
    try:
        found = await call
    except PostdicomError as error:
        failed = True
        watch.feed(error, "error")
        left_with_it = frames_that_left(error)
        watch.feed(error.report, "report on the error")
        for outcome in getattr(error.report, "outcomes", ()):
            watch.feed(outcome.reason, "reason of an outcome")
    else:
        outcomes = found if isinstance(found, tuple) else getattr(found, "outcomes", ())
        watch.feed(repr(found) if outcomes else "", "result")
        for outcome in outcomes:
            watch.feed(outcome.reason, "reason of an outcome")
            watch.feed(outcome, "outcome")
    assert failed or not must_fail
    assert not left_with_it


@pytest.mark.parametrize("echo", echoes(""))
async def test_what_a_server_repeats_is_masked(
    echo: str, connect: Connect, canary_watch: CanaryWatch, tmp_path: Path
) -> None:
    token = CANARIES["token"]
    logins: list[tuple[Any, tuple[str, ...]]] = [(BASIC, BASIC), (token, (token,)), (lambda: token, (token,))]
    for auth, sent in logins:
        async with (
            FaultyServer(echoes(words(*sent))[echo]) as server,
            connect(server.url, settings(max_attempts=2), auth=auth) as archive,
        ):
            canary_watch.feed(archive)
            canary_watch.feed(vars(archive._session)["_credentials"])
            for call in CALLS.values():
                await watched(canary_watch, call(archive))
            await watched(canary_watch, archive.download_study(STUDY, to=tmp_path))


async def test_connections_that_fail(connect: Connect, canary_watch: CanaryWatch) -> None:
    for url in (
        f"http://127.0.0.1:{unused_port()}/{CANARIES['path']}",
        f"https://127.0.0.1:{unused_port()}/{CANARIES['path']}",
        f"http://{CANARIES['path']}.localhost:{unused_port()}/",
    ):
        async with connect(url, settings(max_attempts=2), auth=BASIC) as archive:
            for call in CALLS.values():
                if CANARIES["path"] in url.split("/")[2]:
                    continue  # a host is shown, on purpose
                await watched(canary_watch, call(archive), must_fail=True)


async def test_silence(connect: Connect, canary_watch: CanaryWatch) -> None:
    using = settings(max_attempts=1, answer=0.1, connect=0.1)
    async with FaultyServer(Reply(silent=True)) as server, connect(server.url, using, auth=BASIC) as archive:
        for name in ("search", "bulk data", "delete"):
            await watched(canary_watch, CALLS[name](archive), must_fail=True)


async def test_tls_that_fails(transport_name: str, canary_watch: CanaryWatch, connect: Connect) -> None:
    async with FaultyServer(on_accept="close") as server:
        url = server.url.replace("http:", "https:") + "/" + CANARIES["path"]
        async with connect(url, settings(max_attempts=1), auth=BASIC) as archive:
            await watched(canary_watch, CALLS["search"](archive), must_fail=True)


async def test_the_store_answer_s_words(connect: Connect, canary_watch: CanaryWatch) -> None:
    """The archive names the patient in each kind of store answer."""

    def failing(request: Request) -> Reply:
        body = json.loads(stow_answer(failed=[uids_of(part).sop_instance_uid for part in parts_sent(request)]))
        body["00081190"] = {"vr": "UR", "Value": [ECHO]}
        return Reply(409, {"Content-Type": "application/dicom+json", "Warning": ECHO}, json.dumps(body).encode())

    async with FaultyServer(failing) as server, connect(server.url, auth=BASIC) as archive:
        await watched(canary_watch, archive.upload(FILE))
    for status in (400, 409, 413, 200):
        reply = Reply(status, {"Content-Type": "text/plain"}, ECHO.encode())
        async with FaultyServer(reply) as server, connect(server.url, auth=BASIC) as archive:
            await watched(canary_watch, archive.upload([FILE, small_dicom(instance=uid(1, 1, 2))]))


async def test_warnings_of_a_search(connect: Connect, canary_watch: CanaryWatch) -> None:
    reply = Reply(200, {"Content-Type": "application/json", "Warning": f'299 x "{ECHO}"'}, b"[]")
    async with FaultyServer(reply) as server, connect(server.url, auth=BASIC) as archive:
        results = archive.search_for_studies(FILTERS)
        await results.all()
    assert results.warnings
    canary_watch.feed(results.warnings)
    canary_watch.feed(results)


async def test_a_download_that_lacks_something(connect: Connect, canary_watch: CanaryWatch, tmp_path: Path) -> None:
    folder = tmp_path / CANARIES["path"]
    cut = multipart_related([FILE]).reply(cut_after=1500)

    def fault(request: Request) -> Reply | None:
        return None if is_search(request) else cut

    async with FaultyServer(MemoryArchive([FILE], fault)) as server, connect(server.url, auth=BASIC) as archive:
        await watched(canary_watch, archive.download_study(STUDY, to=folder), must_fail=True)
    async with FaultyServer(MemoryArchive([FILE])) as server, connect(server.url, auth=BASIC) as archive:
        report = await archive.download_study(STUDY, to=folder)
        canary_watch.feed(repr(report))
        canary_watch.feed([repr(one) for one in report.saved])


async def test_files_of_an_upload(connect: Connect, canary_watch: CanaryWatch, tmp_path: Path) -> None:
    folder = tmp_path / CANARIES["path"]
    folder.mkdir()
    (folder / "a").write_bytes(FILE)
    (folder / "b").write_bytes(b"text about " + ECHO.encode())
    (folder / "c").write_bytes(FILE[:200])
    async with FaultyServer(MemoryArchive()) as server, connect(server.url, auth=BASIC) as archive:
        report = await archive.upload(folder)
    canary_watch.feed(repr(report))
    for outcome in report.outcomes:
        canary_watch.feed(repr(outcome))
        canary_watch.feed(outcome.reason)


async def test_arguments_that_are_wrong(connect: Connect, canary_watch: CanaryWatch) -> None:
    async with FaultyServer([]) as server, connect(server.url, auth=BASIC) as archive:
        for call in (
            lambda: archive.search_for_studies({"PatientName": CANARIES["patient_name"] + "\0"}).all(),
            lambda: archive.search_for_studies({"PatientName": object()}).all(),  # type: ignore[dict-item]
            lambda: archive.retrieve_study_metadata(CANARIES["patient_id"]).all(),
            lambda: archive.retrieve_bulkdata(f"http://x.example/{CANARIES['patient_name']}"),
        ):
            with pytest.raises(PostdicomError) as caught:
                await call()
            canary_watch.feed(caught.value)


async def test_a_token_callable_that_fails(connect: Connect, canary_watch: CanaryWatch) -> None:
    def token() -> str:
        raise RuntimeError(CANARIES["token"])

    async with FaultyServer([]) as server, connect(server.url, auth=token) as archive:
        await watched(canary_watch, CALLS["search"](archive), must_fail=True)


def test_reprs_of_what_is_inside(canary_watch: CanaryWatch) -> None:
    """A crash reporter outside a public call, in a debugger or a log line of somebody's, sees these."""
    private = tuple(CANARIES.values())
    canary_watch.feed(Call("search", "GET", f"/x?{FILTERS}", Repeat.READ, headers={"a": private[0]}, private=private))
    canary_watch.feed(
        SearchQuery("search", "/studies", pairs=tuple(FILTERS.items()), private=private, dialect=DICOMWEB)
    )
    archive = DicomWeb("https://x.example", auth=BASIC)
    canary_watch.feed(archive.search_for_studies(FILTERS))
    canary_watch.feed(archive.iter_study(STUDY))
    canary_watch.feed(archive._session)


def test_reprs(canary_watch: CanaryWatch) -> None:
    using = replace(
        FAST, proxy=f"http://{BASIC[0]}:{BASIC[1]}@proxy.example:1", tls=Tls(key_password=CANARIES["password"])
    )
    canary_watch.feed(repr(using))
    canary_watch.feed(repr(DicomWeb(f"https://x.example/{CANARIES['path']}", auth=BASIC)))
