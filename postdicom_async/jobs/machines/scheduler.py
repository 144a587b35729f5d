"""The connection to a dask scheduler: how it may be reached, whether it is there, and which workers it has.

A scheduler executes whatever reaches its port. So on other machines it is connected to over TLS with certificates of
both sides or not at all. dask's own way to connect again is not relied on: a connection that broke is left, and
another is made.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from postdicom_async.errors import UsageError
from postdicom_async.http.address import is_loopback

try:
    from distributed import Client, Security
except ImportError:
    raise UsageError("jobs on several machines need an extra: pip install 'postdicom-async[distributed]'") from None

from postdicom_async.jobs.machines import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Link", "checked_address", "tls"]

ANSWERS_WITHIN: Final = 10.0
"""Seconds in which a scheduler answers; then it is taken for lost."""
ENDS_WITHIN: Final = 5.0
_CANNOT_LOAD = (ImportError, AttributeError)


def tls(ca_file: str, cert_file: str, key_file: str) -> Security:
    """Return what a connection needs where both sides show certificates; the files are PEM."""
    made: Any = Security
    settings = {"tls_ca_file": ca_file, "tls_client_cert": cert_file, "tls_client_key": key_file}
    return cast("Security", made(require_encryption=True, **settings))


def checked_address(address: str, security: Security | None) -> str:
    """Return the scheduler's address with its scheme.

    Raises:
        UsageError: it is none, or leads to another machine without TLS and certificates of both sides.
    """
    full = address if "://" in address else f"{'tcp' if security is None else 'tls'}://{address}"
    try:
        parts = urlsplit(full)
        usable = parts.scheme in {"tcp", "tls"} and bool(parts.hostname) and bool(parts.port)
    except (ValueError, AttributeError):
        usable = False
    if not usable:
        raise UsageError(
            "give its address as tls://HOST:8786, or tcp://127.0.0.1:8786 on this machine", argument="scheduler"
        )
    certain = security is not None and all(
        getattr(security, name) for name in ("require_encryption", "tls_ca_file", "tls_client_cert", "tls_client_key")
    )
    if parts.scheme == "tls" and not certain:
        raise UsageError("tls:// needs the files of an authority, a certificate and its key", argument="scheduler")
    if parts.scheme == "tcp" and not is_loopback(full):
        raise UsageError(
            "it executes what reaches its port, so on another machine it is connected to over TLS alone: "
            "give tls://HOST:PORT, and the files of an authority, a certificate and its key",
            argument="scheduler",
        )
    return full


class _OneConnection(Client):
    """A client that does not connect again by itself: it would, for a while, into the log, with tracebacks."""

    async def _reconnect(self, *_: Any, **__: Any) -> None:
        self.scheduler_comm = None  # which ends its reading; `Link.look` sees that it is not running


class Link:
    """A connection to a scheduler, or none.

    Attributes:
        client: the connection, None while there is none.
        workers: addresses of the workers that were greeted, have this version of the package, and are there.
        refused: a line about a worker that could not be used, None while there was none.
    """

    client: Any  # a distributed.Client, most of which is not typed
    workers: frozenset[str]
    refused: str | None

    def __init__(self, address: str, security: Security | None, name: str, tell: Callable[[str], None]) -> None:
        self._address = checked_address(address, security)
        self._security = security
        self._name = name
        self._tell = tell
        self.client = None
        self.workers = frozenset()
        self.refused = None

    @property
    def stands(self) -> bool:
        """There is a connection, and it is not known to be broken."""
        return self.client is not None and self.client.status == "running"

    async def connect(self) -> bool:
        """Connect; return whether it could be done."""
        made: Any = _OneConnection
        client = made(
            self._address,
            asynchronous=True,
            security=self._security,
            set_as_default=False,
            direct_to_workers=False,  # results come through the scheduler: no way to the workers is needed
            timeout=ANSWERS_WITHIN,
            name=self._name,
        )
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                await client
        except (OSError, TimeoutError):
            await _close(client)
            return False
        self.client = client
        return True

    async def leave(self) -> None:
        """Close the connection; there are no workers then."""
        client, self.client, self.workers = self.client, None, frozenset()
        if client is not None:
            await _close(client)

    async def look(self) -> bool:
        """See which workers there are, and greet new ones; return whether the scheduler is there."""
        client = self.client
        if not self.stands:
            return False
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                there = frozenset(await client.scheduler.ncores())
        except (OSError, TimeoutError):
            return False
        self.workers &= there
        if there - self.workers:
            await self._greet(client, there - self.workers)
        return True

    async def _greet(self, client: Any, new: Iterable[str]) -> None:
        """Learn which of these workers can be used; one with another version, or without the package, is sent away."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                answers: dict[str, Any] = await client.run(worker.greet, workers=list(new), on_error="return")
        except (OSError, TimeoutError):
            return  # they are greeted at the next look
        self.workers |= {address for address, answer in answers.items() if answer == worker.VERSION}
        for address, answer in answers.items():
            if isinstance(answer, str) and answer != worker.VERSION:
                await self._refuse(client, address, f"has postdicom-async {answer}, and here is {worker.VERSION}")
            elif isinstance(answer, _CANNOT_LOAD):
                await self._refuse(
                    client, address, f"has no postdicom-async that can be used; here is {worker.VERSION}"
                )

    async def _refuse(self, client: Any, address: str, why: str) -> None:
        self.refused = f"the worker at {address} {why}: it was sent away"
        self._tell(self.refused)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN):
                await client.retire_workers([address], close_workers=True)


async def _close(client: Any) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ENDS_WITHIN):
            await client._close(fast=True)  # noqa: SLF001  its public close waits for a scheduler that is no more
