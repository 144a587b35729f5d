"""What is used of aiohttp's inside is there, and a version without it is refused aloud."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from postdicom_async.http.aiohttp_transport import Edge
from postdicom_async.http.connections import Connecting, require_inside


async def test_this_version_is_known() -> None:
    edge = Edge(connect=1.0, proxy=None)
    await edge.close()
    names = Connection.__init__.__code__.co_names
    assert {"_protocol", "_connector", "_key", "_loop"} <= set(names)


async def test_what_aiohttp_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ResponseHandler.__init__

    def without_payload(self: ResponseHandler, *args: object, **options: object) -> None:
        made(self, *args, **options)  # type: ignore[arg-type]
        del self._payload

    monkeypatch.setattr(ResponseHandler, "__init__", without_payload)
    with pytest.raises(RuntimeError, match="this version of aiohttp cannot be used: ResponseHandler has no _payload"):
        Connecting(proxied=False, resolver=aiohttp.ThreadedResolver())


def test_a_class_is_asked_by_its_name() -> None:
    with pytest.raises(RuntimeError, match="StreamReader has no _one, _two"):
        require_inside(aiohttp.StreamReader, "_buffer", "_one", "_two")
