"""``postdicom download``: studies, series, instances, and what a search finds, to a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    LocalFileError,
    PostdicomError,
    RateLimited,
    Status,
    UsageError,
)
from postdicom_async.cli import output
from postdicom_async.cli.choosing import DownloadPlan, ToDownload
from postdicom_async.cli.connection import ConnectionOptions
from postdicom_async.cli.exits import Exit, Interrupted, code_of, code_of_all
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common, ErrorIfNothing, Reporting
from postdicom_async.cli.paths import given_path, removing_if_empty, require_writable
from postdicom_async.cli.progress import Progress
from postdicom_async.cli.search import NOTHING
from postdicom_async.dicom.layout import naming_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async import DicomWeb, DownloadReport, Outcome, PostdicomError
    from postdicom_async.cli.progress import Progress


_STOPS_ALL = (AuthenticationFailed, ConnectionFailed, LocalFileError, RateLimited, UsageError)
"""Errors that the next item would meet as well."""


def download(
    what: ToDownload,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="DIR", parser=given_path, help="The folder; it is made if it does not exist."),
    ],
    connection: ConnectionOptions,
    common: Common,
    reporting: Reporting,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="TEMPLATE",
            help="Where an instance lies below the folder. {instance} is required. Besides {study} and {series} it may "
            "have {PatientID}, {PatientName}, {PatientBirthDate}, {StudyDate}, {StudyID}, {StudyDescription}, "
            "{AccessionNumber}, {Modality}, {SeriesNumber}, {SeriesDescription} and {InstanceNumber}: these put "
            "patient data into paths, and lie on one side of {instance} in a name.",
        ),
    ] = "{study}/{series}/{instance}.dcm",
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document: a summary and every instance.")
    ] = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Download studies, series, instances or a patient to a folder.

    With --filter what a search finds, studies if no level is given; how much that is is said before.

    A file under its final name is whole. What the folder holds already is not fetched again, so the same command
    continues what was interrupted. What arrived is compared with the archive's own count or list.
    """
    plan = what.plan()
    into = reporting.checked()
    require_writable(to, "--to")
    naming_of(layout)  # refused before the archive is asked
    job = _Job(connection.client(), plan, to, layout, into, quiet=common.quiet)
    try:
        with removing_if_empty(to):
            run_async(job.run)
    except (PostdicomError, Interrupted) as error:
        job.results.append(job.unfinished(error))
        _tell(job.results, error, as_json=as_json, quiet=common.quiet)
        raise
    job.results += [Result((), None, problem) for problem in plan.unknown]
    code, line = _end_of(job.results, error_if_nothing=error_if_nothing)
    _tell(job.results, line, as_json=as_json, quiet=common.quiet)
    if line is not None:
        output.error(line)
    return code


def _end_of(results: list[Result], *, error_if_nothing: bool) -> tuple[Exit, str | None]:
    """Return the exit code, and one line that explains a code other than 0."""
    if not results:
        return (Exit.NOTHING, f"nothing to download: {NOTHING}") if error_if_nothing else (Exit.OK, None)
    code = code_of_all([_code_of(result) for result in results])
    if code is not Exit.OK:
        return code, failure_text(results)
    if error_if_nothing and not any(result.saved_count for result in results):
        return Exit.NOTHING, "nothing to download: everything is there already"
    return Exit.OK, None


def _code_of(result: Result) -> Exit:
    if result.error is not None:
        return code_of(result.error)
    return Exit.OK if result.report is not None and result.report.ok else Exit.ITEMS_FAILED


@dataclass
class _Job:
    """All downloads of one command, one after the other; each is parallel in itself."""

    archive: DicomWeb
    plan: DownloadPlan
    to: Path
    layout: str
    into: Reporting
    quiet: bool
    results: list[Result] = field(default_factory=list)
    progress: Progress | None = None

    async def run(self) -> None:
        """Download everything; a missing item is recorded, an error that concerns all of them is raised."""
        async with self.archive:
            if self.plan.searches:
                await self.plan.find(self.archive, quiet=self.quiet)
            for target in self.plan.targets:
                try:
                    report = await self._one(target)
                except _STOPS_ALL:
                    raise
                except PostdicomError as error:
                    # A single item's error is the command's; of several, the others are still tried.
                    if len(self.plan.targets) == 1:
                        raise
                    output.error(f"{target[-1]}: {output.in_options(error)}")
                    self.results.append(Result(target, getattr(error, "report", None), error))
                else:
                    self.results.append(Result(target, report))

    async def _one(self, target: tuple[str, ...]) -> DownloadReport:
        number = f" {len(self.results) + 1} of {len(self.plan.targets)}" if len(self.plan.targets) > 1 else ""
        call = getattr(self.archive, f"download_{self.plan.level}")
        into = self.into
        keeps_all = into.report is None
        async with Progress(f"Download{number}", quiet=self.quiet, keeps_all=keeps_all) as self.progress:
            report: DownloadReport = await call(
                *target,
                to=self.to,
                layout=self.layout,
                progress=self.progress,
                report=into.report,
                report_paths=into.report_paths,
            )
        return report

    def unfinished(self, error: PostdicomError | Interrupted) -> Result:
        """Return the partial result of the item under way."""
        target = self.plan.targets[len(self.results)] if len(self.results) < len(self.plan.targets) else ()
        seen = self.progress
        report = None if isinstance(error, Interrupted) else getattr(error, "report", None)
        return Result(target, report, None if isinstance(error, Interrupted) else error, seen)


