"""Pure: the live page of a job, and its detail pages: studies, series, instances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from postdicom_async.jobs.pages.figures import NBSP, STACK, count, duration, minute, month_name, share, share_bar, size
from postdicom_async.jobs.pages.page import document, parts, table, title_of
from postdicom_async.jobs.states import State, reason_text
from postdicom_async.jobs.summary import STATE_NAMES, settled
from postdicom_async.markup import Html, element, empty, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postdicom_async.jobs.pages.eta import Forecast
    from postdicom_async.jobs.summary import Count, ItemLine, ReasonLine, SeriesLine, StudyLine, Summary


NO_STUDY = "-"
"""Replaces the study UID in addresses of files that are not instances."""

_STYLE = Html(empty("link", rel="stylesheet", href="/style.css"))
_SCRIPT = element("script", src="/live.js", defer=True)


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job as it stands now.

    Attributes:
        summary: its state.
        pace: its forecast.
        status: what the process that runs it reports; empty without one.
        version: of this program.
    """

    summary: Summary
    pace: Forecast
    status: Mapping[str, Any]
    version: str


def live_page(look: JobSnapshot, *, proof: str = "") -> str:
    """Return the page; with ``proof`` it has the controls."""
    shown = live_parts(look, proof=proof)
    controls = _controls(proof) if proof else Html()
    top, pace = shown.pop("top"), shown.pop("pace")
    main = element("main", top, pace, controls, *shown.values())
    footer = element("footer", element("p", f"postdicom-async{NBSP}{look.version}. Instances are named by UIDs alone."))
    title = title_of(look.summary.facts)
    return document(title, joined(_nav(is_live=True), main, footer, _SCRIPT), style=_STYLE)


def live_parts(look: JobSnapshot, *, proof: str = "") -> dict[str, Html]:
    """Return the sections that change, by their ids."""

    def more(line: ReasonLine) -> Html:
        query = urlencode({"state": line.state.name.lower(), "reason": line.reason})
        link = element("a", f"all {count(line.instances)}", href=f"/items?{query}")
        may_retry = bool(proof) and line.state is State.FAILED
        retry = _form(proof, "retry", "Retry these", reason=str(line.reason)) if may_retry else Html()
        return element("div", link, retry, class_="inline")

    return {"pace": element("div", _pace(look), id="pace"), **parts(look.summary, more=more)}


def _nav(*, is_live: bool = False) -> Html:
    state = element("span", "connecting", id="live", class_="live", data_kind="live", role="status")
    links = (
        element("a", name, href=to) for name, to in (("Job", "/"), ("Studies", "/studies"), ("Metrics", "/metrics"))
    )
    return element("nav", *links, state if is_live else Html(), aria_label="Pages")


def _pace(look: JobSnapshot) -> Html:
    summary, pace = look.summary, look.pace
    state = _status_words(look.status)
    if state not in ("", "runs"):
        pace = pace.at_rest()
    whole = summary.discovered + summary.expected
    done = settled(summary)
    done_words = left = "not known yet"
    if pace.fraction is not None:
        done_words = share(int(pace.fraction * 1_000_000), 1_000_000)
    if pace.seconds is not None:
        left = duration(pace.seconds)
    known = [
        ("Verified" if summary.facts.phase == "verifying" else "Done", done_words),
        ("Time left", "none" if summary.facts.phase == "complete" else left),
        ("Instances a minute", count(pace.instances)),
        ("Bytes a minute", size(pace.bytes)),
    ]
    if state:
        known.append(("The job", state))
    if "max_rate" in look.status:
        known.append(("At most", _limits(look.status)))
    facts = (element("div", element("dt", name), element("dd", element("bdi", value))) for name, value in known)
    failed = summary.of(State.FAILED).instances
    bar = share_bar("pace-bar", "What is settled", done - failed, failed, whole)
    return element("div", bar, element("dl", *facts), class_="pace")


def _status_words(status: Mapping[str, Any]) -> str:
    if not status:
        return ""
    if not status.get("ok", True):
        return "does not run now"
    if status.get("paused"):
        return "is paused"
    if status.get("open") is False:
        change = status.get("next_change")
        until = minute(datetime.fromisoformat(str(change)).astimezone(UTC)) if change else "it is changed"
        return f"waits for its window until {until}"
    return "runs"


def _limits(status: Mapping[str, Any]) -> str:
    rate, at_once = str(status.get("max_rate")), status.get("at_once")
    unit = rate.lstrip("0123456789.")
    words = "any rate" if rate == "off" else f"{rate.removesuffix(unit)}{NBSP}{unit.replace('K', 'k')}B/s"
    return words + (f", {at_once} at once" if at_once else "")


def _controls(proof: str) -> Html:
    rate = element("label", "Max rate, such as 40M or off", empty("input", name="max_rate", autocomplete="off"))
    at_once = element(
        "label", "At once", empty("input", name="at_once", inputmode="numeric", pattern="[0-9]*", autocomplete="off")
    )
    forms = (
        _form(proof, "pause", "Pause"),
        _form(proof, "resume", "Resume"),
        _form(proof, "retry", "Retry failed"),
        _form(proof, "set", "Set", rate, at_once),
    )
    said = element("p", id="said", role="status", data_kind="said")
    return element("section", element("h2", "Control"), element("div", *forms, class_="controls"), said, id="control")


