"""The report page: numbers that are the summary's, and nothing in it but what is meant to be."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from postdicom_async.jobs.pages.figures import (
    count,
    duration,
    month_chart,
    rate_charts,
    share,
    size,
    status_words,
    tag_words,
)
from postdicom_async.jobs.pages.page import page
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Count, MinuteLine, MonthLine, ReasonLine, Summary
from tests.jobs.summaries import HOSTILE, big, hostile, small

WRITTEN = datetime(2026, 11, 30, 14, 2, tzinfo=UTC)
VOID = {"meta", "link", "input", "br"}


class Reading(HTMLParser):
    """Reads a document, and insists that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len({name for name, _ in attrs}), (tag, attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(summary: Summary) -> Reading:
    return Reading(page(summary, version="9.9", written=WRITTEN))


def test_the_numbers_are_those_of_the_summary() -> None:
    summary = big()

    words = read(summary).words

    for state, one in summary.counts.items():
        assert count(one.instances) in words, state
    assert f"Discovered, the sum of these {count(summary.discovered)} 100 %" in words
    for line in summary.reasons:
        if line.state in {State.FAILED, State.UNCONFIRMED, State.EXCLUDED}:
            assert count(line.instances) in words
            assert all(uid in words for uid in line.examples)
    assert count(summary.verified) in words
    for text in ("https://pacs.hospital.example", "PostDICOM", "30 Nov 2026, 14:02 UTC", "postdicom-async 9.9",
                 "of these equal by count, not listed", "(0010,0020) PatientID 1,204", "(0009,1001) private 12",
                 *summary.notes):  # fmt: skip
        assert text in words
    assert "does not add up" not in words


def test_the_totals_of_the_years_are_those_of_the_job() -> None:
    summary = big()
    words = read(summary).words
    years = {line.month // 100 for line in summary.months if line.month}
    for year in years:
        lines = [line for line in summary.months if line.month // 100 == year]
        numbers = (sum(line.studies for line in lines), sum(line.discovered for line in lines))
        assert f"{year} {numbers[0]:,} {numbers[1]:,}" in words
    assert "Undated 31 2,213" in words
    assert "No instance 1,800 1,800 0" in words
    assert f"All {summary.studies:,} {summary.discovered:,}" in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"months": (MonthLine(202401, 1, 99, 30, 0),)}, "100 were discovered, and 99 by study date"),
        ({"months": (MonthLine(202401, 1, 100, 29, 0),)}, "30 are settled, and 29 by study date"),
        ({"months": (MonthLine(202401, 1, 101, 30, 0),)}, "100 were discovered, and 101 by study date"),
        (
            {"counts": {}, "months": (), "reasons": (ReasonLine(State.FAILED, 8, 1),)},
            "0 are failed, and reasons are known of 1",
        ),
    ],
)
def test_what_does_not_add_up_is_said_loudly(change: dict[str, object], words: str) -> None:
    reading = read(small(**change))  # type: ignore[arg-type]

    assert "This does not add up" in reading.words
    assert words in reading.words
    assert [one for _, one in reading.tags if one.get("role") == "alert"]


