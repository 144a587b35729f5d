"""Who is told of a request, a call, an instance: the log, the hook ``on_event``, and traces if they are switched on.

The engine says here what happens, once; each of the three gets its form of it. None of them gets a path, a query, a
UID, a server's words or a credential. When nobody listens, a request costs three comparisons: it is `UNWATCHED`.

State: `_tracing` is one for the process; `telemetry.instrument` sets it. A request that began before keeps what was in
force then.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from postdicom_async.events import InstanceEnded, RequestEnded

if TYPE_CHECKING:
    from types import TracebackType

    from postdicom_async.events import Event, OnEvent
    from postdicom_async.results import Outcome

_T = TypeVar("_T")

LOG = logging.getLogger("postdicom_async")
LOG.addHandler(logging.NullHandler())  # otherwise warnings would go to standard error where nothing is set up
HTTP_LOG = logging.getLogger("postdicom_async.http")
CLOUD_LOG = logging.getLogger("postdicom_async.cloud")
JOBS_LOG = logging.getLogger("postdicom_async.jobs")

attempt_number: ContextVar[int] = ContextVar("postdicom_async_attempt", default=1)
"""The number of the attempt that the retry loop is making, for requests that are made below it."""


# --- traces ----------------------------------------------------------------------------------------------------------


class TracedRequest(Protocol):
    """The span of a request."""

    def active(self) -> AbstractContextManager[object]:
        """Make it the parent of what begins inside; entered and left in one task."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return the headers that take it to the server."""
        ...

    def end(self, ended: RequestEnded, error: BaseException | None) -> None:
        """End it, and measure."""
        ...


class TracedCall(Protocol):
    """The span of a call."""

    def active(self) -> AbstractContextManager[object]:
        """Make it the parent of what begins inside; entered and left in one task."""
        ...

    def note(self, values: Mapping[str, int | str]) -> None:
        """Add attributes."""
        ...

    def end(self, error: BaseException | None) -> None:
        """End it."""
        ...


class Tracing(Protocol):
    """What traces and counts; its methods raise nothing."""

    def request(self, operation: str, attempt: int, method: str, url: str) -> TracedRequest | None:
        """Begin the span of a request; ``method`` is empty for a frame on a socket."""
        ...

    def call(self, operation: str, parent: Mapping[str, str]) -> TracedCall | None:
        """Begin the span of a call, below ``parent``, or below what is active if that is empty."""
        ...

    def instance(self, operation: str, status: str, size: int) -> None:
        """Count an instance."""
        ...

    def carried(self) -> Mapping[str, str]:
        """Return what takes the active span to another process."""
        ...


_tracing: Tracing | None = None


def set_tracing(tracing: Tracing | None) -> None:
    """Trace with this from now on, in the whole process."""
    global _tracing  # one for the process, as the tracer of OpenTelemetry is
    _tracing = tracing


def carried() -> dict[str, str]:
    """Return what takes the active span to another process; empty without traces."""
    return {} if _tracing is None else dict(_tracing.carried())


def say(log: logging.Logger, level: int, fields: Mapping[str, object], text: str, *args: object) -> None:
    """Log a line with fields; without them where records have one of that name already.

    Nothing is raised: a filter or a factory of records is a user's code.
    """
    for extra in (fields, None) if log.isEnabledFor(level) else ():
        with suppress(Exception):
            log.log(level, text, *args, extra=extra, stacklevel=2)
            return


def tell(on_event: OnEvent | None, event: Event) -> None:
    """Call the hook with an event, if there is one."""
    if on_event is None:
        return
    try:
        on_event(event)
    except Exception as error:  # noqa: BLE001 - a caller's code; its text may hold anything
        say(LOG, logging.WARNING, {}, "on_event raised %s", type(error).__name__)


# --- requests --------------------------------------------------------------------------------------------------------


_NOTHING: AbstractContextManager[object] = nullcontext()
_NO_HEADERS: Mapping[str, str] = {}


class RequestWatch:
    """A request that nobody watches."""

    __slots__ = ()

    def active(self) -> AbstractContextManager[object]:
        """Make its span the active one."""
        return _NOTHING

    def headers(self) -> Mapping[str, str]:
        """Return headers to add to it."""
        return _NO_HEADERS

    def ended(self, status: int | None, sent: int, received: int, error: BaseException | None) -> None:
        """Tell that it has ended. Called once."""


UNWATCHED = RequestWatch()


class _Watched(RequestWatch):
    """A request that somebody watches."""

    __slots__ = ("_attempt", "_log", "_on_event", "_operation", "_span", "_started")

    def __init__(
        self, operation: str, attempt: int, span: TracedRequest | None, on_event: OnEvent | None, log: logging.Logger
    ) -> None:
        self._operation = operation
        self._attempt = attempt
        self._span = span
        self._on_event = on_event
        self._log = log
        self._started = monotonic()

    def active(self) -> AbstractContextManager[object]:
        return _NOTHING if self._span is None else self._span.active()

    def headers(self) -> Mapping[str, str]:
        return _NO_HEADERS if self._span is None else self._span.headers()

    def ended(self, status: int | None, sent: int, received: int, error: BaseException | None) -> None:
        name = None if error is None else type(error).__name__
        seconds = monotonic() - self._started
        event = RequestEnded(self._operation, self._attempt, status, sent, received, seconds, name)
        if self._log.isEnabledFor(logging.DEBUG):
            _log_request(self._log, event)
        tell(self._on_event, event)
        if self._span is not None:
            self._span.end(event, error)


