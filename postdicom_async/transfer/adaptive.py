"""How many requests run in parallel: as many as raise total throughput. Pure: times are arguments, nothing is awaited.

A trial compares two levels of parallelism: the throughput of all work at the previous level and at the one tried. It
starts as TCP does, doubling while that pays off, and jumping to four if a single stream is slow. The first time
doubling does not pay off, it steps back, and from then on tries the next level up and the next level down in turn, less
and less often as long as nothing is gained. A clear gain is accepted at once, and doubling resumes; the absence of a
gain is accepted only after a longer measurement, since a short one may be chance. An archive that refuses (429, 503),
does not answer in time or cuts the connection ends a trial, or else halves the level, and the level it refused is not
tried again for a while.

Throughput is measured between completions: a window begins when the first piece of work started at a level completes,
so that opening a connection does not count against it, and lasts for a fixed number of completions per lane. That is
exact whether or not the pieces run in step, and needs no knowledge of what is still in flight.
"""

from __future__ import annotations

from dataclasses import dataclass

_ENDS_A_LANE = 3
_SHORT, _LONG = 0.03, 0.25  # seconds of a window: the minimum, and the length when a short one is inconclusive
_GAIN = 0.10  # of the total throughput: the smallest gain that counts as measurable
_GAIN_OF_ADDED = 0.25  # of the ideal gain of the added requests: less does not justify the load on the archive
_CLEAR = 0.5  # of the same: this much is not chance
_LOSS = 0.04  # fewer requests are as good if they lose at most this much
# Bytes a second. A slower stream may well be limited by its connection, so four are tried at once. A faster one is
# limited by the archive or this machine: a trial pays off only in a long transfer.
_SLOW = 80e6
_NOISE = 1.5  # a gain must exceed this many times the difference between windows of one level
_FIRST_WAIT, _LONGEST_WAIT = 2, 128  # windows between trials
_CAREFUL_WAIT = 8  # after a refusal, and before the first trial beside a fast stream
_ONE_REFUSAL = 1.0  # seconds within which refusals belong to requests that were in flight together
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 320.0  # seconds before a refused level is tried again


@dataclass(slots=True)
class _Window:
    """What has completed since the window began."""

    began: float
    ends: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Base:
    """What a trial is compared with."""

    level: int
    rate: float


