"""The exceptions a caller can catch, grouped by who must act.

::

    PostdicomError
    ├── UsageError             the caller: an argument, a path or a setting is wrong
    ├── ConnectionFailed       the network or the address: nothing, or only part of an answer, arrived
    │   └── OutcomeUnknown         something may have been created or deleted; a search tells
    ├── AuthenticationFailed   the account: credentials or permissions (401, 403)
    ├── NotFound               the identifiers: the archive does not hold it (404, 410)
    ├── RateLimited            time: the archive asks to wait (429, or 503 with Retry-After)
    ├── ServerError            the archive: it refused or failed (other 4xx, 5xx)
    ├── ProtocolError          the archive's software: its answer is not what PS3.18 says
    ├── LocalFileError         this machine: a folder or file cannot be read or written
    ├── TransferError          some instances did not make it; ``report`` says which
    │   └── IncompleteDownload     what arrived whole was kept (in ``results.py``, with its report)
    ├── LedgerUnusable         the ledger of a job: damaged, of a newer version, or of another job
    │   └── LedgerLocked           another process runs that job
    ├── LimitReached           a guard of a job: more would be deleted than is allowed
    └── JobStopped             somebody told a running job to stop; it can be resumed

An exception holds an operation's name, a status, the server's reason (masked, see ``http/redaction.py``), how
many attempts were made and whether a repeat can help. It never holds a URL, a header, a body, a credential or
an object of the HTTP library, nor a frame of this package when it leaves a public call (see ``face.py``), so it can
be logged as it is, by a crash reporter too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = [
    "AuthenticationFailed",
    "ConnectionFailed",
    "JobStopped",
    "LedgerLocked",
    "LedgerUnusable",
    "LimitReached",
    "LocalFileError",
    "NotFound",
    "OutcomeUnknown",
    "PostdicomError",
    "ProtocolError",
    "RateLimited",
    "ServerError",
    "TransferError",
    "UsageError",
]


class TransferReport(Protocol):
    """The common part of all transfer reports; those of ``postdicom_async.results`` have more."""

    @property
    def counts(self) -> Mapping[Any, int]:
        """The number of instances by `Status`."""
        ...

    @property
    def seconds(self) -> float:
        """Wall time."""
        ...

    @property
    def ok(self) -> bool:
        """Whether nothing needs attention."""
        ...


class PostdicomError(Exception):
    """Base of everything this library raises on purpose.

    Attributes:
        message: what went wrong and what to do, one line.
        operation: the transaction, for example ``"store instances"``; None where there was none.
        status: the HTTP status, None when no answer arrived.
        reason: the server's own words, shortened and with a mark for every word that may be private; None when it gave
            none.
        attempts: how many requests were made.
        temporary: whether the same call may succeed later.
        retry_after: seconds the server asked to wait, None when it did not say.
        report: what a bulk transfer had done before this error ended it; None for other calls.
        end: which end of a job it is about, such as ``"source old"``; None outside jobs.
        origin: where in this package it was raised, ``module:function:line`` from the outside in, without any value.
            The traceback does not show this: frames hold arguments, so they are removed (see ``face.py``).
    """

    temporary_by_default = False
    origin: tuple[str, ...] = ()
    report: TransferReport | None = None
    end: str | None = None

    def __init__(
        self,
        message: str,
        *,
        operation: str | None = None,
        status: int | None = None,
        reason: str | None = None,
        attempts: int = 0,
        temporary: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.status = status
        self.reason = reason
        self.attempts = attempts
        self.temporary: bool = self.temporary_by_default if temporary is None else temporary
        self.retry_after = retry_after

    @property
    def server_words(self) -> str | None:
        """All that the server said; None when it said nothing. **Private data**: it may name a patient.

        Nothing shows it unasked: it is in no text, ``repr``, attribute or pickle of this error.
        """
        return getattr(self.reason, "whole", None)

    def __str__(self) -> str:
        """Return one line: the end of a job, operation, message, status, the server's reason, attempts."""
        head = ": ".join(part for part in (self.end, self.operation, self.message) if part)
        details = [
            f"status {self.status}" if self.status else "",
            f"server says: {self.reason}" if self.reason else "",
            f"{self.attempts} attempts" if self.attempts > 1 else "",
        ]
        shown = "; ".join(detail for detail in details if detail)
        return f"{head} ({shown})" if shown else head


class UsageError(PostdicomError, ValueError):
    """An argument is wrong; nothing was sent. The message begins with the argument's name, if it is about one.

    Attributes:
        argument: its name as the caller writes it, such as ``"limit"`` or ``"tls.key"``; None if no argument is to
            blame.
        problem: what is wrong with it: the message without its name.
    """

    def __init__(self, problem: str, *, argument: str | None = None, operation: str | None = None) -> None:
        # The message is built only here, so that it cannot disagree with ``argument``.
        super().__init__(f"{argument}: {problem}" if argument else problem, operation=operation)
        self.argument = argument
        self.problem = problem


class ConnectionFailed(PostdicomError):
    """The archive could not be reached, did not answer in time, or the connection broke.

    ``may_have_arrived`` is True when the request had left before it broke, so that its effect is unknown.
    ``host_unknown`` is True when the host's name could not be resolved: it may be mistyped.
    """

    temporary_by_default = True
    may_have_arrived = False
    host_unknown = False


class OutcomeUnknown(ConnectionFailed):
    """A request that changes data was sent and got no answer: it may have been done. Search before repeating it."""

    temporary_by_default = False


class AuthenticationFailed(PostdicomError):
    """The archive refused the credentials (401) or this account may not do it (403)."""


class NotFound(PostdicomError):
    """The archive does not hold what was asked for (404, 410)."""


class RateLimited(PostdicomError):
    """The archive asks to wait longer than the retry settings allow; see ``retry_after``."""

    temporary_by_default = True


class ServerError(PostdicomError):
    """The archive refused the request or failed on it."""


class ProtocolError(PostdicomError):
    """The answer is not what the protocol says, is larger than the limits allow, or ends early."""


class LocalFileError(PostdicomError):
    """A local file or folder could not be read or written (missing, not permitted, disk full).

    ``disk_full`` is True if the disk, or a quota, is full: nothing helps but making room.
    """

    disk_full = False


class TransferError(PostdicomError):
    """Some instances were not transferred. ``report`` lists the outcome of each one."""

    report: TransferReport

    def __init__(self, message: str, *, report: TransferReport, temporary: bool = False) -> None:
        super().__init__(message, temporary=temporary)
        self.report = report


class LedgerUnusable(PostdicomError):
    """The ledger of a job cannot be used: it is damaged, of a newer version, of another job, or no ledger."""


class LedgerLocked(LedgerUnusable):
    """Another process runs this job."""

    temporary_by_default = True


class JobStopped(PostdicomError):
    """A running job was told to stop: by ``Job.stop``, ``postdicom jobs stop`` or its page. It can be resumed."""

    temporary_by_default = True


class LimitReached(PostdicomError):
    """A guard stopped a job that would delete more than allowed. Nothing beyond the limit was deleted."""
