"""What the tests of jobs from the command line work with: ends, and one that counts what it is asked."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.dicom_files import study_files

__all__ = ["Counting", "write_studies"]

_REQUEST = re.compile(rb"(?:^|\r\n)(GET|POST|DELETE|PUT) /\S* HTTP/1.1\r\n")


def write_studies(folder: Path, count: int, *, each: int = 5, pixel_bytes: int = 2048) -> Path:
    """Write studies of so many instances each into a new folder."""
    folder.mkdir()
    for study in range(1, count + 1):
        for name, data in study_files(each, study=study, pixel_bytes=pixel_bytes).items():
            (folder / f"{name}.dcm").write_bytes(data)
    return folder


class Counting:
    """Passes connections on to an archive, inside ``async with``, and counts requests by their methods.

    Attributes:
        methods: how often each was asked.
    """

    def __init__(self, url: str) -> None:
        self.methods: Counter[str] = Counter()
        self._scheme, _, rest = url.partition("://")
        address, slash, path = rest.partition("/")
        host, _, port = address.rpartition(":")
        self._address, self._path = (host, int(port)), slash + path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The archive's address through it."""
        assert self._server is not None
        return f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._path}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, back = await asyncio.open_connection(*self._address)
        try:
            await asyncio.gather(self._pump(reader, back, counts=True), self._pump(there, writer, counts=False))
        finally:
            back.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool) -> None:
        last = b""
        with suppress(OSError):
            while data := await reader.read(65536):
                if counts:
                    self.methods.update(found.decode() for found in _REQUEST.findall(last + data))
                    last = b""
                writer.write(data)
                await writer.drain()
            writer.write_eof()
