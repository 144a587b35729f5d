"""WADO-RS (PS3.18 section 10.4): requesting a resource in a form the server supports, and its parts as streams."""

from __future__ import annotations

import re
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from postdicom_async.dicom.header import checked_uid, is_uid
from postdicom_async.dicomweb.dialects import INSTANCE_LADDER, Dialect, Route, parse_media_type
from postdicom_async.dicomweb.multipart import (
    MultipartDamage,
    PartEnd,
    PartEvent,
    PartEvents,
    PartReader,
    PartStart,
    PartTaker,
    reader_for,
)
from postdicom_async.errors import PostdicomError, ProtocolError, ServerError, UsageError
from postdicom_async.events import AttemptFailed, Event
from postdicom_async.face import public_face, translated
from postdicom_async.http.exchange import Call
from postdicom_async.http.problems import server_reason
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.http.session import Session
from postdicom_async.results import InstanceUids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from types import TracebackType

    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.transfer.adaptive import AtOnce

# How servers refuse an Accept header: 406 by the standard, 400 (Orthanc), 415.
_REFUSED_FORM: Final = frozenset({HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})
_TOO_MUCH: Final = frozenset({Failure.REFUSED.name, Failure.UNAVAILABLE.name, Failure.LOST.name})
_NOT_AN_INSTANCE: Final = (
    "text/",
    "application/json",
    "application/dicom+json",
    "application/xml",
    "application/problem",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A study, one of its series or one of that series' instances; UIDs below its level are None."""

    study: str
    series: str | None = None
    instance: str | None = None

    @property
    def route(self) -> Route:
        """The route that addresses it."""
        if self.instance is not None:
            return Route.INSTANCE
        return Route.STUDY if self.series is None else Route.SERIES

    def covers(self, uids: tuple[str, str, str]) -> bool:
        """Whether an instance belongs to it."""
        wanted = (self.study, self.series, self.instance)
        return all(one is None or one == other for one, other in zip(wanted, uids, strict=True))

    def path(self, dialect: Dialect, suffix: str = "") -> str:
        """Return its ``Call.path`` in a dialect."""
        return dialect.path(
            self.route, suffix, study=self.study, series=self.series or "", instance=self.instance or ""
        )


def target_of(study: str, series: str | None = None, instance: str | None = None) -> Target:
    """Return the resource that the UIDs address; raise `UsageError` for an invalid one."""
    return Target(
        checked_uid(study, "study_instance_uid"),
        None if series is None else checked_uid(series, "series_instance_uid"),
        None if instance is None else checked_uid(instance, "sop_instance_uid"),
    )


@dataclass(slots=True)
class _Learned:
    """What earlier requests have revealed about a server."""

    # which kind of list an archive answered as it should; None, and the dialect says, until one did
    lists_by_series: bool | None = None
    # by ladder, the index of the Accept header it takes
    rungs: dict[tuple[str, ...], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Opens resources, remembering which Accept header this server takes, and how it lists instances.

    A copy over another session to the server, ``replace(retrieval, session=...)``, shares that memory.
    """

    session: Session
    dialect: Dialect
    learned: _Learned = field(default_factory=_Learned)

    def telling(self, policy: AtOnce) -> Retrieval:
        """Return a copy that reports attempts that overloaded the server to ``policy``.

        The session repeats them by itself, and if a repeat succeeds nobody else learns of it.
        """

        def watch(event: Event) -> None:
            if isinstance(event, AttemptFailed) and event.failure in _TOO_MUCH:
                policy.refused(time.monotonic())

        return replace(self, session=self.session.watched_by(watch))

    @property
    def as_stored(self) -> bool:
        """Whether the server takes ``transfer-syntax=*``; without it, it may transcode."""
        return self.learned.rungs.get(INSTANCE_LADDER, 0) == 0

    @asynccontextmanager
    async def open(
        self,
        target: Target,
        *,
        suffix: str = "",
        ladder: tuple[str, ...] = INSTANCE_LADDER,
        operation: str = "retrieve",
    ) -> AsyncIterator[StreamedAnswer]:
        """Yield the answer for a resource; Accept headers are tried down the ladder until one is taken."""
        path = target.path(self.dialect, suffix)
        operation = f"{operation} {target.route}"
        async with self.open_path(path, ladder=ladder, operation=operation) as answer:
            yield answer

    @asynccontextmanager
    async def open_path(
        self,
        path: str,
        *,
        ladder: tuple[str, ...],
        operation: str,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[StreamedAnswer]:
        """Yield the answer for a path below the service's address.

        Raises:
            ProtocolError: the answer is a text message instead of the resource.
            PostdicomError: whatever the session raises.
        """
        call = Call(operation, "GET", path, Repeat.READ, headers=headers or {})
        async with await self._accepted(call, ladder) as answer:
            await _refuse_message(answer, operation, self.session.secrets)
            yield answer

    async def _accepted(self, call: Call, ladder: tuple[str, ...]) -> StreamedAnswer:
        """Try the Accept headers down the ladder; if none is taken, raise the first refusal."""
        refusals: list[ServerError] = []
        session = self.session.one_call()
        for rung in range(self.learned.rungs.get(ladder, 0), len(ladder)):
            try:
                answer = await session.stream(replace(call, headers={"Accept": ladder[rung], **call.headers}))
            except ServerError as error:
                refusals.append(error)
                if error.status not in _REFUSED_FORM:
                    break
            else:
                self.learned.rungs[ladder] = rung
                return answer
        raise refusals[0]


async def _refuse_message(answer: StreamedAnswer, operation: str, secrets: tuple[str, ...]) -> None:
    """Raise `ProtocolError` for an answer of status 2xx whose body is a text that explains why there is no instance."""
    kind = parse_media_type(answer.content_type).essence
    if kind.startswith(_NOT_AN_INSTANCE):
        body = await answer.read_some(64 * 1024)
        page = kind in ("text/html", "application/xhtml+xml")
        raise ProtocolError(
            "a web page came instead of instances; a login page, or another address than the DICOMweb service's?"
            if page
            else "the archive answered with a message instead of instances",
            operation=operation,
            status=answer.status,
            reason=server_reason(answer.headers, body, secrets),
        )


def part_reader(answer: StreamedAnswer, operation: str, max_parts: int, taker: PartTaker) -> PartReader:
    """Return the reader for an answer's body, which passes the parts to ``taker``.

    Raises:
        ProtocolError: its Content-Type cannot be read.
    """
    with translated(MultipartDamage, lambda damage: damaged(damage, operation)):
        return reader_for(answer.content_type, taker, end_is_marked=answer.end_is_marked, max_parts=max_parts)


def damaged(damage: MultipartDamage, operation: str) -> PostdicomError:
    """Return the caller's error for a damaged body."""
    return ProtocolError(str(damage), operation=operation, temporary=True)


async def part_events(answer: StreamedAnswer, operation: str, max_parts: int) -> AsyncGenerator[PartEvent, None]:
    """Yield the parts of an answer as they arrive.

    Raises:
        ProtocolError: the body is damaged or ends early.
        ConnectionFailed: it broke or stalled.
    """
    events = PartEvents()
    reader = part_reader(answer, operation, max_parts, events)
    chunks = aiter(answer.chunks())
    chunk: bytes | None = b""
    empty = True
    while chunk is not None:
        chunk = await anext(chunks, None)
        problem: PostdicomError | None = None
        try:
            if chunk is None:
                reader.close()
            else:
                reader.feed(chunk)
        except MultipartDamage as damage:
            problem = damaged(damage, operation)
        found, events[:] = list(events), ()
        for event in found:  # parts that precede the damage are valid
            empty = False
            yield event
        if problem is not None:
            raise problem
    if empty:  # an answer without any part would pass for a study without instances
        raise damaged(MultipartDamage("the answer is empty"), operation)


_INSTANCE = re.compile(r"/studies/([0-9.]+)/series/([0-9.]+)/instances/([0-9.]+)(?![^/?#])")

Opener: TypeAlias = "Callable[[], AbstractAsyncContextManager[StreamedAnswer]]"
"""Makes a request when entered, and gives the connection back when left."""


@public_face
class Part:
    """One instance, frame or value, as a stream of bytes that can be read once. An instance can be uploaded as it is.

    Attributes:
        content_type: its Content-Type, as the server wrote it; empty if there is none.
        location: its Content-Location; empty if there is none.
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
        """The instance named by its Content-Location, None if there is none; only the content is authoritative."""
        named = _INSTANCE.search(self.location)
        return InstanceUids(*named.groups()) if named is not None and all(map(is_uid, named.groups())) else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield its bytes as they arrive. Ends normally only if the part is whole; a cut one raises."""
        while not self._whole:
            event = await anext(self._events, None)
            if event is None:  # the answer broke before this: ending normally would make a cut part look whole
                raise ProtocolError("the part did not arrive whole", operation=self._operation, temporary=True)
            if isinstance(event, PartEnd):
                self._whole = True
            elif isinstance(event, bytes):
                yield event

    async def read(self, limit: int | None = None) -> bytes:
        """Return its remaining bytes.

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
        """Skip its remaining bytes."""
        async for _ in self:
            pass


@public_face
class Parts:
    """The parts of one or several answers, in the order they arrive.

    ``async for part in parts: async for chunk in part``.

    Read a part before asking for the next one; its unread bytes are skipped. Reading to the end gives the connection
    back. Use ``async with`` if the loop may be left early.

    Attributes:
        operation: what is asked for, as errors name it.
    """

    def __init__(self, answers: Sequence[tuple[Opener, int | None]], *, operation: str, max_parts: int) -> None:
        """Take the requests to make, and how many parts each answer must have; None for any number."""
        self._answers = list(answers)
        self._due: int | None = None
        self._count = 0
        self.operation: str = operation
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
        """Return the next part; raises as `DicomWeb.iter_study` does."""
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
                self._events = part_events(answer, self.operation, self._max_parts)
            if self._part is not None:
                await self._part.drain()
            async for event in self._events:
                if not isinstance(event, PartStart):
                    raise UsageError("a part must be read before the next one")
                self._count += 1
                self._require_count(may_be_less=True)
                self._part = Part(event, self._events, self.operation)
                return self._part
            self._require_count(may_be_less=False)
            self._events = self._part = None
            await self._stack.aclose()
        return None

    def _require_count(self, *, may_be_less: bool) -> None:
        """Refuse a wrong number of parts: the caller identifies them by their order."""
        if self._due is not None and (self._count > self._due or (self._count < self._due and not may_be_less)):
            came = f"more than {self._due} parts" if may_be_less else f"{self._count} parts instead of {self._due}"
            raise ProtocolError(f"the archive answered with {came}", operation=self.operation)
