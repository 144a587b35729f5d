"""The archive as a server: `EmbeddedArchive`, `archive_in_thread` for code without an event loop, `serve` for scripts.

An `EmbeddedArchive` keeps a stack of undo steps for what it has opened: the socket, a temporary folder, the store. Only
`_start` pushes to it and only `_stop` pops, so a failure in between leaves nothing open.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from types import TracebackType
from typing import Self, TypeVar

from postdicom_async.emulator.app import build_app
from postdicom_async.emulator.cloud.bring_up import ROUTER_PATH
from postdicom_async.emulator.cloud.listener import CloudListener
from postdicom_async.emulator.cloud.state import Cloud, add_cloud_tables
from postdicom_async.emulator.context import ArchiveContext, ArchiveOptions
from postdicom_async.emulator.doors import checked_hosts
from postdicom_async.emulator.http_server import QuietServer, listen
from postdicom_async.emulator.operations.faults import Fault, Faults, ReceivedCall
from postdicom_async.emulator.store.archive import ArchiveStore, StoredInstance, parse_instance
from postdicom_async.emulator.store.files import make_file
from postdicom_async.emulator.store.schema import order_uuid_of, series_uuid_of
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face

T = TypeVar("T")


@public_face
class EmbeddedArchive:
    """A DICOMweb archive on this machine, for tests and demonstrations, that speaks PostDICOM's Cloud API too.

    ::

        async with EmbeddedArchive() as archive:
            print(archive.url)  # PS3.18's URL shapes and PostDICOM's, both under it
            print(archive.router_url, archive.cloud_api_key, archive.cloud_account_key)  # the Cloud API

    Args:
        folder: where the files and their index are kept; None for a temporary one, removed at the end.
        username: the account's name; None (with ``password=None``) for no authentication.
        password: its password.
        tokens: bearer tokens that are let in besides the account, and whose each is: ``{"alice-token": "alice"}``;
            those of ``options`` too.
        host: the address to listen on.
        port: the port to listen on, for HTTP and WebSockets; 0 for a free one.
        options: how it behaves.

    Attributes:
        tokens: the same, to be changed as tokens are given and end; from any thread.

    Raises:
        UsageError: the host or a token is malformed; on entering, when the address cannot be listened on.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        username: str | None = "demo",
        password: str | None = "demo",  # noqa: S107 - a demonstration's
        tokens: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        options: ArchiveOptions = ArchiveOptions(),  # noqa: B008 - it never changes
    ) -> None:
        self._given_folder = None if folder is None else Path(folder)
        self._account = None if username is None else (username, password or "")
        self._host = host
        self._port = port
        self._options = options if tokens is None else replace(options, tokens={**options.tokens, **tokens})
        self.tokens: dict[str, str] = dict(self._options.tokens)
        self._hosts = checked_hosts((host, *options.allow_host))
        self._faults = Faults()
        self._served: Counter[str] = Counter()
        self._undo: list[Callable[[], object]] = []
        self._context: ArchiveContext | None = None
        self._cloud: Cloud | None = None
        self._listener: CloudListener | None = None
        self._server: QuietServer | None = None
        self._serving: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = self.url if self._serving else "not running"
        return f"<EmbeddedArchive {state} username={self._account and self._account[0]!r}>"

    @property
    def url(self) -> str:
        """The base address, without a slash at its end; the port is known once the archive runs."""
        return f"http://[{self._host}]:{self._port}" if ":" in self._host else f"http://{self._host}:{self._port}"

    @property
    def auth(self) -> tuple[str, str] | None:
        """User name and password as HTTP clients take them, None without authentication."""
        return self._account

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.store.folder

    @property
    def store(self) -> ArchiveStore:
        """The archive without HTTP, to look into it from a test; its methods block.

        Raises:
            UsageError: the archive is not running.
        """
        return self._running(self._context).store

    @property
    def institution_uuid(self) -> str:
        """The institution that uploaded studies belong to."""
        return self._options.institution_uuid

    @property
    def user_uuid(self) -> str:
        """A user that orders can be assigned to: the first."""
        return next(iter(self._options.users))

    @property
    def user_group_uuid(self) -> str:
        """A user group that orders can be assigned to: the first."""
        return next(iter(self._options.user_groups))

    @property
    def router_url(self) -> str:
        """Where clients of the Cloud API begin."""
        return f"{self.url}{ROUTER_PATH}/"

    @property
    def cloud_api_key(self) -> str:
        """The Cloud API's key of the caller."""
        return self._options.cloud_keys[0]

    @property
    def cloud_account_key(self) -> str:
        """The Cloud API's key of the account."""
        return self._options.cloud_keys[1]

    @property
    def cloud_user_uuid(self) -> str:
        """A user in whose name the Cloud API acts: the first."""
        return self.user_uuid

    @property
    def cloud(self) -> Cloud:
        """The Cloud API's side: its oddities, and a record of what came.

        Raises:
            UsageError: the archive is not running.
        """
        return self._running(self._cloud)

    @staticmethod
    def _running(part: T | None) -> T:
        if part is None:
            raise UsageError("the archive is not running: enter it with 'async with'")
        return part

    @property
    def requests_by_user(self) -> Mapping[str, int]:
        """How many requests with a password or token were let in, by the name of the user."""
        return dict(self._served)

    @property
    def vendor_calls(self) -> Sequence[ReceivedCall]:
        """The calls of PostDICOM's own operations whose parameters could be read, the oldest first."""
        return tuple(self._faults.calls)

    @staticmethod
    def order_uuid(study_instance_uid: str) -> str:
        """Return the UUID that the order of a study has or will have."""
        return order_uuid_of(study_instance_uid)

    @staticmethod
    def series_uuid(study_instance_uid: str, series_instance_uid: str) -> str:
        """Return the UUID that a series has or will have."""
        return series_uuid_of(study_instance_uid, series_instance_uid)

    def fault(self, operation: str, kind: Fault, *, times: int = 1) -> None:
        """Let the next calls of one of PostDICOM's own operations fail.

        Args:
            operation: its path, such as ``createfolder``.
            kind: a status such as ``"500"``; ``"success-false"`` in an answer of status 200; ``"text"``, which does
                what was asked and answers in plain text; ``"cut-before"`` and ``"cut-after"``, which drop the
                connection without an answer, having done nothing or everything.
            times: how many calls.

        Raises:
            UsageError: there is no such operation or fault.
        """
        self._faults.add(operation, kind, times)

    async def add(self, paths: Iterable[Path]) -> list[StoredInstance]:
        """Copy files into the archive without HTTP."""
        return await self._running(self._context).run(self.add_files, list(paths))

    def add_files(self, paths: Iterable[Path]) -> list[StoredInstance]:
        """Do the same, blocking, for code without an event loop; may be called from any thread."""
        added = []
        for path in paths:
            incoming = self.store.new_incoming()
            try:
                make_file(incoming)
                shutil.copyfile(path, incoming)
                added.append(self.store.add(incoming, parse_instance(incoming)))
            finally:
                incoming.unlink(missing_ok=True)
        return added

    async def __aenter__(self) -> Self:
        """Open the folder and start to listen."""
        if self._context is not None or self._undo:
            raise UsageError("the archive is running already")
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut the connections, stop, and remove a temporary folder."""
        await self._stop()

    async def _start(self) -> None:
        bound = listen(self._host, self._port)  # before the folder is opened, so that a port in use leaves no trace
        self._undo.append(bound.close)
        self._port = bound.getsockname()[1]
        folder = self._given_folder
        if folder is None:
            temporary = TemporaryDirectory(prefix="archive-")
            self._undo.append(temporary.cleanup)
            folder = Path(temporary.name)
        store = ArchiveStore(folder, durable=self._given_folder is not None)
        context = self._context = ArchiveContext(
            store, self._options, self._account, self._hosts, self.tokens, self._served, faults=self._faults
        )
        self._undo.append(context.close)
        await context.run(add_cloud_tables, store)
        cloud = self._cloud = Cloud(context, self.url)
        listener = self._listener = CloudListener(cloud)
        server = self._server = QuietServer(build_app(context, listener=listener), self._options.limits)
        self._serving = asyncio.create_task(server.serve(sockets=[bound]), name="embedded archive")
        ready = asyncio.create_task(server.ready.wait())
        try:
            await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._serving.done():  # it has failed, and says why
            self._serving.result()

    async def _stop(self) -> None:
        serving, self._serving = self._serving, None
        undo, self._undo = self._undo[::-1], []
        try:
            # Stop the server first, since requests it still accepts would start more work.
            if serving and self._server:
                self._server.stop.set()
                await asyncio.gather(serving, return_exceptions=True)
            if self._listener:
                await self._listener.stop()
        finally:
            self._context = self._cloud = self._listener = None
            # In a thread, since the index waits for the disk. Runs whatever fails above.
            await asyncio.to_thread(lambda: [step() for step in undo])

    async def serve_forever(self) -> None:
        """Wait until cancelled; the archive must be running."""
        if self._serving:
            await asyncio.shield(self._serving)


async def serve(
    folder: Path | str,
    *,
    port: int = 8042,
    host: str = "127.0.0.1",
    username: str | None = "demo",
    password: str | None = "demo",  # noqa: S107 - a demonstration's
    options: ArchiveOptions = ArchiveOptions(),  # noqa: B008 - it never changes
    on_ready: Callable[[str], object] = lambda _url: None,
) -> None:
    """Run an archive until cancelled; ``on_ready`` is told its address once it listens."""
    archive = EmbeddedArchive(folder, username=username, password=password, host=host, port=port, options=options)
    async with archive:
        on_ready(archive.url)
        await archive.serve_forever()


@contextmanager
def archive_in_thread(archive: EmbeddedArchive | None = None) -> Iterator[EmbeddedArchive]:
    """Run an archive in a thread while the block lasts.

    ::

        with archive_in_thread() as archive:
            archive.add_files([Path("ct.dcm")])
            client = TestClient(make_app(archive.url, archive.auth))

    What it has that is no coroutine may be used from the block, such as `EmbeddedArchive.add_files`, ``store``,
    ``fault`` and ``cloud``.

    Args:
        archive: the archive; an empty one with user name and password ``demo`` without it.

    Raises:
        UsageError: as on entering the archive itself.
    """
    archive = archive or EmbeddedArchive()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    ended: Future[None] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with archive:
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised again where the block is
            (ended if started.done() else started).set_exception(error)
        else:
            ended.set_result(None)

    thread = Thread(target=run, name="embedded archive", daemon=True)
    thread.start()
    loop, stop = started.result()
    try:
        yield archive
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
    ended.result()
