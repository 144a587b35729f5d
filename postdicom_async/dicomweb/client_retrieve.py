"""Retrieve: instances, frames and bulk data as streams or in memory."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import anyio.to_thread

from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.dicomweb.client_base import ClientBase, ladder_of, target_of
from postdicom_async.dicomweb.media_types import FRAME_LADDER
from postdicom_async.dicomweb.parts import Opener, Parts
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.http.endpoint import same_origin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from pydicom.dataset import Dataset

    from postdicom_async.dicomweb.retrieve import Target
    from postdicom_async.http.answer import StreamedAnswer

__all__ = ["ClientRetrieve"]


class ClientRetrieve(ClientBase):
    """WADO-RS as streams and into memory."""

    def iter_study(self, study_instance_uid: str) -> Parts:
        """Give the instances of a study as streams of bytes, in the order the archive sends them.

        ``async for part in archive.iter_study(uid): async for chunk in part``. Nothing is stored. A part that has ended
        was whole, and the loop ends only when the answer did; a cut raises `ProtocolError` or `ConnectionFailed`.
        Use ``async with`` where the loop may be left early: it holds one of ``limits.connections``.
        """
        return self._parts(target_of(study_instance_uid))

    def iter_series(self, study_instance_uid: str, series_instance_uid: str) -> Parts:
        """Give the instances of a series as streams of bytes; see `iter_study`."""
        return self._parts(target_of(study_instance_uid, series_instance_uid))

    def iter_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Parts:
        """Give one instance as a stream of bytes; see `iter_study`."""
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
        """Give frames, counted from 1, as streams of bytes (PS3.18 section 10.4.1.1.6).

        They come in the order asked for. More than fit into one URL (``dialect.url_bytes``) are asked for in several
        requests, one after the other; an answer with more or fewer parts than frames raises `ProtocolError`.
        ``media_type`` is the Accept header to send; by default frames come as stored, then as the archive can.
        """
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        ladder, operation = ladder_of(media_type, FRAME_LADDER), "retrieve frames of"

        def piece(suffix: str) -> Opener:
            return lambda: self._retrieval.open(target, suffix=suffix, ladder=ladder, operation=operation)

        return Parts(
            [(piece(suffix), count) for count, suffix in self._frame_pieces(target, frame_numbers)],
            operation=f"{operation} {target.route}",
            max_parts=self.settings.limits.parts,
        )

    def _parts(self, target: Target) -> Parts:
        return Parts(
            [(lambda: self._retrieval.open(target), None)],
            operation=f"retrieve {target.route}",
            max_parts=self.settings.limits.parts,
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
        if not isinstance(url, str):
            raise UsageError("url: give the address as text")
        headers = {} if byte_range is None else {"Range": _range_header(byte_range)}
        operation = "retrieve bulk data"
        ladder = ladder_of(media_type, FRAME_LADDER)

        def opener() -> AbstractAsyncContextManager[StreamedAnswer]:
            return self._retrieval.open_path(self._own_path(url), ladder=ladder, operation=operation, headers=headers)

        parts = Parts(
            [(opener, None)],
            operation=operation,
            max_parts=self.settings.limits.parts,
        )
        return b"".join(await self._whole_parts(parts, exactly=1))

    def _own_path(self, url: str) -> str:
        """Return what to append to the session's address to reach a URL that the server handed out."""
        base = self._session.url
        try:
            absolute = urljoin(base + "/", url.strip())
            is_own = same_origin(absolute, base)
        except ValueError:
            raise UsageError("url: not an address") from None
        if not is_own:
            raise UsageError("url: it leads to another server than this session's; it is not followed")
        return self._session.path_to(absolute)


def _parsed(data: bytes) -> Any:
    import pydicom  # it takes long to import

    return pydicom.dcmread(BytesIO(data))


def _range_header(byte_range: tuple[int, int]) -> str:
    usable = isinstance(byte_range, tuple) and len(byte_range) == 2 and all(type(n) is int for n in byte_range)
    if not usable or not 0 <= byte_range[0] <= byte_range[1]:
        raise UsageError("byte_range: give the first and the last byte, both from 0 on")
    return f"bytes={byte_range[0]}-{byte_range[1]}"
