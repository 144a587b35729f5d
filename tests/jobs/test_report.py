"""Reports of a job: what stands in them, that they add up, and how they come into being."""

from __future__ import annotations

import csv
import json
import os
import stat
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import LocalFileError, UsageError
from postdicom_async.disk.private_files import whole_file
from postdicom_async.jobs.pages.report import COLUMNS, format_of, report_lines, symbol_of, write_report
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import Count, ItemLine, ReasonLine, StudyLine, Summary
from tests.jobs.summaries import FakeReader, facts

NOW = datetime(2026, 11, 30, 14, 2, tzinfo=UTC)
DIGEST = "9f86d081884c7d65"


def reader() -> FakeReader:
    items = [
        ItemLine("1.2", "1.2.1", "1.2.1.1", State.DONE, 0, 1, 1000),
        ItemLine("1.2", "1.2.1", "1.2.1.2", State.PRESENT, 0, 0, 900),
        ItemLine("1.2", "1.2.2", "1.2.2.1", State.FAILED, Reason.DIFFERENT, 3, 800),
        ItemLine("1.2", "1.2.2", "1.2.2.2", State.FAILED, 0x10000 + 0xA700, 3, 800),
        ItemLine("1.2", "1.2.2", "1.2.2.3", State.UNCONFIRMED, Reason.NOT_CONFIRMED, 1, 800),
        ItemLine("1.3", "1.3.1", "1.3.1.1", State.DELETED, Reason.GONE, 0, 0),
        ItemLine("1.3", "1.3.1", "1.3.1.2", State.PENDING, 0, 0, 700),
        ItemLine("", "", "", State.EXCLUDED, Reason.NOT_DICOM, 0, 12, DIGEST),
        ItemLine("1.9", "1.9.1", "1.9.1.1", State.DONE, 0, 1, 500),
    ]
    counts: dict[State, Count] = {}
    for item in items:
        one = counts.get(item.state, Count())
        counts[item.state] = Count(one.instances + 1, one.bytes + item.size)
    counts[State.PRESENT] = Count(counts[State.PRESENT].instances + 250, 900)
    studies = [
        StudyLine("1.2", 202401, "listed", {}),
        StudyLine("1.9", 0, "equal by count", {State.PRESENT: Count(250, 0), State.DONE: Count(1, 500)}),
    ]
    reasons = (
        ReasonLine(State.PRESENT, Reason.EQUAL_BY_COUNT, 250),
        ReasonLine(State.FAILED, Reason.DIFFERENT, 1, ("1.2.2.1",)),
        ReasonLine(State.FAILED, 0x10000 + 0xA700, 1, ("1.2.2.2",)),
        ReasonLine(State.UNCONFIRMED, Reason.NOT_CONFIRMED, 1, ("1.2.2.3",)),
        ReasonLine(State.EXCLUDED, Reason.NOT_DICOM, 1),
    )
    summary = Summary(facts(), counts, studies=3, equal_by_count=1, discovery_complete=True, reasons=reasons)
    return FakeReader(summary, studies, (), items)


def json_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_json_lines_hold_every_item_and_add_up(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"

    write_report(path, reader(), version="9.9", now=NOW)

    *lines, last = json_of(path)
    assert lines[1] == {
        "kind": "item", "symbol": "+", "state": "done", "study": "1.2", "series": "1.2.1", "instance": "1.2.1.1",
        "attempts": 1, "bytes": 1000, "instances": 1,
    }  # fmt: skip
    assert lines[4]["reason_code"] == 0x1A700
    assert lines[4]["reason"] == "the target's reason A700"
    assert [line["symbol"] for line in lines] == list("=+=*!!-?~+")
    assert lines[0] == {
        "kind": "study", "symbol": "=", "state": "present", "study": "1.9", "reason_code": Reason.EQUAL_BY_COUNT,
        "reason": "equal by count, not listed", "bytes": 0, "instances": 250,
    }  # fmt: skip
    assert lines[-2]["item"] == DIGEST
    assert "instance" not in lines[-2]
    seen: Counter[str] = Counter()
    for line in lines:
        seen[line["state"]] += line["instances"]
    assert {state: count["instances"] for state, count in last["counts"].items()} == seen
    assert (last["kind"], last["discovered"], last["adds_up"]) == ("summary", seen.total(), True)
    assert last["contradictions"] == []
    assert (last["version"], last["written"]) == ("9.9", "2026-11-30T14:02:00+00:00")
    assert (last["source"], last["target"], last["verb"]) == ("https://pacs.hospital.example", "PostDICOM", "copy")


def test_a_report_that_lacks_an_item_says_so(tmp_path: Path) -> None:
    one = reader()
    one.item_lines = one.item_lines[1:]

    write_report(tmp_path / "report.jsonl", one, version="9.9", now=NOW)

    last = json_of(tmp_path / "report.jsonl")[-1]
    assert last["adds_up"] is False
    assert "lines of this report" in last["contradictions"][0]


def test_csv_has_the_same_columns_and_sums(tmp_path: Path) -> None:
    write_report(tmp_path / "report.csv", reader(), version="9.9", now=NOW)

    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["symbol"] for row in rows] == list("=+=*!!-?~+")
    assert sum(int(row["instances"]) for row in rows) == reader().told.discovered
    assert [row["instance"] for row in rows][1:3] == ["1.2.1.1", "1.2.1.2"]


