"""``postdicom upload``, ``cloud upload`` and ``cloud documents``: store files, and report the outcome of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from postdicom_async import Outcome, PostdicomError, Status
from postdicom_async.cli import output
from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.connection import CloudOptions, ConnectionOptions
from postdicom_async.cli.exits import Exit, Interrupted, code_of_failures
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common, ErrorIfNothing, Reporting
from postdicom_async.cli.paths import FilesFrom, SourcePaths, given_path, require_readable, sources_of
from postdicom_async.cli.progress import Progress
from postdicom_async.dicom.anonymize.identities import NOT_IN_TABLE as _UNKNOWN_PATIENT
from postdicom_async.dicom.anonymize.rules import CANNOT_ANONYMIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from postdicom_async import UploadReport


SendTruncated: TypeAlias = Annotated[
    bool, typer.Option("--send-truncated", help="Send files that are cut off too. Without it they are unreadable.")
]


class Existing(StrEnum):
    """What to do with a file that the archive reports as present."""

    SKIP = "skip"
    SEND = "send"


def upload(
    connection: ConnectionOptions,
    common: Common,
    anonymizing: Anonymizing,
    reporting: Reporting,
    paths: SourcePaths = None,
    files_from: FilesFrom = None,
    existing: Annotated[
        Existing, typer.Option("--existing", help="What to do with files that the archive lists.")
    ] = Existing.SEND,
    send_truncated: SendTruncated = False,
    as_json: ReportAsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Store files and folders in an archive.

    Every file ends as stored, warned, present, duplicate, failed, unconfirmed, not DICOM or unreadable. The exit code
    is 0 when every DICOM file is known to be in the archive, 1 when some are not, 5 when a retry may help with all of
    those.
    """
    sources = sources_of(paths, files_from)
    again = anonymizing.again(skips_existing=existing is Existing.SKIP, knows_copies=True)
    told = UploadOutput(as_json, common.quiet, again, error_if_nothing=error_if_nothing)
    given = {"existing": existing.value, "send_truncated": send_truncated}
    return _upload(connection, sources, anonymizing, reporting, told, **given)


def _upload(
    account: ConnectionOptions | CloudOptions,
    paths: Sequence[Path],
    anonymizing: Anonymizing,
    reporting: Reporting,
    told: UploadOutput,
    **given: Any,
) -> int:
    """Upload files as the options say; ``given`` are the arguments that are the library's own."""
    given |= arguments_of(anonymizing, reporting)
    client: Any = account.client()

    async def send(progress: Progress) -> UploadReport:
        report: UploadReport = await client.upload([str(path) for path in paths], progress=progress, **given)
        return report

    return run_upload(client, send, replace(told, keeps_all=given["report"] is None))


def arguments_of(anonymizing: Anonymizing, reporting: Reporting) -> dict[str, Any]:
    """Return the library's arguments for what is changed in files and where their outcomes are written."""
    rules, into = anonymizing.rules(), reporting.checked()
    return {"anonymize": rules, "report": into.report, "report_paths": into.report_paths}


# --- running an upload, and telling what it came to -------------------------------------------------------------------


LISTED = 20
"""How many of a kind are told one by one."""

ReportAsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Write one JSON document: a summary and the outcome of every file.")
]


@dataclass(frozen=True)
class UploadOutput:
    """How an upload's result is written.

    Attributes:
        as_json: as one JSON document.
        quiet: no progress and no summary.
        again: what repeating the command would do after an early end.
        with_orders: include the patient orders that the service named.
        error_if_nothing: nothing to send is a failure.
        keeps_all: write every outcome, not only those that need attention.
    """

    as_json: bool
    quiet: bool
    again: str
    with_orders: bool = False
    error_if_nothing: bool = False
    keeps_all: bool = True


def run_upload(
    client: AbstractAsyncContextManager[Any],
    send: Callable[[Progress], Coroutine[Any, Any, UploadReport]],
    telling: UploadOutput,
) -> int:
    """Open the client, send, close; write the result, also after an early end.

    Raises:
        PostdicomError: the archive fails.
        Interrupted: the user stopped it.
    """
    progress = Progress("Upload", quiet=telling.quiet, keeps_all=telling.keeps_all)

    async def work() -> UploadReport:
        async with progress, client:
            return await send(progress)

    try:
        report = run_async(work)
    except (PostdicomError, Interrupted) as error:
        tell_partial(error, progress, telling)
        raise
    return _tell(report, telling)


