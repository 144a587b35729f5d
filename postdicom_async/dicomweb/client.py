"""The client: search, retrieve, store and delete over one session (PS3.18)."""

from __future__ import annotations

from postdicom_async.dicomweb.client_download import ClientDownload
from postdicom_async.dicomweb.client_rendered import ClientRendered
from postdicom_async.dicomweb.client_retrieve import ClientRetrieve
from postdicom_async.dicomweb.client_search import ClientSearch
from postdicom_async.dicomweb.client_store import ClientStore
from postdicom_async.face import public_face

__all__ = ["DicomWeb"]


@public_face
class DicomWeb(ClientSearch, ClientStore, ClientDownload, ClientRetrieve, ClientRendered):
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
