"""Changes to a ledger inside one transaction: rows, and every count together with them.

A `Book` belongs to the one writer thread. What it has counted in a group is added to ``tally``, ``total`` and
``calendar`` before the group is committed. After a rollback its caches are cleared, since they may refer to rows that
do not exist.

A row is trusted only if its mark, a checksum over the row, is right: SQLite protects its write-ahead log with
checksums, but not its pages.
"""

# ruff: noqa: S608 - SQL is built from placeholders and names in this file only

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from itertools import starmap
from sqlite3 import Error
from typing import TYPE_CHECKING, Any, Final, TypeVar

from postdicom_async.errors import LedgerUnusable
from postdicom_async.jobs.ledger.schema import ItemRow, Stage, StudyRow, fact_mark, item_mark, study_mark
from postdicom_async.jobs.states import MOVES, Reason, State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from postdicom_async.jobs.ends.end import ListedStudy
    from postdicom_async.jobs.plan import ItemEnd


_T = TypeVar("_T")


CHANGED_LINE: Final = "the ledger is damaged: a line of it was changed by something else"
_LOST_LINE: Final = "the ledger is damaged: its items are not those that it counts"

STUDIES: Final = (
    "SELECT id, uid, month, position, at_source, at_target, planned, unlisted, verified, stage, seen, seen_at_target, "
    "mark FROM study"
)
"""The columns of a `StudyRow`, and its mark."""

_NO_STUDY: Final = "no study of this ledger"
_FIRST: Final = 1 << 40  # sort before and after every month
_REMEMBERED: Final = 10_000
_NOTES: Final = 1000
_DATE: Final = 8


