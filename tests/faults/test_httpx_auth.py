"""An ``httpx.Auth`` of the caller's, whose flow is driven without httpx's client."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING

import httpx
import pytest

from postdicom_async import AuthenticationFailed, ConnectionFailed, Status
from tests.faults.archive import MemoryArchive
from tests.faults.clients import settings
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from tests.faults.clients import Connect

FOUND = json_reply([dicom_json(StudyInstanceUID=uid(1))])
CHALLENGE = 'Digest realm="archive", nonce="abc", qop="auth", algorithm=MD5'


def digest_archive(cookie: str | None = None) -> MemoryArchive:
    """Return an archive that wants digest authentication (RFC 7616), of the user "ann" with the password "pw"."""

    def fault(request: Request) -> Reply | None:
        given = request.header("authorization") or ""
        fields = dict(one.strip().split("=", 1) for one in given.removeprefix("Digest ").split(",") if "=" in one)
        told = {name: value.strip('"') for name, value in fields.items()}

        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        if told:
            secret = md5("ann:archive:pw")
            what = md5(f"{request.method}:{told['uri']}")
            proof = md5(f"{secret}:{told['nonce']}:{told['nc']}:{told['cnonce']}:{told['qop']}:{what}")
            if proof == told["response"] and (cookie is None or request.header("cookie") == cookie):
                return None
        headers = {"WWW-Authenticate": CHALLENGE} | ({} if cookie is None else {"Set-Cookie": cookie})
        return Reply(401, headers)

    archive = MemoryArchive()
    archive.fault = fault
    return archive


@pytest.mark.parametrize("cookie", [None, "session=1"])
@pytest.mark.parametrize("pixel_bytes", [100, 1 << 20])
async def test_digest(pixel_bytes: int, cookie: str | None, connect: Connect) -> None:
    """The body goes out whole each time, a small one and a streamed one."""
    file, archive = small_dicom(pixel_bytes=pixel_bytes), digest_archive(cookie)
    async with (
        FaultyServer(archive) as server,
        connect(server.url, auth=httpx.DigestAuth("ann", "pw")) as client,
    ):
        report = await client.upload(file)
        assert [one.status for one in report.outcomes] == [Status.STORED]
        assert list(archive.stored.values()) == [file]
        again = await client.upload(file)
        assert again.ok


async def test_digest_with_a_wrong_password(connect: Connect) -> None:
    async with (
        FaultyServer(digest_archive()) as server,
        connect(server.url, auth=httpx.DigestAuth("ann", "no")) as client,
    ):
        with pytest.raises(AuthenticationFailed):
            await client.search_for_studies().all()
    assert len(server.requests) == 2


class ReadsEverything(httpx.Auth):
    """Looks into every answer, as httpx's documentation shows it for tokens."""

    requires_request_body = True
    requires_response_body = True

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes]] = []

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = "Bearer old"
        response = yield request
        self.seen.append((request.content, response.content))
        if response.status_code == 401:
            request.headers["Authorization"] = "Bearer new"
            response = yield request
            self.seen.append((request.content, response.content))


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
async def test_a_flow_that_reads_the_answers(framing: str, connect: Connect) -> None:
    def answer(request: Request) -> Reply:
        if request.header("authorization") != "Bearer new":
            return Reply(401, body=b"expired")
        return Reply(200, FOUND.headers, FOUND.body, framing=framing)  # type: ignore[arg-type]  # the two there are

    auth = ReadsEverything()
    async with FaultyServer(answer) as server, connect(server.url, auth=auth) as archive:
        (study,) = await archive.search_for_studies(limit=1).all()
    assert study.StudyInstanceUID == uid(1)
    assert [body for _, body in auth.seen] == [b"expired", FOUND.body]
    assert len(server.requests) == 2


async def test_a_flow_that_reads_what_is_sent(connect: Connect) -> None:
    file, archive, auth = small_dicom(pixel_bytes=1 << 20), MemoryArchive(), ReadsEverything()
    async with FaultyServer(archive) as server, connect(server.url, auth=auth) as client:
        assert (await client.upload(file)).ok
    assert file in auth.seen[0][0]


class Fails(httpx.Auth):
    """Its own request meets a connection that breaks."""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        yield httpx.Request("GET", request.url.join("/token"), headers={"Host": "localhost"})
        yield request


async def test_a_flow_whose_own_request_breaks(connect: Connect) -> None:
    using = settings(max_attempts=1)
    async with FaultyServer(Reply(drop_after_request=True)) as server, connect(server.url, using, auth=Fails()) as one:
        with pytest.raises(ConnectionFailed):
            await one.search_for_studies().all()
        link = one._session._open_link()
        assert link.slots.borrowed_tokens == 0
