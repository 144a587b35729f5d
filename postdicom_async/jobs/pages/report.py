"""A job's report as JSON lines, CSV or an HTML page, written to a file line by line, with flat memory.

A line is an item, or a study with equal counts at both ends, which was not listed; the column ``instances`` adds up to
what was discovered. It holds UIDs only: no path, no name, no date. The file is replaced atomically and is readable for
this user alone.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from postdicom_async.csv_lines import csv_line
from postdicom_async.disk.private_files import whole_file
from postdicom_async.errors import UsageError
from postdicom_async.jobs.pages.page import page
from postdicom_async.jobs.states import Reason, State, reason_text
from postdicom_async.jobs.summary import Count, contradictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from postdicom_async.jobs.ledger.reader import LedgerReader
    from postdicom_async.jobs.summary import ItemLine, StudyLine, Summary


COLUMNS = (
    "symbol", "state", "study", "series", "instance", "item", "reason_code", "reason", "attempts", "bytes", "instances",
)  # fmt: skip

SYMBOLS = {
    State.PRESENT: "=",
    State.DONE: "+",
    State.DELETED: "-",
    State.FAILED: "!",
    State.UNCONFIRMED: "!",
    State.EXCLUDED: "~",
    State.PENDING: "?",
    State.RUNNING: "?",
}
"""The one-character symbol of each state.

