"""The notebook runs from its first cell to its last, and is the page that explains it."""

from __future__ import annotations

import asyncio
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import PROJECT, blocks_of
from tests.examples.running import EXAMPLES

nbformat: Any = pytest.importorskip("nbformat")
NAMES = ("Phantom", "Yamada", "SAMPLE-0")


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)


def code_of(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_the_page_and_holds_no_output(notebook: Any) -> None:
    assert code_of(notebook) == [block.text.rstrip() for block in blocks_of("python") if "notebook.md" in block.page]
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


async def test_every_cell_runs_again_and_nothing_warns(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    strict = nbformat.v4.new_code_cell("import warnings\nwarnings.simplefilter('error')")
    begin, *cells, end = (cell for cell in notebook.cells if cell.cell_type == "code")
    again = [deepcopy(cell) for cell in cells]
    for cell in again:
        del cell["id"]
    notebook.cells = [strict, begin, *(one for pair in zip(cells, again, strict=True) for one in pair), end]
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    async with asyncio.timeout(180):
        await client.async_execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"execute_result"}
    shown = [output.data for cell in cells for output in cell.outputs]
    assert "Everything is in the archive" in shown[0]["text/html"]
    assert any("image/png" in data for data in shown)
    assert "1 need attention" in shown[1]["text/html"]
    assert "broken.dcm" in shown[2]["text/plain"]
    assert "column PatientBirthDate: values that cannot be read: 1" in shown[4]["text/plain"]
    everything = str(outputs)
    assert not [name for name in NAMES if name in everything]
    assert not [path for path in (str(tmp_path), os.sep + "samples") if path in everything]
