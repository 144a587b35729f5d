"""The event loop of a command: uvloop if installed, and Ctrl-C stops it cleanly.

A signal may arrive between any two bytecodes, so the handler only records its number and asks the loop to cancel the
work. The handlers stay until the loop is closed, so that Ctrl-C does not interrupt the closing of connections; a second
one, or one before the loop runs, ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn, TypeVar

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType
    from typing import Any


_T = TypeVar("_T")
_SHOW_CURSOR = b"\x1b[?25h"


def run_async(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine to its end and return its result.

    The first Ctrl-C (or SIGTERM) cancels it and waits until it has cleaned up; the second ends the process at once.

    Raises:
        Interrupted: a signal stopped it.
    """
    stop = _Stop()
    try:
        with stop, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(stop.guard(work()))
    except (asyncio.CancelledError, KeyboardInterrupt, PostdicomError):
        if stop.signal_number is None:
            raise
        number = stop.signal_number
    raise Interrupted(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Stop:
    """Signal handlers for the lifetime of a loop, its closing included.

    Attributes:
        signal_number: the signal that stopped the work; None while none has.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    async def guard(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run the work as the task that a signal cancels."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        return await work

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None or self._loop is None:
            _end_at_once(128 + number)
        self.signal_number = number
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        output.note("stopping; Ctrl-C again ends at once")
        if self._task is not None:
            self._task.cancel()


def _end_at_once(code: int) -> NoReturn:
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR + b"\n")
    os._exit(code)
