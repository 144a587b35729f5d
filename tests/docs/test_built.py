"""The built pages in a real browser, as they lie in a folder: ``nox -s docs`` builds them first.

With ``POSTDICOM_SCREENSHOTS=FOLDER`` the pictures are kept, to be looked at.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.jobs.browser import KEPT_IN, chromium, needs_chromium

HTML = DOCS / "_build" / "html"
PAGES = (
    "index", "start/command-line", "archives/watch", "howto/tokens", "reference/commands", "reference/settings",
    "reference/environment", "reference/api/clients",
)  # fmt: skip
STICKS_OUT = """[...document.querySelectorAll("article *")].filter((one) =>
  one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".table-wrapper, .highlight, .headerlink")
).map((one) => one.tagName + "." + one.className)"""
FETCHED = "performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith('file:'))"

pytestmark = [
    pytest.mark.large,
    needs_chromium,
    pytest.mark.skipif(not (HTML / "index.html").is_file(), reason="not built: nox -s docs"),
]


async def test_pages_fit_a_phone_and_a_desk_in_light_and_dark(tmp_path: Path) -> None:
    """Nothing sticks out at the side, dark is dark, and nothing is fetched from elsewhere."""
    async with chromium(tmp_path / "profile") as tab:
        for page in PAGES:
            for width in (390, 1280):
                for dark in (False, True):
                    await tab.size(width, dark=dark)
                    await tab.go((HTML / f"{page}.html").as_uri())
                    where = (page, width, dark)
                    assert await tab.value("document.documentElement.scrollWidth") <= width, where
                    assert await tab.value(STICKS_OUT) == [], where
                    assert await tab.value(FETCHED) == [], where
                    colour = await tab.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
                    assert (int(colour) < 100) == dark, where
                    if KEPT_IN:
                        scheme = "dark" if dark else "light"
                        await tab.picture(Path(KEPT_IN) / f"page-{page.replace('/', '-')}-{width}-{scheme}.png")
        assert tab.problems == []


async def test_search_works_without_a_server(tmp_path: Path) -> None:
    async with chromium(tmp_path / "profile") as tab:
        for words, page in (("max-rate", "commands"), ("upload_each", "library.html"), ("Keycloak", "tokens.html")):
            await tab.go(f"{(HTML / 'search.html').as_uri()}?q={words}")
            async with asyncio.timeout(30):
                await tab.until(
                    f"[...document.querySelectorAll('#search-results li a')].some((one) => one.href.includes('{page}'))"
                )
