"""Who we are to the archive."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from postdicom_async.errors import AuthenticationFailed, UsageError
from postdicom_async.http import credentials
from postdicom_async.http.credentials import Credentials, Road, Token
from postdicom_async.settings import Settings


def credentials_from(auth: Any) -> Credentials:
    return credentials.credentials_from(auth, Road(Settings(), None))


async def test_anonymous_sends_nothing() -> None:
    nobody = credentials_from(None)
    assert await nobody.header() is None
    assert not nobody.present
    assert nobody.secrets() == ()
    assert not await nobody.refresh("Basic x")


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("demo", "demo"),
        ("a@b.example", "p:w:d"),
        ("Łukasz", "zażółć"),
        ("user", ""),
        ("", "password"),
        ("user", " with spaces "),
    ],
)
async def test_basic_is_utf8_before_base64(user: str, password: str) -> None:
    account = credentials_from((user, password))
    header = await account.header()
    assert header is not None
    scheme, _, encoded = header.partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode("utf-8") == f"{user}:{password}"
    assert {user, password, encoded} <= set(account.secrets())
    assert not await account.refresh(header)


async def test_token() -> None:
    account = credentials_from("tok.en-1")
    assert await account.header() == "Bearer tok.en-1"
    assert account.secrets() == ("tok.en-1",)
    assert account.present


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("Bearer cnry", "leave out 'Bearer '"),
        ("bearer cnry", "leave out"),
        ("a b", "ASCII"),
    ],
)
def test_what_is_wrong_with_a_token_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        credentials_from(text)
    assert caught.value.argument == "auth"
    assert "cnry" not in str(caught.value)


def test_delegated() -> None:
    auth = httpx.BasicAuth("a", "b")
    account = credentials_from(auth)
    assert account.httpx_auth is auth
    assert account.present


@pytest.mark.parametrize(
    "auth",
    [
        ("a:b", "c"),
        ("a",),
        ("a", "b", "c"),
        ("a", None),
        (1, "b"),
        ("user", "lone surrogate \udc80"),
        ("\udc80", "password"),
        "",
        "two words",
        "line\nbreak",
        "t\u00f6ken",
        "tab\ttoken",
        "nul\x00",
        123,
        ["a", "b"],
        {"user": "a"},
        b"token",
    ],
    ids=repr,
)
def test_wrong_kinds_are_refused_without_repeating_them(auth: Any) -> None:
    with pytest.raises(UsageError, match=r"^auth: ") as caught:
        credentials_from(auth)
    shown = str(caught.value)
    assert not (isinstance(auth, str) and auth and auth in shown)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("auth", [("demo-user", "hunter2hunter2"), "tok-hunter2hunter2", lambda: "tok-hunter2hunter2"])
async def test_no_repr_shows_a_secret(auth: Any) -> None:
    account = credentials_from(auth)
    await account.header()
    assert "hunter2" not in repr(account)
    assert "hunter2" not in str(account)


# --- a callable that gives a token ------------------------------------------------------------------------------------


class Source:
    """Gives token 1, token 2, ...; slow enough for others to wait."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        number = self.asked
        await asyncio.sleep(0.01)
        return f"token{number}"


async def test_asked_once_for_all_first_requests() -> None:
    source = Source()
    account = credentials_from(source)
    headers = await asyncio.gather(*(account.header() for _ in range(50)))
    assert set(headers) == {"Bearer token1"}
    assert source.asked == 1


async def test_asked_once_for_all_rejections() -> None:
    source = Source()
    account = credentials_from(source)
    rejected = await account.header()
    renewed = await asyncio.gather(*(account.refresh(rejected) for _ in range(50)))
    assert all(renewed)
    assert source.asked == 2
    assert await account.header() == "Bearer token2"


async def test_a_late_rejection_of_an_old_token_asks_for_nothing() -> None:
    source = Source()
    account = credentials_from(source)
    old = await account.header()
    await account.refresh(old)
    assert await account.refresh(old)
    assert source.asked == 2


async def test_the_same_token_again_is_no_refresh() -> None:
    account = credentials_from(lambda: "always")
    assert await account.header() == "Bearer always"
    assert not await account.refresh("Bearer always")


async def test_plain_callable_and_secrets_follow_the_token() -> None:
    account = credentials_from(iter(["one", "two"]).__next__)
    assert account.secrets() == ()
    await account.header()
    assert account.secrets() == ("one",)
    await account.refresh("Bearer one")
    assert account.secrets() == ("two",)


@pytest.mark.parametrize("token", [None, 1, b"token", "", "two words", "line\r\nInjected: yes", "t\u00f6ken"], ids=repr)
async def test_what_is_no_token_is_refused(token: Any) -> None:
    account = credentials_from(lambda: token)
    with pytest.raises(AuthenticationFailed, match="did not return a token"):
        await account.header()


async def test_what_the_callable_raises_is_not_passed_on() -> None:
    def source() -> str:
        raise RuntimeError("POST https://idp/token with secret hunter2")

    account = credentials_from(source)
    with pytest.raises(AuthenticationFailed, match="RuntimeError") as caught:
        await account.header()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


async def test_a_failure_is_not_remembered() -> None:
    answers: Iterator[Exception | str] = iter([ValueError("no"), "later"])

    def source() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    account = credentials_from(source)
    with pytest.raises(AuthenticationFailed):
        await account.header()
    assert await account.header() == "Bearer later"


async def test_cancelling_one_waiter_leaves_the_others() -> None:
    source = Source()
    account = credentials_from(source)
    tasks = [asyncio.create_task(account.header()) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert len(set(found[1:])) == 1
    assert str(found[1]).startswith("Bearer token")


# --- a callable that says how long its token is good ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("", None), ("two words", None), (None, None), ("abc", 0), ("abc", -1), ("abc", True), ("abc", "60")],
)
def test_tokens_that_are_none(value: Any, seconds: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Token(value, seconds)
    assert not (value and str(value) in str(caught.value))


def test_a_token_does_not_show() -> None:
    assert "hunter2" not in repr(Token("tok-hunter2hunter2", 60))


async def test_a_token_with_a_lifetime_is_replaced_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of ten minutes a minute before its end, one of a minute after half of it; all go on meanwhile."""
    now, asked = 0.0, 0
    monkeypatch.setattr(credentials, "monotonic", lambda: now)

    async def source() -> Token:
        nonlocal asked
        asked += 1
        return Token(f"token{asked}", 600 if asked == 1 else 60)

    account = credentials_from(source)
    for moment, header, asks in [
        (0, "token1", 1),
        (539, "token1", 1),
        (541, "token1", 2),  # one request begins it
        (542, "token2", 2),
        (570, "token2", 2),
        (572, "token2", 3),
        (573, "token3", 3),
        (700, "token4", 4),  # after its end it is asked for at once
    ]:
        now = float(moment)
        assert await account.header() == f"Bearer {header}"
        await asyncio.sleep(0.01)
        assert asked == asks


async def test_a_token_that_ends_at_once_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is wrong somewhere must not make it ask for ever."""
    now = 0.0
    monkeypatch.setattr(credentials, "monotonic", lambda: now)

    async def source() -> Token:
        nonlocal now
        now += 5
        return Token(f"token{now:.0f}", 1)

    account = credentials_from(source)
    assert [await account.header() for _ in range(3)] == ["Bearer token5", "Bearer token10", "Bearer token15"]
