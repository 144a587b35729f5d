"""What may be repeated, and when."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.http.repeat import RetryBudget
from postdicom_async.http.retry import Attempts, Failure, Repeat, decide, failure_of_status, parse_retry_after
from postdicom_async.settings import Retry

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
RETRY = Retry(max_attempts=4, max_seconds=100.0, base=1.0, cap=10.0, max_retry_after=60.0)

REPEATED = {
    (Repeat.READ, Failure.NOT_SENT): True,
    (Repeat.READ, Failure.REFUSED): True,
    (Repeat.READ, Failure.UNAVAILABLE): True,
    (Repeat.READ, Failure.LOST): True,
    (Repeat.READ, Failure.FINAL): False,
    (Repeat.STORE, Failure.NOT_SENT): True,
    (Repeat.STORE, Failure.REFUSED): True,
    (Repeat.STORE, Failure.UNAVAILABLE): False,
    (Repeat.STORE, Failure.LOST): False,
    (Repeat.STORE, Failure.FINAL): False,
    (Repeat.CHANGE, Failure.NOT_SENT): True,
    (Repeat.CHANGE, Failure.REFUSED): False,
    (Repeat.CHANGE, Failure.UNAVAILABLE): False,
    (Repeat.CHANGE, Failure.LOST): False,
    (Repeat.CHANGE, Failure.FINAL): False,
}


def test_the_table_covers_every_pair() -> None:
    assert set(REPEATED) == set(product(Repeat, Failure))


@pytest.mark.parametrize("made", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("pair", "repeated"), REPEATED.items(), ids=str)
def test_decision_by_operation_failure_and_attempts(pair: tuple[Repeat, Failure], repeated: bool, made: int) -> None:
    wait = decide(*pair, Attempts(made, 0.0), RETRY, chance=0.5)
    assert (wait is not None) is (repeated and made < RETRY.max_attempts)


@pytest.mark.parametrize(
    ("made", "chance", "expected"),
    [(1, 0.0, 0.0), (1, 0.5, 0.5), (1, 1.0, 1.0), (2, 0.5, 1.0), (3, 0.5, 2.0), (3, 1.0, 4.0)],
)
def test_backoff_doubles_with_full_jitter(made: int, chance: float, expected: float) -> None:
    assert decide(Repeat.READ, Failure.LOST, Attempts(made, 0.0), RETRY, chance=chance) == expected


def test_backoff_is_capped() -> None:
    patient = Retry(max_attempts=5000, base=1.0, cap=10.0)
    for made in (5, 10, 100, 1000):
        assert decide(Repeat.READ, Failure.LOST, Attempts(made, 0.0), patient, chance=1.0) == 10.0


@pytest.mark.parametrize(
    ("retry_after", "elapsed", "chance", "expected"),
    [
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.5, 0.5),
        (7.0, 0.0, 0.0, 7.0),
        (7.0, 0.0, 0.9, 7.9),
        (60.0, 0.0, 0.0, 60.0),
        (60.1, 0.0, 0.0, None),
        (math.inf, 0.0, 0.0, None),
        (30.0, 70.0, 0.0, 30.0),
        (30.0, 70.0, 0.5, None),
        (30.0, 71.0, 0.0, None),
        (None, 100.0, 0.0, 0.0),
        (None, 100.0, 0.1, None),
        (None, 101.0, 0.0, None),
    ],
)
def test_retry_after_and_the_time_limit(
    retry_after: float | None, elapsed: float, chance: float, expected: float | None
) -> None:
    attempts = Attempts(1, elapsed)
    wait = decide(Repeat.STORE, Failure.REFUSED, attempts, RETRY, chance=chance, retry_after=retry_after)
    assert wait == pytest.approx(expected)


@given(
    pair=st.sampled_from(sorted(REPEATED, key=str)),
    made=st.integers(1, 50),
    elapsed=st.floats(0, 1000),
    chance=st.floats(0, 1, exclude_max=True),
    retry_after=st.none() | st.floats(0, 1e9) | st.just(math.inf),
)
def test_a_wait_keeps_every_promise(
    pair: tuple[Repeat, Failure], made: int, elapsed: float, chance: float, retry_after: float | None
) -> None:
    wait = decide(*pair, Attempts(made, elapsed), RETRY, chance=chance, retry_after=retry_after)
    if wait is None:
        return
    assert REPEATED[pair]
    assert made < RETRY.max_attempts
    assert wait >= 0
    assert elapsed + wait <= RETRY.max_seconds
    assert wait >= (retry_after or 0)
    assert wait <= (RETRY.cap if retry_after is None else retry_after + RETRY.base)


@given(chance=st.floats(0, 1, exclude_max=True))
def test_jitter_is_proportional_to_chance(chance: float) -> None:
    """A uniform chance gives a uniform wait between nothing and the whole back-off."""
    wait = decide(Repeat.READ, Failure.LOST, Attempts(3, 0.0), RETRY, chance=chance)
    assert wait == pytest.approx(chance * 4.0)


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (408, Failure.REFUSED),
        (429, Failure.REFUSED),
        (503, Failure.REFUSED),
        (500, Failure.UNAVAILABLE),
        (502, Failure.UNAVAILABLE),
        (504, Failure.UNAVAILABLE),
        *((status, Failure.FINAL) for status in (300, 302, 400, 401, 403, 404, 406, 409, 410, 413, 415, 501, 505, 999)),
    ],
)
def test_failure_of_status(status: int, failure: Failure) -> None:
    assert failure_of_status(status) is failure


# --- Retry-After ----------------------------------------------------------------------------------------------------


def http_date(**delta: float) -> str:
    return format_datetime(NOW + timedelta(**delta), usegmt=True)


RETRY_AFTER: list[tuple[str | None, float | None]] = [
    (None, None),
    ("", None),
    ("   ", None),
    ("0", 0.0),
    ("7", 7.0),
    (" 120 ", 120.0),
    ("1.5", 1.5),
    ("007", 7.0),
    ("-5", None),
    ("+5", None),
    ("1e3", None),
    ("NaN", None),
    ("nan", None),
    ("inf", None),
    ("Infinity", None),
    ("1.2.3", None),
    ("12 34", None),
    ("5s", None),
    ("soon", None),
    ("\u0663", None),
    ("\u00b2", None),
    (".", None),
    ("5.", 5.0),
    ("999999999999", 999999999999.0),
    ("9" * 13, math.inf),
    ("9" * 64, math.inf),
    ("9" * 65, None),
    ("9" * 10000, None),
    (http_date(seconds=90), 90.0),
    (http_date(seconds=-90), 0.0),
    (http_date(days=-20000), 0.0),
    (http_date(days=400), 400 * 86400.0),
    ("Monday, 06-May-24 07:09:09 GMT", 60.0),
    ("Mon May  6 07:09:09 2024", 60.0),
    ("Mon, 06 May 2024 09:09:09 +0200", 60.0),
    ("Mon, 06 May 2024 07:09:09 -0000", 60.0),
    ("Mon, 99 May 2024 07:09:09 GMT", None),
    ("Mon, 06 Foo 2024 07:09:09 GMT", None),
    ("Mon, 06 May 99999 07:09:09 GMT", None),
    ("Mon, 06 May 2024 07:09:09 +9999", None),
    ("Fri, 31 Dec 9999 23:59:59 -2359", (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - NOW).total_seconds() + 86340),
    ("<script>", None),
    (",", None),
    (":", None),
    ("0 0", None),
]


@pytest.mark.parametrize(("value", "expected"), RETRY_AFTER)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert parse_retry_after(value, NOW) == expected


@given(st.text(max_size=70) | st.text("0123456789 :,+-.GMTonMayJ/", max_size=40))
def test_any_retry_after_gives_seconds_or_nothing(value: str) -> None:
    found = parse_retry_after(value, NOW)
    assert found is None or found >= 0


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(9998, 1, 1)),  # noqa: DTZ001 - hypothesis wants them so
    st.integers(-23 * 60, 23 * 60),
)
def test_any_date_counts_from_now(moment: datetime, offset: int) -> None:
    moment = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset)))
    assert parse_retry_after(format_datetime(moment), NOW) == max(0.0, (moment - NOW).total_seconds())


# --- budget ---------------------------------------------------------------------------------------------------------


def test_budget_runs_out_and_is_earned_back_by_tenths() -> None:
    budget = RetryBudget(2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(9):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    budget.earn()
    assert budget.spend()


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 5))
def test_budget_never_gives_more_than_it_has(steps: list[bool], size: int) -> None:
    budget, spent, earned = RetryBudget(size), 0, 0
    for earns in steps:
        if earns:
            budget.earn()
            earned += 1
        else:
            spent += budget.spend()
    assert spent <= size + earned / 10 + 1e-6
