"""``postdicom wait``: it ends when an archive shows what was sent, or when the time is over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.cli import waiting
from tests.cli.conftest import Cli
from tests.faults.odd_archives import STUDY, make_odd
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

SOON = ("--every", "0.05", "--for", "30")
OVER = ("--every", "0.05", "--for", "0.1")


def file_of(folder: Path, number: int) -> Path:
    path = folder / f"{number}.dcm"
    path.write_bytes(small_dicom(uid(1), uid(1, 1), uid(1, 1, number), number=number))
    return path


async def test_until_it_is_there(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> None:
    cli = cli_with_archive
    waiting = asyncio.create_task(cli("wait", "--study", uid(1), "--instances", "2", *SOON))
    await embedded_archive.add([file_of(tmp_path, 1)])
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await embedded_archive.add([file_of(tmp_path, 2)])
    ran = await waiting
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("1 of 1 study, 2 of 2 instances after ")


async def test_what_is_there_already(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> None:
    await embedded_archive.add([file_of(tmp_path, 1)])
    for condition in (["--accession", "A-1"], ["-f", "PatientID=T*"], ["--study", uid(1)], ["-f", "PatientID=T-1"]):
        ran = await cli_with_archive.here("wait", *condition, "--for", "0", "--json")
        assert (ran.code, ran.json["summary"]["studies"]) == (0, 1)


async def test_the_time_is_over(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> None:
    await embedded_archive.add([file_of(tmp_path, 1)])
    ran = await cli_with_archive.here("wait", "--accession", "CANARY", *OVER, "--json")
    assert (ran.code, ran.json["summary"]["studies"], ran.json["ok"]) == (8, 0, False)
    assert "the archive shows 0 of 1 study" in ran.error_line
    assert "CANARY" not in ran.out + ran.err
    some = await cli_with_archive.here("wait", "--study", uid(1), "--instances", "9", *OVER)
    assert (some.code, some.out) == (8, "")
    assert "1 of 1 study, 1 of 9 instances" in some.error_line


async def test_every_instance_of_an_upload(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> None:
    cli, report = cli_with_archive, tmp_path / "sent.jsonl"
    sent = await cli.here("upload", file_of(tmp_path, 1), file_of(tmp_path, 2), "--report", report, "-q")
    assert sent.code == 0
    ran = await cli.here("wait", "--uploaded", report, *SOON)
    assert (ran.code, ran.out.partition(" after")[0]) == (0, "2 of 2 instances")
    with report.open("a") as lines:
        lines.write(f'{{"status":"stored","study_instance_uid":"{uid(2)}","sop_instance_uid":"{uid(2, 1, 1)}"}}\n')
        lines.write('{"status":"stored","study_inst')
    short = await cli.here("wait", "--uploaded", report, *OVER, "--json")
    assert (short.code, short.json["summary"]["instances"], short.json["summary"]["studies"]) == (8, 2, 1)
    del embedded_archive


async def test_failures_that_pass_are_waited_out(cli: Cli) -> None:
    asked = 0

    def answer(_request: Request) -> Reply:
        nonlocal asked
        asked += 1
        body = b'[{"0020000D":{"vr":"UI","Value":["1.2"]}}]'
        found = Reply(200, {"Content-Type": "application/dicom+json"}, body)
        return Reply(503) if asked == 1 else found

    async with FaultyServer(answer) as server:
        ran = await cli.here("wait", "--study", "1.2", "--url", server.url, "--attempts", "1", *SOON)
    assert ran.code == 0
    assert ran.err.endswith("; waiting\n")
    async with FaultyServer(lambda _request: Reply(401)) as server:
        ran = await cli.here("wait", "--study", "1.2", "--url", server.url, *SOON)
    assert ran.code == 4


async def test_where_a_study_is_listed_series_by_series(cli: Cli, tmp_path: Path) -> None:
    archive, report = make_odd("has no list of a study's instances"), tmp_path / "sent.jsonl"
    archive.counts = False
    line = '{{"status":"stored","study_instance_uid":"{}","sop_instance_uid":"{}"}}\n'
    report.write_text("".join(line.format(STUDY, uid(1, n, m)) for n in (1, 2, 3) for m in (1, 2)))
    async with FaultyServer(archive) as server:
        there = ("--url", server.url, "--attempts", "1", *SOON)
        for condition in (["--study", STUDY, "--instances", "6"], ["--uploaded", report]):
            ran = await cli.here("wait", *condition, *there)
            assert (ran.code, ran.err) == (0, "")
            assert "6 of 6 instances after " in ran.out


async def test_a_filter_that_is_ignored_is_no_answer(cli: Cli) -> None:
    async with FaultyServer(make_odd("ignores all filters")) as server:
        ran = await cli.here("wait", "--study", uid(77), "--url", server.url, "--attempts", "1", *SOON)
    assert ran.code == 1
    assert "not what was asked for" in ran.error_line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give --study, --accession, --filter or --uploaded"),
        (["--study", "1.2", "--studies", "2"], "--studies: not with --study"),
        (["--uploaded", "missing", "--instances", "2"], "leave the other conditions out"),
        (["--uploaded", "missing"], "--uploaded: missing: does not exist"),
        (["--uploaded", "empty"], "names no instance"),
        (["--uploaded", "wrong"], "is not what upload --report writes"),
        (["--study", "abc"], "--study: not a DICOM UID"),
        (["--study", "1.2", "--every", "0"], "--every"),
    ],
)
async def test_mistakes(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "wrong").write_text("{CANARY}\n")
    ran = await cli.here("wait", *words, "--url", "http://127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.error_line
    assert "CANARY" not in ran.err


async def test_an_archive_that_never_answers_shows_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_FIRST_LOOK", 0.1)
    async with FaultyServer(Reply(silent=True)) as server:
        ran = await cli.here("wait", "--study", "1.2", "--url", server.url, *OVER)
    assert ran.code == 8
    assert "the archive has not answered yet" in ran.error_line