def test_nothing_from_elsewhere_and_no_script() -> None:
    text = page(big(), version="9.9", written=WRITTEN)

    reading = Reading(text)

    assert "<script" not in text.lower()
    assert not [one for _, one in reading.tags for name in one if name.startswith("on") or name == "style"]
    assert {one["href"] for _, one in reading.tags if "href" in one} == {"data:,"}
    assert not [one for _, one in reading.tags if "src" in one]
    assert "url(" not in text
    assert "@import" not in text
    [policy] = [one["content"] for one in reading.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_hostile_texts_stay_texts() -> None:
    text = page(hostile(), version=HOSTILE, written=WRITTEN)

    reading = Reading(text)

    assert "<script" not in text
    assert "<img" not in text
    assert len(reading.all("style")) == 1
    assert HOSTILE.split("<img")[0] in " ".join(reading.text)  # it is shown as what it is
    assert {tag for tag, _ in reading.tags} <= {tag for tag, _ in read(big()).tags}


def test_who_cannot_see_can_read_it() -> None:
    reading = read(big())

    pictures = reading.all("svg")
    ids = {one["id"] for _, one in reading.tags if "id" in one}
    assert len(pictures) >= 4
    for picture in pictures:
        assert picture["role"] == "img"
        assert set((picture["aria-labelledby"] or "").split()) <= ids
    all_ids = [one["id"] for _, one in reading.tags if "id" in one]
    assert len(all_ids) == len(set(all_ids))
    assert len(reading.all("h1")) == 1
    assert {one.get("scope") for one in reading.all("th")} <= {"row", "col"}
    assert len(reading.all("caption")) == len(reading.all("table"))
    assert reading.all("html") == [{"lang": "en"}]


def test_a_job_that_has_only_begun() -> None:
    empty = small(counts={}, months=(), moments=(), studies=0, discovery_complete=False, seconds=0.0)
    words = read(empty).words
    assert "so far, and the source is still being listed" in words
    assert "Rate over time" not in words


def test_a_job_that_only_compares_speaks_of_nothing_moved() -> None:
    made = small(phase="complete", counts={State.PRESENT: Count(97), State.FAILED: Count(3)}, months=())
    words = read(replace(made, facts=replace(made.facts, verb="verify"))).words
    assert "As it should be 97 97.0 %" in words.replace("\N{NO-BREAK SPACE}", " ")
    assert "At the target 97" in words
    assert "oved by" not in words
    assert "here before" not in words


@pytest.mark.parametrize(
    ("change", "words", "colour"),
    [
        ({"phase": "moving"}, "Moving", ""),
        ({"phase": "complete", "left": 0, "months": ()}, "Complete", "good"),
        ({"phase": "complete", "counts": {State.FAILED: Count(1)}}, "Complete, with failures", "bad"),
        ({"phase": "complete", "counts": {State.UNCONFIRMED: Count(1)}}, "Complete, with open questions", "doubtful"),
        ({"phase": "complete", "mismatches": 1}, "Complete, and does not match", "bad"),
    ],
)
def test_how_it_stands(change: dict[str, object], words: str, colour: str) -> None:
    assert status_words(small(**change)) == (words, colour)  # type: ignore[arg-type]


def test_charts_of_anything() -> None:
    assert rate_charts(()) == month_chart(()) == month_chart((MonthLine(0, 1, 5, 5, 0),)) == ""
    for minutes in (1, 2, 119, 121, 3000, 600_000):
        drawn = rate_charts([MinuteLine(at * 60.0, 60, 1000) for at in range(0, minutes, max(1, minutes // 500))])
        assert 1 <= drawn.count("<g>") <= 2 * 122
    assert rate_charts([MinuteLine(60.0, 0, 0)]).count("<rect") == 0
    assert month_chart([MonthLine(190001, 1, 5, 5, 0), MonthLine(202612, 1, 7, 7, 0)]).count("<g>") == 2
    assert month_chart([MonthLine(101, 1, 5, 5, 0), MonthLine(999912, 1, 7, 7, 0)]).count("<g>") == 2
    assert "Instances by month" in month_chart([MonthLine(202612, 1, 7, 7, 7)])


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_words() -> None:
    assert [plain(size(one)) for one in (0, 999, 1000, 999_499, 10_240_000, 3.456e12, 7e18)] == [
        "0 B", "999 B", "1.00 kB", "999 kB", "10.2 MB", "3.46 TB", "7000 PB",
    ]  # fmt: skip
    assert [plain(duration(one)) for one in (0, 59.4, 60, 3661, 90_000, 1e7)] == [
        "0 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h", "115 d 17 h",
    ]  # fmt: skip
    assert [plain(share(*one)) for one in ((0, 0), (0, 9), (1, 10**6), (999_999, 10**6), (5, 5))] == [
        "0 %", "0 %", "< 0.1 %", "99.9 %", "100 %",
    ]  # fmt: skip
    assert [tag_words(one) for one in ("00100020", "x", "00091001")] == [
        ("(0010,0020)", "PatientID"), ("x", ""), ("(0009,1001)", "private"),
    ]  # fmt: skip
