"""Files as a ZIP archive that is written while it is sent: memory stays flat, whatever its size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from starlette.responses import StreamingResponse

from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.dicomweb.multipart_writer import PIECE, FileSlice, cut
from postdicom_async.emulator.store.archive import StoredInstance

ZipEntry = tuple[str, "StoredInstance"]
"""The name in the archive and the file."""


def zip_answer(context: ArchiveContext, entries: Iterable[ZipEntry], headers: Mapping[str, str]) -> StreamingResponse:
    """Return files in one archive, stored as they are: images hardly shrink."""
    return StreamingResponse(_stream(context, _chunks(entries)), headers=headers, media_type="application/zip")


async def _stream(context: ArchiveContext, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await context.run(next, chunks, b""):
        yield chunk


class _Sink:
    """Holds what `ZipFile` writes until it is fetched; it has no position, so that `ZipFile` never seeks."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:
        self.waiting += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is nothing below."""

    def take(self) -> bytes:
        taken, self.waiting = bytes(self.waiting), bytearray()
        return taken


def _chunks(entries: Iterable[ZipEntry]) -> Iterator[bytes]:
    """Yield about a megabyte at a time; blocks."""
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as archive:  # type: ignore[call-overload]  # it needs no more where it only writes
        for name, instance in entries:
            info = ZipInfo(name)
            info.file_size = instance.size  # tells whether sizes need 64 bits
            with archive.open(info, "w") as target:
                for piece in cut(FileSlice(instance.path, 0, instance.size)):
                    target.write(piece if isinstance(piece, bytes) else piece.read())
                    if len(sink.waiting) >= PIECE:
                        yield sink.take()
    yield sink.take()
