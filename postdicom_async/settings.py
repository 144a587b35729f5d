"""Limits, time-outs, retry and TLS: every default in one place.

Times are seconds, sizes bytes. All classes are frozen; ``DicomWeb.with_options`` makes changed copies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from postdicom_async.errors import UsageError
from postdicom_async.events import OnEvent
from postdicom_async.face import public_face

__all__ = ["Limits", "Retry", "Settings", "Timeouts", "Tls"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _require_seconds(group: object, where: str, names: Iterable[str]) -> None:
    """Raise `UsageError` unless all values are finite numbers above 0."""
    for name in names:
        value = getattr(group, name)
        if not _is_number(value) or not 0 < value < math.inf:
            raise UsageError("give a number of seconds above 0", argument=f"{where}.{name}")


def _require_at_least(group: object, where: str, least: dict[str, int]) -> None:
    """Raise `UsageError` for a value below its minimum, 0 if none is named; fields declared int must be ints."""
    for one in fields(group):  # type: ignore[arg-type]  # called by dataclasses only
        value, lowest = getattr(group, one.name), least.get(one.name, 0)
        whole = one.type == "int"
        if not _is_number(value) or (whole and not isinstance(value, int)) or not value >= lowest:
            raise UsageError(f"give a number from {lowest} on", argument=f"{where}.{one.name}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@public_face
@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an archive may be silent or slow. A whole body has no limit: a large study takes as long as it moves.

    Only waiting for the network counts. Waiting for a free connection (``limits.connections``) or for a callable that
    returns credentials does not, nor does a caller who is slow to read an answer or to supply the data to send.

    Attributes:
        connect: to open a connection, TLS included.
        idle_write: while the archive takes no more of the body being sent, which is written in pieces of up to
            ``limits.piece`` and buffered by the system.
        answer: from the last byte sent to the head of the answer (an archive may index before it answers).
        search_answer: the same for searches, where ``answer`` is not shorter.
        idle_read: without a byte of the answer's body.
        least_rate: bytes of a body per second, sent or received; a lower rate over ``least_rate_window`` ends the
            request. 0 turns this off.
        least_rate_window: seconds of waiting over which that is counted; where silence may last longer (``idle_read``,
            ``idle_write``), as long as that.
        deadline: seconds that one call may take in all, with its repeats, pages, rounds and waits; None for no limit.
            What the caller does between the pages of a search or the pieces of a stream does not count.
        session: to open a session of the Cloud API, from its first request to its last answer, repeats included.
    """

    connect: float = 15.0
    idle_write: float = 60.0
    answer: float = 300.0
    idle_read: float = 60.0
    search_answer: float = 60.0
    least_rate: float = 1.0 * KIB
    least_rate_window: float = 60.0
    deadline: float | None = None
    session: float = 120.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        seconds = {one.name for one in fields(self)} - {"least_rate", "deadline"}
        _require_seconds(self, "timeouts", sorted(seconds))
        if self.deadline is not None:
            _require_seconds(self, "timeouts", ["deadline"])
        if not _is_number(self.least_rate) or not 0 <= self.least_rate < math.inf:
            raise UsageError("give a number of bytes a second, 0 for no limit", argument="timeouts.least_rate")


@public_face
@dataclass(frozen=True, slots=True)
class Retry:
    """How a request is repeated; what may be repeated at all is decided in ``http/retry.py``.

    Attributes:
        max_attempts: requests made for one call, the first included.
        max_seconds: no repeat starts later than this after the first attempt.
        base: the first back-off is random between 0 and this, doubling each time (full jitter).
        cap: the longest back-off of our own.
        max_retry_after: a server that asks to wait longer ends the call with `RateLimited`.
        budget: repeats a session may make in a burst; each request that succeeds earns back a tenth.
        max_silences: how many time-outs in a row one call, of however many requests, accepts from an archive that is
            silent or too slow. After that it makes no more requests. In uploads of the Cloud API, per socket.
    """

    max_attempts: int = 5
    max_seconds: float = 600.0
    base: float = 0.5
    cap: float = 30.0
    max_retry_after: float = 120.0
    budget: int = 50
    max_silences: int = 3

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        _require_at_least(self, "retry", {"max_attempts": 1, "max_silences": 1})


