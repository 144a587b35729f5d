"""How a line of a ledger becomes what it says, and is not believed when its mark says otherwise."""

# ruff: noqa: S608 - SQL is made of question marks and names of this file alone

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from postdicom_async.errors import LedgerUnusable
from postdicom_async.jobs.ledger.schema import ItemRow, Study, item_mark, study_mark
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

__all__ = ["CHANGED_LINE", "STUDIES", "item_in", "items_of", "of_states", "study_in"]

CHANGED_LINE: Final = "the ledger is damaged: a line of it was changed by something else"
_LOST_LINE: Final = "the ledger is damaged: its items are not those that it counts"

STUDIES: Final = (
    "SELECT id, uid, month, position, at_source, at_target, planned, unlisted, verified, stage, seen, seen_at_target, "
    "mark FROM study"
)
"""The columns of a `Study`, and its mark."""


def study_in(line: Sequence[Any]) -> Study:
    """Return a study from its line.

    Raises:
        LedgerUnusable: the line is not what was written.
    """
    study = Study(*line[:-1])
    if study_mark(study) != line[-1]:
        raise LedgerUnusable(CHANGED_LINE)
    return study


def items_of(database: sqlite3.Connection, study: Study, states: Sequence[State] | None = None) -> list[ItemRow]:
    """Return items of a study, by series and UID, in some states, compared with what is counted of it.

    Raises:
        LedgerUnusable: an item was changed, is missing, or is too many.
    """
    chosen, values = of_states(states)
    lines = database.execute(
        "SELECT series.uid, item.uid, state, reason, attempts, size, digest, mark FROM series JOIN item "
        f"ON item.series = series.id WHERE series.study = ?{chosen} ORDER BY series.uid, item.uid",
        (study.id, *values),
    )
    found = [item_in(study.id, line) for line in lines]
    counted = database.execute(f"SELECT sum(instances) FROM tally WHERE study = ?{chosen}", (study.id, *values))
    unlisted = study.unlisted if states is None or State.PRESENT in states else 0
    if len(found) != (counted.fetchone()[0] or 0) - unlisted:
        raise LedgerUnusable(_LOST_LINE)
    return found


def of_states(states: Sequence[State] | None) -> tuple[str, list[int]]:
    """Return a condition to be added to others, and its values."""
    if states is None:
        return "", []
    return f" AND state IN ({','.join('?' * len(states))})", [int(state) for state in states]


def item_in(study: int, line: Sequence[Any]) -> ItemRow:
    """Return an item of a study from its line: series' UID, UID, state, reason, attempts, size, digest, mark.

    Raises:
        LedgerUnusable: the line is not what was written.
    """
    try:
        is_whole = item_mark(study, line[:-1]) == line[-1]
    except (TypeError, ValueError):  # a number that has become text
        is_whole = False
    if not is_whole:
        raise LedgerUnusable(CHANGED_LINE)
    series, uid, state, reason, attempts, size, digest, _ = line
    return ItemRow(series, uid, State(state), reason, attempts, size, digest or b"")
