"""``postdicom cloud upload`` and ``documents``: files to an account of the Cloud API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.cloud_connection import CloudAccount, CloudInstitution
from postdicom_async.cli.options import Common, ErrorIfNothing
from postdicom_async.cli.orders import Order
from postdicom_async.cli.paths import given_path, require_readable
from postdicom_async.cli.reporting import Reporting
from postdicom_async.cli.upload import Existing, SendTruncated, Sources
from postdicom_async.cli.upload_result import ReportAsJson, Telling, run_upload

if TYPE_CHECKING:
    from postdicom_async import UploadReport
    from postdicom_async.cli.progress import Progress

__all__ = ["documents", "upload"]


def upload(
    paths: Sources,
    account: CloudAccount,
    common: Common,
    anonymizing: Anonymizing,
    reporting: Reporting,
    institution_uuid: CloudInstitution = None,
    folder_uuid: Annotated[
        str | None,
        typer.Option("--folder", "--folder-uuid", metavar="UUID", help="A folder to put the files' orders into."),
    ] = None,
    existing: Annotated[
        Existing, typer.Option("--existing", help="What to do with files that the service says it has.")
    ] = Existing.SKIP,
    sockets: Annotated[
        int, typer.Option("--sockets", min=1, metavar="N", help="How many connections carry the files, up to 64.")
    ] = 4,
    send_truncated: SendTruncated = False,
    as_json: ReportAsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Upload files and folders, and write which patient orders hold them.

    Every file ends as stored, present, duplicate, failed, unconfirmed, not DICOM or unreadable. The exit code is 0 when
    every DICOM file is known to be there, 1 when some are not, 5 when a repeat may help with all of those.
    """
    require_readable(paths)
    rules, into = anonymizing.rules(), reporting.checked()
    api, named = account.cloud(), account.archive()

    async def send(progress: Progress) -> UploadReport:
        return await api.upload(
            [str(path) for path in paths],
            institution_uuid=institution_uuid or named.institution_uuid or None,
            folder_uuid=folder_uuid or named.folder_uuid or None,
            anonymize=rules,
            existing=existing.value,
            send_truncated=send_truncated,
            sockets=sockets,
            progress=progress,
            report=into.report,
            report_paths=into.report_paths,
        )

    again = anonymizing.again(skips_existing=existing is Existing.SKIP)
    telling = Telling(
        as_json,
        common.quiet,
        again,
        with_orders=True,
        error_if_nothing=error_if_nothing,
        keeps_all=into.report is None,
    )
    return run_upload(api, send, telling)


def documents(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            parser=given_path,
            help="PDF, JPEG, PNG, BMP and MP4 files, and folders to search; known by content, and the name must agree.",
        ),
    ],
    patient_order_uuid: Order,
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: ReportAsJson = False,
) -> int:
    """Attach documents to a patient order.

    Every file ends as stored, failed, unconfirmed or unreadable. One that is unconfirmed may be there: sent again, it
    could be attached twice. The exit code is 0 when every file is known to be attached, 1 when some are not.
    """
    require_readable(files)
    api = account.cloud()

    async def send(progress: Progress) -> UploadReport:
        return await api.upload_documents(
            [str(file) for file in files], patient_order_uuid, institution_uuid=institution_uuid, progress=progress
        )

    again = "attaches everything once more"
    return run_upload(api, send, Telling(as_json, common.quiet, again, with_orders=True))
