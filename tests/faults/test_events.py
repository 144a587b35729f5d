"""What the engine tells its owner while it works, and that telling harms nothing."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from postdicom_async import ConnectionFailed, NotFound, ServerError, Settings, UsageError
from postdicom_async.events import (
    ArchiveSilent,
    AttemptFailed,
    CredentialsRefreshed,
    Event,
    GaveUp,
    InstanceEnded,
    RequestEnded,
)
from tests.cloud.service import CloudService, Received, envelope_frame
from tests.faults.clients import settings
from tests.support.bodies import json_reply
from tests.support.canaries import CANARIES
from tests.support.dicom_files import uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from tests.faults.clients import Connect
    from tests.support.canaries import CanaryWatch

pytestmark = pytest.mark.above_the_transport

EMPTY = json_reply([])
ORDINARY = (RequestEnded, InstanceEnded)


def unusual(told: list[Event]) -> list[Event]:
    """Leave out what is told of every request and instance."""
    return [one for one in told if not isinstance(one, ORDINARY)]


async def test_an_attempt_that_failed_and_when_the_next_comes(connect: Connect) -> None:
    told: list[Event] = []
    script = [Reply(503), Reply(drop_after_request=True), EMPTY]
    using = settings(base=0.01, cap=0.02, on_event=told.append)
    async with FaultyServer(script) as server, connect(server.url, using) as archive:
        await archive.search_for_studies(limit=1).all()
    first, second = unusual(told)
    assert isinstance(first, AttemptFailed)
    assert isinstance(second, AttemptFailed)
    assert (first.operation, first.attempt, first.failure, first.status) == ("search for studies", 1, "REFUSED", 503)
    assert (second.attempt, second.failure, second.status) == (2, "LOST", None)
    assert 0 <= first.next_in <= 0.01
    assert 0 <= second.next_in <= 0.02


async def test_given_up(connect: Connect) -> None:
    told: list[Event] = []
    using = settings(max_attempts=3, on_event=told.append)
    async with FaultyServer(Reply(503)) as server, connect(server.url, using) as archive:
        with pytest.raises(ServerError):
            await archive.search_for_studies(limit=1).all()
    assert [type(one) for one in unusual(told)] == [AttemptFailed, AttemptFailed, GaveUp]
    assert told[-1] == GaveUp("search for studies", 3, 503, temporary=True, error="ServerError")


async def test_what_no_repeat_would_help_is_the_caller_s_exception_alone(connect: Connect) -> None:
    told: list[Event] = []
    async with FaultyServer(Reply(404)) as server, connect(server.url, settings(on_event=told.append)) as archive:
        with pytest.raises(NotFound):
            await archive.retrieve_study_metadata(uid(1)).all()
    assert unusual(told) == []


@pytest.mark.parametrize("silence", ["head", "body"])
async def test_an_archive_that_is_silent(silence: str, connect: Connect) -> None:
    told: list[Event] = []
    reply = Reply(silent=True) if silence == "head" else Reply(200, EMPTY.headers, b"[" + b" " * 500, stall_after=10)
    using = settings(connect=0.1, answer=0.1, search_answer=0.1, idle_read=0.1, max_attempts=2, on_event=told.append)
    async with FaultyServer(reply) as server, connect(server.url, using) as archive:
        with pytest.raises(ConnectionFailed):
            await archive.search_for_studies(limit=1).all()
    silent = [one for one in told if isinstance(one, ArchiveSilent)]
    assert silent == [ArchiveSilent("search for studies", 1), ArchiveSilent("search for studies", 2)]
    assert isinstance(told[-1], GaveUp)


async def test_a_deadline_that_passed(connect: Connect) -> None:
    told: list[Event] = []
    using = settings(deadline=0.2, on_event=told.append)
    async with FaultyServer(Reply(silent=True)) as server, connect(server.url, using) as archive:
        with pytest.raises(ConnectionFailed, match="deadline"):
            await archive.search_for_studies(limit=1).all()
    (given_up,) = unusual(told)
    assert given_up == GaveUp("search for studies", 1, None, temporary=True, error="ConnectionFailed")


async def test_credentials_that_were_refreshed(connect: Connect) -> None:
    told: list[Event] = []
    tokens = iter(["one", "two"])

    def answer(request: Request) -> Reply:
        return EMPTY if request.header("authorization") == "Bearer two" else Reply(401)

    using = settings(on_event=told.append)
    async with FaultyServer(answer) as server, connect(server.url, using, auth=lambda: next(tokens)) as archive:
        for _ in range(3):
            await archive.search_for_studies(limit=1).all()
    assert unusual(told) == [CredentialsRefreshed()]


async def test_a_hook_that_fails_breaks_nothing(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    def hook(_event: Event) -> None:
        raise RuntimeError("Doe^Jane was here")

    script = [Reply(503), EMPTY]
    with caplog.at_level(logging.WARNING, "postdicom_async"):
        async with FaultyServer(script) as server, connect(server.url, settings(on_event=hook)) as archive:
            assert await archive.search_for_studies(limit=1).all() == []
    assert "on_event raised RuntimeError" in caplog.text
    assert "Doe" not in caplog.text


async def test_events_hold_nothing_private(connect: Connect, canary_watch: CanaryWatch) -> None:
    """Whatever was asked for, and whatever the server repeats of it."""
    told: list[Event] = []
    private = list(CANARIES.values())
    tokens = iter([f"token-{number}" for number in range(100)])

    def answer(request: Request) -> Reply:
        if request.header("authorization") == "Bearer token-0":
            return Reply(401, {"X-Error-Reason": "token-0 has expired"})
        return Reply(503, {"Content-Type": "text/plain"}, f"{request.target} {' '.join(private)}".encode())

    using = settings(max_attempts=2, on_event=told.append)
    async with FaultyServer(answer) as server, connect(server.url, using, auth=lambda: next(tokens)) as archive:
        for name in private:
            with pytest.raises(ServerError):
                await archive.search_for_studies({"PatientName": name}).all()
    assert {type(one) for one in told} == {AttemptFailed, GaveUp, CredentialsRefreshed, RequestEnded}
    for one in told:
        canary_watch.feed(one)
    shown = " ".join(f"{one!r} {asdict(one)}" for one in told)
    for secret in (*private, "token-", server.url, "127.0.0.1", "PatientName"):
        assert secret not in shown


async def test_the_cloud_api_tells_too() -> None:
    told: list[Event] = []

    def answer(request: Received) -> bytes | None:
        if len(service.sent()) == 1:
            return None
        return envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": []})

    using = settings(answer=0.3, on_event=told.append)
    async with CloudService(answer) as service, service.client(settings=using) as api:
        await api.nodes.all()
    silent, failed = unusual(told)
    assert isinstance(silent, ArchiveSilent)
    assert isinstance(failed, AttemptFailed)
    assert (silent.silences, failed.attempt, failed.failure) == (1, 1, "LOST")


def test_a_hook_must_be_a_function() -> None:
    with pytest.raises(UsageError, match="on_event"):
        Settings(on_event="print")  # type: ignore[arg-type]  # on purpose


def test_settings_with_a_hook_show_nothing_of_it() -> None:
    assert "hook" not in repr(Settings(on_event=lambda hook: None))
