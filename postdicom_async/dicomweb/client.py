"""The client: QIDO-RS, WADO-RS, STOW-RS and delete over one session."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode, urljoin

import anyio.to_thread
import httpx

from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout
from postdicom_async.dicom.uids import checked_uid
from postdicom_async.dicomweb.dialects import DIALECTS, DICOMWEB, Dialect, Route
from postdicom_async.dicomweb.download import Download
from postdicom_async.dicomweb.filters import Filters, filter_pairs, include_pairs
from postdicom_async.dicomweb.media_types import DICOM_JSON, FRAME_LADDER, INSTANCE_LADDER
from postdicom_async.dicomweb.parts import Parts
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.dicomweb.search import Listing, Results, Search, check_page, read_objects, to_dataset
from postdicom_async.dicomweb.upload import Upload
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.http.redaction import origin_of
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call, Session, same_origin
from postdicom_async.results import DownloadReport, OnProgress, Rendered, StoreOutcome, UploadReport
from postdicom_async.settings import Limits, Retry, Settings, Timeouts

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from pydicom.dataset import Dataset

    from postdicom_async.dicom.json_model import DicomJson
    from postdicom_async.disk.sources import Sources
    from postdicom_async.http.credentials import Auth

__all__ = ["DicomWeb"]

_STUDY_UID = "0020000D"
_SERIES_UID = "0020000E"
_INSTANCE_UID = "00080018"


class DicomWeb:
    """A DICOMweb archive (PS3.18), used as ``async with DicomWeb(url) as archive``.

    Args:
        url: the address of the service, for example ``https://archive.example/dicom-web``.
        auth: ``(user, password)``, a bearer token, a callable that gives one (asked again once after a 401, however
            many requests saw it), any ``httpx.Auth``, or None.
        settings: limits, time-outs, retry, TLS, proxy.
        transport: an httpx transport to use instead of the fastest one here; its own settings then count.
        dialect: the server's URL shapes, ``"dicomweb"`` or ``"postdicom"``, or a `Dialect` of your own.

    Raises:
        UsageError: an argument is wrong, or credentials would travel unencrypted.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: Auth = None,
        settings: Settings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        dialect: str | Dialect = DICOMWEB,
    ) -> None:
        self._session = Session(url, auth=auth, settings=settings or Settings(), transport=transport)
        self._dialect = _dialect(dialect)
        self._retrieval = Retrieval(self._session, self._dialect)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {origin_of(self._session.url)} {self._dialect.name} {self.transport_name}>"

    @property
    def transport_name(self) -> str:
        """What carries the bytes: ``"pyreqwest"``, ``"httpx"`` or ``"custom"``."""
        return self._session.transport_name

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._session.settings

    async def __aenter__(self) -> Self:
        await self._session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def with_options(
        self,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        fsync: bool | None = None,
    ) -> Self:
        """Return a copy with other settings on the same connections, valid as long as this one is open.

        Raises:
            UsageError: ``timeouts.connect`` or ``limits.connections`` would change.
        """
        old = self.settings
        settings = replace(
            old,
            timeouts=timeouts or old.timeouts,
            retry=retry or old.retry,
            limits=limits or old.limits,
            fsync=old.fsync if fsync is None else fsync,
        )
        other = copy.copy(self)
        other._session = self._session.with_settings(settings)  # noqa: SLF001 - a copy of this very class
        other._retrieval = Retrieval(other._session, self._dialect)  # noqa: SLF001
        return other

    # --- QIDO-RS -------------------------------------------------------------------------------------------------

    def search_for_studies(
        self,
        filters: Filters | None = None,
        *,
        fields: Iterable[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        fuzzymatching: bool = False,
    ) -> Results[Dataset]:
        """Find studies (PS3.18 section 10.6).

        Args:
            filters: DICOM keyword or 8-hex tag to what it must match: text with ``*`` and ``?``, a date, a pair of
                dates for a range, or a list of UIDs.
            fields: attributes wanted besides the standard ones, or ``"all"``.
            limit: the most results wanted; None for all. Pages are fetched as they are needed.
            offset: results to skip.
            fuzzymatching: ask for fuzzy matching of names; not every archive does it.
        """
        return self._search(
            "search for studies", Route.SEARCH_STUDIES, {}, filters, fields, limit, offset, fuzzymatching, _STUDY_UID
        )

    def search_for_series(
        self,
        filters: Filters | None = None,
        *,
        study_instance_uid: str | None = None,
        fields: Iterable[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        fuzzymatching: bool = False,
    ) -> Results[Dataset]:
        """Find series, of one study or of all; arguments as for `search_for_studies`."""
        route = Route.SEARCH_SERIES if study_instance_uid is None else Route.SEARCH_SERIES_OF_STUDY
        uids = _given(study_instance_uid=study_instance_uid)
        return self._search(
            "search for series", route, uids, filters, fields, limit, offset, fuzzymatching, _SERIES_UID
        )

    def search_for_instances(
        self,
        filters: Filters | None = None,
        *,
        study_instance_uid: str | None = None,
        series_instance_uid: str | None = None,
        fields: Iterable[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        fuzzymatching: bool = False,
    ) -> Results[Dataset]:
        """Find instances, of one series, one study or all; arguments as for `search_for_studies`."""
        uids = _given(study_instance_uid=study_instance_uid, series_instance_uid=series_instance_uid)
        route = {
            frozenset[str](): Route.SEARCH_INSTANCES,
            frozenset({"study"}): Route.SEARCH_INSTANCES_OF_STUDY,
        }.get(frozenset(uids), Route.SEARCH_INSTANCES_OF_SERIES)
        if route is Route.SEARCH_INSTANCES_OF_SERIES and not self._dialect.can(route, uids):
            raise UsageError("study_instance_uid: give it too, this archive addresses a series by its study")
        return self._search(
            "search for instances", route, uids, filters, fields, limit, offset, fuzzymatching, _INSTANCE_UID
        )

    def _search(
        self,
        operation: str,
        route: Route,
        uids: dict[str, str],
        filters: Filters | None,
        fields: Iterable[str] | None,
        limit: int | None,
        offset: int,
        fuzzymatching: bool,
        key: str,
    ) -> Results[Dataset]:
        matching = filter_pairs(filters)
        fuzzy = [("fuzzymatching", "true")] if fuzzymatching else []
        search = Search(
            operation,
            self._dialect.path(route, **uids),
            (*matching, *include_pairs(fields), *fuzzy),
            key=key,
            limit=limit,
            offset=offset,
            page=self.settings.limits.page_size if self._dialect.pages else None,
            private=tuple(value for _, value in matching),
        )
        check_page(limit, offset)
        return Results(lambda at_most, warnings: Listing(self._session, search).pages(at_most, warnings), to_dataset)

    # --- STOW-RS -------------------------------------------------------------------------------------------------

    async def store_instances(
        self, sources: Sources, study_instance_uid: str | None = None
    ) -> tuple[StoreOutcome, ...]:
        """Store everything in one request (PS3.18 section 10.5); one outcome a source.

        See `upload` for the arguments and for more than one request can carry.
        """
        return await self._upload(study_instance_uid, None).run_as_one(sources)

    async def upload(
        self, sources: Sources, *, study_instance_uid: str | None = None, progress: OnProgress | None = None
    ) -> UploadReport:
        """Store any number of instances, in batches, several requests at a time; bytes go out as they are on disk.

        Args:
            sources: files, folders (searched recursively; DICOM is recognised by content), data sets, bytes, or an
                iterable or async iterable of them.
            study_instance_uid: refuse instances of any other study.
            progress: called with typed events.

        Returns:
            One outcome a source. Files that are not DICOM or cannot be read are listed, not fatal; use
            ``report.raise_for_failures()`` where anything but success should raise.

        Raises:
            UsageError: a source is of a kind that cannot be sent.
            LocalFileError: a path that was named does not exist.
            PostdicomError: the archive cannot be worked with; ``report`` on the exception says how far it came.
        """
        return await self._upload(study_instance_uid, progress).run(sources)

    def _upload(self, study_instance_uid: str | None, progress: OnProgress | None) -> Upload:
        study = None if study_instance_uid is None else checked_uid(study_instance_uid, "study_instance_uid")
        return Upload(self._session, self._dialect, study_instance_uid=study, on_progress=progress)

    # --- WADO-RS to disk -----------------------------------------------------------------------------------------

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
        compared with the archive's own list, and only what is missing is asked for again.

        Args:
            study_instance_uid: which study.
            to: the folder, made where it does not exist.
            layout: a template with ``{study}``, ``{series}`` and ``{instance}``, or a function from `InstanceUids` to a
                relative path.
            compare_with_search: False leaves the list out; a study that lacks instances then goes unnoticed.
            progress: called with typed events.

        Raises:
            IncompleteDownload: instances did not arrive; ``report`` names them, and what arrived is on disk.
            NotFound: the archive does not hold it.
            LocalFileError: the disk is full, or the folder cannot be written to.
            PostdicomError: the archive cannot be worked with.
        """
        target = _target(study_instance_uid)
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
        target = _target(study_instance_uid, series_instance_uid)
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
        target = _target(study_instance_uid, series_instance_uid, sop_instance_uid)
        return await self._download(target, to, layout, False, progress)

    async def _download(
        self,
        target: Target,
        to: str | os.PathLike[str],
        layout: Layout,
        compare: bool,
        progress: OnProgress | None,
    ) -> DownloadReport:
        download = Download(self._retrieval, target, Path(to), layout=layout, on_progress=progress)
        return await download.run(compare=compare)

    # --- WADO-RS as streams --------------------------------------------------------------------------------------

    def iter_study(self, study_instance_uid: str) -> Parts:
        """Give the instances of a study as streams of bytes, in the order the archive sends them.

        ``async for part in archive.iter_study(uid): async for chunk in part``. Nothing is stored. A part that has ended
        was whole, and the loop ends only when the answer did; a cut raises `ProtocolError` or `ConnectionFailed`.
        Use ``async with`` where the loop may be left early: it holds one of ``limits.connections``.
        """
        return self._parts(_target(study_instance_uid))

    def iter_series(self, study_instance_uid: str, series_instance_uid: str) -> Parts:
        """Give the instances of a series as streams of bytes; see `iter_study`."""
        return self._parts(_target(study_instance_uid, series_instance_uid))

    def iter_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Parts:
        """Give one instance as a stream of bytes; see `iter_study`."""
        return self._parts(_target(study_instance_uid, series_instance_uid, sop_instance_uid))

    def iter_instance_frames(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Sequence[int],
        *,
        media_type: str | None = None,
    ) -> Parts:
        """Give frames, counted from 1, as streams of bytes (PS3.18 section 10.4.1.1.6).

        ``media_type`` is the Accept header to send; by default frames come as stored, then as the archive can.
        """
        suffix = f"/frames/{_frames(frame_numbers)}"
        target = _target(study_instance_uid, series_instance_uid, sop_instance_uid)
        return self._parts(target, suffix, _ladder(media_type, FRAME_LADDER), "retrieve frames of")

    def _parts(
        self,
        target: Target,
        suffix: str = "",
        ladder: tuple[str, ...] = INSTANCE_LADDER,
        operation: str = "retrieve",
    ) -> Parts:
        return Parts(
            lambda: self._retrieval.open(target, suffix=suffix, ladder=ladder, operation=operation),
            operation=f"{operation} {target.route}",
            max_parts=self.settings.limits.parts,
        )

    # --- WADO-RS into memory -------------------------------------------------------------------------------------

    async def retrieve_instance(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> Dataset:
        """Return one instance as a pydicom data set, at most ``limits.in_memory_bytes``."""
        target = _target(study_instance_uid, series_instance_uid, sop_instance_uid)
        (data,) = await self._whole_parts(self._parts(target), exactly=1)
        header = read_header(data, complete=True)
        if not isinstance(header, InstanceHeader) or not target.covers(header.uids):
            raise ProtocolError("the archive answered with another instance", operation="retrieve instance")
        return await anyio.to_thread.run_sync(_parsed, data)

    async def retrieve_instance_frames(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Sequence[int],
        *,
        media_type: str | None = None,
    ) -> list[bytes]:
        """Return frames, counted from 1, in the order asked for; see `iter_instance_frames`.

        Raises:
            ProtocolError: the archive answered with more or fewer frames.
        """
        parts = self.iter_instance_frames(
            study_instance_uid, series_instance_uid, sop_instance_uid, frame_numbers, media_type=media_type
        )
        return await self._whole_parts(parts, exactly=len(frame_numbers))

    async def _whole_parts(self, parts: Parts, *, exactly: int) -> list[bytes]:
        left = self.settings.limits.in_memory_bytes
        found: list[bytes] = []
        async with parts:
            async for part in parts:
                found.append(await part.read(left))
                left -= len(found[-1])
        if len(found) != exactly:
            raise ProtocolError(f"the archive answered with {len(found)} parts instead of {exactly}")
        return found

    def retrieve_study_metadata(self, study_instance_uid: str) -> Results[Dataset]:
        """Give the attributes of all instances of a study, without bulk data (PS3.18 section 10.4.1.1.2)."""
        return self._metadata(_target(study_instance_uid))

    def retrieve_series_metadata(self, study_instance_uid: str, series_instance_uid: str) -> Results[Dataset]:
        """Give the attributes of all instances of a series; see `retrieve_study_metadata`."""
        return self._metadata(_target(study_instance_uid, series_instance_uid))

    def retrieve_instance_metadata(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> Results[Dataset]:
        """Give the attributes of one instance; see `retrieve_study_metadata`."""
        return self._metadata(_target(study_instance_uid, series_instance_uid, sop_instance_uid))

    def _metadata(self, target: Target) -> Results[Dataset]:
        operation = f"retrieve metadata of {target.route}"
        path = target.path(self._dialect, "/metadata")

        async def pages(at_most: int | None, _warnings: list[str]) -> AsyncIterator[list[DicomJson]]:
            call = Call(operation, "GET", path, Repeat.READ, headers={"Accept": DICOM_JSON})
            answer = await self._session.fetch(call, cap=self.settings.limits.json_bytes)
            yield (await read_objects(answer, operation))[:at_most]

        return Results(pages, to_dataset)

    # --- rendered ------------------------------------------------------------------------------------------------

    async def retrieve_study_rendered(
        self, study_instance_uid: str, *, media_type: str = "image/jpeg", parameters: Mapping[str, str] | None = None
    ) -> Rendered:
        """Return a study rendered (PS3.18 section 10.4.1.1.3).

        Args:
            study_instance_uid: which study.
            media_type: the form wanted, for example ``image/png`` or ``video/mp4``.
            parameters: of the rendering, for example ``{"viewport": "256,256", "quality": "90"}`` (section 8.3.5).
        """
        return await self._rendered(_target(study_instance_uid), "/rendered", media_type, parameters)

    async def retrieve_series_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
        parameters: Mapping[str, str] | None = None,
    ) -> Rendered:
        """Return a series rendered; see `retrieve_study_rendered`."""
        target = _target(study_instance_uid, series_instance_uid)
        return await self._rendered(target, "/rendered", media_type, parameters)

    async def retrieve_instance_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
        parameters: Mapping[str, str] | None = None,
    ) -> Rendered:
        """Return an instance rendered; see `retrieve_study_rendered`."""
        target = _target(study_instance_uid, series_instance_uid, sop_instance_uid)
        return await self._rendered(target, "/rendered", media_type, parameters)

    async def retrieve_instance_frames_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Sequence[int],
        *,
        media_type: str = "image/jpeg",
        parameters: Mapping[str, str] | None = None,
    ) -> Rendered:
        """Return frames rendered; see `retrieve_study_rendered`."""
        target = _target(study_instance_uid, series_instance_uid, sop_instance_uid)
        suffix = f"/frames/{_frames(frame_numbers)}/rendered"
        return await self._rendered(target, suffix, media_type, parameters)

    async def retrieve_study_thumbnail(self, study_instance_uid: str, *, media_type: str = "image/jpeg") -> Rendered:
        """Return a picture that stands for a study (PS3.18 section 10.4.1.1.4)."""
        return await self._rendered(_target(study_instance_uid), "/thumbnail", media_type, None)

    async def retrieve_series_thumbnail(
        self, study_instance_uid: str, series_instance_uid: str, *, media_type: str = "image/jpeg"
    ) -> Rendered:
        """Return a picture that stands for a series."""
        target = _target(study_instance_uid, series_instance_uid)
        return await self._rendered(target, "/thumbnail", media_type, None)

    async def retrieve_instance_thumbnail(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
    ) -> Rendered:
        """Return a picture that stands for an instance."""
        target = _target(study_instance_uid, series_instance_uid, sop_instance_uid)
        return await self._rendered(target, "/thumbnail", media_type, None)

    async def _rendered(
        self, target: Target, suffix: str, media_type: str, parameters: Mapping[str, str] | None
    ) -> Rendered:
        path = target.path(self._dialect, suffix)
        if parameters:
            path += ("&" if "?" in path else "?") + urlencode(dict(parameters), safe=",")
        operation = f"retrieve {suffix.rpartition('/')[2]} {target.route}"
        call = Call(operation, "GET", path, Repeat.READ, headers={"Accept": _header_value(media_type, "media_type")})
        answer = await self._session.fetch(call, cap=self.settings.limits.in_memory_bytes)
        return Rendered(answer.body, answer.content_type)

    # --- bulk data -----------------------------------------------------------------------------------------------

    async def retrieve_bulkdata(
        self, url: str, *, media_type: str | None = None, byte_range: tuple[int, int] | None = None
    ) -> bytes:
        """Return the value behind a BulkDataURI (PS3.18 section 10.4.1.1.5), at most ``limits.in_memory_bytes``.

        Args:
            url: as the metadata gave it, relative to the service or absolute.
            media_type: the Accept header to send.
            byte_range: first and last byte, both counted.

        Raises:
            UsageError: the address leads to another server; credentials and requests stay with this one.
        """
        headers = {"Range": f"bytes={byte_range[0]}-{byte_range[1]}"} if byte_range else {}
        operation = "retrieve bulk data"
        ladder = _ladder(media_type, FRAME_LADDER)
        parts = Parts(
            lambda: self._retrieval.open_path(self._own_path(url), ladder=ladder, operation=operation, headers=headers),
            operation=operation,
            max_parts=self.settings.limits.parts,
        )
        return b"".join(await self._whole_parts(parts, exactly=1))

    def _own_path(self, url: str) -> str:
        """Return what to append to the session's address to reach a URL that the server handed out."""
        base = self._session.url
        absolute = urljoin(base + "/", url.strip())
        if not same_origin(absolute, base):
            raise UsageError("url: it leads to another server than this session's; it is not followed")
        return self._session.path_to(absolute)

    # --- delete --------------------------------------------------------------------------------------------------

    async def delete_study(self, study_instance_uid: str) -> None:
        """Delete a study. Not part of every archive.

        Raises:
            NotFound: the archive does not hold it.
            ConnectionFailed: with ``may_have_arrived`` the outcome is unknown; a search tells. It is not repeated.
        """
        await self._delete(_target(study_instance_uid))

    async def delete_series(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """Delete a series; see `delete_study`."""
        await self._delete(_target(study_instance_uid, series_instance_uid))

    async def delete_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> None:
        """Delete an instance; see `delete_study`."""
        await self._delete(_target(study_instance_uid, series_instance_uid, sop_instance_uid))

    async def _delete(self, target: Target) -> None:
        call = Call(f"delete {target.route}", "DELETE", target.path(self._dialect), Repeat.CHANGE)
        await self._session.fetch(call, cap=self.settings.limits.json_bytes)


# --- arguments --------------------------------------------------------------------------------------------------------


def _dialect(dialect: str | Dialect) -> Dialect:
    if isinstance(dialect, Dialect):
        return dialect
    if dialect not in DIALECTS:
        raise UsageError(f"dialect: give one of {', '.join(DIALECTS)}")
    return DIALECTS[dialect]


def _target(study: str, series: str | None = None, instance: str | None = None) -> Target:
    return Target(
        checked_uid(study, "study_instance_uid"),
        None if series is None else checked_uid(series, "series_instance_uid"),
        None if instance is None else checked_uid(instance, "sop_instance_uid"),
    )


def _given(**uids: str | None) -> dict[str, str]:
    """Return the UIDs that were given, checked, by the placeholders of a dialect."""
    return {name.partition("_")[0]: checked_uid(uid, name) for name, uid in uids.items() if uid is not None}


def _frames(numbers: Sequence[int]) -> str:
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise UsageError("frame_numbers: give one or more numbers from 1 on")
    return ",".join(map(str, numbers))


def _ladder(media_type: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return default if media_type is None else (_header_value(media_type, "media_type"),)


def _header_value(value: str, argument: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise UsageError(f"{argument}: not a media type")
    return value


def _parsed(data: bytes) -> Any:
    import pydicom  # it takes long to import

    return pydicom.dcmread(BytesIO(data))
