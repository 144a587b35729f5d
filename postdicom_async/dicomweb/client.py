"""`DicomWeb`, the client: opening and closing, upload, download, delete (PS3.18).

Searches are in `client_search`, retrieval into memory or as a stream in `client_retrieve`.
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
from postdicom_async.http.credentials import Unset
from postdicom_async.http.endpoint import origin_of
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from postdicom_async.settings import Limits, Retry, Settings, Timeouts
from postdicom_async.transfer.outcomes import Gathered, Outcomes, gathered_into, watched
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    import os
    from types import TracebackType

    import httpx

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.sources import Sources
    from postdicom_async.events import OnEvent
    from postdicom_async.http.credentials import Auth
    from postdicom_async.results import DownloadReport, OnProgress, Outcome, UploadReport
    from postdicom_async.transfer.outcomes import ReportFile


@public_face
class DicomWeb(ClientSearch, ClientRetrieve):
    """A DICOMweb archive (PS3.18), used as ``async with DicomWeb(url) as archive``.

    Args:
        url: the address of the service, for example ``https://archive.example/dicom-web``.
        auth: ``(user, password)``; a bearer token; a callable that gives one, as text or `Token` (asked again once
            after a 401, however many requests saw it, and early where the `Token` says when it ends);
            `ClientCredentials` or what is in `postdicom_async.tokens`; any ``httpx.Auth``; or None.
        settings: limits, time-outs, retry, TLS, proxy.
        transport: an httpx transport to use instead of the built-in one on aiohttp; its own settings then apply.
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
        if "_retrieval" not in vars(self):  # the constructor refused an argument, and a crash reporter calls repr
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
        """The session, the dialect and what was learned of the server, for other packages in here: the doctor and jobs.

        Not part of the public interface.
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
        on_event: OnEvent | None = None,
    ) -> Self:
        """Return a copy with other settings on the same connections, valid as long as this one is open.

        With ``auth``, every request of the copy is made with those credentials and no others: a web backend makes such
        a copy for each user, or each request. The copies share connections, so do not use a scheme that authenticates a
        connection instead of a request (NTLM, Negotiate). ``auth=None`` sends no credentials. ``before_request`` and
        ``on_event`` are those of `Settings`.

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
            on_event=on_event or old.on_event,
        )
        return self._over(self._session.with_settings(settings, auth=auth))

    def _over(self, session: Session) -> Self:
        """Return a copy with another session on the same connections."""
        other = copy.copy(self)
        other._session = session  # noqa: SLF001 - a copy of this very class
        other._retrieval = replace(self._retrieval, session=session)  # noqa: SLF001 - as above
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
        """Store everything in one request (PS3.18 section 10.5); return one outcome per source.

        See `upload` for the arguments, and use it for more than one request can carry.
        """
        gathered = Gathered(keeps_all=True)
        upload = Upload(
            self._retrieval,
            study_instance_uid=study_instance_uid,
            anonymize=anonymize,
            send_truncated=send_truncated,
            existing=existing,
            on_progress=None,
            gathered=gathered,
        )

        async def engine(_: Gathered) -> UploadReport:
            return await upload.run_as_one(sources)

        report = await watched("store instances", self.settings.on_event, engine)(gathered)
        return report.outcomes

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
            sources: files, folders (searched recursively; DICOM is recognised by content), data sets, bytes, streams (a
                `Part`, an object with ``async read(n)``, and, inside a list, any async iterable of bytes), or an
                iterable or async iterable of them.
            study_instance_uid: refuse instances of any other study.
            anonymize: what to replace or remove on the way out; the files themselves stay as they are. What cannot be
                anonymised is not sent. Unless UIDs are changed, each copy is retrieved and compared: if the archive
                kept the original under that UID, the copy is FAILED, whatever the archive's answer says.
            existing: ``"send"``, or ``"skip"`` instances the archive lists (QIDO-RS, one list per study): they are
                PRESENT, judged by their UIDs alone. Without a list, or with a wrong one, everything is sent. An
                anonymised copy under its original's UIDs is not sent if those are listed: it is PRESENT if the archive
                holds exactly that copy, otherwise FAILED.
            send_truncated: send files that are cut off too. Without it they are UNREADABLE, and do not count as a
                source of their SOP Instance UID. A file is cut off if a length in it, or a sequence or pixel data
                without an end, shows that more must follow; if that cannot be determined it is sent.
            progress: called with typed events.
            report: a file to which one JSON line per source is appended as it ends; readable for you alone. The
                returned report then holds counts and the outcomes that need attention, so that memory stays flat for
                millions of sources.
            report_paths: write the sources' paths into it too; they may hold patients' names.

        Returns:
            One outcome per source. Files that are not DICOM or cannot be read are listed, not fatal; use
            ``report.raise_for_failures()`` if anything but success should raise. Of different sources with the same SOP
            Instance UID, the next is sent if the one before was refused; once one is stored, the rest fail.

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
        """Do what `upload` does, yielding each outcome as its source ends: ``async for outcome in ...``.

        Memory holds what is in flight, whatever the number of sources. See `upload` for arguments and errors, which are
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

        return watched("upload", self.settings.on_event, engine)

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

        A file under its final name is whole: it is written under another name, checked to be the instance requested,
        made durable (``settings.fsync``) and then renamed. Instances already in the folder are not fetched again. The
        result is compared with the archive's own count or list of instances, and only missing ones are requested again.
        If the archive offers neither, ``report.listing`` is ``"unavailable"``. If its count or list contradicts what
        arrived, ``report.listing`` is that too, ``report.contradicted`` is True and ``report.ok`` False: nothing is
        known to be missing, so nothing is raised, but completeness is not proven either.

        It begins with one request for everything. If that is slow, other connections take over series of the study,
        and, of an answer that takes long, single instances, as many in parallel as speed up the whole
        (``settings.limits.parallel_retrieves``).

        Args:
            study_instance_uid: which study.
            to: the folder, created if it does not exist.
            layout: a template with ``{study}``, ``{series}`` and ``{instance}``, or a function from `InstanceUids` to a
                relative path. A template may also have values of the header, such as ``{PatientID}``,
                ``{SeriesNumber}`` or ``{Modality}``: they put patient data into paths. What a path cannot hold becomes
                an underscore, a value that is absent ``unknown``. In a name they lie on one side of ``{instance}``,
                so that no value passes for its UID. A file that holds another instance is never replaced; the new one
                is refused.
            compare_with_search: False skips count and list; missing instances then go unnoticed.
            progress: called with typed events.
            report: a file to which one JSON line per instance is appended as it ends; readable for you alone. The
                returned report then holds counts, and at most 10,000 each of the instances already present and of those
                that need attention, so that memory stays flat for millions of instances.
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
        """Do what `download_study` does, yielding each outcome as its instance ends: ``async for outcome in ...``.

        With a series or an instance, only that is downloaded. Memory holds what is in flight, whatever the number of
        instances. See `download_study` for arguments and errors, which are raised while the outcomes are read.
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

        return watched(f"download {target.route}", self.settings.on_event, engine)

    # --- delete ---------------------------------------------------------------------------------------------------

    async def delete_study(self, study_instance_uid: str) -> None:
        """Delete a study. Not every archive offers this.

        Raises:
            NotFound: the archive does not hold it.
            ConnectionFailed: with ``may_have_arrived`` the outcome is unknown and only a search can tell. It is not
                repeated.
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
        with watch_call(call.operation):
            await self._session.fetch(call, cap=self.settings.limits.json_bytes)
