"""The ledger of a job: what is written is there, whatever comes, and it adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from postdicom_async.jobs.chunks import ItemEnd
from postdicom_async.jobs.ends import ListedStudy
from postdicom_async.jobs.ledger import ItemRow, Ledger, LedgerReader, Stage
from postdicom_async.jobs.states import Reason, State

FACTS: dict[str, Any] = {
    "verb": "copy", "source": "a", "target": "b", "created": "2026-01-02T03:04:05+00:00", "verify": "listed",
    "phase": "discovering", "run": 1, "identity": "0123",
}  # fmt: skip


@contextmanager
def reader(path: Path) -> Iterator[LedgerReader]:
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
    assert summary.discovered == sum(count.instances for count in summary.counts.values())
    by_study: Counter[tuple[str, State]] = Counter()
    for study in studies:
        by_study.update({(study.uid, state): count.instances for state, count in study.counts.items()})
    assert sum(by_study.values()) == summary.discovered
    listed = Counter((item.study, item.state) for item in items)
    unlisted = by_study - listed
    assert not listed - by_study
    assert {state for _, state in unlisted} <= {State.PRESENT}
    equal = [line.instances for line in summary.reasons if line.reason == Reason.EQUAL_BY_COUNT]
    assert sum(unlisted.values()) == sum(equal)
    assert summary.counts == {
        state: (sum(study.counts.get(state, (0, 0))[0] for study in studies),
                sum(study.counts.get(state, (0, 0))[1] for study in studies))
        for state in summary.counts
    }  # fmt: skip
    assert sum(line.discovered for line in summary.months) == sum(count for (uid, _), count in by_study.items() if uid)


async def started(path: Path, studies: int = 3, items: int = 4) -> Ledger:
    ledger = await Ledger.create(path, FACTS)
    await ledger.note_studies(
        [ListedStudy(f"1.{number}", f"2024{number % 12 + 1:02}15", items) for number in range(studies)],
        at_target=False, run=1,
    )  # fmt: skip
    for study in await ledger.studies(Stage.FOUND):
        rows = [ItemRow(f"{study.uid}.{n % 2}", f"{study.uid}.9.{n}", State.PENDING, size=100) for n in range(items)]
        ledger.plan(study.id, rows)
        ledger.set_stage(study.id, Stage.PLANNED, planned=items)
    await ledger.commit()
    return ledger


async def test_what_is_settled_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    async with await started(path) as ledger:
        first = (await ledger.studies(Stage.PLANNED))[0]
        keys = [(item.series, item.uid) for item in await ledger.items(first.id)]
        ledger.run_items(first.id, keys)
        ledger.settle(first.id, [
            ItemEnd(*keys[0], State.DONE, size=120, digest=b"0123456789abcdef"),
            ItemEnd(*keys[1], State.FAILED, Reason.REFUSED),
            ItemEnd(*keys[2], State.PENDING),
        ])  # fmt: skip
        ledger.put("phase", "moving")
        ledger.note("the target was away for a while")
        assert (await ledger.counts())[State.RUNNING] == (1, 100)
    async with await Ledger.open(path, identity="0123") as ledger:
        assert ledger.fact("phase") == "moving"
        items = {(item.series, item.uid): item for item in await ledger.items(first.id)}
        assert items[keys[0]][2:] == (State.DONE, 0, 1, 120, b"0123456789abcdef")
        assert items[keys[1]][2:5] == (State.FAILED, Reason.REFUSED, 1)
        assert items[keys[2]][2:5] == (State.PENDING, 0, 1)
        assert items[keys[3]][2:5] == (State.PENDING, 0, 0), "nobody saw how its attempt ended"
        assert await ledger.counts() == {
            State.DONE: (1, 120), State.FAILED: (1, 100), State.PENDING: (10, 1000)
        }  # fmt: skip
        assert_adds_up(path)
    with reader(path) as one:
        summary = one.summary()
    assert summary.facts.phase == "moving"
    assert summary.facts.source == "a"
    assert summary.discovered == 12
    assert [moment.instances for moment in summary.moments] == [1]
    assert [(line.reason, line.instances, line.examples) for line in summary.reasons] == [
        (Reason.REFUSED, 1, (keys[1][1],))
    ]
    assert summary.notes[0].endswith("UTC: the target was away for a while")
