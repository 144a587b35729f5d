"""Every promise in ``tests/README.md`` has a test, and every test that is named there exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<number>[A-GJKST]\d+) \| (?P<promise>.+?) \| (?P<tests>.+?) \|$", re.MULTILINE)
NAMED = re.compile(r"`(?P<file>[\w/]+\.py)::(?P<name>test_\w+)`")
NUMBERS = {"A": 10, "B": 3, "C": 6, "D": 6, "E": 6, "F": 7, "G": 7, "J": 7, "K": 1, "S": 2, "T": 6}
ROWS = [match.groupdict() for match in ROW.finditer((TESTS / "README.md").read_text(encoding="utf-8"))]


@cache
def functions_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_promise_is_missing() -> None:
    expected = {f"{letter}{number}" for letter, last in NUMBERS.items() for number in range(1, last + 1)}
    assert {row["number"] for row in ROWS} == expected


@pytest.mark.parametrize("row", ROWS, ids=[row["number"] for row in ROWS])
def test_its_tests_exist(row: dict[str, str]) -> None:
    named = NAMED.findall(row["tests"])
    assert named, "no test is named"
    assert len(named) == row["tests"].count("::"), "a test is named in another form"
    assert not [f"{file}::{name}" for file, name in named if not (TESTS / file).exists()]
    assert not [f"{file}::{name}" for file, name in named if name not in functions_in(file)]
