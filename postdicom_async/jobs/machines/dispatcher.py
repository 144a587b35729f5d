"""Chunks on other machines: a `plan.Dispatcher` that hands them to the workers of a dask scheduler.

The ledger and every decision stay in this process; scheduler and workers may die at any time and only report the
outcomes of chunks. `InFlight` holds the chunks under way, and only `_Run` changes it, one event at a time. A monitor
polls the scheduler every second: how many workers there are (at most twice as many chunks are handed out, and each
worker gets its share of the rates), and whether it answers. If it does not, or the connection ends, all chunks under
way are handed out again, with higher attempt numbers, as soon as a scheduler can be reached.

A scheduler executes whatever reaches its port. So a scheduler on another machine is reached only over mutual TLS.
dask's own reconnect is not used: a broken connection is closed, and a new one is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from postdicom_async.errors import ConnectionFailed, UsageError
from postdicom_async.http.endpoint import is_loopback
from postdicom_async.jobs.machines.in_flight import AttemptKey, ChunkReport, InFlight
from postdicom_async.jobs.plan import ChunkEnd
from postdicom_async.watching import carried

try:
    from distributed import Client, KilledWorker, Security
except ImportError:
    raise UsageError("jobs on several machines need an extra: pip install 'postdicom-async[distributed]'") from None

from postdicom_async.jobs.machines import worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable

    from postdicom_async.jobs.plan import Chunk


LOOK_EVERY: Final = 1.0
"""Seconds between polls of the scheduler."""
WAITS: Final = (0.5, 30.0)
"""Seconds between attempts to reach a lost scheduler: the first wait and the longest."""
AHEAD: Final = 2
"""Chunks handed out at once, for each worker."""


class DaskDispatcher:
    """Hands chunks to the workers of a scheduler. Use it inside ``async with``.

    Args:
        address: of the scheduler, ``tls://host:8786``.
        task: what a worker does with a parcel: a function at the top of a module that workers can import.
        source, target: the ends as workers open them (`remote.RemoteEnd`); part of every parcel.
        options: called for each parcel with the number of workers; returns the other contents of the parcel. No
            secrets.
        prepare: called with a chunk before it is handed out; returns the chunk to send.
        finish: called when all chunks have ended.
        at_most: called each time; returns the limit of chunks at once regardless of workers, None for no limit.
        job: a word that identifies this run on a shared scheduler.
        security: see `tls`.
        patience: seconds without a scheduler or a worker after which it gives up.
        on_event: called with messages for people, one line each.

    Raises:
        UsageError: the address is invalid, or on another machine without TLS.
    """

    def __init__(
        self,
        address: str,
        task: Callable[[worker.Parcel], worker.WorkerAnswer],
        *,
        source: Any = None,
        target: Any = None,
        options: Callable[[int], Any] = lambda _workers: None,
        prepare: Callable[[Chunk], Awaitable[Chunk]] | None = None,
        finish: Callable[[], Awaitable[None]] | None = None,
        at_most: Callable[[], int | None] = lambda: None,
        job: str | None = None,
        security: Security | None = None,
        patience: float = 12 * 3600,
        on_event: Callable[[str], None] | None = None,
    ) -> None:
        self._task = task
        self._ends = (source, target)
        self._options = options
        self._prepare = prepare
        self._finish = finish
        self._patience = patience
        self._tell = on_event or (lambda _line: None)
        self._at_most = at_most
        self._job = job or secrets.token_hex(4)
        self._link = SchedulerConnection(address, security, f"postdicom-{self._job}", self._tell)
        self._serial = 0

    @property
    def workers(self) -> int:
        """How many workers there are now."""
        return len(self._link.workers)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectionFailed: no scheduler answers, or the TLS certificates are not accepted.
        """
        if not await self._link.connect():
            raise ConnectionFailed(
                "scheduler: nothing answers at its address, it speaks TLS and we do not, or a certificate is refused"
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.leave()

    async def run(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[ChunkReport, None]:
        """Hand out chunks; yield the results of their items, and last for each chunk its `ChunkEnd`.

        Raises:
            ConnectionFailed: no scheduler or no worker for ``patience`` seconds.
            UsageError: the workers cannot be used.
        """
        self._trace = carried()  # here: callbacks run in another context
        going = _Run(self._link, self._prepared(chunks), self._submit, self._at_most, self._patience, self._tell)
        try:
            async for given in going.results():
                yield given
            if self._finish is not None:
                await self._finish()
        finally:
            await going.end(self._job)

    async def _prepared(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
        async for chunk in chunks:
            yield chunk if self._prepare is None else await self._prepare(chunk)

    def _submit(self, client: Any, chunk: Chunk, workers: int) -> Any:
        source, target = self._ends
        parcel = worker.Parcel(self._job, chunk, source, target, self._options(workers), trace=self._trace)
        self._serial += 1  # never reuse a key that the scheduler has seen: it may still hold the old result
        name = f"postdicom-{self._job}-{chunk.number}-{chunk.attempt}-{self._serial}"
        return client.submit(self._task, parcel, key=name, pure=False)


class _Run:
    """One run of chunks. Callbacks put their work as calls into ``_events``; `results` executes them one at a time."""

    def __init__(
        self,
        link: SchedulerConnection,
        chunks: AsyncGenerator[Chunk, None],
        submit: Callable[[Any, Chunk, int], Any],
        at_most: Callable[[], int | None],
        patience: float,
        tell: Callable[[str], None],
    ) -> None:
        self._link = link
        self._chunks = chunks
        self._submit, self._at_most, self._patience, self._tell = submit, at_most, patience, tell
        self._flights = InFlight()
        self._events: asyncio.Queue[Callable[[], list[ChunkReport]]] = asyncio.Queue()
        self._futures: dict[AttemptKey, Any] = {}
        self._watchers: dict[AttemptKey, asyncio.Task[None]] = {}
        self._drawing: asyncio.Task[None] | None = None
        self._all_drawn = False
        self._worked = time.monotonic()  # when a worker was last seen
        self._has_worked = False
        self._monitor = asyncio.create_task(self._look_after())

    async def results(self) -> AsyncGenerator[ChunkReport, None]:
        while not (self._all_drawn and self._flights.empty):
            happened = await self._events.get()
            for given in happened():
                yield given
            self._hand_out()

    async def end(self, job: str) -> None:
        """Cancel the chunks under way; the workers are told to drop them, without waiting for it."""
        tasks = [self._monitor, *self._watchers.values(), *([self._drawing] if self._drawing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._chunks.aclose()
        client = self._link.client
        if client is None or not self._futures:
            return
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ENDS_WITHIN):
                await client.cancel(list(self._futures.values()), force=True)
                await client.run(worker.drop, job, on_error="ignore")

    # --- handing out -------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        client, workers = self._link.client, len(self._link.workers)
        if not (self._link.stands and workers):
            return
        room = min(AHEAD * workers, self._at_most() or AHEAD * workers) - self._flights.flying
        while room > 0 and (chunk := self._flights.take()) is not None:
            key = (chunk.number, chunk.attempt)
            self._futures[key] = future = self._submit(client, chunk, workers)
            self._watchers[key] = asyncio.create_task(self._watch(key, future))
            room -= 1
        if room > 0 and not (self._flights.has_waiting or self._drawing or self._all_drawn):
            self._drawing = asyncio.create_task(self._draw())

    async def _draw(self) -> None:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._events.put_nowait(partial(self._drew, None))
        except Exception as error:  # noqa: BLE001  it is raised where the results are taken
            self._events.put_nowait(partial(_raise, error))
        else:
            self._events.put_nowait(partial(self._drew, chunk))

    def _drew(self, chunk: Chunk | None) -> list[ChunkReport]:
        self._drawing = None
        if chunk is None:
            self._all_drawn = True
        else:
            self._flights.add(chunk)
        return []

    # --- what comes back ---------------------------------------------------------------------------------------------

    async def _watch(self, key: AttemptKey, future: Any) -> None:
        answer: Any = None
        try:
            answer = await future.exception()
            if answer is None and future.status != "cancelled":
                answer = await future.result()
        except Exception as error:  # noqa: BLE001  a network error, or one of the work itself
            answer = error if isinstance(error, KilledWorker) else None
        self._events.put_nowait(partial(self._came, key, answer))

    def _came(self, key: AttemptKey, answer: Any) -> list[ChunkReport]:
        """Take the result of an attempt, None if it is unknown."""
        if key not in self._futures:
            return []  # it was lost with its scheduler and has been handed out again as another attempt
        self._forget(key)
        if answer is None or isinstance(answer, worker.Refused):
            self._flights.lost(key)
        elif isinstance(answer, ImportError | AttributeError):
            raise UsageError(
                "they cannot load this job's work; give them the packages that are here", argument="workers"
            )
        elif isinstance(answer, Exception | worker.Broken):
            what = answer.error if isinstance(answer, worker.Broken) else type(answer).__name__
            self._tell(f"workers did not survive chunk {key[0]}, attempt {key[1]}: {what}")
            return self._flights.killed(key)
        else:
            items, end = answer
            return self._flights.landed(key, map(worker.unpacked, items), ChunkEnd(*end))
        return []

    def _forget(self, key: AttemptKey) -> None:
        self._watchers.pop(key).cancel()
        self._futures.pop(key).release()

    def _lost_all(self) -> list[ChunkReport]:
        for key in list(self._futures):
            self._forget(key)
        self._flights.lost_all()
        return []

    # --- the scheduler and its workers -------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        try:
            while True:
                if not await self._link.look():
                    await self._reach_again()
                    continue
                if self._link.workers:
                    self._worked, self._has_worked = time.monotonic(), True
                else:
                    self._check_patience("worker")
                self._events.put_nowait(list)  # the number of workers may have changed
                await asyncio.sleep(LOOK_EVERY)
        except Exception as error:  # noqa: BLE001  it is raised where the results are taken
            self._events.put_nowait(partial(_raise, error))

    async def _reach_again(self) -> None:
        await self._link.leave()
        self._events.put_nowait(self._lost_all)
        self._tell("the scheduler is lost; what was under way is handed out again when it is back")
        wait, longest = WAITS
        while not await self._link.connect():
            self._check_patience("scheduler")
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311  no secret
            wait = min(2 * wait, longest)
        self._tell("the scheduler is back")

    def _check_patience(self, missing: str) -> None:
        if self._link.refused is not None and not self._has_worked:
            raise UsageError(self._link.refused, argument="workers")
        if time.monotonic() - self._worked > self._patience:
            raise ConnectionFailed(
                f"no {missing} for {self._patience:.0f} s; the same command goes on when there is one"
            )


def _raise(error: Exception) -> list[ChunkReport]:
    raise error


# --- the connection to the scheduler ---------------------------------------------------------------------------------

ANSWERS_WITHIN: Final = 10.0
"""Seconds to wait for the scheduler's answer before it counts as lost."""
ENDS_WITHIN: Final = 5.0
_CANNOT_LOAD = (ImportError, AttributeError)


def tls(ca_file: str, cert_file: str, key_file: str) -> Security:
    """Return dask's settings for mutual TLS; the files are PEM."""
    made: Any = Security  # dask does not type its arguments
    security: Security = made(
        require_encryption=True, tls_ca_file=ca_file, tls_client_cert=cert_file, tls_client_key=key_file
    )
    return security


def checked_address(address: str, security: Security | None) -> str:
    """Return the scheduler's address with its scheme.

    Raises:
        UsageError: it is invalid, or on another machine without mutual TLS.
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
    """A dask client that does not reconnect: dask's own attempts would fill the log with tracebacks."""

    async def _reconnect(self, *_: Any, **__: Any) -> None:
        self.scheduler_comm = None  # ends its reader; `SchedulerConnection.look` notices that it is not running


class SchedulerConnection:
    """A connection to a scheduler, or none.

    Attributes:
        client: the connection, None while there is none.
        workers: addresses of the connected workers that were greeted and have this version of the package.
        refused: a line about an unusable worker, None if there was none.
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
        """Whether there is a connection that is not known to be broken."""
        return self.client is not None and self.client.status == "running"

    async def connect(self) -> bool:
        """Connect; return whether it succeeded."""
        made: Any = _OneConnection
        client = made(
            self._address,
            asynchronous=True,
            security=self._security,
            set_as_default=False,
            # Results come through the scheduler, so the workers need not be reachable from here.
            direct_to_workers=False,
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
        """Close the connection and forget the workers."""
        client, self.client, self.workers = self.client, None, frozenset()
        if client is not None:
            await _close(client)

    async def look(self) -> bool:
        """List the workers and greet new ones; return whether the scheduler answers."""
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
        """Find out which of these workers can be used; one without the package, or with another version, is retired."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                answers: dict[str, Any] = await client.run(worker.greet, workers=list(new), on_error="return")
        except (OSError, TimeoutError):
            return  # they are greeted at the next poll
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
            await client._close(fast=True)  # noqa: SLF001  its public close waits for a scheduler that is gone
