"""What the page about data frames shows, run from top to bottom, and what it says of types."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from postdicom_async import DicomWeb
from postdicom_async.dicom.anonymize.identities import Patient
from postdicom_async.dicom.columns import column_of
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.emulator.samples import write_samples
from postdicom_async.frames import ColumnKind
from tests.docs.pages import PROJECT, blocks_of

PAGE = "docs/howto/data-frames.md"


@pytest.fixture
async def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DicomWeb]:
    write_samples(tmp_path / "to-send", series=1, slices=2, size=64)
    monkeypatch.chdir(tmp_path)
    async with EmbeddedArchive() as embedded, DicomWeb(embedded.url, auth=embedded.auth) as client:
        (await client.upload("to-send/")).raise_for_failures()
        yield client


async def run(text: str, names: dict[str, Any]) -> None:
    """Run code with ``await`` in it, as a notebook does."""
    code = compile(text, PAGE, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    waiting = eval(code, names)
    if waiting is not None:
        await waiting


async def test_everything_on_it_runs(archive: DicomWeb, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"archive": archive}
    for block in blocks_of("python"):
        if block.page == PAGE:
            await run(block.text, names)
    assert names["by_year"].sum() == 11
    assert names["moments"]["Moment"].notna().all()
    assert len(names["thick"]) > 0
    assert names["spacing"].notna().all()
    assert names["outcomes"]["ok"].all()
    assert names["files"]["path"].str.contains("to-send").all()
    assert "PatientBirthDate" in capsys.readouterr().out


def test_the_types_are_those_of_the_columns() -> None:
    told = set(re.findall(r"`(\w+(?:\[\w+\])?)`[^|]*\|$", (PROJECT / PAGE).read_text(), re.MULTILINE))
    assert {kind.value for kind in ColumnKind} - {"boolean"} <= {
        *told, *re.findall(r"\| `(\S+?)`", (PROJECT / PAGE).read_text())
    }  # fmt: skip
    for keyword, kind in (
        ("StudyDate", "datetime64[s]"),
        ("StudyTime", "timedelta64[us]"),
        ("SliceThickness", "Float64"),
    ):
        column = column_of(JSON_TAG[keyword])
        assert column is not None
        assert column.kind == kind


async def test_patients_from_a_data_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "hospital_id,age,study_id,alias\n0042,7,S-1,STUDY^ONE\n43,8,S-2,\n"
    Path("study.csv").write_text(text, encoding="utf-8")
    (block,) = (one for one in blocks_of("python") if "import pandas" in one.text and "anonymise" in one.page)
    names: dict[str, Any] = {}
    await run(block.text, names)
    table = names["rules"].patients
    assert {action.text for action in table.values_of(Patient("0042")).values()} == {"S-1", "STUDY^ONE"}
    assert {action.text for action in table.values_of(Patient("43")).values()} == {"S-2", ""}
