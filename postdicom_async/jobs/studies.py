"""The studies of a job one by one: in their order, and what is to be done with the instances of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.jobs.context import Unlisted
from postdicom_async.jobs.ledger.ledger import ItemRow, Stage
from postdicom_async.jobs.plan import planned_items
from postdicom_async.jobs.states import Reason, State, reason_code

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from postdicom_async.jobs.context import Context
    from postdicom_async.jobs.ledger.ledger import StudyRow

__all__ = ["could_not_be_listed", "every_study", "held_at_target", "plan_study", "plan_study_or_fail"]

_LIST = "list"  # what failed of a study whose instances are not known; no instance has such a UID
_REFUSED = 400


async def every_study(
    context: Context, stage: Stage | None = None, *, run: int | None = None, unseen: bool = False
) -> AsyncGenerator[list[StudyRow], None]:
    """Yield the studies of the ledger in their order, some at a time; what is changed meanwhile may come or not."""
    after = (-(1 << 62), 0)
    while some := await context.ledger.studies(stage, after=after, run=run, unseen=unseen):
        yield [study for study in some if study.uid]
        after = some[-1].position, some[-1].id


async def plan_study(context: Context, study: StudyRow) -> list[ItemRow]:
    """List the instances of a study at both ends; note how each is to stand, and return them.

    Raises:
        Unlisted: an end works, and cannot list this study.
        PostdicomError: an end cannot be asked.
    """
    listed = await context.whole_list(context.source, lambda: context.source.instances(study.uid))
    known = {(row.series, row.uid): row for row in await context.ledger.items(study.id)}
    if known.pop(("", _LIST), None) is not None:
        context.ledger.forget(study.id, [("", _LIST)])  # what could not be listed is counted by its instances now
    was_moved = any(row.state is State.DONE for row in known.values())  # since the target's studies were listed
    held = await held_at_target(context, study, afresh=was_moved)
    rows = sorted(planned_items(listed, held, known, context.comparison, context.uid_at_target))
    context.ledger.plan(study.id, rows)
    context.ledger.set_stage(study.id, Stage.PLANNED, planned=len({(one.series, one.uid) for one in listed}))
    return rows


async def plan_study_or_fail(context: Context, study: StudyRow) -> list[ItemRow]:
    """Do the same; where the study cannot be listed although the ends can be worked with, that is what failed of it.

    Raises:
        PostdicomError: an end cannot be worked with.
    """
    try:
        return await plan_study(context, study)
    except Unlisted as unlisted:
        problem = unlisted.problem
    context.ledger.note(f"the study {study.uid} could not be listed: {problem.message}")
    reason = reason_code(status=problem.status) if problem.status and problem.status >= _REFUSED else Reason.CANNOT_LIST
    rows = await context.ledger.items(study.id)
    failed = ItemRow("", _LIST, State.FAILED, int(reason))
    context.ledger.plan(study.id, [failed])
    context.ledger.set_stage(study.id, Stage.PLANNED, planned=len(rows))
    return [*(row for row in rows if row.series), failed]


def could_not_be_listed(items: Iterable[ItemRow]) -> bool:
    """Whether what is to be tried again of a study is its list."""
    return any(one.uid == _LIST and one.state is State.PENDING for one in items if not one.series)


async def held_at_target(context: Context, study: StudyRow, *, afresh: bool = False) -> set[str] | None:
    """Return the SOP Instance UIDs that the target lists in a study, None where it cannot be asked.

    A study that its list of studies, which was whole, does not name is not asked for again unless ``afresh``.

    Raises:
        Unlisted: it works, and cannot list this study.
        PostdicomError: it cannot be asked.
    """
    how = context.comparison
    if not how.target_lists:
        return None
    if not afresh and study.seen_at_target != how.run and not how.full:
        return set()
    uid = context.uid_at_target(study.uid)
    listed = await context.whole_list(context.target, lambda: context.target.instances(uid))
    return {one.uid for one in listed}
