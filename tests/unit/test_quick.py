"""The tests that run before a commit: what the list names is there. That they touch every module, coverage measures."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

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
