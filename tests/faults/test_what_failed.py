"""A retrieve that fails says what failed: an error status as what it is, and never that an answer broke off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    IncompleteDownload,
    NotFound,
    PostdicomError,
    ProtocolError,
    RateLimited,
    ServerError,
)
from tests.faults.archive import MemoryArchive, is_search
from tests.faults.clients import files_below, settings
from tests.support.bodies import multipart_related
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

STUDY = uid(1)
ONE = (uid(1), uid(1, 1), uid(1, 1, 1))
FILES = list(study_files(3).values())
HTML = {"Content-Type": "text/html"}
LOGIN = Reply(200, HTML, b"<html><title>Sign in</title></html>")

# The answer to every retrieve; the words that say so; what an instance in memory raises; whether a repeat may help.
ANSWERS: dict[str, tuple[Reply, str, type[PostdicomError], bool]] = {
    "500": (Reply(500), "the archive failed on it (status 500", ServerError, True),
    "500 page": (Reply(500, HTML, b"<html>x</html>"), "the archive failed on it (status 500", ServerError, True),
    "501": (Reply(501), "the archive does not offer this (status 501", ServerError, False),
    "502": (Reply(502, HTML, b"x"), "what stands before the archive got no usable answer from it", ServerError, True),
    "503": (Reply(503), "the archive is not available at the moment (status 503", ServerError, True),
    "503 wait": (Reply(503, {"Retry-After": "900"}), "the archive asks to wait (status 503", RateLimited, True),
    "504": (Reply(504), "what stands before the archive got no answer from it in time", ServerError, True),
    "507": (Reply(507), "the archive failed on it (status 507", ServerError, False),
    "400": (Reply(400), "the archive did not accept the request (status 400", ServerError, False),
    "406": (Reply(406), "the archive cannot answer in any form asked for (status 406", ServerError, False),
    "409": (Reply(409), "the archive refused it (status 409", ServerError, False),
    "429": (Reply(429), "the archive asks to wait (status 429", RateLimited, True),
    "302": (Reply(302, {"Location": "/login"}), "a redirect, which is not followed", ServerError, False),
    "login page": (LOGIN, "a web page came instead of instances", ProtocolError, False),
}


def failing(reply: Reply, *, listed: bool) -> Any:
    """Answer searches, or not, and every retrieve with this."""

    def fault(request: Request) -> Reply | None:
        if is_search(request):
            return None if listed else Reply(404)
        return reply

    return MemoryArchive(FILES, fault)


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "no list"])
@pytest.mark.parametrize("case", ANSWERS)
async def test_a_download(case: str, listed: bool, connect: Connect, tmp_path: Path) -> None:
    reply, words, kind, temporary = ANSWERS[case]
    asks_to_wait = kind is RateLimited  # then nothing more is asked for
    async with FaultyServer(failing(reply, listed=listed)) as server, connect(server.url) as archive:
        with pytest.raises(RateLimited if asks_to_wait else IncompleteDownload) as caught:
            await archive.download_study(STUDY, to=tmp_path)
    message = str(caught.value)
    assert words in message
    assert "broke off" not in message
    lacking = "3 of 3 instances did not arrive" if listed else "no instance arrived, and there is no list"
    assert asks_to_wait or lacking in message
    assert caught.value.report is not None
    assert not caught.value.report.ok
    assert caught.value.temporary is temporary
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_instance_in_memory(case: str, connect: Connect) -> None:
    reply, words, kind, temporary = ANSWERS[case]
    async with FaultyServer(failing(reply, listed=True)) as server, connect(server.url) as archive:
        for call in (archive.retrieve_instance(*ONE), archive.retrieve_instance_frames(*ONE, [1])):
            with pytest.raises(kind) as caught:
                await call
            assert words in str(caught.value)
            assert (caught.value.temporary, caught.value.status) == (temporary, reply.status)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationFailed), (403, AuthenticationFailed), (404, NotFound), (410, NotFound)]
)
async def test_what_is_its_own_error(status: int, kind: type[PostdicomError], connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer(failing(Reply(status), listed=False)) as server, connect(server.url) as archive:
        with pytest.raises(kind) as caught:
            await archive.download_study(STUDY, to=tmp_path)
    assert caught.value.status == status


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "no list"])
@pytest.mark.parametrize("then", ["500", "hangs up", "gone"])
async def test_the_last_thing_that_happened_is_told(then: str, listed: bool, connect: Connect, tmp_path: Path) -> None:
    """Two instances arrive, the third is cut; then it goes on to fail in another way."""
    whole = multipart_related(FILES)
    cut = whole.reply(cut_after=len(FILES[0]) + len(FILES[1]) + 500)
    servers: list[FaultyServer] = []
    retrieves: list[Request] = []

    def fault(request: Request) -> Reply | None:
        if is_search(request):
            return None if listed else Reply(404)
        retrieves.append(request)
        if len(retrieves) == 1:
            return cut
        return Reply(500) if then == "500" else Reply(drop_after_request=True)

    def on_head(request: Request) -> Reply | None:
        if then == "500" or not retrieves or is_search(request):
            return None
        if then == "gone":
            servers[0].refuse()
        return Reply(drop_mid_request_after=0)

    quick = settings(max_attempts=2)
    async with FaultyServer(MemoryArchive(FILES, fault), on_head=on_head) as server, connect(server.url, quick) as one:
        servers.append(server)
        with pytest.raises(IncompleteDownload) as caught:
            await one.download_study(STUDY, to=tmp_path)
    message = str(caught.value)
    expected = {
        "500": "the archive failed on it (status 500; 2 attempts)",
        "hangs up": "the connection broke",
        "gone": "the connection was refused; is the archive running at this address?",
    }[then]
    assert expected in message
    assert ("1 of 3 instances did not arrive" if listed else "2 instances arrived, and there is no list") in message
    assert len(files_below(tmp_path)) == 2
    assert caught.value.temporary


async def test_a_refused_connection(connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer(Reply(500)) as server:
        url = server.url
    async with connect(url) as archive:
        with pytest.raises((ConnectionFailed, IncompleteDownload), match="the connection was refused"):
            await archive.download_study(STUDY, to=tmp_path)
