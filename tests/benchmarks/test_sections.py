"""Every section runs, with little data: the sides take part, what they move is whole, targets find their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import targets
from benchmarks.page import section_block, table_of
from benchmarks.runner import Bench, Row
from benchmarks.sections import SECTIONS
from benchmarks.servers import orthanc_installed
from benchmarks.sides import missing
from benchmarks.sizes import MILLION, QUICK
from benchmarks.table import aligned
from tests.support.large import large


class Asked(dict[object, object]):
    """Remembers what it was asked for, and has nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_asked: list[object] = []

    def get(self, key: object, default: object = None) -> object:
        self.keys_asked.append(key)
        return default


def asked() -> tuple[set[tuple[str, str]], set[str]]:
    """Return the rows, by case and side, and the figures that the targets take."""
    rows, figures = Asked(), Asked()
    for target in targets.TARGETS:
        target.measure(targets.Found(rows, figures))  # type: ignore[arg-type]
    return set(rows.keys_asked), set(figures.keys_asked)  # type: ignore[arg-type]


ROWS, FIGURES = asked()
OF_FIGURES = {"sockets": "cancelled", "clean-exits": "cancelled", "start-client": "start", "start-version": "start"}


FEW = ("disk", "orthanc-upload")
"""Sections that show that measuring works, down and up; the others take half a minute of the processor."""


@pytest.mark.parametrize("section", [name if name in FEW else large(name) for name in SECTIONS])
def test_a_section(section: str, tmp_path: Path) -> None:
    if section.startswith("orthanc") and not orthanc_installed():
        pytest.skip("Orthanc is not installed")
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    bench = Bench(memory, disk, repeat=1)
    SECTIONS[section].run(bench, QUICK)
    assert bench.wrong == []
    assert not [note for note in bench.notes.get(section, []) if "failed" in note]
    assert expected_rows(section) <= {(row.case.name, row.side) for row in bench.rows}
    assert {name for name, where in OF_FIGURES.items() if where == section} <= set(bench.figures)
    assert not any(folder.name.startswith(("files", "target", "nginx")) for folder in memory.iterdir())
    drawn = table_of(bench, section, aligned)
    assert "nothing measured" not in drawn
    assert all(row.case.title in drawn and row.side in drawn for row in of(bench, section))
    assert "| " in section_block(bench, section, "Title", "circumstances")


def expected_rows(section: str) -> set[tuple[str, str]]:
    return {
        (case, side)
        for case, side in ROWS
        if (case == section or case.startswith(f"{section}-"))
        and str(MILLION) not in case
        and not missing(side)
        and (orthanc_installed() or "orthanc" not in case)
    }


def of(bench: Bench, section: str) -> list[Row]:
    return [row for row in bench.rows if row.case.section == section]


def test_each_target_belongs_to_a_section() -> None:
    places = {case for case, _ in ROWS if any(case == name or case.startswith(f"{name}-") for name in SECTIONS)}
    assert places == {case for case, _ in ROWS}
    assert FIGURES - {"stores-a-second"} == set(OF_FIGURES)
