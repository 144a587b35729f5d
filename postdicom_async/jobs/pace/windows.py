"""When a job may work: times of the week, as a clock on the wall shows them. Pure.

``Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin``: a window is open while the clock on the wall there shows a
time within it. One that goes past midnight belongs to the day on which it begins. So when the clocks are put forward,
what lies in the hour that does not exist is not open that day; when they are put back, an hour that exists twice is
open twice.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from postdicom_async.errors import UsageError
from postdicom_async.face import translated

if TYPE_CHECKING:
    from collections.abc import Iterator


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WHOLE: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAILY: Final = frozenset({"daily", "always"})
_DAY, _WEEK = 24 * 60, 7 * 24 * 60
_TIMES: Final = re.compile(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*")
_EXAMPLE: Final = 'such as "Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00"'
_FURTHEST = 28  # days: a window of one hour a week may fall into the hour that does not exist, and once again
_STEP = timedelta(hours=6)  # no zone changes its clocks twice within


@dataclass(frozen=True, slots=True)
class _Part:
    """Days, 0 for Monday, and the minutes of such a day; an end up to the beginning is on the next day."""

    days: tuple[int, ...]
    times: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        times = " ".join(f"{_clock(start)}-{_clock(end)}" for start, end in self.times)
        return f"{_day_names(self.days)} {times}"


@dataclass(frozen=True, slots=True)
class Windows:
    """Times of the week in which a job works. Make it with `parse`; ``Windows()`` is always open.

    ``str()`` gives a text that `parse` understands as the same.

    Attributes:
        parts: days and times as they were given.
        zone: a name of the time zone database, ``"Europe/Berlin"``; None for the zone of the machine.
    """

    parts: tuple[_Part, ...] = ()
    zone: str | None = None

    @classmethod
    def parse(cls, text: str, *, zone: str | None = None) -> Windows:
        """Read a text: days and times, several with commas, perhaps a time zone behind them. Empty: always open.

        Days are ``Mon``, ``Mo`` or ``Monday``, a range of them (``Fri-Mon``), several with commas, or ``daily``;
        without any, every day is meant. Times are ``20:00-06:00``; the end of a day is ``24:00``. A zone in the text
        outranks ``zone``.

        Raises:
            UsageError: which part is wrong, and an example.
        """
        if not isinstance(text, str):
            raise UsageError(f"give a text {_EXAMPLE}", argument="windows")
        words = text.replace("\u2013", "-").replace(",", " , ").split()
        if words and _is_zone(words[-1]):
            zone = words.pop()
        if zone is not None:
            _zone_info(zone)
        if " ".join(words).lower() in {"", "always"}:
            return cls((), zone)
        return cls(tuple(_parts(" ".join(words))), zone)

    def __str__(self) -> str:
        """Return the text that `parse` takes."""
        times = ", ".join(map(str, self.parts)) or "always"
        return f"{times} {self.zone}" if self.zone else times

    @property
    def is_always_open(self) -> bool:
        """Whether they never close."""
        return not self.parts or _spans(self.parts) == ((0, _WEEK),)

    def is_open(self, at: datetime) -> bool:
        """Return whether a job may work at a moment, which must know its time zone."""
        _require_aware(at)
        return not self.parts or _is_within(_spans(self.parts), self._wall(at))

    def next_change(self, at: datetime) -> datetime | None:
        """Return when they open or close next after a moment, in UTC; None where that never happens."""
        _require_aware(at)
        if self.is_always_open:
            return None
        spans, start = _spans(self.parts), at.astimezone(UTC)
        before = _is_within(spans, self._wall(start))
        for day in range(-1, _FURTHEST):
            around = (start + timedelta(days=day)).replace(hour=0, minute=0, second=0, microsecond=0)
            moments = chain(self._edges(spans, around), self._clock_changes(around))
            for moment in sorted(one for one in moments if one > start):
                if _is_within(spans, self._wall(moment)) != before:
                    return moment
        return None

    def _wall(self, at: datetime) -> datetime:
        """Return what a clock on the wall shows."""
        return at.astimezone(ZoneInfo(self.zone) if self.zone else None).replace(tzinfo=None)

    def _edges(self, spans: tuple[tuple[int, int], ...], day: datetime) -> Iterator[datetime]:
        """Yield, for a day of UTC, when a clock on the wall shows where a window begins or ends.

        Of an hour that exists twice both; of an hour that does not exist moments at which nothing may happen.
        """
        zone = ZoneInfo(self.zone) if self.zone else None
        for date in (day.replace(tzinfo=None) + timedelta(days=shift) for shift in (-1, 0, 1)):
            for minute in {minute for span in spans for minute in span}:
                if minute // _DAY % 7 != date.weekday():
                    continue
                wall = date + timedelta(minutes=minute % _DAY)
                for fold in (0, 1):
                    moment = wall.replace(fold=fold, tzinfo=zone).astimezone(UTC)
                    if day <= moment < day + timedelta(days=1):
                        yield moment

    def _clock_changes(self, day: datetime) -> Iterator[datetime]:
        """Yield the moments of a day of UTC at which the clocks are changed."""
        for step in range(4):
            low, high = day + step * _STEP, day + (step + 1) * _STEP
            if self._offset(low) == self._offset(high):
                continue
            first = self._offset(low)
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
                low, high = (middle, high) if self._offset(middle) == first else (low, middle)
            yield high

    def _offset(self, at: datetime) -> timedelta:
        return self._wall(at) - at.replace(tzinfo=None)


# --- minutes of the week ----------------------------------------------------------------------------------------------


def _spans(parts: tuple[_Part, ...]) -> tuple[tuple[int, int], ...]:
    """Return from which minute of the week on to which one it is open: in order, and none touches another."""
    pieces: list[tuple[int, int]] = []
    for part in parts:
        for day in part.days:
            for start, end in part.times:
                first = day * _DAY + start
                last = day * _DAY + end + (_DAY if end <= start else 0)
                pieces.append((first, min(last, _WEEK)))
                if last > _WEEK:
                    pieces.append((0, last - _WEEK))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pieces):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def _is_within(spans: tuple[tuple[int, int], ...], wall: datetime) -> bool:
    minute = wall.weekday() * _DAY + wall.hour * 60 + wall.minute
    at = bisect_right(spans, (minute, _WEEK)) - 1
    return at >= 0 and minute < spans[at][1]


def _require_aware(at: datetime) -> None:
    if at.tzinfo is None:
        raise UsageError("give a moment with its time zone, such as datetime.now(UTC)", argument="at")


# --- texts ------------------------------------------------------------------------------------------------------------


def _parts(text: str) -> Iterator[_Part]:
    """Yield what a text says; a piece of days alone goes with the piece behind its comma."""
    days: list[int] = []
    pieces = [piece.split() for piece in text.split(",")]
    names_days = any(not _TIMES.fullmatch(word) and word[:1].isalpha() for piece in pieces for word in piece)
    for piece in pieces:
        if not piece:
            raise UsageError(
                f"nothing stands before or behind a comma; give days and times {_EXAMPLE}", argument="windows"
            )
        named = piece[:1] if piece[0][:1].isalpha() else []
        days += [day for word in named for day in _days(word)]
        times = tuple(_times(word) for word in piece[len(named) :])
        if not times:
            continue
        if not days and names_days:
            raise UsageError(f'"{" ".join(piece)}" says no days; give them {_EXAMPLE}', argument="windows")
        yield _Part(tuple(dict.fromkeys(days or range(7))), times)
        days = []
    if days:
        raise UsageError(f'"{" ".join(pieces[-1])}" says no times; give them {_EXAMPLE}', argument="windows")


def _days(word: str) -> Iterator[int]:
    if word.lower() in _DAILY:
        yield from range(7)
        return
    first, dash, last = word.partition("-")
    start, end = _day(first), _day(last if dash else first)
    if start is None or end is None:
        raise UsageError(f'"{word}" is no day; give days and times {_EXAMPLE}', argument="windows")
    yield from ((start + count) % 7 for count in range((end - start) % 7 + 1))


def _day(name: str) -> int | None:
    """Return a day of the week by its name in English, or two letters or more that it begins with."""
    found = [at for at, whole in enumerate(_WHOLE) if len(name) > 1 and whole.startswith(name.lower())]
    return found[0] if found else None


def _times(word: str) -> tuple[int, int]:
    found = _TIMES.fullmatch(word)
    if found is None:
        raise UsageError(f'"{word}" is no time from and to; give days and times {_EXAMPLE}', argument="windows")
    hour, minute, last_hour, last_minute = map(int, found.groups())
    start, end = hour * 60 + minute, last_hour * 60 + last_minute
    if minute > 59 or last_minute > 59 or start >= _DAY or end > _DAY:
        raise UsageError(f'"{word}" holds a time that no clock shows; a day is 00:00-24:00', argument="windows")
    if start == end:
        raise UsageError(f'"{word}" is empty; a whole day is 00:00-24:00', argument="windows")
    return start, end


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _day_names(days: tuple[int, ...]) -> str:
    """Return days in words, neighbours as ranges."""
    runs: list[list[int]] = []
    for day in days:
        if runs and day == (runs[-1][-1] + 1) % 7:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(_DAYS[run[0]] if len(run) == 1 else f"{_DAYS[run[0]]}-{_DAYS[run[-1]]}" for run in runs)


def _is_zone(word: str) -> bool:
    """Whether a text's last word is meant as a time zone."""
    if not word[:1].isalpha() or word.lower() in _DAILY or not _ZONE.fullmatch(word):
        return False
    return not all(_day(name) is not None for name in word.split("-"))


def _zone_info(name: str) -> None:
    """Refuse a zone that is unknown here."""
    unknown = UsageError(
        f'"{name}" is neither times nor a time zone known here; give a text {_EXAMPLE}', argument="windows"
    )
    with translated((ZoneInfoNotFoundError, ValueError, OSError), lambda _: unknown):
        ZoneInfo(name)
