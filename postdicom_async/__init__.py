"""Move DICOM in and out of PostDICOM and any DICOMweb archive: asyncio, streaming, nothing lost silently.

::

    async with DicomWeb("https://archive.example/dicom-web", auth=("user", "password")) as archive:
        report = await archive.upload("folder/")
        async for study in archive.search_for_studies({"PatientName": "DOE*"}):
            await archive.download_study(study.StudyInstanceUID, to="out/")
"""

from __future__ import annotations

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
