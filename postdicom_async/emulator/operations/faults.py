"""Failures of PostDICOM's own operations on demand, and a record of the calls that were made, for tests."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from postdicom_async.emulator.operations.table import OPERATIONS
from postdicom_async.errors import UsageError

Fault: TypeAlias = Literal["400", "401", "404", "429", "500", "503", "success-false", "text", "cut-before", "cut-after"]

_REMEMBERED = 10_000


@dataclass(frozen=True)
class ReceivedCall:
    """One call whose parameters could be read, by their documented names; what was not given is absent."""

    operation: str
    parameters: Mapping[str, Any] = field(repr=False)


@dataclass
class Faults:
    """The failures to come, and the calls that were made."""

    calls: deque[ReceivedCall] = field(default_factory=lambda: deque(maxlen=_REMEMBERED), repr=False)
    _waiting: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))

    def add(self, operation: str, kind: Fault, times: int = 1) -> None:
        """Let the next ``times`` calls of an operation fail.

        Raises:
            UsageError: there is no such operation or fault.
        """
        name = operation.strip("/").lower()
        if name not in OPERATIONS:
            raise UsageError(f"{operation!r} is no operation; there are {', '.join(OPERATIONS)}")
        if kind not in get_args(Fault):
            raise UsageError(f"{kind!r} is no fault; there are {', '.join(get_args(Fault))}")
        self._waiting[name].extend([kind] * times)

    def take(self, operation: str) -> Fault | None:
        """Return the fault that this call is to meet, None for none."""
        waiting = self._waiting[operation]
        return waiting.popleft() if waiting else None
