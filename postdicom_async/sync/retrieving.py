"""Instances, frames, bulk data and renderings of the synchronous client."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.face import translated
from postdicom_async.http.endpoint import same_origin
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.sync.accept import MediaTypes, instances_ladder, rendered_accept, values_ladder
from postdicom_async.sync.asking import Asking, Params, frames_wanted, required, with_query
from postdicom_async.sync.failures import as_callers_catch_it
from postdicom_async.sync.streams import ItemStream

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.dicomweb.retrieve import Target


class Retrieving(Asking):
    """Part of `DICOMwebClient`, which documents its arguments and errors."""

    # --- instances ----------------------------------------------------------------------------------------------------

    def retrieve_study(
        self,
        study_instance_uid: str,
        media_types: MediaTypes | None = None,
        additional_params: Params | None = None,
    ) -> list[Dataset]:
        """Return all instances of a study, in memory; `iter_study` gives them one by one.

        Args:
            study_instance_uid: which study.
            media_types: ``("application/dicom", transfer_syntax)`` or several such pairs. By default the archive
                converts to Explicit VR Little Endian; ``(("application/dicom", "*"),)`` asks for what is stored.
            additional_params: further parameters of the query.

        Raises:
            UsageError: an argument is wrong; it is a ``ValueError``.
            HTTPError: the archive refused; `NotFound` if it does not hold it.
            PostdicomError: it could not be asked, or its answer broke.
        """
        return list(self.iter_study(study_instance_uid, media_types, additional_params))

    def iter_study(
        self,
        study_instance_uid: str,
        media_types: MediaTypes | None = None,
        additional_params: Params | None = None,
    ) -> ItemStream[Dataset]:
        """Iterate over the instances of a study as they arrive; see `retrieve_study`.

        The request is made at once. A few megabytes wait for whoever iterates, then the network does. The iterator
        holds a connection until it has ended; ``with`` or ``close()`` ends it before.
        """
        target = self._target(required("study_instance_uid", study_instance_uid))
        return self._instances(target, media_types, additional_params)

    def retrieve_series(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        media_types: MediaTypes | None = None,
        additional_params: Params | None = None,
    ) -> list[Dataset]:
        """Return all instances of a series; see `retrieve_study`."""
        return list(self.iter_series(study_instance_uid, series_instance_uid, media_types, additional_params))

    def iter_series(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        media_types: MediaTypes | None = None,
        additional_params: Params | None = None,
    ) -> ItemStream[Dataset]:
        """Iterate over the instances of a series as they arrive; see `iter_study`."""
        target = self._target(study_instance_uid, required("series_instance_uid", series_instance_uid))
        return self._instances(target, media_types, additional_params)

    def retrieve_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        media_types: MediaTypes | None = None,
        additional_params: Params | None = None,
    ) -> Dataset:
        """Return one instance; by default as it is stored. See `retrieve_study`.

        Raises:
            ProtocolError: the archive answered with another instance, or several.
        """
        target = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        path, ladder = self._path(target, params=additional_params), instances_ladder(media_types, single=True)
        with self._stream_of(lambda _: [(None, path)], ladder, "retrieve instance", bytes) as parts:
            found = list(parts)
        with as_callers_catch_it():
            return self._only(found, target)

    def _only(self, found: list[bytes], target: Target) -> Dataset:
        """Return the instance that was asked for."""
        if len(found) != 1:
            raise ProtocolError(f"the archive answered with {len(found)} instances", operation="retrieve instance")
        header = read_header(found[0], complete=True)
        if isinstance(header, InstanceHeader) and not self._permissive_uid and not target.covers(header.uids):
            raise ProtocolError("the archive answered with another instance", operation="retrieve instance")
        return _data_set(found[0])

    def _instances(self, target: Target, media_types: MediaTypes | None, params: Params | None) -> ItemStream[Dataset]:
        path = self._path(target, params=params)
        ladder = instances_ladder(media_types)
        return self._stream_of(lambda _: [(None, path)], ladder, f"retrieve {target.route}", _data_set)

    # --- frames and bulk data -----------------------------------------------------------------------------------------

    def retrieve_instance_frames(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Iterable[int],
        media_types: MediaTypes | None = None,
        additional_params: Params | None = None,
    ) -> list[bytes]:
        """Return frames, counted from 1, in the order requested; see `iter_instance_frames`."""
        return list(
            self.iter_instance_frames(
                study_instance_uid, series_instance_uid, sop_instance_uid, frame_numbers, media_types, additional_params
            )
        )

    def iter_instance_frames(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Iterable[int],
        media_types: MediaTypes | None = None,
        additional_params: Params | None = None,
    ) -> ItemStream[bytes]:
        """Iterate over frames, counted from 1, as they arrive; the iterator is that of `iter_study`.

        If they do not fit into one URL, several requests are made, one after the other.

        Args:
            study_instance_uid: which study.
            series_instance_uid: which series of it.
            sop_instance_uid: which instance of that.
            frame_numbers: which frames.
            media_types: media types, each alone or with a transfer syntax, such as ``(("image/jpeg", "*"),)``. By
                default any is taken.
            additional_params: further parameters of the query.

        Raises:
            UsageError: an argument is wrong; it is a ``ValueError``.
            HTTPError: the archive refused; ``response.status_code`` is 406 if it cannot give that media type.
            ProtocolError: it answered with more or fewer frames.
            PostdicomError: it could not be asked, or its answer broke.
        """
        target = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        numbers, ladder = frames_wanted(frame_numbers), values_ladder(media_types)

        def path(suffix: str) -> str:
            return self._path(target, suffix, additional_params)

        path("/frames/1")  # whatever is wrong is wrong before anything is sent
        return self._stream_of(
            lambda archive: self._frame_paths(archive, path, numbers), ladder, "retrieve frames of instance", bytes
        )

    def retrieve_bulkdata(
        self,
        url: str,
        media_types: MediaTypes | None = None,
        byte_range: tuple[int, int] | tuple[int] | None = None,
        additional_params: Params | None = None,
    ) -> list[bytes]:
        """Return the values behind a BulkDataURI; see `iter_bulkdata`."""
        return list(self.iter_bulkdata(url, media_types, byte_range, additional_params))

    def iter_bulkdata(
        self,
        url: str,
        media_types: MediaTypes | None = None,
        byte_range: tuple[int, int] | tuple[int] | None = None,
        additional_params: Params | None = None,
    ) -> ItemStream[bytes]:
        """Iterate over the values behind a BulkDataURI as they arrive: mostly one.

        Args:
            url: as it stands in the metadata, relative to the service or absolute.
            media_types: as for `iter_instance_frames`.
            byte_range: first and last byte, both inclusive, counted from 0; the last may be left out.
            additional_params: further parameters of the query.

        Raises:
            UsageError: the address leads to another server; credentials and requests stay with this one.
            HTTPError: the archive refused.
            PostdicomError: it could not be asked, or its answer broke.
        """
        headers = {} if byte_range is None else {"Range": _range_header(byte_range)}
        ladder = values_ladder(media_types)
        with_query("", additional_params)  # whatever is wrong with it is wrong before anything is sent
        return self._stream_of(
            lambda archive: [(None, with_query(_own_path(archive, url), additional_params))],
            ladder,
            "retrieve bulk data",
            bytes,
            headers,
        )

    # --- rendered -----------------------------------------------------------------------------------------------------

    def retrieve_series_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        media_types: MediaTypes | None = None,
        params: Params | None = None,
    ) -> bytes:
        """Return a series rendered; see `retrieve_instance_rendered`."""
        target = self._target(study_instance_uid, required("series_instance_uid", series_instance_uid))
        return self._rendered(target, "/rendered", media_types, params)

    def retrieve_instance_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        media_types: MediaTypes | None = None,
        params: Params | None = None,
    ) -> bytes:
        """Return an instance rendered by the archive.

        Args:
            study_instance_uid: which study.
            series_instance_uid: which series of it.
            sop_instance_uid: which instance of that.
            media_types: such as ``("image/png",)``; by default whatever the archive chooses.
            params: of the rendering, such as ``{"viewport": "256,256", "quality": 95}``.

        Raises:
            UsageError: an argument is wrong; it is a ``ValueError``.
            HTTPError: the archive refused.
            PostdicomError: it could not be asked, or its answer broke.
        """
        target = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        return self._rendered(target, "/rendered", media_types, params)

    def retrieve_instance_frames_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Iterable[int],
        media_types: MediaTypes | None = None,
        params: Params | None = None,
    ) -> bytes:
        """Return frames rendered, in the form that the archive chooses; see `retrieve_instance_rendered`."""
        target = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        frames = ",".join(map(str, frames_wanted(frame_numbers)))
        return self._rendered(target, f"/frames/{frames}/rendered", media_types, params)

    def retrieve_study_thumbnail(self, study_instance_uid: str, media_types: MediaTypes | None = None) -> bytes:
        """Return a thumbnail of a study; raises as `retrieve_instance_rendered` does."""
        return self._rendered(self._target(study_instance_uid), "/thumbnail", media_types, None)

    def retrieve_series_thumbnail(
        self, study_instance_uid: str, series_instance_uid: str, media_types: MediaTypes | None = None
    ) -> bytes:
        """Return a thumbnail of a series; raises as `retrieve_instance_rendered` does."""
        return self._rendered(self._target(study_instance_uid, series_instance_uid), "/thumbnail", media_types, None)

    def retrieve_instance_thumbnail(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        media_types: MediaTypes | None = None,
    ) -> bytes:
        """Return a thumbnail of an instance; raises as `retrieve_instance_rendered` does."""
        target = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        return self._rendered(target, "/thumbnail", media_types, None)

    def _rendered(self, target: Target, suffix: str, media_types: MediaTypes | None, params: Params | None) -> bytes:
        headers = {"Accept": rendered_accept(media_types)}
        path = with_query(target.path(self._routes, suffix), params, "params")
        call = Call(f"retrieve {suffix.rpartition('/')[2]} {target.route}", "GET", path, Repeat.READ, headers=headers)

        async def fetch(archive: DicomWeb) -> bytes:
            answer = await archive.internals.session.fetch(call, cap=archive.settings.limits.in_memory_bytes)
            return answer.body

        return self._run(fetch, call.operation)


def _data_set(data: bytes) -> Dataset:
    import pydicom  # slow to import

    with translated(Exception, _unreadable):
        return pydicom.dcmread(BytesIO(data))


def _unreadable(error: Exception) -> ProtocolError:
    return ProtocolError(f"pydicom cannot read an instance that came ({type(error).__name__})", operation="retrieve")


def _range_header(byte_range: tuple[int, int] | tuple[int]) -> str:
    numbers = list(byte_range) if isinstance(byte_range, tuple | list) else []
    if len(numbers) not in (1, 2) or not all(type(n) is int for n in numbers) or not 0 <= numbers[0] <= numbers[-1]:
        raise UsageError("give the first and the last byte, both from 0 on", argument="byte_range")
    return f"bytes={numbers[0]}-{numbers[1] if len(numbers) > 1 else ''}"


def _own_path(archive: DicomWeb, url: str) -> str:
    """Return the ``Call.path`` of a URL that the server handed out."""
    session = archive.internals.session
    try:
        absolute = urljoin(session.url + "/", url.strip())
        is_own = same_origin(absolute, session.url)
    except (ValueError, AttributeError):
        is_own, absolute = False, ""
    if not is_own:
        raise UsageError("it leads to another server than this client's, or is no address", argument="url")
    return session.path_to(absolute)
