"""From what went wrong to the exception a caller sees."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    NotFound,
    PostdicomError,
    RateLimited,
    ServerError,
    UsageError,
)
from postdicom_async.http.problems import (
    Problem,
    problem_of_exception,
    problem_of_status,
    problem_of_timeout,
    server_reason,
)
from postdicom_async.http.retry import Failure

NOW = datetime(2024, 1, 1, tzinfo=UTC)
SECRET_URL = "http://host/dicom-web/studies?PatientName=QUILLFEATHER"


def of_status(status: int, headers: dict[str, str] | None = None, body: bytes = b"", **more: Any) -> Problem:
    arguments: dict[str, Any] = {"sent": (), "now": NOW, "authorization": None, **more}
    return problem_of_status("store instances", status, headers or {}, body, **arguments)


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("address", ["http://host/dicom-web/studies", "http://host/dicom-web/studies/"])
def test_an_address_of_one_of_its_resources_is_said_to_be_that(status: int, address: str) -> None:
    said = str(of_status(status, address=address).error)
    assert "the address ends in /studies; give that of the DICOMweb service, without /studies" in said
    assert "ends in /studies" not in str(of_status(409, address=address).error)
    assert "ends in /" not in str(of_status(400, address="http://host/dicom-web").error)


STATUSES: list[tuple[int, type[PostdicomError], Failure]] = [
    (301, ServerError, Failure.FINAL),
    (302, ServerError, Failure.FINAL),
    (304, ServerError, Failure.FINAL),
    (307, ServerError, Failure.FINAL),
    (400, ServerError, Failure.FINAL),
    (401, AuthenticationFailed, Failure.FINAL),
    (402, ServerError, Failure.FINAL),
    (403, AuthenticationFailed, Failure.FINAL),
    (404, NotFound, Failure.FINAL),
    (405, ServerError, Failure.FINAL),
    (406, ServerError, Failure.FINAL),
    (407, AuthenticationFailed, Failure.FINAL),
    (408, ServerError, Failure.REFUSED),
    (409, ServerError, Failure.FINAL),
    (410, NotFound, Failure.FINAL),
    (413, ServerError, Failure.FINAL),
    (415, ServerError, Failure.FINAL),
    (429, RateLimited, Failure.REFUSED),
    (500, ServerError, Failure.UNAVAILABLE),
    (501, ServerError, Failure.FINAL),
    (502, ServerError, Failure.UNAVAILABLE),
    (503, ServerError, Failure.REFUSED),
    (504, ServerError, Failure.UNAVAILABLE),
    (505, ServerError, Failure.FINAL),
    (599, ServerError, Failure.FINAL),
]


@pytest.mark.parametrize(("status", "kind", "failure"), STATUSES)
def test_status(status: int, kind: type[PostdicomError], failure: Failure) -> None:
    problem = of_status(status)
    error = problem.final(attempts=3)
    assert type(error) is kind
    assert problem.failure is failure
    assert (error.status, error.operation, error.attempts) == (status, "store instances", 3)
    assert error.temporary is (failure is not Failure.FINAL)
    assert str(error).startswith("store instances: ")
    assert f"status {status}" in str(error)


def test_every_status_makes_an_error() -> None:
    for status in range(100, 1000):
        assert isinstance(of_status(status).final(attempts=1), PostdicomError)


def test_retry_after_is_handed_on() -> None:
    problem = of_status(503, {"retry-after": "7"})
    assert problem.retry_after == 7.0
    error = problem.final(attempts=1)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7.0


def test_only_401_names_the_rejected_header() -> None:
    assert of_status(401, authorization="Bearer x").rejected_header == "Bearer x"
    assert of_status(403, authorization="Bearer x").rejected_header is None


EXCEPTIONS: list[tuple[httpx.HTTPError, Failure, type[PostdicomError], bool]] = [
    (httpx.ConnectError(SECRET_URL), Failure.NOT_SENT, ConnectionFailed, False),
    (httpx.ConnectError("[Errno 111] Connection refused"), Failure.NOT_SENT, ConnectionFailed, False),
    (httpx.ConnectError("[Errno -2] Name or service not known"), Failure.NOT_SENT, ConnectionFailed, False),
    (httpx.ConnectError("certificate verify failed"), Failure.FINAL, ConnectionFailed, False),
    (httpx.ConnectTimeout(SECRET_URL), Failure.NOT_SENT, ConnectionFailed, False),
    (httpx.PoolTimeout(SECRET_URL), Failure.NOT_SENT, ConnectionFailed, False),
    (httpx.ProxyError(SECRET_URL), Failure.NOT_SENT, ConnectionFailed, False),
    (httpx.ReadTimeout(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.WriteTimeout(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.ReadError(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.WriteError(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.CloseError(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.RemoteProtocolError(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.DecodingError(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.TooManyRedirects(SECRET_URL), Failure.LOST, ConnectionFailed, True),
    (httpx.LocalProtocolError(SECRET_URL), Failure.FINAL, UsageError, False),
    (httpx.UnsupportedProtocol(SECRET_URL), Failure.FINAL, UsageError, False),
]


@pytest.mark.parametrize(("raised", "failure", "kind", "arrived"), EXCEPTIONS, ids=repr)
def test_exception(raised: httpx.HTTPError, failure: Failure, kind: type[PostdicomError], arrived: bool) -> None:
    problem = problem_of_exception("search", raised)
    error = problem.final(attempts=1)
    assert (problem.failure, type(error)) == (failure, kind)
    assert getattr(error, "may_have_arrived", False) is arrived
    assert "QUILLFEATHER" not in str(error)
    assert "host" not in str(error).split(";")[0].replace("host name", "")


@pytest.mark.parametrize("sending", [True, False])
def test_silence(sending: bool) -> None:
    problem = problem_of_timeout("search", sending=sending)
    error = problem.final(attempts=1)
    assert problem.failure is Failure.LOST
    assert isinstance(error, ConnectionFailed)
    assert error.may_have_arrived
    assert error.temporary


def test_a_problem_itself_shows_nothing() -> None:
    problem = of_status(400, {"x-error-reason": "words"})
    assert str(problem) == "FINAL"


# --- the server's words ----------------------------------------------------------------------------------------------

JSON = "application/json"
WORDS: list[tuple[dict[str, str], bytes, str | None]] = [
    ({}, b"", None),
    ({}, b"plain words", "plain words"),
    ({}, b'{"Message": "words"}', "words"),
    ({"x-error-reason": "vendor's words"}, b"other", "vendor's words"),
    ({"x-error-reason": ""}, b"other", "other"),
    ({"warning": '299 - "too many"'}, b"other", "299 too many"),
    ({"x-error-reason": "first", "warning": "second"}, b"", "first"),
    ({"content-type": JSON}, b'{"Message": "words"}', "words"),
    ({"content-type": JSON}, b'{"Details": "more", "Message": "words"}', "words"),
    ({"content-type": JSON}, b'{"errorMessage": "words"}', "words"),
    ({"content-type": JSON}, b'{"error": {"message": "deep"}}', None),
    ({"content-type": JSON}, b'{"error": "words"}', "words"),
    ({"content-type": "application/problem+json"}, b'{"title": "T", "detail": "words"}', "words"),
    ({"content-type": JSON}, b'"words"', "words"),
    ({"content-type": JSON}, b"[1, 2]", None),
    ({"content-type": JSON}, b"{broken", None),
    ({"content-type": JSON}, b'{"Message": ""}', None),
    ({"content-type": JSON}, b'{"Message": 5}', None),
    ({"content-type": JSON}, b"[" * 100_000, None),
    ({"content-type": "text/plain; charset=utf-8"}, "Größe words".encode(), "[…] words"),
    ({"content-type": "TEXT/PLAIN"}, b"words", "words"),
    ({"content-type": "text/plain"}, b"\xff\xfe words", "[…] words"),
    ({"content-type": "text/html"}, b"<h1>502</h1>", None),
    ({"content-type": "application/dicom+xml"}, b"<x/>", None),
    ({"content-type": "application/octet-stream"}, b"words", None),
]


@pytest.mark.parametrize(("headers", "body", "expected"), WORDS)
def test_server_reason(headers: dict[str, str], body: bytes, expected: str | None) -> None:
    assert server_reason(headers, body, ()) == expected


def test_what_was_sent_is_masked_in_every_place() -> None:
    for headers, body in (
        ({"x-error-reason": "no Quillfeather"}, b""),
        ({}, b"no Quillfeather"),
        ({"content-type": JSON}, json.dumps({"message": "no Quillfeather"}).encode()),
        ({"content-type": JSON}, json.dumps("no Quillfeather").encode()),
    ):
        assert server_reason(headers, body, ["Quillfeather"]) == "no [sent value]"


@given(st.binary(max_size=300), st.sampled_from(["", JSON, "text/plain", "application/dicom+json"]))
def test_any_body_gives_a_line_or_nothing(body: bytes, kind: str) -> None:
    reason = server_reason({"content-type": kind}, body, ())
    assert reason is None or reason.isprintable()
