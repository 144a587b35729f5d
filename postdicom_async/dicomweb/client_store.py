"""Store and delete: what changes an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from postdicom_async.dicom.uids import checked_uid
from postdicom_async.dicomweb.client_base import ClientBase, target_of
from postdicom_async.dicomweb.upload import Upload
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call
from postdicom_async.transfer.outcomes import Outcomes, gathered_into

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicomweb.retrieve import Target
    from postdicom_async.disk.sources import Sources
    from postdicom_async.results import OnProgress, Outcome, UploadReport
    from postdicom_async.transfer.outcomes import Gathered, ReportFile

__all__ = ["ClientStore"]


class _Options(NamedTuple):
    """What an upload is asked for; see `ClientStore.upload`."""

    study_instance_uid: str | None
    anonymize: Anonymization | None
    send_truncated: bool
    existing: Literal["skip", "send"]


class ClientStore(ClientBase):
    """STOW-RS and delete."""

    async def store_instances(
        self,
        sources: Sources,
        study_instance_uid: str | None = None,
        *,
        anonymize: Anonymization | None = None,
        existing: Literal["skip", "send"] = "send",
        send_truncated: bool = False,
    ) -> tuple[Outcome, ...]:
        """Store everything in one request (PS3.18 section 10.5); one outcome a source.

        See `upload` for the arguments and for more than one request can carry.
        """
        options = _Options(study_instance_uid, anonymize, send_truncated, existing)
        return await self._upload(options, None).run_as_one(sources)

    async def upload(
        self,
        sources: Sources,
        *,
        study_instance_uid: str | None = None,
        anonymize: Anonymization | None = None,
        existing: Literal["skip", "send"] = "send",
        send_truncated: bool = False,
        progress: OnProgress | None = None,
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> UploadReport:
        """Store any number of instances, in batches, several requests at a time; bytes go out as they are on disk.

        Args:
            sources: files, folders (searched recursively; DICOM is recognised by content), data sets, bytes, streams
                (a `Part`, what has ``async read(n)``, and in a list any async iterable of bytes), or an iterable or
                async iterable of them.
            study_instance_uid: refuse instances of any other study.
            anonymize: what to replace or remove on the way out; the files themselves stay as they are. What cannot be
                anonymised is not sent. Unless it changes UIDs, each copy is retrieved and compared: where the archive
                keeps the original that it has under that UID, the copy is FAILED, whatever the archive says.
            existing: ``"send"``, or ``"skip"`` what the archive lists (QIDO-RS, one list a study): it is PRESENT, told
                by its UIDs alone. Where there is no list, or a wrong one, all is sent. An anonymised copy under its
                original's UIDs is not sent over what is listed: it is PRESENT when the archive holds just that, else
                FAILED.
            send_truncated: send files that are cut off too. Without it they are UNREADABLE, and never stand for their
                SOP Instance UID. A file is cut off where a length in it, or a sequence or pixel data without an end,
                says that more must come; where that cannot be told it is sent.
            progress: called with typed events.
            report: a file that gets one JSON line a source as it ends, appended, readable for you alone. What is
                returned then holds counts and what needs attention, so that memory stays flat for millions.
            report_paths: write the sources' paths into it too; they may hold patients' names.

        Returns:
            One outcome a source. Files that are not DICOM or cannot be read are listed, not fatal; use
            ``report.raise_for_failures()`` where anything but success should raise. Of sources that differ and have one
            SOP Instance UID, the next is sent when the one before was refused; once one is stored, the rest fail.

        Raises:
            UsageError: a source is of a kind that cannot be sent.
            LocalFileError: a path that was named does not exist, or the report cannot be written.
            PostdicomError: the archive cannot be worked with; ``report`` on the exception says how far it came.
        """
        options = _Options(study_instance_uid, anonymize, send_truncated, existing)
        return await gathered_into(report, self._uploading(sources, options, progress), with_paths=report_paths)

    def upload_each(
        self,
        sources: Sources,
        *,
        study_instance_uid: str | None = None,
        anonymize: Anonymization | None = None,
        existing: Literal["skip", "send"] = "send",
        send_truncated: bool = False,
        progress: OnProgress | None = None,
    ) -> Outcomes[UploadReport]:
        """Do what `upload` does, and give each outcome as its source ends: ``async for outcome in ...``.

        Memory holds what is under way, whatever the number of sources. See `upload` for arguments and errors, which are
        raised while the outcomes are read.
        """
        options = _Options(study_instance_uid, anonymize, send_truncated, existing)
        return Outcomes(self._uploading(sources, options, progress))

    def _uploading(
        self, sources: Sources, options: _Options, progress: OnProgress | None
    ) -> Callable[[Gathered], Awaitable[UploadReport]]:
        async def engine(gathered: Gathered) -> UploadReport:
            return await self._upload(options, progress, gathered).run(sources)

        return engine

    def _upload(self, options: _Options, progress: OnProgress | None, gathered: Gathered | None = None) -> Upload:
        study = options.study_instance_uid
        return Upload(
            self._retrieval,
            study_instance_uid=None if study is None else checked_uid(study, "study_instance_uid"),
            anonymize=options.anonymize,
            send_truncated=options.send_truncated,
            existing=options.existing,
            on_progress=progress,
            gathered=gathered,
        )

    # --- delete ---------------------------------------------------------------------------------------------------

    async def delete_study(self, study_instance_uid: str) -> None:
        """Delete a study. Not part of every archive.

        Raises:
            NotFound: the archive does not hold it.
            ConnectionFailed: with ``may_have_arrived`` the outcome is unknown; a search tells. It is not repeated.
        """
        await self._delete(target_of(study_instance_uid))

    async def delete_series(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """Delete a series; see `delete_study`."""
        await self._delete(target_of(study_instance_uid, series_instance_uid))

    async def delete_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> None:
        """Delete an instance; see `delete_study`."""
        await self._delete(target_of(study_instance_uid, series_instance_uid, sop_instance_uid))

    async def _delete(self, target: Target) -> None:
        call = Call(f"delete {target.route}", "DELETE", target.path(self._dialect), Repeat.CHANGE)
        await self._session.fetch(call, cap=self.settings.limits.json_bytes)
