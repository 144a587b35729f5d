"""Thirteen operations and everything a service may do: what the caller gets and how often the service was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    NotFound,
    OutcomeUnknown,
    PostDicom,
    PostdicomError,
    ProtocolError,
    RateLimited,
    ServerError,
    VendorAnswer,
)
from tests.faults.clients import settings
from tests.postdicom.forms import FORMS, Form
from tests.postdicom.service import NOTHING
from tests.support.faulty_server import FaultyServer, Reply, unused_port

pytestmark = pytest.mark.above_the_transport

ATTEMPTS = 3
JSON = {"Content-Type": "application/json; charset=utf-8"}
ENTRY: dict[str, Any] = {"PatientOrderUuid": "11111111-2222-3333-4444-555555555555", "Unheard": {"of": [1]}}
UUID = ENTRY["PatientOrderUuid"]
MAKING = {"/createpatientorder", "/createfolder"}
HTML = b"\xef\xbb\xbf<!DOCTYPE html><html><a href='https://proxy.example/login'>Sign in</a></html>"

Connect = Callable[..., PostDicom]
Kind = type[PostdicomError]


def said(value: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, {**JSON, **headers}, json.dumps(value).encode())


@dataclass(frozen=True)
class Failing:
    """One way to fail.

    Attributes:
        reply: what the service does.
        read: what a caller who reads gets.
        change: what a caller who changes something gets.
        asked: how often a read is asked; a change is asked once.
        status: the error's.
        reason: the error's.
    """

    reply: Reply
    read: Kind
    change: Kind
    asked: int = 1
    status: int | None = None
    reason: str | None = None


NO = {"Success": False, "Message": "Folder is closed", "Result": None}
REASON = {"X-Error-Reason": "Quota exceeded", "Content-Type": "text/plain"}

FAILURES = {
    "success false": Failing(said(NO), ServerError, ServerError, status=200, reason="Folder is closed"),
    "success 'False'": Failing(
        said({**NO, "success": "False"}), ServerError, ServerError, status=200, reason="Folder is closed"
    ),
    "success false in text": Failing(
        said(json.dumps(NO)), ServerError, ServerError, status=200, reason="Folder is closed"
    ),
    "success false as text/html": Failing(
        Reply(200, {"Content-Type": "text/html"}, json.dumps(NO).encode()), ServerError, ServerError, status=200
    ),
    "false": Failing(said(False), ServerError, ServerError, status=200, reason="no reason given"),
    "web page": Failing(
        Reply(200, {"Content-Type": "text/html"}, HTML), ProtocolError, OutcomeUnknown, status=200
    ),
    "400": Failing(Reply(400, REASON, b"bad"), ServerError, ServerError, status=400, reason="Quota exceeded"),
    "400 in JSON": Failing(said(NO, 400), ServerError, ServerError, status=400, reason="Folder is closed"),
    "401": Failing(Reply(401, REASON), AuthenticationFailed, AuthenticationFailed, status=401),
    "403": Failing(Reply(403), AuthenticationFailed, AuthenticationFailed, status=403),
    "404": Failing(Reply(404), NotFound, NotFound, status=404),
    "302": Failing(Reply(302, {"Location": "/elsewhere"}), ServerError, ServerError, status=302),
    "429": Failing(Reply(429, {"Retry-After": "9999"}), RateLimited, RateLimited, status=429),
    "500": Failing(Reply(500, REASON), ServerError, OutcomeUnknown, ATTEMPTS, 500, "Quota exceeded"),
    "501": Failing(Reply(501), ServerError, ServerError, status=501),
    "503": Failing(Reply(503), ServerError, OutcomeUnknown, ATTEMPTS, 503),
    "504": Failing(Reply(504), ServerError, OutcomeUnknown, ATTEMPTS, 504),
    "524": Failing(Reply(524), ServerError, OutcomeUnknown, status=524),
    "closed after sending": Failing(
        Reply(drop_after_request=True), ConnectionFailed, OutcomeUnknown, ATTEMPTS
    ),
    "reset after sending": Failing(
        Reply(drop_after_request=True, reset=True), ConnectionFailed, OutcomeUnknown, ATTEMPTS
    ),
    "cut in the answer": Failing(
        Reply(headers=JSON, body=b'{"Success": true, "Result": 1}', cut_after=20),
        ConnectionFailed,
        OutcomeUnknown,
        ATTEMPTS,
    ),
    "no HTTP": Failing(Reply(raw=b"SSH-2.0-x\r\n\r\n"), ConnectionFailed, OutcomeUnknown, ATTEMPTS),
    "packed wrongly": Failing(
        Reply(headers={**JSON, "Content-Encoding": "gzip"}, body=b"not gzip"), ProtocolError, OutcomeUnknown
    ),
}  # fmt: skip


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_failures(form: Form, failing: Failing, connect: Connect) -> None:
    async with FaultyServer(failing.reply) as server, connect(server.url) as archive:
        with pytest.raises(PostdicomError) as caught:
            await form.call(archive)
    error = caught.value
    asked = 1 if form.changes else failing.asked
    assert type(error) is (failing.change if form.changes else failing.read)
    assert [request.path for request in server.requests] == [form.path] * asked
    assert error.operation is not None
    assert (error.status, error.__cause__, error.__context__) == (failing.status, None, None)
    assert failing.reason in (None, error.reason)
    if isinstance(error, OutcomeUnknown):
        assert error.may_have_arrived
        assert not error.temporary
        assert "outcome unknown" in str(error)
        assert "search for it" in str(error)


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_silence(form: Form, connect: Connect) -> None:
    quick = settings(connect=0.15, answer=0.05, max_attempts=2)
    async with FaultyServer(Reply(silent=True)) as server:
        async with connect(server.url, settings=quick) as archive:
            with pytest.raises(OutcomeUnknown if form.changes else ConnectionFailed):
                await form.call(archive)
        await server.until(lambda seen: len(seen.requests) == (1 if form.changes else 2))


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_refused_connections_are_tried_again(form: Form, connect: Connect) -> None:
    async with connect(f"http://127.0.0.1:{unused_port()}") as archive:
        with pytest.raises(ConnectionFailed) as caught:
            await form.call(archive)
    assert type(caught.value) is ConnectionFailed
    assert not caught.value.may_have_arrived
    assert caught.value.attempts == ATTEMPTS


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_a_used_connection_that_breaks_is_no_reason_to_repeat_a_change(
    form: Form, reset: bool, connect: Connect
) -> None:
    """HTTP libraries like to repeat a GET on their own when a connection of their pool turns out dead."""
    seen: list[str] = []

    def answer(request: Any) -> Reply:
        seen.append(request.path)
        lost = len(seen) == 2
        return Reply(drop_after_request=True, reset=reset) if lost else said(NOTHING)

    async with FaultyServer(answer) as server, connect(server.url) as archive:
        await form.call(archive)
        if form.changes:
            with pytest.raises(OutcomeUnknown):
                await form.call(archive)
        else:
            await form.call(archive)
    assert seen == [form.path] * (2 if form.changes else 3)
    assert server.requests[0].connection == server.requests[1].connection


# --- what comes back ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """One way to answer.

    Attributes:
        body: of the answer.
        headers: of the answer.
        entries: what a search finds, None for an answer that is no list.
        raw: what any other operation returns.
        text: the same.
        names: whether it names what was made, where that is what the operation is for.
    """

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    entries: list[dict[str, Any]] | None = None
    raw: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    names: bool = False


ANSWERS = {
    "JSON": Answered(
        b'{"Success": true, "Message": "", "Result": [{"PatientOrderUuid": "x", "New": 1}]}',
        entries=[{"PatientOrderUuid": "x", "New": 1}],
        raw={"Success": True, "Message": "", "Result": [{"PatientOrderUuid": "x", "New": 1}]},
    ),
    "JSON without Success": Answered(
        b'{"List": [{"FolderUuid": "y"}], "More": null}',
        entries=[{"FolderUuid": "y"}],
        raw={"List": [{"FolderUuid": "y"}], "More": None},
    ),
    "a list": Answered(b'[{"A": 1}, {"A": 2}]', entries=[{"A": 1}, {"A": 2}], raw={"List": [{"A": 1}, {"A": 2}]}),
    "JSON in JSON": Answered(
        json.dumps('[{"A": 1}]').encode(), entries=[{"A": 1}], raw={"List": [{"A": 1}]}
    ),
    "JSON called a page": Answered(
        b'\xef\xbb\xbf {"Orders": []}', {"Content-Type": "text/html"}, entries=[], raw={"Orders": []}
    ),
    "text": Answered("Zrobione ✓\n".encode(), {"Content-Type": "text/plain"}, text="Zrobione ✓"),
    "JSON text": Answered(b'"Done"', text="Done"),
    "a number": Answered(b"17", text="17"),
    "true": Answered(b"true", text="true"),
    "nothing": Answered(b"", {}, entries=[]),
    "an XML text": Answered(
        b"<string>ok</string>", {"Content-Type": "text/xml"}, text="<string>ok</string>"
    ),
    "an object without a list": Answered(b'{"Success": true}', raw={"Success": True}),
    "the UUID in it": Answered(
        json.dumps({"Result": {"PatientOrderUuid": UUID, "FolderUuid": UUID}}).encode(),
        raw={"Result": {"PatientOrderUuid": UUID, "FolderUuid": UUID}},
        names=True,
    ),
    "the UUID as text": Answered(UUID.encode(), text=UUID, names=True),
    "a list of something else": Answered(b'["one", 2]', raw={"List": ["one", 2]}),
}  # fmt: skip


@pytest.mark.parametrize("answered", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_answers(form: Form, answered: Answered, connect: Connect) -> None:
    async with FaultyServer(Reply(200, answered.headers, answered.body)) as server, connect(server.url) as archive:
        if form.lists and answered.entries is None:
            with pytest.raises(ProtocolError, match="other than a list"):
                await form.call(archive)
            return
        if form.path in MAKING and not answered.names:
            with pytest.raises(OutcomeUnknown, match="the service said yes, but not under which UUID; search for it"):
                await form.call(archive)
            assert len(server.requests) == 1
            return
        found = await form.call(archive)
    assert len(server.requests) == 1
    if form.lists:
        assert [one.raw for one in found] == answered.entries
    else:
        (one,) = found if isinstance(found, list) else [found]
        assert isinstance(one, VendorAnswer)
        assert (one.raw, one.text) == (answered.raw, answered.text)
        assert repr(one) in {f"{type(one).__name__}()", f"{type(one).__name__}({ENTRY['PatientOrderUuid']})"}


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_204_is_an_answer(form: Form, connect: Connect) -> None:
    async with FaultyServer(Reply(204)) as server, connect(server.url) as archive:
        if form.path in MAKING:
            with pytest.raises(OutcomeUnknown):
                await form.call(archive)
            return
        found = await form.call(archive)
    assert form.lists == (found == [])
