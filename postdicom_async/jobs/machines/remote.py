"""How a job's chunks travel to workers on other machines: packed here, unpacked and run there.

No secret is packed. A worker opens the ends with its own profiles and secrets. Anonymisation rules are sent, but their
secret and the table of patients must be on the worker's machine (`unpacked_rules`); if they differ from those here, the
worker is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postdicom_async.dicom.anonymize import Anonymization
from postdicom_async.disk import private_files
from postdicom_async.disk.anonymize_files import PatientTable
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.face import public_face, translated
from postdicom_async.jobs.chunk_runner import ChunkOptions, run_chunk
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.specs import EndSpec
from postdicom_async.jobs.machines.worker import Parcel, WorkerAnswer, carry_with
from postdicom_async.jobs.pace.pace import Pace, WorkerShare
from postdicom_async.jobs.plan import ChunkEnd

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.jobs.ends.end import End
    from postdicom_async.jobs.plan import ItemEnd


SECRET: Final = "POSTDICOM_ANONYMIZE_SECRET"  # noqa: S105  its name
PATIENTS: Final = "POSTDICOM_ANONYMIZE_PATIENTS"
SECRET_FILE: Final = "anonymize.secret"  # noqa: S105  in $CREDENTIALS_DIRECTORY


@dataclass(frozen=True, slots=True)
class RemoteEnd:
    """Where an end is, for a worker.

    Attributes:
        job: a random word that identifies this run.
        spec: the end as the user named it.
        target: whether it is the target, where a missing folder counts as empty.
        alone: the other end is not an archive, so variables such as ``POSTDICOM_PASSWORD`` belong to this one.
    """

    job: str
    spec: EndSpec
    target: bool = False
    alone: bool = False

    def open(self) -> End:
        """Return the end, not yet entered; its requests observe this process's share of the job's rate.

        Raises:
            UsageError: this machine has no such profile, or no secret for it.
        """
        end = self.spec.open(target=self.target, alone=self.alone)
        if isinstance(end, ArchiveEnd):
            end.pace_requests(_kept_for(self.job).pace.request)
        return end


def packed_rules(rules: Anonymization) -> Anonymization:
    """Return the rules in a form that may be sent to workers.

    Raises:
        UsageError: each machine would generate different UIDs; or a map of UIDs is to be written, which only one
            process can do.
    """
    if rules.uid_map is not None:
        raise UsageError(
            "a map of UIDs is written on one machine; leave it out, or the scheduler", argument="anonymize"
        )
    return rules.without_secret()


@public_face
def unpacked_rules(rules: Anonymization) -> Anonymization:
    """Return the rules with this machine's secret and table of patients.

    Raises:
        UsageError: one is missing, or differs from the job's.
    """
    place = os.environ.get(PATIENTS)
    secret, patients = _secret(), None
    if place and rules.description()["patients"] is not None:
        no_table = UsageError(f"this machine has no table where {PATIENTS} is", argument="anonymize")
        with translated(LocalFileError, lambda _: no_table):  # errors that leave this machine must not name paths
            patients = PatientTable.from_csv(Path(place))
    # A worker may have files that this job does not need.
    for one, table in ((secret, patients), (secret, None), (None, patients), (None, None)):
        with contextlib.suppress(UsageError):
            return rules.with_secret(one, patients=table)
    has = "no secret" if secret is None else "another secret or table of patients than where the job was begun"
    raise UsageError(
        f"this machine has {has}: set {SECRET} (or {SECRET_FILE} in $CREDENTIALS_DIRECTORY), and "
        f"{PATIENTS} to the file of a table",
        argument="anonymize",
    )


def _secret() -> str | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and (path := Path(folder, SECRET_FILE)).exists():
        return private_files.read_secret(path, f"$CREDENTIALS_DIRECTORY/{SECRET_FILE}", private=False)
    return os.environ.get(SECRET)


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How chunks are moved, for a worker.

    Attributes:
        compares_bytes: compute digests of what is sent, for later verification.
        rules: the anonymisation rules, without the secret.
        share: this worker's share of the job's rates.
    """

    compares_bytes: bool = False
    rules: Anonymization | None = None
    share: WorkerShare = field(default_factory=WorkerShare)


# --- on the worker ---------------------------------------------------------------------------------------------------


def carry(parcel: Parcel) -> WorkerAnswer:
    """Move a chunk: the task of a worker."""
    return carry_with(_work, parcel)


@dataclass(slots=True)
class _Job:
    """State that this process keeps for a job between its chunks."""

    job: str
    pace: Pace = field(default_factory=Pace)
    rules: Anonymization | None = None


_jobs: dict[str, _Job] = {}
_guard = threading.Lock()
_MOST_JOBS = 8  # jobs remembered at once


async def _work(source: End, target: End, parcel: Parcel) -> AsyncGenerator[ItemEnd | ChunkEnd, None]:
    wanted: WorkOptions = parcel.options
    kept = _kept_for(parcel.job)
    kept.pace.set(max_rate=wanted.share.max_rate or 0, max_requests=wanted.share.max_requests or 0)
    problem = ""
    if wanted.rules is not None and kept.rules is None:
        try:
            kept.rules = await asyncio.to_thread(unpacked_rules, wanted.rules)
        except PostdicomError as error:
            problem = str(error)
    if problem:
        yield ChunkEnd("target", UsageError.__name__, message=f"on a worker: {problem}")
        return
    options = ChunkOptions(kept.rules, kept.pace.bytes, wanted.compares_bytes)
    async with aclosing(run_chunk(source, target, parcel.chunk, options)) as ends:
        async for end in ends:
            yield end


def _kept_for(job: str) -> _Job:
    with _guard:  # ends are opened in threads of their own
        found = _jobs.pop(job, None) or _Job(job)
        _jobs[job] = found  # most recently used last
        while len(_jobs) > _MOST_JOBS:
            del _jobs[next(iter(_jobs))]
        return found
