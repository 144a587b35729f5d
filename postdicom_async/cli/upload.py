"""``postdicom upload``: files and folders into an archive."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.connection import Connection
from postdicom_async.cli.options import Common, ErrorIfNothing
from postdicom_async.cli.paths import given_path, require_readable
from postdicom_async.cli.reporting import Reporting
from postdicom_async.cli.upload_result import ReportAsJson, Telling, run_upload

if TYPE_CHECKING:
    from postdicom_async import UploadReport
    from postdicom_async.cli.progress import Progress

__all__ = ["Existing", "SendTruncated", "Sources", "upload"]

Sources: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...", parser=given_path, help="Files, and folders to search; DICOM is known by content."
    ),
]


SendTruncated: TypeAlias = Annotated[
    bool, typer.Option("--send-truncated", help="Send files that are cut off too. Without it they are unreadable.")
]


class Existing(StrEnum):
    """What is done with a file that the archive says it has."""

    SKIP = "skip"
    SEND = "send"


def upload(
    paths: Sources,
    connection: Connection,
    common: Common,
    anonymizing: Anonymizing,
    reporting: Reporting,
    existing: Annotated[
        Existing, typer.Option("--existing", help="What to do with files that the archive lists.")
    ] = Existing.SEND,
    send_truncated: SendTruncated = False,
    as_json: ReportAsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Store files and folders in an archive.

    Every file ends as stored, warned, present, duplicate, failed, unconfirmed, not DICOM or unreadable. The exit code
    is 0 when every DICOM file is known to be in the archive, 1 when some are not, 5 when a repeat may help with all of
    those.
    """
    require_readable(paths)
    rules, into = anonymizing.rules(), reporting.checked()
    archive = connection.client()

    async def send(progress: Progress) -> UploadReport:
        files = [str(path) for path in paths]
        return await archive.upload(
            files,
            anonymize=rules,
            existing=existing.value,
            send_truncated=send_truncated,
            progress=progress,
            report=into.report,
            report_paths=into.report_paths,
        )

    again = anonymizing.again(skips_existing=existing is Existing.SKIP, knows_copies=True)
    telling = Telling(as_json, common.quiet, again, error_if_nothing=error_if_nothing, keeps_all=into.report is None)
    return run_upload(archive, send, telling)
