"""The phase that lists the studies of both ends and decides by their instance counts which need a closer look.

A list counts only when it came to its end without contradicting itself: an end that fails half-way is asked again from
the beginning.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from postdicom_async.jobs.ends.end import Feature, ListedStudy
from postdicom_async.jobs.ledger.schema import Stage
from postdicom_async.jobs.plan import Decision, decide, planned_items
from postdicom_async.jobs.states import State
from postdicom_async.transfer.at_once import for_each

if TYPE_CHECKING:
    from postdicom_async.jobs.context import Context
    from postdicom_async.jobs.ledger.schema import StudyRow


_FEW = 50  # up to so many studies are looked up one by one: the target may list millions
_MANY_MORE = 200  # a target with so many times the source's studies is cheaper to ask study by study than to list
_AT_ONCE = 4
_UNSETTLED = (State.PENDING, State.RUNNING, State.FAILED, State.UNCONFIRMED)


class DiscoverPhase:
    """The first phase of a run. Use it once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._found = 0
        self._dates: list[str] = []  # the earliest and the latest; the ledger keeps months alone

    async def run(self) -> None:
        """Record what the ends list, and how each study is to be handled.

        Raises:
            PostdicomError: an end cannot be listed.
        """
        context, ledger = self._context, self._context.ledger
        await context.outages.reach()
        await self._list_source()
        await self._list_what_is_none()
        if Feature.LISTS in context.target.features:
            await self._list_target()
        async for study in context.studies():
            decision = decide(study, context.comparison)
            if decision is Decision.LIST and study.stage is not Stage.FOUND:
                ledger.set_stage(study.id, Stage.FOUND)
            elif decision is Decision.EQUAL:
                ledger.set_stage(study.id, Stage.EQUAL, planned=study.at_source)
        await self._look_for_unseen()
        ledger.put("source_unsure", bool(getattr(context.source, "notes", ())))  # then a sync deletes nothing
        ledger.put("discovery_complete", True)

    async def _list_source(self) -> None:
        context = self._context
        async for some in context.listing(context.source, context.source.studies):
            self._found += len(some)
            dates = [one.date for one in some if one.date]
            if dates:
                self._dates = [min([*self._dates[:1], *dates]), max([*self._dates[1:], *dates])]
            await context.ledger.note_studies(some, at_target=False, run=context.run, first=context.options.first)

    async def _list_what_is_none(self) -> None:
        """Record the files of a folder that are not instances, so that every file found is accounted for."""
        excluded = getattr(self._context.source, "excluded", None)
        if excluded is None:
            return
        ledger = self._context.ledger
        await ledger.note_studies([ListedStudy("")], at_target=False, run=self._context.run)
        nothing = await ledger.study("")
        assert nothing is not None  # noqa: S101 - `note_nothing` added it
        how = self._context.comparison
        left = {("", row.uid): row for row in await ledger.items(nothing.id, states=_UNSETTLED)}
        async for some in excluded():  # a folder may hold millions of them: some at a time
            for one in some:
                left.pop(("", one.uid), None)
            ledger.plan(nothing.id, planned_items(some, None, {}, how))
            await ledger.commit()
        ledger.plan(nothing.id, planned_items((), None, left, how))

    async def _look_for_unseen(self) -> None:
        """Ask about studies with unfinished items that were listed earlier and are missing from the present list."""
        context = self._context
        async for study in context.studies(unseen=True):
            rows = await context.ledger.items(study.id)
            if study.stage not in (Stage.FOUND, Stage.PLANNED) and all(row.state not in _UNSETTLED for row in rows):
                continue
            found = await context.ask(context.source, partial(context.source.study, study.uid))
            if found is not None:  # the source still has it: only its list of studies left it out
                await context.ledger.note_studies([found], at_target=False, run=context.run)
                context.ledger.set_stage(study.id, Stage.FOUND)
            else:
                known = {(row.series, row.uid): row for row in rows}
                context.ledger.plan(study.id, planned_items((), None, known, context.comparison))
                context.ledger.set_stage(study.id, Stage.MOVED)

    async def _list_target(self) -> None:
        context = self._context
        how = context.comparison
        # A target of millions is not listed for a handful of studies; and with mapped UIDs its list would match
        # nothing.
        if self._found <= _FEW or how.maps_uids:
            await for_each(context.studies(), self._ask_target, at_once=_AT_ONCE)
            return
        since, until = self._dates or ["", ""]
        pages = partial(context.target.studies, since=since, until=until)
        listed = 0
        async with aclosing(context.listing(context.target, pages)) as parts:
            async for some in parts:
                await context.ledger.note_studies(some, at_target=True, run=context.run)
                listed += len(some)
                if listed > _MANY_MORE * self._found:
                    break
            else:
                return
        await for_each(context.studies(), self._ask_target, at_once=_AT_ONCE)

    async def _ask_target(self, study: StudyRow) -> None:
        context = self._context
        uid = context.uid_at_target(study.uid)
        found = await context.ask(context.target, lambda: context.target.study(uid))
        if found is not None:
            await context.ledger.note_studies([found._replace(uid=study.uid)], at_target=True, run=context.run)
