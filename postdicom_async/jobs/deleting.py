"""The last phase of a sync: it deletes at the target what the source has no longer, behind every guard there is.

Nothing is deleted unless the whole run before it was clean: both ends listed without a contradiction, no item failed,
unconfirmed or pending, a source that is not empty, not more than the share that is allowed. And of each study, the
source is asked once more right before; a folder is searched anew for that.

What may be deleted is counted first and then gone through again, since neither a target's lists nor the ledger are kept
in memory. The second time may find more than the first, at a target that others write to: so what is deleted is counted
too, and the first that is too much ends it.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from postdicom_async.errors import LimitReached
from postdicom_async.jobs.context import Unlisted
from postdicom_async.jobs.ledger.schema import ItemRow
from postdicom_async.jobs.plan import gone
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import ItemLine
from postdicom_async.results import InstanceUids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.jobs.context import Context
    from postdicom_async.jobs.ends.end import End, ListedInstance


_UNSETTLED = (State.PENDING, State.RUNNING, State.FAILED, State.UNCONFIRMED)
_AT_TARGET = (State.DONE, State.PRESENT)


class _Candidate(NamedTuple):
    """What may be deleted of a study at the target: ``rows`` as the ledger knows them, by their UIDs at the source."""

    study: str
    study_id: int | None
    rows: tuple[ItemRow, ...]


class DeletePhase:
    """The deletions of one run. Use it once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._all = context.options.delete == "all"
        self._allowed = 0
        self._deleted = 0

    async def run(self) -> None:
        """Delete what is to be deleted.

        Raises:
            LimitReached: it would be more than is allowed. The run has ended: when somebody has mended what is wrong
                with the source, both ends are to be listed anew.
            PostdicomError: an end cannot be asked, or refuses.
        """
        context = self._context
        if not context.options.delete:
            return
        why = await self._why_not()
        if why:
            context.ledger.note(f"nothing was deleted: {why}")
            return
        number = 0
        async for candidate in self._candidates():
            number += len(candidate.rows)
        if not number:
            return
        counts = await context.ledger.counts()
        held = sum(counts.get(state, (0, 0))[0] for state in _AT_TARGET)
        # All is counted before the first is deleted: a source that lost a disk lists little, and contradicts nothing.
        if number > context.options.max_delete * held:
            await self._refuse(f"{number} instances of {held} would be deleted, more than --max-delete allows")
        self._allowed = number
        refresh = getattr(context.source, "refresh", None)  # of an end that remembers what it listed
        if refresh is not None:
            await refresh()
        async for candidate in self._candidates():
            # Where an outage ends that, everything is asked again after it.
            await context.ask(context.target, partial(self._delete, candidate))

    async def _refuse(self, why: str) -> NoReturn:
        raise LimitReached(f"{why}; {await self._end(why)}")

    async def _end(self, why: str) -> str:
        """End the run: resumed, it would refuse for ever, whatever the ends hold by then. The next one begins anew."""
        what = f"only {self._deleted} instances were deleted" if self._deleted else "nothing was deleted"
        self._context.ledger.note(f"{what}: {why}")
        self._context.ledger.put("phase", "complete")
        await self._context.ledger.commit()
        return what

    async def planned(self) -> AsyncGenerator[tuple[str, int], None]:
        """Yield the studies of which something would be deleted, and of how many instances, if all else goes well."""
        async for candidate in self._candidates():
            yield candidate.study, len(candidate.rows)

    async def _why_not(self) -> str:
        if self._context.ledger.fact("part"):
            return "a part of a job knows only its share of the source"
        counts = await self._context.ledger.counts()
        left = sum(counts.get(state, (0, 0))[0] for state in _UNSETTLED)
        if left:
            return f"{left} instances failed, or are not known to be at the target"
        async with aclosing(self._context.studies()) as studies:
            if await anext(studies, None) is None:
                return "the source lists nothing"
        return "the source may not have listed all it has" if self._context.ledger.fact("source_unsure") else ""

    async def _candidates(self) -> AsyncGenerator[_Candidate, None]:
        """Yield what the source no longer has; with ``--delete=all`` also what it never had."""
        context = self._context
        async for study in context.studies(unseen=True):
            rows = await context.ledger.items(study.id, states=_AT_TARGET)
            if chosen := [row for row in rows if self._all or row.state is State.DONE]:
                yield _Candidate(study.uid, study.id, tuple(chosen))
        async for study in context.studies():
            rows = await context.ledger.items(study.id, states=_AT_TARGET)
            if chosen := gone(rows, delete_all=self._all):
                yield _Candidate(study.uid, study.id, tuple(chosen))
        if self._all:
            async for candidate in self._never_at_source():
                yield candidate

    async def _never_at_source(self) -> AsyncGenerator[_Candidate, None]:
        context = self._context
        async for some in context.listing(context.target, context.target.studies):
            for listed in some:
                known = await context.ledger.study(listed.uid)
                is_there = known is not None and known.seen == context.run
                if known is not None and is_there and (listed.instances or 0) <= (known.at_source or 0):
                    continue
                of_source = (
                    {one.uid for one in await self._listed(context.source, listed.uid)} if is_there else set[str]()
                )
                held = await self._listed(context.target, listed.uid)
                before = await context.ledger.items(known.id, states=_AT_TARGET) if known is not None else []
                of_ledger = {row.uid for row in before}  # those are candidates by themselves
                rows = [
                    ItemRow(one.series, one.uid, State.PRESENT, size=one.size)
                    for one in held
                    if one.uid not in of_source and one.uid not in of_ledger
                ]
                if rows:
                    yield _Candidate(listed.uid, None if known is None else known.id, tuple(rows))

    async def _listed(self, end: End, study: str) -> list[ListedInstance]:
        """Return what an end has of a study; what cannot be listed ends the run, as all that is not certain."""
        try:
            return await self._context.whole_list(end, lambda: end.instances(study))
        except Unlisted as unlisted:
            problem = unlisted.problem
        await self._end(f"the study {study} could not be listed: {problem.message}")
        raise problem

    async def _delete(self, candidate: _Candidate) -> None:
        """Delete, unless the source has it after all; one by one where the target has others of the study."""
        context = self._context
        # What was listed may be hours old by now, and the source may have got the study again.
        at_source = {one.uid for one in await self._listed(context.source, candidate.study)}
        at_target = {one.uid for one in await self._listed(context.target, candidate.study)}
        gone = [row for row in candidate.rows if row.uid not in at_source]
        rows = [row for row in gone if row.uid in at_target]
        if self._deleted + len(rows) > self._allowed:
            await self._refuse("by now more would be deleted at the target than was counted")
        if rows:
            uids = [InstanceUids(candidate.study, row.series, row.uid) for row in rows]
            is_all = at_target == {row.uid for row in rows}
            await context.target.delete(candidate.study, None if is_all else uids)
            self._deleted += len(rows)
        # Where the job was killed right after a deletion, the target no longer has it, and the ledger does not know.
        if candidate.study_id is not None:
            gone_now = [row._replace(state=State.DELETED, reason=int(Reason.GONE)) for row in gone]
            context.ledger.plan(candidate.study_id, gone_now)
            await context.ledger.commit()
        for row in gone:
            context.tell(
                ItemLine(candidate.study, row.series, row.uid, State.DELETED, Reason.GONE, row.attempts, row.size)
            )
