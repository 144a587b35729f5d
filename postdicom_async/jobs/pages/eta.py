"""Pure: a job's progress, its speed, and the time left at that speed.

The speed is that of the last minutes in which the job worked: work done before it was resumed and time spent waiting (a
window, an outage, a pause) do not count. While the source is still being listed there is no total, and so neither a
percentage nor a time left.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Count, settled, total

if TYPE_CHECKING:
    from postdicom_async.jobs.summary import Summary


_WINDOW = 300.0  # seconds of work
_SHORTEST = 5.0
_MOMENTS = 10
_LEFT = (State.PENDING, State.RUNNING)


class Forecast(NamedTuple):
    """The progress and speed of a job.

    Attributes:
        fraction: the part that is done, 0 to 1; None while the total is unknown.
        seconds: of work left at this speed; None while unknown.
        instances, bytes: moved per minute.
    """

    fraction: float | None = None
    seconds: float | None = None
    instances: float = 0.0
    bytes: float = 0.0

    def at_rest(self) -> Forecast:
        """Return what is left of a forecast while the job does not work: it is as far as it was."""
        return Forecast(self.fraction)


class _Sample(NamedTuple):
    seconds: float
    worked: int
    bytes: int


class Eta:
    """Follows a job: call `note` with a summary every few seconds."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()
        self._phase = ("", 0)

    def note(self, summary: Summary, now: float) -> Forecast:
        """Take a summary of the time ``now`` (seconds since the epoch) and return the forecast."""
        sample = _Sample(summary.seconds, _worked(summary), summary.of(State.DONE).bytes)
        phase = (summary.facts.phase, summary.facts.run)
        last = self._samples[-1] if self._samples else sample
        if phase != self._phase or sample.worked < last.worked or sample.seconds < last.seconds:
            # Another phase, or failed items became pending again: the counts went back, yet no work was undone.
            self._samples.clear()
        self._phase = phase
        self._samples.append(sample)
        while len(self._samples) > 2 and sample.seconds - self._samples[1].seconds >= _WINDOW:
            self._samples.popleft()
        return self._pace(summary, now)

    def _pace(self, summary: Summary, now: float) -> Forecast:
        if summary.facts.phase == "complete":
            return Forecast(1.0, 0.0)
        first, last = self._samples[0], self._samples[-1]
        span = last.seconds - first.seconds
        if span >= _SHORTEST:
            rate = (last.worked - first.worked) / span, max(0, last.bytes - first.bytes) / span
        else:
            rate = _rate_of_moments(summary, now)
        fraction = _fraction(summary)
        seconds = None if fraction is None else _seconds(_left(summary), *rate)
        return Forecast(fraction, seconds, rate[0] * 60, rate[1] * 60)


def _worked(summary: Summary) -> int:
    """Return the work done item by item; items present before cost nothing, unless they were compared."""
    states = [State.DONE, State.FAILED, State.UNCONFIRMED, State.DELETED]
    if summary.facts.verb == "verify":
        states.append(State.PRESENT)
    return total(summary, states).instances + _looked_up(summary)


def _looked_up(summary: Summary) -> int:
    return summary.verified + summary.mismatches if summary.facts.phase == "verifying" else 0


def _left(summary: Summary) -> Count:
    left = total(summary, _LEFT)
    left = Count(left.instances + summary.expected, left.bytes)
    if summary.facts.phase != "verifying" or summary.facts.verb == "verify":
        return left
    return Count(left.instances + max(0, summary.of(State.DONE).instances - _looked_up(summary)), left.bytes)


def _fraction(summary: Summary) -> float | None:
    if not summary.discovery_complete or not summary.discovered:
        return None
    left = _left(summary).instances
    is_looking = summary.facts.phase == "verifying" and summary.facts.verb != "verify"
    done = _looked_up(summary) if is_looking else settled(summary)
    return done / (done + left) if done + left else None


def _rate_of_moments(summary: Summary, now: float) -> tuple[float, float]:
    """Return instances and bytes per second from the ledger's minutes, for the first look at a job."""
    if summary.facts.phase == "verifying" or not summary.moments:
        return 0.0, 0.0
    recent = sorted(summary.moments)[-_MOMENTS:]
    begun = min(60.0, max(1.0, now - recent[-1].at))  # the last minute may not be over
    seconds = 60.0 * (len(recent) - 1) + begun
    if summary.seconds > 0:
        seconds = max(1.0, min(seconds, summary.seconds))  # nor had the first just begun
    return sum(one.instances for one in recent) / seconds, sum(one.bytes for one in recent) / seconds


def _seconds(left: Count, instances: float, volume: float) -> float | None:
    """Return the time for what is left: the longer by its number and by its bytes, since sizes may not all be known."""
    if not left.instances:
        return 0.0
    if instances <= 0:
        return None
    by_bytes = left.bytes / volume if volume > 0 else 0.0
    return max(left.instances / instances, by_bytes)