class Book:
    """The tables of a ledger, and the counts of the group that is being written.

    Attributes:
        database: the connection.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        self._studies: dict[int, StudyRow] = {}
        self._series: dict[tuple[int, str], int] = {}
        self._tally: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
        self._total: defaultdict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
        self._calendar: defaultdict[int, list[int]] = defaultdict(lambda: [0] * 5)

    def done(self, change: Callable[[Book], _T]) -> _T:
        """Make one change in a transaction and return its result."""
        returned: list[_T] = []
        self.write([lambda book: returned.append(change(book))])
        return returned[0]

    def write(self, changes: Iterable[Callable[[Book], None]]) -> None:
        """Make changes in one transaction: all are durable when this returns, none is made when it raises."""
        run = self.database.execute
        self._roll_back()
        run("BEGIN IMMEDIATE")
        try:
            for change in changes:
                change(self)
            self._count_in()
            run("COMMIT")
        except BaseException:
            self._series.clear()
            with suppress(Error):  # the next one tries again
                self._roll_back()
            raise
        finally:
            for kept in (self._studies, self._tally, self._total, self._calendar):
                kept.clear()
            if len(self._series) > _REMEMBERED:
                self._series.clear()

    def _roll_back(self) -> None:
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")

    # --- studies -----------------------------------------------------------------------------------------------------

    def study(self, number: int) -> StudyRow:
        """Return a study by its number."""
        found = self._studies.get(number)
        if found is None:
            line = self.database.execute(f"{STUDIES} WHERE id = ?", (number,)).fetchone()
            if line is None:
                raise AssertionError(_NO_STUDY)
            if len(self._studies) >= _REMEMBERED:  # a reader never comes to the end of a group
                self._studies.clear()
            found = self._studies[number] = study_in(line)
        return found

    def study_of(self, uid: str) -> StudyRow | None:
        """Return a study by its UID."""
        line = self.database.execute(f"{STUDIES} WHERE uid = ?", (uid,)).fetchone()
        return None if line is None else study_in(line)

    def studies(
        self, after: tuple[int, int], limit: int, *, where: str = "1", values: Sequence[object] = ()
    ) -> list[StudyRow]:
        """Return studies by position and number, after the given pair.

        Two queries: with one, SQLite would scan all studies of a position again for each page, and all undated ones
        share one.
        """
        position, number = after
        same = f"{STUDIES} WHERE {where} AND position = ? AND id > ? ORDER BY id LIMIT ?"
        found = self.database.execute(same, (*values, position, number, limit)).fetchall()
        if len(found) < limit:
            later = f"{STUDIES} WHERE {where} AND position > ? ORDER BY position, id LIMIT ?"
            found += self.database.execute(later, (*values, position, limit - len(found))).fetchall()
        return [study_in(line) for line in found]

    def _save(self, old: StudyRow | None, new: StudyRow) -> None:
        if new == old:
            return
        marked = (*new, study_mark(new))
        self.database.execute(f"INSERT OR REPLACE INTO study VALUES ({','.join('?' * len(marked))})", marked)
        self._studies[new.id] = new
        shares = self._calendar[new.month]
        before = old.shares if old else (0,) * len(shares)
        for place, (more, less) in enumerate(zip(new.shares, before, strict=True)):
            shares[place] += more - less

    def note_studies(
        self, listed: Sequence[ListedStudy], *, at_target: bool, run: int, first: Mapping[str, int] | None
    ) -> None:
        """Record the studies that an end lists."""
        (last,) = self.database.execute("SELECT coalesce(max(id), 0) FROM study").fetchone()
        # the newest first; last what is listed again, without a count
        in_order = sorted(listed, key=lambda study: (study.patients == 1, study.date), reverse=True)
        for uid, date, instances, _ in in_order:
            old = self.study_of(uid)
            new = old or StudyRow(last + 1, uid, _month(date), 0)
            last = max(last, new.id)
            if at_target:
                new = new._replace(at_target=instances, seen_at_target=run)
            else:
                new = new._replace(at_source=instances, seen=run)
            if old is None or first is not None:
                new = new._replace(position=_position(new, first or {}))
            self._save(old, new)

    def note_nothing(self) -> None:
        """Add the row for files that are not instances: it does not count as a study, and no end lists it."""
        self._save(None, StudyRow(1, "", -1, _FIRST))

    def set_stage(self, number: int, stage: Stage, planned: int | None) -> None:
        """Set the stage of a study; with EQUAL, instances beyond its items count as present."""
        old = self.study(number)
        new = old._replace(stage=stage, planned=old.planned if planned is None else planned)
        if stage is Stage.EQUAL:
            counted = self.database.execute("SELECT sum(instances) FROM tally WHERE study = ?", (number,)).fetchone()
            here = sum(self._tally[number, state][0] for state in State if (number, state) in self._tally)
            new = self._with_unlisted(old, new, max(0, (planned or 0) - ((counted[0] or 0) + here - old.unlisted)))
        self._save(old, new)

    def _with_unlisted(self, old: StudyRow, new: StudyRow, unlisted: int) -> StudyRow:
        self._count(old, State.PRESENT, Reason.EQUAL_BY_COUNT, unlisted - old.unlisted, 0)
        return new._replace(unlisted=unlisted)

    def note_verified(self, number: int, instances: int) -> None:
        """Record how many items of a study were found at the target."""
        old = self.study(number)
        self._save(old, old._replace(verified=instances))

    # --- items -------------------------------------------------------------------------------------------------------

    def plan(self, number: int, rows: Sequence[ItemRow]) -> None:
        """Add or set items."""
        study = self.study(number)
        if study.unlisted:
            self._save(study, self._with_unlisted(study, study, 0))
        for row in rows:
            old = self._find(study, row.series, row.uid)
            self._put(study, old, row._replace(digest=row.digest or (old.digest if old else b"")))

    def forget(self, number: int, keys: Sequence[tuple[str, str]]) -> None:
        """Remove items."""
        study = self.study(number)
        for series, uid in keys:
            old = self._find(study, series, uid)
            if old is not None:
                within = self._series_id(study.id, series, make=False)
                self.database.execute("DELETE FROM item WHERE series = ? AND uid = ?", (within, uid))
                self._count(study, old.state, old.reason, -1, -old.size)

    def run_items(self, number: int, keys: Sequence[tuple[str, str]]) -> None:
        """Make items RUNNING."""
        study = self.study(number)
        for series, uid in keys:
            old = self._moving(study, series, uid, State.RUNNING)
            self._put(study, old, old._replace(state=State.RUNNING, attempts=old.attempts + 1))

    def settle(self, number: int, ends: Sequence[ItemEnd], *, attempt_counts: bool, minute: int) -> None:
        """Set the outcomes of items."""
        study = self.study(number)
        moved = [0, 0]
        for end in ends:
            old = self._moving(study, end.series, end.uid, end.state)
            attempts = old.attempts if attempt_counts else max(0, old.attempts - 1)
            new = ItemRow(
                old.series, old.uid, end.state, end.reason, attempts, end.size or old.size, end.digest or old.digest
            )
            self._put(study, old, new)
            if new.state is State.DONE is not old.state:
                moved = [moved[0] + 1, moved[1] + new.size]
        if moved[0]:
            self.add("moment", {"at": minute}, {"instances": moved[0], "bytes": moved[1]})

    def reset(self, numbers: Sequence[int], states: Sequence[State], reasons: Sequence[int] | None) -> int:
        """Make items of some studies pending again, with no attempts, and the studies PLANNED; return how many."""
        reset = 0
        for number in numbers:
            study = self.study(number)
            if not study.uid:  # files that are not instances stay so; a scan of the folder updates them
                continue
            found = [
                item for item in items_of(self.database, study, states) if reasons is None or item.reason in reasons
            ]
            for old in found:
                self._put(study, old, old._replace(state=State.PENDING, reason=0, attempts=0))
            if found:
                # A flaw seen in the source's list is not a failed attempt: the study is listed again first.
                is_flawed = any(old.reason == Reason.OTHER_CONTENT for old in found)
                self._save(study, study._replace(stage=Stage.FOUND if is_flawed else Stage.PLANNED))
            reset += len(found)
        return reset

    def take_back(self, numbers: Sequence[int]) -> None:
        """Make running items of some studies pending again; nobody saw that attempt end, so it does not count."""
        for number in numbers:
            study = self.study(number)
            for old in items_of(self.database, study, [State.RUNNING]):
                self._put(study, old, old._replace(state=State.PENDING, attempts=max(0, old.attempts - 1)))

    def with_states(self, states: Sequence[State]) -> list[int]:
        """Return the numbers of the studies that have items in the given states."""
        chosen, values = of_states(states)
        found = self.database.execute(f"SELECT DISTINCT study FROM tally WHERE instances > 0{chosen}", values)
        return [number for (number,) in found]

    def _series_id(self, study: int, uid: str, *, make: bool) -> int | None:
        found = self._series.get((study, uid))
        if found is None:
            line = self.database.execute("SELECT id FROM series WHERE study = ? AND uid = ?", (study, uid)).fetchone()
            if line is None and not make:
                return None
            if line is None:
                made = self.database.execute("INSERT INTO series (study, uid) VALUES (?, ?)", (study, uid))
                line = (made.lastrowid,)
            found = self._series[study, uid] = int(line[0] or 0)
        return found

    def _find(self, study: StudyRow, series: str, uid: str) -> ItemRow | None:
        within = self._series_id(study.id, series, make=False)
        if within is None:
            return None
        line = self.database.execute(
            "SELECT state, reason, attempts, size, digest, mark FROM item WHERE series = ? AND uid = ?", (within, uid)
        ).fetchone()
        return None if line is None else item_in(study.id, (series, uid, *line))

    def _moving(self, study: StudyRow, series: str, uid: str, to: State) -> ItemRow:
        found = self._find(study, series, uid)
        if found is None:
            raise AssertionError("an item that is not in the ledger")
        if to is not found.state and to not in MOVES[found.state]:
            raise AssertionError(f"an item that is {found.state.name} cannot become {to.name}")
        return found

    def _put(self, study: StudyRow, old: ItemRow | None, new: ItemRow) -> None:
        if new == old:
            return
        within = self._series_id(study.id, new.series, make=True)
        mark = item_mark(study.id, new)
        values = (int(new.state), new.reason, new.attempts, new.size, new.digest or None, mark, within, new.uid)
        if old is None:
            self.database.execute(
                "INSERT INTO item (state, reason, attempts, size, digest, mark, series, uid) VALUES (?,?,?,?,?,?,?,?)",
                values,
            )
        else:
            self.database.execute(
                "UPDATE item SET state = ?, reason = ?, attempts = ?, size = ?, digest = ?, mark = ? "
                "WHERE series = ? AND uid = ?",
                values,
            )
            self._count(study, old.state, old.reason, -1, -old.size)
        self._count(study, new.state, new.reason, 1, new.size)

    # --- counts ------------------------------------------------------------------------------------------------------

    def _count(self, study: StudyRow, state: State, reason: int, instances: int, size: int) -> None:
        for counts in (self._tally[study.id, int(state)], self._total[study.month, int(state), int(reason)]):
            counts[0] += instances
            counts[1] += size

    def _count_in(self) -> None:
        """Add the counts of this group to the tables."""
        for (study, state), (instances, size) in self._tally.items():
            self.add("tally", {"study": study, "state": state}, {"instances": instances, "bytes": size})
            if instances < 0:  # so that a search for studies with running items finds no others
                nothing = "DELETE FROM tally WHERE study = ? AND state = ? AND instances = 0 AND bytes = 0"
                self.database.execute(nothing, (study, state))
        for (month, state, reason), (instances, size) in self._total.items():
            key = {"month": month, "state": state, "reason": reason}
            self.add("total", key, {"instances": instances, "bytes": size})
        for month, shares in self._calendar.items():
            names = ("studies", "equal", "waiting", "expected", "verified")
            self.add("calendar", {"month": month}, dict(zip(names, shares, strict=True)))
        for counted in (self._tally, self._total, self._calendar):
            counted.clear()

    def add(self, table: str, key: Mapping[str, object], more: Mapping[str, int]) -> None:
        """Add to the sums in a row of a table, creating the row if necessary."""
        if not any(more.values()):
            return
        where = " AND ".join(f"{name} = ?" for name in key)
        sums = ", ".join(f"{name} = {name} + ?" for name in more)
        changed = self.database.execute(f"UPDATE {table} SET {sums} WHERE {where}", (*more.values(), *key.values()))
        if not changed.rowcount:
            names = ", ".join((*key, *more))
            values = (*key.values(), *more.values())
            self.database.execute(f"INSERT INTO {table} ({names}) VALUES ({','.join('?' * len(values))})", values)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def put(self, name: str, value: str) -> None:
        """Set a fact; it is stored as JSON."""
        self.database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", (name, value, fact_mark(name, value)))

    def facts(self) -> dict[str, Any]:
        """Return every fact."""
        return dict(starmap(_fact, self.database.execute("SELECT name, value, mark FROM fact")))

    def note_coerced(self, tags: Sequence[str]) -> None:
        """Count elements that the target changed."""
        for tag in tags:
            self.add("coerced", {"tag": tag}, {"instances": 1})

    def note(self, at: float, text: str) -> None:
        """Add a line for people; the latest thousand are kept."""
        made = self.database.execute("INSERT INTO note (at, text) VALUES (?, ?)", (at, text))
        self.database.execute("DELETE FROM note WHERE id <= ?", ((made.lastrowid or 0) - _NOTES,))

    def counts(self) -> dict[State, tuple[int, int]]:
        """Return instances and bytes by state."""
        found = self.database.execute("SELECT state, sum(instances), sum(bytes) FROM total GROUP BY state")
        return {State(state): (instances, size) for state, instances, size in found if instances}


def _fact(name: str, value: str, mark: int) -> tuple[str, Any]:
    if fact_mark(name, value) != mark:
        raise LedgerUnusable(CHANGED_LINE)
    return name, json.loads(value)


def _month(date: str) -> int:
    """Return YYYYMM, or 0 if it is not a date."""
    return int(date[:6]) if len(date) == _DATE and date.isascii() and date.isdigit() else 0


def _position(study: StudyRow, first: Mapping[str, int]) -> int:
    """Return the position of a study: first those asked for, then by month.

    Within a month by number, which reveals no day.
    """
    if study.uid in first:
        return first[study.uid] - _FIRST
    return -study.month


# --- lines -----------------------------------------------------------------------------------------------------------


def study_in(line: Sequence[Any]) -> StudyRow:
    """Return a study from its row.

    Raises:
        LedgerUnusable: the row is damaged.
    """
    if study_mark(line[:-1]) != line[-1]:
        raise LedgerUnusable(CHANGED_LINE)
    study = StudyRow(*line[:-1])
    return study._replace(stage=Stage(study.stage))  # still an integer


def items_of(database: sqlite3.Connection, study: StudyRow, states: Sequence[State] | None = None) -> list[ItemRow]:
    """Return items of a study in the given states, by series and UID, checked against the study's counts.

    Raises:
        LedgerUnusable: an item is damaged, missing or superfluous.
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
    """Return an SQL condition on the state, and its values."""
    if states is None:
        return "", []
    return f" AND state IN ({','.join('?' * len(states))})", [int(state) for state in states]


def item_in(study: int, line: Sequence[Any]) -> ItemRow:
    """Return an item of a study from its row: series' UID, UID, state, reason, attempts, size, digest, mark.

    Raises:
        LedgerUnusable: the row is damaged.
    """
    try:
        is_whole = item_mark(study, line[:-1]) == line[-1]
    except (TypeError, ValueError):  # a damaged number may read as text
        is_whole = False
    if not is_whole:
        raise LedgerUnusable(CHANGED_LINE)
    series, uid, state, reason, attempts, size, digest, _ = line
    return ItemRow(series, uid, State(state), reason, attempts, size, digest or b"")
