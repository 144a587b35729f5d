"""What every handler is given: the store, the options, and threads for what blocks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from postdicom_async.emulator.guesses import Guesses
from postdicom_async.emulator.operations.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from postdicom_async.emulator.store.archive import ArchiveStore

__all__ = ["INSTITUTIONS", "USERS", "USER_GROUPS", "ArchiveContext", "ArchiveLimits", "ArchiveOptions"]

INSTITUTIONS: Mapping[str, str] = MappingProxyType({"1f0e5b6a-3c1d-4e57-9a10-000000000001": "Sample Institution"})
"""The institutions of an archive unless told otherwise, names by UUID; the first gets what is uploaded."""

USERS: Mapping[str, str] = MappingProxyType({"1f0e5b6a-3c1d-4e57-9a10-000000000101": "Sample User"})
"""The users orders can be assigned to."""

USER_GROUPS: Mapping[str, str] = MappingProxyType({"1f0e5b6a-3c1d-4e57-9a10-000000000201": "Sample Group"})
"""The user groups orders can be assigned to."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class ArchiveLimits:
    """What clients may cost; tests make it small.

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
    """How an archive behaves, so that a client can be tried against the habits of several.

    Attributes:
        username: the account; None for no authentication at all.
        password: its password.
        max_page: at most so many search results an answer, whatever ``limit`` says; a ``Warning`` header tells.
        no_match_status: how a search without a match is answered: 200 with ``[]``, or 204.
        refused_sop_classes: SOP Class UIDs whose instances are refused with failure reason 0x0122.
        institutions: names by lower-case UUID; uploaded studies belong to the first.
        users: names by lower-case UUID, as are ``user_groups``.
        user_groups: what orders can be assigned to, besides users.
        text_answers: PostDICOM's own operations answer in plain text where they do not list something.
        success_false: they refuse with status 200 and ``Success`` false.
        allow_origin: origins whose pages may use the archive in a browser, such as ``https://viewer.example``; ``*`` is
            any.
        hosts: lower-case names that requests may name as their ``Host``, besides loopback addresses; None for any.
        limits: what clients may cost.
    """

    username: str | None = "demo"
    password: str | None = field(default="demo", repr=False)
    max_page: int | None = None
    no_match_status: int = 200
    refused_sop_classes: frozenset[str] = frozenset()
    institutions: Mapping[str, str] = field(default_factory=lambda: INSTITUTIONS)
    users: Mapping[str, str] = field(default_factory=lambda: USERS)
    user_groups: Mapping[str, str] = field(default_factory=lambda: USER_GROUPS)
    text_answers: bool = False
    success_false: bool = False
    allow_origin: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    limits: ArchiveLimits = ArchiveLimits()

    @property
    def institution_uuid(self) -> str:
        """The institution that uploaded studies belong to."""
        return next(iter(self.institutions))


@dataclass(frozen=True)
class ArchiveContext:
    """The store, the options, the threads, what tests want to go wrong, and how often each door was tried."""

    store: ArchiveStore
    options: ArchiveOptions
    executor: Executor
    faults: Faults = field(default_factory=Faults)
    password_guesses: Guesses = field(default_factory=Guesses)
    share_guesses: Guesses = field(default_factory=Guesses)
    key_guesses: Guesses = field(default_factory=Guesses)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in one of the archive's threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, partial(function, *args, **kwargs))
