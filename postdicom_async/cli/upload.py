"""``postdicom upload``: files and folders into an archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import PostdicomError, UsageError
from postdicom_async.cli import output
from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.connection import Connection
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.paths import given_path, require_readable
from postdicom_async.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async import Anonymization, DicomWeb, StoreOutcome, UploadReport

__all__ = ["upload"]

_LISTED = 20


def upload(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", parser=given_path, help="Files, and folders to search; DICOM is known by content."
        ),
    ],
    connection: Connection,
    common: Common,
    anonymizing: Anonymizing,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document: a summary and the outcome of every file.")
    ] = False,
) -> int:
    """Store files and folders in an archive.

    Every file ends as stored, warned, duplicate, failed, unconfirmed, not DICOM or unreadable. The exit code is 0 when
    every DICOM file is known to be in the archive, 1 when some are not.
    """
    require_readable(paths)
    rules = anonymizing.rules()
    archive = connection.client()
    progress = Progress("Upload", quiet=common.quiet)
    try:
        report = run_async(lambda: _upload(archive, paths, rules, progress))
    except (PostdicomError, Interrupted) as error:
        _tell_partial(error, progress, as_json=as_json)
        raise
    _tell(report, as_json=as_json, quiet=common.quiet)
    return Exit.OK if report.ok else Exit.ITEMS_FAILED


async def _upload(
    archive: DicomWeb, paths: list[Path], anonymize: Anonymization | None, progress: Progress
) -> UploadReport:
    async with progress, archive:
        report = await archive.upload([str(path) for path in paths], anonymize=anonymize, progress=progress)
    if all(outcome.status == "not DICOM" for outcome in report.outcomes):
        found = f": none of {len(report.outcomes)} files is DICOM" if report.outcomes else ": no file was found"
        raise UsageError(f"nothing to upload{found}")
    return report


# --- what is told ---------------------------------------------------------------------------------------------------


def _tell(report: UploadReport, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        output.write(output.json_text(_document(report.outcomes, report.bytes_sent, report.seconds, None)))
        return
    _list_failures(report.failures)
    if not quiet:
        rate = output.rate_text(report.bytes_sent, report.seconds)
        size, seconds = output.size_text(report.bytes_sent), output.time_text(report.seconds)
        output.write(f"{_counts_text(report.outcomes)}; {size} in {seconds}, {rate}")


def _tell_partial(error: PostdicomError | Interrupted, progress: Progress, *, as_json: bool) -> None:
    """Tell what had been done before it ended."""
    report: Any = getattr(error, "report", None)
    outcomes: list[Any] = list(report.outcomes) if report is not None else list(progress.finished)
    if as_json:
        sent = sum(outcome.size for outcome in outcomes if outcome.in_archive)
        output.write(output.json_text(_document(outcomes, sent, report.seconds if report else None, error)))
    elif any(outcome.in_archive for outcome in outcomes):
        output.note(f"before it ended: {_counts_text(outcomes)}; the same command again sends everything once more")


def _counts_text(outcomes: Iterable[StoreOutcome]) -> str:
    return ", ".join(f"{count} {status}" for status, count in _counts(outcomes).items()) or "nothing"


def _counts(outcomes: Iterable[StoreOutcome]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.status.value] = counts.get(outcome.status.value, 0) + 1
    return counts


def _list_failures(failures: Iterable[StoreOutcome]) -> None:
    failures = list(failures)
    for outcome in failures[:_LISTED]:
        code = "" if outcome.reason_code is None else f" ({outcome.reason_code:04X})"
        output.note(f"{outcome.source}: {outcome.status}{code}: {outcome.reason or 'no reason given'}")
    if len(failures) > _LISTED:
        output.note(f"and {len(failures) - _LISTED} more; --json lists all")


def _document(
    outcomes: Iterable[StoreOutcome], size: int, seconds: float | None, error: Exception | None
) -> dict[str, Any]:
    items = [_item(outcome) for outcome in outcomes]
    return {
        "ok": error is None and all(outcome.in_archive or outcome.status == "not DICOM" for outcome in outcomes),
        "error": None if error is None else output.clean(error),
        "summary": {"instances": len(items), **_counts(outcomes), "bytes": size, "seconds": seconds},
        "items": items,
    }


def _item(outcome: StoreOutcome) -> dict[str, Any]:
    uids = outcome.uids
    return {
        "source": outcome.source,
        "status": outcome.status.value,
        "study_instance_uid": uids.study_instance_uid if uids else None,
        "series_instance_uid": uids.series_instance_uid if uids else None,
        "sop_instance_uid": uids.sop_instance_uid if uids else None,
        "bytes": outcome.size,
        "reason_code": outcome.reason_code,
        "reason": outcome.reason,
    }
