"""Move DICOM in and out of PostDICOM and any DICOMweb archive: asyncio, streaming, nothing lost silently.

::

    async with DicomWeb("https://archive.example/dicom-web", auth=("user", "password")) as archive:
        report = await archive.upload("folder/")
        async for study in archive.search_for_studies({"PatientName": "DOE*"}):
            await archive.download_study(study.StudyInstanceUID, to="out/")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicom.layout import Layout
    from postdicom_async.dicom.scan_tree import (
        Scan,
        ScannedInstance,
        ScannedPatient,
        ScannedSeries,
        ScannedStudy,
        ScanProgress,
        ScanStatus,
        SkippedFile,
    )
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.dicomweb.dialects import DICOMWEB, POSTDICOM, Dialect, Route
    from postdicom_async.dicomweb.filters import Filters
    from postdicom_async.dicomweb.retrieve import Part, Parts
    from postdicom_async.disk.anonymize_files import PatientTable, UidMap
    from postdicom_async.disk.scan import read_files
    from postdicom_async.doctor.diagnosis import Diagnosis, Finding, diagnose
    from postdicom_async.errors import (
        AuthenticationFailed,
        ConnectionFailed,
        IncompleteDownload,
        JobStopped,
        LedgerLocked,
        LedgerUnusable,
        LimitReached,
        LocalFileError,
        NotFound,
        OutcomeUnknown,
        PostdicomError,
        ProtocolError,
        RateLimited,
        ServerError,
        TransferError,
        UsageError,
    )
    from postdicom_async.paging import Results
    from postdicom_async.postdicom.client import PostDicom
    from postdicom_async.results import (
        BytesMoved,
        DownloadReport,
        InstanceFinished,
        InstanceUids,
        Outcome,
        ProgressEvent,
        Rendered,
        Status,
        Totals,
        UploadReport,
    )
    from postdicom_async.settings import Limits, Retry, Settings, Timeouts, Tls
    from postdicom_async.transfer.outcomes import Outcomes
    from postdicom_async.vendor.answers import (
        Account,
        Folder,
        Institution,
        PatientOrder,
        ShareLink,
        TagContent,
        User,
        VendorAnswer,
    )
    from postdicom_async.vendor.wire import CloudWire, Wire

    __version__: str

__all__ = [
    "DICOMWEB",
    "POSTDICOM",
    "Account",
    "Anonymization",
    "AuthenticationFailed",
    "BytesMoved",
    "CloudApi",
    "CloudWire",
    "ConnectionFailed",
    "Diagnosis",
    "Dialect",
    "DicomWeb",
    "DownloadReport",
    "Filters",
    "Finding",
    "Folder",
    "IncompleteDownload",
    "InstanceFinished",
    "InstanceUids",
    "Institution",
    "JobStopped",
    "Layout",
    "LedgerLocked",
    "LedgerUnusable",
    "LimitReached",
    "Limits",
    "LocalFileError",
    "NotFound",
    "Outcome",
    "OutcomeUnknown",
    "Outcomes",
    "Part",
    "Parts",
    "PatientOrder",
    "PatientTable",
    "PostDicom",
    "PostdicomError",
    "ProgressEvent",
    "ProtocolError",
    "RateLimited",
    "Rendered",
    "Results",
    "Retry",
    "Route",
    "Scan",
    "ScanProgress",
    "ScanStatus",
    "ScannedInstance",
    "ScannedPatient",
    "ScannedSeries",
    "ScannedStudy",
    "ServerError",
    "Settings",
    "ShareLink",
    "SkippedFile",
    "Status",
    "TagContent",
    "Timeouts",
    "Tls",
    "Totals",
    "TransferError",
    "UidMap",
    "UploadReport",
    "UsageError",
    "User",
    "VendorAnswer",
    "Wire",
    "__version__",
    "diagnose",
    "read_files",
]

# What comes from where, imported when it is first asked for: pydicom and the HTTP libraries take a third of a second,
# and `postdicom --help` or an `except NotFound` needs none of them.
_MODULES = {
    "cloud.client": ("CloudApi",),
    "dicom.anonymize": ("Anonymization",),
    "dicom.layout": ("Layout",),
    "dicom.scan_tree": (
        "Scan",
        "ScanProgress",
        "ScanStatus",
        "ScannedInstance",
        "ScannedPatient",
        "ScannedSeries",
        "ScannedStudy",
        "SkippedFile",
    ),
    "dicomweb.client": ("DicomWeb",),
    "dicomweb.dialects": ("DICOMWEB", "Dialect", "POSTDICOM", "Route"),
    "dicomweb.filters": ("Filters",),
    "dicomweb.retrieve": ("Part", "Parts"),
    "disk.anonymize_files": ("PatientTable", "UidMap"),
    "disk.scan": ("read_files",),
    "doctor.diagnosis": ("Diagnosis", "Finding", "diagnose"),
    "errors": (
        "AuthenticationFailed",
        "ConnectionFailed",
        "IncompleteDownload",
        "JobStopped",
        "LedgerLocked",
        "LedgerUnusable",
        "LimitReached",
        "LocalFileError",
        "NotFound",
        "OutcomeUnknown",
        "PostdicomError",
        "ProtocolError",
        "RateLimited",
        "ServerError",
        "TransferError",
        "UsageError",
    ),
    "paging": ("Results",),
    "vendor.answers": (
        "Account",
        "Folder",
        "Institution",
        "PatientOrder",
        "ShareLink",
        "TagContent",
        "User",
        "VendorAnswer",
    ),
    "postdicom.client": ("PostDicom",),
    "vendor.wire": ("CloudWire", "Wire"),
    "results": (
        "BytesMoved",
        "DownloadReport",
        "InstanceFinished",
        "InstanceUids",
        "Outcome",
        "ProgressEvent",
        "Rendered",
        "Status",
        "Totals",
        "UploadReport",
    ),
    "settings": ("Limits", "Retry", "Settings", "Timeouts", "Tls"),
    "transfer.outcomes": ("Outcomes",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a checker that saw this would let misspelt names pass

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            value = import_module("importlib.metadata").version("postdicom-async")
        elif name in _HOMES:
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
