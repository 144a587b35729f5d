"""Problems of a session of the Cloud API."""

from __future__ import annotations

import copy

from postdicom_async.errors import ConnectionFailed
from postdicom_async.http.problems import Problem, connection_failed
from postdicom_async.http.retry import Failure

__all__ = ["own_problem", "session_replaced"]


def session_replaced() -> Problem:
    """Return the problem of a message that belongs to a session of the account that is no more."""
    lost = connection_failed("upload", "the session was lost, and is opened anew", sent=False)
    return Problem(Failure.NOT_SENT, lost)


def own_problem(problem: Problem) -> Problem:
    """Return an exception of one's own for what became of an opening that several waited for."""
    error = copy.copy(problem.error)
    if isinstance(error, ConnectionFailed):
        error.may_have_arrived = False  # a message of the opening may have; what waited for it has not
    return Problem(Failure.NOT_SENT if problem.failure is Failure.LOST else problem.failure, error)
