"""The live page of a job on this machine: uvicorn in the running event loop, on the loopback interface by default."""

from __future__ import annotations

import asyncio
import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self

import uvicorn

from postdicom_async.disk.background import in_background
from postdicom_async.errors import UsageError
from postdicom_async.jobs.pages.serve_app import Ask, Pages
from postdicom_async.jobs.pages.serve_doors import Doors, bearer_of
from postdicom_async.jobs.pages.serve_watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from postdicom_async.jobs.pages.report import Reader

__all__ = ["LivePage"]

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PATIENCE = 2  # seconds for answers under way when it ends
_MOST_AT_ONCE = 64


class LivePage:
    """Shows a job in a browser, inside ``async with``.

    ::

        async with LivePage(lambda: LedgerReader(path)) as page:
            print(page.address)  # opens the page once
            await page.serve_forever()

    Args:
        open_reader: opens the ledger.
        ask: asks the process that runs the job, as `control.ask` does; what it says of itself is shown too.
        control: the page can steer the job, through ``ask``.
        host, port: where to listen; port 0 is a free one.
        names: other names that it is reached by, with the port if that is another: ``"jobs.example"``.
        token_file: holds the token with which a monitoring system reads ``/metrics``.

    Attributes:
        url: where it is, ``http://127.0.0.1:8080``.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        *,
        ask: Ask | None = None,
        control: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        names: Sequence[str] = (),
        token_file: Path | None = None,
    ) -> None:
        if control and ask is None:
            raise UsageError("give a way to ask the job", argument="control")
        self.url: str = ""
        self._open_reader = open_reader
        self._ask = ask
        self._control = control
        self._host, self._port = host, port
        self._names = tuple(names)
        self._token_file = token_file
        self._doors: Doors | None = None
        self._pages: Pages | None = None
        self._watch: Watch | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where to open it. It holds the token, which opens the page once; without it when that was used."""
        token = self._doors.token if self._doors else ""
        return f"{self.url}/open?token={token}" if token else self.url

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            UsageError: it cannot listen there, or the token file is none.
            LocalFileError: the token file cannot be read.
            PostdicomError: the ledger cannot be read.
        """
        from postdicom_async import __version__

        path = self._token_file
        bearer = "" if path is None else await in_background(lambda: bearer_of(path))
        self._watch = Watch(self._open_reader, self._ask, __version__)
        try:
            await self._watch.look()
            bound = _listen(self._host, self._port)
        except BaseException:
            await self._watch.close()
            raise
        port = bound.getsockname()[1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{shown}:{port}"
        hosts = {f"{name}:{port}" for name in (*_LOOPBACK, shown)} | set(self._names)
        hosts |= {f"{name}:{port}" for name in self._names if ":" not in name}
        self._doors = Doors(hosts, bearer=bearer)
        orders = self._ask if self._control else None
        cookie = f"postdicom-job-{port}"
        self._pages = Pages(self._watch, self._doors, ask=orders, cookie=cookie, version=__version__)
        self._server = _Server(self._pages)
        self._serving = asyncio.create_task(self._server.serve([bound]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: pages that look on are told by the end of their connection."""
        assert self._pages and self._server and self._serving and self._watch  # noqa: S101, PT018 - it was entered
        self._pages.ending.set()
        self._server.should_exit = True
        await asyncio.wait([self._serving])
        await self._watch.close()

    async def serve_forever(self) -> None:
        """Serve until this is cancelled."""
        if self._serving is not None:
            await asyncio.shield(self._serving)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: they are whoever's who runs the event loop."""

    def __init__(self, pages: Pages) -> None:
        super().__init__(
            uvicorn.Config(
                pages.app(),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MOST_AT_ONCE,
                timeout_graceful_shutdown=_PATIENCE,
                h11_max_incomplete_event_size=16 * 1024,
            )
        )

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave the signals alone."""
        return nullcontext()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address.

    Raises:
        UsageError: it cannot be.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    problem = ""
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except (OSError, OverflowError) as error:
        problem = getattr(error, "strerror", None) or "no such address"
    if problem:
        bound.close()
        raise UsageError(f"cannot listen on {host} port {port}: {problem}")
    return bound
