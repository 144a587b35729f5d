"""Pure: a job as Prometheus reads it, in its text form (version 0.0.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.jobs.pages.sums import contradictions
from postdicom_async.jobs.states import State, reason_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postdicom_async.jobs.pages.eta import Pace
    from postdicom_async.jobs.summary import Summary

__all__ = ["CONTENT_TYPE", "metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[dict[str, str], float]


def metrics(summary: Summary, pace: Pace, *, version: str) -> str:
    """Return every number of a job. What is not known is not among them."""
    return "".join(_lines(summary, pace, version))


def _lines(summary: Summary, pace: Pace, version: str) -> Iterator[str]:
    facts = summary.facts
    who = {"job": facts.job, "verb": facts.verb, "source": facts.source, "target": facts.target}
    yield from _metric("info", "What the job is.", [({**who, "phase": facts.phase, "version": version}, 1)])
    states = [(state, summary.of(state)) for state in State]
    yield from _metric(
        "items", "Items by state; their sum was discovered.", [(_state(s), c.instances) for s, c in states]
    )
    yield from _metric("bytes", "Bytes by state.", [(_state(state), count.bytes) for state, count in states])
    reasons = [
        ({**_state(line.state), "reason_code": str(line.reason), "reason": reason_text(line.reason)}, line.instances)
        for line in summary.reasons
    ]
    yield from _metric("reasons", "Items by state and reason.", reasons)
    plain = (
        ("studies", "Studies of the source.", summary.studies),
        ("studies_equal_by_count", "Studies that were equal by count and not listed.", summary.equal_by_count),
        ("expected_items", "Instances in studies that are not planned yet.", summary.expected),
        ("discovery_complete", "Whether every study has been found.", summary.discovery_complete),
        ("adds_up", "Whether sums that were kept apart are equal.", not contradictions(summary)),
        ("verified_items", "Items that were found at the target.", summary.verified),
        ("mismatched_items", "Items that were found absent or different.", summary.mismatches),
        ("working_seconds", "How long the job has worked.", summary.seconds),
        ("items_per_minute", "Recent pace.", pace.instances),
        ("bytes_per_minute", "Recent pace.", pace.bytes),
        ("done_ratio", "The part that is done.", pace.fraction),
        ("left_seconds", "Time that is left at the recent pace.", pace.seconds),
    )
    for name, words, value in plain:
        yield from _metric(name, words, [] if value is None else [({}, value)])


def _state(state: State) -> dict[str, str]:
    return {"state": state.name.lower()}


def _metric(name: str, words: str, samples: Iterable[_Sample]) -> Iterator[str]:
    name = f"postdicom_job_{name}"
    yield f"# HELP {name} {words}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        written = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        number = f"{value:d}" if isinstance(value, int) else f"{value:.6f}"
        yield f"{name}{{{written}}} {number}\n" if written else f"{name} {number}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
