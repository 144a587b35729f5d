"""Identities whose libraries block: they are asked in a thread, so that the event loop goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TypeVar

import anyio
import anyio.to_thread

from postdicom_async.errors import AuthenticationFailed, UsageError
from postdicom_async.face import translated
from postdicom_async.http.credentials import EARLY, Road, Token, TokenIssuer

_T = TypeVar("_T")


def require_extra(module: str, extra: str) -> None:
    """Refuse to go on without an optional package.

    Raises:
        UsageError: it is not installed; the message says what to install.
    """
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # its parent is missing
        found = None
    if found is None:
        raise UsageError(f'{module} is not installed; pip install "postdicom-async[{extra}]"')


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread of its own; a cancelled caller does not wait for its end."""
    # Not in asyncio's default executor: all its threads may be busy with work that waits for this very token.
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


class ThreadedIssuer(TokenIssuer):
    """Tokens from a function that blocks.

    Args:
        name: for messages and ``repr``.
        ask: returns a token, or raises; called by one thread at a time.
        is_final: whether an exception that it raised means that there will be no token later either. It is called in
            the thread, where the library is imported.
    """

    def __init__(
        self, name: str, ask: Callable[[], Token], is_final: Callable[[Exception], bool], *, early: float = EARLY
    ) -> None:
        super().__init__(early=early)
        self._name = name
        self._ask = ask
        self._is_final = is_final
        self._asking = threading.Lock()

    def __repr__(self) -> str:
        return f"<tokens.{self._name}>"

    async def issue(self, road: Road) -> Token:
        """Ask; see the base class. The library's own way to the network is used, whatever the archive's is."""
        del road
        return await in_thread(self._asked)

    def _asked(self) -> Token:
        with self._asking, translated(Exception, partial(no_identity, self._name, self._is_final)):
            return self._ask()


def no_identity(name: str, is_final: Callable[[Exception], bool], error: Exception) -> AuthenticationFailed:
    """Return the error for a library that failed, without its text, which may name accounts and addresses."""
    words = f"{name} gave no credentials ({type(error).__name__})"
    return AuthenticationFailed(words, temporary=not is_final(error))
