"""What the engine meets on its way, told to ``Settings.on_event`` as it happens. Pure.

Events hold what may be logged as it is: names of operations, counts, seconds, statuses. Nothing private: no address, no
UID, no word of a server, no credential.
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
        attempt: which one of its call, from 1 on.
        failure: ``"NOT_SENT"``, ``"REFUSED"``, ``"UNAVAILABLE"`` or ``"LOST"``: what became of it, as far as is known.
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
    """A request waited in vain: the archive did not answer, stopped taking or sending data, or crawled.

    Attributes:
        operation: what it was for.
        silences: how often that has happened in this call; requests side by side count once.
    """

    operation: str
    silences: int


@public_face
@dataclass(frozen=True, slots=True)
class GaveUp:
    """A call ends with an error: no repeat would help, or there were enough.

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
"""Called with each event, in the event loop: it should be quick. What it raises is logged by its class, and ignored."""