def _tell(report: UploadReport, telling: UploadOutput) -> int:
    """Write the outcome of every file; return the exit code."""
    orders = report.patient_order_uuids if telling.with_orders else None
    code, line = _end_of(report, telling)
    if telling.as_json:
        found = upload_document(report.outcomes, report.counts, report.bytes_sent, report.seconds, orders)
        output.write_document(found, error=None if code == Exit.OK else line)
    else:
        list_failures(report, told_in="--json lists all" if telling.keeps_all else "the file of --report lists all")
        if not telling.quiet and not _is_nothing(report):
            rate = output.rate_text(report.bytes_sent, report.seconds)
            size, seconds = output.size_text(report.bytes_sent), output.time_text(report.seconds)
            output.write(f"{upload_counts(report.counts, report.failures)}; {size} in {seconds}, {rate}")
            _list_orders(orders or ())
    if code != Exit.OK:
        output.error(line or "")
    elif line and not telling.quiet:
        output.note(line)
    return code


def _is_nothing(report: UploadReport) -> bool:
    return set(report.counts) <= {Status.NOT_DICOM}


def _failed(report: UploadReport) -> int:
    return sum(number for status, number in report.counts.items() if not Outcome("", status).ok)


def _end_of(report: UploadReport, telling: UploadOutput) -> tuple[Exit, str | None]:
    """Return the exit code, and one line that explains a code other than 0."""
    if _is_nothing(report):
        found = f"none of {report.total} files is DICOM" if report.total else "no file was found"
        archives = sum("unpack it" in (outcome.reason or "") for outcome in report.outcomes)
        hint = f"; {archives} are packed archives: unpack them" if archives else ""
        return (Exit.NOTHING if telling.error_if_nothing else Exit.OK), f"nothing to upload: {found}{hint}"
    if report.ok:
        return Exit.OK, None
    words = f"{_failed(report)} of {report.total} files are not known to be stored"
    if _left_out(report.counts, report.failures)[Status.UNREADABLE, _NOT_IN_TABLE] == _failed(report):
        words = f"{_failed(report)} of {report.total} files were not sent: their patients are not in the table"
    return code_of_failures(report.failures), words


def tell_partial(error: PostdicomError | Interrupted, progress: Progress, telling: UploadOutput) -> None:
    """Write what was done before an early end."""
    report: UploadReport | None = getattr(error, "report", None)
    counts = progress.counts if report is None else report.counts
    outcomes = progress.finished if report is None else report.outcomes
    if telling.as_json:
        seconds = None if report is None else report.seconds
        named = {outcome.patient_order_uuid: None for outcome in outcomes if outcome.patient_order_uuid}
        orders = (tuple(named) if report is None else report.patient_order_uuids) if telling.with_orders else None
        size = progress.bytes_done if report is None else report.bytes_sent
        output.write_document(upload_document(outcomes, counts, size, seconds, orders), error=error)
    elif any(Outcome("", status).in_archive for status in counts):
        output.note(f"before it ended: {upload_counts(counts, outcomes)}; the same command again {telling.again}")


_NOT_SENT = "not sent: "
_NOT_IN_TABLE = f"{CANNOT_ANONYMIZE}: {_UNKNOWN_PATIENT}"
_LEFT_OUT = {
    (Status.UNREADABLE, _NOT_IN_TABLE): "not in the table of patients, not sent",
    (Status.FAILED, _NOT_SENT): "not sent",
}
"""What has a status but deserves words of its own: how its reason begins, and these words."""


def upload_counts(counts: Mapping[Status, int], outcomes: Iterable[Outcome] = ()) -> str:
    """Return how many files came to each end; ``outcomes`` tell which were left out, not failed."""
    left_out = _left_out(counts, outcomes)
    parts = []
    for status, count in counts.items():
        its = {words: left_out[key] for key, words in _LEFT_OUT.items() if key[0] is status and left_out[key]}
        if rest := count - sum(its.values()):
            parts.append(f"{rest} {status}")
        parts += [f"{number} {words}" for words, number in its.items()]
    return ", ".join(parts) or "nothing"


def _left_out(counts: Mapping[Status, int], outcomes: Iterable[Outcome]) -> Counter[tuple[Status, str]]:
    """Count what was left out, by the keys of `_LEFT_OUT`; nothing if there are outcomes that were not kept."""
    troubled = [outcome for outcome in outcomes if not outcome.ok]
    if len(troubled) < sum(number for status, number in counts.items() if not Outcome("", status).ok):
        return Counter()
    keys = ((key, outcome) for outcome in troubled for key in _LEFT_OUT)
    return Counter(key for key, one in keys if one.status is key[0] and (one.reason or "").startswith(key[1]))


