"""Figures are put into a page by the benchmark alone, and a part of them can be measured again."""

from __future__ import annotations

from benchmarks.page import END, START, page_with
from benchmarks.targets import MET, MISSED, NOT_MEASURED

A, B = ("a", "at least 1x", "2.00x", MET), ("b", "at least 1x", "0.50x", MISSED)
NOT_B = ("b", "at least 1x", "", NOT_MEASURED)


def test_a_new_page() -> None:
    page = page_with("", {"plain": "figures"}, [A, NOT_B])
    assert page.startswith(START)
    assert page.endswith(f"{END}\n")
    assert "figures" in page
    assert "| a | at least 1x | 2.00x | met |" in page


def test_what_stands_around_the_figures_stays() -> None:
    page = page_with(f"# Title\n\n{START}\nold\n{END}\n\nThe end.\n", {"plain": "new"}, [A])
    assert page.startswith(f"# Title\n\n{START}")
    assert page.endswith(f"{END}\n\nThe end.\n")
    assert "old" not in page


def test_what_was_not_measured_again_stays() -> None:
    first = page_with("", {"plain": "one", "tls": "two"}, [NOT_B if line is A else line for line in (B,)])
    second = page_with(first, {"plain": "three"}, [A, NOT_B])
    assert "one" not in second
    assert "two" in second
    assert "three" in second
    assert "| b | at least 1x | 0.50x | **missed** |" in second
    assert second.count("### Targets") == 1


def test_written_twice_is_the_same() -> None:
    page = page_with("", {"plain": "one"}, [A, B])
    assert page_with(page, {"plain": "one"}, [A, B]) == page
