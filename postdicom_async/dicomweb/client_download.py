"""Download: studies, series and instances to disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout
from postdicom_async.dicomweb.client_base import ClientBase, target_of
from postdicom_async.dicomweb.download import Download
from postdicom_async.errors import UsageError
from postdicom_async.transfer.outcomes import Outcomes, gathered_into

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from postdicom_async.dicomweb.retrieve import Target
    from postdicom_async.results import DownloadReport, OnProgress
    from postdicom_async.transfer.outcomes import Gathered, ReportFile

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
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> DownloadReport:
        """Write every instance of a study below a folder (PS3.18 section 10.4).

        A file under its final name is whole: it is written under another name, checked to be what was asked for, made
        durable (``settings.fsync``) and then renamed. What the folder has already is not fetched again. The result is
        compared with the archive's own count or list of instances, and only what is missing is asked for again. Where
        the archive can be asked for neither, ``report.listing`` is ``"unavailable"``. Where what it says contradicts
        what arrived, it is that too, ``report.contradicted`` is True and ``report.ok`` False: nothing is known to be
        missing, so nothing is raised, but nothing shows that it is all.

        It begins with one request for everything. Where that is slow, other connections take over series of the study,
        and of an answer that takes long its instances, as many at once as make the whole faster
        (``settings.limits.parallel_retrieves``).

        Args:
            study_instance_uid: which study.
            to: the folder, made where it does not exist.
            layout: a template with ``{study}``, ``{series}`` and ``{instance}``, or a function from `InstanceUids` to a
                relative path.
            compare_with_search: False leaves count and list out; a study that lacks instances then goes unnoticed.
            progress: called with typed events.
            report: a file that gets one JSON line an instance as it ends, appended, readable for you alone. What is
                returned then holds counts, and at most 10,000 instances each of what was there and of what needs
                attention, so that memory stays flat for millions.
            report_paths: write the files' paths into it too; a layout of your own may put patients' names there.

        Raises:
            IncompleteDownload: instances did not arrive; ``report`` names them, and what arrived is on disk.
            NotFound: the archive does not hold it.
            LocalFileError: the disk is full, or the folder cannot be written to.
            PostdicomError: the archive cannot be worked with.
        """
        target = target_of(study_instance_uid)
        return await self._download(target, to, layout, compare_with_search, progress, report, report_paths)

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
        return await self._download(target, to, layout, compare_with_search, progress, report, report_paths)

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
        return await self._download(target, to, layout, False, progress, report, report_paths)

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
        """Do what `download_study` does, and give each outcome as its instance ends: ``async for outcome in ...``.

        With a series or an instance, only that. Memory holds what is under way, whatever the number of instances. See
        `download_study` for arguments and errors, which are raised while the outcomes are read.
        """
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        compare = compare_with_search and sop_instance_uid is None
        return Outcomes(self._downloading(target, to, layout, compare, progress))

    async def _download(
        self,
        target: Target,
        to: str | os.PathLike[str],
        layout: Layout,
        compare: bool,
        progress: OnProgress | None,
        report: ReportFile | None,
        report_paths: bool,
    ) -> DownloadReport:
        engine = self._downloading(target, to, layout, compare, progress)
        return await gathered_into(report, engine, with_paths=report_paths)

    def _downloading(
        self, target: Target, to: str | os.PathLike[str], layout: Layout, compare: bool, progress: OnProgress | None
    ) -> Callable[[Gathered], Awaitable[DownloadReport]]:
        async def engine(gathered: Gathered) -> DownloadReport:
            if progress is not None and not callable(progress):
                raise UsageError("give a function that takes an event", argument="progress")
            download = Download(
                self._retrieval, target, _folder(to), layout=layout, on_progress=progress, gathered=gathered
            )
            return await download.run(compare=compare)

        return engine


def _folder(to: object) -> Path:
    """Return the folder. An empty path would mean the current one, which nobody says that way on purpose."""
    text = os.fspath(to) if isinstance(to, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError("give the path of a folder", argument="to")
    return Path(text)
