"""Move DICOM in and out of PostDICOM and any DICOMweb archive: asyncio, streaming, nothing lost silently.

::

    async with DicomWeb("https://archive.example/dicom-web", auth=("user", "password")) as archive:
        report = await archive.upload("folder/")
        async for study in archive.search_for_studies({"PatientName": "DOE*"}):
            await archive.download_study(study.StudyInstanceUID, to="out/")
"""

from __future__ import annotations

from importlib.metadata import version

from postdicom_async.dicom.layout import Layout
from postdicom_async.dicomweb.client import DicomWeb
from postdicom_async.dicomweb.dialects import DICOMWEB, POSTDICOM, Dialect, Route
from postdicom_async.dicomweb.filters import Filters
from postdicom_async.dicomweb.parts import Part, Parts
from postdicom_async.dicomweb.search import Results
from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    IncompleteDownload,
    LocalFileError,
    NotFound,
    PostdicomError,
    ProtocolError,
    RateLimited,
    ServerError,
    TransferError,
    UsageError,
)
from postdicom_async.postdicom.client import PostDicom
from postdicom_async.results import (
    BytesMoved,
    DownloadReport,
    InstanceFinished,
    InstanceUids,
    ProgressEvent,
    Rendered,
    SavedInstance,
    StoreOutcome,
    StoreStatus,
    Totals,
    UploadReport,
)
from postdicom_async.settings import Limits, Retry, Settings, Timeouts, Tls

__all__ = [
    "DICOMWEB",
    "POSTDICOM",
    "AuthenticationFailed",
    "BytesMoved",
    "ConnectionFailed",
    "Dialect",
    "DicomWeb",
    "DownloadReport",
    "Filters",
    "IncompleteDownload",
    "InstanceFinished",
    "InstanceUids",
    "Layout",
    "Limits",
    "LocalFileError",
    "NotFound",
    "Part",
    "Parts",
    "PostDicom",
    "PostdicomError",
    "ProgressEvent",
    "ProtocolError",
    "RateLimited",
    "Rendered",
    "Results",
    "Retry",
    "Route",
    "SavedInstance",
    "ServerError",
    "Settings",
    "StoreOutcome",
    "StoreStatus",
    "Timeouts",
    "Tls",
    "Totals",
    "TransferError",
    "UploadReport",
    "UsageError",
    "__version__",
]

__version__ = version("postdicom-async")
