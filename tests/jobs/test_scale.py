"""What a job holds does not grow with what it moves: memory and commits, between ends that answer at once."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from postdicom_async import jobs
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.jobs.ends.end import Feature, Identified, ListedInstance, ListedStudy, Selection
from postdicom_async.jobs.ledger import book as ledger_book
from postdicom_async.jobs.ledger import ledger as ledger_writer
from postdicom_async.jobs.ledger.book import Book
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.ledger.schema import ItemRow
from postdicom_async.jobs.states import Reason, State
from postdicom_async.results import InstanceUids, Outcome, Status
from tests.support.large import large

IN_A_STUDY = 10
TIMES = 10  # so often it is looked at
SIZES = pytest.mark.parametrize("count", [8000, large(20_000)])
LEAST_LEAK = 0.3  # objects an instance: a key that is kept is one or more


class Samples:
    """How many small objects there are, every so many instances."""

    def __init__(self, of: int = 20_000) -> None:
        self.taken: dict[str, list[int]] = {}
        self._every = of // TIMES
        self._counts: dict[str, int] = {}

    def count(self, what: str, number: int = 1) -> None:
        """Count instances; look now and then."""
        before = self._counts.get(what, 0)
        self._counts[what] = before + number
        if before // self._every != (before + number) // self._every:
            gc.collect()
            self.taken.setdefault(what, []).append(sys.getallocatedblocks())

    def slope(self, what: str) -> float:
        """Return how many objects an instance adds, from the first half to the second: the least of each.

        The last one does not count: a page of studies that is through is gone then, and would hide a leak.
        """
        found = self.taken[what]
        half = len(found) // 2
        return (min(found[half:-1]) - min(found[1:half])) / (half * self._every)


class Endless:
    """An end that makes what it is asked for, and forgets what it is given."""

    def __init__(self, name: str, studies: int, samples: Samples, *, unlisted: bool = False) -> None:
        self.name: str = name
        self.identity: str = name
        self.features: Feature = Feature.LISTS | Feature.OPENS | Feature.STORES
        if unlisted:
            self.features |= Feature.UNLISTED
        self._studies = studies
        self._samples = samples

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def studies(self, **_: str) -> AsyncGenerator[list[ListedStudy], None]:
        for start in range(0, self._studies, 100):
            yield [ListedStudy(f"1.{start + number}", "20240101", IN_A_STUDY) for number in range(100)]

    async def study(self, study: str) -> ListedStudy | None:
        return None

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        self._samples.count(f"{self.name} listed", IN_A_STUDY)
        yield [ListedInstance(f"{study}.1", f"{study}.1.{number}", 100) for number in range(IN_A_STUDY)]

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        instances: Sequence[ListedInstance] = wanted.instances
        if not instances:
            instances = [one async for some in self.instances(wanted.study) for one in some]
        for one in instances:
            self._samples.count("moved")
            yield Usable(
                one.uid, InstanceHeader(InstanceUids(wanted.study, one.series, one.uid), "", ""), BytesBody(b"")
            )

    async def store(self, sources: AsyncIterator[Identified], **_: object) -> AsyncGenerator[Outcome, None]:
        async for one in sources:
            assert not isinstance(one, Unusable)
            yield Outcome(one.label, Status.STORED, one.header.uids, 100)

    async def delete(self, *_: object) -> None:
        raise AssertionError("nothing is to be deleted")

    async def probe(self) -> None:
        pass


class WithFiles(Endless):
    """An end with things that are no instances."""

    def __init__(self, files: Callable[[], Iterator[ListedInstance]], samples: Samples) -> None:
        super().__init__("source", 0, samples)
        self._files = files

    async def excluded(self) -> AsyncGenerator[list[ListedInstance], None]:
        page: list[ListedInstance] = []
        for one in self._files():
            page.append(one)
            if len(page) == 500:
                self._samples.count("excluded", len(page))
                yield page
                page = []
        if page:
            yield page


async def copied(source: Any, target: Any, path: Path) -> dict[State, int]:
    summary = await (await jobs.copy(source, target, job=path)).wait()
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


@SIZES
@pytest.mark.parametrize("unlisted", [False, True])
async def test_memory_does_not_grow_with_the_instances(
    unlisted: bool, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_book, "_REMEMBERED", 100)  # so many series are kept at hand: too many to see a leak
    samples = Samples(count)
    source = Endless("source", count // IN_A_STUDY, samples, unlisted=unlisted)
    counts = await copied(source, Endless("target", 0, samples), tmp_path / "a.ledger")
    assert counts == {State.DONE: count}
    assert samples.slope("moved") < LEAST_LEAK
    assert samples.slope("target listed") < LEAST_LEAK  # while it is verified


@SIZES
async def test_memory_does_not_grow_with_what_is_no_instance(count: int, tmp_path: Path) -> None:
    samples = Samples(count)

    def files() -> Iterator[ListedInstance]:
        return (ListedInstance("", f"{number:032}", 100, flaw=Reason.NOT_DICOM) for number in range(count))

    counts = await copied(WithFiles(files, samples), Endless("target", 0, samples), tmp_path / "a.ledger")
    assert counts == {State.EXCLUDED: count}
    assert samples.slope("excluded") < LEAST_LEAK


async def test_what_could_not_be_read_and_is_no_more_there_is_said_to_be_gone(tmp_path: Path) -> None:
    there = [ListedInstance("", "a" * 32, 100, flaw=Reason.UNREADABLE), ListedInstance("", "b" * 32, 1, flaw=1)]
    source = WithFiles(lambda: iter(there), Samples())
    target = Endless("target", 0, Samples())
    assert await copied(source, target, tmp_path / "a.ledger") == {State.FAILED: 1, State.EXCLUDED: 1}
    del there[0]
    assert await copied(source, target, tmp_path / "a.ledger") == {State.EXCLUDED: 2}
    reader = LedgerReader(tmp_path / "a.ledger")
    assert {one.item: one.reason for one in reader.items()} == {"a" * 32: Reason.GONE, "b" * 32: Reason.NOT_DICOM}
    reader.close()


@pytest.mark.parametrize("unlisted", [False, True])
async def test_small_studies_share_a_commit(unlisted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_writer, "_GROUP_AGE", 3600)  # groups are closed by their size alone
    written, write = [0], Book.write

    def counted(book: Book, changes: Any) -> None:
        written[0] += 1
        write(book, changes)

    monkeypatch.setattr(Book, "write", counted)
    source = Endless("source", 500, Samples(), unlisted=unlisted)
    counts = await copied(source, Endless("target", 0, Samples()), tmp_path / "a.ledger")
    assert counts == {State.DONE: 5000}
    # 5,000 items are planned, run, settled: 15,000 changes in groups of 64, and what three phases ask
    assert written[0] < 500


async def test_what_is_gathered_of_a_study_is_seen_by_who_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_writer, "_GROUP_AGE", 3600)
    async with await Ledger.create(tmp_path / "a.ledger", {"verb": "copy"}) as ledger:
        await ledger.note_studies([ListedStudy("1.1"), ListedStudy("1.2")], at_target=False, run=1)
        one, other = await ledger.studies(run=1)
        row = ItemRow("1.1.1", "1.1.1.1", State.PENDING, size=5)
        ledger.plan(one.id, [row])
        assert await ledger.items(other.id) == []
        assert await ledger.items(one.id) == [row]
