"""OpenTelemetry's SDK, which keeps what it is given, around each test; and the fault tests' clients."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import format_span_id

from postdicom_async import telemetry
from tests.faults.conftest import connect, no_waiting_for_the_index

__all__ = ["Traced", "connect", "no_waiting_for_the_index"]


@dataclass
class Traced(SpanProcessor):
    """What was traced and counted.

    Attributes:
        ended: spans in the order in which they ended.
        open: those that have not ended.
    """

    ended: list[ReadableSpan] = field(default_factory=list)
    open: dict[str, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.open[id_of(span)] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        if self.open.pop(id_of(span), None) is None:
            self.twice.append(span.name)
        self.ended.append(span)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> list[str]:
        """Return a line for each span, those below another indented, in the order in which they began."""
        below: dict[str | None, list[ReadableSpan]] = {}
        known = {id_of(span) for span in self.ended}
        for span in sorted(self.ended, key=lambda one: one.start_time or 0):
            above = None if span.parent is None else format_span_id(span.parent.span_id)
            below.setdefault(above if above in known else None, []).append(span)

        def lines(above: str | None, depth: int) -> Iterator[str]:
            for span in below.get(above, []):
                yield "  " * depth + span.name
                yield from lines(id_of(span), depth + 1)

        return list(lines(None, 0))

    def sums(self, name: str, *keys: str) -> dict[Any, float]:
        """Return a metric's sums (of a histogram the counts) by the values of some attributes."""
        data = self.reader.get_metrics_data()
        scopes = [scope for some in data.resource_metrics for scope in some.scope_metrics] if data else []
        points = [
            point
            for scope in scopes
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        found: defaultdict[Any, float] = defaultdict(float)
        for point in points:
            values = tuple((point.attributes or {}).get(key) for key in keys)
            size: float = point.count if isinstance(point, HistogramDataPoint) else getattr(point, "value", 0)
            found[values if len(keys) > 1 else values[0]] += size
        return dict(found)

    def everything(self) -> str:
        """Return all that was exported, as text."""
        data = self.reader.get_metrics_data()
        spans = "\n".join(f"{span.to_json()} {span.status.description}" for span in self.ended)
        return spans + (data.to_json() if data else "")


def id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return format_span_id(span.context.span_id)


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Switch traces on, and check that every span has ended once."""
    found = Traced()
    spans = TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(found)
    metrics = MeterProvider([found.reader], shutdown_on_exit=False)
    telemetry.instrument(tracer_provider=spans, meter_provider=metrics)
    try:
        yield found
    finally:
        telemetry.uninstrument()
        metrics.shutdown()
    assert not found.open
    assert not found.twice


@pytest.fixture
def tracer(traced: Traced) -> Any:
    """Give a tracer of the user's own, whose spans are kept with ours."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(traced)
    return provider.get_tracer("user")


async def settled() -> None:
    """Let what was cancelled end."""
    for _ in range(5):
        await asyncio.sleep(0)
