"""The threat model names tests that exist, one at least for each threat."""

from __future__ import annotations

import re

from tests.docs.pages import PROJECT
from tests.unit.test_promises import TESTS, functions_in

PAGE = (PROJECT / "docs" / "trust" / "threat-model.md").read_text(encoding="utf-8")
_TEXT, _, LIST = PAGE.partition("```text\n")
NAMED = [line.rpartition(" ")[2].split("::") for line in LIST.partition("```")[0].splitlines()]
BEGINS = re.findall(r"^([A-Z]\d+) ", LIST, re.MULTILINE)


def test_the_tests_it_names_exist() -> None:
    assert len(NAMED) > 50
    assert not ["::".join(one) for one in NAMED if len(one) != 2 or not (TESTS / one[0]).is_file()]
    assert not [f"{file}::{name}" for file, name in NAMED if name not in functions_in(file)]


def test_every_threat_has_one() -> None:
    threats = re.findall(r"^\| ([A-Z]\d+) \|", _TEXT, re.MULTILINE)
    assert len(threats) > 25
    assert threats == BEGINS
