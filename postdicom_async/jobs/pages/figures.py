"""Formats numbers, sizes, times and names for a job's pages, and draws charts as inline SVG. Pure.

Charts fit any width; labels are HTML around them, so that no text is stretched. Colours come from the style sheet by
class; every chart has a title and a text alternative.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import floor, log10
from typing import TYPE_CHECKING

from postdicom_async.dicom.tags import keyword_of
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import name_of, total
from postdicom_async.markup import Html, element, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from postdicom_async.jobs.summary import JobFacts, MinuteLine, MonthLine, Summary


STACK = (
    State.DONE, State.PRESENT, State.RUNNING, State.UNCONFIRMED, State.FAILED, State.DELETED, State.EXCLUDED,
    State.PENDING,
)  # fmt: skip
"""The order in which states stand in pictures and tables."""

_WIDE, _HIGH = 1000.0, 100.0
_LEAST = 4.0  # of a thousand: a single failure among a million must be visible
_MOST_COLUMNS = 120
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)
_MOST_MONTHS = 180
_FEW = 24  # columns: fewer ones are not wider, but stand at the left


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chart.

    Attributes:
        label: what it stands for.
        words: what its numbers are, shown where a pointer rests on it.
        parts: classes and heights, from below.
    """

    label: str
    words: str
    parts: tuple[tuple[str, float], ...]


def state_bar(summary: Summary, name: str = "state-bar") -> Html:
    """Return one bar: the shares of the states of all that was discovered."""
    shown = [(state, summary.of(state).instances) for state in STACK if summary.of(state).instances]
    whole = summary.discovered
    words = ", ".join(f"{name_of(state, summary.facts.verb)} {share(number, whole)}" for state, number in shown)
    return _bar(name, "What was discovered, by state", words, [(state.name.lower(), n) for state, n in shown], "bar")


def share_bar(name: str, title: str, ok: int, failed: int, whole: int) -> Html:
    """Return a small bar: what is settled, and failed, of a whole."""
    parts = [("done", ok), ("failed", failed), ("pending", max(0, whole - ok - failed))]
    return _bar(name, title, f"{share(ok + failed, whole)} settled", parts, "bar small")


def _bar(name: str, title: str, words: str, parts: Sequence[tuple[str, int]], class_: str) -> Html:
    whole = sum(number for _, number in parts)
    widths = [max(_LEAST, number / whole * _WIDE) if number else 0.0 for _, number in parts] if whole else []
    scale = _WIDE / sum(widths) if widths else 1.0
    rects, at = [], 0.0
    for (kind, _), width in zip(parts, widths, strict=False):
        if width:
            rects.append(_rect(at, 0, width * scale, 10, kind))
        at += width * scale
    return _svg(name, title, words, joined(*rects), high=10, class_=class_)


def rate_charts(moments: Sequence[MinuteLine]) -> Html:
    """Return two charts: instances and bytes a minute over the time of the job."""
    if not moments:
        return Html()
    minutes, bins = _bins(moments)
    over = (
        "" if minutes == 1 else f", mean over {minutes} minutes" if minutes < 60 else f", mean over {minutes // 60} h"
    )
    instances = [(at, instances / minutes) for at, (instances, _) in bins]
    volumes = [(at, volume / minutes) for at, (_, volume) in bins]
    return element(
        "div",
        _rate("rate-instances", f"Instances a minute{over}", instances, count),
        _rate("rate-bytes", f"Bytes a minute{over}", volumes, size),
        class_="charts",
    )


