"""Traces and metrics with OpenTelemetry, switched on by one call; the extra ``otel``.

>>> from postdicom_async import telemetry
>>> telemetry.instrument()
"""

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
