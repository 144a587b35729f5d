"""``postdicom get-tags``: of files, and of instances in an archive."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.support.dicom_files import small_dicom, uid

TAGS = ("-t", "PatientName", "-t", "00080060", "-t", "InstanceNumber", "-t", "PatientComments")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    for number, name in ((1, "=1+1^X"), (2, "MÜLLER^J")):
        data = small_dicom(uid(1), uid(1, 1), uid(1, 1, number), patient_name=name, number=number)
        (made / f"{number}.dcm").write_bytes(data)
    (made / "notes.txt").write_text("not DICOM")
    return made


async def test_of_files(cli: Cli, folder: Path) -> None:
    table = await cli.here("get-tags", folder, *TAGS)
    assert (table.code, table.err) == (0, "2 instances\n")
    assert table.out.splitlines()[0].split() == ["path", "PatientName", "00080060", "InstanceNumber", "PatientComments"]
    assert table.out.rstrip().splitlines()[-1].split() == [str(folder / "2.dcm"), "MÜLLER^J", "CT", "2"]
    items = (await cli.here("get-tags", folder, *TAGS, "--json")).told
    assert items[1] == {
        "path": str(folder / "2.dcm"), "PatientName": "MÜLLER^J", "00080060": "CT", "InstanceNumber": "2",
        "PatientComments": None,
    }  # fmt: skip
    lines = (await cli.here("get-tags", folder, *TAGS, "--output", "jsonl")).out.splitlines()
    assert [json.loads(line) for line in lines] == items
    sheet = (await cli.here("get-tags", folder, *TAGS, "--output", "csv")).out
    assert [row["PatientName"] for row in csv.DictReader(io.StringIO(sheet, newline=""))] == ["'=1+1^X", "MÜLLER^J"]


async def test_of_the_file_meta_information_and_of_sequences(cli: Cli, one_file: Path) -> None:
    tags = ("-t", "TransferSyntaxUID", "-t", "RequestAttributesSequence.ScheduledProcedureStepID")
    (item,) = (await cli.here("get-tags", one_file, *tags, "--json")).told
    assert item["TransferSyntaxUID"] == "1.2.840.10008.1.2.1"
    assert item["RequestAttributesSequence.ScheduledProcedureStepID"] is None


async def test_of_an_archive(cli_with_archive: Cli, embedded_archive: Any, folder: Path) -> None:
    await embedded_archive.add(sorted(folder.glob("*.dcm")))
    cli = cli_with_archive
    items = (await cli.here("get-tags", "--study", uid(1), "-t", "InstanceNumber", "-t", "Modality", "--json")).told
    assert sorted(item["SOPInstanceUID"] for item in items) == [uid(1, 1, 1), uid(1, 1, 2)]
    assert {item["Modality"] for item in items} == {"CT"}
    one = await cli.here(
        "get-tags", "--study", uid(1), "--series", uid(1, 1), "--instance", uid(1, 1, 2), "-t", "InstanceNumber",
        "--output", "csv",
    )  # fmt: skip
    assert one.out == f"SOPInstanceUID,InstanceNumber\r\n{uid(1, 1, 2)},2\r\n"
    gone = await cli.here("get-tags", "--study", uid(2), "-t", "InstanceNumber")
    assert (gone.code, gone.out) == (3, "")


async def test_files_that_cannot_be_read(cli: Cli, folder: Path) -> None:
    (folder / "cut.dcm").write_bytes(small_dicom(uid(1), uid(1, 1), uid(1, 1, 3), patient_name="CANARY^X")[:-100])
    ran = await cli.here("get-tags", folder, "-t", "Modality", "--json")
    assert (ran.code, len(ran.json["items"]), ran.json["ok"]) == (1, 2, False)
    assert "cut.dcm: cut off" in ran.err
    assert "CANARY" not in ran.err
    (folder / "empty").mkdir()
    nothing = await cli.here("get-tags", folder / "empty", "-t", "Modality", "--error-if-nothing")
    assert (nothing.code, nothing.error_line) == (9, "error: no instance was found")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x"], "--tag"),
        (["-t", "Modality"], "missing argument 'PATH...'"),
        (["-t", "Modalty", "."], "'Modalty' is neither a DICOM keyword nor a tag"),
        (["-t", "0008006X", "."], "neither"),
        (["-t", "Modality", "--series", "1.2"], "--series: give --study too"),
        (["-t", "Modality", "--study", "1.2", "--instance", "1.2"], "--instance: give --series too"),
        (["-t", "Modality", "--study", "1.2", "."], "not both"),
        (["-t", "Modality", "--study", "1.2"], "no address"),
    ],
)
async def test_mistakes(cli: Cli, words: list[str], says: str) -> None:
    ran = await cli.here("get-tags", *words)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.error_line
