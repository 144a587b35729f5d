"""The outage policy of an end: what counts as an outage, what ends it, and when to give up. Pure.

Each end has one `OutagePolicy`. Results of work are reported to it, and it is consulted before work is handed out:

* CLEAR: work is handed out. A number of failures in a row makes the end doubtful; failures among successes are not an
outage.
* DOUBTFUL and OUT: only probes are sent, one per step; the steps grow while probes fail.
* TRIAL: a probe succeeded, so one piece of work is handed out. Its success ends the outage; its failure leads to the
next step, so that an end which answers probes but refuses work is not flooded at every step.

A permanent error ends the job if a probe meets it, or if two pieces of work in a row do with a probe between them: an
account may be denied one study and not others. An error of this machine's disk ends the job at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


_WORDS: Final = {
    "AuthenticationFailed": "the credentials are refused, or this account may not do it",
    "LocalFileError": "a folder or disk of this machine cannot be used, or is full",
    "RateLimited": "the archive asks to wait",
}
_PASSING_WORDS: Final = {"AuthenticationFailed": "there are no credentials for it at the moment"}  # such as a token
_AT_ONCE: Final = frozenset({"LocalFileError"})
_DOUBTFUL_AT_ONCE: Final = frozenset({"AuthenticationFailed"})
_PASSES: Final = frozenset({"OutcomeUnknown"})  # marked as not repeatable, yet the connection may be back


class Do(Enum):
    """What to do now."""

    GO = auto()
    """Hand out work, and report it by `OutagePolicy.given`."""
    PAUSE = auto()
    """Hand out nothing; ask again at ``until``, or when some work has ended."""
    PROBE = auto()
    """Hand out nothing. Probe the end once: report `OutagePolicy.asked`, then `probed`."""
    GIVE_UP = auto()
    """The outage has lasted too long: end the job so that it can be resumed."""
    STOP = auto()
    """The end will not work until a person does something: end the job so that it can be resumed."""


class Advice(NamedTuple):
    """What to do, and why.

    Attributes:
        until: with PAUSE the moment to ask again.
        cause: one line for people, empty with GO.
    """

    do: Do
    until: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class OutagePatience:
    """A job's patience with an end that is out of order; times in seconds.

    Attributes:
        outage: the longest outage to wait for.
        first_step: the wait after the first failed probe; each step doubles it.
        last_step: the longest step.
        in_a_row: the number of failures without a success between that makes an end doubtful.
        budget: failures among successes that are tolerated before work slows down; every success earns back a fifth.
    """

    outage: float = 12 * 3600.0
    first_step: float = 5.0
    last_step: float = 300.0
    in_a_row: int = 4
    budget: int = 50


@dataclass(frozen=True, slots=True)
class RetryWaves:
    """When failed items are tried again: in waves, at growing intervals; seconds.

    Attributes:
        first: the shortest wait before a wave.
        last: the longest one.
    """

    first: float = 30.0
    last: float = 300.0

    def wait(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait after so many attempts; ``chance`` is a random number in [0, 1)."""
        # Full jitter above the minimum: clients that failed together must not come back together.
        longest = min(self.last, self.first * 2.0 ** min(attempt, 30))
        return self.first + (longest - self.first) * chance


class _State(Enum):
    CLEAR = auto()
    DOUBTFUL = auto()
    OUT = auto()
    TRIAL = auto()


