"""Spans and metrics of OpenTelemetry for what `watching` tells, by its semantic conventions where it has any.

A call is an internal span; each of its requests is a client span below it, one for each attempt. What the conventions
want and this leaves out is ``url.full``: a path and a query name patients. An error is recorded by its class, and by
its message only if that is made of our own words: a server's may name a UID even when they are masked.

The transport's own requests are marked as instrumented: an instrumentation of aiohttp or httpx would write their URLs.
Importing this imports opentelemetry.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, wraps
from importlib.metadata import version
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
)
from postdicom_async.watching import LOG, say

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, TracerProvider

    from postdicom_async.events import RequestEnded

_P = ParamSpec("_P")
_R = TypeVar("_R")

SCOPE: Final = "postdicom_async"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.27.0"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300)
"""The bounds of the conventions for a request's duration, and three more: a study may take minutes."""

_ERROR: Final = 400
_GIVEN_EVERY: Final = 1.0  # seconds
_RESEND: Final = "http.request.resend_count"
_BODY_SIZES: Final = ("http.request.body.size", "http.response.body.size")
_FRAME_SIZES: Final = ("postdicom.frame.sent", "postdicom.frame.received")
_OWN_WORDS = (AuthenticationFailed, ConnectionFailed, NotFound, ProtocolError, RateLimited, ServerError)
_NO_ERRORS = (CancelledError, GeneratorExit)  # somebody has seen enough
_SUPPRESS: Final = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")


