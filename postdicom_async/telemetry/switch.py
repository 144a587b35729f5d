"""Switches traces and metrics on and off, for all clients and jobs of the process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.watching import set_tracing

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import TracerProvider


@public_face
def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    propagator: TextMapPropagator | None = None,
    propagate: bool = True,
) -> None:
    """Trace and count what all clients and jobs of this process do from now on.

    Calls and requests become spans, and bytes, instances and durations metrics; ``docs/howto/logs-and-traces.md`` lists
    them. None holds a path, a query, a UID or anything else that is private. Called again, it replaces what was set.

    Args:
        tracer_provider: by default the global one.
        meter_provider: by default the global one.
        propagator: writes the headers that let an archive, or what stands before it, continue the trace. By default
            ``traceparent`` and ``tracestate`` alone (W3C Trace Context): baggage may be private and stays here.
        propagate: False adds no header to any request.

    Raises:
        UsageError: the package of the extra ``otel`` is not installed.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.trace") is None:
        raise UsageError('traces need the package opentelemetry-api; pip install "postdicom-async[otel]"')
    from postdicom_async.telemetry.spans import Telemetry

    set_tracing(Telemetry(tracer_provider, meter_provider, propagator, propagate=propagate))


@public_face
def uninstrument() -> None:
    """Trace and count no more. What is under way still ends its spans."""
    set_tracing(None)


class Instrumentor:
    """What ``opentelemetry-instrument`` finds by the entry point and calls, so that a program needs no line of code."""

    def instrument(self, **_: object) -> None:
        """Switch on."""
        instrument()

    def uninstrument(self, **_: object) -> None:
        """Switch off."""
        uninstrument()
