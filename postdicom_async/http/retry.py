"""May this be repeated, and when. Pure: no clock, no randomness, no I/O.

Whether a request may be repeated is a property of the operation (`Repeat`), never of the HTTP method: PostDICOM has
GETs that create and delete. What happened to an attempt is a `Failure`. One table joins the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postdicom_async.settings import Retry


class Repeat(Enum):
    """The effect of repeating an operation."""

    READ = auto()
    """No effect: it only reads."""
    STORE = auto()
    """Stores the same instances again: harmless, but after a lost answer only those the archive does not hold."""
    CHANGE = auto()
    """May create or delete twice: repeated only if the request certainly never left."""


class Failure(Enum):
    """How an attempt failed."""

    NOT_SENT = auto()
    """No connection: the request never left."""
    REFUSED = auto()
    """The server said that it did not process the request (408, 429, 503)."""
    UNAVAILABLE = auto()
    """The server or a gateway failed; the request may have had its effect (500, 502, 504)."""
    LOST = auto()
    """The request left, wholly or in part, and at most part of an answer came."""
    FINAL = auto()
    """A repeat would fail the same way."""


_REPEATABLE: dict[Repeat, frozenset[Failure]] = {
    Repeat.READ: frozenset({Failure.NOT_SENT, Failure.REFUSED, Failure.UNAVAILABLE, Failure.LOST}),
    Repeat.STORE: frozenset({Failure.NOT_SENT, Failure.REFUSED}),
    Repeat.CHANGE: frozenset({Failure.NOT_SENT}),
}

_STATUS_FAILURES: dict[int, Failure] = {
    HTTPStatus.REQUEST_TIMEOUT: Failure.REFUSED,
    HTTPStatus.TOO_MANY_REQUESTS: Failure.REFUSED,
    HTTPStatus.SERVICE_UNAVAILABLE: Failure.REFUSED,
    HTTPStatus.INTERNAL_SERVER_ERROR: Failure.UNAVAILABLE,
    HTTPStatus.BAD_GATEWAY: Failure.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: Failure.UNAVAILABLE,
}


def failure_of_status(status: int) -> Failure:
    """Return what an error status says about the request; unknown ones are `Failure.FINAL`."""
    return _STATUS_FAILURES.get(status, Failure.FINAL)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts so far: how many were made, seconds since the first began."""

    made: int
    elapsed: float


def decide(
    repeat: Repeat,
    failure: Failure,
    attempts: Attempts,
    retry: Retry,
    *,
    chance: float,
    retry_after: float | None = None,
) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up.

    ``chance`` is a random number in [0, 1): full jitter over an exponentially growing back-off. With Retry-After the
    wait is never shorter than the server asked; if it asks for more than the settings allow, the call ends.
    """
    if failure not in _REPEATABLE[repeat] or attempts.made >= retry.max_attempts:
        return None
    backoff = chance * min(retry.cap, retry.base * 2.0 ** (attempts.made - 1))
    if retry_after is not None:
        if retry_after > retry.max_retry_after:
            return None
        backoff = retry_after + chance * retry.base
    return backoff if attempts.elapsed + backoff <= retry.max_seconds else None


_LONGEST_NUMBER = 12


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds a Retry-After header asks for (RFC 9110 section 10.2.3), None if it cannot be parsed.

    Seconds may have a fraction; a date in the past is 0.
    """
    text = (value or "").strip()
    if not text or len(text) > 64:
        return None
    if text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit():
        return float(text) if len(text) <= _LONGEST_NUMBER else float("inf")
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
