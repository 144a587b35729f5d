"""The threat model names tests that exist, one at least for each threat."""

from __future__ import annotations

import re

from tests.docs.pages import PROJECT
from tests.unit.test_promises import NAMED, TESTS, functions_in

PAGE = (PROJECT / "docs" / "trust" / "threat-model.md").read_text(encoding="utf-8")


def test_the_tests_it_names_exist() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) == PAGE.count("::") > 50
    assert not [f"{file}::{name}" for file, name in named if not (TESTS / file).is_file()]
    assert not [f"{file}::{name}" for file, name in named if name not in functions_in(file)]


def test_every_threat_has_one() -> None:
    tables = [part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE) if "| shown by |" in part]
    assert len(tables) == 4
    rows = [row for part in tables for row in part.splitlines() if row.startswith("| ") and "| threat |" not in row]
    assert len(rows) > 25
    assert not [row for row in rows if not NAMED.search(row.split(" | ")[-1])]
