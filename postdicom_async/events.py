"""What the engine encounters while it works, reported to ``Settings.on_event`` as it happens. Pure.

Events may be logged as they are: they hold names of operations, counts, seconds, statuses, and nothing private: no
address, no UID, none of a server's words, no credential.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from postdicom_async.face import public_face

__all__ = ["ArchiveSilent", "AttemptFailed", "CredentialsRefreshed", "Event", "GaveUp", "OnEvent"]


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


Event: TypeAlias = AttemptFailed | CredentialsRefreshed | ArchiveSilent | GaveUp
OnEvent: TypeAlias = Callable[[Event], None]
"""Called with each event, in the event loop, so keep it short. An exception is ignored; its class is logged."""
