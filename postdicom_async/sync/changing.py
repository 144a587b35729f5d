"""Stores, deletions, and whole transfers to and from the disk, of the synchronous client."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from postdicom_async.dicom.json_reading import NotDicomJson, objects_in
from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout
from postdicom_async.dicom.native_xml import objects_in_xml
from postdicom_async.dicomweb.dialects import DICOM_JSON, Route, parse_media_type
from postdicom_async.dicomweb.store import multipart_of
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.face import translated
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.sync.asking import Asking, Params, required, with_query
from postdicom_async.sync.failures import as_callers_catch_it

if TYPE_CHECKING:
    import os

    from pydicom.dataset import Dataset

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.dicomweb.retrieve import Target
    from postdicom_async.disk.sources import Sources
    from postdicom_async.http.answer import Answer
    from postdicom_async.results import DownloadReport, OnProgress, UploadReport
    from postdicom_async.transfer.outcomes import ReportFile

_LOG = logging.getLogger(__name__)


class Changing(Asking):
    """Part of `DICOMwebClient`, which documents its arguments and errors."""

    def store_instances(
        self,
        datasets: Iterable[Dataset],
        study_instance_uid: str | None = None,
        additional_params: Params | None = None,
    ) -> Dataset:
        """Store data sets in one request (PS3.18 section 10.5) and return what the archive answers.

        An instance counts as stored if ``ReferencedSOPSequence`` of the answer names it; ``FailedSOPSequence`` has
        those refused. An answer may name none. `upload` sends any number of files, and finds out what became of each.

        Args:
            datasets: data sets of pydicom.
            study_instance_uid: the study of all of them.
            additional_params: parameters of the query.

        Returns:
            The answer; empty if there was none in it.

        Raises:
            UsageError: an argument is wrong, or pydicom cannot write a data set.
            HTTPError: the archive refused them all, as with status 409.
            ConnectionFailed: with ``may_have_arrived`` they may have been stored.
        """
        body, content_type = multipart_of([_encoded(dataset, number) for number, dataset in enumerate(datasets, 1)])
        in_study = study_instance_uid is not None and Route.STORE_IN_STUDY in self._routes.routes
        study = "" if study_instance_uid is None else self._target(study_instance_uid).study
        path = self._routes.path(Route.STORE_IN_STUDY if in_study else Route.STORE, study=study)
        headers = {"Content-Type": content_type, "Accept": DICOM_JSON}
        path = with_query(path, additional_params)
        call = Call("store instances", "POST", path, Repeat.STORE, headers=headers, body=body)

        async def send(archive: DicomWeb) -> Answer:
            return await archive.internals.session.fetch(call, cap=archive.settings.limits.json_bytes)

        answer = self._run(send, call.operation)
        with as_callers_catch_it():
            return _data_set_of(answer)

    # --- delete -------------------------------------------------------------------------------------------------------

    def delete_study(self, study_instance_uid: str, additional_params: Params | None = None) -> None:
        """Delete a study. Not every archive offers this.

        Raises:
            UsageError: an argument is wrong; it is a ``ValueError``.
            HTTPError: the archive refused; `NotFound` if it does not hold it.
            ConnectionFailed: with ``may_have_arrived`` only a search can tell whether it was deleted.
        """
        self._delete(self._target(required("study_instance_uid", study_instance_uid)), additional_params)

    def delete_series(
        self, study_instance_uid: str, series_instance_uid: str, additional_params: Params | None = None
    ) -> None:
        """Delete a series; see `delete_study`."""
        series = required("series_instance_uid", series_instance_uid)
        self._delete(self._target(study_instance_uid, series), additional_params)

    def delete_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        additional_params: Params | None = None,
    ) -> None:
        """Delete an instance; see `delete_study`."""
        target = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        self._delete(target, additional_params)

    def _delete(self, target: Target, params: Params | None) -> None:
        path = with_query(target.path(self._deletions), params)
        call = Call(f"delete {target.route}", "DELETE", path, Repeat.CHANGE)

        async def send(archive: DicomWeb) -> None:
            await archive.internals.session.fetch(call, cap=archive.settings.limits.json_bytes)

        self._run(send, call.operation)

    # --- with a report ------------------------------------------------------------------------------------------------

    def upload(
        self,
        sources: Sources,
        *,
        study_instance_uid: str | None = None,
        anonymize: Anonymization | None = None,
        existing: Literal["skip", "send"] = "send",
        send_truncated: bool = False,
        progress: OnProgress | None = None,
        report: ReportFile | None = None,
        report_paths: bool = False,
    ) -> UploadReport:
        """Store any number of instances, from files and folders too; see `DicomWeb.upload`.

        ``progress`` is called in the client's own thread, which waits for it. It must not call the client.
        """
        return self._run(
            lambda archive: archive.upload(
                sources,
                study_instance_uid=study_instance_uid,
                anonymize=anonymize,
                existing=existing,
                send_truncated=send_truncated,
                progress=progress,
                report=report,
                report_paths=report_paths,
            )
        )

    def download_study(
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
        """Write every instance of a study below a folder; see `DicomWeb.download_study`, and `upload`."""
        return self._run(
            lambda archive: archive.download_study(
                study_instance_uid,
                to=to,
                layout=layout,
                compare_with_search=compare_with_search,
                progress=progress,
                report=report,
                report_paths=report_paths,
            )
        )

    def download_series(
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
        return self._run(
            lambda archive: archive.download_series(
                study_instance_uid,
                series_instance_uid,
                to=to,
                layout=layout,
                compare_with_search=compare_with_search,
                progress=progress,
                report=report,
                report_paths=report_paths,
            )
        )

    def download_instance(
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
        return self._run(
            lambda archive: archive.download_instance(
                study_instance_uid,
                series_instance_uid,
                sop_instance_uid,
                to=to,
                layout=layout,
                progress=progress,
                report=report,
                report_paths=report_paths,
            )
        )


def _encoded(dataset: Any, number: int) -> bytes:
    def cannot(error: Exception) -> UsageError:
        return UsageError(f"pydicom cannot write data set {number} ({type(error).__name__})", argument="datasets")

    buffer = BytesIO()
    with translated(Exception, cannot):
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _data_set_of(answer: Answer) -> Dataset:
    from postdicom_async.dicom.data_sets import dataset_of  # brings pydicom

    is_xml = parse_media_type(answer.content_type).is_xml or answer.body.lstrip()[:1] == b"<"
    unreadable = ProtocolError("the answer cannot be read", operation="store instances", status=answer.status)
    with translated(NotDicomJson, lambda _: unreadable):
        found = (objects_in_xml if is_xml else objects_in)(answer.body) if answer.body.strip() else []
    return dataset_of(found[0] if found else {}, lambda problem: _LOG.warning("store instances: %s", problem))
