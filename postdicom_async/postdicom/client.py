"""PostDICOM's DICOMweb API: its URL shapes and its own operations, under HTTP Basic authentication (C# sample)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.dicomweb.client import DicomWeb
from postdicom_async.dicomweb.dialects import POSTDICOM, Dialect
from postdicom_async.face import public_face
from postdicom_async.postdicom.caller import Caller
from postdicom_async.postdicom.facades import Folders, Orders, Shares
from postdicom_async.settings import Settings
from postdicom_async.vendor.wire import Wire

if TYPE_CHECKING:
    import httpx


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
