"""The figures as a part of a Markdown page: one block a section, so that a section can be measured again alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.table import TARGET_HEADINGS, aligned, cells, markdown
from benchmarks.targets import NOT_MEASURED, TARGETS, found

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.runner import Bench

START, END = "<!-- figures: written by python -m benchmarks --markdown, not by hand -->", "<!-- end of figures -->"
_BLOCK = re.compile(r"<!-- section (\S+) -->\n(.*?)\n<!-- end of section -->", re.DOTALL)
_TARGET_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)
TARGETS_NAME = "targets"


def table_of(bench: Bench, section: str, draw: Callable[[Sequence[Sequence[str]], int], str]) -> str:
    """Return a section's table, with its notes."""
    lines = bench.lines.get(section)
    rows = [row for row in bench.rows if row.case.section == section]
    drawn = draw([lines.headings, *lines.rows], 1) if lines else draw(cells(rows), 2) if rows else "nothing measured"
    return "\n".join([drawn, "", *(f"* {note}" for note in bench.notes.get(section, []))]).rstrip()


def target_lines(bench: Bench) -> list[tuple[str, str, str, str]]:
    """Return what is wanted, measured, and reached."""
    what = found(bench.rows, bench.figures)
    return [target.line(what) for target in TARGETS]


def targets_table(lines: Sequence[tuple[str, str, str, str]]) -> str:
    """Return the table of targets for a terminal."""
    return aligned([TARGET_HEADINGS, *lines], 4)


def section_block(bench: Bench, section: str, title: str, circumstances: str) -> str:
    """Return a section as Markdown."""
    return f"### {title}\n\n{table_of(bench, section, markdown)}\n\n{circumstances}"


def page_with(old: str, blocks: dict[str, str], lines: Sequence[tuple[str, str, str, str]]) -> str:
    """Return a page with new blocks; those of sections that were not measured, and lines of targets, stay. Pure.

    Args:
        old: the page as it is, which may be empty; only what is between the marks changes.
        blocks: Markdown by section.
        lines: of the table of targets.
    """
    before, _, rest = old.partition(START)
    inside, _, after = rest.partition(END)
    kept = dict(_BLOCK.findall(inside))
    known = {row[:2]: row for row in _TARGET_ROW.findall(kept.pop(TARGETS_NAME, ""))}
    merged = [known.get(line[:2], line) if line[3] == NOT_MEASURED else line for line in lines]
    kept |= blocks
    kept = {TARGETS_NAME: f"### Targets\n\n{markdown([TARGET_HEADINGS, *merged], 4)}", **kept}
    drawn = "\n\n".join(f"<!-- section {name} -->\n{text}\n<!-- end of section -->" for name, text in kept.items())
    return f"{before}{START}\n\n{drawn}\n\n{END}{after or chr(10)}"
