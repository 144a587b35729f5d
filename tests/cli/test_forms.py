"""Results as a table, a document, lines of JSON or a sheet; how many there are; and paths from a file."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.cli import output
from postdicom_async.cli.forms import Sheet, wants_document
from tests.cli.conftest import Cli
from tests.support.dicom_files import small_dicom, uid


def rows(text: str) -> list[dict[str, str]]:
    """Read a sheet as a spreadsheet or a program does."""
    assert "\n" not in text.replace("\r\n", "")  # no value here has lines of its own
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
async def held(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> Cli:
    """Give an archive of three studies, one of a patient whose name a spreadsheet would take for a formula."""
    names = {1: "TEST^FILE", 2: "=2+3^FORMULA", 3: 'QUOTED "A", B^Ü'}
    for number, name in names.items():
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(small_dicom(uid(number), uid(number, 1), uid(number, 1, 1), patient_name=name))
        await embedded_archive.add([path])
    return cli_with_archive


async def test_a_sheet_of_studies(held: Cli) -> None:
    ran = await held.here("search", "studies", "--output", "csv", "--field", "PatientSex")
    assert (ran.code, ran.err) == (0, "")
    found = {row["StudyInstanceUID"]: row for row in rows(ran.out)}
    assert set(found) == {uid(1), uid(2), uid(3)}
    assert found[uid(1)] | {"PatientName": "TEST^FILE", "StudyDate": "20200102", "PatientSex": "O"} == found[uid(1)]
    assert found[uid(2)]["PatientName"] == "'=2+3^FORMULA"
    assert found[uid(3)]["PatientName"] == 'QUOTED "A", B^Ü'
    none = await held.here("search", "studies", "--output", "csv", "-f", "PatientID=nobody", "--error-if-nothing")
    assert (none.code, none.error_line, rows(none.out)) == (9, "error: nothing matches", [])
    assert none.out.startswith("PatientName,PatientID,StudyDate,")


async def test_lines_of_json_are_the_items_of_the_document(held: Cli) -> None:
    lines = await held.here("search", "series", "--output", "jsonl")
    document = await held.here("search", "series", "--output", "json")
    assert [json.loads(line) for line in lines.out.splitlines()] == document.told
    assert document.out == (await held.here("search", "series", "--json")).out
    assert len(document.told) == 3


async def test_how_many_there_are(held: Cli) -> None:
    assert (await held.here("search", "study", "--count")).out == "3\n"
    counted = await held.here("search", "studies", "--count", "--json", "-f", "PatientName=TEST*")
    assert counted.json == {"ok": True, "error": None, "count": 1}
    none = await held.here("search", "studies", "--count", "--json", "-f", "PatientID=nobody", "--error-if-nothing")
    assert (none.code, none.json) == (9, {"ok": False, "error": "nothing matches", "count": 0})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--count", "--output", "csv"], "--count: not with --output csv"),
        (["--json", "--output", "csv"], "--output: not with --json"),
        (["--output", "csv", "--field", "all"], "--field all: not with --output csv"),
        (["--output", "xml"], "xml"),
    ],
)
async def test_what_contradicts_itself(cli: Cli, options: list[str], words: str) -> None:
    ran = await cli.here("search", "studies", "--url", "http://127.0.0.1:1", *options)
    assert ran.code == 2
    assert words in ran.error_line


async def test_an_error_is_in_the_document_however_it_was_asked_for(cli: Cli) -> None:
    for words in (["--output", "json"], ["--output=json"]):
        ran = await cli.here("search", "studies", *words)
        assert (ran.code, ran.json["ok"]) == (2, False)
        assert "no address" in ran.json["error"]
    assert (await cli.here("search", "studies", "--output", "jsonl")).out == ""
    assert not wants_document(["upload", "--output", "csv", "json"])


async def test_lists_of_the_operations(held: Cli) -> None:
    document = (await held.here("orders", "search", "--json")).told
    lines = (await held.here("orders", "search", "--output", "jsonl")).out.splitlines()
    assert [json.loads(line) for line in lines] == document
    sheet = rows((await held.here("order", "search", "--output", "csv")).out)
    assert [row["PatientOrderUuid"] for row in sheet] == [one["PatientOrderUuid"] for one in document]
    assert {"'=2+3^FORMULA", "TEST^FILE"} <= {row["PatientName"] for row in sheet}
    assert (await held.here("folders", "create", "--name", "Monday")).code == 0
    assert [row["FolderName"] for row in rows((await held.here("folder", "search", "--output", "csv")).out)] == [
        "Monday"
    ]


async def test_lists_of_this_machine(cli: Cli, tmp_path: Path) -> None:
    cli.environment |= {"POSTDICOM_CONFIG": str(tmp_path / "p.toml"), "POSTDICOM_STATE": str(tmp_path / "jobs")}
    made = await cli.here(
        "profiles", "add", "old", "--url", "https://old.example/d", "--no-password", "-o", "pages=false"
    )
    assert made.code == 0
    (row,) = rows((await cli.here("profile", "list", "--output", "csv")).out)
    assert (row["name"], row["url"]) == ("old", "https://old.example/d")
    assert json.loads(row["options"]) == {"pages": "false"}
    (tmp_path / "a").mkdir()
    assert (
        await cli.here("copy", tmp_path / "a", tmp_path / "b", "--job", tmp_path / "jobs" / "mine.ledger")
    ).code == 0
    (row,) = rows((await cli.here("job", "list", "--output", "csv")).out)
    assert (row["job"], row["running"]) == ("mine", "false")
    assert rows((await cli.here("job", "show", "mine", "--output", "csv")).out) == [row]
    document = (await cli.here("job", "show", "mine", "--json")).json["answer"]
    assert (await cli.here("job", "show", "mine", "--output", "json")).json["answer"] == document
    assert json.loads((await cli.here("job", "show", "mine", "--output", "jsonl")).out) == document
    assert (await cli.here("job", "show", "mine", "--output", "csv", "--json")).code == 2


def test_cells(capsys: pytest.CaptureFixture[str]) -> None:
    output.prepare()
    sheet = Sheet(["a", "b"])
    sheet.add(["-5", "-5^X"])
    sheet.add(["@SUM", "+1"])
    sheet.add(["\x1b[31mred", "two\nlines"])
    sheet.add([None, 7])
    expected = "a,b\r\n-5,'-5^X\r\n'@SUM,+1\r\n\ufffd[31mred,\"two\nlines\"\r\n,7\r\n"
    assert capsys.readouterr().out == expected


HARMLESS = {
    "\uff1d1+1": "'\uff1d1+1",
    "\uff20SUM": "'\uff20SUM",
    "\t=1": "\"'\t'=1\"",
    "\nA": '"\'\nA"',
    "x;=1+1": '"x;\'=1+1"',
    "x;-5;+A": '"x;-5;\'+A"',
    "x\t@A": '"x\t\'@A"',
    "x\r\n=1": '"x\r\n\'=1"',
    'x;"=1': '"x;""\'=1"',
    "x;y": '"x;y"',
    "a-b, 1=1": '"a-b, 1=1"',
}


@pytest.mark.parametrize("text", HARMLESS)
def test_no_cell_is_a_formula_wherever_a_line_is_split(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.prepare()
    Sheet([text, "b"])
    written = capsys.readouterr().out
    assert written == f"{HARMLESS[text]},b\r\n"
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(f"a,{written}", newline=""), delimiter=delimiter):
            assert not [cell for cell in row if cell[:1] in tuple("=+@\uff1d\uff20")]


def test_a_row_of_nothing_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.prepare()
    Sheet(["a"]).add([None])
    assert capsys.readouterr().out == 'a\r\n""\r\n'


# --- paths from a file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", ["\n", "\r\n", "\0"])
async def test_paths_from_a_file(cli_with_archive: Cli, study_folder: Path, tmp_path: Path, joint: str) -> None:
    names = sorted(study_folder.glob("*.dcm"))
    odd = study_folder / "with space é.dcm"
    names[0].rename(odd)
    listed = tmp_path / "list"
    listed.write_text(joint.join(map(str, [odd, *names[1:3]])) + joint)
    ran = await cli_with_archive.here("upload", names[3], "--files-from", listed, "--json")
    assert (ran.code, ran.json["summary"]["stored"]) == (0, 4)
    scanned = await cli_with_archive.here("scan", "--files-from", listed, "--json")
    assert scanned.json["summary"]["instances"] == 3


def test_paths_from_standard_input(study_folder: Path) -> None:
    names = b"\0".join(os.fsencode(path.relative_to(study_folder)) for path in sorted(study_folder.iterdir())) + b"\0"
    words = [sys.executable, "-m", "postdicom_async.cli", "scan", "--files-from", "-", "--json"]
    ran = subprocess.run(words, input=names, cwd=study_folder, capture_output=True, check=True, timeout=60)
    assert json.loads(ran.stdout)["summary"]["files"] == 7


async def test_a_list_that_cannot_be_used(cli_with_archive: Cli, tmp_path: Path) -> None:
    cli, listed = cli_with_archive, tmp_path / "list"
    assert "--files-from: " in (await cli.here("upload", "--files-from", listed)).error_line
    listed.write_text("missing.dcm\n")
    ran = await cli.here("upload", "--files-from", listed)
    assert (ran.code, ran.error_line) == (2, "error: missing.dcm: does not exist")
    listed.write_text("")
    assert "no file was found" in (await cli.here("upload", "--files-from", listed)).err
    assert (await cli.here("upload", "--files-from", listed, "--error-if-nothing")).code == 9
    ran = await cli.here("cloud", "upload")
    assert (ran.code, ran.error_line) == (2, "error: missing argument 'PATH...'; or give --files-from FILE")