def harmless(method: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """Return a method that raises nothing: what a user plugs into OpenTelemetry must not end a transfer."""

    @wraps(method)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a user's processor or exporter; its text may hold anything
            say(LOG, logging.WARNING, {}, "OpenTelemetry raised %s", type(error).__name__)
            return None

    return guarded


class Telemetry:
    """What `watching` tells, as spans and metrics."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        propagator: TextMapPropagator | None,
        *,
        propagate: bool,
    ) -> None:
        release = version("postdicom-async")
        self._tracer = trace.get_tracer(SCOPE, release, tracer_provider, SCHEMA)
        meter = metrics.get_meter(SCOPE, release, meter_provider, SCHEMA)
        self.propagator: TextMapPropagator = propagator or TraceContextTextMapPropagator()
        self.propagates: bool = propagate
        self.http_seconds: Histogram = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.frame_seconds: Histogram = meter.create_histogram(
            "postdicom.client.frame.duration",
            "s",
            "From a frame on a socket of the Cloud API to the frame that answers it.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.sent: Counter = meter.create_counter("postdicom.client.sent", "By", "Bytes of bodies and frames sent.")
        self.received: Counter = meter.create_counter(
            "postdicom.client.received", "By", "Bytes of bodies and frames received."
        )
        self.instances: InstanceCounts = InstanceCounts(meter)

    @harmless
    def request(self, operation: str, attempt: int, method: str, url: str) -> RequestSpan:
        """Begin the span of a request."""
        values: dict[str, str | int] = {"postdicom.operation": operation, **_server_of(url)}
        name = operation
        if method:
            name = f"{method} {operation}"
            values["http.request.method"] = method
            if attempt > 1:
                values[_RESEND] = attempt - 1
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=values)
        return RequestSpan(span, self, values)

    @harmless
    def call(self, operation: str, parent: Mapping[str, str]) -> CallSpan:
        """Begin the span of a call."""
        above = self.propagator.extract(dict(parent)) if parent else None
        span = self._tracer.start_span(operation, above, attributes={"postdicom.operation": operation})
        return CallSpan(span, self.instances)

    @harmless
    def instance(self, operation: str, status: str, size: int) -> None:
        """Count an instance."""
        self.instances.add(operation, status, size)

    def carried(self) -> Mapping[str, str]:
        """Return what takes the active span to another process."""
        return _injected(self.propagator, context.get_current()) or {}


class InstanceCounts:
    """Instances counted, and given to the SDK once a second and when a call ends: it takes ten microseconds each time.

    Threads may count at once, each with clients of its own.
    """

    def __init__(self, meter: Meter) -> None:
        self._instances = meter.create_counter("postdicom.client.instances", "{instance}", "Instances, by outcome.")
        self._sizes = meter.create_counter("postdicom.client.instances.size", "By", "Their bytes, by outcome.")
        self._waiting: dict[tuple[str, str], tuple[int, int]] = {}
        self._given = 0.0
        self._guard = Lock()

    def add(self, operation: str, status: str, size: int) -> None:
        """Count an instance."""
        with self._guard:
            count, total = self._waiting.get((operation, status), (0, 0))
            self._waiting[operation, status] = count + 1, total + size
        if monotonic() - self._given > _GIVEN_EVERY:
            self.give()

    def give(self) -> None:
        """Give the SDK what was counted since."""
        with self._guard:
            waiting, self._waiting = self._waiting, {}
            self._given = monotonic()
        for (operation, status), (count, total) in waiting.items():
            values = {"postdicom.operation": operation, "postdicom.status": status}
            self._instances.add(count, values)
            self._sizes.add(total, values)


@harmless
def _injected(propagator: TextMapPropagator, where: Context) -> Mapping[str, str]:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, where)
    return carrier


@lru_cache(maxsize=64)
def _server_of(url: str) -> Mapping[str, str | int]:
    """Return the attributes of the server: of its address the scheme, the host and the port."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "ws": 80}.get(parts.scheme, 443)
    shown: dict[str, str | int] = {"server.address": parts.hostname or "", "server.port": port}
    if parts.scheme in {"http", "https"}:
        return shown | {"url.scheme": parts.scheme}
    return shown | {"network.protocol.name": "websocket"}


class CallSpan:
    """The span of a call."""

    def __init__(self, span: Span, instances: InstanceCounts) -> None:
        self._span = span
        self._instances = instances
        self._where = trace.set_span_in_context(span)

    def active(self) -> AbstractContextManager[object]:
        """Make it the active one."""
        return _attached(self._where)

    @harmless
    def note(self, values: Mapping[str, int | str]) -> None:
        """Add attributes."""
        self._span.set_attributes({f"postdicom.{name}": value for name, value in values.items()})

    @harmless
    def end(self, error: BaseException | None) -> None:
        """End it."""
        try:
            if error is not None and not isinstance(error, GeneratorExit):
                self._span.set_attribute("error.type", type(error).__name__)
                _mark(self._span, error)
        finally:
            self._span.end()
            self._instances.give()


class RequestSpan:
    """The span of a request, and what is measured of it."""

    def __init__(self, span: Span, telemetry: Telemetry, values: Mapping[str, str | int]) -> None:
        self._span = span
        self._telemetry = telemetry
        self._values = values
        self._is_http = "http.request.method" in values
        where = trace.set_span_in_context(span)
        wanted = telemetry.propagates and self._is_http
        self._headers: Mapping[str, str] = (_injected(telemetry.propagator, where) if wanted else None) or {}
        self._where = context.set_value(_SUPPRESS, True, where)

    def active(self) -> AbstractContextManager[object]:
        """Make it the active one."""
        return _attached(self._where)

    def headers(self) -> Mapping[str, str]:
        """Return the headers that take the trace to the server."""
        return self._headers

    @harmless
    def end(self, ended: RequestEnded, error: BaseException | None) -> None:
        """End it, and measure."""
        became: dict[str, str | int] = {}
        if ended.status is not None:
            became["http.response.status_code"] = ended.status
        if error is not None:
            became["error.type"] = type(error).__name__
        elif ended.status is not None and ended.status >= _ERROR:
            became["error.type"] = str(ended.status)
        try:
            sizes = _BODY_SIZES if self._is_http else _FRAME_SIZES
            self._span.set_attributes(became | dict(zip(sizes, (ended.sent, ended.received), strict=True)))
            if error is not None:
                _mark(self._span, error)
            elif "error.type" in became:
                self._span.set_status(Status(StatusCode.ERROR))
        finally:
            self._span.end()
        self._measure(ended, became)

    def _measure(self, ended: RequestEnded, became: Mapping[str, str | int]) -> None:
        telemetry, where = self._telemetry, self._where
        values = {name: value for name, value in self._values.items() if name != _RESEND}
        seconds = telemetry.http_seconds if self._is_http else telemetry.frame_seconds
        seconds.record(ended.seconds, {**values, **became}, where)
        telemetry.sent.add(ended.sent, values, where)
        telemetry.received.add(ended.received, values, where)


def _mark(span: Span, error: BaseException) -> None:
    """Mark a span as failed, with the error's message if that is in our own words alone; never a server's."""
    if not isinstance(error, _NO_ERRORS):
        message = error.message if isinstance(error, _OWN_WORDS) else type(error).__name__
        span.set_status(Status(StatusCode.ERROR, message))


@contextmanager
def _attached(where: Context) -> Iterator[None]:
    token = context.attach(where)
    try:
        yield
    finally:
        context.detach(token)