def _form(proof: str, do: str, words: str, *fields: Html, **hidden: str) -> Html:
    kept = {"proof": proof, "do": do, **hidden}
    inputs = (empty("input", type="hidden", name=name, value=value) for name, value in kept.items())
    button = element("button", words, type="submit")
    return element("form", *inputs, *fields, button, method="post", action="/control", data_do=do)


# --- detail pages --------------------------------------------------------------------------------------------------


def studies_page(lines: Sequence[StudyLine], *, state: str, page: int, is_more: bool) -> str:
    """Return a page of studies, all or those that have items in a state."""
    rows = [
        (
            element("a", element("code", line.uid or "no instances"), href=f"/studies/{line.uid or NO_STUDY}"),
            month_name(line.month) if line.uid else "",
            line.basis,
            *_counts(line.counts),
        )
        for line in lines
    ]
    states = [("all", "")] + [(STATE_NAMES[one], one.name.lower()) for one in STACK]
    links = (
        element("a", name, href=f"/studies?state={value}" if value else "/studies",
                aria_current="page" if value == state else False)
        for name, value in states
    )  # fmt: skip
    shown = table("Studies", ("Study", "Month~", "Known by~", *_COUNT_COLUMNS), rows) if rows else _nothing()
    more = _pages("/studies", {"state": state}, page, is_more=is_more)
    choice = element(
        "div", "Show those with something: ", *(part for link in links for part in (link, " ")), class_="crumbs"
    )
    return _sub_page("Studies", element("h1", "Studies"), choice, shown, more)


def series_page(study: str, lines: Sequence[SeriesLine]) -> str:
    """Return the series of a study."""
    place = f"/studies/{study or NO_STUDY}"
    rows = [
        (
            element("a", element("code", line.uid or "no instances"), href=f"{place}/{line.uid or NO_STUDY}"),
            *_counts(line.counts),
        )
        for line in lines
    ]
    shown = table("Series of the study", ("Series", *_COUNT_COLUMNS), rows) if rows else element(
        "p", "Its instances were not listed: it was equal by count, or is not planned yet.", class_="quiet"
    )  # fmt: skip
    crumbs = element("p", element("a", "Studies", href="/studies"), class_="crumbs")
    return _sub_page("A study", crumbs, element("h1", "Study ", element("code", study or "no instances")), shown)


def items_page(
    lines: Sequence[ItemLine], *, place: str, query: Mapping[str, str], page: int, is_more: bool, of: str = ""
) -> str:
    """Return a page of instances: of a series (``of`` is its study's UID), or in a state and for a reason."""
    rows = [
        (
            element("code", line.uid or line.item),
            STATE_NAMES[line.state],
            reason_text(line.reason),
            count(line.attempts),
            size(line.size) if line.size else "\N{EN DASH}",
            *(() if of else (element("a", element("code", line.study), href=f"/studies/{line.study}"),)),
        )
        for line in lines
    ]
    columns = ("Instance", "State", "Reason", "Attempts#~", "Bytes#", *(() if of else ("Study",)))
    up = element("a", element("code", of), href=f"/studies/{of}") if of else element("a", "Job", href="/")
    crumbs = element("p", element("a", "Studies", href="/studies"), " / ", up, class_="crumbs")
    shown = table("Instances", columns, rows) if rows else _nothing()
    return _sub_page(
        "Instances", crumbs, element("h1", "Instances"), shown, _pages(place, query, page, is_more=is_more)
    )


def message_page(title: str, words: str, *, back: bool = True) -> str:
    """Return a page that says one thing."""
    link = element("p", element("a", "Back to the job", href="/")) if back else Html()
    return _sub_page(title, element("h1", title), element("p", words), link, nav=back)


_COUNT_COLUMNS = ("Instances#", "At the target#", "Failed#", "To be done#")


def _counts(counts: Mapping[State, Count]) -> tuple[str, ...]:
    def of(*states: State) -> str:
        return count(sum(counts[state].instances for state in states if state in counts))

    return of(*State), of(State.DONE, State.PRESENT), of(State.FAILED), of(State.PENDING, State.RUNNING)


def _pages(place: str, query: Mapping[str, str], page: int, *, is_more: bool) -> Html:
    def link(words: str, to: int) -> Html:
        asked = urlencode({**{name: value for name, value in query.items() if value}, "page": to})
        return element("a", words, href=f"{place}?{asked}")

    links = [link("Earlier", page - 1)] if page > 1 else []
    links += [link("Later", page + 1)] if is_more else []
    return element("div", *links, class_="pages") if links else Html()


def _nothing() -> Html:
    return element("p", "There is nothing here.", class_="quiet")


def _sub_page(title: str, *content: Html, nav: bool = True) -> str:
    return document(title, joined(_nav() if nav else Html(), element("main", *content)), style=_STYLE if nav else None)
