"""`DicomWeb`, the client: opening and closing, upload, download, delete (PS3.18).

Searches are in `client_search`, what is retrieved into memory or as a stream in `client_retrieve`.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout
from postdicom_async.dicomweb.client_retrieve import ClientRetrieve
from postdicom_async.dicomweb.client_search import ClientSearch
from postdicom_async.dicomweb.dialects import DIALECTS, DICOMWEB, Dialect
from postdicom_async.dicomweb.download import Download
from postdicom_async.dicomweb.retrieve import Retrieval, Target, target_of
from postdicom_async.dicomweb.upload import Upload
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.http.endpoint import Unset, origin_of
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from postdicom_async.settings import Limits, Retry, Settings, Timeouts
from postdicom_async.transfer.outcomes import Outcomes, gathered_into

if TYPE_CHECKING:
    import os
    from types import TracebackType

    import httpx

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.sources import Sources
    from postdicom_async.http.endpoint import Auth
    from postdicom_async.results import DownloadReport, OnProgress, Outcome, UploadReport
    from postdicom_async.transfer.outcomes import Gathered, ReportFile


@public_face
class DicomWeb(ClientSearch, ClientRetrieve):
    """A DICOMweb archive (PS3.18), used as ``async with DicomWeb(url) as archive``.

    Args:
        url: the address of the service, for example ``https://archive.example/dicom-web``.
        auth: ``(user, password)``, a bearer token, a callable that gives one (asked again once after a 401, however
            many requests saw it), any ``httpx.Auth``, or None.
        settings: limits, time-outs, retry, TLS, proxy.
        transport: an httpx transport to use instead of ours on aiohttp; its own settings then count.
        dialect: the server's URL shapes, ``"dicomweb"`` or ``"postdicom"``, or a `Dialect` of your own.

    Raises:
        UsageError: an argument is wrong, or credentials would travel unencrypted.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: Auth = None,
        settings: Settings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        dialect: str | Dialect = DICOMWEB,
    ) -> None:
        if not isinstance(settings, Settings | None):
            raise UsageError("give Settings(...), or None", argument="settings")
        self._session = Session(url, auth=auth, settings=settings or Settings(), transport=transport)
        if isinstance(dialect, str):
            if dialect not in DIALECTS:
                raise UsageError(f"give one of {', '.join(DIALECTS)}", argument="dialect")
            dialect = DIALECTS[dialect]
        self._dialect = dialect
        self._retrieval = Retrieval(self._session, self._dialect)

    def __repr__(self) -> str:
        if "_retrieval" not in vars(self):  # the constructor refuses an argument, and a crash reporter looks at it
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__} {origin_of(self._session.url)} {self._dialect.name} {self.transport_name}>"

    @property
    def transport_name(self) -> str:
        """``"aiohttp"``, or ``"custom"`` for one that was passed."""
        return self._session.transport_name

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._session.settings

    @property
    def internals(self) -> Retrieval:
        """For other rooms of this package, the doctor and jobs: its session, dialect and what it has learned.

        Nothing is promised of it to callers.
        """
        return self._retrieval

    async def __aenter__(self) -> Self:
        await self._session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def with_options(
        self,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        fsync: bool | None = None,
        auth: Auth | Unset = Unset.UNSET,
        before_request: Callable[[], Awaitable[None]] | None = None,
    ) -> Self:
        """Return a copy with other settings on the same connections, valid as long as this one is open.

        With ``auth``, every request of the copy is made in that name, and none in another: a web backend makes such a
        copy for each of its users, or requests. They share the connections, so nothing is to be used that authenticates
        a connection instead of a request (NTLM, Negotiate). ``auth=None`` sends no credentials. ``before_request`` is
        that of `Settings`.

        Raises:
            UsageError: ``timeouts.connect``, ``limits.connections`` or ``limits.parallel_searches`` would change;
                ``auth`` is not what the constructor takes, or would travel unencrypted.
        """
        old = self.settings
        settings = replace(
            old,
            timeouts=timeouts or old.timeouts,
            retry=retry or old.retry,
            limits=limits or old.limits,
            fsync=old.fsync if fsync is None else fsync,
            before_request=before_request or old.before_request,
        )
        return self._over(self._session.with_settings(settings, auth=auth))

    def _over(self, session: Session) -> Self:
        """Return a copy with another session on the same connections."""
        other = copy.copy(self)
        other._session = session  # noqa: SLF001 - a copy of this very class
        other._retrieval = self._retrieval.over(session)  # noqa: SLF001 - as above
        return other

    # --- upload ---------------------------------------------------------------------------------------------------

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
        upload = Upload(
            self._retrieval,
            study_instance_uid=study_instance_uid,
            anonymize=anonymize,
            send_truncated=send_truncated,
            existing=existing,
            on_progress=None,
        )
        return await upload.run_as_one(sources)

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
        engine = self._uploading(sources, study_instance_uid, anonymize, existing, send_truncated, progress)
        return await gathered_into(report, engine, with_paths=report_paths)

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
        engine = self._uploading(sources, study_instance_uid, anonymize, existing, send_truncated, progress)
        return Outcomes(engine)

    def _uploading(
        self,
        sources: Sources,
        study_instance_uid: str | None,
        anonymize: Anonymization | None,
        existing: Literal["skip", "send"],
        send_truncated: bool,
        progress: OnProgress | None,
    ) -> Callable[[Gathered], Awaitable[UploadReport]]:
        async def engine(gathered: Gathered) -> UploadReport:
            upload = Upload(
                self._retrieval,
                study_instance_uid=study_instance_uid,
                anonymize=anonymize,
                send_truncated=send_truncated,
                existing=existing,
                on_progress=progress,
                gathered=gathered,
            )
            return await upload.run(sources)

        return engine

    # --- download -------------------------------------------------------------------------------------------------

    async def download_study(
        self,
        study_instance_uid: str,
        *,
        to: str | os.PathLike[str],
        layout: Layout = DEFAULT_LAYOUT,
        compare_with_search: bool = True,
        progress: OnProgress | None = None,
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> DownloadReport:
        """Write every instance of a study below a folder (PS3.18 section 10.4).

        A file under its final name is whole: it is written under another name, checked to be what was asked for, made
        durable (``settings.fsync``) and then renamed. What the folder has already is not fetched again. The result is
        compared with the archive's own count or list of instances, and only what is missing is asked for again. Where
        the archive can be asked for neither, ``report.listing`` is ``"unavailable"``. Where what it says contradicts
        what arrived, it is that too, ``report.contradicted`` is True and ``report.ok`` False: nothing is known to be
        missing, so nothing is raised, but nothing shows that it is all.

        It begins with one request for everything. Where that is slow, other connections take over series of the study,
        and of an answer that takes long its instances, as many at once as make the whole faster
        (``settings.limits.parallel_retrieves``).

        Args:
            study_instance_uid: which study.
            to: the folder, made where it does not exist.
            layout: a template with ``{study}``, ``{series}`` and ``{instance}``, or a function from `InstanceUids` to a
                relative path.
            compare_with_search: False leaves count and list out; a study that lacks instances then goes unnoticed.
            progress: called with typed events.
            report: a file that gets one JSON line an instance as it ends, appended, readable for you alone. What is
                returned then holds counts, and at most 10,000 instances each of what was there and of what needs
                attention, so that memory stays flat for millions.
            report_paths: write the files' paths into it too; a layout of your own may put patients' names there.

        Raises:
            IncompleteDownload: instances did not arrive; ``report`` names them, and what arrived is on disk.
            NotFound: the archive does not hold it.
            LocalFileError: the disk is full, or the folder cannot be written to.
            PostdicomError: the archive cannot be worked with.
        """
        target = target_of(study_instance_uid)
        engine = self._downloading(target, to, layout, compare_with_search, progress)
        return await gathered_into(report, engine, with_paths=report_paths)

    async def download_series(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        *,
        to: str | os.PathLike[str],
        layout: Layout = DEFAULT_LAYOUT,
        compare_with_search: bool = True,
        progress: OnProgress | None = None,
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> DownloadReport:
        """Write every instance of a series below a folder; see `download_study`."""
        target = target_of(study_instance_uid, series_instance_uid)
        engine = self._downloading(target, to, layout, compare_with_search, progress)
        return await gathered_into(report, engine, with_paths=report_paths)

    async def download_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        *,
        to: str | os.PathLike[str],
        layout: Layout = DEFAULT_LAYOUT,
        progress: OnProgress | None = None,
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> DownloadReport:
        """Write one instance below a folder; see `download_study`."""
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        engine = self._downloading(target, to, layout, False, progress)
        return await gathered_into(report, engine, with_paths=report_paths)

    def download_each(
        self,
        study_instance_uid: str,
        series_instance_uid: str | None = None,
        sop_instance_uid: str | None = None,
        *,
        to: str | os.PathLike[str],
        layout: Layout = DEFAULT_LAYOUT,
        compare_with_search: bool = True,
        progress: OnProgress | None = None,
    ) -> Outcomes[DownloadReport]:
        """Do what `download_study` does, and give each outcome as its instance ends: ``async for outcome in ...``.

        With a series or an instance, only that. Memory holds what is under way, whatever the number of instances. See
        `download_study` for arguments and errors, which are raised while the outcomes are read.
        """
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        compare = compare_with_search and sop_instance_uid is None
        return Outcomes(self._downloading(target, to, layout, compare, progress))

    def _downloading(
        self, target: Target, to: str | os.PathLike[str], layout: Layout, compare: bool, progress: OnProgress | None
    ) -> Callable[[Gathered], Awaitable[DownloadReport]]:
        async def engine(gathered: Gathered) -> DownloadReport:
            download = Download(self._retrieval, target, to, layout=layout, on_progress=progress, gathered=gathered)
            return await download.run(compare=compare)

        return engine

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
