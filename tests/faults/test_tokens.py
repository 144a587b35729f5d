"""A callable that gives a token, over weeks: asked once for all who need another, after each expiry."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from postdicom_async import AuthenticationFailed, Status
from tests.faults.archive import MemoryArchive
from tests.faults.clients import settings
from tests.support.bodies import json_reply
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

EMPTY = json_reply([])


class Issuer:
    """Gives tokens that the archive takes a number of times each; may be down for some requests."""

    def __init__(self, uses: int = 1_000_000) -> None:
        self.uses = uses
        self.left = 0
        self.issued = 0
        self.asked = 0
        self.down = 0
        self.pause = 0.0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> str:
        self.asked += 1
        await self.gate.wait()
        await asyncio.sleep(self.pause)
        if self.down:
            self.down -= 1
            raise ConnectionResetError("https://idp.example/token?client_secret=hunter2")
        self.issued += 1
        self.left = self.uses
        return f"token-{self.issued}"

    def takes(self, request: Request) -> bool:
        """Whether the archive takes the request's token, which is used up by that."""
        if request.header("authorization") != f"Bearer token-{self.issued}" or not self.left:
            return False
        self.left -= 1
        return True


def guarded(issuer: Issuer, archive: MemoryArchive) -> MemoryArchive:
    archive.fault = lambda request: None if issuer.takes(request) else Reply(401)
    return archive


async def test_a_token_that_expires_again_and_again(connect: Connect) -> None:
    """Two hundred times in one session; with each only three requests are taken."""
    issuer = Issuer(uses=3)
    async with (
        FaultyServer(lambda request: EMPTY if issuer.takes(request) else Reply(401)) as server,
        connect(server.url, auth=issuer) as archive,
    ):
        for _ in range(600):
            assert await archive.search_for_studies(limit=1).all() == []
    assert issuer.asked == issuer.issued == 200


async def test_a_token_that_expires_between_two_attempts_of_one_call(connect: Connect) -> None:
    """Refused, then a failure of the server's, then refused again: the second refusal is one of its own."""
    issuer = Issuer()
    script = [Reply(401), Reply(503), Reply(401), EMPTY]
    async with FaultyServer(script) as server, connect(server.url, settings(max_attempts=5), auth=issuer) as archive:
        assert await archive.search_for_studies(limit=1).all() == []
    assert issuer.issued == 3


async def test_a_token_that_expires_during_streamed_uploads(connect: Connect) -> None:
    """Refused while its body is on its way, a request is made again with all of it."""
    files = list(study_files(8, pixel_bytes=400_000).values())
    issuer = Issuer(uses=2)
    archive = guarded(issuer, MemoryArchive())

    def on_head(request: Request) -> Reply | None:
        return (
            None if request.header("authorization") == f"Bearer token-{issuer.issued}" and issuer.left else Reply(401)
        )

    using = settings(batch_instances=1, parallel_stores=1, piece=16_384, max_attempts=5)
    async with FaultyServer(archive, on_head=on_head) as server, connect(server.url, using, auth=issuer) as client:
        report = await client.upload(files)
    assert report.ok
    assert sorted(archive.stored.values()) == sorted(files)
    assert issuer.issued >= 4


async def test_all_who_were_refused_share_one_refresh_and_its_failure(connect: Connect) -> None:
    issuer, refused = Issuer(), 0

    def answer(request: Request) -> Reply:
        nonlocal refused
        if issuer.takes(request):
            return EMPTY
        refused += 1
        if refused == 4:
            issuer.gate.set()
        return Reply(401)

    async with FaultyServer(answer) as server, connect(server.url, settings(max_attempts=1), auth=issuer) as archive:
        await archive.search_for_studies(limit=1).all()
        issuer.left, issuer.down, issuer.pause = 0, 1, 0.5  # after the gate: until all have seen that they are refused
        issuer.gate.clear()
        searches = [archive.search_for_studies(limit=1).all() for _ in range(4)]
        ends = await asyncio.gather(*searches, return_exceptions=True)
        assert all(isinstance(end, AuthenticationFailed) and end.temporary for end in ends)
        assert len({id(end) for end in ends}) == 4
        assert issuer.asked == 2
        assert await archive.search_for_studies(limit=1).all() == []


@pytest.mark.parametrize("first", [True, False])
async def test_an_issuer_that_is_down_for_a_while_is_waited_for(first: bool, connect: Connect) -> None:
    """Before the first request, and when a token has expired."""
    issuer = Issuer()
    using = settings(max_attempts=5)
    async with (
        FaultyServer(lambda request: EMPTY if issuer.takes(request) else Reply(401)) as server,
        connect(server.url, using, auth=issuer) as archive,
    ):
        if not first:
            await archive.search_for_studies(limit=1).all()
            issuer.left = 0
        issuer.down = 3
        assert await archive.search_for_studies(limit=1).all() == []
    assert issuer.down == 0


async def test_an_upload_outlives_an_issuer_that_is_down_for_a_while(connect: Connect) -> None:
    files = list(study_files(10, pixel_bytes=64).values())
    issuer = Issuer(uses=2)
    archive = guarded(issuer, MemoryArchive())

    async def now_and_then() -> str:
        issuer.down = 0 if issuer.asked % 3 == 2 else 1
        return await issuer()

    using = settings(batch_instances=1, parallel_stores=2, max_attempts=8)
    async with FaultyServer(archive) as server, connect(server.url, using, auth=now_and_then) as client:
        report = await client.upload(files)
    assert [one.status for one in report.outcomes] == [Status.STORED] * 10
    assert sorted(archive.stored.values()) == sorted(files)


async def test_an_issuer_that_stays_down_is_a_problem_that_may_pass(connect: Connect) -> None:
    issuer = Issuer()
    issuer.down = 1000
    async with FaultyServer([]) as server, connect(server.url, settings(max_attempts=3), auth=issuer) as archive:
        with pytest.raises(AuthenticationFailed, match="raised ConnectionResetError") as caught:
            await archive.search_for_studies(limit=1).all()
        assert (caught.value.temporary, caught.value.attempts, issuer.asked) == (True, 3, 3)
        assert "hunter2" not in str(caught.value)
        with pytest.raises(AuthenticationFailed):
            await archive.delete_study(uid(1))  # nothing left: it is tried again, whatever it would change
        assert issuer.asked == 6


async def test_a_callable_that_says_there_will_be_none_is_believed(connect: Connect) -> None:
    asked = 0

    def source() -> str:
        nonlocal asked
        asked += 1
        raise AuthenticationFailed("the account of Doe is closed")

    async with FaultyServer([]) as server, connect(server.url, auth=source) as archive:
        with pytest.raises(AuthenticationFailed) as caught:
            await archive.search_for_studies(limit=1).all()
    assert (asked, caught.value.temporary) == (1, False)
    assert "Doe" not in str(caught.value)


async def test_waiting_for_a_token_holds_no_deadline_up(connect: Connect) -> None:
    issuer = Issuer()
    issuer.pause = 30
    started = time.monotonic()
    async with FaultyServer([]) as server, connect(server.url, settings(deadline=0.2), auth=issuer) as archive:
        with pytest.raises(Exception, match="deadline"):
            await archive.upload(small_dicom())
    assert time.monotonic() - started < 15
