"""The report page of a job: one HTML file without scripts or external resources. Pure.

`parts` are its sections, which the live page shows too. Texts are escaped by `markup`, whoever wrote them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.jobs.pages.figures import (
    LEVELS,
    MEANINGS,
    NBSP,
    STACK,
    count,
    counted,
    duration,
    minute,
    month_chart,
    rate_charts,
    share,
    share_bar,
    size,
    state_bar,
    status_words,
    tag_words,
    verb_words,
)
from postdicom_async.jobs.pages.page_assets import STYLE, source_of
from postdicom_async.jobs.states import State, reason_text
from postdicom_async.jobs.summary import (
    at_target,
    contradictions,
    equal_instances,
    name_of,
    reasons_of,
    settled,
    total,
)
from postdicom_async.markup import Html, element, empty, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from postdicom_async.jobs.summary import JobFacts, MonthLine, ReasonLine, Summary


_POLICY = f"default-src 'none'; style-src {source_of(STYLE)}; img-src data:; base-uri 'none'; form-action 'none'"
_PRIVACY = (
    "Studies, series and instances are named by their UIDs alone. To whoever has the archive, a UID is the way to a "
    "patient: keep this page as such."
)


def page(summary: Summary, *, version: str, written: datetime) -> str:
    """Return the report page of a job as it stands.

    Args:
        summary: the job.
        version: of this program.
        written: the moment of the summary, with a time zone.
    """
    facts = summary.facts
    written_by = f"Written {minute(written)} by postdicom-async{NBSP}{version}. "
    main = element("main", *parts(summary, facts=(("Written", minute(written)), ("Version", version))).values())
    head = Html(empty("meta", http_equiv="Content-Security-Policy", content=_POLICY))
    return document(title_of(facts), joined(main, element("footer", element("p", written_by + _PRIVACY))), head=head)


def title_of(facts: JobFacts) -> str:
    """Return what a job is in one line."""
    return f"{verb_words(facts)}: {facts.source} \N{RIGHTWARDS ARROW} {facts.target}"


def document(title: str, body: Html, *, head: Html | None = None, style: Html | None = None) -> str:
    """Return an HTML document with the style sheet in it, or with what names one."""
    heading = element(
        "head",
        empty("meta", charset="utf-8"),
        head or Html(),
        empty("meta", name="viewport", content="width=device-width, initial-scale=1"),
        empty("meta", name="robots", content="noindex, nofollow"),
        empty("meta", name="referrer", content="no-referrer"),
        empty("link", rel="icon", href="data:,"),
        element("title", title),
        style or element("style", Html(STYLE)),
    )
    return f"<!DOCTYPE html>\n{element('html', heading, element('body', body), lang='en')}\n"


def parts(
    summary: Summary, *, facts: Sequence[tuple[str, str]] = (), more: Callable[[ReasonLine], Html] | None = None
) -> dict[str, Html]:
    """Return the sections of a page by their ids, in order; one that has nothing to show is empty.

    Args:
        summary: the job.
        facts: what else stands among the facts.
        more: returns what is shown beside a reason.
    """
    made = {
        "top": _top(summary, facts),
        "sums": _alarm(summary),
        "totals": _totals(summary),
        "failed": _reasons(summary, State.FAILED, "Failed", more),
        "unconfirmed": _reasons(summary, State.UNCONFIRMED, "Unconfirmed", more),
        "rate": _section("Rate over time", rate_charts(summary.moments)) if summary.moments else Html(),
        "dates": _dates(summary),
        "verification": _verification(summary),
        "excluded": _reasons(summary, State.EXCLUDED, "Excluded", more),
        "notes": _notes(summary),
    }
    return {name: element("div", part, id=name) for name, part in made.items()}


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Html]],
    *,
    foot: Sequence[str] = (),
    below: Collection[int] = (),
    class_: str | bool = False,
) -> Html:
    """Return a table whose first column holds the rows' headings.

    Columns whose names end in ``#`` hold numbers, and those that end in ``~`` are left out where there is little room.

    Rows whose numbers are in ``below`` say what the row above is made of.
    """
    classes: list[str | bool] = [
        " ".join(word for mark, word in (("#", "n"), ("~", "roomy")) if mark in name[-2:]) or False for name in columns
    ]

    def cells(row: Sequence[str | Html]) -> Html:
        first, *rest = row
        others = (element("td", value, class_=class_) for value, class_ in zip(rest, classes[1:], strict=False))
        return joined(element("th", first, scope="row"), *others)

    names = (
        element("th", name.rstrip("#~"), scope="col", class_=class_)
        for name, class_ in zip(columns, classes, strict=True)
    )
    content = [
        element("caption", caption, class_="hidden"),
        element("thead", element("tr", *names)),
        element(
            "tbody",
            *(element("tr", cells(row), class_="part" if at in below else False) for at, row in enumerate(rows)),
        ),
        element("tfoot", element("tr", cells(foot))) if foot else Html(),
    ]
    return element(
        "div", element("table", *content, class_=class_), class_="wide", tabindex="0", role="region", aria_label=caption
    )


def _section(heading: str, *content: Html) -> Html:
    return element("section", element("h2", heading), *content)


def _top(summary: Summary, more: Sequence[tuple[str, str]]) -> Html:
    facts = summary.facts
    words, colour = status_words(summary)
    heading = joined(
        element("bdi", facts.source),
        " ",
        element("span", "\N{RIGHTWARDS ARROW}", class_="to", aria_label="to", role="img"),
        " ",
        element("bdi", facts.target),
    )
    known = [
        ("Job", facts.job),
        ("Begun", minute(facts.created)),
        ("Worked for", duration(summary.seconds)),
        ("Runs", count(facts.run)),
        ("Verification", facts.verify),
        *more,
    ]
    return element(
        "header",
        element("p", verb_words(facts), " ", element("span", words, class_=f"pill {colour}".strip()), class_="kind"),
        element("h1", heading),
        element("p", _lead(summary), class_="lead"),
        _numbers(summary),
        element("dl", *(_fact(name, value) for name, value in known), class_="facts"),
    )


def _fact(name: str, value: str | Html, small: str = "", *, class_: str | bool = False) -> Html:
    extra = element("small", small) if small else Html()
    return element("div", element("dt", name), element("dd", element("bdi", value), extra, class_=class_))


def _lead(summary: Summary) -> str:
    """Return the job in two sentences."""
    found = f"{counted(summary.discovered, 'item')} in {counted(summary.studies, 'study', 'studies')} were found"
    left = total(summary, (State.PENDING, State.RUNNING)).instances
    failed, doubtful = summary.of(State.FAILED).instances, summary.of(State.UNCONFIRMED).instances
    ends = [f"{count(failed)} failed"] if failed else []
    if doubtful:
        ends.append(f"of {count(doubtful)} it is not known whether they arrived")
    if left:
        ends.append(f"{count(left)} are still to be done")
    if summary.expected:
        ends.append(f"{counted(summary.expected, 'instance')} in other studies are not looked at yet")
    if not summary.discovery_complete:
        found += " so far, and the source is still being listed"
    words = ", ".join(ends[:-1]) + (" and " if len(ends) > 1 else "") + ends[-1] if ends else "none failed"
    return f"{found}. {words[0].upper()}{words[1:]}."


def _numbers(summary: Summary) -> Html:
    moved, failed, doubtful = (summary.of(state) for state in (State.DONE, State.FAILED, State.UNCONFIRMED))
    expected = summary.discovered - summary.of(State.EXCLUDED).instances - summary.of(State.DELETED).instances
    there = at_target(summary)
    found = [
        _fact("Discovered", count(summary.discovered), counted(summary.studies, "study", "studies")),
        _fact("At the target", count(there), share(there, expected)),
        _fact("Failed", count(failed.instances), class_="bad" if failed.instances else False),
    ]
    if summary.facts.verb != "verify":
        found.insert(2, _fact("Moved by this job", count(moved.instances), size(moved.bytes)))
    if doubtful.instances:
        found.append(_fact("Unconfirmed", count(doubtful.instances)))
    left = total(summary, (State.PENDING, State.RUNNING))
    if left.instances:
        found.append(_fact("Still to be done", count(left.instances)))
    return element("dl", *found, class_="numbers")


def _alarm(summary: Summary) -> Html:
    wrong = contradictions(summary)
    if not wrong:
        return Html()
    words = "Sums that must be equal are not. Do not rely on this report; look at the ledger, and report a bug."
    lines = element("ul", *(element("li", line) for line in wrong))
    return element("div", element("h2", "This does not add up"), words, lines, class_="alarm", role="alert")


def _totals(summary: Summary) -> Html:
    rows: list[Sequence[str | Html]] = []
    below: set[int] = set()
    verb = summary.facts.verb
    always = {State.PRESENT, State.FAILED} | ({State.DONE} if verb != "verify" else set())
    for state in STACK:
        one = summary.of(state)
        if not one.instances and state not in always:
            continue
        mark = element("span", class_=f"swatch {state.name.lower()}", aria_hidden="true")
        name = joined(mark, name_of(state, verb).capitalize())
        volume = size(one.bytes) if one.bytes else "\N{EN DASH}"
        rows.append((name, count(one.instances), share(one.instances, summary.discovered), volume))
        if state is State.PRESENT and summary.equal_by_count:
            below |= {len(rows), len(rows) + 1}
            equal = equal_instances(summary)
            lines = (("listed at the target", one.instances - equal), ("equal by count, not listed", equal))
            rows += [(f"of these {word}", count(n), share(n, summary.discovered), "") for word, n in lines]
    whole = total(summary)
    foot = ("Discovered, the sum of these", count(whole.instances), share(whole.instances, whole.instances),
            size(whole.bytes))  # fmt: skip
    columns = ("What became of it", "Instances#", "Share#", "Bytes#")
    made = table("What became of everything that was discovered", columns, rows, foot=foot, below=below)
    note = Html()
    if summary.equal_by_count:
        note = element(
            "p",
            f"{counted(summary.equal_by_count, 'study', 'studies')} had as many instances at the target as at the "
            "source and were not listed one by one: their instances are counted, and were not compared. “verify” lists "
            "and compares them all.",
            class_="quiet",
        )
    return _section("Totals", state_bar(summary), made, note)


def _reasons(summary: Summary, state: State, heading: str, more: Callable[[ReasonLine], Html] | None) -> Html:
    lines = reasons_of(summary, state)
    number = summary.of(state).instances
    if not number:
        return Html()
    rows = [
        (
            reason_text(line.reason),
            count(line.instances),
            joined(
                element("ul", *(element("li", element("code", uid)) for uid in line.examples), class_="uids"),
                more(line) if more else Html(),
            ),
        )
        for line in lines
    ]
    if (rest := number - sum(line.instances for line in lines)) > 0:
        rows.append(("no reason is known", count(rest), Html()))
    shown = table(f"{heading}, by reason", ("Reason", "Items#", "For example"), rows, class_="stacked")
    return _section(f"{heading}: {count(number)}", element("p", MEANINGS[state], class_="quiet"), shown)


def _dates(summary: Summary) -> Html:
    if not summary.months:
        return Html()
    years: dict[int, list[MonthLine]] = {}
    for line in summary.months:
        years.setdefault(line.month // 100 if 1 <= line.month % 100 <= 12 else 0, []).append(line)
    rows = [_year_row(year, years[year]) for year in sorted(years, key=lambda year: (year == 0, -year))]
    columns = ("Year", "Studies#~", "Instances#", "Settled#", "Failed#", "Progress~")
    lines = summary.months
    studies, failed = sum(line.studies for line in lines), summary.of(State.FAILED).instances
    whole = summary.discovered, settled(summary), failed
    dated = (
        sum(line.discovered for line in lines),
        sum(line.settled for line in lines),
        sum(line.failed for line in lines),
    )
    if dated[0] < whole[0]:  # what is no instance is in no study
        rows.append(("No instance", "", *(count(all_ - some) for all_, some in zip(whole, dated, strict=True)), ""))
    legend = element(
        "ul",
        *(
            element("li", element("span", class_=f"swatch {kind}", aria_hidden="true"), name)
            for kind, name in (("done", "settled"), ("failed", "failed"), ("pending", "to be done"))
        ),
        class_="legend",
    )
    chart = month_chart(summary.months)
    shown = table("By year of the study", columns, rows, foot=("All", *map(count, (studies, *whole)), ""))
    return _section("Progress by study date", chart, legend if chart else Html(), shown)


def _year_row(year: int, lines: Sequence[MonthLine]) -> tuple[str | Html, ...]:
    studies, discovered = sum(line.studies for line in lines), sum(line.discovered for line in lines)
    ended, failed = sum(line.settled for line in lines), sum(line.failed for line in lines)
    name = f"{year:04}" if year else "Undated"
    bar = share_bar(f"year-{year}", f"{name}: progress", ended - failed, failed, discovered)
    return name, count(studies), count(discovered), count(ended), count(failed), bar


def _verification(summary: Summary) -> Html:
    facts = summary.facts
    is_sample = facts.verify == "bytes" and facts.sample < 1
    content = [element("p", LEVELS.get("sample" if is_sample else facts.verify, ""), class_="quiet")]
    if facts.verify != "none":
        found = [
            _fact("Level", facts.verify, f"a sample of {facts.sample:.3g}" if is_sample else ""),
            _fact("Found as they should be", count(summary.verified)),
            _fact("Absent or different", count(summary.mismatches), class_="bad" if summary.mismatches else False),
        ]
        content.append(element("dl", *found, class_="numbers"))
    if facts.verify != "none" and equal_instances(summary):
        words = f"{count(equal_instances(summary))} that were equal by count were not listed, and are not among these."
        content.append(element("p", words, class_="quiet"))
    if summary.coerced:
        ordered = sorted(summary.coerced.items(), key=lambda one: (-one[1], one[0]))
        rows = [(element("code", tag), keyword, count(number))
                for (tag, keyword), number in ((tag_words(tag), number) for tag, number in ordered)]  # fmt: skip
        content += [
            element("h3", "What the target changed"),
            element(
                "p", "These elements came back otherwise than they were sent. All else was the same.", class_="quiet"
            ),
            table("Elements that the target changed", ("Tag", "Keyword", "Instances#"), rows),
        ]
    return _section("Verification", *content)


def _notes(summary: Summary) -> Html:
    if not summary.notes:
        return Html()
    lines = (element("li", element("bdi", note)) for note in summary.notes)
    return _section("What else is to be known", element("ul", *lines, class_="notes"))
