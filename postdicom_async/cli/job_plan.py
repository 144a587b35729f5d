"""``--dry-run``: what a job would do with each study, as it is found out."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.job_run import NOTHING, Telling
from postdicom_async.cli.loop import run_async

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.jobs import StudyPlan

__all__ = ["show_plans"]


def show_plans(plans: AsyncGenerator[StudyPlan, None], telling: Telling) -> int:
    """Write a line for each study, and the sums; return the exit code."""
    sums = dict.fromkeys(("studies", "to_move", "bytes", "there", "excluded", "to_delete"), 0)
    items: list[dict[str, Any]] = []

    async def work() -> None:
        async with aclosing(plans):
            async for plan in plans:
                item = _item(plan)
                for name in sums:
                    sums[name] += item.get(name, 0)
                if telling.as_json:
                    items.append(item)
                elif not output.write(_line(plan)):
                    return

    run_async(work)
    nothing = telling.error_if_nothing and not sums["to_move"] + sums["to_delete"]
    if telling.as_json:
        output.write_document({"summary": sums, "items": items}, error=NOTHING if nothing else None)
    elif not telling.quiet:
        output.note(f"{_sums_text(sums)}; nothing was changed")
    if nothing:
        output.error(NOTHING)
    return Exit.NOTHING if nothing else Exit.OK


def _sums_text(sums: dict[str, int]) -> str:
    size = f" ({output.size_text(sums['bytes'])})" if sums["bytes"] else ""
    deleted = f", {sums['to_delete']:,} to delete" if sums["to_delete"] else ""
    return (
        f"{sums['studies']:,} studies: {sums['to_move']:,} instances to move{size}, {sums['there']:,} there already, "
        f"{sums['excluded']:,} excluded{deleted}"
    )


def _item(plan: StudyPlan) -> dict[str, Any]:
    return {
        "study": plan.study,
        "studies": int(not plan.to_delete),
        "month": plan.month or None,
        "to_move": plan.to_move.instances,
        "bytes": plan.to_move.bytes,
        "there": plan.there,
        "excluded": plan.excluded,
        "equal_by_count": plan.equal_by_count,
        "to_delete": plan.to_delete,
    }


def _line(plan: StudyPlan) -> str:
    month = f"{plan.month // 100:04}-{plan.month % 100:02}" if plan.month else "undated"
    if plan.to_delete:
        return f"{plan.study}\tdelete {plan.to_delete}"
    if plan.equal_by_count:
        return f"{plan.study}\t{month}\tequal by count: {plan.there}"
    size = f" ({output.size_text(plan.to_move.bytes)})" if plan.to_move.bytes else ""
    return f"{plan.study}\t{month}\tmove {plan.to_move.instances}{size}, there {plan.there}, excluded {plan.excluded}"
