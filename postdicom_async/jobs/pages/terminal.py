"""A job drawn on a terminal in a few lines, for ``jobs watch`` and while a job runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from postdicom_async.jobs.pages.figures import STACK, count, counted, duration, share, size, status_words, verb_words
from postdicom_async.jobs.states import State, reason_text
from postdicom_async.jobs.summary import STATE_NAMES, contradictions, equal_instances, name_of, reasons_of, total

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from postdicom_async.jobs.pages.eta import Forecast
    from postdicom_async.jobs.summary import Summary


_COLOURS = {
    State.DONE: "green",
    State.PRESENT: "cyan",
    State.RUNNING: "cyan",
    State.UNCONFIRMED: "yellow",
    State.FAILED: "red",
    State.EXCLUDED: "bright_black",
    State.PENDING: "bright_black",
    State.DELETED: "magenta",
}
_ROOMY = 60  # columns
_MOST_REASONS = 5


def draw(summary: Summary, pace: Forecast, width: int, *, rests: str = "") -> RenderableType:
    """Return a job for a terminal of so many columns: what it is, how far, how fast, and what went wrong.

    ``rests`` says why a job that is not complete does not work now, such as ``"stopped"``; no speed is shown then.
    Texts are drawn as they are, without markup, and control characters are taken out.
    """
    rests, pace = _at_rest(summary, pace, rests)
    parts: list[RenderableType] = [_title(summary, rests), _bar(pace, width), Text(line(summary, pace, title=False))]
    parts += [Text(""), _states(summary, width)]
    problems = list(_problems(summary, width))
    if problems:
        parts += [Text(""), *problems]
    return Group(*parts)


def line(summary: Summary, pace: Forecast, *, title: bool = True, rests: str = "") -> str:
    """Return a job in one line: how far, how fast, how long; ``rests`` as in `draw`."""
    facts = summary.facts
    rests, pace = _at_rest(summary, pace, rests)
    left = total(summary, (State.PENDING, State.RUNNING)).instances + summary.expected
    words = [
        f"{count(summary.discovered - total(summary, (State.PENDING, State.RUNNING)).instances)} of "
        f"{count(summary.discovered + summary.expected)}" + ("" if summary.discovery_complete else " found so far"),
    ]
    if rests:
        words.append(rests)
    if pace.instances:
        words.append(f"{count(pace.instances)} a minute, {size(pace.bytes / 60)}/s")
    if left and pace.seconds is not None and facts.phase != "complete":
        words.append(f"{duration(pace.seconds)} left")
    failed = summary.of(State.FAILED).instances
    if failed and title:
        words.append(f"{count(failed)} failed")
    text = ", ".join(words)
    return _clean(f"{verb_words(facts)} {facts.source} to {facts.target}: {text}" if title else text)


def _at_rest(summary: Summary, pace: Forecast, rests: str) -> tuple[str, Forecast]:
    return (rests, pace.at_rest()) if rests and summary.facts.phase != "complete" else ("", pace)


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\N{NO-BREAK SPACE}" else "\ufffd" for letter in text)


def _title(summary: Summary, rests: str) -> Text:
    facts = summary.facts
    words, colour = status_words(summary)
    if rests:
        words, colour = f"{words}: {rests}", "doubtful"
    text = Text(overflow="fold")
    text.append(f"{_clean(verb_words(facts))} ", style="bold")
    text.append(f"{_clean(facts.source)} \N{RIGHTWARDS ARROW} {_clean(facts.target)}  ")
    text.append(_clean(words), style={"bad": "bold red", "doubtful": "yellow", "good": "green"}.get(colour, "cyan"))
    return text


def _bar(pace: Forecast, width: int) -> RenderableType:
    if pace.fraction is None:
        return Text("The source is still being listed.", style="bright_black")
    table = Table.grid(padding=(0, 1))
    words = share(int(pace.fraction * 1_000_000), 1_000_000)
    bar = ProgressBar(
        total=1.0,
        completed=pace.fraction,
        width=max(10, min(width, 100) - len(words) - 2),
        complete_style=Style(color="cyan"),
        finished_style=Style(color="green"),
    )
    table.add_row(bar, Text(words, style="bold"))
    return table


def _states(summary: Summary, width: int) -> Table:
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(overflow="fold")
    for _ in range(3 if width >= _ROOMY else 1):
        table.add_column(justify="right", no_wrap=True)

    def add(name: Text, instances: int, volume: int | None, style: str = "") -> None:
        cells = [count(instances)]
        if width >= _ROOMY:
            known = "" if volume is None else size(volume) if volume else "\N{EN DASH}"
            cells += [share(instances, summary.discovered), known]
        table.add_row(name, *(Text(cell, style=style) for cell in cells))

    for state in STACK:
        one = summary.of(state)
        if one.instances or (state is State.DONE and summary.facts.verb != "verify"):
            name = Text.assemble(("\N{BLACK SQUARE} ", _COLOURS[state]), name_of(state, summary.facts.verb))
            add(name, one.instances, one.bytes)
        if state is State.PRESENT and equal_instances(summary):
            add(Text("    equal by count, not listed", style="bright_black"), equal_instances(summary), None)
    whole = total(summary)
    add(Text("  discovered, the sum", style="bold"), whole.instances, whole.bytes, "bold")
    return table


def _problems(summary: Summary, width: int) -> Iterator[RenderableType]:
    for wrong in contradictions(summary):
        yield Text(f"This does not add up: {_clean(wrong)}", style="bold red")
    if summary.mismatches:
        yield Text(f"{counted(summary.mismatches, 'instance')} absent at the target, or different", style="bold red")
    lines = [line for state in (State.FAILED, State.UNCONFIRMED) for line in reasons_of(summary, state)]
    for one in lines[:_MOST_REASONS]:
        text = Text(overflow="fold")
        text.append(f"{count(one.instances)} {STATE_NAMES[one.state]}: ", style=_COLOURS[one.state])
        text.append(reason_text(one.reason))
        if one.examples and width >= _ROOMY:
            text.append(f"\n  {_clean(one.examples[0])}", style="bright_black")
        yield text
    if len(lines) > _MOST_REASONS:
        yield Text(f"and {counted(len(lines) - _MOST_REASONS, 'other reason')}", style="bright_black")
    if summary.notes:
        yield Text(_clean(summary.notes[-1]), style="bright_black", overflow="fold")
