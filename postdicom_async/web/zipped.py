"""Instances as they arrive, as the bytes of a ZIP archive: nothing is stored, and what nobody reads is not fetched.

Instances are written as they are (images are packed already), their lengths and checksums behind them, in the form
that has no limit at 4 GiB. The package zipstream-ng writes the records. It asks for data, and data here is awaited:
so it is given one piece at a time, and asked for what it makes of it. Held are a piece or two, up to 1 MiB of the
instance that is being named, and some 800 bytes for each instance, for the list at the archive's end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from postdicom_async.dicom.header import HEADER_LIMIT, HeaderGap, InstanceHeader, read_header, read_values
from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout, naming_of
from postdicom_async.errors import NotFound, UsageError
from postdicom_async.face import public_face

if TYPE_CHECKING:
    from zipstream.ng import ZipStream

    from postdicom_async.dicomweb.retrieve import Parts

_AT_LEAST = 64 << 10  # bytes of a piece: a server sends each on its own, and an archive's records are small


class GivesParts(Protocol):
    """An archive: `DicomWeb`, `PostDicom`."""

    def iter_study(self, study_instance_uid: str) -> Parts:
        """See `DicomWeb.iter_study`."""
        ...

    def iter_series(self, study_instance_uid: str, series_instance_uid: str) -> Parts:
        """See `DicomWeb.iter_series`."""
        ...


@public_face
def study_as_zip(
    archive: GivesParts, study_instance_uid: str, *, layout: Layout = DEFAULT_LAYOUT
) -> AsyncGenerator[bytes, None]:
    """Return the bytes of a ZIP archive with the instances of a study, each under its name in ``layout``.

    See `as_zip` for what is yielded and raised.
    """
    return as_zip(archive.iter_study(study_instance_uid), layout=layout)


@public_face
def series_as_zip(
    archive: GivesParts, study_instance_uid: str, series_instance_uid: str, *, layout: Layout = DEFAULT_LAYOUT
) -> AsyncGenerator[bytes, None]:
    """Return the bytes of a ZIP archive with the instances of a series; see `study_as_zip`."""
    return as_zip(archive.iter_series(study_instance_uid, series_instance_uid), layout=layout)


@public_face
def as_zip(
    parts: AsyncIterable[AsyncIterable[bytes]], *, layout: Layout = DEFAULT_LAYOUT
) -> AsyncGenerator[bytes, None]:
    """Return the bytes of a ZIP archive with one file for each part, as they arrive.

    Close the generator (``aclosing``, or one of the responses of ``postdicom_async.web``) if it may be left early:
    then the download ends.

    Args:
        parts: what `DicomWeb.iter_study`, `DicomWeb.iter_series` and `DicomWeb.iter_instance` give.
        layout: the name of each instance in the archive: a template or a function, as for a download. The default has
            UIDs alone; with ``{PatientID}`` and the like patient data are in the names. A part without readable UIDs is
            ``unnamed/000001.dcm``; of two with one name the second gets ``-2``.

    Yields:
        Pieces of 64 KiB or more. It ends normally only when everything has arrived whole.

    Raises:
        UsageError: the layout is wrong, or the extra ``web`` is not installed.
        NotFound: there is not one part.
        PostdicomError: the download broke. What was yielded is no whole archive, and no unpacker takes it for one.
    """
    return _gathered(_records(parts, _Names(layout), _new_archive()))


def _new_archive() -> ZipStream:
    try:
        from zipstream.ng import ZipStream
    except ImportError:
        missing = True
    else:
        missing = False
    if missing:
        raise UsageError("ZIP archives need the extra 'web': pip install \"postdicom-async[web]\"")
    return ZipStream()


@public_face  # its frames hold what patients' images are made of
async def _gathered(records: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Join small pieces."""
    held: list[bytes] = []
    size = 0
    async with aclosing(records):
        async for record in records:
            held.append(record)
            size += len(record)
            if size >= _AT_LEAST:
                piece = b"".join(held)
                held, size = [], 0
                yield piece
    if held:
        yield b"".join(held)


async def _records(
    parts: AsyncIterable[AsyncIterable[bytes]], names: _Names, archive: ZipStream
) -> AsyncGenerator[bytes, None]:
    async with _closed(parts):
        async for part in parts:
            pieces = aiter(part)
            async with _closed(pieces):
                beginning, name = await _beginning(pieces, names)
                handed = _Handed()
                archive.add(handed, name)
                records = archive.file()
                yield next(records)
                for piece in beginning:
                    yield handed.over(piece, records)
                async for piece in pieces:
                    yield handed.over(piece, records)
            handed.ended = True
            for record in records:
                yield record
    if not archive.num_streamed():
        raise NotFound("the archive gave no instance")
    for record in archive.footer():
        yield record


@asynccontextmanager
async def _closed(iterable: object) -> AsyncIterator[None]:
    """Close it at the end, if it can be closed."""
    try:
        yield
    finally:
        if hasattr(iterable, "aclose"):
            await iterable.aclose()


async def _beginning(pieces: AsyncIterator[bytes], names: _Names) -> tuple[list[bytes], str]:
    """Return as many pieces as it takes to name the instance, and its name."""
    read: list[bytes] = []
    start = b""
    async for piece in pieces:
        read.append(piece)
        start += piece
        if (name := names.of(start, complete=False)) is not None:
            return read, name
    return read, names.of(start, complete=True) or ""


class _Handed:
    """What the writer iterates over. Each piece is there when it asks: it must not take a part for the whole."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self.ended = False

    def over(self, piece: bytes, records: Iterator[bytes]) -> bytes:
        """Hand a piece over and return what the writer makes of it."""
        self._waiting.append(piece)
        made = next(records)
        if self._waiting:
            raise RuntimeError("the writer of the archive did not take what it was given")
        return made

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._waiting:
            return self._waiting.pop()
        if self.ended:
            raise StopIteration
        raise RuntimeError("the writer of the archive asked for more than there is")


class _Names:
    """Names in an archive: by the layout, and each only once, in the eyes of a system that ignores case."""

    def __init__(self, layout: Layout) -> None:
        self._naming = naming_of(layout)
        self._given: dict[str, int] = {}  # with the last number behind it, so that none is tried twice
        self._unnamed = 0

    def of(self, start: bytes, *, complete: bool) -> str | None:
        """Return the name of the next instance by its first bytes; None if it takes more of them."""
        complete = complete or len(start) >= HEADER_LIMIT
        found = read_header(start, complete=complete)
        if found is HeaderGap.INCOMPLETE:
            return None
        if not isinstance(found, InstanceHeader):
            self._unnamed += 1
            return self._once(f"unnamed/{self._unnamed:06}.dcm")
        wanted = self._naming.wanted
        values, may_be_more = read_values(start, wanted) if wanted else ({}, False)
        if may_be_more and not complete:
            return None
        return self._once("/".join(self._naming.name(found.uids, values)))

    def _once(self, wanted: str) -> str:
        name, number = wanted, self._given.get(wanted.lower(), 1)
        while name.lower() in self._given:
            number += 1
            stem, dot, ending = wanted.rpartition(".")
            # A UID has dots too, but no letters.
            name = f"{stem}-{number}.{ending}" if dot and ending.isalpha() else f"{wanted}-{number}"
        self._given[wanted.lower()] = number
        self._given.setdefault(name.lower(), 1)
        return name
