"""PostDICOM's DICOMweb API: its URL shapes under HTTP Basic authentication (C# sample and Node sample)."""

from __future__ import annotations

import httpx

from postdicom_async.dicomweb.client import DicomWeb
from postdicom_async.dicomweb.dialects import POSTDICOM, Dialect
from postdicom_async.settings import Settings

__all__ = ["PostDicom"]


class PostDicom(DicomWeb):
    """A PostDICOM account, used as ``async with PostDicom(url, username, password) as archive``.

    Args:
        url: the address PostDICOM gave for the account.
        username: the account's user name, an e-mail address.
        password: its password.
        settings: limits, time-outs, retry, TLS, proxy.
        transport: an httpx transport to use instead of the fastest one here.
        dialect: what is assumed of the service's URL shapes; see ``dialects.POSTDICOM``.

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
    ) -> None:
        super().__init__(url, auth=(username, password), settings=settings, transport=transport, dialect=dialect)