@public_face
@dataclass(frozen=True, slots=True)
class Limits:
    """What may be open at once, and how much of an answer is ever held in memory.

    Attributes:
        connections: requests in flight, and so the size of the connection pool.
        page_size: results asked for per search request.
        batch_instances: instances in one store request.
        batch_bytes: bytes in one store request; a larger instance goes alone.
        parallel_stores: the most store requests in parallel during an upload: it begins with three, goes up while that
            raises throughput, and steps back if the archive refuses or does not answer in time.
        parallel_retrieves: the most retrieve requests in parallel during a download: one at first, then as many as make
            it faster.
        parallel_searches: searches and requests for metadata in parallel, and lookups of PostDICOM's operations; the
            other connections are left to transfers.
        piece: bytes read from or written to disk at a time.
        json_bytes: an answer that is read as a whole: of a store, of the Cloud API, for the doctor.
        json_item_bytes: one result of a search, one instance's metadata. They are read one by one as they arrive, and
            there may be any number.
        error_bytes: how much of an error's body is read.
        in_memory_bytes: one instance, frame or rendering returned in memory.
        parts: parts of one multipart answer.
        expansion: the largest ratio a compressed answer may unpack to. Metadata of many similar instances compresses up
            to about 175 to 1; a gzip bomb about 1000 to 1.
    """

    connections: int = 16
    page_size: int = 1000
    batch_instances: int = 20
    batch_bytes: int = 32 * MIB
    parallel_stores: int = 6
    parallel_retrieves: int = 8
    parallel_searches: int = 4
    piece: int = 512 * KIB
    json_bytes: int = 256 * MIB
    json_item_bytes: int = 64 * MIB
    error_bytes: int = 64 * KIB
    in_memory_bytes: int = 2 * GIB
    parts: int = 1_000_000
    expansion: int = 200

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        _require_at_least(self, "limits", {one.name: 1 for one in fields(self)})


@public_face
@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates. Verification is on. A path may be given as text.

    Attributes:
        ca_file: PEM file of authorities trusted besides the system's, or of a server's own certificate.
        certificate: PEM file of the client certificate, with its chain; may hold the key too.
        key: PEM file of the client key, when it is a file of its own.
        key_password: the key's password.
        accept_any_certificate: turn verification off. Patient data then goes to any server that answers.
    """

    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    accept_any_certificate: bool = False

    def __post_init__(self) -> None:
        """Convert texts to paths; refuse values of other types."""
        for name in ("ca_file", "certificate", "key"):
            value = getattr(self, name)
            if isinstance(value, str) and value:
                object.__setattr__(self, name, Path(value))
            elif value is not None and not isinstance(value, Path):
                raise UsageError(f"tls.{name}: give the path of a PEM file")
        if not isinstance(self.key_password, str | None):
            raise UsageError("give a text", argument="tls.key_password")
        if not isinstance(self.accept_any_certificate, bool):
            raise UsageError("give True or False", argument="tls.accept_any_certificate")


@public_face
@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set on a session.

    Attributes:
        proxy: ``http://host:port``, with ``user:password@`` if the proxy wants it; ``socks5://`` with the extra
            ``socks``.
        use_environment_proxies: honour HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.
        allow_http_credentials: send credentials over ``http://`` to a host that is not this machine.
        fsync: make each downloaded file and its folder durable before it counts as saved. Without it, quick writes
            also run in the event loop instead of a thread.
        headers: sent with every request, besides the protocol's own; their values are treated as secrets. What belongs
            into ``Authorization`` goes into ``auth``.
        chunked_upload: send store requests chunked instead of with an exact Content-Length. Some archives
            answer 200 to a chunked request and store nothing.
        on_event: called in the event loop with what the engine encounters: see `postdicom_async.events`. An exception
            it raises is ignored; its class is logged.
        before_request: awaited before every request to the archive, including repeats, and before a connection is taken
            for it, so that a call waiting in it holds none: use it to limit the request rate. It may take any time:
            that is not silence of the archive, but counts towards ``timeouts.deadline`` and ``retry.max_seconds``. An
            exception ends the call. It is not called for requests of a callable that returns credentials, or for
            messages on the Cloud API's sockets.
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: Retry = field(default_factory=Retry)
    limits: Limits = field(default_factory=Limits)
    tls: Tls = field(default_factory=Tls)
    proxy: str | None = field(default=None, repr=False)
    use_environment_proxies: bool = False
    allow_http_credentials: bool = False
    fsync: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    chunked_upload: bool = False
    on_event: OnEvent | None = field(default=None, repr=False)
    before_request: Callable[[], Awaitable[None]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse members of the wrong class."""
        for name, kind in _MEMBERS.items():
            if not isinstance(getattr(self, name), kind):
                raise UsageError(f"give {kind.__name__}(...)", argument=name)
        if not isinstance(self.proxy, str | None):
            raise UsageError("give an address such as http://proxy.example:3128", argument="proxy")
        _check_headers(self.headers)
        if self.on_event is not None and not callable(self.on_event):
            raise UsageError("give a function that takes an event", argument="on_event")
        if self.before_request is not None and not callable(self.before_request):
            raise UsageError("give a function without arguments that can be awaited", argument="before_request")


_OF_THE_PROTOCOL = frozenset({
    "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "range",
    "transfer-encoding",
})  # fmt: skip
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.1


def _check_headers(headers: Mapping[str, str]) -> None:
    """Raise `UsageError` for headers that cannot be sent, or that requests have already; no value is shown."""
    if not isinstance(headers, Mapping):
        raise UsageError("give a mapping of names to text", argument="headers")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise UsageError("a name is not that of a header", argument="headers")
        if name.lower() in _OF_THE_PROTOCOL:
            raise UsageError(f"{name.title()} is set by the client; credentials go into auth", argument="headers")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise UsageError(f"the value of {name} is not printable ASCII", argument="headers")


_MEMBERS: dict[str, type] = {"timeouts": Timeouts, "retry": Retry, "limits": Limits, "tls": Tls}
