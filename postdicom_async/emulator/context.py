"""The options of an archive, and the context of every handler: store, options, threads for blocking work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import ParamSpec, TypeVar

from postdicom_async.emulator.doors import Guesses, checked_hosts, checked_origins
from postdicom_async.emulator.operations.faults import Faults
from postdicom_async.emulator.store.archive import ArchiveStore
from postdicom_async.emulator.vendor.parameters import is_guid
from postdicom_async.errors import UsageError

INSTITUTIONS: Mapping[str, str] = MappingProxyType({"1f0e5b6a-3c1d-4e57-9a10-000000000001": "Sample Institution"})
"""The institutions of an archive unless told otherwise, names by UUID; the first gets what is uploaded."""

USERS: Mapping[str, str] = MappingProxyType({"1f0e5b6a-3c1d-4e57-9a10-000000000101": "Sample User"})
"""The users orders can be assigned to."""

USER_GROUPS: Mapping[str, str] = MappingProxyType({"1f0e5b6a-3c1d-4e57-9a10-000000000201": "Sample Group"})
"""The user groups orders can be assigned to."""

CLOUD_KEYS = ("1f0e5b6a-3c1d-4e57-9a10-00000000a001", "1f0e5b6a-3c1d-4e57-9a10-00000000a002")
"""The API key and the account key of the demonstration's account."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class ArchiveLimits:
    """Resource limits for clients; tests make them small.

    Attributes:
        max_connections: how many connections may be open at once, for HTTP and for WebSockets each; the next is
            answered with 503 and closed.
        head_timeout: seconds from a connection's opening, or from the first byte of a further request, to the end of
            the request's head.
        body_timeout: seconds in which a client must send 1 KiB of its body, or take some of its answer, while the
            archive waits for it.
        max_parts: how many instances one request may store; the next is answered with 413.
    """

    max_connections: int = 500
    head_timeout: float = 20
    body_timeout: float = 60
    max_parts: int = 10_000


@dataclass(frozen=True)
class ArchiveOptions:
    """The behaviour of an archive, so that a client can be tested against different servers.

    Attributes:
        max_page: at most so many search results in one answer, announced in a ``Warning`` header when cut.
        no_match_status: how a search without a match is answered: 200 with ``[]``, or 204.
        refused_sop_classes: SOP Class UIDs whose instances are refused with failure reason 0x0122.
        institutions: the account's institutions for PostDICOM's own APIs, names by UUID; uploaded studies belong to
            the first.
        users: whom orders can be assigned to, and in whose name the Cloud API acts; names by UUID.
        user_groups: the same for groups.
        text_answers: PostDICOM's own operations answer in plain text where they do not list something.
        success_false: they refuse with status 200 and ``Success`` false.
        cloud_keys: the Cloud API's API key and account key.
        tokens: bearer tokens that are let in besides the account, and whose each is: ``{"alice-token": "alice"}``.
        allow_origin: origins whose pages may use the archive in a browser, such as ``https://viewer.example``; ``*`` is
            any. Pages of the archive's own host may connect to the WebSocket without it.
        allow_host: names, besides the loopback addresses and the one it listens on, under which clients reach the
            archive. Another ``Host`` is refused: a page of anybody could be made to look like one of ours by its
            name's address.
        limits: what clients may cost.

    Raises:
        UsageError: a key is not a GUID, a token cannot be sent, an origin or a host is malformed, or there is no
            institution, user or group.
    """

    max_page: int | None = None
    no_match_status: int = 200
    refused_sop_classes: Collection[str] = ()
    institutions: Mapping[str, str] = field(default_factory=lambda: INSTITUTIONS)
    users: Mapping[str, str] = field(default_factory=lambda: USERS)
    user_groups: Mapping[str, str] = field(default_factory=lambda: USER_GROUPS)
    text_answers: bool = False
    success_false: bool = False
    cloud_keys: tuple[str, str] = field(default=CLOUD_KEYS, repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_origin: Collection[str] = ()
    allow_host: Collection[str] = ()
    limits: ArchiveLimits = ArchiveLimits()

    def __post_init__(self) -> None:
        for name in ("institutions", "users", "user_groups"):
            if not getattr(self, name):
                raise UsageError("give at least one UUID and its name", argument=name)
            self._set(name, {uuid.lower(): called for uuid, called in getattr(self, name).items()})
        if not all(is_guid(key) for key in self.cloud_keys):
            raise UsageError(
                "the API key and the account key must be GUIDs of a version from 1 to 5", argument="cloud_keys"
            )
        self._set("cloud_keys", (self.cloud_keys[0].lower(), self.cloud_keys[1].lower()))
        self._set("tokens", checked_tokens(self.tokens))
        self._set("refused_sop_classes", frozenset(self.refused_sop_classes))
        self._set("allow_origin", checked_origins(self.allow_origin))
        self._set("allow_host", checked_hosts(self.allow_host))

    def __repr__(self) -> str:
        """Return what differs from the defaults, and no secret."""
        shown = [(one.name, getattr(self, one.name)) for one in fields(self) if one.repr]
        told = (f"{name}={value!r}" for name, value in shown if value != getattr(_USUAL, name))
        return f"ArchiveOptions({', '.join(told)})"

    def _set(self, name: str, value: object) -> None:
        """Keep a value in the form that requests are compared with."""
        object.__setattr__(self, name, value)

    @property
    def institution_uuid(self) -> str:
        """The institution that uploaded studies belong to."""
        return next(iter(self.institutions))


def checked_tokens(tokens: Mapping[str, str]) -> dict[str, str]:
    """Return bearer tokens and their users as a dictionary of its own.

    Raises:
        UsageError: one could not stand in a header, or nobody's name is given.
    """
    for token, user in tokens.items():
        if not (isinstance(token, str) and token.isascii() and token.isprintable() and token and " " not in token):
            raise UsageError("a token is printable ASCII without spaces", argument="tokens")
        if not (isinstance(user, str) and user):
            raise UsageError("give the name of each token's user", argument="tokens")
    return dict(tokens)


_USUAL = ArchiveOptions()


@dataclass(frozen=True)
class ArchiveContext:
    """The store, the options, the account, configured faults, and the counts of login attempts.

    ``tokens`` may change while it runs; ``served`` counts the requests let in by user.

    ``hosts`` are lower-case names that requests may name as their ``Host``, besides loopback addresses; None for any.
    """

    store: ArchiveStore
    options: ArchiveOptions
    account: tuple[str, str] | None = field(default=None, repr=False)
    hosts: Collection[str] | None = None
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    served: Counter[str] = field(default_factory=Counter)
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(8, "archive"))
    faults: Faults = field(default_factory=Faults)
    password_guesses: Guesses = field(default_factory=Guesses)
    share_guesses: Guesses = field(default_factory=Guesses)
    key_guesses: Guesses = field(default_factory=Guesses)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in one of the archive's threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Wait for the threads and close the index; blocks."""
        self.executor.shutdown(wait=True)
        self.store.close()
