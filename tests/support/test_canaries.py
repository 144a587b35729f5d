"""The canary watch sees what it is there to see."""

from __future__ import annotations

import base64
import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.canaries import CANARIES, CanaryWatch, canary_watch

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = CANARIES["password"]


def hits(action: Callable[[CanaryWatch], object]) -> list[str]:
    """Run the action under a watch, which has to fail, and say what the watch saw."""
    watches: list[CanaryWatch] = []

    def run() -> None:
        with canary_watch() as watch:
            watches.append(watch)
            action(watch)
            sys.stdout.flush()

    with pytest.raises(AssertionError, match="leaked"):
        run()
    return watches[0].found()


def chained() -> Exception:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise ValueError("clean") from None
    except ValueError as error:
        return error


def noted() -> Exception:
    error = ValueError("clean")
    error.add_note(SECRET)
    return error


def with_attribute() -> Exception:
    error = ValueError("clean")
    error.request = {"authorization": SECRET}  # type: ignore[attr-defined]
    return error


class Slotted(Exception):
    __slots__ = ("detail",)

    def __init__(self) -> None:
        super().__init__("clean")
        self.detail = [SECRET]


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        ExceptionGroup("group", [OSError(5, SECRET)]),
        chained(),
        noted(),
        with_attribute(),
        Slotted(),
    ],
    ids=["text", "group", "hidden context", "note", "attribute", "slot"],
)
def test_sees_into_exceptions(error: Exception) -> None:
    assert [hit.split(" in ")[0] for hit in hits(lambda watch: watch.feed(error))] == ["password"]


@pytest.mark.parametrize(
    "text",
    [
        f"x{SECRET.upper()}x",
        "cnry-Pass%2Fw0rd%2B9d1e",
        SECRET.encode().hex(),
        *(base64.b64encode(b"abc"[:n] + SECRET.encode() + b"xy").decode() for n in range(3)),
    ],
)
def test_sees_other_spellings(text: str) -> None:
    assert hits(lambda watch: watch.feed(text)) == ["password in str"]


def test_sees_basic_credentials() -> None:
    pair = base64.b64encode(f"{CANARIES['username']}:{SECRET}".encode())
    assert "basic credentials in text" in hits(lambda watch: watch.feed_text(b"Basic " + pair))


def test_sees_logs_of_quiet_loggers() -> None:
    quiet = logging.getLogger("tests.quiet")
    quiet.setLevel(logging.CRITICAL)
    quiet.propagate = False
    assert hits(lambda _: quiet.debug("%s", SECRET)) == ["password in log of tests.quiet"]
    assert hits(lambda _: quiet.debug("clean", extra={"detail": SECRET})) == ["password in log of tests.quiet"]
    assert (quiet.level, quiet.propagate) == (logging.CRITICAL, False)


def test_sees_what_is_printed_and_what_native_code_writes() -> None:
    assert hits(lambda _: sys.stdout.write(SECRET)) == ["password in stdout"]
    assert hits(lambda _: os.write(2, SECRET.encode())) == ["password in stderr"]


def test_is_content_with_clean_text(canary_watch: CanaryWatch) -> None:
    logging.getLogger("tests").debug("clean")
    canary_watch.feed(ValueError("clean"))
    canary_watch.feed(object())
    assert canary_watch.found() == []
