"""Pure: numbers, sizes, times and names as the pages of a job write them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from postdicom_async.dicom.tags import keyword_of
from postdicom_async.jobs.pages.sums import total
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    from postdicom_async.jobs.summary import Facts, Summary

__all__ = [
    "LEVELS",
    "MEANINGS",
    "count",
    "counted",
    "duration",
    "minute",
    "month_name",
    "phase_words",
    "share",
    "size",
    "status_words",
    "tag_words",
    "verb_words",
]

NBSP = "\N{NO-BREAK SPACE}"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_VERBS = {"copy": "Copy", "sync": "Sync", "verify": "Verify"}
_PHASES = {
    "discovering": "Finding what there is",
    "moving": "Moving",
    "verifying": "Verifying",
    "deleting": "Deleting",
    "complete": "Complete",
}

LEVELS = {
    "none": "Nothing was looked up after the run; what the target said as it took each instance is all that is known.",
    "listed": "After the run the target was asked for its list, and every instance was looked for in it by its UIDs.",
    "bytes": "After the run every instance was retrieved again and compared with what was sent.",
}
"""What each level of verification does."""

MEANINGS = {
    State.FAILED: "These are not at the target, or not as they should be. What may pass is tried again by "
    "“jobs retry --failed”, and nothing else is sent then.",
    State.UNCONFIRMED: "These were sent, and nothing proves that the target holds them: the connection ended before "
    "its answer, or the answer did not name them. They may well be there. They count neither as moved nor as "
    "failed; verification at level “listed” or “bytes” settles them.",
    State.EXCLUDED: "These were not for this job, so nothing is wrong with them: files that are no DICOM instances, "
    "and what lies outside the filter.",
}
"""What it means for items to be in a state."""


def count(number: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{round(number):,}"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number and what it counts."""
    return f"{count(number)}{NBSP}{one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """Return bytes in powers of 1000, with three digits."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    at = 0
    while number >= 999.5 and at < len(units) - 1:
        number, at = number / 1000, at + 1
    digits = 0 if at == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{NBSP}{units[at]}"


def share(part: int, whole: int) -> str:
    """Return a part in per cent, never more than there is: 100 % is all, 0 % is nothing."""
    if not whole or not part:
        return f"0{NBSP}%"
    if part >= whole:
        return f"100{NBSP}%"
    tenths = part * 1000 // whole
    return f"{tenths / 10:.1f}{NBSP}%" if tenths else f"<{NBSP}0.1{NBSP}%"


_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    left = max(0, round(seconds))
    for (large, large_name), (small, small_name) in pairwise(_SPANS):
        if left >= large:
            rest = left % large // small
            return f"{left // large}{NBSP}{large_name}" + (f" {rest}{NBSP}{small_name}" if rest else "")
    return f"{left}{NBSP}s"


def minute(moment: datetime) -> str:
    """Return a moment in UTC, to the minute."""
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    return f"{moment.day}{NBSP}{_MONTHS[moment.month - 1]}{NBSP}{moment.year:04}, {moment:%H:%M}{NBSP}UTC"


def month_name(month: int) -> str:
    """Return YYYYMM as people read it."""
    year, number = divmod(month, 100)
    return f"{_MONTHS[number - 1]}{NBSP}{year:04}" if 1 <= number <= 12 else "undated"


def verb_words(facts: Facts) -> str:
    """Return what kind of job it is."""
    return _VERBS.get(facts.verb, facts.verb)


def phase_words(facts: Facts) -> str:
    """Return what a job does now."""
    return _PHASES.get(facts.phase, facts.phase)


def status_words(summary: Summary) -> tuple[str, str]:
    """Return how a job stands, and ``"good"``, ``"bad"``, ``"doubtful"`` or ``""`` for one that goes on."""
    if summary.facts.phase != "complete":
        return phase_words(summary.facts), ""
    if summary.mismatches:
        return "Complete, and does not match", "bad"
    if summary.of(State.FAILED).instances:
        return "Complete, with failures", "bad"
    if total(summary, (State.UNCONFIRMED, State.PENDING, State.RUNNING)).instances:
        return "Complete, with open questions", "doubtful"
    return "Complete", "good"


def tag_words(tag: str) -> tuple[str, str]:
    """Return a tag of eight hexadecimal digits as DICOM writes it, and its keyword."""
    try:
        number = int(tag, 16)
    except ValueError:
        return tag, ""
    if len(tag) != 8:
        return tag, ""
    is_private = number >> 16 & 1
    return f"({tag[:4].upper()},{tag[4:].upper()})", "private" if is_private else keyword_of(number) or "unknown"
