"""What the answer of a token endpoint says, without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from postdicom_async.tokens.answers import Granted, NotGranted, read_answer

ODD: list[Any] = [0, -1, True, None, "soon", [], {}, float("nan"), float("inf"), 10**400]


def answer(status: int = 200, /, **told: Any) -> Granted | NotGranted:
    return read_answer(status, json.dumps(told).encode())


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, None),
        ({"token_type": "Bearer", "expires_in": 300}, 300.0),
        ({"token_type": "bearer", "expires_in": "3599"}, 3599.0),
        ({"token_type": "BEARER", "expires_in": 0.5}, 0.5),
        *[({"expires_in": one}, None) for one in ODD],
    ],
)
def test_a_token(told: dict[str, Any], seconds: float | None) -> None:
    found = answer(access_token="abc.def", **told)
    assert found == Granted("abc.def", seconds)
    assert "abc" not in repr(found)


@pytest.mark.parametrize("value", [None, 1, "", "two words", "line\nbreak", "tök", ["abc"]])
def test_what_is_no_token(value: Any) -> None:
    assert answer(access_token=value) == NotGranted(
        "the token endpoint's answer holds no access_token that can be sent"
    )


@pytest.mark.parametrize("kind", ["mac", "", None, 1, "bearer "])
def test_a_token_of_another_type(kind: Any) -> None:
    found = answer(access_token="abc", token_type=kind)
    assert isinstance(found, NotGranted)
    assert "no bearer token" in found.words


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"abc"', b"\xff", b"[" * 100_000])
def test_no_object(body: bytes) -> None:
    assert read_answer(200, body) == NotGranted("the token endpoint's answer is not a JSON object")


@pytest.mark.parametrize(
    ("status", "code", "words", "temporary"),
    [
        (400, "invalid_scope", "answered invalid_scope: check scope", False),
        (401, "invalid_client", "answered invalid_client: check client_id", False),
        (400, "temporarily_unavailable", "answered temporarily_unavailable", True),
        (500, "server_error", "answered server_error", True),
        (500, "patient_doe", "not available at the moment (status 500)", True),
        (502, None, "not available at the moment (status 502)", True),
        (429, None, "not available at the moment (status 429)", True),
        (408, None, "not available at the moment (status 408)", True),
        (400, "patient_doe", "with status 400; check the client", False),
        (400, ["invalid_scope"], "with status 400; check the client", False),
        (404, None, "with status 404; check token_url", False),
        (405, None, "with status 405; check token_url", False),
        (307, "invalid_scope", "redirect", False),
    ],
)
def test_a_refusal(status: int, code: Any, words: str, temporary: bool) -> None:
    found = answer(status, error=code, error_description="patient Doe")
    assert isinstance(found, NotGranted)
    assert words in found.words
    assert found.temporary is temporary
    assert "oe" not in found.words.replace("does", "")
