"""An event loop with virtual time: the clock advances only when nothing can run, so waits take no real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["in_virtual_time"]


class _VirtualTime(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        inner: Any = self
        if not inner._ready and inner._scheduled:
            self.now = max(self.now, inner._scheduled[0].when())
        super()._run_once()  # type: ignore[misc]  # not in typeshed


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run work in a loop of its own, whose ``time()`` begins at 0."""
    with asyncio.Runner(loop_factory=_VirtualTime) as runner:
        runner.run(work())
