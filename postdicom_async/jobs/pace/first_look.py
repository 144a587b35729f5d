"""The first look at both ends of a new job, before its ledger is made and before anything is listed.

Listing a large source takes hours, and the target is first asked after it: what a person has to correct there should
not wait that long. Each end is probed once, both at the same time; nothing is changed at either. What may pass by
itself, such as an archive that is busy or restarts, is left to the job, which waits it out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    LocalFileError,
    NotFound,
    PostdicomError,
    ProtocolError,
    UsageError,
)

if TYPE_CHECKING:
    from postdicom_async.jobs.ends.end import End


ENDS: Final = ("source", "target")

MOST_QUESTIONS: Final = 3
"""How often an end is asked where its answer makes no sense: one error page of a proxy is no reason to end a job."""

_FOR_A_PERSON = (AuthenticationFailed, ConnectionFailed, LocalFileError, NotFound, ProtocolError, UsageError)


def is_for_a_person(problem: PostdicomError) -> bool:
    """Whether a new job should end with a probe's problem: an address, an account or a folder has to be corrected.

    A connection that could not be made counts, since the address may be mistyped. An archive that refuses just this
    search (other 4xx) does not: the job may never make one like it.
    """
    if isinstance(problem, ConnectionFailed) and not problem.may_have_arrived:
        return True
    return isinstance(problem, _FOR_A_PERSON) and not problem.temporary


async def look_at_ends(source: End, target: End, *, writes: bool) -> list[str]:
    """Probe both ends at once; return those that work, ``"source"`` or ``"target"``.

    Args:
        source: an open end.
        target: an open end.
        writes: the job writes to a target that is a folder: see whether it can.

    Raises:
        PostdicomError: an end's problem `is_for_a_person`; it says which end.
    """
    problems = await asyncio.gather(problem_of(source), problem_of(target, writes=writes))
    reached = []
    for name, end, problem in zip(ENDS, (source, target), problems, strict=True):
        if problem is None:
            reached.append(name)
        elif is_for_a_person(problem):
            is_of_the_folder = isinstance(problem, LocalFileError)  # and says so
            problem.end = name if is_of_the_folder else f"{name} {end.name}"
            raise problem
    return reached


async def problem_of(end: End, *, writes: bool = False) -> PostdicomError | None:
    """Return the problem that a probe of an end meets; ``writes`` as for `look_at_ends`."""
    found: PostdicomError | None = None
    for _ in range(MOST_QUESTIONS):
        found = None
        try:
            await end.probe()
            if writes and (require_writable := getattr(end, "require_writable", None)) is not None:
                await require_writable()
        except PostdicomError as error:
            found = error
        if not isinstance(found, ProtocolError):
            break
    return found
