"""What a list and a count of the archive's are worth beside what arrived."""

from __future__ import annotations

import pytest

from postdicom_async import InstanceUids
from postdicom_async.transfer.arrivals import listing_check

A, B, C = (InstanceUids("1", "2", str(n)) for n in range(3))


@pytest.mark.parametrize(
    ("arrived", "listed", "count", "whole", "expected"),
    [
        ({A, B}, {A, B}, None, True, ("compared", False)),
        ({A, B}, {A, B}, 1, True, ("compared", False)),  # the list and what came agree
        ({A, B}, {A, B, C}, None, True, ("compared", False)),  # and C is missing
        (set(), {A}, None, False, ("compared", False)),
        ({A, B}, None, 2, True, ("counted", False)),
        ({A, B}, set(), 2, True, ("counted", False)),  # as many as it counts, in a whole answer
        ({A, B}, None, 2, False, ("unavailable", False)),  # a broken answer of as many proves nothing
        ({A, B}, None, None, True, ("unavailable", False)),
        ({A, B}, None, 3, True, ("unavailable", False)),  # less than it counts is an error elsewhere
        ({A, B}, set(), None, True, ("unavailable", True)),
        ({A, B}, {A}, None, True, ("unavailable", True)),
        ({A, B}, {A, C}, None, True, ("unavailable", True)),
        ({A, B}, None, 1, True, ("unavailable", True)),
        ({A, B}, None, 0, True, ("unavailable", True)),
        (set(), set(), None, False, ("unavailable", False)),
        (set(), None, None, False, ("unavailable", False)),
    ],
)
def test_verdict(
    arrived: set[InstanceUids],
    listed: set[InstanceUids] | None,
    count: int | None,
    whole: bool,
    expected: tuple[str, bool],
) -> None:
    outside = 0 if listed is None else len(arrived - listed)
    total = None if listed is None else len(listed)
    assert listing_check(len(arrived), total, outside, count, whole=whole) == expected
