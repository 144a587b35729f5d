"""Calls the operations of the DICOMweb API: check, write, send, read. Nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from postdicom_async.dicomweb.json_answer import refuse_cut_json
from postdicom_async.errors import ConnectionFailed, OutcomeUnknown, PostdicomError, ProtocolError, ServerError
from postdicom_async.face import translated
from postdicom_async.http.exchange import Call
from postdicom_async.http.problems import outcome_unknown
from postdicom_async.http.retry import Repeat
from postdicom_async.paging import Results
from postdicom_async.postdicom.operations import OPERATIONS, HeaderOperation, encode, split
from postdicom_async.vendor.answers import Content, VendorAnswer, is_web_page, list_in, parse, refusal_in, view
from postdicom_async.vendor.caller import PrivateTexts, VendorCaller, is_new, said_no
from postdicom_async.vendor.table import AnswerTable
from postdicom_async.vendor.values import Values
from postdicom_async.watching import watch_call, watched_pages

if TYPE_CHECKING:
    from postdicom_async.http.session import Session
    from postdicom_async.vendor.wire import Wire

_Answer = TypeVar("_Answer", bound=VendorAnswer)
_ANSWER_BYTES = 64 << 20
_PARSED_ASIDE = 1 << 20  # larger answers are parsed in a thread, to keep the event loop running
# Of all statuses from 500 on, only these say that the request was not understood. After any other, temporary or not, it
# is unknown whether a change was made.
_NEVER_DONE = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})


class Caller(VendorCaller[HeaderOperation]):
    """Calls operations over a session."""

    operations: Mapping[str, HeaderOperation] = OPERATIONS

    def __init__(self, session: Session, wire: Wire) -> None:
        self._session = session
        self._wire = wire

    def search(self, name: str, kind: type[_Answer], key: str, given: Mapping[str, object]) -> Results[_Answer]:
        """Return the objects a search finds, each once, identified by the field ``key``.

        Arguments are checked at once; requests are made as the results are read, several when a list is too long for
        one.
        """
        operation = self.operation(name)
        parts = split(operation, self.checked(operation, given), self._wire)

        async def pages(_at_most: int | None, _warnings: list[str]) -> AsyncIterator[list[dict[str, Any]]]:
            seen: set[str] = set()
            session = self._session.one_call()  # one deadline and one count of silences for all parts
            for values in parts:
                found = list_in(await self._send(operation, values, session))
                if found is None:
                    raise ProtocolError(
                        "the service answered with something other than a list", operation=operation.title
                    )
                yield [item for item in found if is_new(item, key, seen)]

        table = AnswerTable(operation.title, kind)
        return Results(watched_pages(operation.title, pages), lambda item, _warnings: kind(item), tabular=table)

    async def read_in_parts(
        self, name: str, kind: Callable[..., _Answer], given: Mapping[str, object]
    ) -> list[_Answer]:
        """Make a read in as many requests as its lists need; return one answer each."""
        operation = self.operation(name)
        parts = split(operation, self.checked(operation, given), self._wire)
        session = self._session.one_call()
        with watch_call(operation.title):
            return [view(kind, await self._send(operation, values, session)) for values in parts]

    async def _send(self, operation: HeaderOperation, values: Values, session: Session | None = None) -> Content:
        private = PrivateTexts(values)
        is_read = operation.repeat is Repeat.READ
        # Compressed only if the call can be repeated: if the answer to a change cannot be decompressed, it is
        # unknown whether it was made. Each operation is a GET of the same address, whatever its header says: no cache
        # may answer it.
        packed = {"Accept-Encoding": "gzip"} if is_read else {}
        call = Call(
            operation.title,
            "GET",
            operation.path,
            operation.repeat,
            headers={operation.header: encode(operation, values, self._wire), "Cache-Control": "no-store"} | packed,
            private=private,
            search=is_read,
        )

        def unknown(error: PostdicomError) -> OutcomeUnknown | None:
            return None if is_read or not _may_have_been_done(error) else outcome_unknown(error)

        with translated((ConnectionFailed, ServerError, ProtocolError), unknown):
            on = session or self._session
            answer = await on.fetch(call, cap=_ANSWER_BYTES, check=refuse_cut_json(call.operation))
            aside = len(answer.body) > _PARSED_ASIDE
            found = await anyio.to_thread.run_sync(parse, answer.body) if aside else parse(answer.body)
            if is_web_page(found):  # a proxy's login page comes with status 200 too
                raise ProtocolError(
                    "a web page came instead of an answer; is this the address of the service?",
                    operation=call.operation,
                    status=answer.status,
                )
        reason = refusal_in(found)
        if reason is not None:
            raise said_no(operation.title, reason, private, status=HTTPStatus.OK)
        return found


def _may_have_been_done(error: PostdicomError) -> bool:
    """Whether a request that failed like this may still have had its effect."""
    if isinstance(error, ConnectionFailed):
        return error.may_have_arrived
    if isinstance(error, ProtocolError):
        return True  # answered, but unreadable
    return error.temporary or ((error.status or 0) >= 500 and error.status not in _NEVER_DONE)
