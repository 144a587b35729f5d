"""A stream that is too slow and an archive that is silent too often, in a time that only the test lets pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async import Timeouts
from postdicom_async.http.repeat import CallPatience, LeastRate, least_rate_of

KIB = 1024


def ends_after(meter: LeastRate, waits: list[tuple[int, float]]) -> float | None:
    """Return the seconds of waiting after which the meter calls it too slow, None if it never does."""
    waited = 0.0
    for size, seconds in waits:
        waited += seconds
        if meter.is_too_slow(size, seconds):
            return waited
    return None


@pytest.mark.parametrize(
    ("waits", "end"),
    [
        ([(1, 10.0)] * 100, 60.0),
        ([(1, 7.0)] * 100, 63.0),
        ([(1000, 1.0)] * 100, 60.0),
        ([(1024, 1.0)] * 1000, None),
        ([(64 * KIB, 59.0)] * 1000, None),
        ([(8 * KIB, 8.0)] * 1000, None),
        ([(1 << 30, 1.0), *[(1, 10.0)] * 100], 61.0),
        ([(61 * KIB, 1.0), *[(1, 10.0)] * 5] * 100, None),
        ([(10, 20.0), (10, 20.0), (10, 19.9)], None),
        ([(1, 0.0)] * 50_000, None),
    ],
    ids=[
        "a byte every ten seconds",
        "the window and the wait that fills it",
        "nearly enough",
        "just enough",
        "one large piece a minute",
        "pieces of 8 KiB",
        "slow after a gigabyte",
        "long pauses between large pieces",
        "a small answer that takes less than a window",
        "small pieces without waiting",
    ],
)
def test_the_default_rate(waits: list[tuple[int, float]], end: float | None) -> None:
    assert ends_after(least_rate_of(Timeouts(), Timeouts().idle_read), waits) == end


def test_no_rate_at_all() -> None:
    assert ends_after(LeastRate(0, 60), [(0, 100.0), (1, 1e9)]) is None


def test_a_longer_silence_that_was_allowed_is_not_too_slow() -> None:
    meter = least_rate_of(Timeouts(idle_read=300), 300)
    assert ends_after(meter, [(100, 290.0), (1 << 20, 1.0), (100, 290.0)]) is None


@given(st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 30)), max_size=200))
def test_what_is_called_slow_is_slow(waits: list[tuple[int, float]]) -> None:
    """There was a stretch of at least a window with less than a window's bytes; and none goes on for long."""
    meter = LeastRate(100, 60)
    sizes: list[tuple[int, float]] = []
    for size, seconds in waits:
        sizes.append((size, seconds))
        if meter.is_too_slow(size, seconds):
            stretches = (sizes[start:] for start in range(len(sizes)))
            assert any(sum(s for s, _ in some) < 6000 and sum(t for _, t in some) >= 60 - 1e-6 for some in stretches)
            return
    for start in range(len(waits)):
        some = waits[start:]
        if sum(size for size, _ in some) < 6000:
            assert sum(seconds for _, seconds in some) < 2 * 60 + 30 + 1e-6
            break


def test_silences_in_a_row() -> None:
    """Of all kinds together; but an answer is one to its own kind, and what was not silent itself is asked."""
    patience = CallPatience(None, 3)
    for kind in ("store", "search"):
        patience.met_silence(kind, patience.silences)
        assert not patience.is_over(kind)
    patience.met_silence("search", patience.silences)
    assert [patience.is_over(kind) for kind in ("store", "search", "retrieve")] == [True, True, False]
    patience.heard("search")
    assert [patience.is_over(kind) for kind in ("store", "search")] == [True, False]


def test_silence_met_side_by_side_counts_once() -> None:
    patience = CallPatience(None, 2)
    before = patience.silences
    for _ in range(10):
        patience.met_silence("store", before)
    assert not patience.is_over("store")
    patience.met_silence("store", patience.silences)
    assert patience.is_over("store")


def test_time_is_used_up_once() -> None:
    patience = CallPatience(10.0, 3)
    patience.spend(4)
    assert patience.left == 6
    patience.spend(40)
    assert patience.left == 0
    unbounded = CallPatience(None, 3)
    unbounded.spend(4)
    assert unbounded.left is None
