"""What every handler is given: the store, the options, and threads for what blocks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from postdicom_async.emulator.archive_store import ArchiveStore

__all__ = ["ArchiveContext", "ArchiveOptions"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class ArchiveOptions:
    """How an archive behaves, so that a client can be tried against the habits of several.

    Attributes:
        username: the account; None for no authentication at all.
        password: its password.
        max_page: at most so many search results an answer, whatever ``limit`` says; a ``Warning`` header tells.
        no_match_status: how a search without a match is answered: 200 with ``[]``, or 204.
        refused_sop_classes: SOP Class UIDs whose instances are refused with failure reason 0x0122.
    """

    username: str | None = "demo"
    password: str | None = field(default="demo", repr=False)
    max_page: int | None = None
    no_match_status: int = 200
    refused_sop_classes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ArchiveContext:
    """The store, the options and the threads."""

    store: ArchiveStore
    options: ArchiveOptions
    executor: Executor

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in one of the archive's threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, partial(function, *args, **kwargs))