class OutagePolicy:
    """The state of one end. Times are seconds of any monotonic clock, passed in by the caller.

    Args:
        patience: how patient the job is.
        chance: gives random numbers in [0, 1): no two jobs probe at the same moments.

    Attributes:
        since: when the present outage began, None without one.
        probes: how many were asked for.
        outages: how many there were.
    """

    def __init__(self, patience: OutagePatience | None = None, *, chance: Callable[[], float] = lambda: 1.0) -> None:
        self.since: float | None = None
        self.probes: int = 0
        self.outages: int = 0
        self._patience = patience or OutagePatience()
        self._chance = chance
        self._state = _State.CLEAR
        self._row = 0  # failures without a success since
        self._row_began = 0.0
        self._budget = float(self._patience.budget)
        self._not_before = -math.inf  # the archive asked for a pause, or work has to slow down
        self._next = -math.inf  # the next probe or trial
        self._steps = 0
        self._is_asked = False  # a probe is under way
        self._cause = ""
        self._doubt = ""  # the error that made it doubtful
        self._end: Advice | None = None

    # --- what it is told ----------------------------------------------------------------------------------------------

    def ended(
        self,
        now: float,
        *,
        error: str = "",
        temporary: bool = True,
        retry_after: float | None = None,
        message: str = "",
    ) -> None:
        """Note that work ended.

        Args:
            now: the moment.
            error: the name of the exception's class where this end failed; empty where it did what it was asked.
            temporary: whether the same may succeed later.
            retry_after: seconds the archive asked to wait.
            message: the error in words.
        """
        if not error:
            self._succeeded(now)
            return
        passes = temporary or error in _PASSES
        self._note(now, error, retry_after, temporary=temporary, message=message)
        if error in _AT_ONCE or (self._state is _State.TRIAL and not passes and error == self._doubt):
            self._end = self._end or Advice(Do.STOP, cause=self._cause)
        elif self._state is _State.TRIAL and passes:
            self._is_still_out(now)
        elif self._state is _State.TRIAL:  # the end has answered: this is a new kind of problem
            self._is_clear()
        elif self._state is _State.CLEAR:
            self._row_began = self._row_began if self._row else now
            self._row += 1
            self._slow_down(now)
            if self._row >= self._patience.in_a_row or error in _DOUBTFUL_AT_ONCE:
                self._state, self._next, self._doubt = _State.DOUBTFUL, now, error

    def probed(
        self,
        now: float,
        *,
        error: str = "",
        temporary: bool = True,
        retry_after: float | None = None,
        message: str = "",
    ) -> None:
        """Note how a probe ended; the arguments are those of `ended`."""
        self._is_asked = False
        if error:
            self._note(now, error, retry_after, temporary=temporary, message=message)
            if error in _AT_ONCE or not (temporary or error in _PASSES):
                self._end = self._end or Advice(Do.STOP, cause=self._cause)
            else:
                self._is_still_out(now)
        elif self._state is not _State.CLEAR:  # work that has succeeded since is better evidence than a probe
            self._state, self._next = _State.TRIAL, now

    def asked(self) -> None:
        """Note that a probe begins; `probed` follows."""
        self._is_asked = True
        self.probes += 1

    def given(self, now: float) -> None:
        """Note that work is given out."""
        if self._state is _State.TRIAL:
            self._next = now + self._step()  # by then another trial, if this one has not been reported

    def rested(self, now: float) -> None:
        """Record that the job was paused or its windows closed: nothing was asked then, so patience starts anew."""
        if self.since is not None:
            self.since = now
            self._steps = 0
            self._next = min(self._next, now)

    # --- what it says -------------------------------------------------------------------------------------------------

    def advice(self, now: float) -> Advice:
        """Say what is to be done now."""
        if self._end is not None:
            return self._end
        if now < self._not_before:
            return Advice(Do.PAUSE, self._not_before, self._cause)
        if self._state is _State.CLEAR:
            return Advice(Do.GO)
        if now < self._next:
            return Advice(Do.PAUSE, self._next, self._cause)
        if self._state is _State.TRIAL:
            return Advice(Do.GO)
        if self._is_asked:
            return Advice(Do.PAUSE, now + self._patience.first_step, self._cause)
        return Advice(Do.PROBE, now, self._cause)

    def patience_left(self, now: float) -> float:
        """Return the seconds of an outage that are still waited for."""
        return self._patience.outage - (0.0 if self.since is None else now - self.since)

    @property
    def is_out(self) -> bool:
        """Whether failures now are due to an outage, so that they use up no attempt of an item."""
        return self._state is not _State.CLEAR

    # --- within -------------------------------------------------------------------------------------------------------

    def _succeeded(self, now: float) -> None:
        self._budget = min(float(self._patience.budget), self._budget + 0.2)
        # Work started before the outage may still succeed; only a probe or a trial shows that it is over.
        if self._state is _State.OUT:
            self._next = min(self._next, now)
        else:
            self._is_clear()

    def _is_clear(self) -> None:
        """Record that the end works: the failures had other reasons."""
        self._row = 0
        self._state, self.since, self._steps = _State.CLEAR, None, 0

    def _note(self, now: float, error: str, retry_after: float | None, *, temporary: bool, message: str) -> None:
        """Record the cause of a failure, and how long the archive asks to wait."""
        words = _WORDS | _PASSING_WORDS if temporary else _WORDS
        self._cause = words.get(error) or message or "it is out of order"
        if retry_after is None or math.isnan(retry_after) or retry_after <= 0:
            return
        self._cause = f"the archive asks to wait {_span(retry_after)}"
        if retry_after > self._patience.outage:
            self._end = self._end or Advice(Do.GIVE_UP, cause=self._cause)
        self._not_before = max(self._not_before, now + retry_after)

    def _slow_down(self, now: float) -> None:
        """Charge a failure among successes to the budget; when it is exceeded, pause before handing out more work."""
        if self._budget < 1.0:
            self._not_before = max(self._not_before, now + self._patience.first_step * (0.5 + 0.5 * self._chance()))
        else:
            self._budget -= 1.0

    def _is_still_out(self, now: float) -> None:
        """Note that a probe or a trial failed."""
        if self.since is None:
            self.since = self._row_began if self._row else now
            self.outages += 1
            self._row = 0  # those failures were the outage
        self._state = _State.OUT
        lasted = now - self.since
        if lasted >= self._patience.outage:
            self._end = self._end or Advice(Do.GIVE_UP, cause=f"{self._cause}, for {_span(lasted)}")
        self._next = now + self._step()
        self._steps += 1

    def _step(self) -> float:
        """Return the present step's seconds: half of it certain, half at random."""
        whole = min(self._patience.last_step, self._patience.first_step * 2.0 ** min(self._steps, 30))
        return whole * (0.5 + 0.5 * self._chance())


def _span(seconds: float) -> str:
    """Return a time in words for people."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{min(seconds, 1e9) / size:.0f} {unit}"
    return f"{seconds:.0f} s"
