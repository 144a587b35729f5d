"""PostDICOM's DICOMweb API: its URL shapes and its own operations, under HTTP Basic authentication (C# sample)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from postdicom_async.dicomweb.client import DicomWeb
from postdicom_async.dicomweb.dialects import POSTDICOM, Dialect
from postdicom_async.face import public_face
from postdicom_async.postdicom.caller import Caller
from postdicom_async.postdicom.facades import Folders, Orders, Shares
from postdicom_async.postdicom.study_orders import StudiesNoted, orders_of_studies
from postdicom_async.settings import Settings
from postdicom_async.vendor.sharing import TITLE, SharedUpload, Sharing, shared
from postdicom_async.vendor.wire import Wire
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    from datetime import date
    from uuid import UUID

    import httpx

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.sources import Sources
    from postdicom_async.results import OnProgress
    from postdicom_async.transfer.outcomes import ReportFile

_OF_UPLOAD = frozenset({"anonymize", "existing", "progress", "report", "report_paths", "sources"})


@public_face
class PostDicom(DicomWeb):
    """A PostDICOM account, used as ``async with PostDicom(url, username, password) as archive``.

    Args:
        url: the address PostDICOM gave for the account.
        username: the account's user name, an e-mail address.
        password: its password.
        settings: limits, time-outs, retry, TLS, proxy.
        transport: an httpx transport to use instead of our own, which uses aiohttp.
        dialect: the assumed URL shapes of the service; see ``dialects.POSTDICOM``.
        wire: the assumed format of its operations; see `Wire`.

    Raises:
        UsageError: an argument is wrong.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        *,
        settings: Settings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        dialect: Dialect = POSTDICOM,
        wire: Wire | None = None,
    ) -> None:
        super().__init__(url, auth=(username, password), settings=settings, transport=transport, dialect=dialect)
        self._wire = wire or Wire()

    @property
    def wire(self) -> Wire:
        """The assumed format of the operations."""
        return self._wire

    @property
    def orders(self) -> Orders:
        """Patient orders: create, search, properties, delete, assign, tag content."""
        return Orders(Caller(self._session, self._wire))

    @property
    def folders(self) -> Folders:
        """Folders: create, search, add orders, share."""
        return Folders(Caller(self._session, self._wire))

    @property
    def shares(self) -> Shares:
        """Links to orders."""
        return Shares(Caller(self._session, self._wire))

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
        patience: float = 60.0,
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
            password: for whoever opens the link; without one it is open to anyone.
            title: of the link to a new folder.
            description: of the link to a new folder.
            downloadable: whether who opens the link may download.
            patience: seconds to wait until the service shows the orders; its answers to an upload do not name them.
            anonymize: as for `upload`.
            existing: as for `upload`; what the archive has already is shared as well.
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
        sharing.require_usable(Caller(self._session, self._wire))
        noted = StudiesNoted(progress)
        with watch_call(TITLE):
            done = await self.upload(**{**upload, "progress": noted})
            find_orders = partial(orders_of_studies, self, noted.studies, patience=patience)
            return await shared(sharing, done, self, orders=find_orders)
