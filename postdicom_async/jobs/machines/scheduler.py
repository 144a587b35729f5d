"""The scheduler that a job's chunks are sent to. dask is imported only when it is used."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.jobs.ends.specs import EndSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from postdicom_async.jobs.context import JobOptions
    from postdicom_async.jobs.ends.end import End
    from postdicom_async.jobs.machines.dispatcher import DaskDispatcher
    from postdicom_async.jobs.pace.pace import Pace, WorkerShare
    from postdicom_async.jobs.plan import Chunk


@public_face
@dataclass(frozen=True)
class Scheduler:
    """A dask scheduler whose workers do a job. Needs the extra ``distributed``.

    A scheduler executes whatever reaches its port. On another machine it is used only over mutual TLS, with
    certificates of an authority that signs for these machines and nobody else.

    Attributes:
        address: ``tls://HOST:8786``; ``tcp://127.0.0.1:8786`` without TLS on this machine.
        ca_file: the authority, PEM.
        certificate: ours, PEM.
        key: its key, PEM, without a password.

    Raises:
        UsageError: the address is invalid, or needs TLS; a file is missing; the extra is not installed.
    """

    address: str
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        from postdicom_async.jobs.machines.dispatcher import checked_address

        for name in ("ca_file", "certificate", "key"):
            file = getattr(self, name)
            if file is not None and not Path(file).is_file():
                raise UsageError(f"{name}: there is no such file", argument="scheduler")
        checked_address(self.address, self._security())

    def _security(self) -> Any:
        from postdicom_async.jobs.machines.dispatcher import tls

        files = (self.ca_file, self.certificate, self.key)
        return None if files == (None, None, None) else tls(*("" if one is None else str(one) for one in files))

    def dispatcher(
        self,
        source: object,
        target: object,
        here: tuple[End, End],
        options: JobOptions,
        pace: Pace,
        *,
        patience: float,
        tell: Callable[[str], None],
    ) -> DaskDispatcher:
        """Return the dispatcher that hands the job's chunks to the workers, not yet entered.

        Args:
            source: the spec; workers open it with their own profiles.
            target: the same.
            here: both ends as opened in this process.
            options: the options of the job.
            pace: its rates, divided among the workers whenever a chunk is handed out.
            patience: seconds without scheduler or workers, after which the job ends and can be resumed.
            tell: called with messages for people, line by line.

        Raises:
            UsageError: an end cannot be opened on another machine, or each worker would generate different UIDs.
        """
        from postdicom_async.jobs.machines.dispatcher import DaskDispatcher
        from postdicom_async.jobs.machines.remote import RemoteEnd, WorkOptions, carry, packed_rules

        if not isinstance(source, EndSpec) or not isinstance(target, EndSpec):
            raise UsageError(
                "name both ends by profile, address or path; a client cannot be sent to workers", argument="scheduler"
            )
        job = secrets.token_hex(4)
        alone = source.is_archive != target.is_archive
        rules = None if options.anonymize is None else packed_rules(options.anonymize)
        return DaskDispatcher(
            self.address,
            carry,
            source=RemoteEnd(job, source, alone=alone),
            target=RemoteEnd(job, target, target=True, alone=alone),
            options=lambda workers: WorkOptions(options.needs_digests, rules, _share(pace, workers)),
            at_most=lambda: pace.at_once,
            job=job,
            security=self._security(),
            prepare=_placing(here[0]),
            finish=getattr(here[1], "refresh", None),  # a folder's index does not know what workers stored
            patience=patience,
            on_event=tell,
        )


def _share(pace: Pace, workers: int) -> WorkerShare:
    """Return one worker's share of the rates. Only workers move bytes; requests are made here too."""
    return replace(pace.share(workers), max_requests=pace.share(workers + 1).max_requests)


def paced_here(pace: Pace, dispatcher: DaskDispatcher) -> Callable[[], Awaitable[None]]:
    """Return the callable awaited before each request made here.

    It limits to one share of the rate, like a worker's.
    """

    async def request() -> None:
        for _ in range(dispatcher.workers + 1):
            await pace.request()

    return request


def _placing(end: End) -> Callable[[Chunk], Awaitable[Chunk]] | None:
    """Return the callable that adds file places to a chunk if the source is a folder: workers have no index of it."""
    placed = getattr(end, "placed", None)
    if placed is None:
        return None

    async def place(chunk: Chunk) -> Chunk:
        return replace(chunk, wanted=await placed(chunk.wanted))

    return place
