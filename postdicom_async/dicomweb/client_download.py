"""Download: studies, series and instances to disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout
from postdicom_async.dicomweb.client_base import ClientBase, target_of
from postdicom_async.dicomweb.download import Download
from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from postdicom_async.dicomweb.retrieve import Target
    from postdicom_async.results import DownloadReport, OnProgress

__all__ = ["ClientDownload"]


class ClientDownload(ClientBase):
    """WADO-RS to disk."""

    async def download_study(
        self,
        study_instance_uid: str,
        *,
        to: str | os.PathLike[str],
        layout: Layout = DEFAULT_LAYOUT,
        compare_with_search: bool = True,
        progress: OnProgress | None = None,
    ) -> DownloadReport:
        """Write every instance of a study below a folder (PS3.18 section 10.4).

        A file under its final name is whole: it is written under another name, checked to be what was asked for, made
        durable (``settings.fsync``) and then renamed. What the folder has already is not fetched again. The result is
        compared with the archive's own count or list of instances, and only what is missing is asked for again. Where
        the archive can be asked for neither, ``report.listing`` is ``"unavailable"``. Where what it says contradicts
        what arrived, it is that too, ``report.contradicted`` is True and ``report.ok`` False: nothing is known to be
        missing, so nothing is raised, but nothing shows that it is all.

        Args:
            study_instance_uid: which study.
            to: the folder, made where it does not exist.
            layout: a template with ``{study}``, ``{series}`` and ``{instance}``, or a function from `InstanceUids` to a
                relative path.
            compare_with_search: False leaves count and list out; a study that lacks instances then goes unnoticed.
            progress: called with typed events.

        Raises:
            IncompleteDownload: instances did not arrive; ``report`` names them, and what arrived is on disk.
            NotFound: the archive does not hold it.
            LocalFileError: the disk is full, or the folder cannot be written to.
            PostdicomError: the archive cannot be worked with.
        """
        target = target_of(study_instance_uid)
        return await self._download(target, to, layout, compare_with_search, progress)

    async def download_series(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        *,
        to: str | os.PathLike[str],
        layout: Layout = DEFAULT_LAYOUT,
        compare_with_search: bool = True,
        progress: OnProgress | None = None,
    ) -> DownloadReport:
        """Write every instance of a series below a folder; see `download_study`."""
        target = target_of(study_instance_uid, series_instance_uid)
        return await self._download(target, to, layout, compare_with_search, progress)

    async def download_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        *,
        to: str | os.PathLike[str],
        layout: Layout = DEFAULT_LAYOUT,
        progress: OnProgress | None = None,
    ) -> DownloadReport:
        """Write one instance below a folder; see `download_study`."""
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        return await self._download(target, to, layout, False, progress)

    async def _download(
        self,
        target: Target,
        to: str | os.PathLike[str],
        layout: Layout,
        compare: bool,
        progress: OnProgress | None,
    ) -> DownloadReport:
        if progress is not None and not callable(progress):
            raise UsageError("progress: give a function that takes an event")
        download = Download(self._retrieval, target, _folder(to), layout=layout, on_progress=progress)
        return await download.run(compare=compare)


def _folder(to: object) -> Path:
    """Return the folder. An empty path would mean the current one, which nobody says that way on purpose."""
    text = os.fspath(to) if isinstance(to, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError("to: give the path of a folder")
    return Path(text)
