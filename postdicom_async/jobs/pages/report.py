"""A job's report into a file, as JSON lines, CSV or a page: there whole or as it was, for this user's eyes alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from postdicom_async.disk.whole_file import whole_file
from postdicom_async.errors import UsageError
from postdicom_async.jobs.pages.page import page
from postdicom_async.jobs.pages.report_lines import csv_lines, json_lines
from postdicom_async.jobs.summary import Count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from postdicom_async.jobs.states import State
    from postdicom_async.jobs.summary import ItemLine, SeriesLine, StudyLine, Summary

__all__ = ["FORMATS", "Reader", "format_of", "report_lines", "write_report"]

FORMATS = ("jsonl", "csv", "html")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".html": "html", ".htm": "html"}


class Reader(Protocol):
    """What reports and pages need of a ledger: see `ledger.LedgerReader`."""

    def still(self) -> AbstractContextManager[None]:
        """Answer everything inside from one state of the ledger."""
        ...

    def summary(self) -> Summary:
        """Return the job as it stands."""
        ...

    def studies(self, *, states: Sequence[State] | None = None) -> Iterator[StudyLine]:
        """Yield studies, all or those with items in some states."""
        ...

    def series(self, study: str) -> Iterator[SeriesLine]:
        """Yield the series of a study."""
        ...

    def items(
        self,
        *,
        states: Sequence[State] | None = None,
        study: str | None = None,
        reasons: Sequence[int] | None = None,
    ) -> Iterator[ItemLine]:
        """Yield items, all or those in some states, of a study, for some reasons."""
        ...

    def close(self) -> None:
        """Let go of the ledger."""
        ...


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


def report_lines(reader: Reader, form: str, *, version: str, now: datetime | None = None) -> Iterator[str]:
    """Yield the text of a report, piece by piece: memory is flat however many items there are. Blocking.

    All of it is read from one state of the ledger.

    Args:
        reader: of the ledger.
        form: one of `FORMATS`.
        version: of this program.
        now: the moment that it is of; the present one without it.

    Raises:
        UsageError: the format is not known.
    """
    if form not in FORMATS:
        raise UsageError(f"give one of {', '.join(FORMATS)}, not {form!r}", argument="report")
    return _lines(reader, form, version, now or datetime.now(UTC))


def _lines(reader: Reader, form: str, version: str, now: datetime) -> Iterator[str]:
    with reader.still():
        if form == "html":
            yield page(reader.summary(), version=version, written=now)
        elif form == "csv":
            yield from csv_lines(_unlisted(reader), reader.items())
        else:
            moment = now.isoformat(timespec="seconds")
            yield from json_lines(reader.summary(), _unlisted(reader), reader.items(), version=version, written=moment)


def _unlisted(reader: Reader) -> Iterator[StudyLine]:
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


def write_report(path: Path, reader: Reader, form: str = "", *, version: str = "", now: datetime | None = None) -> None:
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
