"""What a download asks for: the largest resources of which everything is missing, or series side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.dicomweb.retrieve import Target

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from postdicom_async.transfer.arrivals import Arrivals

__all__ = ["MANY", "MOST_SERIES", "pays_by_series", "plan"]

MANY = 32  # instances from which on one more request costs nothing
MOST_SERIES = 1000  # a study of more is asked for as one
_FEW = 8  # instances a series, on average: requests for fewer wait longer than they receive


def pays_by_series(counts: Mapping[str, int]) -> bool:
    """Return whether a study may come faster as several series than in one answer, and not slower."""
    total = sum(counts.values())
    return 1 < len(counts) <= MOST_SERIES and total >= max(MANY, _FEW * len(counts))


async def plan(target: Target, arrivals: Arrivals, finest: int, *, side_by_side: bool) -> AsyncGenerator[Target, None]:
    """Yield what to ask for, as far as it is still missing then.

    ``finest`` bounds the size: 0 allows the target itself, 1 series, 2 only instances. A server may fail at a large
    resource and still give the small ones. With ``side_by_side`` a whole study is asked for by series if that pays.
    """
    listed = arrivals.listed
    if listed is None or not listed.size:
        yield target
        return
    if target.instance is not None:
        if arrivals.missing:
            yield target
        return
    series = sorted([one async for one in arrivals.series() if one.missing], key=lambda one: (-one.missing, one.uid))
    if finest == 0 and arrivals.missing == listed.size:
        counts = {one.uid: one.listed for one in series}
        if target.series is not None or not side_by_side or not pays_by_series(counts):
            yield target
            return
    for one in series:
        if finest <= 1 and one.missing == one.listed:
            yield Target(target.study, one.uid)
            continue
        async for some in arrivals.missing_slices(one.uid):
            for target in (Target(*uids) for uids in some if not arrivals.has(uids)):
                yield target
