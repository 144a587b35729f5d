"""One request, as data; and what httpx is given for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
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
        metadata: it asks for what is told of instances; ``limits.parallel_searches`` bounds it, as it bounds searches.
        not_taken: called at the end of each attempt that was refused for now, not answered in time, cut off or failed.
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
    metadata: bool = False
    not_taken: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def is_listing(self) -> bool:
        """Whether it is bounded as searches are, so that they never take all connections from transfers."""
        return self.search or self.metadata

    @property
    def kind(self) -> str:
        """What is told apart where an archive is silent to some requests and answers others."""
        return "search" if self.search else self.repeat.name


_ALWAYS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": "postdicom-async",
}
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})


class OriginPath(str):
    """A path from the root of the server instead of below the service's address."""

    __slots__ = ()


@lru_cache(maxsize=8)  # an upload sends thousands of requests to one address
def _address_of(url: str) -> httpx.URL:
    return httpx.URL(url)


def request_of(
    url: str, call: Call, authorization: str | None, stream: httpx.AsyncByteStream | None, settings: Settings
) -> httpx.Request:
    """Return the request of a call to the service at ``url``; ``stream`` is its body.

    Raises:
        httpx.InvalidURL: the address cannot be used.
    """
    text = (origin_of(url) if isinstance(call.path, OriginPath) else url) + call.path
    address = _address_of(text) if stream is not None and "?" not in text else httpx.URL(text)
    headers = [(b"Host", address.netloc)]
    headers += [(name.encode(), value.encode()) for name, value in (_ALWAYS | call.headers).items()]
    if authorization is not None:
        headers.append((b"Authorization", authorization.encode()))
    if call.body is None:
        if call.method in _WITH_LENGTH:
            headers.append((b"Content-Length", b"0"))
    elif settings.chunked_upload:
        headers.append((b"Transfer-Encoding", b"chunked"))
    else:
        headers.append((b"Content-Length", b"%d" % call.body.length))
    request = httpx.Request(
        call.method,
        address,
        headers=headers,
        stream=stream or httpx.ByteStream(b""),
        extensions={"timeout": {"connect": settings.timeouts.connect, "read": None, "write": None, "pool": None}},
    )
    if stream is None:
        request.read()  # transports find an empty ``content``
    return request
