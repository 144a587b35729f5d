"""Whether a summary adds up, and the sums that every picture of it shows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.jobs.states import SETTLED, Reason, State
from postdicom_async.jobs.summary import Count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async.jobs.summary import ReasonLine, Summary

__all__ = ["STATE_NAMES", "at_target", "contradictions", "equal_instances", "name_of", "reasons_of", "settled", "total"]

STATE_NAMES = {
    State.PENDING: "to be done",
    State.RUNNING: "under way",
    State.DONE: "moved",
    State.PRESENT: "there before",
    State.EXCLUDED: "excluded",
    State.FAILED: "failed",
    State.UNCONFIRMED: "unconfirmed",
    State.DELETED: "deleted at the target",
}
"""States as people read them."""


def name_of(state: State, verb: str) -> str:
    """Return a state as people read it: to who only compares, what is there is what is right."""
    return "as it should be" if verb == "verify" and state is State.PRESENT else STATE_NAMES[state]


def total(summary: Summary, states: Iterable[State] = tuple(State)) -> Count:
    """Return instances and bytes of some states together."""
    counts = [summary.of(state) for state in states]
    return Count(sum(count.instances for count in counts), sum(count.bytes for count in counts))


def settled(summary: Summary) -> int:
    """Return how many instances are neither to be done nor under way."""
    return total(summary, SETTLED).instances


def at_target(summary: Summary) -> int:
    """Return how many instances the target has, as far as this job knows."""
    return total(summary, (State.DONE, State.PRESENT)).instances


def reasons_of(summary: Summary, state: State) -> tuple[ReasonLine, ...]:
    """Return why items are in a state."""
    return tuple(line for line in summary.reasons if line.state is state)


def equal_instances(summary: Summary) -> int:
    """Return how many instances count as present because their studies were equal by count and not listed."""
    return sum(line.instances for line in reasons_of(summary, State.PRESENT) if line.reason == Reason.EQUAL_BY_COUNT)


def contradictions(summary: Summary) -> list[str]:
    """Return what does not add up, a line each: sums that were kept apart from one another and must be equal."""
    found = []
    no_instances = total(summary, (State.EXCLUDED, State.FAILED)).instances  # they may have no study
    for whole, by_month, words in (
        (summary.discovered, sum(line.discovered for line in summary.months), "were discovered"),
        (settled(summary), sum(line.settled for line in summary.months), "are settled"),
    ):
        if summary.months and not whole - no_instances <= by_month <= whole:
            found.append(f"{whole:,} {words}, and {by_month:,} by study date")
    for state in (State.FAILED, State.UNCONFIRMED, State.EXCLUDED):
        explained = sum(line.instances for line in reasons_of(summary, state))
        if explained > summary.of(state).instances:
            found.append(
                f"{summary.of(state).instances:,} are {STATE_NAMES[state]}, and reasons are known of {explained:,}"
            )
    return found
