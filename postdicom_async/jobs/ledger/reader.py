"""Reads a ledger for reports and pages, even while another process writes it. Changes nothing. Blocks.

Every query sees one state of the ledger, and `LedgerReader.still` holds one snapshot for several queries, so that a
report's lines add up to its sums. While it is held SQLite cannot checkpoint its write-ahead log, which grows. Rows are
read lazily; memory stays flat.
"""

# ruff: noqa: S608 - SQL is made of question marks and names of this file alone

from __future__ import annotations

from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from sqlite3 import Cursor, ProgrammingError
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.jobs.ledger.book import Book, item_in, of_states
from postdicom_async.jobs.ledger.file import checked_reader, explained_by_sqlite, side_files, tidy
from postdicom_async.jobs.ledger.schema import BEFORE_ALL, LISTED_BY_REASON, Stage, StudyRow
from postdicom_async.jobs.states import SETTLED, Reason, State
from postdicom_async.jobs.summary import (
    Count,
    ItemLine,
    JobFacts,
    MinuteLine,
    MonthLine,
    ReasonLine,
    SeriesLine,
    StudyLine,
    Summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


_EXAMPLES: Final = 5
_LOOKED_AT = 5000  # studies; that takes milliseconds
_SLICE: Final = 1000
_MISMATCHES: Final = (Reason.NOT_LISTED, Reason.DIFFERENT)


class LedgerReader:
    """Reads a ledger, also one that another process writes. Blocking calls; run them in a thread. Close it.

    It may be used from one thread at a time.

    Attributes:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        """Open a ledger.

        Raises:
            LedgerUnusable: it is damaged, of a newer version, or no ledger.
            LocalFileError: it cannot be read.
        """
        self.path = path
        self._nobody_writes = not any(beside.exists() for beside in side_files(path))
        self._database = checked_reader(path)
        self._reading: set[Cursor] = set()

    def close(self) -> None:
        """Close it."""
        for lines in self._reading:  # an unfinished cursor would keep the file open
            lines.close()
        self._database.close()
        if self._nobody_writes:
            tidy(self.path)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Hold one snapshot: all queries inside see the same state, whatever is written meanwhile."""
        with explained_by_sqlite():
            if self._database.in_transaction:
                yield
                return
            self._database.execute("BEGIN")
            try:
                # SQLite's snapshot begins with the first read.
                self._database.execute("SELECT count(*) FROM fact").fetchone()
                yield
            finally:
                with suppress(ProgrammingError):  # it was closed meanwhile
                    self._database.execute("ROLLBACK")

    def facts(self) -> Mapping[str, Any]:
        """Return every fact; see `schema`."""
        with explained_by_sqlite():
            return Book(self._database).facts()

    # --- sums --------------------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Return the state of the job from the counts; it does not scan the items."""
        with self.still():
            facts = self.facts()
            totals = self._rows("SELECT month, state, reason, instances, bytes FROM total WHERE instances > 0")
            studies, equal, expected, verified = self._rows(
                "SELECT coalesce(sum(studies), 0), coalesce(sum(equal), 0), coalesce(sum(expected), 0), "
                "coalesce(sum(verified), 0) FROM calendar"
            )[0]
            expected -= self._counted_already() if expected else 0
            return Summary(
                facts=self._what(facts),
                counts=_by_state((state, instances, size) for _, state, _, instances, size in totals),
                studies=studies,
                equal_by_count=equal,
                discovery_complete=bool(facts.get("discovery_complete")),
                verified=verified,
                mismatches=sum(
                    instances
                    for _, state, reason, instances, _ in totals
                    if state == State.FAILED and reason in _MISMATCHES
                ),
                coerced=dict(self._rows("SELECT tag, instances FROM coerced ORDER BY instances DESC, tag")),
                reasons=self._reasons(totals),
                months=self._months(totals),
                moments=tuple(
                    MinuteLine(float(at), *more) for at, *more in self._rows("SELECT * FROM moment ORDER BY at")
                ),
                seconds=float(facts.get("seconds") or 0),
                notes=tuple(
                    f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC: {text}"
                    for at, text in self._rows("SELECT at, text FROM note ORDER BY id")
                ),
                expected=max(0, expected),
            )

    def _counted_already(self) -> int:
        """Return how many of the expected instances are among the items: of studies that move without a list.

        Studies are taken by position, so those under way are the first that wait; more of them are not looked at.
        """
        (counted,) = self._rows(
            "SELECT coalesce(sum(min(coalesce(at_source, 0), "
            "coalesce((SELECT sum(instances) FROM tally WHERE tally.study = first.id), 0))), 0) "
            "FROM (SELECT id, at_source FROM study INDEXED BY study_by_stage WHERE stage = 0 AND seen > 0 "
            "ORDER BY position LIMIT ?) AS first",
            (_LOOKED_AT,),
        )[0]
        return int(counted)

    def _what(self, facts: Mapping[str, Any]) -> JobFacts:
        created = facts.get("created")
        return JobFacts(
            job=self.path.stem,
            created=datetime.fromisoformat(created) if created else datetime.fromtimestamp(0, UTC),
            run=int(facts.get("run") or 1),
            sample=float(facts.get("sample") or 1.0),
            **{name: str(facts.get(name) or "") for name in ("verb", "source", "target", "verify", "phase")},
        )

    def _reasons(self, totals: Sequence[Sequence[int]]) -> tuple[ReasonLine, ...]:
        found: dict[tuple[int, int], int] = {}
        for _, state, reason, instances, _ in totals:
            if reason:
                found[state, reason] = found.get((state, reason), 0) + instances
        return tuple(
            ReasonLine(State(state), reason, instances, self._examples(state, reason))
            for (state, reason), instances in sorted(found.items(), key=lambda one: (-one[1], one[0]))
        )

    def _examples(self, state: int, reason: int) -> tuple[str, ...]:
        if state not in LISTED_BY_REASON:
            return ()
        nothing = self._rows("SELECT coalesce(max(id), 0) FROM series WHERE study = 1")[0][0]
        found: list[Any] = []
        # Files that are not instances have no UID to show, and there may be millions.
        for side in ("series > ?", "series < ?"):
            query = (
                "SELECT uid FROM item WHERE state = ? AND reason = ? "
                f"AND state IN ({_listed_by_reason()}) AND {side} LIMIT ?"
            )
            found += self._rows(query, (state, reason, nothing, _EXAMPLES - len(found)))
        return tuple(uid for (uid,) in found)

    def _months(self, totals: Sequence[Sequence[int]]) -> tuple[MonthLine, ...]:
        lines = dict(self._rows("SELECT month, studies FROM calendar WHERE month >= 0"))
        months = {month: [studies, 0, 0, 0] for month, studies in lines.items()}
        for month, state, _, instances, _ in totals:
            if month >= 0:
                line = months.setdefault(month, [0, 0, 0, 0])
                line[1] += instances
                line[2] += instances if state in SETTLED else 0
                line[3] += instances if state == State.FAILED else 0
        return tuple(MonthLine(month, *line) for month, line in sorted(months.items()) if any(line))

    # --- lines -------------------------------------------------------------------------------------------------------

    def studies(self, *, states: Sequence[State] | None = None) -> Iterator[StudyLine]:
        """Yield studies by position, optionally those with items in the given states.

        The counts are of all their items.

        The entry for files that are not instances, with the UID "", is included; studies only the target lists are not.
        """
        chosen, values = of_states(states)
        where = f"(id IN (SELECT study FROM tally WHERE instances > 0{chosen}){'' if chosen else ' OR seen > 0'})"
        book, after = Book(self._database), BEFORE_ALL
        with self.still():
            while studies := book.studies(after, _SLICE, where=where, values=values):
                for study in studies:
                    yield StudyLine(study.uid, max(0, study.month), _basis(study), self._counts_of(study))
                after = studies[-1].position, studies[-1].id

    def _counts_of(self, study: StudyRow) -> Mapping[State, Count]:
        return _by_state(
            self._rows("SELECT state, instances, bytes FROM tally WHERE study = ? ORDER BY state", (study.id,))
        )

    def series(self, study: str) -> Iterator[SeriesLine]:
        """Yield the series of a study, by UID."""
        with self.still():
            found = Book(self._database).study_of(study)
            for number, uid in self._rows(
                "SELECT id, uid FROM series WHERE study = ? ORDER BY uid", (found.id if found else 0,)
            ):
                counts = self._rows(
                    "SELECT state, count(*), sum(size) FROM item WHERE series = ? GROUP BY state", (number,)
                )
                yield SeriesLine(uid, _by_state(counts))

    def items(
        self,
        *,
        states: Sequence[State] | None = None,
        study: str | None = None,
        reasons: Sequence[int] | None = None,
    ) -> Iterator[ItemLine]:
        """Yield items with given states and reasons, of one study or all, in the order in which they were planned.

        Raises:
            LedgerUnusable: a row is damaged.
        """
        chosen, values = of_states(states)
        if states is not None and set(states) <= set(LISTED_BY_REASON):
            # A literal condition, so that SQLite can choose a partial index.
            chosen += f" AND state IN ({_listed_by_reason()})"
        if reasons is not None:
            chosen += f" AND reason IN ({', '.join('?' * len(reasons))})"
        tables = "item CROSS JOIN series ON series.id = item.series CROSS JOIN study ON study.id = series.study WHERE 1"
        if study is not None:
            tables = (
                "study CROSS JOIN series ON series.study = study.id CROSS JOIN item ON item.series = series.id "
                "WHERE study.uid = ?"
            )
        with self.still():
            lines = self._database.execute(
                "SELECT study.id, study.uid, series.uid, item.uid, state, reason, attempts, size, digest, item.mark "
                f"FROM {tables}{chosen}",
                (*([] if study is None else [study]), *values, *(reasons or ())),
            )
            self._reading.add(lines)
            for line in lines:
                yield _item_line(line)
            self._reading.discard(lines)

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with explained_by_sqlite():
            return self._database.execute(query, values).fetchall()


def _item_line(line: Sequence[Any]) -> ItemLine:
    number, study, *rest = line
    series, uid, state, reason, attempts, size, _ = item_in(number, rest)
    instance, thing = (uid, "") if study else ("", uid)
    return ItemLine(study, series, instance, state, reason, attempts, size, thing)


def _by_state(counts: Any) -> Mapping[State, Count]:
    found: dict[State, Count] = {}
    for number, instances, size in counts:
        state = State(number)
        before = found.get(state, Count())
        if instances:
            found[state] = Count(before.instances + instances, before.bytes + size)
    return found


def _basis(study: StudyRow) -> str:
    if study.stage == Stage.EQUAL or study.unlisted:
        return "equal by count"
    return "found" if study.planned is None else "listed"


def _listed_by_reason() -> str:
    return ", ".join(str(int(state)) for state in LISTED_BY_REASON)
