"""Every link in the pages leads somewhere, as far as can be told without a network, and every page can be reached."""

from __future__ import annotations

import re
import zlib
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import BUILT, DOCS, PROJECT, extension, filled

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its documentation")

OTHERS = [PROJECT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
OTHERS += [PROJECT / "tests" / "README.md", PROJECT / "benchmarks" / "README.md"]
PAGES = [*OTHERS, *BUILT]

CODE = re.compile(r"^( *)(```+|:::+)(?!\{(?:note|tip|warning|important)).*?^\1\2$|`+[^`\n]+`+|<!--.*?-->", re.M | re.S)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^()\s<>]+)>?(?: \"[^\"]*\")?\)|^\[[^\]]+\]: (\S+)$", re.M)


def links_of(path: Path) -> list[str]:
    text = CODE.sub("", filled(path) if path in BUILT else path.read_text(encoding="utf-8"))
    return [inline or referred for inline, referred in LINK.findall(text)]


@cache
def anchors_of(path: Path) -> frozenset[str]:
    """Return the anchors of a page: those of its headings, as GitHub and MyST make them, and those set by hand."""
    text = filled(path) if path in BUILT else path.read_text(encoding="utf-8")
    deepest = 3 if path in BUILT else 6  # ``myst_heading_anchors``
    headings = re.findall(rf"^#{{1,{deepest}}} (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip() for heading in headings)
    made = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain]
    repeated = [f"{one}-{number}" for one in made for number in range(1, made.count(one))]
    return frozenset(
        [*made, *repeated, *re.findall(r"^\(([\w-]+)\)=$", text, re.M), *re.findall(r'id="([\w-]+)"', text)]
    )


@cache
def labels() -> frozenset[str]:
    """Return the anchors set by hand in all pages."""
    return frozenset(label for path in BUILT for label in re.findall(r"^\(([\w-]+)\)=$", filled(path), re.M))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    wrong = []
    for link in links_of(path):
        parts = urlsplit(link)
        if parts.scheme:
            wrong += [link] if parts.scheme not in {"https", "mailto"} or not parts.path + parts.netloc else []
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        known = anchors_of(target) if target.suffix == ".md" and target.exists() else {parts.fragment}
        if path in BUILT and target == path:
            known = known | labels()  # MyST finds these from every page
        if not target.exists() or not target.is_relative_to(PROJECT) or parts.fragment not in {"", *known}:
            wrong.append(link)
    assert not wrong


def test_there_are_links() -> None:
    assert sum(len(links_of(path)) for path in PAGES) > 100
    assert "commands-and-options" in anchors_of(DOCS / "reference" / "commands.md")


def test_every_page_can_be_reached_from_the_first() -> None:
    """By tables of contents alone: that is what a reader's menu is made of."""
    reached, waiting = set[Path](), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for tree in re.findall(
            r"^(?:```|:::)\{toctree\}\n(.*?)^(?:```|:::)$", page.read_text(encoding="utf-8"), re.M | re.S
        ):
            entries = [line.strip() for line in tree.splitlines() if line.strip() and line[0] != ":"]
            targets = [re.sub(r"^.*<(.+)>$", r"\1", entry) for entry in entries]
            waiting.extend({(page.parent / f"{target}.md").resolve() for target in targets} - reached)
    assert reached == {path.resolve() for path in BUILT}


def test_nothing_is_fetched_when_a_page_is_read() -> None:
    """No picture, script, font or style from elsewhere: a network may not reach it, and it would see who reads."""
    for path in BUILT:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(?:img|script|link|iframe|video)\b[^>]*https?:", text), path
    for path in (DOCS / "_static").iterdir():
        assert path.stat().st_size < 150_000, path
        if path.suffix in {".css", ".svg"}:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"@import|@font-face|(?:url\(|href=|src=)[\"']?https?:", text), path


def test_the_inventories_are_those_that_are_made() -> None:
    """Names of Python, pydicom and httpx that pages link to exist in what is installed."""
    inventories = extension("inventories")
    for name in ("python", "pydicom", "httpx"):
        made = getattr(inventories, f"{name}_entries")()
        kept = (DOCS / "_inventories" / f"{name}.inv").read_bytes().split(b"zlib.\n", 1)[1]
        assert zlib.decompress(kept).decode().splitlines() == sorted(made)
