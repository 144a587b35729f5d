"""An application under uvicorn, on the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn

from tests.support.plain_http import NO_AUTHORITIES

__all__ = ["browser", "served"]


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to pytest."""
        yield


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Run an application; give its address. What it does not catch is on standard error."""
    server = _Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on", timeout_graceful_shutdown=5))
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not running.done(), "it did not start"
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


def browser() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False, timeout=30)
