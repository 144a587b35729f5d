"""The live page of a job on this machine: uvicorn in the running event loop, on the loopback interface by default.

`JobWatcher` holds an open ledger, the last snapshot of the job, and when that becomes stale. One thread reads the
ledger. Requests get the cached snapshot while it is fresh: however many clients there are, the ledger is read at most a
tenth of the time. An error of the ledger is raised to the request that met it, and the next request opens the ledger
again; so it does when another file lies at its path because the job was started over.
"""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeVar

import uvicorn

from postdicom_async.disk.files import in_background, outlasting
from postdicom_async.errors import PostdicomError, UsageError
from postdicom_async.jobs.pages.eta import Eta
from postdicom_async.jobs.pages.serve_app import AskJob, Pages
from postdicom_async.jobs.pages.serve_auth import PageAccess, bearer_of
from postdicom_async.jobs.pages.serve_page import JobSnapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from postdicom_async.jobs.ledger.reader import LedgerReader


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
        ask: sends a request to the process that runs the job, like `control.ask`; its status is shown too.
        control: the page can steer the job, through ``ask``.
        host, port: where to listen; port 0 is a free one.
        names: other names that it is reached by, with the port if that is another: ``"jobs.example"``.
        token_file: holds the token with which a monitoring system reads ``/metrics``.

    Attributes:
        url: where it is, ``http://127.0.0.1:8080``.
    """

    def __init__(
        self,
        open_reader: Callable[[], LedgerReader],
        *,
        ask: AskJob | None = None,
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
        self._access: PageAccess | None = None
        self._serving: asyncio.Task[None] | None = None
        self._closing = AsyncExitStack()

    @property
    def address(self) -> str:
        """The address to open. It contains the one-time token until that was used."""
        token = self._access.token if self._access else ""
        return f"{self.url}/open?token={token}" if token else self.url

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            UsageError: it cannot listen there, or the token file holds no token.
            LocalFileError: the token file cannot be read.
            PostdicomError: the ledger cannot be read.
        """
        from postdicom_async import __version__

        path = self._token_file
        bearer = "" if path is None else await in_background(lambda: bearer_of(path))
        watcher = JobWatcher(self._open_reader, self._ask, __version__)
        async with AsyncExitStack() as opened:
            opened.push_async_callback(watcher.close)
            await watcher.look()
            bound = _listen(self._host, self._port)
            self._closing = opened.pop_all()
        port = bound.getsockname()[1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{shown}:{port}"
        hosts = {f"{name}:{port}" for name in (*_LOOPBACK, shown)} | set(self._names)
        hosts |= {f"{name}:{port}" for name in self._names if ":" not in name}
        self._access = PageAccess(hosts, bearer=bearer)
        orders = self._ask if self._control else None
        cookie = f"postdicom-job-{port}"
        pages = Pages(watcher, self._access, ask=orders, cookie=cookie, version=__version__)
        server = _Server(pages)
        self._serving = serving = asyncio.create_task(server.serve([bound]))

        async def end() -> None:
            pages.ending.set()
            server.should_exit = True
            await asyncio.wait([serving])

        self._closing.push_async_callback(end)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop; the connections of open pages are closed."""
        await self._closing.aclose()

    async def serve_forever(self) -> None:
        """Serve until this is cancelled."""
        if self._serving is not None:
            await asyncio.shield(self._serving)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: those belong to the program that runs the event loop."""

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

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # uvicorn's is a generator made into one
        """Leave the signals alone."""
        return nullcontext()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address: who comes from now on waits to be served.

    Raises:
        UsageError: it cannot.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    problem = ""
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()  # now: the address is shown before the server takes its first connection
        bound.setblocking(False)
    except (OSError, OverflowError) as error:
        problem = getattr(error, "strerror", None) or "no such address"
    if problem:
        bound.close()
        raise UsageError(f"cannot listen on {host} port {port}: {problem}")
    return bound


# --- the job as it is now --------------------------------------------------------------------------------------------


_T = TypeVar("_T")

_YOUNG = 1.0  # seconds
_WORTH = 10  # times as long as the last look took
_STATUS = 2.0  # seconds that the job's process has to answer


class JobWatcher:
    """Caches snapshots of a job. Close it.

    Args:
        open_reader: opens the ledger; it is called in the thread that reads.
        ask: asks the process that runs the job; None where nobody is to be asked.
        version: of this program.
    """

    def __init__(
        self,
        open_reader: Callable[[], LedgerReader],
        ask: Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]] | None,
        version: str,
    ) -> None:
        self._open = open_reader
        self._ask = ask
        self._version = version
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger reader")
        self._reader: LedgerReader | None = None
        self._file: tuple[int, int] | None = None
        self._eta = Eta()
        self._look: JobSnapshot | None = None
        self._stale_at = 0.0
        self._turn = asyncio.Lock()

    async def look(self) -> JobSnapshot:
        """Return a snapshot of the job, at most moments old.

        Raises:
            PostdicomError: the ledger cannot be read.
        """
        async with self._turn:
            if self._look is not None and time.monotonic() < self._stale_at:
                return self._look
            begun = time.monotonic()
            summary = await self.read(lambda reader: reader.summary())
            took = time.monotonic() - begun
            pace = self._eta.note(summary, time.time())
            self._look = JobSnapshot(summary, pace, await self._status(), self._version)
            # Reading a ledger of millions takes seconds: however many pages are open, it is read a tenth of the time.
            self._stale_at = time.monotonic() + max(_YOUNG, took * _WORTH)
            return self._look

    async def _status(self) -> Mapping[str, Any]:
        if self._ask is None:
            return {}
        try:
            async with asyncio.timeout(_STATUS):
                return await self._ask({"do": "status"})
        except (PostdicomError, TimeoutError):
            return {"ok": False}

    async def read(self, question: Callable[[LedgerReader], _T]) -> _T:
        """Run a query on the ledger, in its thread.

        Raises:
            PostdicomError: the ledger cannot be read.
        """

        def answer() -> _T:
            if self._reader is not None and _file_of(self._reader) != self._file:
                self._let_go()  # the job was started over, and this is the old ledger
            if self._reader is None:
                self._reader = self._open()
                self._file = _file_of(self._reader)
            try:
                return question(self._reader)
            except PostdicomError:
                self._let_go()  # the next query opens it again
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    async def some(self, lines: Callable[[LedgerReader], Iterable[_T]], page: int, size: int) -> tuple[list[_T], bool]:
        """Return a page of rows (pages count from 1), and whether there are more.

        Raises:
            PostdicomError: the ledger cannot be read.
        """

        def take(reader: LedgerReader) -> list[_T]:
            with closing(_generator(lines(reader))) as found:
                return list(islice(found, (page - 1) * size, page * size + 1))

        taken = await self.read(take)
        return taken[:size], len(taken) > size

    async def close(self) -> None:
        """Close the ledger, when the thread has finished with it."""
        await outlasting(asyncio.get_running_loop().run_in_executor(self._thread, self._let_go))
        self._thread.shutdown(wait=False)


def _file_of(reader: LedgerReader) -> tuple[int, int] | None:
    """Return the identity of the file at a ledger's path, None if unknown."""
    try:
        status = reader.path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _generator(lines: Iterable[_T]) -> Any:
    """Return a generator, which can be closed: a reader's generator holds a snapshot of the ledger until then."""
    return lines if hasattr(lines, "close") else (line for line in lines)
