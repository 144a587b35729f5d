"""Summaries to show: a large job with everything in it, and a reader of made-up ledgers."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.states import Reason, State, reason_code
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

__all__ = ["HOSTILE", "FakeReader", "big", "hostile", "small"]

START = datetime(2026, 11, 27, 19, 0, tzinfo=UTC)
HOSTILE = '</style><script src="//evil.example/x.js">alert(1)</script><img src=x onerror=alert(2)>\u202e&"\''


def facts(**more: object) -> JobFacts:
    made = JobFacts(
        "radiology-to-cloud", "copy", "https://pacs.hospital.example", "PostDICOM", START, "bytes", "complete", 3
    )
    return replace(made, **more)  # type: ignore[arg-type]


def uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.{10**20 + number * 7919}"


def big(*, phase: str = "complete") -> Summary:
    """Return a weekend's copy of 15 years in which nearly everything may happen; it adds up."""
    chance = random.Random(7)
    months = []
    for year in range(2012, 2027):
        for month in range(1, 13 if year < 2026 else 12):
            if (year, month) == (2015, 4):
                continue  # nothing in that month
            studies = chance.randrange(80, 240)
            found = studies * chance.randrange(150, 420)
            failed = chance.randrange(0, 400) if chance.random() < 0.15 else 0
            months.append(MonthLine(year * 100 + month, studies, found, found, failed))
    months.append(MonthLine(0, 31, 2213, 2213, 3))
    failed = sum(line.failed for line in months)
    whole = sum(line.discovered for line in months) + 1800  # no instances
    unconfirmed, excluded, present = 41, 1894, whole // 5
    done = whole - failed - unconfirmed - excluded - present
    counts = {
        State.DONE: Count(done, done * 530_211),
        State.PRESENT: Count(present, 0),
        State.FAILED: Count(failed, failed * 529_000),
        State.UNCONFIRMED: Count(unconfirmed, unconfirmed * 500_000),
        State.EXCLUDED: Count(excluded, excluded * 2_000),
    }
    moments = []
    begin = START.timestamp()
    for at in range(60 * 62):
        if 11 * 60 <= at % (24 * 60) < 14 * 60:  # the window is closed
            continue
        rate = int(1400 + 500 * math.sin(at / 140) + chance.randrange(-250, 250))
        moments.append(MinuteLine(begin + at * 60, rate, rate * chance.randrange(480_000, 580_000)))
    refused, rest = failed // 2, failed - failed // 2 - 40
    reasons = (
        ReasonLine(State.PRESENT, Reason.EQUAL_BY_COUNT, present - 1200),
        ReasonLine(State.FAILED, reason_code(dicom=0xA700), refused, tuple(map(uid, range(3)))),
        ReasonLine(State.FAILED, reason_code(status=413), rest, tuple(map(uid, range(3, 6)))),
        ReasonLine(State.FAILED, Reason.DIFFERENT, 37, (uid(8), uid(9))),
        ReasonLine(State.FAILED, Reason.NOT_LISTED, 3, (uid(10),)),
        ReasonLine(State.UNCONFIRMED, Reason.NOT_CONFIRMED, unconfirmed, (uid(11), uid(12), uid(13))),
        ReasonLine(State.EXCLUDED, Reason.NOT_DICOM, 1800),
        ReasonLine(State.EXCLUDED, Reason.FILTER, 94, (uid(14),)),
    )
    return Summary(
        facts(phase=phase),
        counts,
        studies=sum(line.studies for line in months),
        equal_by_count=4120,
        discovery_complete=True,
        verified=done - 3,
        mismatches=40,
        coerced={"00100020": 1204, "00080050": 88, "00091001": 12, "0040A730": 3},
        reasons=reasons,
        months=tuple(months),
        moments=tuple(moments),
        seconds=len(moments) * 60,
        notes=(
            "28 Nov 2026, 02:14 UTC: the target did not answer for 41 min; nothing was lost",
            "28 Nov 2026, 06:00 UTC: outside the window until 19:00",
            "The maximum rate was changed to 40 MB/s",
        ),
    )


def small(*, phase: str = "moving", done: int = 30, left: int = 70, **more: object) -> Summary:
    """Return a job of a hundred instances that goes on."""
    made = Summary(
        facts(phase=phase, verify="listed", source="folder", target="Orthanc", run=1, job="small"),
        {State.DONE: Count(done, done * 1000), State.PENDING: Count(left, left * 1000)},
        studies=2,
        discovery_complete=True,
        months=(MonthLine(202401, 1, done, done, 0), MonthLine(0, 1, left, 0, 0)),
        moments=(MinuteLine(START.timestamp(), done, done * 1000),),
        seconds=60.0,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def hostile() -> Summary:
    """Texts that would like to be more than text, wherever one can stand."""
    made = small()
    return replace(
        made,
        facts=facts(job=HOSTILE, verb=HOSTILE, source=HOSTILE, target=HOSTILE, verify=HOSTILE, phase=HOSTILE),
        counts={State.FAILED: Count(2, 2), State.DONE: Count(1, 1)},
        months=(MonthLine(202413, 1, 3, 3, 2),),
        reasons=(ReasonLine(State.FAILED, Reason.REFUSED, 2, (HOSTILE,)),),
        coerced={HOSTILE: 1, "0010002": 1},
        notes=(HOSTILE,),
    )


@dataclass
class FakeReader(LedgerReader):
    """A ledger's reader without a ledger."""

    told: Summary
    study_lines: Sequence[StudyLine] = ()
    series_lines: Sequence[SeriesLine] = ()
    item_lines: Sequence[ItemLine] = ()
    closed: int = 0
    held: int = 0
    path: Path = Path("no ledger")

    @contextmanager
    def still(self) -> Iterator[None]:
        self.held += 1
        yield

    def summary(self) -> Summary:
        return self.told

    def studies(self, *, states: Sequence[State] | None = None) -> Iterator[StudyLine]:
        for line in self.study_lines:
            if states is None or set(states) & {state for state, count in line.counts.items() if count.instances}:
                yield line

    def series(self, study: str) -> Iterator[SeriesLine]:
        yield from self.series_lines

    def items(
        self,
        *,
        states: Sequence[State] | None = None,
        study: str | None = None,
        reasons: Sequence[int] | None = None,
    ) -> Iterator[ItemLine]:
        for line in self.item_lines:
            is_asked_for = (states is None or line.state in states) and (reasons is None or line.reason in reasons)
            if is_asked_for and study in (None, line.study):
                yield line

    def close(self) -> None:
        self.closed += 1