class AtOnce:
    """A level between 1 and ``most``, adjusted by the throughput of the work done at it.

    Whoever runs the work starts pieces while fewer than `now` are in flight, and reports every completion. When the
    level falls, running pieces continue.

    State: the level, the current window, and during a trial the level it is compared with. Only `done` and `refused`
    change it. The risk is judging a level by work that began at another one: so a window begins when the first piece
    started at this level completes (`_changed`), and a refusal discards the window.

    Args:
        most: the upper bound.
        first: where to start; trials do not go below it, only refusals do.

    Attributes:
        held: set by whoever runs the work while more would be no use: it is busy itself, or has nothing to start.
    """

    def __init__(self, most: int, *, first: int = 1) -> None:
        self.held: bool = False
        self._most = max(1, most)
        self._first = self._now = min(max(1, first), self._most)
        self._changed = float("-inf")
        self._window: _Window | None = None
        self._rate: float | None = None  # at this level, smoothed
        self._noise = 0.0
        self._base: _Base | None = None  # while a trial is under way
        self._doubling = True
        self._is_put_off = False  # a trial, because of `held`
        self._upwards = True
        self._calm = 0  # windows since the last trial
        self._wait = _FIRST_WAIT
        self._ceiling = self._most + 1  # refused
        self._ceiling_until = self._refused_at = float("-inf")
        self._pause = _FIRST_PAUSE

    @property
    def now(self) -> int:
        """How many may be in flight."""
        return self._now

    @property
    def is_beginning(self) -> bool:
        """Whether no completion has counted for this level yet."""
        return self._window is None

    def done(self, started: float, ended: float, size: int) -> None:
        """Note the end of a piece of work, or of part of a long one, such as one instance of a series.

        Args:
            started: when it began, in seconds of any one clock: the request, or the end of the previous part.
            ended: now.
            size: bytes.
        """
        window = self._window
        if window is None:
            if started >= self._changed:
                self._window = _Window(ended)
            return
        if self._is_put_off and not self.held:
            self._try_another(ended)
            return
        window.ends += 1
        window.size += size
        seconds = ended - window.began
        in_step = window.ends % self._now == 0  # those that complete together are all counted, or none
        if window.ends < _ENDS_A_LANE * self._now or not in_step or seconds < _SHORT:
            return
        rate = window.size / seconds
        is_fast = self._now == 1 and rate >= _SLOW
        base = self._base
        is_clear = self._doubling and not is_fast if base is None else self._is_gain(base, rate, _CLEAR)
        if is_clear or seconds >= _LONG:
            self._window = _Window(ended)
            self._measured(rate, ended, is_clear=is_clear)

    def refused(self, now: float) -> None:
        """Note that the archive refused a request for now, did not answer it in time, or cut it off."""
        if now - self._refused_at < _ONE_REFUSAL:  # requests that were in flight together are refused together
            return
        self._refused_at = now
        self._ceiling, self._ceiling_until = max(2, self._now), now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        base = self._base
        level = base.level if base is not None and base.level < self._now else max(1, self._now // 2)
        self._doubling, self._upwards, self._base, self._rate = False, True, None, None
        self._is_put_off = False
        self._calm, self._wait = 0, _CAREFUL_WAIT
        self._go_to(level, now)

    # --- trials ------------------------------------------------------------------------------------------------------

    def _measured(self, rate: float, now: float, *, is_clear: bool) -> None:
        if self._base is not None:
            self._judge(self._base, rate, now, is_clear=is_clear)
            return
        if self._rate is not None:
            self._noise += 0.25 * (abs(rate / self._rate - 1.0) - self._noise) if self._rate else 0.0
        self._rate = rate if self._rate is None else 0.5 * (self._rate + rate)
        self._calm += 1
        is_fast = self._now == 1 and self._rate >= _SLOW
        if self._calm >= (_CAREFUL_WAIT if self._doubling and is_fast else 1 if self._doubling else self._wait):
            self._try_another(now)

    def _judge(self, base: _Base, rate: float, now: float, *, is_clear: bool) -> None:
        """End a trial: keep the new level, or go back."""
        is_better = is_clear or self._is_gain(base, rate, _GAIN_OF_ADDED)
        self._base, self._calm = None, 0
        if is_better:
            self._rate, self._wait = rate, _FIRST_WAIT
            self._doubling = self._doubling or is_clear
            self._try_another(now)  # further in the same direction, with this level as the new base
            return
        self._doubling, self._upwards = False, not self._upwards
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
        self._rate = base.rate
        self._go_to(base.level, now)

    def _is_gain(self, base: _Base, rate: float, share: float) -> bool:
        """Return whether more requests reached ``share`` of their ideal gain, or fewer lost next to nothing."""
        gain = rate / base.rate - 1.0 if base.rate else float(rate > 0)
        if self._now < base.level:
            return share < _CLEAR and gain >= -_LOSS
        return gain >= max(_GAIN, share * (self._now / base.level - 1), _NOISE * self._noise)

    def _try_another(self, now: float) -> None:
        self._is_put_off = self.held and self._doubling
        level = self._neighbour(now)
        if level == self._now:
            self._upwards = self._doubling or not self._upwards
            level = self._now if self._doubling else self._neighbour(now)
        self._calm = 0
        if level != self._now:
            self._base = _Base(self._now, self._rate or 0.0)
            self._go_to(level, now)

    def _neighbour(self, now: float) -> int:
        """Return the level to try in the present direction, or the current one if there is none."""
        highest = self._most
        if now < self._ceiling_until:
            highest = min(highest, self._ceiling - 1)
        step = self._now if self._doubling else max(1, self._now // 4)
        if self._doubling and self._now == 1 and (self._rate or 0.0) < _SLOW:
            step = 3
        if self._upwards:
            highest = self._now if self.held else highest
            return max(self._now, min(self._now + step, highest))
        return max(min(self._now, self._first), self._now - step)

    def _go_to(self, level: int, now: float) -> None:
        self._now, self._changed, self._window = level, now, None