def watch_request(
    operation: str, attempt: int, method: str, url: str, on_event: OnEvent | None, log: logging.Logger = HTTP_LOG
) -> RequestWatch:
    """Return the watch over a request that goes out now to the service at ``url``, of which only the host is told."""
    if _tracing is None and on_event is None and not log.isEnabledFor(logging.DEBUG):
        return UNWATCHED
    span = None if _tracing is None else _tracing.request(operation, attempt, method, url)
    return _Watched(operation, attempt, span, on_event, log)


def _log_request(log: logging.Logger, one: RequestEnded) -> None:
    became = " ".join(str(part) for part in (one.status, one.error) if part is not None) or "answered"
    fields = {
        "operation": one.operation,
        "status": one.status,
        "attempt": one.attempt,
        "sent": one.sent,
        "received": one.received,
        "seconds": round(one.seconds, 6),
        "error": one.error,
    }
    text = "%s: %s, attempt %d, sent %d bytes, received %d bytes, %.3f s"
    say(log, logging.DEBUG, fields, text, one.operation, became, one.attempt, one.sent, one.received, one.seconds)


# --- calls -----------------------------------------------------------------------------------------------------------


class CallWatch:
    """A public call: ``with watch_call("upload") as call``. What is begun inside belongs to it.

    Not around a ``yield``: a generator may be left in another task, see `watched_pages`.
    """

    __slots__ = ("_active", "_failed", "_span")

    def __init__(self, span: TracedCall | None = None) -> None:
        self._span = span
        self._failed: BaseException | None = None
        self._active: AbstractContextManager[object] = _NOTHING

    def active(self) -> AbstractContextManager[object]:
        """Make it the active one for a while."""
        return _NOTHING if self._span is None else self._span.active()

    def note(self, **values: int | str) -> None:
        """Add attributes to its span."""
        if self._span is not None:
            self._span.note(values)

    def note_counts(self, counts: Mapping[Any, int]) -> None:
        """Add the number of instances by status."""
        if self._span is not None:
            self._span.note({f"instances.{str(status).replace(' ', '_')}": count for status, count in counts.items()})

    def failed(self, error: BaseException | None) -> None:
        """Note an error that it returns instead of raising it."""
        if self._span is not None:
            self._failed = error

    def ended(self, error: BaseException | None) -> None:
        """End it, if it was not entered."""
        if self._span is not None:
            self._span.end(error)

    def __enter__(self) -> Self:
        if self._span is not None:
            self._active = self._span.active()
            self._active.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None:
            self._active.__exit__(None, None, None)
            self._span.end(error or self._failed)
            self._failed = None


_NO_CALL = CallWatch()


def watch_call(operation: str, parent: Mapping[str, str] = _NO_HEADERS) -> CallWatch:
    """Return the watch over a call; ``parent`` is what `carried` returned in another process."""
    return _NO_CALL if _tracing is None else CallWatch(_tracing.call(operation, parent))


def watched_pages(
    operation: str, pages: Callable[[int | None, list[str]], AsyncIterator[_T]]
) -> Callable[[int | None, list[str]], AsyncIterator[_T]]:
    """Return the function ``pages`` of `Results`; reading what it returns is one call."""

    def opened(at_most: int | None, warnings: list[str]) -> AsyncIterator[_T]:
        found = pages(at_most, warnings)
        return found if _tracing is None else _stepwise(watch_call(operation), found)

    return opened


async def _stepwise(call: CallWatch, pages: AsyncIterator[_T]) -> AsyncGenerator[_T, None]:
    """Yield the pages, the call being active only while one is fetched: what the reader does meanwhile is not its."""
    problem: BaseException | None = None
    try:
        while True:
            with call.active():
                page = await anext(pages, None)
            if page is None:
                return
            yield page
    except BaseException as error:
        problem = error
        raise
    finally:
        try:
            if isinstance(pages, AsyncGenerator):
                await pages.aclose()
        finally:
            call.ended(problem)
            problem = None  # an exception and a frame that hold each other are freed late


# --- instances -------------------------------------------------------------------------------------------------------


def watch_instances(operation: str, on_event: OnEvent | None) -> Callable[[Outcome], None] | None:
    """Return a function that tells of each outcome of a transfer; None if nobody listens."""
    if _tracing is None and on_event is None:
        return None
    return lambda outcome: tell_instance(operation, outcome.status.value, outcome.size, on_event)


def tell_instance(operation: str, status: str, size: int, on_event: OnEvent | None) -> None:
    """Tell that an instance has its outcome."""
    if _tracing is not None:
        _tracing.instance(operation, status, size)
    if on_event is not None:
        tell(on_event, InstanceEnded(operation, status, size))
