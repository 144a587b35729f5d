"""Work that blocks its thread until it is released."""

from __future__ import annotations

import threading

__all__ = ["Slow"]


class Slow:
    """Blocks until ``go`` is set, then ends or raises ``error``."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.started = threading.Event()
        self.go = threading.Event()
        self.ended = False

    def __call__(self) -> None:
        self.started.set()
        self.go.wait(10)
        self.ended = True
        if self.error is not None:
            raise self.error
