"""One request, as data; and what httpx is given for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from postdicom_async.bodies import Body
from postdicom_async.http.redaction import origin_of
from postdicom_async.http.retry import Repeat

if TYPE_CHECKING:
    from postdicom_async.settings import Settings

__all__ = ["Call", "OriginPath", "request_of"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as data.

    Attributes:
        operation: what the caller would call it; the head of every error message.
        path: appended to the session's address; percent-encoded already, query included.
        repeat: what a repeat would do.
        body: what to send, or None.
        accepted: statuses besides 2xx that the caller reads itself.
        private: values of the request that a server might repeat in its words.
        search: its answer is waited for ``timeouts.search_answer`` instead of ``timeouts.answer``.
    """

    operation: str
    method: str
    path: str = field(repr=False)
    repeat: Repeat
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: Body | None = field(default=None, repr=False)
    accepted: frozenset[int] = frozenset()
    private: Iterable[str] = field(default=(), repr=False)
    search: bool = False

    @property
    def kind(self) -> str:
        """What is told apart where an archive is silent to some requests and answers others."""
        return "search" if self.search else self.repeat.name


class OriginPath(str):
    """A path from the root of the server instead of below the service's address."""

    __slots__ = ()


def request_of(
    client: httpx.AsyncClient,
    url: str,
    call: Call,
    authorization: str | None,
    stream: httpx.AsyncByteStream | None,
    settings: Settings,
) -> httpx.Request:
    """Return the request of a call to the service at ``url``; ``stream`` is its body."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "postdicom-async", **call.headers}
    if authorization is not None:
        headers["Authorization"] = authorization
    if call.body is not None and not settings.chunked_upload:
        headers["Content-Length"] = str(call.body.length)
    return client.build_request(
        call.method,
        (origin_of(url) if isinstance(call.path, OriginPath) else url) + call.path,
        headers=headers,
        content=stream,
        timeout=httpx.Timeout(None, connect=settings.timeouts.connect),
    )
