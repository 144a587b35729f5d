"""``postdicom share upload`` and ``cloud share upload``: files to a link in one command."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.connection import CloudOptions, PostdicomOptions, find_share_password
from postdicom_async.cli.exits import Exit, Interrupted, code_of
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import AsJson, Common, Reporting
from postdicom_async.cli.paths import FilesFrom, SourcePaths, sources_of
from postdicom_async.cli.progress import Progress
from postdicom_async.cli.upload import (
    LISTED,
    Existing,
    UploadInstitution,
    UploadOutput,
    arguments_of,
    list_failures,
    tell_partial,
    upload_counts,
    upload_document,
)

if TYPE_CHECKING:
    from postdicom_async import SharedUpload


@dataclass(frozen=True)
class LinkOptions:
    """The folder and the link."""

    expires: Annotated[str, typer.Option("--expires", metavar="DATE", help="The last day of the link, YYYY-MM-DD.")]
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="NAME", help="Make this folder for the orders; the link opens it."),
    ] = None
    folder_uuid: Annotated[
        str | None,
        typer.Option(
            "--folder-uuid", metavar="UUID", help="Put the orders into this folder; the link opens them alone."
        ),
    ] = None
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Of the link to a new folder.")] = None
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="Of the link to a new folder.")
    ] = None
    downloadable: Annotated[bool, typer.Option("--downloadable", help="Whoever opens the link may download too.")] = (
        False
    )
    with_password: Annotated[
        bool,
        typer.Option(
            "--with-password", help="Ask for a password for the link, if POSTDICOM_SHARE_PASSWORD holds none."
        ),
    ] = False

    def arguments(self) -> dict[str, Any]:
        """Return the library's arguments; prompts for a password that is wanted."""
        names = ("expires", "folder", "folder_uuid", "title", "description", "downloadable")
        password = find_share_password(wanted=self.with_password)
        return {"password": password, **{name: getattr(self, name) for name in names}}


def upload_and_share(
    link: LinkOptions,
    account: PostdicomOptions,
    common: Common,
    anonymizing: Anonymizing,
    reporting: Reporting,
    paths: SourcePaths = None,
    files_from: FilesFrom = None,
    existing: Annotated[
        Existing, typer.Option("--existing", help="What to do with files that the archive lists; they are shared too.")
    ] = Existing.SKIP,
    patience: Annotated[
        float,
        typer.Option("--patience", min=0.0, metavar="SECONDS", help="How long to wait until the orders are shown."),
    ] = 60.0,
    as_json: AsJson = False,
) -> int:
    """Upload files, put their orders into a folder if one is named, and write the address of a link.

    The link is made only when every DICOM file is stored. When a later step fails or is interrupted, what exists
    by then is said; the same command again skips what is stored (give --folder-uuid where the folder was made).
    """
    sources = sources_of(paths, files_from)
    told = UploadOutput(as_json, common.quiet, anonymizing.again(skips_existing=True, knows_copies=True))
    given = {**link.arguments(), "existing": existing.value, "patience": patience}
    return _run(account.client(), sources, anonymizing, reporting, told, given)


def cloud_upload_and_share(
    link: LinkOptions,
    account: CloudOptions,
    common: Common,
    anonymizing: Anonymizing,
    reporting: Reporting,
    paths: SourcePaths = None,
    files_from: FilesFrom = None,
    institution_uuid: UploadInstitution = None,
    existing: Annotated[
        Existing, typer.Option("--existing", help="What to do with files that the service has; they are shared too.")
    ] = Existing.SKIP,
    sockets: Annotated[
        int, typer.Option("--sockets", min=1, metavar="N", help="How many connections carry the files, up to 64.")
    ] = 4,
    as_json: AsJson = False,
) -> int:
    """Upload files, put their orders into a folder if one is named, and write the address of a link.

    The link is made only when every DICOM file is stored; it has a password only with --folder. When a later step
    fails or is interrupted, what exists by then is said; the same command again skips what is stored (give
    --folder-uuid where the folder was made).
    """
    sources = sources_of(paths, files_from)
    told = UploadOutput(as_json, common.quiet, anonymizing.again(skips_existing=True))
    given = {
        **link.arguments(),
        "existing": existing.value,
        "sockets": sockets,
        "institution_uuid": institution_uuid or account.archive().institution_uuid or None,
    }
    return _run(account.client(), sources, anonymizing, reporting, told, given)


def _run(
    client: Any,
    sources: list[Any],
    anonymizing: Anonymizing,
    reporting: Reporting,
    told: UploadOutput,
    given: dict[str, Any],
) -> int:
    given |= arguments_of(anonymizing, reporting)
    progress = Progress("Upload", quiet=told.quiet, keeps_all=given["report"] is None)

    exists: SharedUpload | None = None

    async def work() -> SharedUpload:
        nonlocal exists
        async with progress, client:
            try:
                exists = await client.upload_and_share(list(map(str, sources)), progress=progress, **given)
            except asyncio.CancelledError as cancelled:
                exists = getattr(cancelled, "shared", None)
                raise
            return exists

    try:
        done = run_async(work)
    except (PostdicomError, Interrupted) as error:
        if exists is None:
            tell_partial(error, progress, told)
        else:
            _tell_what_exists(exists, told, error=error)
        raise
    return _tell(done, told, has_password=given["password"] is not None)


def _tell(done: SharedUpload, told: UploadOutput, *, has_password: bool) -> int:
    """Write the address, and what was done; or what exists, and why it ended."""
    failed: str | None = None
    if done.problem is not None:
        failed = f"{done.step}: {output.in_options(done.problem)}"
    elif not done.url:
        failed = "shared, but the answer holds no address"
    _tell_what_exists(done, told, error=failed)
    if failed is not None:
        output.error(failed)
        return Exit.ITEMS_FAILED if done.problem is None else code_of(done.problem)
    if not has_password and not told.quiet:
        output.note("without a password: whoever has the address may look")
    return Exit.OK


def _tell_what_exists(done: SharedUpload, told: UploadOutput, *, error: object) -> None:
    """Write what was made; with an ``error`` that ended it, or None."""
    report = done.report
    if told.as_json:
        found = upload_document(
            report.outcomes, report.counts, report.bytes_sent, report.seconds, done.patient_order_uuids
        )
        more = {"folder_uuid": done.folder_uuid, "url": done.url, "step": done.step or None}
        output.write_document({**found, **more}, error=error)
        return
    list_failures(report)
    if not told.quiet or error:
        _note_what_exists(done)
    if isinstance(error, Interrupted) and done.problem is not None:
        output.note(f"{done.step}: {output.in_options(done.problem)}")
    if done.url:
        output.write(output.clean(done.url))


def _note_what_exists(done: SharedUpload) -> None:
    output.note(upload_counts(done.report.counts))
    for uuid in done.patient_order_uuids[:LISTED]:
        output.note(f"patient order {uuid}")
    if len(done.patient_order_uuids) > LISTED:
        output.note(f"and {len(done.patient_order_uuids) - LISTED} more patient orders; --json lists all")
    if done.folder_uuid:
        output.note(f"folder {done.folder_uuid}")
