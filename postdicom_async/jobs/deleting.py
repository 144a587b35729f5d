"""The last phase of a sync: it deletes at the target what the source no longer has, once every guard is passed.

Nothing is deleted unless the whole run before it was clean: both ends listed without a contradiction, no item failed,
unconfirmed or pending, a source that is not empty, not more than the share that is allowed. And right before each
study's deletion the source is asked about it once more; a folder is scanned again for that.

Candidates are counted in a first pass and deleted in a second, since neither the target's lists nor the ledger are kept
in memory. The second pass may find more than the first if others write to the target; so actual deletions are counted
too, and the first one over the limit ends the run.
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
    """What may be deleted of one study at the target: ``rows`` are its ledger rows by their UIDs at the source."""

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
        """Delete at the target what the source no longer has.

        Raises:
            LimitReached: more than the allowed share would be deleted. The run is over: once the source has been put
                right, the next run lists both ends anew.
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
        # Everything is counted before the first deletion: a source that lost a disk lists little, yet consistently.
        if number > context.options.max_delete * held:
            await self._refuse(f"{number} instances of {held} would be deleted, more than --max-delete allows")
        self._allowed = number
        refresh = getattr(context.source, "refresh", None)  # an end that caches its list has to scan again
        if refresh is not None:
            await refresh()
        async for candidate in self._candidates():
            # After an outage the whole question is asked again.
            await context.ask(context.target, partial(self._delete, candidate))

    async def _refuse(self, why: str) -> NoReturn:
        raise LimitReached(f"{why}; {await self._end(why)}")

    async def _end(self, why: str) -> str:
        """End the run: resumed, it would refuse for ever, whatever the ends hold by then.

        The next one lists both anew.
        """
        what = f"only {self._deleted} instances were deleted" if self._deleted else "nothing was deleted"
        self._context.ledger.note(f"{what}: {why}")
        self._context.ledger.put("phase", "complete")
        await self._context.ledger.commit()
        return what

    async def planned(self) -> AsyncGenerator[tuple[str, int], None]:
        """Yield the studies from which instances would be deleted, and how many, if the rest of the run succeeds."""
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
                if listed.patients > 1:  # it was listed before, and its instances are all there are
                    continue
                known = await context.ledger.study(listed.uid)
                is_there = known is not None and known.seen == context.run
                if known is not None and is_there and (listed.instances or 0) <= (known.at_source or 0):
                    continue
                of_source = (
                    {one.uid for one in await self._listed(context.source, listed.uid)} if is_there else set[str]()
                )
                held = await self._listed(context.target, listed.uid)
                before = await context.ledger.items(known.id, states=_AT_TARGET) if known is not None else []
                of_ledger = {row.uid for row in before}  # those are found by the other loop
                rows = [
                    ItemRow(one.series, one.uid, State.PRESENT, size=one.size)
                    for one in held
                    if one.uid not in of_source and one.uid not in of_ledger
                ]
                if rows:
                    yield _Candidate(listed.uid, None if known is None else known.id, tuple(rows))

    async def _listed(self, end: End, study: str) -> list[ListedInstance]:
        """Return what an end lists of a study; a failed list ends the run: nothing uncertain may be deleted."""
        try:
            return await self._context.whole_list(end, lambda: end.instances(study))
        except Unlisted as unlisted:
            problem = unlisted.problem
        await self._end(f"the study {study} could not be listed: {problem.message}")
        raise problem

    async def _delete(self, candidate: _Candidate) -> None:
        """Delete a candidate unless the source has it after all.

        Instance by instance if the target has others of its study.
        """
        context = self._context
        # The list may be hours old by now, and the source may have received the study again.
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
        # If the job was killed right after a deletion, the target no longer has the instance and the ledger does not
        # know.
        if candidate.study_id is not None:
            gone_now = [row._replace(state=State.DELETED, reason=int(Reason.GONE)) for row in gone]
            context.ledger.plan(candidate.study_id, gone_now)
            await context.ledger.commit()
        for row in gone:
            context.tell(
                ItemLine(candidate.study, row.series, row.uid, State.DELETED, Reason.GONE, row.attempts, row.size)
            )
