"""PostDICOM's Cloud API, as a client."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, Self

from postdicom_async.cloud.bring_up import checked_keys
from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.connection import Connection
from postdicom_async.cloud.documents import DocumentUpload
from postdicom_async.cloud.facades import CloudFlags, CloudGroups, CloudNodes, CloudShares, CloudUsers, CloudView
from postdicom_async.cloud.folders import CloudFolders
from postdicom_async.cloud.orders import CloudOrders
from postdicom_async.cloud.upload import CloudUpload
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.http.endpoint import origin_of
from postdicom_async.settings import Settings
from postdicom_async.transfer.outcomes import Gathered, Outcomes, gathered_into, watched
from postdicom_async.vendor.answers import Account
from postdicom_async.vendor.sharing import TITLE, SharedUpload, Sharing, shared
from postdicom_async.vendor.wire import CloudWire
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import date
    from types import TracebackType
    from uuid import UUID

    import httpx

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.scan import Files
    from postdicom_async.disk.sources import Sources
    from postdicom_async.results import OnProgress, UploadReport
    from postdicom_async.transfer.outcomes import ReportFile

_OF_UPLOAD = frozenset(
    {"anonymize", "existing", "institution_uuid", "progress", "report", "report_paths", "sockets", "sources"}
)


@public_face
class CloudApi:
    """A PostDICOM account over the Cloud API, used as ``async with CloudApi(api_key, account_key) as api``.

    Everything is done in the name of one user of the account. Many requests may be in flight at once. A dropped
    connection is reopened with the next request; reads that were in flight are repeated, changes are not.

    Args:
        api_key: the API key, a UUID.
        account_key: the account key, a UUID.
        user: UUID, user name or full name of the user; not needed when the account has one.
        router_url: the server to ask for addresses and the session; by default that of ``CloudWire``.
        settings: limits, time-outs, retry, TLS, proxy.
        transport: an httpx transport for the HTTP requests, instead of ours on aiohttp.
        wire: what is assumed of the service; see `CloudWire`.

    Raises:
        UsageError: an argument is wrong.
    """

    def __init__(
        self,
        api_key: UUID | str,
        account_key: UUID | str,
        *,
        user: UUID | str | None = None,
        router_url: str | None = None,
        settings: Settings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        wire: CloudWire | None = None,
    ) -> None:
        keys = checked_keys(api_key, account_key)
        settings, wire = Settings() if settings is None else settings, CloudWire() if wire is None else wire
        if not isinstance(settings, Settings):
            raise UsageError("give Settings(...), or None", argument="settings")
        if not isinstance(wire, CloudWire):
            raise UsageError("give CloudWire(...), or None", argument="wire")
        self._router_url = wire.router_url if router_url is None else router_url
        self._connection = Connection(keys, self._router_url, settings=settings, wire=wire, transport=transport)
        self._user = user

    def __repr__(self) -> str:
        if "_user" not in vars(self):  # the constructor refused an argument, and a crash reporter calls repr
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__} {origin_of(self._router_url)}>"

    async def __aenter__(self) -> Self:
        """Open the session.

        Raises:
            AuthenticationFailed: the service does not accept the keys.
            ConnectionFailed: the service cannot be reached.
        """
        await self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    def as_user(self, user: UUID | str) -> Self:
        """Return a copy that works in the name of another user of the account, on the same connection."""
        other = copy.copy(self)
        other._user = user  # noqa: SLF001 - a copy of this very class
        return other

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._connection.settings

    @property
    def account(self) -> Account:
        """The account: its users, and the institutions each may work in."""
        return self._connection.account

    # --- operations ----------------------------------------------------------------------------------------------

    @property
    def orders(self) -> CloudOrders:
        """Patient orders: create, search, properties, delete, assign."""
        return CloudOrders(self._caller)

    @property
    def folders(self) -> CloudFolders:
        """Folders: create, search, change, delete, fill, share."""
        return CloudFolders(self._caller)

    @property
    def shares(self) -> CloudShares:
        """Links and e-mails that share orders."""
        return CloudShares(self._caller)

    @property
    def view(self) -> CloudView:
        """Links that open the viewer."""
        return CloudView(self._caller)

    @property
    def groups(self) -> CloudGroups:
        """Groups of connected orders."""
        return CloudGroups(self._caller)

    @property
    def flags(self) -> CloudFlags:
        """Flags of orders."""
        return CloudFlags(self._caller)

    @property
    def nodes(self) -> CloudNodes:
        """The account's DICOM nodes."""
        return CloudNodes(self._caller)

    @property
    def users(self) -> CloudUsers:
        """The account's users, user groups and contacts."""
        return CloudUsers(self._caller)

    # --- files ---------------------------------------------------------------------------------------------------

    async def upload(
        self,
        sources: Sources,
        *,
        institution_uuid: UUID | str | None = None,
        folder_uuid: UUID | str | None = None,
        anonymize: Anonymization | None = None,
        existing: Literal["skip", "send"] = "skip",
        send_truncated: bool = False,
        sockets: int = 4,
        progress: OnProgress | None = None,
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> UploadReport:
        """Upload DICOM files in parts, over several connections (JavaScript library: the four ``UploadDicomFiles…``).

        Args:
            sources: files, folders (searched recursively; DICOM is recognised by content), data sets, bytes, streams (a
                `Part`, an object with ``async read(n)``, and, inside a list, any async iterable of bytes), or an
                iterable or async iterable of them.
            institution_uuid: the institution the images will belong to, by UUID or name; not needed if the user has
                only one.
            folder_uuid: a folder to put their orders into.
            anonymize: what to replace or remove on the way out; the files themselves stay as they are. Unless UIDs are
                changed, a file that the service already has is FAILED: it may be the original.
            existing: ``"skip"`` files the service says it has, judged by UIDs, or ``"send"`` them all the same. After a
                lost answer ``"send"`` repeats only files the service says it does not have; others are UNCONFIRMED,
                since the service may have an older version.
            send_truncated: send files that are cut off too, as for `DicomWeb.upload`.
            sockets: number of connections that carry parts, each one part at a time.
            progress: called with typed events.
            report: a file to which one JSON line per source is appended as it ends; readable for you alone. The
                returned report then holds counts and the outcomes that need attention, so that memory stays flat for
                millions of sources.
            report_paths: write the sources' paths into it too; they may hold patients' names.

        Returns:
            One outcome a source, as `DicomWeb.upload` gives.

        Raises:
            UsageError: an argument is wrong, or the user may not work in that institution.
            LocalFileError: a path that was named does not exist, or the report cannot be written.
            PostdicomError: the service cannot be worked with; ``report`` on the exception says how far it came.
        """
        return await gathered_into(report, self._uploading(locals()), with_paths=report_paths)

    def upload_each(
        self,
        sources: Sources,
        *,
        institution_uuid: UUID | str | None = None,
        folder_uuid: UUID | str | None = None,
        anonymize: Anonymization | None = None,
        existing: Literal["skip", "send"] = "skip",
        send_truncated: bool = False,
        sockets: int = 4,
        progress: OnProgress | None = None,
    ) -> Outcomes[UploadReport]:
        """Do what `upload` does, yielding each outcome as its source ends: ``async for outcome in ...``.

        Memory holds what is in flight, whatever the number of sources. See `upload` for arguments and errors, which are
        raised while the outcomes are read.
        """
        return Outcomes(self._uploading(locals()))

    def _uploading(self, given: Mapping[str, Any]) -> Callable[[Gathered], Awaitable[UploadReport]]:
        """Return the function that uploads according to the ``locals()`` of `upload` or `upload_each`."""
        others = {"self", "sources", "report", "report_paths"}
        options = {name: value for name, value in given.items() if name not in others}
        return watched(
            "upload",
            self.settings.on_event,
            lambda into: CloudUpload(self._connection, self._user, gathered=into, **options).run(given["sources"]),
        )

    async def upload_documents(
        self,
        sources: Files,
        patient_order_uuid: UUID | str,
        *,
        institution_uuid: UUID | str | None = None,
        progress: OnProgress | None = None,
    ) -> UploadReport:
        """Attach PDF, JPEG, PNG, BMP or MP4 files to an order (JavaScript library: ``UploadDocumentFiles``).

        Args:
            sources: files, folders (searched recursively), or an iterable or async iterable of them. The type of a file
                is detected by its content; its name must agree.
            patient_order_uuid: the order.
            institution_uuid: the order's institution, by UUID or name; not needed if the user has only one.
            progress: called with typed events.

        Returns:
            One outcome a source. A document whose last answer was lost is ``UNCONFIRMED``: it may be there, and sending
            it again could attach it twice. One whose last part was not sent is ``FAILED``.

        Raises:
            UsageError: an argument is wrong.
            PostdicomError: the service cannot be worked with; ``report`` on the exception says how far it came.
        """
        upload = DocumentUpload(
            self._connection,
            self._user,
            institution_uuid=institution_uuid,
            patient_order_uuid=patient_order_uuid,
            progress=progress,
        )
        with watch_call("upload documents") as call:
            report = await upload.run(sources)
            call.note_counts(report.counts)
            return report

    async def upload_and_share(
        self,
        sources: Sources,
        *,
        expires: date | str,
        folder: str | None = None,
        folder_uuid: UUID | str | None = None,
        password: str | None = None,
        title: str | None = None,
        description: str | None = None,
        downloadable: bool = False,
        institution_uuid: UUID | str | None = None,
        sockets: int = 4,
        anonymize: Anonymization | None = None,
        existing: Literal["skip", "send"] = "skip",
        progress: OnProgress | None = None,
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> SharedUpload:
        """Upload files, put the orders that hold them into a folder, and make a link: one call instead of four.

        The link is made only when every DICOM file is stored. With ``folder`` a new folder is made and the link opens
        it; with ``folder_uuid`` the orders go into a folder that is there, and the link opens them alone, not what
        else is in it; without either there is a link to the orders.

        A step after the upload that fails raises nothing: what is returned says what exists, why it ended, and in
        ``to_finish`` which calls finish it. Where a new folder has been made, that is ``folders.add_order`` for what is
        not in it and ``folders.share``; else the same call again, which skips what is stored.

        Args:
            sources: as for `upload`.
            expires: the last day of the link.
            folder: the name of a new folder.
            folder_uuid: a folder that is there.
            password: for whoever opens the link, else it is open to anyone. The Cloud API has one for folders alone.
            title: of the link to a new folder.
            description: of the link to a new folder.
            downloadable: whether who opens the link may download.
            institution_uuid: as for `upload`.
            sockets: as for `upload`.
            anonymize: as for `upload`.
            existing: as for `upload`; what the service has already is shared as well.
            progress: as for `upload`.
            report: as for `upload`.
            report_paths: as for `upload`.

        Raises:
            UsageError: an argument is wrong; nothing was sent.
            PostdicomError: the upload ended early, as for `upload`; there is no folder and no link.
            asyncio.CancelledError: it was cancelled; its attribute ``shared``, there once the upload has ended, is the
                `SharedUpload` that says what exists.
        """
        upload = {name: value for name, value in locals().items() if name in _OF_UPLOAD}
        sharing = Sharing(expires, folder, folder_uuid, password, title, description, downloadable)
        sharing.require_usable(self._caller)
        with watch_call(TITLE):
            done = await self.upload(**upload)
            return await shared(sharing, done, self, of_order={"institution_uuid": institution_uuid})

    @property
    def _caller(self) -> CloudCaller:
        return CloudCaller(self._connection, self._user)
