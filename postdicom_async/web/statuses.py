"""Which HTTP status an error becomes in the answer of a web backend, by who has to act. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    JobStopped,
    LedgerLocked,
    LedgerUnusable,
    LimitReached,
    LocalFileError,
    NotFound,
    OutcomeUnknown,
    PostdicomError,
    ProtocolError,
    RateLimited,
    ServerError,
    TransferError,
    UsageError,
)

STATUSES: Mapping[type[PostdicomError], int] = MappingProxyType(
    {
        UsageError: 422,
        NotFound: 404,
        RateLimited: 503,
        OutcomeUnknown: 504,  # it may have been done: the client must check before it asks again
        ConnectionFailed: 502,
        AuthenticationFailed: 502,  # the backend's own account; 401 where each user has credentials of their own
        ServerError: 502,
        ProtocolError: 502,
        TransferError: 502,
        LocalFileError: 500,
        LedgerLocked: 409,
        LedgerUnusable: 500,
        LimitReached: 409,
        JobStopped: 409,
        PostdicomError: 502,
    }
)
"""The status of each error; an error that is not listed has that of its nearest base."""

_FIXED: Mapping[type[PostdicomError], str] = MappingProxyType(
    {
        LocalFileError: "a file of the backend cannot be used",
        LedgerLocked: "another process runs this job",
        LedgerUnusable: "the ledger of the job cannot be used",
    }
)
"""What is said of errors whose own text may hold a path of the backend, which may name a patient."""

_ABOUT_FILES = frozenset({"job", "layout", "patients", "report", "scheduler", "sources", "tls", "to"})
"""Arguments that are paths, or that become some."""

_NOTHING: Mapping[type[PostdicomError], int] = {}


class ErrorAnswer(NamedTuple):
    """What a backend answers: a status, a JSON body and headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def status_of(error: PostdicomError, *, statuses: Mapping[type[PostdicomError], int] = _NOTHING) -> int:
    """Return the status of an error; ``statuses`` are asked before `STATUSES`, kind by kind."""
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, PostdicomError)]
    return next(found for kind in kinds if (found := statuses.get(kind, STATUSES.get(kind))) is not None)


def answer_to(error: PostdicomError, *, statuses: Mapping[type[PostdicomError], int] = _NOTHING) -> ErrorAnswer:
    """Return the status, body and headers that tell a client of the backend about an error.

    The body is ``{"detail": text, "temporary": bool}``. The text is safe to show: see `text_for_clients`.
    ``Retry-After`` is passed on where the archive gave one.
    """
    headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
    body = {"detail": text_for_clients(error), "temporary": error.temporary}
    return ErrorAnswer(status_of(error, statuses=statuses), body, headers)


def text_for_clients(error: PostdicomError) -> str:
    """Return what a client of the backend may read of an error: no name, address, password or path of the backend.

    An error is described by its own text, unless that may hold a path: then by fixed words. `UsageError` has its own
    text if it is about an argument that is no path; one about no argument may be about a file of settings.
    """
    fixed = next((words for kind, words in _FIXED.items() if isinstance(error, kind)), None)
    if fixed is None and isinstance(error, UsageError):
        argument = error.argument or ""
        if not argument:
            fixed = "the backend cannot do this with the arguments it was given"
        elif argument.partition(".")[0] in _ABOUT_FILES:
            fixed = f"{argument}: cannot be used"
    return str(error) if fixed is None else fixed
