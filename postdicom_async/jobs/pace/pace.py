"""The pace of a job: bytes and requests a second, chunks at once, and time windows; adjustable while it runs.

`Bucket` is the policy of one rate, in virtual time. `Pace` holds all adjustable limits, for one event loop: a task
awaits it before it moves anything, in FIFO order, and `set` wakes the waiting tasks. A task that is cancelled while it
waits has taken nothing, and the next one is served.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from postdicom_async.errors import UsageError
from postdicom_async.jobs.pace.windows import Windows

_BURST = 1.0  # seconds
_LONGEST_SLEEP = 30.0  # a clock on the wall may be put forward, and a machine may have slept
_MOST_AT_ONCE = 1024
_UNITS: Final = {"": 1, **{unit: 1000**power for power, unit in enumerate("KMGT", 1)}} | {
    f"{unit}I": 1024**power for power, unit in enumerate("KMGT", 1)
}
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)(?:B)?(/S)?")
_REQUESTS: Final = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(S|SEC|M|MIN|H)")
_SECONDS: Final = {"S": 1, "SEC": 1, "M": 60, "MIN": 60, "H": 3600}
_NONE: Final = frozenset({"off", "none", "unlimited", "0"})

RateKind = Literal["bytes", "requests"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate, or no limit.

    Attributes:
        per_second: bytes or requests a second; None for no limit.
        of: ``"bytes"`` or ``"requests"``.
    """

    per_second: float | None
    of: RateKind = "bytes"

    @classmethod
    def parse(cls, text: str, *, of: RateKind | None = None, argument: str = "rate") -> Rate:
        """Read a rate.

        Args:
            text: ``"40M"`` (bytes a second: K, M, G by thousands, KiB, MiB, GiB by 1024), ``"10/s"`` (requests), or
                ``"off"``.
            of: what is wanted; None takes either, and a plain number as bytes.
            argument: what an error calls it.

        Raises:
            UsageError: it is not a rate, or one of the other kind.
        """
        word = text.strip() if isinstance(text, str) else ""
        if word.lower() in _NONE:
            return cls(None, of or "bytes")
        requests, size = _REQUESTS.fullmatch(word.upper()), _BYTES.fullmatch(word.upper())
        rate: Rate | None = None
        if requests:
            rate = cls(float(requests[1]) / _SECONDS[requests[2]], "requests")
        elif size and of == "requests" and not size[2]:
            rate = cls(float(size[1]), "requests")
        elif size and size[2] in _UNITS:
            rate = cls(float(size[1]) * _UNITS[size[2]], "bytes")
        if rate is None or rate.of != (of or rate.of):
            examples = {"bytes": '"40M" for 40 MB/s', "requests": '"10/s" for requests'}
            wanted = examples[of] if of else " or ".join(examples.values())
            raise UsageError(f'give {wanted}, or "off"', argument=argument)
        return rate if rate.per_second else cls(None, rate.of)

    def __str__(self) -> str:
        """Return the text that `parse` takes."""
        if self.per_second is None:
            return "off"
        if self.of == "requests":
            return f"{self.per_second:.6g}/s"
        for unit in "TGMK":
            if self.per_second >= _UNITS[unit] and not self.per_second % (_UNITS[unit] / 1000):
                return f"{self.per_second / _UNITS[unit]:.9g}{unit}"
        return f"{self.per_second:.9g}"


class Bucket:
    """A token bucket: how long to wait before an amount may be taken. Times are seconds of any clock.

    An amount may be taken once the bucket is not in debt, so a single amount may be of any size: it leaves a debt, for
    which the next one waits. Unused capacity accumulates up to one second's worth.

    Attributes:
        rate: how much a second, None for no limit.
    """

    def __init__(self, rate: float | None = None) -> None:
        self.rate: float | None = rate
        self._level: float | None = None  # the balance; a debt if below 0; None before the first use
        self._at = 0.0

    def take(self, now: float, amount: float) -> float:
        """Take an amount and return 0; or take nothing and return the seconds to wait before asking again."""
        if self.rate is None:
            return 0.0
        level = self._refill(now)
        if level < 0:
            return -level / self.rate
        self._level = level - amount
        return 0.0

    def set(self, now: float, rate: float | None) -> None:
        """Change the rate. A debt takes no longer to pay than before, since it was incurred under the old rate."""
        level = self._refill(now)
        if self.rate is None or rate is None:
            self._level = None
        elif level < 0:
            self._level = level * min(1.0, rate / self.rate)
        self.rate = rate

    def _refill(self, now: float) -> float:
        if self.rate is None:
            return 0.0
        most = self.rate * _BURST
        # A clock that stands still or goes back must not change the balance.
        gained = max(0.0, now - self._at) * self.rate
        self._level = most if self._level is None else min(most, self._level + gained)
        # A debt within rounding error counts as paid: otherwise the last wait would be followed by one of zero seconds.
        if -1e-9 * most < self._level < 0:
            self._level = 0.0
        self._at = now
        return self._level


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """The rates of one worker; it may be pickled. ``None`` is no limit."""

    max_rate: float | None = None
    max_requests: float | None = None