def list_failures(report: UploadReport, *, told_in: str = "--json lists all") -> None:
    """Write what needs attention to standard error; ``told_in`` says where the rest is."""
    for outcome in report.failures[:LISTED]:
        code = "" if outcome.reason_code is None else f" ({outcome.reason_code:04X})"
        reason = output.in_options(outcome.reason or "no reason given")
        status = outcome.status.value
        if reason.startswith(_NOT_IN_TABLE):
            status, reason = "not sent", reason.removeprefix(f"{CANNOT_ANONYMIZE}: ")
        output.note(f"{outcome.where}: {status}{code}: {reason}")
    if _failed(report) > LISTED:
        output.note(f"and {_failed(report) - LISTED} more; {told_in}")


def _list_orders(uuids: tuple[str, ...]) -> None:
    for uuid in uuids[:LISTED]:
        output.write(f"patient order {output.clean(uuid)}")
    if len(uuids) > LISTED:
        output.write(f"and {len(uuids) - LISTED} more patient orders; --json lists all")


def upload_document(
    outcomes: Iterable[Outcome],
    counts: Mapping[Status, int],
    size: int,
    seconds: float | None,
    orders: Iterable[str] | None,
) -> dict[str, Any]:
    """Return the content of the JSON document."""
    by_status = {status.value: number for status, number in counts.items()}
    return {
        "summary": {"instances": sum(counts.values()), **by_status, "bytes": size, "seconds": seconds},
        **({} if orders is None else {"patient_order_uuids": list(orders)}),
        "items": [_item(outcome, with_order=orders is not None) for outcome in outcomes],
    }


def _item(outcome: Outcome, *, with_order: bool) -> dict[str, Any]:
    uids = outcome.uids
    return {
        "source": outcome.where,
        "status": outcome.status.value,
        "study_instance_uid": uids.study_instance_uid if uids else None,
        "series_instance_uid": uids.series_instance_uid if uids else None,
        "sop_instance_uid": uids.sop_instance_uid if uids else None,
        "bytes": outcome.size,
        "reason_code": outcome.reason_code,
        "reason": outcome.reason,
        **({"patient_order_uuid": outcome.patient_order_uuid} if with_order else {}),
    }


# --- to the Cloud API -------------------------------------------------------------------------------------------------

UploadInstitution: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--institution-uuid",
        metavar="UUID|NAME",
        help="The institution, by UUID or name. Not needed if the user has only one.",
    ),
]


def cloud_upload(
    account: CloudOptions,
    common: Common,
    anonymizing: Anonymizing,
    reporting: Reporting,
    paths: SourcePaths = None,
    files_from: FilesFrom = None,
    institution_uuid: UploadInstitution = None,
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
    sources = sources_of(paths, files_from)
    again = anonymizing.again(skips_existing=existing is Existing.SKIP)
    told = UploadOutput(as_json, common.quiet, again, with_orders=True, error_if_nothing=error_if_nothing)
    named = account.archive()
    return _upload(
        account,
        sources,
        anonymizing,
        reporting,
        told,
        institution_uuid=institution_uuid or named.institution_uuid or None,
        folder_uuid=folder_uuid or named.folder_uuid or None,
        existing=existing.value,
        send_truncated=send_truncated,
        sockets=sockets,
    )


def documents(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            parser=given_path,
            help="PDF, JPEG, PNG, BMP and MP4 files, and folders to search; known by content, and the name must agree.",
        ),
    ],
    patient_order_uuid: Annotated[str, typer.Option("--patient-order-uuid", metavar="UUID", help="The order.")],
    account: CloudOptions,
    common: Common,
    institution_uuid: UploadInstitution = None,
    as_json: ReportAsJson = False,
) -> int:
    """Attach documents to a patient order.

    Every file ends as stored, failed, unconfirmed or unreadable. One that is unconfirmed may be there: sent again, it
    could be attached twice. The exit code is 0 when every file is known to be attached, 1 when some are not.
    """
    require_readable(files)
    api = account.client()

    async def send(progress: Progress) -> UploadReport:
        return await api.upload_documents(
            [str(file) for file in files], patient_order_uuid, institution_uuid=institution_uuid, progress=progress
        )

    again = "attaches everything once more"
    return run_upload(api, send, UploadOutput(as_json, common.quiet, again, with_orders=True))