``*`` is an instance that the target holds with other content.
"""

_Row: TypeAlias = tuple[Any, ...]
_encoded = json.JSONEncoder(separators=(",", ":")).encode
_DIFFERENT = frozenset({Reason.DIFFERENT, Reason.CANNOT_COMPARE})


def symbol_of(state: State, reason: int) -> str:
    """Return the character for an item."""
    return "*" if state is State.FAILED and reason in _DIFFERENT else SYMBOLS[state]


def json_lines(
    summary: Summary, studies: Iterable[StudyLine], items: Iterable[ItemLine], *, version: str, written: str
) -> Iterator[str]:
    """Yield a JSON object a line, ``kind`` ``item`` or ``study``, and last the ``summary``.

    Args:
        summary: the job as it stands.
        studies: those that were equal by count, with the counts of what was not listed of them.
        items: every item.
        version: of this program.
        written: when, in ISO 8601.
    """
    seen: Counter[str] = Counter()
    for row in _rows(studies, items):
        seen[row[1]] += row[-1]
        kind = "item" if row[8] != "" else "study"  # attempts: of items alone
        told = {name: value for name, value in zip(COLUMNS, row, strict=True) if value != ""}
        yield _encoded({"kind": kind, **told}) + "\n"
    yield _encoded(summary_document(summary, seen, version=version, written=written)) + "\n"


def csv_lines(studies: Iterable[StudyLine], items: Iterable[ItemLine]) -> Iterator[str]:
    """Yield the heading and a line each, as RFC 4180 has it.

    Symbols stand alone in their cells, where none is a formula.
    """
    yield csv_line(COLUMNS)
    for symbol, *cells in _rows(studies, items):
        yield f"{symbol},{csv_line(cells)}"


def _rows(studies: Iterable[StudyLine], items: Iterable[ItemLine]) -> Iterator[_Row]:
    """Yield what stands in each line, in the order of `COLUMNS`."""
    for study in studies:
        for state, (instances, size) in study.counts.items():
            symbol, name, code, reason = _words(state, Reason.EQUAL_BY_COUNT)
            yield (symbol, name, study.uid, "", "", "", code, reason, "", size, instances)
    for item in items:
        symbol, name, code, reason = _words(item.state, item.reason)
        yield (symbol, name, item.study, item.series, item.uid, item.item, code, reason, item.attempts, item.size, 1)


@lru_cache(4096)  # there are few of them, and very many lines
def _words(state: State, reason: int) -> tuple[str, str, int | str, str]:
    return symbol_of(state, reason), state.name.lower(), int(reason) or "", reason_text(reason)


def summary_document(
    summary: Summary, seen: Counter[str] | None = None, *, version: str, written: str
) -> dict[str, Any]:
    """Return a summary as JSON has it.

    ``adds_up`` is whether every sum that was kept apart is equal, and the lines before it (``seen``, instances by
    state) are those that the summary counts; of a job that runs on they need not be.
    """
    facts = summary.facts
    counts = {
        state.name.lower(): {"instances": count.instances, "bytes": count.bytes}
        for state, count in sorted(summary.counts.items())
    }
    wrong = contradictions(summary)
    if seen is not None and +seen != Counter({state: count["instances"] for state, count in counts.items()}):
        wrong.append("the lines of this report are not those that the summary counts; did the job run on meanwhile?")
    return {
        "kind": "summary",
        "job": facts.job,
        "verb": facts.verb,
        "source": facts.source,
        "target": facts.target,
        "created": facts.created.isoformat(),
        "written": written,
        "version": version,
        "verify": facts.verify,
        "sample": facts.sample,
        "phase": facts.phase,
        "run": facts.run,
        "discovery_complete": summary.discovery_complete,
        "discovered": summary.discovered,
        "counts": counts,
        "adds_up": not wrong,
        "contradictions": wrong,
        "studies": summary.studies,
        "equal_by_count": summary.equal_by_count,
        "verified": summary.verified,
        "mismatches": summary.mismatches,
        "coerced": dict(summary.coerced),
        "reasons": [
            {
                "state": line.state.name.lower(),
                "reason_code": line.reason,
                "reason": reason_text(line.reason),
                "instances": line.instances,
                "examples": list(line.examples),
            }
            for line in summary.reasons
        ],
        "seconds": summary.seconds,
        "notes": list(summary.notes),
    }


# --- a report into a file --------------------------------------------------------------------------------------------


FORMATS = ("jsonl", "csv", "html")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".html": "html", ".htm": "html"}


def format_of(path: Path) -> str:
    """Return the format that a file's name asks for.

    Raises:
        UsageError: its ending is not known.
    """
    try:
        return _ENDINGS[path.suffix.lower()]
    except KeyError:
        pass
    raise UsageError(f"name it {', '.join(sorted(_ENDINGS))}, or give the format", argument="report")


def report_lines(reader: LedgerReader, form: str, *, version: str, now: datetime | None = None) -> Iterator[str]:
    """Yield the text of a report, piece by piece: memory is flat however many items there are. Blocking.

    All of it is read from one state of the ledger.

    Args:
        reader: of the ledger.
        form: one of `FORMATS`.
        version: of this program.
        now: the moment it is about; now without it.

    Raises:
        UsageError: the format is not known.
    """
    if form not in FORMATS:
        raise UsageError(f"give one of {', '.join(FORMATS)}, not {form!r}", argument="report")
    return _lines(reader, form, version, now or datetime.now(UTC))


def _lines(reader: LedgerReader, form: str, version: str, now: datetime) -> Iterator[str]:
    with reader.still():
        if form == "html":
            yield page(reader.summary(), version=version, written=now)
        elif form == "csv":
            yield from csv_lines(_unlisted(reader), reader.items())
        else:
            moment = now.isoformat(timespec="seconds")
            yield from json_lines(reader.summary(), _unlisted(reader), reader.items(), version=version, written=moment)


def _unlisted(reader: LedgerReader) -> Iterator[StudyLine]:
    """Yield studies that were equal by count, with what was not listed of them: some of it may have been, before."""
    for study in reader.studies():
        if study.basis != "equal by count":
            continue
        counts: dict[State, Count] = dict(study.counts)
        for item in reader.items(study=study.uid):
            instances, size = counts[item.state]
            counts[item.state] = Count(instances - 1, size - item.size)
        left = {state: count for state, count in counts.items() if count.instances}
        if left:
            yield study._replace(counts=left)


def write_report(
    path: Path, reader: LedgerReader, form: str = "", *, version: str = "", now: datetime | None = None
) -> None:
    """Write a report; what was there stays until the new one is whole and durable. Blocking.

    Args:
        path: the file. Its name says the format where none is given.
        reader: of the ledger.
        form: one of `FORMATS`.
        version: of this program; this one's without it.
        now: as in `report_lines`.

    Raises:
        UsageError: the format is not known.
        LocalFileError: it cannot be written.
    """
    if not version:
        from postdicom_async import __version__ as version
    lines = report_lines(reader, form or format_of(path), version=version, now=now)
    with whole_file(path, "the report") as file:
        file.writelines(lines)