class Pace:
    """A job's present limits, for one event loop. All may be changed while tasks wait for them.

    Args:
        max_rate: bytes a second, as a number or as text (see `Rate.parse`); None for no limit.
        max_requests: requests a second, likewise.
        at_once: chunks at once; None leaves that to the engine.
        windows: when it may work.
        clock: seconds that never go back.
        now: what time it is, with a time zone.

    Attributes:
        at_once: chunks at once; None leaves that to the engine.
        windows: when it may work.
    """

    def __init__(
        self,
        *,
        max_rate: Rate | float | str | None = None,
        max_requests: Rate | float | str | None = None,
        at_once: int | None = None,
        windows: Windows | str = "",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.at_once: int | None = None
        self.windows: Windows = Windows()
        self._buckets: dict[RateKind, Bucket] = {"bytes": Bucket(), "requests": Bucket()}
        self._turns: dict[RateKind, asyncio.Lock] = {"bytes": asyncio.Lock(), "requests": asyncio.Lock()}
        self._changed = asyncio.Event()
        self._is_paused = False
        self._clock = clock
        self._now = now
        self.set(max_rate=max_rate, max_requests=max_requests, at_once=at_once, windows=windows)

    # --- what is asked before something is done ---------------------------------------------------------------------

    async def bytes(self, count: int) -> None:
        """Wait until this number of bytes may be moved; one instance may be of any size."""
        await self._take("bytes", count)

    async def request(self) -> None:
        """Wait until a request may be made; for ``Settings.before_request``."""
        await self._take("requests", 1)

    async def wait_until_open(self) -> None:
        """Wait while the job is paused or its windows are closed."""
        while (seconds := self._closed_for()) > 0:
            await self._change_within(min(seconds, _LONGEST_SLEEP))

    @property
    def is_open(self) -> bool:
        """Whether the job may work: it is not paused, and a window is open."""
        return not self._is_paused and self.windows.is_open(self._now())

    @property
    def paused(self) -> bool:
        """Whether the job was paused, whatever its windows say."""
        return self._is_paused

    async def _take(self, kind: RateKind, amount: float) -> None:
        bucket = self._buckets[kind]
        if bucket.rate is None:
            return
        async with self._turns[kind]:  # first come, first served
            while (seconds := bucket.take(self._clock(), amount)) > 0:
                await self._change_within(seconds)

    def _closed_for(self) -> float:
        now = self._now()
        if self._is_paused:
            return math.inf
        if self.windows.is_open(now):
            return 0.0
        change = self.windows.next_change(now)
        # A minimum, since the loop's timer may fire slightly before the wall clock's time.
        return math.inf if change is None else max(0.05, (change - now).total_seconds())

    async def _change_within(self, seconds: float) -> None:
        changed = self._changed
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()

    # --- what may be changed ------------------------------------------------------------------------------------------

    def set(
        self,
        *,
        max_rate: Rate | float | str | None = None,
        max_requests: Rate | float | str | None = None,
        at_once: int | None = None,
        windows: Windows | str | None = None,
    ) -> None:
        """Change the given limits at once; None leaves a limit as it is.

        Args:
            max_rate: bytes a second, or requests a second as ``"10/s"``; 0 or ``"off"`` for no limit.
            max_requests: requests a second, 0 or ``"off"`` for no limit.
            at_once: chunks at once, 0 to leave that to the engine.
            windows: when the job may work, ``""`` for always.

        Raises:
            UsageError: a value makes no sense; then nothing was changed.
        """
        rates = [_rate(max_rate, "max_rate", None), _rate(max_requests, "max_requests", "requests")]
        if at_once is not None and (type(at_once) is not int or not 0 <= at_once <= _MOST_AT_ONCE):
            raise UsageError(
                f"give a number from 1 to {_MOST_AT_ONCE}, or 0 for as many as make it faster", argument="at_once"
            )
        times = Windows.parse(windows) if windows is not None and not isinstance(windows, Windows) else windows
        for rate in rates:
            if rate is not None:
                self._buckets[rate.of].set(self._clock(), rate.per_second)
        if at_once is not None:
            self.at_once = at_once or None
        if times is not None:
            self.windows = times
        self._tell()

    def pause(self) -> None:
        """Let no work start until `resume`."""
        self._is_paused = True
        self._tell()

    def resume(self) -> None:
        """End a `pause`."""
        self._is_paused = False
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- what it is ---------------------------------------------------------------------------------------------------

    def share(self, workers: int) -> WorkerShare:
        """Return each worker's share of the rates, so that together they keep to them."""
        size, requests = self._buckets["bytes"].rate, self._buckets["requests"].rate
        count = max(1, workers)
        return WorkerShare(size and size / count, requests and requests / count)

    def snapshot(self) -> dict[str, Any]:
        """Return the present limits as JSON values; `set` accepts the first four."""
        now = self._now()
        change = None if self._is_paused else self.windows.next_change(now)
        return {
            "max_rate": str(Rate(self._buckets["bytes"].rate)),
            "max_requests": str(Rate(self._buckets["requests"].rate, "requests")),
            "at_once": self.at_once or 0,
            "windows": str(self.windows),
            "paused": self._is_paused,
            "open": not self._is_paused and self.windows.is_open(now),
            "next_change": None if change is None else change.isoformat(timespec="seconds"),
        }


def _rate(value: Rate | float | str | None, name: str, of: RateKind | None) -> Rate | None:
    """Return a rate that was given in any of its forms, None where none was."""
    if value is None:
        return None
    if isinstance(value, str):
        return Rate.parse(value, of=of, argument=name)
    rate = value if isinstance(value, Rate) else None
    if rate is None and isinstance(value, int | float) and not isinstance(value, bool):
        rate = Rate(float(value) or None, of or "bytes")
    if rate is None or (of is not None and rate.of != of) or not 0 < (rate.per_second or 1.0) < math.inf:
        raise UsageError('give a number a second, a text such as "40M" or "10/s", or "off"', argument=name)
    return rate
