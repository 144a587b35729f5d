"""Exit codes: what each means, and which exception ends in which."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from postdicom_async import (
    AuthenticationFailed,
    LedgerUnusable,
    LimitReached,
    LocalFileError,
    NotFound,
    PostdicomError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postdicom_async import Outcome


class Exit(IntEnum):
    """The exit codes of the command."""

    OK = 0
    """All done."""
    ITEMS_FAILED = 1
    """Some items failed, or the archive's answer is unusable."""
    USAGE = 2
    """An option, an address or a local path is wrong; nothing was sent."""
    NOT_FOUND = 3
    """The archive, or this machine, does not hold what was asked for."""
    AUTHENTICATION = 4
    """The archive refuses the credentials, or what they may do."""
    TEMPORARY = 5
    """The same command may succeed later: the network, an archive that is busy or out of order."""
    VERIFICATION = 6
    """Verification found missing or different instances at the target."""
    LEDGER = 7
    """Another process runs this job, or its ledger cannot be used."""
    LIMIT = 8
    """A limit is reached: a disk is full, more would be deleted than allowed, or the time is over."""
    NOTHING = 9
    """There was nothing to do, and --error-if-nothing was given."""
    INTERRUPTED = 130
    """Interrupted by Ctrl-C."""


MEANINGS: Mapping[int, str] = {
    Exit.OK: "All done.",
    Exit.ITEMS_FAILED: "Some items failed, or the archive's answer cannot be worked with; also outcome unknown: search "
    "before doing it again.",
    Exit.USAGE: "Usage: an option, a path or a setting is wrong.",
    Exit.NOT_FOUND: "Not found.",
    Exit.AUTHENTICATION: "Authentication.",
    Exit.TEMPORARY: "Temporary: a repeat may help.",
    Exit.VERIFICATION: "What was verified is not at the target as it should be.",
    Exit.LEDGER: "Another process runs this job, or its ledger cannot be used.",
    Exit.LIMIT: "A limit is reached: no space is left, more would be deleted than is allowed, the time is over.",
    Exit.NOTHING: "There was nothing to do; only with --error-if-nothing, else it is 0.",
    Exit.INTERRUPTED: "Interrupted; 143 if by SIGTERM.",
}
"""What each code says, for people."""

_BY_TYPE: tuple[tuple[type[PostdicomError], Exit], ...] = (
    (UsageError, Exit.USAGE),
    (NotFound, Exit.NOT_FOUND),
    (AuthenticationFailed, Exit.AUTHENTICATION),
    (LedgerUnusable, Exit.LEDGER),
    (LimitReached, Exit.LIMIT),
)


class Interrupted(Exception):
    """The user, or the system, asked the command to stop, and it has stopped.

    Attributes:
        code: the exit code, 128 and the number of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted")
        self.code: int = 128 + signal_number


def code_of(error: PostdicomError) -> Exit:
    """Return the exit code for a library exception: by who has to act, or by whether a retry can help."""
    for kind, code in _BY_TYPE:
        if isinstance(error, kind):
            return code
    if isinstance(error, LocalFileError) and error.disk_full:
        return Exit.LIMIT
    return Exit.TEMPORARY if error.temporary else Exit.ITEMS_FAILED


def code_of_failures(failures: Sequence[Outcome]) -> Exit:
    """Return the exit code of an upload by the outcomes that need attention: the same as for one download."""
    if not failures:
        return Exit.OK
    return Exit.TEMPORARY if all(outcome.temporary for outcome in failures) else Exit.ITEMS_FAILED


def code_of_all(codes: list[Exit]) -> Exit:
    """Return the exit code for several items: the one they agree on, else that some failed."""
    return codes[0] if len(set(codes)) == 1 else Exit.ITEMS_FAILED
