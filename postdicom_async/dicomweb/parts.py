"""Parts as streams of bytes, for callers that pass them on without storing them."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Self, TypeAlias

from postdicom_async.dicom.uids import is_uid
from postdicom_async.dicomweb.media_types import parse_media_type
from postdicom_async.dicomweb.multipart import PartEnd, PartEvent, PartStart
from postdicom_async.dicomweb.retrieve import part_events
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.face import public_face
from postdicom_async.results import InstanceUids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from types import TracebackType

    from postdicom_async.http.answer import StreamedAnswer

__all__ = ["Opener", "Part", "Parts"]

_INSTANCE = re.compile(r"/studies/([0-9.]+)/series/([0-9.]+)/instances/([0-9.]+)(?![^/?#])")

Opener: TypeAlias = "Callable[[], AbstractAsyncContextManager[StreamedAnswer]]"
"""Makes a request when it is entered, and gives the connection back when it is left."""


@public_face
class Part:
    """One instance, frame or value, as a stream of bytes that can be read once. An instance can be uploaded as it is.

    Attributes:
        content_type: its Content-Type, as the server wrote it; empty when there is none.
        location: its Content-Location; empty when there is none.
    """

    def __init__(self, start: PartStart, events: AsyncIterator[PartEvent], operation: str) -> None:
        self.content_type: str = start.headers.get("content-type", "")
        self.location: str = start.headers.get("content-location", "")
        self._events = events
        self._operation = operation
        self._whole = False

    def __repr__(self) -> str:
        return f"<Part {parse_media_type(self.content_type).essence or 'of unknown type'}>"

    @property
    def transfer_syntax_uid(self) -> str:
        """The transfer syntax the part's Content-Type names; empty when it names none."""
        return parse_media_type(self.content_type).parameters.get("transfer-syntax", "").strip("*")

    @property
    def uids(self) -> InstanceUids | None:
        """The instance that its Content-Location names; None where it names none. What it holds is told by itself."""
        named = _INSTANCE.search(self.location)
        return InstanceUids(*named.groups()) if named is not None and all(map(is_uid, named.groups())) else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield its bytes as they arrive. It has ended only when the part is whole; a cut raises."""
        while not self._whole:
            event = await anext(self._events, None)
            if event is None:
                raise ProtocolError("the part did not arrive whole", operation=self._operation, temporary=True)
            if isinstance(event, PartEnd):
                self._whole = True
            elif isinstance(event, bytes):
                yield event

    async def read(self, limit: int | None = None) -> bytes:
        """Return the rest of it.

        Raises:
            ProtocolError: it is larger than ``limit`` bytes.
        """
        pieces = []
        size = 0
        async for piece in self:
            size += len(piece)
            if limit is not None and size > limit:
                raise ProtocolError(f"a part is larger than {limit} bytes", operation=self._operation)
            pieces.append(piece)
        return b"".join(pieces)

    async def drain(self) -> None:
        """Read past what is left of it."""
        async for _ in self:
            pass


@public_face
class Parts:
    """The parts of one or several answers, in the order they arrive.

    ``async for part in parts: async for chunk in part``.

    A part is read before the next one is asked for; what was not read of it is passed over. Running to the end gives
    the connection back. Use ``async with`` where the loop may be left early.
    """

    def __init__(self, answers: Sequence[tuple[Opener, int | None]], *, operation: str, max_parts: int) -> None:
        """Take what to ask for, and how many parts each answer must have; None for any number."""
        self._answers = list(answers)
        self._due: int | None = None
        self._count = 0
        self._operation = operation
        self._max_parts = max_parts
        self._stack = AsyncExitStack()
        self._events: AsyncGenerator[PartEvent, None] | None = None
        self._part: Part | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Part:
        """Return the next part; raise as `DicomWeb.iter_study` says."""
        if self._closed:
            raise StopAsyncIteration
        try:
            part = await self._next()
        except BaseException:
            await self.aclose()
            raise
        if part is None:
            await self.aclose()
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Give the connection back, or drop it when there is more to come."""
        self._closed = True
        if self._events is not None:
            await self._events.aclose()
        await self._stack.aclose()

    async def _next(self) -> Part | None:
        while self._events is not None or self._answers:
            if self._events is None:
                opener, self._due = self._answers.pop(0)
                self._count = 0
                answer = await self._stack.enter_async_context(opener())
                self._events = part_events(answer, self._operation, self._max_parts)
            if self._part is not None:
                await self._part.drain()
            async for event in self._events:
                if not isinstance(event, PartStart):
                    raise UsageError("a part must be read before the next one")
                self._count += 1
                self._require_count(may_be_less=True)
                self._part = Part(event, self._events, self._operation)
                return self._part
            self._require_count(may_be_less=False)
            self._events = self._part = None
            await self._stack.aclose()
        return None

    def _require_count(self, *, may_be_less: bool) -> None:
        """Refuse parts that cannot be told from one another: the caller goes by their order."""
        if self._due is not None and (self._count > self._due or (self._count < self._due and not may_be_less)):
            came = f"more than {self._due} parts" if may_be_less else f"{self._count} parts instead of {self._due}"
            raise ProtocolError(f"the archive answered with {came}", operation=self._operation)