def _tell(results: list[Result], error: object, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        output.write_document(document(results), error=error)
        return
    if quiet or (isinstance(error, Exception) and not any(result.saved_count for result in results)):
        return
    if not results:
        return
    text = summary_text(results)
    if not isinstance(error, Exception):
        output.write(text)
        if was_unchecked(results) and not was_contradicted(results):
            output.note("completeness could not be checked: the archive cannot be asked what it has")
    else:
        output.note(f"before it ended: {text}; the same command again fetches only the rest")


# --- results -------------------------------------------------------------------------------------------


_LISTINGS: tuple[str, ...] = ("unavailable", "not asked", "compared", "counted")
"""The weakest check first: several downloads count as checked like the least checked one."""


@dataclass(frozen=True)
class Result:
    """The result of one requested study, series or instance.

    Attributes:
        target: its UIDs, from the study down.
        report: the library's report; None if it ended before that.
        error: the error, None on success.
        seen: its progress, for use without a report.
    """

    target: tuple[str, ...]
    report: DownloadReport | None
    error: PostdicomError | None = None
    seen: Progress | None = None

    @property
    def saved(self) -> tuple[Outcome, ...]:
        """The instances written by this command; none with ``--report``, where they are in that file."""
        if self.report is not None:
            return self.report.saved
        return tuple(one for one in self.seen.finished if one.status is Status.SAVED) if self.seen is not None else ()

    @property
    def saved_count(self) -> int:
        """How many instances this command wrote."""
        return self.count(Status.SAVED)

    @property
    def size(self) -> int:
        """Their bytes."""
        if self.report is not None:
            return self.report.bytes_received
        return sum(one.size for one in self.saved) or (self.seen.bytes_done if self.seen and self.saved_count else 0)

    def count(self, status: Status) -> int:
        """Return how many instances came to an end."""
        counts = self.report.counts if self.report is not None else self.seen.counts if self.seen is not None else {}
        return counts.get(status, 0)


def summary_text(results: Iterable[Result]) -> str:
    """Return one line on all of them."""
    numbers = _numbers(results)
    words = [f"{numbers['saved']} saved"]
    words += [f"{numbers[name]} {name}" for name in ("already present", "missing", "refused") if numbers[name]]
    size, seconds = numbers["bytes"], numbers["seconds"]
    pace = f" in {output.time_text(seconds)}, {output.rate_text(size, seconds)}" if seconds else ""
    return f"{', '.join(words)}; {output.size_text(size)}{pace}"


def failure_text(results: Iterable[Result]) -> str:
    """Return one line on what failed."""
    results = list(results)
    numbers = _numbers(results)
    failed = sum(result.error is not None for result in results)
    words = [f"{failed} of {len(results)} downloads failed"] if failed else []
    words += [f"{numbers['missing']} instances are missing"] if numbers["missing"] else []
    words += [f"{numbers['refused']} parts of the answer were refused"] if numbers["refused"] else []
    if was_contradicted(results):
        words.append("what the archive lists contradicts what it sent, so that this is all cannot be told")
    return ", ".join(words) or "it is not known whether everything arrived"


def was_contradicted(results: Iterable[Result]) -> bool:
    """Whether the archive's own list or count contradicts what arrived, so that completeness is not shown."""
    return any(result.report.contradicted for result in results if result.report is not None)


def was_unchecked(results: Iterable[Result]) -> bool:
    """Whether something arrived whose completeness the archive could not confirm."""
    return _listing(result for result in results if result.error is None) == "unavailable"


def document(results: Iterable[Result]) -> dict[str, Any]:
    """Return the content of the JSON document."""
    results = list(results)
    items = [item for result in results for item in _items(result)]
    return {
        "summary": {
            **{name.replace(" ", "_"): value for name, value in _numbers(results).items()},
            "listing": _listing(results),
        },
        "items": items,
    }


def _numbers(results: Iterable[Result]) -> dict[str, Any]:
    results = list(results)
    reports = [result.report for result in results if result.report is not None]
    return {
        "saved": sum(result.saved_count for result in results),
        "already present": sum(result.count(Status.PRESENT) for result in results),
        "missing": sum(result.count(Status.MISSING) for result in results),
        "refused": sum(report.refused for report in reports),
        "bytes": sum(result.size for result in results),
        "seconds": sum(report.seconds for report in reports),
    }


def _listing(results: Iterable[Result]) -> str | None:
    found = [result.report.listing for result in results if result.report is not None]
    return min(found, key=_LISTINGS.index, default=None)


def _items(result: Result) -> list[dict[str, Any]]:
    items = [_item("saved", one.uids or (), path=one.where, size=one.size) for one in result.saved]
    if result.report is not None:
        items += [_item("already present", uids) for uids in result.report.already_present]
        items += [_item("missing", uids, reason="it did not arrive") for uids in result.report.missing]
    if result.error is not None and not items:
        items.append(_item("failed", result.target, reason=output.clean(result.error)))
    return items


def _item(
    status: str,
    uids: tuple[str, ...],
    *,
    path: str | None = None,
    size: int | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    study, series, instance = (*uids, None, None, None)[:3]
    return {
        "status": status,
        "study_instance_uid": study,
        "series_instance_uid": series,
        "sop_instance_uid": instance,
        "path": path,
        "bytes": size,
        "reason": reason,
    }
