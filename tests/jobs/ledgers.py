"""What the tests of the ledger share: a filled one, and the comparison of every count with what it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.ledger.schema import ItemRow, Stage
from postdicom_async.jobs.states import Reason, State

FACTS: dict[str, Any] = {
    "verb": "copy", "source": "a", "target": "b", "created": "2026-01-02T03:04:05+00:00", "verify": "listed",
    "phase": "discovering", "run": 1, "identity": "0123",
}  # fmt: skip


@contextmanager
def reader(path: Path) -> Iterator[LedgerReader]:
    """Read a ledger."""
    one = LedgerReader(path)
    try:
        yield one
    finally:
        one.close()


def assert_adds_up(path: Path) -> None:
    """Compare every count with what it counts."""
    with reader(path) as one, one.still():
        summary = one.summary()
        studies = list(one.studies())
        items = list(one.items())
        problems = list(one.items(states=[State.FAILED, State.EXCLUDED, State.UNCONFIRMED]))
    by_study = Counter({(study.uid, state): c.instances for study in studies for state, c in study.counts.items()})
    bytes_by_study = Counter({(study.uid, state): c.bytes for study in studies for state, c in study.counts.items()})
    by_state: Counter[State] = Counter()
    bytes_by_state: Counter[State] = Counter()
    for (_, state), number in by_study.items():
        by_state[state] += number
    for (_, state), number in bytes_by_study.items():
        bytes_by_state[state] += number
    assert {state: (count.instances, count.bytes) for state, count in summary.counts.items()} == {
        state: (number, bytes_by_state[state]) for state, number in by_state.items()
    }
    listed = Counter((item.study, item.state) for item in items)
    listed_bytes: Counter[tuple[str, State]] = Counter()
    for item in items:
        listed_bytes[item.study, item.state] += item.size
    assert not listed - by_study
    unlisted = by_study - listed
    assert {state for _, state in unlisted} <= {State.PRESENT}
    assert +listed_bytes == +bytes_by_study
    by_reason = Counter((item.state, item.reason) for item in items if item.reason)
    by_reason[State.PRESENT, Reason.EQUAL_BY_COUNT] += sum(unlisted.values())
    assert +by_reason == Counter({(line.state, line.reason): line.instances for line in summary.reasons})
    assert sum(line.discovered for line in summary.months) == sum(n for (uid, _), n in by_study.items() if uid)
    assert sorted(problems) == sorted(
        item for item in items if item.state in {State.FAILED, State.EXCLUDED, State.UNCONFIRMED}
    )


async def filled(path: Path, studies: int = 3, items: int = 4) -> Ledger:
    """Make a ledger with planned studies of two series each; close it."""
    ledger = await Ledger.create(path, FACTS)
    await ledger.note_studies(
        [ListedStudy(f"1.{number}", f"2024{number % 12 + 1:02}15", items) for number in range(studies)],
        at_target=False,
        run=1,
    )
    for study in await ledger.studies(Stage.FOUND):
        rows = [ItemRow(f"{study.uid}.{n % 2}", f"{study.uid}.9.{n}", State.PENDING, size=100) for n in range(items)]
        ledger.plan(study.id, rows)
        ledger.set_stage(study.id, Stage.PLANNED, planned=items)
    await ledger.commit()
    return ledger