@pytest.mark.parametrize(
    ("begin", "harmless"),
    [*((one, f"'{one}") for one in "=+-@\uff1d\t\r\n"), *((f"x{one}=", f"x{one}'=") for one in ";\t\n")],
)
def test_nothing_in_a_csv_is_a_formula(tmp_path: Path, begin: str, harmless: str) -> None:
    rest = 'HYPERLINK("http://evil.example","x")'
    text = begin + rest
    one = reader()
    one.item_lines = [ItemLine(text, text, text, State.DONE, 0, 1, 1, text)]
    one.study_lines = ()

    write_report(tmp_path / "report.csv", one, version="9.9", now=NOW)

    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert [row[name] for name in ("study", "series", "instance", "item")] == [harmless + rest] * 4
    assert len(row["symbol"]) == 1


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_symbol(state: State) -> None:
    assert symbol_of(state, 0) in "+=-!~?"


def test_only_this_user_can_read_it_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_report(tmp_path / "report.html", reader(), version="9.9", now=NOW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o600


@dataclass
class Breaking(FakeReader):
    """A ledger whose disk fails in the middle."""

    error: BaseException = field(default_factory=RuntimeError)

    def items(self, **_: object) -> Iterator[ItemLine]:
        yield from list(self.item_lines)[:3]
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("the ledger broke"), KeyboardInterrupt()])
def test_a_report_is_whole_or_as_it_was(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "report.jsonl"
    path.write_text("the old one")
    one = reader()

    with pytest.raises(type(error)):
        write_report(path, Breaking(one.told, (), (), one.item_lines, error=error), version="9.9")

    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_under_its_name_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "report.csv").symlink_to(elsewhere)

    write_report(tmp_path / "report.csv", reader(), version="9.9", now=NOW)

    assert elsewhere.read_text() == "mine"
    assert not (tmp_path / "report.csv").is_symlink()


@pytest.mark.parametrize(("place", "words"), [("nowhere/report.csv", "its folder does not exist"), ("folder.csv", "")])
def test_where_it_cannot_be_written(tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(LocalFileError, match=f"^the report: {words}") as caught:
        write_report(tmp_path / place, reader(), version="9.9", now=NOW)

    assert str(tmp_path) not in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder.csv"]


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    left = tmp_path / ".report.csv.0123.postdicom-part"
    left.write_text("half a report")
    other = tmp_path / ".other.csv.0123.postdicom-part"
    other.write_text("of another")

    with whole_file(tmp_path / "report.csv", "the report") as first:
        assert not left.exists()
        first.write("the first")
        write_report(tmp_path / "report.csv", reader(), version="9.9", now=NOW)  # who still writes is left alone

    assert (tmp_path / "report.csv").read_text() == "the first"
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "report.csv"]


def test_the_name_says_the_format(tmp_path: Path) -> None:
    assert [format_of(Path(name)) for name in ("a.JSONL", "a.json", "a.csv", "a.html")] == [
        "jsonl", "jsonl", "csv", "html",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="name it"):
        write_report(tmp_path / "report.doc", reader(), version="9.9")
    with pytest.raises(UsageError, match="jsonl, csv, html"):
        report_lines(reader(), "pdf", version="9.9")


@dataclass
class Endless(FakeReader):
    """A ledger with very many items, made as they are asked for."""

    number: int = 30_000

    def items(self, **_: object) -> Iterator[ItemLine]:
        for at in range(self.number):
            yield ItemLine("1.2", "1.2.1", f"1.2.1.{at}", State.DONE, 0, 1, 1000)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_memory_is_flat(tmp_path: Path, form: str) -> None:
    summary = Summary(facts(), {State.DONE: Count(30_000, 30_000_000)})
    write_report(tmp_path / "first", Endless(summary, number=1), form, version="9.9", now=NOW)  # what is imported once
    tracemalloc.start()
    try:
        write_report(tmp_path / "report", Endless(summary), form, version="9.9", now=NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "report").stat().st_size > 1_000_000
    assert peak < 500_000
