"""A dry run: what a job would do with each study, by the same discovery and plan in a temporary ledger.

If the job has a ledger, a copy of it is used, so that the next run does exactly what was shown.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from postdicom_async.disk.files import in_background
from postdicom_async.errors import PostdicomError
from postdicom_async.jobs.context import Context, Unlisted, plan_study
from postdicom_async.jobs.deleting import DeletePhase
from postdicom_async.jobs.discovery import DiscoverPhase
from postdicom_async.jobs.job import pace_ends
from postdicom_async.jobs.ledger.file import connected, explained_by_sqlite
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.schema import Stage
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.pace.outages import Outages
from postdicom_async.jobs.run import PHASES, begin_run, unreached_in
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postdicom_async.jobs.begin import PreparedEnds
    from postdicom_async.jobs.context import JobOptions
    from postdicom_async.jobs.pace.pace import Pace


_THERE = (State.DONE, State.PRESENT)


class StudyPlan(NamedTuple):
    """What would be done with a study.

    Attributes:
        study: its Study Instance UID.
        month: YYYYMM of its date, 0 where it has none.
        to_move: instances, and their bytes where the source says them.
        there: instances that the target has.
        excluded: instances that are not to be moved, or cannot be.
        equal_by_count: its counts are equal, so its instances would not be listed.
        to_delete: instances that would be deleted at the target.
    """

    study: str
    month: int
    to_move: Count = Count()
    there: int = 0
    excluded: int = 0
    equal_by_count: bool = False
    to_delete: int = 0


async def preview(
    ends: PreparedEnds, options: JobOptions, pace: Pace, facts: Mapping[str, Any], *, new: bool
) -> AsyncGenerator[StudyPlan, None]:
    """Yield what would be done with each study, in the order of the run; unaffected studies come last.

    Args:
        ends: the ends of the job, not open.
        options: the options of the job.
        pace: how fast the ends are asked.
        facts: the facts for a new ledger.
        new: ignore an earlier ledger.

    Raises:
        PostdicomError: as the run would.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "preview.ledger"
        if not new and await in_background(ends.path.exists):
            await in_background(lambda: _copy(ends.path, path))
            opening = Ledger.open(path, identity=ends.digest)
        else:
            opening = Ledger.create(path, facts)
        ledger = await stack.enter_async_context(await opening)
        outages = Outages(ends.source, ends.target, patience=OutagePatience(outage=0.0), unreached=unreached_in(ledger))
        pace_ends(ends.source, ends.target, pace)
        for end in (ends.source, ends.target):
            await stack.enter_async_context(end)
        context = Context(ledger, ends.source, ends.target, options, outages, lambda _: None)
        await begin_run(context)
        if ledger.fact("phase") == PHASES[0]:
            await DiscoverPhase(context).run()
        async with aclosing(_plans(context)) as plans:
            async for plan in plans:
                yield plan


async def _plans(context: Context) -> AsyncGenerator[StudyPlan, None]:
    async for study in context.studies(Stage.PLANNED, Stage.FOUND):
        problem: PostdicomError | None = None
        try:
            is_planned = study.stage is Stage.PLANNED
            rows = await (context.ledger.items(study.id) if is_planned else plan_study(context, study))
        except Unlisted as unlisted:
            problem = unlisted.problem
        if problem is not None:
            raise problem
        moved = [row for row in rows if row.state is State.PENDING]
        there = sum(row.state in _THERE for row in rows)
        to_move = Count(len(moved), sum(row.size for row in moved))
        yield StudyPlan(study.uid, study.month, to_move, there, excluded=len(rows) - len(moved) - there)
    async for study in context.studies(Stage.EQUAL):
        yield StudyPlan(study.uid, study.month, there=study.at_source or 0, equal_by_count=True)
    if context.options.delete:
        async for uid, number in DeletePhase(context).planned():
            yield StudyPlan(uid, 0, to_delete=number)


def _copy(path: Path, to: Path) -> None:
    """Copy a ledger that another process may be writing."""
    with explained_by_sqlite(), closing(connected(path, "ro")) as database, closing(sqlite3.connect(to)) as copy:
        database.backup(copy)
