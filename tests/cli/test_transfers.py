"""Upload, search and download against the embedded archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.cli.paths import removing_if_empty
from tests.cli.conftest import Cli
from tests.support.bodies import multipart_related
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request


async def test_there_and_back(cli_with_archive: Cli, study_folder: Path, tmp_path: Path) -> None:
    cli = cli_with_archive
    sent = await cli("upload", study_folder, "--json")
    assert (sent.code, sent.err) == (0, "")
    assert sent.json["ok"] is True
    assert sent.json["summary"]["stored"] == 6
    assert sent.json["summary"]["not DICOM"] == 1
    first = next(item for item in sent.json["items"] if item["status"] == "stored")
    assert Path(first["source"]).name == f"{first['sop_instance_uid']}.dcm"

    found = await cli("search", "studies", "-f", "PatientName=TEST*", "--json")
    assert (found.code, found.err) == (0, "")
    assert [study["0020000D"]["Value"] for study in found.told] == [[uid(1)]]

    to = tmp_path / "back"
    got = await cli("download", "study", uid(1), "--to", to)
    assert got.code == 0
    assert got.err == ""
    assert got.out.startswith("6 saved; ")
    for name, content in study_files(6, series=2).items():
        assert next(to.rglob(f"{name}.dcm")).read_bytes() == content

    again = await cli("download", "study", uid(1), "--to", to, "--json")
    assert again.code == 0
    assert again.json["summary"]["already_present"] == 6
    assert again.json["summary"]["listing"] == "compared"
    assert {item["status"] for item in again.json["items"]} == {"already present"}


async def test_download_levels_and_layout(cli_with_archive: Cli, study_folder: Path, tmp_path: Path) -> None:
    cli = cli_with_archive
    assert (await cli.here("upload", study_folder, "--quiet")).out == ""
    two = await cli(
        "download", "instance", uid(1), uid(1, 1), uid(1, 1, 1), uid(1, 1, 3), "--to", tmp_path / "a",
        "--layout", "{instance}.dcm", "--json",
    )  # fmt: skip
    assert two.code == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [f"{uid(1, 1, n)}.dcm" for n in (1, 3)]
    assert {Path(item["path"]).parent for item in two.json["items"]} == {tmp_path / "a"}
    series = await cli.here("download", "series", uid(1), uid(1, 2), "--to", tmp_path / "b")
    assert series.out.startswith("3 saved")
    bad = await cli.here("download", "study", uid(1), "--to", tmp_path / "c", "--layout", "x.dcm")
    assert bad.code == 2
    assert "--layout" in bad.error_line


async def test_search_tables(cli_with_archive: Cli, study_folder: Path) -> None:
    cli = cli_with_archive
    await cli.here("upload", study_folder)
    studies = await cli("search", "studies", "--field", "PatientSex")
    assert studies.code == 0
    assert studies.err == "1 study\n"
    for word in ("Patient", "TEST^FILE", "2020-01-02", "PatientSex", uid(1)):
        assert word in studies.out
    series = await cli.here("search", "series", "--study", uid(1), "--limit", "1", "--quiet")
    assert series.err == ""
    assert sum(line.count(uid(1)) > 0 for line in series.out.splitlines()) == 1
    instances = await cli.here("search", "instances", "--study", uid(1), "--series", uid(1, 2), "--json")
    assert (len(instances.json["items"]), instances.json["ok"], instances.json["error"]) == (3, True, None)
    nothing = await cli.here("search", "studies", "-f", "PatientID=NOBODY", "--json")
    assert (nothing.code, nothing.json) == (0, {"items": [], "warnings": [], "ok": True, "error": None})


async def test_a_filter_that_is_none_of_a_study(cli_with_archive: Cli, study_folder: Path) -> None:
    await cli_with_archive.here("upload", study_folder)
    for key in ("Modality", "00080060"):
        ran = await cli_with_archive.here("search", "studies", "-f", f"{key}=CT")
        assert f"{key} is no attribute of a study: to find studies, filter by ModalitiesInStudy" in ran.err
    for words in (["series", "-f", "Modality=CT"], ["studies", "-f", "ModalitiesInStudy=CT"]):
        ran = await cli_with_archive.here("search", *words)
        assert "filter by" not in ran.err
        assert uid(1) in ran.out


async def test_levels_in_the_singular_and_the_plural(cli_with_archive: Cli, study_folder: Path, tmp_path: Path) -> None:
    cli = cli_with_archive
    await cli.here("upload", study_folder)
    for one, many, uids in (
        ("study", "studies", [uid(1)]),
        ("series", "series", [uid(1), uid(1, 1)]),
        ("instance", "instances", [uid(1), uid(1, 1), uid(1, 1, 1)]),
    ):
        searches = [await cli.here("search", level, "--json") for level in (one, many)]
        assert searches[0].told == searches[1].told != []
        for level in (one, many):
            got = await cli.here("download", level, *uids, "--to", tmp_path / one / level)
            assert (got.code, got.err) == (0, "")
    wrong = await cli.here("search", "patients")
    assert wrong.code == 2
    assert "'patients' is none of studies, series, instances" in wrong.error_line


async def test_postdicom_dialect(cli_with_archive: Cli, one_file: Path, tmp_path: Path) -> None:
    cli = cli_with_archive
    cli.environment["POSTDICOM_DIALECT"] = "postdicom"
    assert (await cli.here("upload", one_file)).code == 0
    refused = await cli.here("search", "series")
    assert refused.code == 2
    assert "--study" in refused.error_line
    got = await cli("download", "study", uid(9), "--to", tmp_path / "back", "-q")
    assert (got.code, got.out, got.err) == (0, "", "")
    assert next((tmp_path / "back").rglob("*.dcm")).read_bytes() == one_file.read_bytes()


async def test_not_found(cli_with_archive: Cli, one_file: Path, tmp_path: Path) -> None:
    cli = cli_with_archive
    await cli.here("upload", one_file)
    to = tmp_path / "back"
    unknown = await cli("download", "study", uid(404), "--to", to)
    assert (unknown.code, unknown.out) == (3, "")
    assert "hold" in unknown.error_line
    assert not list(to.rglob("*.*"))
    partly = await cli("download", "study", uid(404), uid(9), "--to", to, "--json")
    assert partly.code == 1
    assert partly.json["ok"] is False
    assert [item["status"] for item in partly.json["items"]] == ["failed", "saved"]
    assert (await cli.here("download", "study", "not-a-uid", "--to", to)).code == 2


@pytest.mark.parametrize(("status", "code"), [(401, 4), (404, 3)])
async def test_no_empty_folder_is_left(cli: Cli, tmp_path: Path, status: int, code: int) -> None:
    made, there = tmp_path / "made" / "below", tmp_path / "there"
    there.mkdir()
    async with FaultyServer(Reply(status)) as server:
        for to in (made, there, there / "below"):
            ran = await cli.here("download", "study", "1.2", "--to", to, "--url", server.url, "--attempts", "1")
            assert (ran.code, ran.out) == (code, "")
    assert list(tmp_path.iterdir()) == [there]
    assert not list(there.iterdir())


def test_only_what_was_made_and_is_empty_is_removed(tmp_path: Path) -> None:
    with removing_if_empty(tmp_path / "a" / "b" / "c"):
        (tmp_path / "a" / "b" / "c").mkdir(parents=True)
        (tmp_path / "a" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]
    with removing_if_empty(tmp_path / "d" / "never made"):
        (tmp_path / "d").mkdir()
    assert not (tmp_path / "d").exists()


async def test_completeness_that_could_not_be_checked(cli: Cli, one_file: Path, tmp_path: Path) -> None:
    body = multipart_related([one_file.read_bytes()])

    def answer(request: Request) -> Reply:
        if request.path == f"/studies/{uid(9)}":
            return body.reply()
        return Reply(404)

    async with FaultyServer(answer) as server:
        download = ["download", "study", uid(9), "--url", server.url, "--attempts", "1", "--to"]
        told = await cli.here(*download, tmp_path / "a")
        quiet = await cli.here(*download, tmp_path / "b", "--quiet")
        raw = await cli.here(*download, tmp_path / "c", "--json")
    assert told.code == quiet.code == raw.code == 0
    assert told.out.startswith("1 saved; ")
    assert told.err == "completeness could not be checked: the archive cannot be asked what it has\n"
    assert (quiet.out, quiet.err) == ("", "")
    assert raw.json["summary"]["listing"] == "unavailable"


async def test_some_items_failed(cli_with_archive: Cli, study_folder: Path) -> None:
    (study_folder / "dangling.dcm").symlink_to("nowhere")
    (study_folder / "cut.dcm").write_bytes(small_dicom()[:300])
    ran = await cli_with_archive("upload", study_folder)
    assert ran.code == 1
    assert "6 stored" in ran.out
    assert [line.partition(": ")[0] for line in ran.err.splitlines()] == [
        str(study_folder / "cut.dcm"),
        str(study_folder / "dangling.dcm"),
        "error",
    ]
    assert ran.err.endswith("error: 2 of 9 files are not known to be stored\n")


async def test_refused_by_the_archive(cli: Cli, one_file: Path, tmp_path: Path) -> None:
    from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive

    async with EmbeddedArchive(options=ArchiveOptions(refused_sop_classes=["1.2.840.10008.5.1.4.1.1.2"])) as archive:
        cli.use(archive)
        ran = await cli.here("upload", one_file, "--json")
    assert ran.code == 1
    assert ran.json["ok"] is False
    assert ran.json["items"][0]["status"] == "failed"
    assert ran.json["items"][0]["reason"]


@pytest.mark.parametrize("kind", ["missing", "empty", "junk", "fifo", "loop"])
async def test_nothing_to_upload(cli_with_archive: Cli, tmp_path: Path, kind: str) -> None:
    import os

    path = tmp_path / "given"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind != "missing":
        path.mkdir()
    if kind == "junk":
        (path / "notes.txt").write_text("nothing")
    words = {
        "missing": "does not exist",
        "empty": "nothing to upload: no file was found",
        "junk": "nothing to upload: none of 1 files is DICOM",
        "loop": "symbolic link",
        "fifo": "neither a file nor a folder",
    }
    ran = await cli_with_archive.here("upload", path)
    if kind in ("empty", "junk"):
        assert (ran.code, ran.out, ran.err) == (0, "", f"{words[kind]}\n")
        ran = await cli_with_archive.here("upload", path, "--error-if-nothing")
        assert (ran.code, ran.out) == (9, "")
    else:
        assert (ran.code, ran.out) == (2, "")
    assert words[kind] in ran.error_line


@pytest.mark.skipif("os.geteuid() == 0", reason="root may read everything")
async def test_unreadable_file(cli_with_archive: Cli, one_file: Path) -> None:
    one_file.chmod(0)
    ran = await cli_with_archive("upload", one_file)
    assert ran.code == 2
    assert "permission denied" in ran.error_line


async def test_download_folder_is_checked_first(cli: Cli, one_file: Path) -> None:
    ran = await cli.here("download", "study", "1.2", "--to", one_file / "below", "--url", "http://127.0.0.1:1")
    assert ran.code == 2
    assert "--to" in ran.error_line


async def test_results_that_nobody_reads(cli_with_archive: Cli, study_folder: Path) -> None:
    import os

    cli: Any = cli_with_archive
    await cli.here("upload", study_folder)
    for arguments in (["search", "instances", "--json"], ["search", "instances"], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        ran = await cli(*arguments, "-q" if arguments != ["--help"] else "-h", stdout=writer)
        os.close(writer)
        assert (ran.code, ran.err) == (0, ""), arguments
    with Path("/dev/full").open("wb") as full:
        ran = await cli("search", "instances", "-q", stdout=full)
    assert ran.code == 8
    assert "standard output" in ran.error_line


async def test_a_study_of_more_than_one_page(cli: Cli, embedded_archive: Any, tmp_path: Path) -> None:
    """The archive's list is compared to its end, not only as far as its first page goes."""
    files = tmp_path / "many"
    files.mkdir()
    for name, content in study_files(205, pixel_bytes=0).items():
        (files / name).write_bytes(content)
    await embedded_archive.add(sorted(files.iterdir()))
    cli.use(embedded_archive)
    to = tmp_path / "back"
    assert (await cli.here("download", "study", uid(1), "--to", to)).out.startswith("205 saved;")
    again = await cli.here("download", "study", uid(1), "--to", to, "--json")
    assert again.json["summary"]["already_present"] == 205


async def test_a_download_into_a_report(cli_with_archive: Cli, study_folder: Path, tmp_path: Path) -> None:
    cli = cli_with_archive
    await cli.here("upload", study_folder, "--quiet")
    to, report = tmp_path / "to", tmp_path / "report.jsonl"
    got = await cli("download", "study", uid(1), "--to", to, "--report", report, "--json")
    assert got.code == 0
    assert got.json["summary"]["saved"] == 6
    assert got.json["summary"]["bytes"] == sum(path.stat().st_size for path in to.rglob("*.dcm"))
    assert got.json["items"] == []
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["saved"] * 6
    assert not any("path" in line for line in lines)
    again = await cli.here("download", "study", uid(1), "--to", to, "--report", report, "--report-paths")
    assert again.out.startswith("0 saved, 6 already present")
    later = [json.loads(line) for line in report.read_text().splitlines()][6:]
    assert {line["status"] for line in later} == {"present"}
    assert all(Path(line["path"]).is_file() for line in later)
    bad = await cli.here("download", "study", uid(1), "--to", to, "--report-paths")
    assert bad.code == 2
    assert "--report" in bad.error_line
