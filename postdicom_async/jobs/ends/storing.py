"""Feeds sources of one end to an upload: every source taken gets an outcome, whichever side fails."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.disk.spool import spooled
from postdicom_async.errors import PostdicomError
from postdicom_async.results import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from postdicom_async.disk.sources import IdentifiedSource
    from postdicom_async.results import UploadReport
    from postdicom_async.transfer.outcomes import Outcomes
from postdicom_async.transfer.holding_sink import PassingBody

_PIECE = 512 * 1024


async def stored(
    sources: AsyncIterator[IdentifiedSource],
    upload: Callable[[AsyncIterator[IdentifiedSource]], Outcomes[UploadReport]],
    *,
    keeps: bool = False,
    probe: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[Outcome, None]:
    """Upload all ``sources`` and yield the outcomes; the error that ended either side is raised after them.

    If ``sources`` fails, everything it yielded before is still stored.

    Args:
        sources: instances that another end opened.
        upload: starts an upload of sources.
        probe: checks the target and raises if it is out of order. Called when an instance that could be read only once
            has failed, since that failure alone does not tell an outage.
        keeps: the upload may read a body more than once, so a body that can be read only once is buffered first.
    """
    given = _Given(sources, keeps=keeps)
    problem: PostdicomError | None = None
    is_doubtful = False
    async with upload(given.each()) as outcomes:
        try:
            async for outcome in outcomes:
                given.open.pop(outcome.where, None)
                is_doubtful = is_doubtful or (outcome.temporary and outcome.where in given.passing)
                yield outcome
        except PostdicomError as error:
            problem = error
    for one in list(given.open.values()):
        if one.reason is None:
            why = problem or PostdicomError("the upload ended", temporary=True)
            one = replace(one, reason=f"not sent: {why.message}", temporary=why.temporary)
        yield one
    if problem is not None:
        raise problem
    if given.problem is not None:
        raise given.problem
    # With bodies that could be read only once the upload cannot retry: an outage shows only as failed items.
    if is_doubtful and probe is not None:
        await probe()


class _Given:
    """The sources given to the upload, and those still without an outcome.

    Attributes:
        open: by label, the outcome to report for each source that gets none.
        passing: labels of sources that can be read only once.
        problem: the error that ended the sources.
    """

    def __init__(self, sources: AsyncIterator[IdentifiedSource], *, keeps: bool) -> None:
        self.open: dict[str, Outcome] = {}
        self.passing: set[str] = set()
        self.problem: Exception | None = None
        self._sources = sources
        self._keeps = keeps

    async def each(self) -> AsyncGenerator[IdentifiedSource, None]:
        try:
            async for one in self._sources:
                self.open[one.label] = _unsent(one)
                if isinstance(one, Usable) and isinstance(one.body, PassingBody):
                    self.passing.add(one.label)
                if self._keeps:
                    kept = await self._kept(one)
                    if kept is None:
                        continue
                    one = kept
                yield one
                del one
        except Exception as error:  # noqa: BLE001 - raised once everything before it has its outcome
            self.problem = error

    async def _kept(self, one: IdentifiedSource) -> IdentifiedSource | None:
        """Buffer a source so that it can be read again; None if it broke off, which is recorded as its outcome."""
        if not isinstance(one, Usable) or one.label not in self.passing:
            return one
        async with aclosing(one.body.open()) as pieces:
            body = await spooled(pieces, one.label, _PIECE)
        if not isinstance(body, Unusable):
            return replace(one, body=body)
        self.open[one.label] = replace(_unsent(one), reason=body.reason, temporary=True)
        return None


def _unsent(one: IdentifiedSource) -> Outcome:
    if isinstance(one, Unusable):
        return Outcome(one.label, one.status, one.uids, one.size, reason=one.reason)
    return Outcome(one.label, Status.FAILED, one.header.uids, one.body.length)
