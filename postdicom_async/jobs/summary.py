"""The summary of a job, for reports, pages and the terminal, with a check that it adds up. Pure.

It is read from a ledger, and nothing in it is private.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from postdicom_async.face import public_face
from postdicom_async.frames import ColumnKind, ColumnValues, frame_of
from postdicom_async.jobs.states import SETTLED, Reason, State
from postdicom_async.markup import element, joined, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pandas import DataFrame

_SHOWN_NOTES = 10


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a job is.

    Attributes:
        job: its name: that of its ledger file.
        verb: ``"copy"``, ``"sync"`` or ``"verify"``.
        source, target: the ends' names as they may be shown.
        created: when.
        verify: ``"none"``, ``"listed"`` or ``"bytes"``.
        phase: ``"discovering"``, ``"moving"``, ``"verifying"``, ``"deleting"``, ``"complete"``.
        run: how often it has been started anew, from 1 on.
        sample: the share of instances that level ``bytes`` compares, 0 to 1; of the others the target's list is the
            proof.
    """

    job: str
    verb: str
    source: str
    target: str
    created: datetime
    verify: str
    phase: str
    run: int = 1
    sample: float = 1.0


class Count(NamedTuple):
    """Instances and their bytes."""

    instances: int = 0
    bytes: int = 0


class MinuteLine(NamedTuple):
    """A minute of a job: what was moved in it. ``at`` is seconds since the epoch, the minute's beginning."""

    at: float
    instances: int
    bytes: int


class MonthLine(NamedTuple):
    """Studies of one month; ``month`` is YYYYMM, 0 for undated ones."""

    month: int
    studies: int
    discovered: int
    settled: int
    failed: int


class ReasonLine(NamedTuple):
    """Items of one state and reason, with some of their SOP Instance UIDs."""

    state: State
    reason: int
    instances: int
    examples: tuple[str, ...] = ()


class StudyLine(NamedTuple):
    """A study: counts by state; ``basis`` is ``"found"``, ``"equal by count"`` or ``"listed"``."""

    uid: str
    month: int
    basis: str
    counts: Mapping[State, Count]


class SeriesLine(NamedTuple):
    """A series of a study."""

    uid: str
    counts: Mapping[State, Count]


class ItemLine(NamedTuple):
    """An item as reports write it. ``uid`` is empty, and ``item`` a digest, for what is no instance."""

    study: str
    series: str
    uid: str
    state: State
    reason: int
    attempts: int
    size: int
    item: str = ""


@public_face
@dataclass(frozen=True, slots=True)
class Summary:
    """A job as it stands.

    Attributes:
        facts: what it is.
        counts: instances and bytes by state; states that do not occur are absent.
        studies: how many were found.
        equal_by_count: studies that were equal by count, so that their instances were not listed.
        discovery_complete: every study of the source has been found, so that totals are final.
        verified: items that were found at the target after the run (at level ``bytes``: compared, or found in its list
            where the sample leaves them out).
        mismatches: items that verification found absent or different.
        coerced: elements that the target changed, by tag (``"00100020"``), and in how many instances.
        reasons: the reasons by state, most frequent first.
        months: progress by study date.
        moments: what was moved when, by minutes.
        seconds: how long the job has run in all, waiting for windows and outages not counted.
        notes: remarks for people, one line each: an outage, a pause, a guard that stopped deletions.
        expected: instances that the source says it has in studies that are not planned yet.
    """

    facts: JobFacts
    counts: Mapping[State, Count]
    studies: int = 0
    equal_by_count: int = 0
    discovery_complete: bool = False
    verified: int = 0
    mismatches: int = 0
    coerced: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[ReasonLine, ...] = ()
    months: tuple[MonthLine, ...] = ()
    moments: tuple[MinuteLine, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    expected: int = 0

    @property
    def discovered(self) -> int:
        """Everything that was found, instances or not: the sum over the states."""
        return sum(count.instances for count in self.counts.values())

    def of(self, state: State) -> Count:
        """Return instances and bytes in a state."""
        return self.counts.get(state, Count())

    def to_pandas(self) -> DataFrame:
        """Return a data frame with a row for each state (extra ``pandas``): ``state``, ``instances``, ``bytes``.

        Raises:
            UsageError: pandas is not installed.
        """
        counts = self.counts.values()
        return frame_of(
            {
                "state": ColumnValues(ColumnKind.TEXT, [state.name.lower() for state in self.counts]),
                "instances": ColumnValues(ColumnKind.INTEGER, [count.instances for count in counts]),
                "bytes": ColumnValues(ColumnKind.INTEGER, [count.bytes for count in counts]),
            }
        )

    def _repr_html_(self) -> str:
        facts = self.facts
        title = f"{facts.verb} {facts.job}: {facts.source} to {facts.target}, {facts.phase}, run {facts.run}"
        rows = [
            [name_of(state, facts.verb), f"{count.instances:,}", f"{count.bytes:,}"]
            for state, count in self.counts.items()
        ]
        notes = [element("p", note) for note in (*contradictions(self), *self.notes)[:_SHOWN_NOTES]]
        return joined(
            element("p", f"{title}. {self.studies:,} studies."), table(["state", "instances", "bytes"], rows), *notes
        )


# --- sums ------------------------------------------------------------------------------------------------------------


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
"""The names of the states for people."""


def name_of(state: State, verb: str) -> str:
    """Return a state's name for people; in a verify job, present items are "as it should be"."""
    return "as it should be" if verb == "verify" and state is State.PRESENT else STATE_NAMES[state]


def total(summary: Summary, states: Iterable[State] = tuple(State)) -> Count:
    """Return instances and bytes of some states together."""
    counts = [summary.of(state) for state in states]
    return Count(sum(count.instances for count in counts), sum(count.bytes for count in counts))


def settled(summary: Summary) -> int:
    """Return the number of instances that are neither pending nor running."""
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
    """Return contradictions, a line each, between sums that are kept independently and must be equal."""
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
