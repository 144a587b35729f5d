"""An archive for code that has no event loop of its own to spare: it runs on one in a thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from postdicom_async.emulator.server import EmbeddedArchive

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["archive_in_thread"]


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
