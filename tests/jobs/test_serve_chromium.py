"""The live page in a real browser: numbers that move, and clicks that reach the job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from postdicom_async.jobs.pages.serve import LivePage
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import Count, ReasonLine
from tests.jobs.browser import KEPT_IN, Tab, chromium, needs_chromium
from tests.jobs.summaries import FakeReader, big, small
from tests.jobs.test_serve import Job, ledger

FAILED = (
    ReasonLine(State.FAILED, Reason.REFUSED, 3, ("1.2.3",)),
    ReasonLine(State.FAILED, 65537, 2, ("1.2.4",)),
)


def number(state: str) -> str:
    return (
        "(() => { const row = [...document.querySelectorAll('#totals tbody tr')]"
        f".find((one) => one.innerText.startsWith('{state}')); return row ? row.children[1].innerText : ''; }})()"
    )


async def live(tab: Tab) -> None:
    await tab.until("document.getElementById('live').textContent === 'live'")


async def said(tab: Tab, words: str) -> None:
    await tab.until(f"document.getElementById('said').textContent.includes('{words}')")


@needs_chromium
async def test_the_numbers_move(tmp_path: Path) -> None:
    reader = FakeReader(small(done=30, left=70))
    async with LivePage(lambda: reader) as page, chromium(tmp_path / "profile") as tab:
        await tab.go(page.address)
        assert await tab.value("location.pathname + location.search") == "/"
        assert await tab.value("document.cookie") == ""  # no script can read it
        await live(tab)
        assert await tab.value(number("Moved")) == "30"
        await tab.value("document.querySelector('#dates .wide').focus()")
        reader.told = small(done=31, left=69)
        await tab.until(f"{number('Moved')} === '31'")
        assert await tab.value("document.activeElement.ariaLabel") == "By year of the study"  # nobody is thrown out
        reader.told = replace(reader.told, facts=replace(reader.told.facts, phase="complete"))
        await tab.until("document.querySelector('.pill').textContent === 'Complete, with open questions'")
        assert await tab.value("performance.getEntriesByType('navigation').length") == 1
        assert tab.problems == []


@needs_chromium
async def test_clicks_reach_the_job(tmp_path: Path) -> None:
    counts = {State.FAILED: Count(5), State.DONE: Count(20), State.PENDING: Count(5)}
    reader = FakeReader(small(counts=counts, months=(), reasons=FAILED))
    job = Job()
    async with LivePage(lambda: reader, ask=job.ask, control=True) as page, chromium(tmp_path / "profile") as tab:
        await tab.go(page.address)
        await live(tab)
        await tab.click("form[data-do=pause] button")
        await said(tab, "Paused")
        job.status = {**job.status, "paused": True}
        await tab.until("document.getElementById('pace').innerText.includes('is paused')")
        await tab.click("form[data-do=resume] button")
        await said(tab, "Resumed")
        await tab.write("input[name=max_rate]", "40M")
        await tab.write("input[name=at_once]", "6")
        await tab.click("form[data-do=set] button")
        await said(tab, "Set.")
        assert await tab.value("document.querySelector('input[name=max_rate]').value") == "40M"
        await tab.click("form[data-do=retry] button")
        await said(tab, "Everything")
        await tab.click("#failed tbody tr:nth-child(2) form button")
        await said(tab, "Those")
        job.answer = {"ok": False, "error": "the job <b>refuses</b>"}
        await tab.click("form[data-do=pause] button")
        await said(tab, "the job <b>refuses</b>")
        assert await tab.value("document.getElementById('said').className") == "said bad"
        assert tab.problems == []
    assert job.orders == [
        {"do": "pause"},
        {"do": "resume"},
        {"do": "set", "max_rate": "40M", "at_once": 6},
        {"do": "retry"},
        {"do": "retry", "reasons": [65537]},
        {"do": "pause"},
    ]


@needs_chromium
async def test_down_to_an_instance_by_clicks(tmp_path: Path) -> None:
    async with LivePage(ledger) as page, chromium(tmp_path / "profile") as tab:
        await tab.go(page.address)
        await live(tab)
        for selector, words in (
            ("nav a[href='/studies']", "Studies"),
            ("td a[href='/studies/1.2'], th a[href='/studies/1.2']", "Study 1.2"),
            ("a[href='/studies/1.2/1.2.1']", "1.2.1.99"),
            (".pages a", "1.2.1.199"),
        ):
            await tab.click(selector)
            await tab.until(f"document.querySelector('main')?.innerText.includes('{words}')")
        await tab.size(390)
        assert await tab.overflow() == []
        assert tab.problems == []


@needs_chromium
async def test_it_fits_everywhere(tmp_path: Path) -> None:
    kept, job = Path(KEPT_IN or tmp_path), Job()
    reader = FakeReader(big(phase="moving"))
    async with LivePage(lambda: reader, ask=job.ask, control=True) as page, chromium(tmp_path / "profile") as tab:
        await tab.go(page.address)
        await live(tab)
        for width in (390, 1280):
            for dark in (False, True):
                await tab.size(width, dark=dark)
                assert await tab.overflow() == []
                await tab.picture(kept / f"live-{width}{'-dark' if dark else ''}.png")
        heights = await tab.value(
            "[...document.querySelectorAll('button, input:not([type=hidden])')].map((one) => one.offsetHeight)"
        )
        assert min(heights) >= 44


@needs_chromium
async def test_the_end_of_the_server_is_told(tmp_path: Path) -> None:
    async with chromium(tmp_path / "profile") as tab:
        async with LivePage(ledger) as page:
            await tab.go(page.address)
            await live(tab)
        await tab.until("document.getElementById('live').className === 'live off'")
        assert await tab.value(number("Moved")) == "250"  # what was seen stays
