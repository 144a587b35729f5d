"""What a download asks for: the largest resources of which everything is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.dicomweb.retrieve import Target

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.transfer.arrivals import Arrivals

__all__ = ["plan"]


async def plan(target: Target, arrivals: Arrivals, finest: int) -> AsyncGenerator[Target, None]:
    """Yield what to ask for, as far as it is still missing then.

    ``finest`` bounds the size: 0 allows the target itself, 1 series, 2 only instances. A server may fail at a large
    resource and still give the small ones.
    """
    listed = arrivals.listed
    if listed is None or not listed.size:
        yield target
        return
    if target.instance is not None:
        if arrivals.missing:
            yield target
        return
    if finest == 0 and arrivals.missing == listed.size:
        yield target
        return
    series = sorted([one async for one in arrivals.series() if one.missing], key=lambda one: (-one.missing, one.uid))
    for one in series:
        if finest <= 1 and one.missing == one.listed:
            yield Target(target.study, one.uid)
            continue
        async for some in arrivals.missing_slices(one.uid):
            for target in (Target(*uids) for uids in some if not arrivals.has(uids)):
                yield target
