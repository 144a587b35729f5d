"""WADO-RS (PS3.18 section 10.4): asking for a resource in a form the server can give, and reading its parts."""

from __future__ import annotations

import copy
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from postdicom_async.dicomweb.dialects import Dialect, Route
from postdicom_async.dicomweb.media_types import INSTANCE_LADDER, parse_media_type
from postdicom_async.dicomweb.multipart import MultipartDamage, PartEvent, PartEvents, PartReader, PartTaker, reader_for
from postdicom_async.errors import PostdicomError, ProtocolError, ServerError
from postdicom_async.face import translated
from postdicom_async.http.problems import server_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call, Session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from postdicom_async.http.answer import StreamedAnswer

__all__ = ["Retrieval", "Target", "damaged", "part_events", "part_reader"]

# How servers refuse an Accept header: 406 by the standard, 400 (Orthanc), 415.
_REFUSED_FORM: Final = frozenset({HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})
_NOT_AN_INSTANCE: Final = (
    "text/",
    "application/json",
    "application/dicom+json",
    "application/xml",
    "application/problem",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A study, a series of it or an instance of that; the UIDs below its level are None."""

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
        """Whether an instance lies within."""
        wanted = (self.study, self.series, self.instance)
        return all(one is None or one == other for one, other in zip(wanted, uids, strict=True))

    def path(self, dialect: Dialect, suffix: str = "") -> str:
        """Return its path in a dialect."""
        return dialect.path(
            self.route, suffix, study=self.study, series=self.series or "", instance=self.instance or ""
        )


class Retrieval:
    """Opens resources, remembering which Accept header this server takes, and how it lists instances.

    Copies share what is remembered.
    """

    def __init__(self, session: Session, dialect: Dialect) -> None:
        self.session = session
        self.dialect = dialect
        self._lists_by_series = [dialect.lists_by_series]
        self._rungs: dict[tuple[str, ...], int] = {}

    def over(self, session: Session) -> Retrieval:
        """Return the same, with what it remembers of the server, over another session to it."""
        other = copy.copy(self)
        other.session = session
        return other

    @property
    def lists_by_series(self) -> bool:
        """Whether the instances of a study are best found by asking for its series first."""
        return self._lists_by_series[0]

    @lists_by_series.setter
    def lists_by_series(self, found: bool) -> None:
        self._lists_by_series[0] = found

    @property
    def as_stored(self) -> bool:
        """Whether the server takes ``transfer-syntax=*``; without it, it may transcode."""
        return self._rungs.get(INSTANCE_LADDER, 0) == 0

    @asynccontextmanager
    async def open(
        self,
        target: Target,
        *,
        suffix: str = "",
        ladder: tuple[str, ...] = INSTANCE_LADDER,
        operation: str = "retrieve",
    ) -> AsyncIterator[StreamedAnswer]:
        """Give the answer for a resource; the Accept header steps down the ladder until one is taken."""
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
        """Give the answer for a path below the service's address.

        Raises:
            ProtocolError: the answer is a message instead of what was asked for.
            PostdicomError: whatever the session raises.
        """
        call = Call(operation, "GET", path, Repeat.READ, headers=headers or {})
        async with await self._accepted(call, ladder) as answer:
            await _refuse_message(answer, operation, self.session.secrets)
            yield answer

    async def _accepted(self, call: Call, ladder: tuple[str, ...]) -> StreamedAnswer:
        """Step down the ladder; when no rung is taken, the first refusal is the caller's."""
        first: ServerError | None = None
        session = self.session.one_call()
        for rung in range(self._rungs.get(ladder, 0), len(ladder)):
            accept = {"Accept": ladder[rung], **call.headers}
            try:
                answer = await session.stream(replace(call, headers=accept))
            except ServerError as error:
                first = first or error
                if error.status not in _REFUSED_FORM:
                    break
            else:
                self._rungs[ladder] = rung
                return answer
        raise first or AssertionError


async def _refuse_message(answer: StreamedAnswer, operation: str, secrets: tuple[str, ...]) -> None:
    """Raise for an answer of status 2xx whose body is a text about why there is no instance."""
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
    """Return the reader for an answer's body, which hands over what it finds to ``taker``.

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
        damage = _damage_of(reader, chunk)
        found, events[:] = list(events), ()
        for event in found:  # what came before the damage counts
            empty = False
            yield event
        if damage is not None:
            raise damaged(damage, operation)
    if empty:
        raise damaged(MultipartDamage("the answer is empty"), operation)


def _damage_of(reader: PartReader, chunk: bytes | None) -> MultipartDamage | None:
    """Feed the next bytes, or say that there are no more; return what is wrong with them."""
    try:
        if chunk is None:
            reader.close()
        else:
            reader.feed(chunk)
    except MultipartDamage as damage:
        return damage
    return None
