"""Makes one of the vendor's operations: check, write, send, read. The only place that does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from postdicom_async.dicomweb.json_answer import refuse_cut_json
from postdicom_async.errors import ConnectionFailed, OutcomeUnknown, PostdicomError, ProtocolError, ServerError
from postdicom_async.face import translated
from postdicom_async.http.problems import outcome_unknown
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call
from postdicom_async.paging import Results
from postdicom_async.postdicom.operations import OPERATIONS, Name, Operation, encode, split
from postdicom_async.vendor.answers import Content, VendorAnswer, is_web_page, list_in, parse, refusal_in, view
from postdicom_async.vendor.values import Values, check, private_texts

if TYPE_CHECKING:
    from postdicom_async.http.session import Session
    from postdicom_async.vendor.wire import Wire

__all__ = ["Caller", "PrivateTexts", "is_new", "require_named", "today"]

_Answer = TypeVar("_Answer", bound=VendorAnswer)
_ANSWER_BYTES = 64 << 20
_PARSED_ASIDE = 1 << 20  # a larger answer is parsed in a thread, so that the event loop goes on


class Caller:
    """Calls operations over a session."""

    def __init__(self, session: Session, wire: Wire) -> None:
        self._session = session
        self._wire = wire

    async def call(self, name: Name, kind: Callable[..., _Answer], /, **given: object) -> _Answer:
        """Make one call and return its answer as ``kind``.

        Raises:
            UsageError: an argument is missing, malformed or too long; nothing was sent.
            OutcomeUnknown: the request left and no answer came, or one that does not name what was made.
            PostdicomError: the service refused, or cannot be worked with.
        """
        operation = OPERATIONS[name]
        values = self._checked(operation, given)
        answer = view(kind, await self._send(operation, values))
        require_named(answer, operation.title, operation.repeat)
        return answer

    def search(
        self, name: Name, kind: Callable[[dict[str, Any]], _Answer], key: str, /, **given: object
    ) -> Results[_Answer]:
        """Return what a search finds, each once, told apart by the field ``key``.

        Arguments are checked at once; requests are made as the results are read, several when a list is too long for
        one.
        """
        operation = OPERATIONS[name]
        parts = split(operation, self._checked(operation, given), self._wire)

        async def pages(_at_most: int | None, _warnings: list[str]) -> AsyncIterator[list[dict[str, Any]]]:
            seen: set[str] = set()
            session = self._session.one_call()
            for values in parts:
                found = list_in(await self._send(operation, values, session))
                if found is None:
                    raise ProtocolError(
                        "the service answered with something other than a list", operation=operation.title
                    )
                yield [item for item in found if is_new(item, key, seen)]

        return Results(pages, lambda item, _warnings: kind(item))

    async def read_in_parts(self, name: Name, kind: Callable[..., _Answer], /, **given: object) -> list[_Answer]:
        """Make a read in as many requests as its lists need; return one answer each."""
        operation = OPERATIONS[name]
        parts = split(operation, self._checked(operation, given), self._wire)
        session = self._session.one_call()
        return [view(kind, await self._send(operation, values, session)) for values in parts]

    def _checked(self, operation: Operation, given: Mapping[str, object]) -> Values:
        return check(operation, given, first_day=today)

    async def _send(self, operation: Operation, values: Values, session: Session | None = None) -> Content:
        """Make one request and return what came, unless that is a no."""
        private = PrivateTexts(values)
        packed = {"Accept-Encoding": "gzip"} if operation.repeat is Repeat.READ else {}
        call = Call(
            operation.title,
            "GET",
            operation.path,
            operation.repeat,
            headers={operation.header: encode(operation, values, self._wire), "Cache-Control": "no-store"} | packed,
            private=private,
            search=operation.repeat is Repeat.READ,
        )

        def unknown(error: PostdicomError) -> OutcomeUnknown | None:
            is_open = operation.repeat is Repeat.CHANGE and _may_have_been_done(error)
            return outcome_unknown(error) if is_open else None

        with translated((ConnectionFailed, ServerError, ProtocolError), unknown):
            found = await self._fetch(call, session or self._session)
        reason = refusal_in(found)
        if reason is not None:
            raise ServerError(
                "the service said no", operation=operation.title, status=200, reason=safe_reason(reason, private)
            )
        return found

    async def _fetch(self, call: Call, session: Session) -> Content:
        answer = await session.fetch(call, cap=_ANSWER_BYTES, check=refuse_cut_json(call.operation))
        aside = len(answer.body) > _PARSED_ASIDE
        found = await anyio.to_thread.run_sync(parse, answer.body) if aside else parse(answer.body)
        if is_web_page(found):
            raise ProtocolError(
                "a web page came instead of an answer; is this the address of the service?",
                operation=call.operation,
                status=answer.status,
            )
        return found


class PrivateTexts:
    """What must not show in the server's words; worked out only when there are any."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return iter(private_texts(self._values))


def require_named(answer: VendorAnswer, title: str, repeat: Repeat) -> None:
    """Refuse the answer to a change that made something and does not say under which UUID.

    Raises:
        OutcomeUnknown: it was made, as far as can be told; only a search finds it.
    """
    if repeat is Repeat.CHANGE and not answer.is_named:
        raise outcome_unknown(ProtocolError("the service said yes, but not under which UUID", operation=title))


def today() -> date:
    """Return the earliest date that is today anywhere."""
    # An expiry date counts in the account's time zone, which is not known: the last one on earth decides.
    return (datetime.now(UTC) - timedelta(hours=12)).date()


_NEVER_DONE = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})


def _may_have_been_done(error: PostdicomError) -> bool:
    """Whether a request that failed so may have had its effect all the same."""
    if isinstance(error, ConnectionFailed):
        return error.may_have_arrived
    if isinstance(error, ProtocolError):
        return True  # an answer did come, but nobody can read it
    return error.temporary or ((error.status or 0) >= 500 and error.status not in _NEVER_DONE)


def is_new(item: dict[str, Any], key: str, seen: set[str]) -> bool:
    """Return whether an object of a list was not ``seen`` before, told by its field ``key``; note it."""
    value = next((value for name, value in item.items() if name.lower() == key.lower()), None)
    mark = value if isinstance(value, str) and value else repr(item)
    new = mark not in seen
    seen.add(mark)
    return new
