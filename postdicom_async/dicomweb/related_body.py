"""The body of a store request (PS3.18 section 10.5.2): instances byte for byte, in parts of one multipart message.

Its length is exact and its headers are constant, so that nothing of a file's content or name goes into them. It can be
opened again for a repeat. Small parts go out together; how far the bytes of each instance are out is told as they go.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from postdicom_async.bodies import BytesBody
from postdicom_async.disk.files import HeldFile
from postdicom_async.errors import LocalFileError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from postdicom_async.disk.sources import Usable

__all__ = ["Reached", "RelatedBody", "part_framing"]

_SMALL = 64 * 1024  # bytes of a part that is in memory and goes out with others
_GATHERED = 128 * 1024

Reached: TypeAlias = "Callable[[Usable, int], None]"
"""Is told of an instance that so many of its first bytes are out; of a repeat, again."""


@dataclass(slots=True)
class RelatedBody:
    """A multipart/related body over instances, opened anew for every attempt.

    Attributes:
        parts: the instances, sent byte for byte.
        reached: told of instance bytes as they are sent.
        broken: the part whose source could not be read, after ``open`` raised for it.
        begun: some of it was asked for, which happens when there is a connection for it to go out on.
        length: the exact Content-Length.
    """

    parts: Sequence[Usable]
    reached: Reached
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))
    broken: Usable | None = None
    begun: bool = False
    length: int = field(init=False)

    def __post_init__(self) -> None:
        """Count once; it is asked for several times."""
        framing = part_framing(self.boundary, len(self.parts))
        self.length = sum(map(len, framing)) + sum(part.body.length for part in self.parts)

    @property
    def content_type(self) -> str:
        """The request's Content-Type. ``type`` is quoted for .NET servers, ``boundary`` is not for old Orthanc."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield the body from its first byte."""
        *heads, tail = part_framing(self.boundary, len(self.parts))
        self.broken = None
        self.begun = True
        for part in self.parts:
            if isinstance(part.body, HeldFile):  # it was read when it was identified, and may have changed since
                with self._breaking(part):
                    await part.body.look()
        gathered: list[bytes] = []  # small parts go out together: a write of each costs more than its bytes
        small: list[Usable] = []
        size = 0
        for head, part in zip(heads, self.parts, strict=True):
            gathered.append(head)
            body = part.body
            data = body.data if isinstance(body, HeldFile | BytesBody) and body.length <= _SMALL else None
            if data is not None:
                gathered.append(data)
                small.append(part)
                size += body.length
                if size < _GATHERED:
                    continue
            yield b"".join(gathered)
            self._are_out(small)
            gathered, small, size = [], [], 0
            if data is None:
                async with aclosing(self._pieces(part)) as pieces:
                    async for piece in pieces:
                        yield piece
                        del piece  # not kept while the next is read
        yield b"".join((*gathered, tail))
        self._are_out(small)

    def _are_out(self, parts: list[Usable]) -> None:
        for part in parts:
            self.reached(part, part.body.length)

    async def _pieces(self, part: Usable) -> AsyncGenerator[bytes, None]:
        sent = 0
        with self._breaking(part):
            async for piece in part.body.open():
                sent += len(piece)
                yield piece
                del piece
                self.reached(part, sent)

    @contextmanager
    def _breaking(self, part: Usable) -> Iterator[None]:
        """Note of which part the source could not be read."""
        try:
            yield
        except LocalFileError:
            self.broken = part
            raise


def part_framing(boundary: str, count: int) -> Sequence[bytes]:
    """Return ``count + 1`` pieces: what stands before each part, and what stands after the last one.

    Constant headers: nothing of a file's content or name goes into them.
    """
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
    following = b"\r\n" + head
    return [head, *[following] * (count - 1), f"\r\n--{boundary}--\r\n".encode("ascii")]
