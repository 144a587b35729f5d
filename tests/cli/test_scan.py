"""``postdicom scan``: files and folders without any archive."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.cli.conftest import Cli
from tests.support.dicom_files import small_dicom, uid


async def test_the_tree(cli: Cli, study_folder: Path) -> None:
    ran = await cli("scan", study_folder)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split("  ") == ["TEST^FILE", "T-1", "1970-01-01", "O"]
    assert "2020-01-02  CT  Study of the tests  accession A-1  6 instances, " in lines[1]
    assert lines[1].endswith(uid(1))
    assert [line.split()[-1] for line in lines[2:4]] == [uid(1, 1), uid(1, 2)]
    assert "Series of the tests  3 instances" in lines[2]
    assert ran.err == "7 files, 1 patient, 1 study, 6 instances, 1 not DICOM\n"


async def test_a_line_for_each_instance(cli: Cli, study_folder: Path) -> None:
    lines = (await cli.here("scan", study_folder, "--output", "jsonl", "-q")).out.splitlines()
    found = [json.loads(line) for line in lines]
    assert sorted(one["path"] for one in found) == sorted(map(str, study_folder.glob("*.dcm")))
    assert {(one["patient_id"], one["modality"], one["study_date"]) for one in found} == {("T-1", "CT", "20200102")}
    sheet = (await cli.here("scan", study_folder, "--output", "csv")).out
    rows = list(csv.DictReader(io.StringIO(sheet, newline="")))
    assert [row["sop_instance_uid"] for row in rows] == [one["sop_instance_uid"] for one in found]
    assert {row["size"] for row in rows} == {str(one["size"]) for one in found}


async def test_json(cli: Cli, study_folder: Path) -> None:
    ran = await cli("scan", study_folder, "--json", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["ok"] is True
    summary = ran.json["summary"]
    assert summary.pop("bytes") == sum(path.stat().st_size for path in study_folder.glob("*.dcm"))
    assert summary == {"files": 7, "patients": 1, "studies": 1, "series": 2, "instances": 6, "not DICOM": 1}
    (patient,) = ran.json["patients"]
    assert (patient["patient_name"], patient["patient_id"]) == ("TEST^FILE", "T-1")
    (study,) = patient["studies"]
    files = [instance["path"] for series in study["series"] for instance in series["instances"]]
    assert sorted(files) == sorted(map(str, study_folder.glob("*.dcm")))
    (skipped,) = ran.json["skipped"]
    assert (Path(skipped["path"]).name, skipped["status"]) == ("notes.txt", "not DICOM")


async def test_character_sets(cli: Cli, one_file: Path) -> None:
    dataset = dcmread(one_file)
    dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Święty^Łukasz"
    dataset.save_as(one_file)
    assert "Święty^Łukasz" in (await cli.here("scan", one_file)).out


async def test_what_cannot_be_told(cli: Cli, tmp_path: Path) -> None:
    whole = small_dicom()
    (tmp_path / "twin-1.dcm").write_bytes(whole)
    (tmp_path / "twin-2.dcm").write_bytes(whole)
    (tmp_path / "cut.dcm").write_bytes(whole[:300])
    ran = await cli.here("scan", tmp_path)
    assert ran.code == 1
    assert f"{tmp_path / 'cut.dcm'}: unreadable: " in ran.err
    assert f"{tmp_path / 'twin-2.dcm'}: duplicate: " in ran.err
    assert ran.err.splitlines()[-1] == "error: 1 of 3 files cannot be read"
    assert ran.err.splitlines()[-2].startswith("3 files, 1 patient, 1 study, 1 instance, ")
    quiet = await cli.here("scan", tmp_path, "--quiet")
    assert quiet.code == 1
    assert [line.partition(": ")[0] for line in quiet.err.splitlines()] == [str(tmp_path / "cut.dcm"), "error"]


async def test_packed_archives_are_told(cli_with_archive: Cli, tmp_path: Path) -> None:
    cli = cli_with_archive
    folder = tmp_path / "packed"
    folder.mkdir()
    for kind in ("zip", "gztar", "xztar", "bztar", "tar"):
        (tmp_path / "one.dcm").write_bytes(small_dicom())
        shutil.make_archive(str(folder / kind), kind, tmp_path, "one.dcm")
    (folder / "notes.txt").write_text("PK")
    scanned = await cli.here("scan", folder, "--json")
    reasons = sorted(one["reason"] for one in scanned.json["skipped"])
    kinds = ("bzip2", "gzip", "tar", "xz", "zip")
    assert reasons == [*(f"a {kind} archive: unpack it" for kind in kinds), "no DICOM file (PS3.10)"]
    told = await cli.here("scan", folder)
    assert "6 not DICOM; 5 of them packed archives: unpack them" in told.err
    sent = await cli.here("upload", folder)
    assert sent.err == "nothing to upload: none of 6 files is DICOM; 5 are packed archives: unpack them\n"


async def test_controls_of_a_terminal_do_not_reach_it(cli: Cli, one_file: Path) -> None:
    dataset = dcmread(one_file)
    dataset.StudyDescription = "\x1b]0;owned\x07 \x1b[31mred"
    dataset.save_as(one_file)
    assert "\x1b" not in (await cli.here("scan", one_file)).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'PATH...'"),
        (("none",), "none: does not exist"),
        (("",), "the path is empty"),
        ((".", "--url", "https://archive.example"), "No such option: --url"),
    ],
)
async def test_mistakes(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    ran = await cli.here("scan", *arguments)
    assert ran.code == 2
    assert message.lower() in ran.err.lower()


async def test_an_empty_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = await cli.here("scan", tmp_path / "empty")
    assert (ran.code, ran.out, ran.err) == (0, "", "no file was found\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_folder_that_may_not_be_read(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert (await cli.here("scan", tmp_path)).code == 1
