"""The FastAPI example as a process of its own, under uvicorn, with warnings as errors."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.faulty_server import unused_port
from tests.support.plain_http import NO_AUTHORITIES

__all__ = ["EXAMPLES", "Backend", "account", "running_backend"]

EXAMPLES = Path(__file__).parents[2] / "examples"
START_SECONDS = 30.0


@dataclass(frozen=True)
class Backend:
    """The process.

    Attributes:
        url: where it listens.
        pid: its process.
        log: what it wrote so far.
    """

    url: str
    pid: int
    log: Path

    def memory(self) -> tuple[int, int]:
        """Resident bytes now and at their peak."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        now, peak = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
        return now * 1024, peak * 1024

    def forget_peak(self) -> None:
        """Let the peak of the memory start anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


def account(url: str, password: str = "demo") -> dict[str, str]:
    """Return the environment of an example."""
    return {
        **os.environ,
        "POSTDICOM_URL": url,
        "POSTDICOM_USERNAME": "demo",
        "POSTDICOM_PASSWORD": password,
        "PYTHONPATH": str(EXAMPLES.parent),
    }


@asynccontextmanager
async def running_backend(
    upstream: str, log: Path, password: str = "demo", *, name: str = "fastapi_backend", **environment: str
) -> AsyncIterator[Backend]:
    """Run a backend on an archive until the block is left, then insist that it stopped in peace."""
    port = unused_port()
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", str(port)]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(*command, f"{name}:app"),
            env={**account(upstream, password), **environment},
            stdout=output,
            stderr=output,
        )
    try:
        await _answers(f"http://127.0.0.1:{port}/openapi.json", process, log)
        yield Backend(f"http://127.0.0.1:{port}", process.pid, log)
        process.terminate()
        async with asyncio.timeout(10):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "Application shutdown complete" in log.read_text()


async def _answers(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as client:
        while process.returncode is None:
            try:
                await client.get(url)
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
            else:
                return
    raise AssertionError(log.read_text())
