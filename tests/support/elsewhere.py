"""Helpers beside a test: a server in another thread's event loop, a process that is killed while it works."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

__all__ = ["killed_amid_its_report", "serving_elsewhere"]

_Server = TypeVar("_Server")

_ROOT = Path(__file__).parents[2]


@contextmanager
def serving_elsewhere(make: Callable[[], AbstractAsyncContextManager[_Server]]) -> Iterator[_Server]:
    """Run a server in an event loop of its own, in a thread."""
    ready, done = threading.Event(), threading.Event()
    servers: list[_Server] = []

    async def serve() -> None:
        async with make() as server:
            servers.append(server)
            ready.set()
            await asyncio.to_thread(done.wait, 300)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield servers[0]
    finally:
        done.set()
        thread.join(30)


async def killed_amid_its_report(report: Path, *arguments: str) -> None:
    """Run Python with these arguments and kill it (SIGKILL) after it has written 20 lines of its report."""
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=_ROOT)
    async with asyncio.timeout(60):
        while not report.exists() or report.read_bytes().count(b"\n") < 20:
            assert process.returncode is None
            await asyncio.sleep(0.002)
    process.kill()
    assert await process.wait() == -signal.SIGKILL
