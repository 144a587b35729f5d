"""The report page in a real browser: a desk, a phone, a dark room, paper.

Pictures are kept in the folder that POSTDICOM_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postdicom_async.jobs.pages.page import page
from postdicom_async.jobs.summary import Summary
from tests.jobs.browser import KEPT_IN, chromium, needs_chromium
from tests.jobs.summaries import big, hostile, small

WRITTEN = datetime(2026, 11, 30, 14, 2, tzinfo=UTC)
PAGES = {"big": big(), "begun": small(), "hostile": hostile()}
# Pairs of colours that text is written in, as the browser computes them, against what it stands on.
CONTRAST = """
(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((one) => one / 255)
      .map((one) => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const worst = [...document.querySelectorAll("main *, footer *")]
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && !one.closest("svg"))
    .map((one) => {
      const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
      return [(a + .05) / (b + .05), one.tagName + "." + one.className];
    });
  return worst.sort((x, y) => x[0] - y[0])[0];
})()
"""


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
async def test_nothing_sticks_out_and_all_can_be_read(tmp_path: Path, name: str) -> None:
    file, kept = tmp_path / "report.html", Path(KEPT_IN or tmp_path)
    file.write_text(page(PAGES[name], version="9.9", written=WRITTEN), encoding="utf-8")

    async with chromium(tmp_path / "profile") as tab:
        await tab.go(file.as_uri())
        for width in (320, 390, 768, 1280):
            for dark in (False, True):
                await tab.size(width, dark=dark)
                sticks_out = await tab.overflow()
                if width < 390 or name == "hostile":  # a table may be scrolled where there is hardly any room
                    sticks_out = [one for one in sticks_out if not one.startswith("table ")]
                assert sticks_out == [], width
                contrast, where = await tab.value(CONTRAST)
                assert contrast >= 4.5, (dark, where)
                picture = await tab.picture(kept / f"job-{name}-{width}{'-dark' if dark else ''}.png")
                assert int.from_bytes(picture[16:20], "big") == width
        assert tab.problems == []


@needs_chromium
async def test_on_paper(tmp_path: Path) -> None:
    file, kept = tmp_path / "report.html", Path(KEPT_IN or tmp_path)
    file.write_text(page(big(), version="9.9", written=WRITTEN), encoding="utf-8")

    async with chromium(tmp_path / "profile") as tab:
        await tab.go(file.as_uri())
        await tab.size(690, dark=True, paper=True)
        assert await tab.overflow() == []
        assert await tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        contrast, where = await tab.value(CONTRAST)
        assert contrast >= 4.5, where
        printed = await tab.call("Page.printToPDF", printBackground=False)

    data = base64.b64decode(printed["data"])
    (kept / "job-big.pdf").write_bytes(data)
    assert 2 <= data.count(b"/Type /Page\n") <= 7


@needs_chromium
async def test_the_numbers_that_are_seen(tmp_path: Path) -> None:
    summary: Summary = big()
    file = tmp_path / "report.html"
    file.write_text(page(summary, version="9.9", written=WRITTEN), encoding="utf-8")

    async with chromium(tmp_path / "profile") as tab:
        await tab.go(file.as_uri())
        rows = await tab.value(
            "[...document.querySelectorAll('#totals tbody tr:not(.part), #totals tfoot tr')].map((row) => "
            "Number(row.children[1].innerText.replaceAll(',', '')))"
        )
        columns = await tab.value("document.querySelectorAll('#dates figure g').length")

    assert sum(rows[:-1]) == rows[-1] == summary.discovered
    assert columns == sum(1 for line in summary.months if line.month and line.discovered)
