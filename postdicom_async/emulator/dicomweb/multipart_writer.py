"""multipart/related answers of known length, streamed from disk in large pieces."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from starlette.responses import Response, StreamingResponse

from postdicom_async.emulator.context import ArchiveContext

PIECE = 1024 * 1024


@dataclass(frozen=True)
class FileSlice:
    """Some bytes of a file that never changes."""

    path: Path
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self) -> bytes:
        """Return the bytes; the file is open only during the call, so an abandoned answer leaves nothing open.

        Raises:
            OSError: the file is gone or short; the answer breaks off, and its length tells the client.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.length)
        if len(data) != self.length:
            raise OSError(f"{self.length - len(data)} bytes are missing from a stored file")
        return data


PartSource: TypeAlias = bytes | FileSlice


@dataclass(frozen=True)
class AnswerPart:
    """One part of an answer."""

    content_type: str
    source: PartSource
    location: str = ""

    def head(self, boundary: str) -> bytes:
        """Return the delimiter and the header of this part."""
        lines = [f"--{boundary}", f"Content-Type: {self.content_type}", f"Content-Length: {len(self.source)}"]
        if self.location:
            lines.append(f"Content-Location: {self.location}")
        return "\r\n".join([*lines, "", ""]).encode()


def multipart_related(context: ArchiveContext, parts: Sequence[AnswerPart]) -> Response:
    """Return all parts in one answer; there is at least one."""
    boundary = secrets.token_hex(20)
    end = f"--{boundary}--\r\n".encode()
    length = sum(len(part.head(boundary)) + len(part.source) + 2 for part in parts) + len(end)
    media_type = parts[0].content_type.partition(";")[0]
    headers = {
        "Content-Type": f'multipart/related; type="{media_type}"; boundary={boundary}',
        "Content-Length": str(length),
    }

    def pieces() -> Iterator[PartSource]:
        for part in parts:
            yield part.head(boundary)
            yield from cut(part.source)
            yield b"\r\n"
        yield end

    return StreamingResponse(_stream(context, pieces()), headers=headers)


def single_part(context: ArchiveContext, part: AnswerPart) -> Response:
    """Return one part without a multipart wrapping."""
    headers = {"Content-Type": part.content_type, "Content-Length": str(len(part.source))}
    return StreamingResponse(_stream(context, cut(part.source)), headers=headers)


def cut(source: PartSource) -> Iterator[PartSource]:
    """Yield a source in pieces of at most a megabyte."""
    if isinstance(source, bytes):
        yield source
        return
    end = source.offset + source.length
    for offset in range(source.offset, end, PIECE):
        yield FileSlice(source.path, offset, min(PIECE, end - offset))


async def _stream(context: ArchiveContext, pieces: Iterator[PartSource]) -> AsyncIterator[bytes]:
    """Read about a megabyte at a time, from one file or many small ones, with one call to a thread each."""

    def read_batch() -> bytes:
        batch, size = [], 0
        for piece in pieces:
            batch.append(piece if isinstance(piece, bytes) else piece.read())
            size += len(piece)
            if size >= PIECE:
                break
        return b"".join(batch)

    while batch := await context.run(read_batch):
        yield batch
