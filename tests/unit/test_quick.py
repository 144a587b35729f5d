"""Tests that run before a commit, and floors of coverage: what is listed is there, what is not reached is told."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.support.floors import below_the_floor, untouched
from tests.unit.test_house import MODULES, PURE

ROOT = Path(__file__).parents[2]
LISTED = (ROOT / "tests" / "quick.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("path", sorted({line.partition("::")[0] for line in LISTED}))
def test_what_is_listed_is_there(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    named = {line.partition("::")[2] for line in LISTED if line.partition("::")[0] == path}
    assert named == {""} or named <= defined


def test_the_list_is_in_order_and_nothing_is_in_it_twice() -> None:
    assert sorted(set(LISTED)) == LISTED


def report(*, reached: bool, percent: float = 95.0) -> dict[str, Any]:
    """Return coverage's report of a package in which each module has one function, with one branch."""
    lines = {"executed_lines": [2] if reached else [], "summary": {"num_statements": 1}}
    of_module = {
        "summary": {"num_statements": 2},
        "functions": {"one": lines, "": {"executed_lines": [1], "summary": {"num_statements": 1}}},
        "missing_lines": [] if reached else [2],
        "missing_branches": [] if reached else [[1, 2]] * 6,
    }
    files = {f"{module.replace('.', '/')}{'/__init__' * is_folder(module)}.py": of_module for module in MODULES}
    return {"files": files, "totals": {"percent_covered": percent}}


def is_folder(module: str) -> bool:
    return MODULES[module].name == "__init__.py"


def test_what_is_not_reached_is_told() -> None:
    assert untouched(report(reached=True)) == below_the_floor(report(reached=True)) == []
    assert [line.split()[2] for line in untouched(report(reached=False))] == sorted(MODULES)
    assert [line.split()[0] for line in below_the_floor(report(reached=False))] == sorted(PURE)
    assert below_the_floor(report(reached=True, percent=94.99)) == ["94.99 % overall, 95.0 % is the floor"]
