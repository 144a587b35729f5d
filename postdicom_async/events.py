"""What the engine tells while it works: to ``Settings.on_event``, or to ``on_event=`` of a job, as it happens. Pure.

Events may be logged and counted as they are: they hold names of operations, counts, seconds, statuses, and nothing
private: no address, no UID, none of a server's words, no credential. More kinds may come: look at the class of an event
and leave those that you do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from postdicom_async.face import public_face

__all__ = [
    "ArchiveSilent",
    "AttemptFailed",
    "CredentialsRefreshed",
    "Event",
    "GaveUp",
    "InstanceEnded",
    "JobEnded",
    "JobPhase",
    "JobStarted",
    "OnEvent",
    "OutageBegan",
    "OutageEnded",
    "RequestEnded",
]


# --- requests ---------------------------------------------------------------------------------------------------------


@public_face
@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request has ended: its answer was read, or is not wanted any more, or there was none.

    Each attempt is a request. On the Cloud API's sockets a request is a frame and the frame that answers it.

    Attributes:
        operation: what it was for, for example ``"store instances"``.
        attempt: its number within the call, from 1.
        status: the HTTP status; None when no answer came, and on a socket.
        sent: bytes of its body that were sent; of a frame all of it.
        received: bytes of its answer's body, as they came; of a frame all of it.
        seconds: from when it went out until the answer was read or left.
        error: the class of the error that ended it, for example ``"ConnectionFailed"``; None if it was answered, with
            whatever status.
    """

    operation: str
    attempt: int
    status: int | None
    sent: int
    received: int
    seconds: float
    error: str | None


@public_face
@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A request failed and is made again.

    Attributes:
        operation: what it was for, for example ``"store instances"``.
        attempt: its number within the call, from 1.
        failure: ``"NOT_SENT"``, ``"REFUSED"``, ``"UNAVAILABLE"`` or ``"LOST"``: what happened to it, as far as known.
        status: the HTTP status, None when no answer came.
        next_in: seconds until the next attempt.
    """

    operation: str
    attempt: int
    failure: str
    status: int | None
    next_in: float


@public_face
@dataclass(frozen=True, slots=True)
class CredentialsRefreshed:
    """The callable that gives the token was asked again, and gave another one."""


@public_face
@dataclass(frozen=True, slots=True)
class ArchiveSilent:
    """A request timed out: the archive did not answer, stopped taking or sending data, or was too slow.

    Attributes:
        operation: what it was for.
        silences: how often that has happened in this call; parallel requests count once.
    """

    operation: str
    silences: int


@public_face
@dataclass(frozen=True, slots=True)
class GaveUp:
    """A call ends with an error: a repeat would not help, or there were too many.

    Attributes:
        operation: what it was for.
        attempts: how many were made.
        status: the HTTP status of the last one, None when no answer came.
        temporary: whether the same call may succeed later.
        error: the class of the exception, for example ``"ConnectionFailed"``.
    """

    operation: str
    attempts: int
    status: int | None
    temporary: bool
    error: str


# --- instances and jobs -----------------------------------------------------------------------------------------------


@public_face
@dataclass(frozen=True, slots=True)
class InstanceEnded:
    """An instance of a transfer has its outcome. The counts by status add up to those of the report.

    Attributes:
        operation: ``"upload"``, ``"store instances"``, ``"upload documents"``, ``"download study"``,
            ``"download series"`` or ``"download instance"``; of a job ``"copy"``, ``"sync"`` or ``"verify"``.
        status: the value of its `Status`, for example ``"stored"``; of a job its state, for example ``"done"``.
        size: its bytes; 0 if they are not known.
    """

    operation: str
    status: str
    size: int


@public_face
@dataclass(frozen=True, slots=True)
class JobStarted:
    """A job began to work.

    Attributes:
        job: its name: that of its ledger.
        verb: ``"copy"``, ``"sync"`` or ``"verify"``.
        run: the number of the run, from 1. A job that goes on where it stopped continues its run.
    """

    job: str
    verb: str
    run: int


@public_face
@dataclass(frozen=True, slots=True)
class JobPhase:
    """A job begins a phase: ``"discovering"``, ``"moving"``, ``"verifying"`` or ``"deleting"``."""

    job: str
    phase: str


@public_face
@dataclass(frozen=True, slots=True)
class OutageBegan:
    """An end of a job does not work; the job waits for it.

    Attributes:
        job: its name.
        end: ``"source"`` or ``"target"``.
        error: the class of the error that it failed with last.
    """

    job: str
    end: str
    error: str


@public_face
@dataclass(frozen=True, slots=True)
class OutageEnded:
    """An end of a job works again, after so many seconds."""

    job: str
    end: str
    seconds: float


@public_face
@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job works no more, because it is complete, failed or was stopped.

    Attributes:
        job: its name.
        counts: its instances by state, over all its runs, for example ``{"done": 812, "failed": 1}``.
        seconds: since it began to work.
        error: the class of the error that ended it, ``"JobStopped"`` if it was stopped; None if it is complete.
    """

    job: str
    counts: Mapping[str, int]
    seconds: float
    error: str | None


Event: TypeAlias = (
    RequestEnded
    | AttemptFailed
    | CredentialsRefreshed
    | ArchiveSilent
    | GaveUp
    | InstanceEnded
    | JobStarted
    | JobPhase
    | OutageBegan
    | OutageEnded
    | JobEnded
)
OnEvent: TypeAlias = Callable[[Event], None]
"""Called with each event, in the event loop, so keep it short. An exception is ignored; its class is logged."""
