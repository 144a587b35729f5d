"""Instances as they arrive, as the bytes of a ZIP archive: nothing is stored, and what nobody reads is not fetched.

Instances are written as they are (images are packed already), their lengths and checksums behind them, in the form
that has no limit at 4 GiB. The package zipstream-ng writes the records. It asks for data, and data here is awaited:
so it is given one piece at a time, and asked for what it makes of it. Held are a piece or two, up to 1 MiB of the
instance whose UIDs are being looked for, and some 600 bytes for each instance, for the list at the archive's end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from postdicom_async.dicom.header import HeaderGap, InstanceHeader, read_header
from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout, relative_names
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
            UIDs alone. A part without readable UIDs is ``unnamed/000001.dcm``; of two with one name the second gets
            ``-2``.

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
                beginning, found = await _beginning(pieces)
                handed = _Handed()
                archive.add(handed, names.of(found))
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


async def _beginning(pieces: AsyncIterator[bytes]) -> tuple[list[bytes], InstanceHeader | HeaderGap]:
    """Return as many pieces as it takes to tell which instance this is, and what they tell."""
    read: list[bytes] = []
    found: InstanceHeader | HeaderGap = HeaderGap.INCOMPLETE
    start = b""
    async for piece in pieces:
        read.append(piece)
        start += piece
        found = read_header(start, complete=False)
        if found is not HeaderGap.INCOMPLETE:
            return read, found
    return read, read_header(start, complete=True)


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
        self._name = relative_names(layout)
        self._given: set[str] = set()
        self._unnamed = 0

    def of(self, found: InstanceHeader | HeaderGap) -> str:
        """Return the name of the next instance."""
        if isinstance(found, InstanceHeader):
            name = "/".join(self._name(found.uids))
        else:
            self._unnamed += 1
            name = f"unnamed/{self._unnamed:06}.dcm"
        return self._once(name)

    def _once(self, name: str) -> str:
        wanted, number = name, 1
        while name.lower() in self._given:
            number += 1
            stem, dot, ending = wanted.rpartition(".")
            # A UID has dots too, but no letters.
            name = f"{stem}-{number}.{ending}" if dot and ending.isalpha() else f"{wanted}-{number}"
        self._given.add(name.lower())
        return name
