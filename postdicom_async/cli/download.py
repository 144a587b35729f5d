"""``postdicom download``: studies, series and instances to a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    LocalFileError,
    PostdicomError,
    RateLimited,
    UsageError,
)
from postdicom_async.cli import output
from postdicom_async.cli.connection import Connection
from postdicom_async.cli.download_result import (
    Result,
    document,
    failure_text,
    summary_text,
    was_contradicted,
    was_unchecked,
)
from postdicom_async.cli.exits import Exit, Interrupted, code_of, code_of_all
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common, ErrorIfNothing, level_of
from postdicom_async.cli.paths import given_path, leaving_no_empty, require_writable
from postdicom_async.cli.progress import Progress
from postdicom_async.cli.reporting import Reporting

if TYPE_CHECKING:
    from postdicom_async import DicomWeb, DownloadReport

__all__ = ["download"]

_STOPS_ALL = (AuthenticationFailed, ConnectionFailed, LocalFileError, RateLimited, UsageError)
"""What would happen to the next one just the same."""


class Level(StrEnum):
    """What is downloaded."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


_PARENTS = {Level.STUDY: (), Level.SERIES: ("study",), Level.INSTANCE: ("study", "series")}


def download(
    level: Annotated[
        Level, typer.Argument(parser=level_of(Level), metavar="study|series|instance", help="What to download.")
    ],
    uids: Annotated[
        list[str],
        typer.Argument(
            metavar="UID...",
            help="study: one or more Study Instance UIDs. series: the study's UID, then one or more Series Instance "
            "UIDs. instance: the study's and the series' UID, then one or more SOP Instance UIDs.",
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", parser=given_path, help="The folder, made where it does not exist.")
    ],
    connection: Connection,
    common: Common,
    reporting: Reporting,
    layout: Annotated[
        str, typer.Option("--layout", metavar="TEMPLATE", help="Where an instance lies below the folder.")
    ] = "{study}/{series}/{instance}.dcm",
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document: a summary and every instance.")
    ] = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Download studies, series or instances to a folder.

    A file under its final name is whole. What the folder holds already is not fetched again, so the same command
    continues what was interrupted. What arrived is compared with the archive's own count or list.
    """
    targets = targets_of(level, uids)
    into = reporting.checked()
    require_writable(to, "--to")
    job = _Job(connection.client(), level, targets, to, layout, into, quiet=common.quiet)
    try:
        with leaving_no_empty(to):
            run_async(job.run)
    except (PostdicomError, Interrupted) as error:
        job.results.append(job.unfinished(error))
        _tell(job.results, error, as_json=as_json, quiet=common.quiet)
        raise
    code, line = _end_of(job.results, error_if_nothing=error_if_nothing)
    _tell(job.results, line, as_json=as_json, quiet=common.quiet)
    if line is not None:
        output.error(line)
    return code


def targets_of(level: Level, uids: list[str]) -> list[tuple[str, ...]]:
    """Return the UIDs that address each item: the parents once, then one or more of the level itself.

    Raises:
        UsageError: there are too few.
    """
    parents = len(_PARENTS[level])
    if len(uids) <= parents:
        names = " and ".join((*_PARENTS[level], level))
        raise UsageError(f"download {level}: give the UIDs of {names}, in this order")
    return [(*uids[:parents], uid) for uid in dict.fromkeys(uids[parents:])]


def _end_of(results: list[Result], *, error_if_nothing: bool) -> tuple[Exit, str | None]:
    """Return the exit code, and in one line why it is not 0."""
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
    level: Level
    targets: list[tuple[str, ...]]
    to: Path
    layout: str
    into: Reporting
    quiet: bool
    results: list[Result] = field(default_factory=list)
    progress: Progress | None = None

    async def run(self) -> None:
        """Download everything; what is not there is noted, what concerns all of them raises."""
        async with self.archive:
            for target in self.targets:
                try:
                    report = await self._one(target)
                except _STOPS_ALL:
                    raise
                except PostdicomError as error:
                    if len(self.targets) == 1:
                        raise
                    output.error(f"{target[-1]}: {output.in_options(error)}")
                    self.results.append(Result(target, getattr(error, "report", None), error))
                else:
                    self.results.append(Result(target, report))

    async def _one(self, target: tuple[str, ...]) -> DownloadReport:
        number = f" {len(self.results) + 1} of {len(self.targets)}" if len(self.targets) > 1 else ""
        call = getattr(self.archive, f"download_{self.level}")
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
        """Return what is known of the item that was under way."""
        target = self.targets[len(self.results)] if len(self.results) < len(self.targets) else ()
        seen = self.progress
        report = None if isinstance(error, Interrupted) else getattr(error, "report", None)
        return Result(target, report, None if isinstance(error, Interrupted) else error, seen)


def _tell(results: list[Result], error: object, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        output.write_document(document(results), error=error)
        return
    if quiet or (isinstance(error, Exception) and not any(result.saved_count for result in results)):
        return
    text = summary_text(results)
    if not isinstance(error, Exception):
        output.write(text)
        if was_unchecked(results) and not was_contradicted(results):
            output.note("completeness could not be checked: the archive cannot be asked what it has")
    else:
        output.note(f"before it ended: {text}; the same command again fetches only the rest")
