"""Reading HTTP/1.1 requests from a stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from tests.support.exchange import Request

__all__ = ["read_body", "read_head"]

READ = 65536


async def read_head(reader: asyncio.StreamReader, connection: int) -> Request | None:
    """Read a request up to its body; None if the connection ended instead."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    head = Request(method, target, headers, "none", connection)
    if head.header("transfer-encoding").lower() == "chunked":
        return replace(head, framing="chunked")
    return replace(head, framing="content-length") if head.header("content-length") else head


async def read_body(
    head: Request, reader: asyncio.StreamReader, limit: int | None, rate: int | None
) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces, unchunked, up to the limit; raise IncompleteReadError if it is cut."""
    source = _chunks(reader) if head.framing == "chunked" else _counted(reader, _length(head))
    left = limit
    async with contextlib.aclosing(source):
        while left is None or left > 0:
            piece = await anext(source, b"")
            if not piece:
                return
            yield piece[:left]
            left = None if left is None else left - len(piece)
            await asyncio.sleep(len(piece) / rate if rate else 0)


def _length(head: Request) -> int:
    return int(head.header("content-length", "0"))


async def _counted(reader: asyncio.StreamReader, length: int) -> AsyncGenerator[bytes, None]:
    left = length
    while left:
        piece = await reader.read(min(left, READ))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        async for piece in _counted(reader, size):
            yield piece
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
