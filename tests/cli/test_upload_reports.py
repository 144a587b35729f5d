"""``--existing``, ``--report`` and ``--report-paths`` of ``postdicom upload`` and ``postdicom cloud upload``."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.support.dicom_files import study_files

NORTH = ("--institution-uuid", "north")
FULL = Path("/dev/full")


@pytest.fixture(params=["upload", "cloud upload"])
def uploading(request: pytest.FixtureRequest) -> tuple[Cli, tuple[str, ...]]:
    """Give a command line that works with an archive."""
    if request.param == "upload":
        return request.getfixturevalue("cli_with_archive"), ("upload",)
    return request.getfixturevalue("cloud_cli"), ("cloud", "upload", *NORTH)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_file_has_its_line(
    uploading: tuple[Cli, tuple[str, ...]], study_folder: Path, tmp_path: Path
) -> None:
    cli, words = uploading
    report = tmp_path / "report.jsonl"
    sent = await cli(*words, study_folder, "--report", report, "--json")
    assert (sent.code, sent.err) == (0, "")
    assert sent.json["summary"]["instances"] == 7
    assert sent.json["summary"]["stored"] == 6
    assert sent.json["items"] == [], "all is well: each of them is in the report"
    lines = lines_of(report)
    assert Counter(line["status"] for line in lines) == {"stored": 6, "not DICOM": 1}
    found = {line["sop_instance_uid"] for line in lines if line["status"] == "stored"}
    assert found == study_files(6, series=2).keys()
    assert str(study_folder) not in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600

    again = await cli.here(*words, study_folder, "--existing", "skip", "--report", report, "--report-paths")
    assert again.code == 0
    assert again.out.startswith("6 present, 1 not DICOM; ") or again.out.startswith("1 not DICOM, 6 present; ")
    assert lines_of(report)[:7] == lines, "appended"
    paths = {Path(line["path"]).parent for line in lines_of(report)[7:]}
    assert paths == {path.parent for path in study_folder.rglob("*") if path.is_file()}


async def test_what_needs_attention_is_told_all_the_same(
    uploading: tuple[Cli, tuple[str, ...]], tmp_path: Path, one_file: Path
) -> None:
    cli, words = uploading
    (tmp_path / "cut.dcm").write_bytes(one_file.read_bytes()[:-10])
    report = tmp_path / "report.jsonl"
    sent = await cli.here(*words, one_file, tmp_path / "cut.dcm", "--report", report)
    assert sent.code == 1
    assert f"{tmp_path / 'cut.dcm'}: unreadable: cut off" in sent.err
    assert sent.err.splitlines()[-1] == "error: 1 of 2 files are not known to be stored"
    listed = (await cli.here(*words, one_file, tmp_path / "cut.dcm", "--report", report, "--json")).json
    assert [item["status"] for item in listed["items"]] == ["unreadable"]


async def test_a_report_that_cannot_be_written(
    uploading: tuple[Cli, tuple[str, ...]], one_file: Path, tmp_path: Path
) -> None:
    cli, words = uploading
    nowhere = await cli.here(*words, one_file, "--report", tmp_path / "nowhere" / "report")
    assert nowhere.code != 0
    assert nowhere.out == ""
    assert nowhere.error_line.startswith("error: the report cannot be written")
    if FULL.exists():
        full = await cli.here(*words, one_file, "--report", FULL)
        assert full.code == 8
        assert full.err.splitlines()[-1].startswith("error: the report cannot be written")
        assert "before it ended: 1 stored" in full.err


async def test_paths_without_a_report(uploading: tuple[Cli, tuple[str, ...]], one_file: Path) -> None:
    cli, words = uploading
    ran = await cli.here(*words, one_file, "--report-paths")
    assert ran.code == 2
    assert ran.error_line == "error: --report-paths: give --report too"


async def test_what_is_sent_again_and_what_is_not(cli_with_archive: Cli, study_folder: Path) -> None:
    cli = cli_with_archive
    assert (await cli.here("upload", study_folder, "--json")).json["summary"]["stored"] == 6
    assert (await cli.here("upload", study_folder, "--json")).json["summary"]["stored"] == 6
    assert (await cli.here("upload", study_folder, "--existing", "skip", "--json")).json["summary"]["present"] == 6
    copies = await cli.here("upload", study_folder, "--existing", "skip", "--anonymize", "PatientName=X", "--json")
    assert copies.code == 1
    assert copies.json["summary"]["failed"] == 6
    assert "perhaps the original" in copies.json["items"][0]["reason"]
    assert (await cli.here("upload", study_folder, "--existing", "perhaps")).code == 2