def _bins(moments: Sequence[MinuteLine]) -> tuple[int, list[tuple[float, tuple[int, int]]]]:
    """Return how many minutes a column stands for, and the columns' beginnings with instances and bytes."""
    first, last = min(moment.at for moment in moments), max(moment.at for moment in moments)
    span = (last - first) / 60 + 1
    minutes = next(
        (one for one in _MINUTES if span / one <= _MOST_COLUMNS), int(span // _MOST_COLUMNS // 1440 + 1) * 1440
    )
    width = minutes * 60
    start = floor(first / width) * width
    bins = [[0, 0] for _ in range(int((last - start) // width) + 1)]
    for moment in moments:
        one = bins[int((moment.at - start) // width)]
        one[0] += moment.instances
        one[1] += moment.bytes
    return minutes, [(start + index * width, (one[0], one[1])) for index, one in enumerate(bins)]


def _rate(name: str, title: str, values: Sequence[tuple[float, float]], words: Callable[[float], str]) -> Html:
    columns = [
        Column(_time(at), f"{_time(at)} UTC: {words(value)} a minute", (("done", value),)) for at, value in values
    ]
    peak = max(value for _, value in values)
    active = [value for _, value in values if value]
    mean = sum(active) / len(active) if active else 0
    said = f"peak {words(peak)}, mean while moving {words(mean)}"
    return _chart(name, title, said, columns, words)


def _time(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day}{NBSP}{moment:%b %H:%M}".replace(" ", NBSP)


def month_chart(months: Sequence[MonthLine]) -> Html:
    """Return a chart of the instances by the month of their studies, or by year where there are very many months."""
    dated = {line.month: line for line in months if 1 <= line.month % 100 <= 12}
    if not dated:
        return Html()
    first, last = min(dated), max(dated)
    if _index(last) - _index(first) < _MOST_MONTHS:
        columns = [_month_column(month_name(_month(at)), [dated[_month(at)]] if _month(at) in dated else [])
                   for at in range(_index(first), _index(last) + 1)]  # fmt: skip
        title = "Instances by month of the study"
    else:
        years = sorted({month // 100 for month in dated})
        span = range(years[0], years[-1] + 1) if years[-1] - years[0] < _MOST_MONTHS else years
        columns = [_month_column(f"{year:04}", [line for month, line in dated.items() if month // 100 == year])
                   for year in span]  # fmt: skip
        title = "Instances by year of the study"
    lines = dated.values()
    whole, settled = sum(line.discovered for line in lines), sum(line.settled for line in lines)
    failed = sum(line.failed for line in lines)
    said = f"{share(settled, whole)} settled" + (f", {counted(failed, 'failure')}" if failed else "")
    return _chart("by-date", title, said, columns, count)


def _month_column(label: str, lines: Iterable[MonthLine]) -> Column:
    lines = list(lines)
    discovered, settled = sum(line.discovered for line in lines), sum(line.settled for line in lines)
    failed = sum(line.failed for line in lines)
    words = f"{label}: {counted(discovered, 'instance')}, {count(settled)} settled, {count(failed)} failed"
    parts = (("done", settled - failed), ("failed", failed), ("pending", discovered - settled))
    return Column(label, words, parts)


def _index(month: int) -> int:
    return month // 100 * 12 + month % 100 - 1


def _month(index: int) -> int:
    return index // 12 * 100 + index % 12 + 1


def _nice(peak: float) -> float:
    """Return a round number that is not less."""
    if peak <= 0:
        return 1.0
    power = 10.0 ** floor(log10(peak))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10, 12) if step * power >= peak)


def _chart(name: str, title: str, words: str, columns: Sequence[Column], scale: Callable[[float], str]) -> Html:
    top = _nice(max(sum(max(0.0, height) for _, height in column.parts) for column in columns))
    step = _WIDE / max(_FEW, len(columns))
    gap = min(step * 0.18, 4.0)
    drawn = [Html(f'<line class="grid" x1="0" x2="1000" y1="{y}" y2="{y}"></line>') for y in (0, 50, 100)]
    for index, column in enumerate(columns):
        drawn.append(_column(column, index * step + gap / 2, step - gap, top))
    picture = _svg(name, title, words, joined(*drawn), high=100, class_="plot")
    ticks = element(
        "div", *(element("span", scale(value)) for value in (top, top / 2, 0)), class_="y", aria_hidden="true"
    )
    return element(
        "figure",
        element("figcaption", element("b", title), " ", element("span", words, class_="quiet")),
        element("div", ticks, picture, _x_labels(columns), class_="frame"),
        class_="chart",
    )


def _x_labels(columns: Sequence[Column]) -> Html:
    last = len(columns) - 1
    if 0 < last < _FEW - 1:
        span = f"{columns[0].label} to {columns[-1].label}"
        return element("div", element("span", span), class_="x", aria_hidden="true")
    places = sorted({0, last} | ({last // 2} if last >= 6 else set()))
    return element("div", *(element("span", columns[at].label) for at in places), class_="x", aria_hidden="true")


def _column(column: Column, x: float, width: float, top: float) -> Html:
    rects, y = [], _HIGH
    for kind, value in column.parts:
        if value > 0:
            height = max(value / top * _HIGH, 1.0)
            y -= height
            rects.append(_rect(x, y, width, height, kind))
    return element("g", element("title", column.words), *rects) if rects else Html()


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Html:
    box = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"'
    return Html(f'<rect class="{kind}" {box}></rect>')


def _svg(name: str, title: str, words: str, content: Html, *, high: int, class_: str) -> Html:
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", words, id=f"{name}-words"),
        content,
        viewBox=f"0 0 1000 {high}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{name}-title {name}-words",
        class_=class_,
    )


# --- numbers and words -----------------------------------------------------------------------------------------------


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
    "sample": "After the run every instance was looked for in the target's list by its UIDs, and a sample of them was "
    "retrieved again and compared with what was sent.",
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
"""The meaning of each state."""


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
    """Return a share in per cent, rounded so that only all is 100 % and only nothing is 0 %."""
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


def verb_words(facts: JobFacts) -> str:
    """Return what kind of job it is."""
    return _VERBS.get(facts.verb, facts.verb)


def phase_words(facts: JobFacts) -> str:
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
