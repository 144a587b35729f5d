"""Retrieve: instances, frames and bulk data as streams or in memory, and images rendered by the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin

import anyio.to_thread

from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.dicomweb.dialects import FRAME_LADDER, Dialect
from postdicom_async.dicomweb.filters import in_pieces
from postdicom_async.dicomweb.multipart import MultipartDamage, RenderedPiece, joined
from postdicom_async.dicomweb.retrieve import Opener, Parts, Retrieval, Target, target_of
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.face import translated
from postdicom_async.http.endpoint import same_origin
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from postdicom_async.results import Rendered
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from postdicom_async.http.answer import StreamedAnswer


class ClientRetrieve:
    """WADO-RS as streams, into memory, and rendered. Part of `DicomWeb`, which documents its arguments and errors."""

    _session: Session
    _dialect: Dialect
    _retrieval: Retrieval

    def iter_study(self, study_instance_uid: str) -> Parts:
        """Yield the instances of a study as streams of bytes, in the order the archive sends them.

        ``async for part in archive.iter_study(uid): async for chunk in part``. Nothing is stored. A part that ends
        normally is whole, and the loop ends only when the answer does; a cut answer raises `ProtocolError` or
        `ConnectionFailed`. Use ``async with`` if the loop may be left early: until closed, it occupies one of
        ``limits.connections``.
        """
        return self._parts(target_of(study_instance_uid))

    def iter_series(self, study_instance_uid: str, series_instance_uid: str) -> Parts:
        """Yield the instances of a series as streams of bytes; see `iter_study`."""
        return self._parts(target_of(study_instance_uid, series_instance_uid))

    def iter_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Parts:
        """Yield one instance as a stream of bytes; see `iter_study`."""
        return self._parts(target_of(study_instance_uid, series_instance_uid, sop_instance_uid))

    def iter_instance_frames(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Sequence[int],
        *,
        media_type: str | None = None,
    ) -> Parts:
        """Yield frames, counted from 1, as streams of bytes (PS3.18 section 10.4.1.1.6).

        They come in the order requested. If they do not fit into one URL (``dialect.url_bytes``), several requests are
        made, one after the other; an answer with more or fewer parts than frames raises `ProtocolError`. ``media_type``
        is the Accept header to send; by default frames are requested as stored, then in whatever form the archive can
        send.
        """
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        ladder, operation = _ladder_of(media_type, FRAME_LADDER), "retrieve frames of"

        def piece(suffix: str) -> Opener:
            return lambda: self._retrieval.open(target, suffix=suffix, ladder=ladder, operation=operation)

        return Parts(
            [(piece(suffix), count) for count, suffix in self._frame_pieces(target, frame_numbers)],
            operation=f"{operation} {target.route}",
            max_parts=self._session.settings.limits.parts,
        )

    def _parts(self, target: Target) -> Parts:
        return Parts(
            [(lambda: self._retrieval.open(target), None)],
            operation=f"retrieve {target.route}",
            max_parts=self._session.settings.limits.parts,
        )

    # --- into memory ------------------------------------------------------------------------------------------------

    async def retrieve_instance(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> Dataset:
        """Return one instance as a pydicom data set, at most ``limits.in_memory_bytes``."""
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
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
        """Return frames, counted from 1, in the order requested; see `iter_instance_frames`.

        Raises:
            ProtocolError: the archive answered with more or fewer frames.
        """
        parts = self.iter_instance_frames(
            study_instance_uid, series_instance_uid, sop_instance_uid, frame_numbers, media_type=media_type
        )
        return await self._whole_parts(parts, exactly=len(frame_numbers))

    async def _whole_parts(self, parts: Parts, *, exactly: int) -> list[bytes]:
        left = self._session.settings.limits.in_memory_bytes
        found: list[bytes] = []
        with watch_call(parts.operation):
            async with parts:
                async for part in parts:
                    found.append(await part.read(left))
                    left -= len(found[-1])
        if len(found) != exactly:
            raise ProtocolError(f"the archive answered with {len(found)} parts instead of {exactly}")
        return found

    async def retrieve_bulkdata(
        self, url: str, *, media_type: str | None = None, byte_range: tuple[int, int] | None = None
    ) -> bytes:
        """Return the value behind a BulkDataURI (PS3.18 section 10.4.1.1.5), at most ``limits.in_memory_bytes``.

        Args:
            url: as it stands in the metadata, relative to the service or absolute.
            media_type: the Accept header to send.
            byte_range: first and last byte, both inclusive, counted from 0.

        Raises:
            UsageError: the address leads to another server; credentials and requests stay with this one.
        """
        if not isinstance(url, str):
            raise UsageError("give the address as text", argument="url")
        headers = {} if byte_range is None else {"Range": _range_header(byte_range)}
        operation = "retrieve bulk data"
        ladder = _ladder_of(media_type, FRAME_LADDER)

        def opener() -> AbstractAsyncContextManager[StreamedAnswer]:
            return self._retrieval.open_path(self._own_path(url), ladder=ladder, operation=operation, headers=headers)

        parts = Parts(
            [(opener, None)],
            operation=operation,
            max_parts=self._session.settings.limits.parts,
        )
        return b"".join(await self._whole_parts(parts, exactly=1))

    def _own_path(self, url: str) -> str:
        """Return the ``Call.path`` of a URL that the server handed out."""
        base = self._session.url
        try:
            absolute = urljoin(base + "/", url.strip())
            is_own = same_origin(absolute, base)
        except ValueError:
            raise UsageError("not an address", argument="url") from None
        if not is_own:
            raise UsageError("it leads to another server than this session's; it is not followed", argument="url")
        return self._session.path_to(absolute)

    # --- rendered ---------------------------------------------------------------------------------------------------

    async def retrieve_study_rendered(
        self, study_instance_uid: str, *, media_type: str = "image/jpeg", parameters: Mapping[str, str] | None = None
    ) -> Rendered:
        """Return a study rendered (PS3.18 section 10.4.1.1.3).

        Args:
            study_instance_uid: which study.
            media_type: the format wanted, for example ``image/png`` or ``video/mp4``.
            parameters: rendering parameters, for example ``{"viewport": "256,256", "quality": "90"}`` (section 8.3.5).
        """
        return await self._rendered(target_of(study_instance_uid), "/rendered", media_type, parameters)

    async def retrieve_series_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
        parameters: Mapping[str, str] | None = None,
    ) -> Rendered:
        """Return a series rendered; see `retrieve_study_rendered`."""
        target = target_of(study_instance_uid, series_instance_uid)
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
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
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
        """Return frames rendered; see `retrieve_study_rendered`.

        Several frames come in whatever form the archive chooses: mostly multipart/related with an image for each. If
        they do not fit into one URL (``dialect.url_bytes``), several requests are made, and the result is
        multipart/related, in order.

        Raises:
            ProtocolError: several requests were needed, and an answer does not have one image for each frame.
        """
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        tail = "/rendered" + _query(parameters)
        pieces = self._frame_pieces(target, frame_numbers, tail)
        answers: list[RenderedPiece] = []
        left = self._session.settings.limits.in_memory_bytes
        for count, suffix in pieces:
            one = await self._rendered(target, suffix + "/rendered", media_type, parameters, left)
            if len(pieces) == 1:
                return one
            answers.append(RenderedPiece(count, one.media_type, one.content))
            left -= len(one.content)
        with translated(MultipartDamage, _too_many):
            return joined(answers, token_hex(16))

    async def retrieve_study_thumbnail(self, study_instance_uid: str, *, media_type: str = "image/jpeg") -> Rendered:
        """Return a thumbnail of a study (PS3.18 section 10.4.1.1.4)."""
        return await self._rendered(target_of(study_instance_uid), "/thumbnail", media_type, None)

    async def retrieve_series_thumbnail(
        self, study_instance_uid: str, series_instance_uid: str, *, media_type: str = "image/jpeg"
    ) -> Rendered:
        """Return a thumbnail of a series."""
        target = target_of(study_instance_uid, series_instance_uid)
        return await self._rendered(target, "/thumbnail", media_type, None)

    async def retrieve_instance_thumbnail(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
    ) -> Rendered:
        """Return a thumbnail of an instance."""
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        return await self._rendered(target, "/thumbnail", media_type, None)

    async def _rendered(
        self,
        target: Target,
        suffix: str,
        media_type: str,
        parameters: Mapping[str, str] | None,
        cap: int | None = None,
    ) -> Rendered:
        path = target.path(self._dialect, suffix)
        path += _query(parameters, "&" if "?" in path else "?")
        operation = f"retrieve {suffix.rpartition('/')[2]} {target.route}"
        call = Call(operation, "GET", path, Repeat.READ, headers={"Accept": _header_value(media_type, "media_type")})
        most = self._session.settings.limits.in_memory_bytes if cap is None else cap
        with watch_call(operation):
            answer = await self._session.fetch(call, cap=most)
        return Rendered(answer.body, answer.content_type)

    def _frame_pieces(self, target: Target, numbers: Sequence[int], tail: str = "") -> list[tuple[int, str]]:
        """Return, for each request that a list of frames needs, how many frames it asks for and its path."""

        def suffix(some: Sequence[int]) -> str:
            return f"/frames/{_frame_list(some)}"

        def path(some: Sequence[int]) -> str:
            return target.path(self._dialect, suffix(some)) + tail

        longest = self._dialect.url_bytes - len(self._session.url)
        _frame_list(numbers)
        return [(len(some), suffix(some)) for some in in_pieces(numbers, lambda some: len(path(some)) <= longest)]


def _parsed(data: bytes) -> Any:
    import pydicom  # slow to import

    return pydicom.dcmread(BytesIO(data))


def _range_header(byte_range: tuple[int, int]) -> str:
    usable = isinstance(byte_range, tuple) and len(byte_range) == 2 and all(type(n) is int for n in byte_range)
    if not usable or not 0 <= byte_range[0] <= byte_range[1]:
        raise UsageError("give the first and the last byte, both from 0 on", argument="byte_range")
    return f"bytes={byte_range[0]}-{byte_range[1]}"


def _too_many(damage: MultipartDamage) -> ProtocolError:
    return ProtocolError(f"{damage}; ask for fewer frames at a time", operation="retrieve rendered frames")


def _query(parameters: Mapping[str, str] | None, joint: str = "?") -> str:
    if parameters is not None and not isinstance(parameters, Mapping):
        raise UsageError("give a mapping of names to text", argument="parameters")
    return joint + urlencode(dict(parameters), safe=",") if parameters else ""


def _frame_list(numbers: Sequence[int]) -> str:
    """Return frame numbers as they are written in a path."""
    is_list = isinstance(numbers, Sequence) and not isinstance(numbers, str | bytes)
    if not is_list or not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise UsageError("give one or more numbers from 1 on", argument="frame_numbers")
    return ",".join(map(str, numbers))


def _ladder_of(media_type: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return the Accept headers to try: the caller's own, or the default ones."""
    return default if media_type is None else (_header_value(media_type, "media_type"),)


def _header_value(value: str, argument: str) -> str:
    """Return the value if it is valid in a header; raise `UsageError` if not."""
    if not value.isascii() or not value.isprintable():
        raise UsageError("not a media type", argument=argument)
    return value
