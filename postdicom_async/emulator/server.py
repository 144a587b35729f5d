"""The archive as a server inside the running event loop: `EmbeddedArchive` for tests, `serve` for the command."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from postdicom_async.emulator.app import build_app, close_context, open_context
from postdicom_async.emulator.cloud.bring_up import ROUTER_PATH, cloud_routes
from postdicom_async.emulator.cloud.listener import CloudListener
from postdicom_async.emulator.cloud.parameters import is_guid
from postdicom_async.emulator.cloud.schema import add_cloud_tables
from postdicom_async.emulator.cloud.state import ACCOUNT_KEY, API_KEY, Cloud
from postdicom_async.emulator.context import INSTITUTIONS, USER_GROUPS, USERS, ArchiveLimits, ArchiveOptions
from postdicom_async.emulator.hosts import checked_hosts, checked_origins
from postdicom_async.emulator.http_server import QuietServer, listen
from postdicom_async.emulator.operations.faults import Faults
from postdicom_async.emulator.store.archive import parse_instance
from postdicom_async.emulator.store.private_files import make_file
from postdicom_async.emulator.vendor.schema import order_uuid_of, series_uuid_of
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from postdicom_async.emulator.context import ArchiveContext
    from postdicom_async.emulator.operations.faults import Fault, VendorCall
    from postdicom_async.emulator.store.archive import ArchiveStore, StoredInstance

__all__ = ["EmbeddedArchive", "serve"]


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
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.
        max_page: at most so many search results in one answer, announced in a ``Warning`` header when cut.
        no_match_status: 200 with ``[]`` or 204 for a search without a match.
        refused_sop_classes: SOP Class UIDs that are not stored.
        institutions: the account's institutions for PostDICOM's own operations, names by UUID; uploaded studies
            belong to the first.
        users: whom orders can be assigned to, and in whose name the Cloud API acts; names by UUID.
        user_groups: the same for groups.
        text_answers: PostDICOM's own operations answer in plain text where they do not list something.
        success_false: they refuse with status 200 and ``Success`` false.
        cloud_keys: the Cloud API's API key and account key.
        allow_origin: origins whose pages may use the archive in a browser, such as ``https://viewer.example``; ``*`` is
            any. Pages of the archive's own host may connect to the WebSocket without it.
        allow_host: names, besides the loopback addresses and ``host``, under which clients reach the archive. Another
            ``Host`` is refused: a page of anybody could be made to look like one of ours by its name's address.
        limits: what clients may cost.

    Raises:
        UsageError: a key is no GUID, an origin or a host none; on entering, when the address cannot be listened on.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        username: str | None = "demo",
        password: str | None = "demo",  # noqa: S107 - a demonstration's
        host: str = "127.0.0.1",
        port: int = 0,
        max_page: int | None = None,
        no_match_status: int = 200,
        refused_sop_classes: Iterable[str] = (),
        institutions: Mapping[str, str] = INSTITUTIONS,
        users: Mapping[str, str] = USERS,
        user_groups: Mapping[str, str] = USER_GROUPS,
        text_answers: bool = False,
        success_false: bool = False,
        cloud_keys: tuple[str, str] = (API_KEY, ACCOUNT_KEY),
        allow_origin: Iterable[str] = (),
        allow_host: Iterable[str] = (),
        limits: ArchiveLimits = ArchiveLimits(),  # noqa: B008 - it never changes
    ) -> None:
        if not all(is_guid(key) for key in cloud_keys):
            raise UsageError(
                "the API key and the account key must be GUIDs of a version from 1 to 5", argument="cloud_keys"
            )
        self._keys = cloud_keys[0].lower(), cloud_keys[1].lower()
        self._given_folder = None if folder is None else Path(folder)
        self._host = host
        self._port = port
        self._options = ArchiveOptions(
            username,
            password,
            max_page,
            no_match_status,
            frozenset(refused_sop_classes),
            _by_uuid("institutions", institutions),
            _by_uuid("users", users),
            _by_uuid("user_groups", user_groups),
            text_answers,
            success_false,
            checked_origins(allow_origin),
            checked_hosts(host, allow_host),
            limits,
        )
        self._faults = Faults()
        self._undo: list[Callable[[], object]] = []
        self._context: ArchiveContext | None = None
        self._cloud: Cloud | None = None
        self._listener: CloudListener | None = None
        self._server: QuietServer | None = None
        self._serving: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = self.url if self._serving else "not running"
        return f"<EmbeddedArchive {state} username={self._options.username!r}>"

    @property
    def url(self) -> str:
        """The base address, without a slash at its end; the port is known once the archive runs."""
        return f"http://{self._netloc(self._port)}"

    def _netloc(self, port: int) -> str:
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    @property
    def auth(self) -> tuple[str, str] | None:
        """User name and password as HTTP clients take them, None without authentication."""
        name, password = self._options.username, self._options.password
        return None if name is None else (name, password or "")

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
        if self._context is None:
            raise UsageError("the archive is not running: enter it with 'async with'")
        return self._context.store

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
        return self._keys[0]

    @property
    def cloud_account_key(self) -> str:
        """The Cloud API's key of the account."""
        return self._keys[1]

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
        if self._cloud is None:
            raise UsageError("the archive is not running: enter it with 'async with'")
        return self._cloud

    @property
    def vendor_calls(self) -> Sequence[VendorCall]:
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
        if self._context is None:
            raise UsageError("the archive is not running: enter it with 'async with'")
        return await self._context.run(self.add_files, list(paths))

    def add_files(self, paths: Iterable[Path]) -> list[StoredInstance]:
        """Do the same, blocking, for code without an event loop; may be called from any thread."""
        return [_add_one(self.store, path) for path in paths]

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
        bound = listen(self._host, self._port)
        self._undo.append(bound.close)
        self._port = bound.getsockname()[1]
        folder = self._given_folder
        if folder is None:
            temporary = TemporaryDirectory(prefix="archive-")
            self._undo.append(temporary.cleanup)
            folder = Path(temporary.name)
        context = self._context = open_context(
            folder, self._options, self._faults, durable=self._given_folder is not None
        )
        self._undo.append(lambda: close_context(context))
        cloud = await self._start_cloud(context)
        server = self._server = QuietServer(build_app(context, more=cloud_routes(cloud)), self._options.limits)
        self._faults.cut = server.cut
        self._serving = asyncio.create_task(server.serve(sockets=[bound]), name="embedded archive")
        ready = asyncio.create_task(server.ready.wait())
        try:
            await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._serving.done():
            self._serving.result()

    async def _start_cloud(self, context: ArchiveContext) -> Cloud:
        """Listen for WebSockets on a port of their own, which clients are told."""
        await context.run(add_cloud_tables, context.store)
        cloud = self._cloud = Cloud(context, self.url, self._keys)
        bound = listen(self._host, 0)
        self._undo.append(bound.close)
        cloud.socket_url = f"ws://{self._netloc(bound.getsockname()[1])}"
        self._listener = CloudListener(cloud)
        await self._listener.start(bound)
        return cloud

    async def _stop(self) -> None:
        serving, self._serving = self._serving, None
        undo, self._undo = self._undo[::-1], []
        try:
            if self._listener:
                await self._listener.stop()
            if serving and self._server:
                self._server.stop.set()
                await asyncio.gather(serving, return_exceptions=True)
        finally:
            self._context = self._cloud = self._listener = None
            await asyncio.to_thread(_run_all, undo)

    async def serve_forever(self) -> None:
        """Wait until cancelled; the archive must be running."""
        if self._serving:
            await asyncio.shield(self._serving)


def _by_uuid(argument: str, names: Mapping[str, str]) -> dict[str, str]:
    if not names:
        raise UsageError("give at least one UUID and its name", argument=argument)
    return {uuid.lower(): name for uuid, name in names.items()}


def _run_all(steps: list[Callable[[], object]]) -> None:
    for step in steps:
        step()


def _add_one(store: ArchiveStore, path: Path) -> StoredInstance:
    incoming = store.new_incoming()
    try:
        make_file(incoming)
        shutil.copyfile(path, incoming)
        return store.add(incoming, parse_instance(incoming))
    finally:
        incoming.unlink(missing_ok=True)


async def serve(
    folder: Path | str,
    *,
    port: int = 8042,
    host: str = "127.0.0.1",
    username: str | None = "demo",
    password: str | None = "demo",  # noqa: S107 - a demonstration's
    max_page: int | None = None,
    on_ready: Callable[[str], object] = lambda _url: None,
) -> None:
    """Run an archive until cancelled; ``on_ready`` is told its address once it listens."""
    archive = EmbeddedArchive(folder, username=username, password=password, host=host, port=port, max_page=max_page)
    async with archive:
        on_ready(archive.url)
        await archive.serve_forever()
