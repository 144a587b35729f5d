"""Jobs from the command line, as a user runs them: what they say, what they end with, what they are told meanwhile."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import pty
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.cli import job_run
from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Count
from tests.cli.conftest import Cli, Ran, ended
from tests.cli.job_ends import Counting, write_studies
from tests.jobs.summaries import small
from tests.support.canaries import CANARIES
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, unused_port

ALL = "80 instances: 80 done; "
SLOW = ("--max-rate", "20k")  # of a megabyte: runs until it is told otherwise


@pytest.fixture(autouse=True)
def state(cli: Cli, tmp_path: Path) -> Path:
    """Keep ledgers in a folder of the test's own."""
    cli.environment["POSTDICOM_STATE"] = str(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
async def archive() -> AsyncIterator[EmbeddedArchive]:
    """Run an archive that asks for no credentials."""
    async with EmbeddedArchive(username=None, password=None) as archive:
        yield archive


@pytest.fixture
async def other_archive() -> AsyncIterator[EmbeddedArchive]:
    """Run another one."""
    async with EmbeddedArchive(username=None, password=None) as archive:
        yield archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give three studies of five instances."""
    return write_studies(tmp_path / "in", 3)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Give what takes minutes at the rate of ``SLOW``."""
    return write_studies(tmp_path / "large", 40, each=2, pixel_bytes=10_000)


async def started(cli: Cli, *arguments: str | Path) -> asyncio.subprocess.Process:
    """Start a job, and wait until it can be told something."""
    process = await cli.start(*arguments)
    async with asyncio.timeout(30):
        while (await cli.here("jobs", "set", "copy", "--at-once", "2")).code:
            assert process.returncode is None, (await ended(process)).err
            await asyncio.sleep(0.05)
    return process


async def until_done(cli: Cli, count: int) -> None:
    """Wait until so many instances were moved."""
    async with asyncio.timeout(30):
        while (await shown(cli))["counts"].get("done", 0) < count:
            await asyncio.sleep(0.05)


async def shown(cli: Cli, name: str = "copy") -> Any:
    ran = await cli.here("jobs", "show", name, "--json")
    assert ran.code == 0, ran.err
    return ran.json["answer"]


def errors(ran: Ran) -> list[str]:
    return [line for line in ran.err.splitlines() if line.startswith("error: ")]


# --- copy, verify, dry run --------------------------------------------------------------------------------------------


async def test_a_second_copy_sends_nothing_and_asks_little(cli: Cli, folder: Path, archive: EmbeddedArchive) -> None:
    async with Counting(archive.url) as counting:
        ran = await cli("copy", folder, counting.url)
        assert (ran.code, ran.out.startswith("15 instances: 15 done; ")) == (0, True), ran.err
        sent = counting.methods.copy()
        assert sent["POST"] > 0
        again = await cli("copy", folder, counting.url)
        assert again.code == 0
        assert counting.methods["POST"] == sent["POST"]
        assert counting.methods["GET"] - sent["GET"] <= 3
    assert "begins" in ran.err.splitlines()[0]
    assert "looks again; 15 instances are known from before" in again.err.splitlines()[0]
    assert again.out.endswith("; 0 moved now\n")


async def test_verify_finds_what_is_missing_and_one_flipped_bit(
    cli: Cli, folder: Path, archive: EmbeddedArchive, tmp_path: Path
) -> None:
    assert (await cli.here("copy", folder, archive.url)).code == 0
    ran = await cli("verify", folder, archive.url, "--level", "bytes")
    assert (ran.code, ran.out) == (0, "15 instances: 15 present; 15 retrieved and compared\n"), ran.err
    sampled = ("--level", "bytes", "--sample", "20%", "--job", tmp_path / "some")
    ran = await cli.here("verify", folder, archive.url, *sampled)
    told = "15 found in the target's lists, a sample of 0.2 of them retrieved and compared"
    assert (ran.code, ran.out) == (0, f"15 instances: 15 present; {told}\n"), ran.err

    changed = study_files(5, study=1)
    gone, flipped = list(changed)[:2]
    other = tmp_path / "other"
    write_studies(other, 3)
    extra = uid(1, 1, 99)
    (other / "extra.dcm").write_bytes(small_dicom(uid(1), uid(1, 1), extra))
    data = bytearray(changed[flipped])
    data[-10] ^= 1
    (other / f"{flipped}.dcm").write_bytes(data)
    (other / f"{gone}.dcm").unlink()
    ran = await cli("verify", other, archive.url, "--level", "bytes", "--json")
    assert ran.code == 6
    assert ran.json["ok"] is False
    assert ran.json["summary"]["counts"] == {"present": 13, "failed": 2}
    assert {(one["text"], *one["examples"]) for one in ran.json["summary"]["reasons"]} == {
        ("the target does not list it", extra),
        ("the target holds another instance with its UID", flipped),
    }
    assert errors(ran) == ["error: 2 of 15 instances are not at the target as they should be"]
    listed = await cli("verify", other, archive.url)
    assert listed.code == 6
    assert "names each: postdicom jobs report verify-" in listed.err


async def test_a_dry_run_equals_the_run(cli: Cli, folder: Path, archive: EmbeddedArchive, tmp_path: Path) -> None:
    part = write_studies(tmp_path / "part", 1, each=3)
    assert (await cli.here("copy", part, archive.url)).code == 0
    async with Counting(archive.url) as counting:
        ran = await cli("copy", folder, counting.url, "--dry-run", "--json")
        assert ran.code == 0
        assert set(counting.methods) == {"GET"}
        text = await cli("copy", folder, counting.url, "--dry-run")
        assert re.fullmatch(
            r"3 studies: 12 instances to move \(.* kB\), 3 there already, 0 excluded; nothing was changed\n", text.err
        )
        assert [line.split("\t")[0] for line in text.out.splitlines()] == [one["study"] for one in ran.json["items"]]
        done = await cli("copy", folder, counting.url, "--json")
    assert ran.json["summary"]["to_move"] == done.json["summary"]["counts"]["done"] == 12
    assert ran.json["summary"]["there"] == done.json["summary"]["counts"]["present"] == 3
    assert ran.json["summary"]["bytes"] == done.json["summary"]["bytes"]["done"]


async def test_a_document_holds_it_all(cli: Cli, folder: Path, archive: EmbeddedArchive) -> None:
    ran = await cli.here("copy", folder, archive.url, "--json")
    document = ran.json
    assert (document["ok"], document["error"]) == (True, None)
    summary = document["summary"]
    assert (summary["verb"], summary["phase"], summary["run"], summary["verify"]) == ("copy", "complete", 1, "listed")
    assert summary["discovered"] == sum(summary["counts"].values()) == summary["verified"] == 15
    listed = await cli.here("jobs", "list", "--json")
    assert [(one["job"], one["running"]) for one in listed.json["items"]] == [(summary["job"], False)]


async def test_studies_in_a_file_come_first(cli: Cli, archive: EmbeddedArchive, large: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.write_text(f"{uid(9)}\n{uid(8)}\n")  # which would come last
    ran = await cli("copy", large, archive.url, *SLOW, "--at-once", "1", "--first", first, "--max-duration", "0.05")
    assert ran.code == 8, ran.err
    assert (await cli.here("jobs", "report", "copy", "--to", tmp_path / "items.csv")).code == 0
    with (tmp_path / "items.csv").open() as file:
        done = {row["study"] for row in csv.DictReader(file) if row["state"] == "done"}
    assert uid(9) in done
    assert len(done) < 20
    first.write_text("no uid\n")
    ran = await cli.here("copy", large, archive.url, "--first", first)
    assert (ran.code, "first" in ran.error_line) == (2, True)


# --- exit codes -------------------------------------------------------------------------------------------------------


async def test_1_some_failed_and_what_can_be_done(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = small_dicom(uid(1), uid(1, 1), uid(1, 1, 1))
    (tmp_path / "in" / "one.dcm").write_bytes(data)
    async with EmbeddedArchive(
        username=None, password=None, options=ArchiveOptions(refused_sop_classes=["1.2.840.10008.5.1.4.1.1.2"])
    ) as refuses:
        ran = await cli("copy", tmp_path / "in", refuses.url)
    assert ran.code == 1, ran.err
    name = (await shown(cli))["job"]
    lines = ran.err.splitlines()
    assert lines[-1] == "error: 1 of 1 instances failed or are not confirmed"
    assert f"tries these again: postdicom jobs retry {name} --failed" in lines
    assert f"names each: postdicom jobs report {name} --to report.html" in lines
    quiet = await cli("jobs", "retry", "copy", "--failed", "--quiet", "--patience", "0")
    assert quiet.code in (1, 5)
    assert quiet.out == ""
    assert len(quiet.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("copy", "{in}"), "TARGET"),
        (("copy", "{in}", "{in}"), "the same place"),
        (("copy", "{in}", "nobody:"), "nobody"),
        (("copy", "{in}", "{out}", "--max-rate", "fast"), "--max-rate: give "),
        (("copy", "{in}", "{out}", "--window", "sometimes"), "--window: "),
        (("copy", "{in}", "{out}", "--max-requests", "40M"), "--max-requests: give "),
        (("jobs", "set", "copy", "--max-requests", "often"), "--max-requests: give "),
        (("copy", "nobody:?Foo=1", "{out}"), "SOURCE: 'Foo' is neither"),
        (("copy", "{in}", "{out}", "--attempts", "0"), "--attempts"),
        (("copy", "{in}", "{out}", "--every", "0"), "--every"),
        (("copy", "{in}", "{out}", "--probe", "--max-duration", "1"), "--probe: not with"),
        (("copy", "{in}", "{out}", "--first", "missing"), "--first"),
        (("copy", "{in}", "{out}", "--scheduler-key", "missing"), "--scheduler: give its address"),
        (("copy", "{in}", "{out}", "--job", ""), "--job"),
        (("copy", "{in}/missing", "{out}"), "not exist"),
        (("sync", "{in}", "{out}", "--max-delete", "all"), "--max-delete: give a percentage"),
        (("copy", "{in}", "{out}", "--sample", "0"), "--sample: give a percentage above 0"),
        (("sync", "{in}", "{out}", "--delete", "some"), "--delete"),
        (("verify", "{in}", "{out}", "--level", "none"), "--level"),
        (("jobs", "retry", "copy"), "give --failed"),
        (("jobs", "retry", "copy", "--failed", "--reason", "77"), "--reason: no reason has the number 77"),
        (("jobs", "set", "copy"), "give --max-rate"),
        (("jobs", "report", "copy"), "--to"),
        (("jobs", "partition", "copy", "1", "--to", "parts"), "N"),
        (("jobs", "bogus"), "bogus"),
    ],
)
async def test_2_mistakes_are_one_line(
    cli: Cli, folder: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    places = {"in": str(folder), "out": str(tmp_path / "out")}
    ran = await cli.here(*(one.format(**places) for one in arguments))
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.error_line
    assert not list(tmp_path.glob("state/*.ledger"))


async def test_3_jobs_that_are_not_there(cli: Cli, folder: Path, tmp_path: Path) -> None:
    for words in (
        ["show"],
        ["resume"],
        ["retry", "--failed"],
        ["pause"],
        ["stop"],
        ["watch"],
        ["report", "--to", "a.csv"],
    ):
        ran = await cli.here("jobs", words[0], "nothing", *words[1:])
        assert (ran.code, ran.out) == (3, "")
        assert ran.error_line == "error: job: there is none of that name; postdicom jobs list shows them"
    assert (await cli.here("copy", folder, tmp_path / "out")).code == 0
    ran = await cli.here("jobs", "pause", "copy")
    assert ran.code == 3
    assert "does not run now; postdicom jobs resume copy-folder-folder-" in ran.error_line


async def test_4_a_wrong_password(cli: Cli, folder: Path) -> None:
    cli.environment["POSTDICOM_PASSWORD"] = CANARIES["password"]
    async with EmbeddedArchive() as closed:
        ran = await cli("copy", folder, closed.url.replace("://", "://demo@"))
    assert ran.code == 4
    assert len(errors(ran)) == 1
    assert CANARIES["password"] not in ran.out + ran.err


async def test_5_nobody_there(cli: Cli, folder: Path) -> None:
    ran = await cli("copy", folder, f"http://127.0.0.1:{unused_port()}", "--patience", "0")
    assert ran.code == 5, ran.err
    assert len(errors(ran)) == 1
    assert ran.err.splitlines()[-1] == errors(ran)[0]


@pytest.mark.parametrize("how", ["damaged", "no ledger", "another job's"])
async def test_7_a_ledger_that_cannot_be_used_is_refused_untouched(
    how: str, cli: Cli, folder: Path, archive: EmbeddedArchive, tmp_path: Path
) -> None:
    ledger = tmp_path / "job.ledger"
    if how == "no ledger":
        ledger.write_text("a letter")
    else:
        other = tmp_path / "elsewhere"
        assert (await cli.here("copy", folder, other, "--job", ledger)).code == 0
    if how == "damaged":
        whole = bytearray(ledger.read_bytes())
        whole[100:900] = b"\xff" * 800
        ledger.write_bytes(whole)
    before = ledger.read_bytes()
    ran = await cli.here("copy", folder, archive.url, "--job", ledger)
    assert (ran.code, ran.out) == (7, "")
    assert len(errors(ran)) == 1
    assert ledger.read_bytes() == before
    if how != "another job's":
        for words in (["show"], ["report", "--to", str(tmp_path / "a.csv")], ["resume"], ["watch"]):
            ran = await cli.here("jobs", words[0], ledger, *words[1:])
            assert (ran.code, len(ran.err.splitlines())) == (7, 1), (words, ran.err)
        assert not (tmp_path / "a.csv").exists()


async def test_8_more_would_be_deleted_than_is_allowed(cli: Cli, folder: Path, archive: EmbeddedArchive) -> None:
    assert (await cli.here("sync", folder, archive.url)).code == 0
    for name in study_files(5, study=2):
        (folder / f"{name}.dcm").unlink()
    ran = await cli.here("sync", folder, archive.url, "--delete", "copied")
    assert ran.code == 8
    assert "--max-delete" in errors(ran)[0]
    ran = await cli.here("sync", folder, archive.url, "--delete", "copied", "--max-delete", "50%")
    assert (ran.code, "5 deleted" in ran.out) == (0, True)


async def test_9_nothing_to_do(cli: Cli, folder: Path, tmp_path: Path) -> None:
    arguments = ("copy", folder, tmp_path / "out")
    assert (await cli.here(*arguments, "--error-if-nothing")).code == 0
    for more in ((), ("--dry-run",), ("--json",)):
        ran = await cli.here(*arguments, "--error-if-nothing", *more)
        assert ran.code == 9
        assert errors(ran) == ["error: there was nothing to do"]


# --- while it runs ----------------------------------------------------------------------------------------------------


async def test_a_running_job_is_shown_changed_paused_and_stopped(
    cli: Cli, large: Path, archive: EmbeddedArchive
) -> None:
    process = await started(cli, "copy", large, archive.url, "--max-rate", "2k")
    listed = (await cli.here("jobs", "list")).out.rstrip("\n").split("\t")
    assert (listed[1] in ("discovering", "moving"), len(listed)) == (True, 7)
    assert "runs now: " in (await cli.here("jobs", "show", "copy")).out
    second = await cli.here("copy", large, archive.url)
    assert (second.code, "this process or another runs this job" in second.error_line) == (7, True)
    refused = await cli.here("jobs", "set", "copy", "--max-rate", "much")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)

    assert (await cli.here("jobs", "pause", "copy")).err.endswith(": paused\n")
    paused = await cli("jobs", "set", "copy", "--max-rate", "off", "--window", "")
    assert paused.err.rstrip().endswith("set: max-rate off, max-requests off, at-once 2, window always")
    assert (await cli.here("jobs", "continue", "copy")).code == 0
    ran = await ended(process)  # at the old rate it would take ten minutes
    assert (ran.code, ran.out.startswith(ALL)) == (0, True), ran.err
    assert ran.err.count("paused; postdicom jobs continue copy-folder-") <= 1
    assert "\x1b" not in ran.err


async def test_a_job_is_stopped_from_elsewhere_and_goes_on(cli: Cli, large: Path, archive: EmbeddedArchive) -> None:
    process = await started(cli, "copy", large, archive.url, *SLOW)
    await until_done(cli, 1)
    assert (await cli.here("jobs", "stop", "copy")).err.endswith(": stops\n")
    ran = await ended(process)
    assert (ran.code, errors(ran)) == (5, ["error: it was told to stop"])
    assert "the same command again goes on from there" in ran.err
    listed = (await cli.here("jobs", "list")).out.split("\t")
    assert listed[1] == "stopped (moving)"
    assert "postdicom jobs resume copy-folder-" in (await cli.here("jobs", "show", "copy")).out
    resumed = await cli("jobs", "resume", "copy")
    assert (resumed.code, resumed.out.startswith(ALL)) == (0, True), resumed.err
    assert (await shown(cli))["run"] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_stops_it_in_good_order(
    number: int, code: int, cli: Cli, large: Path, archive: EmbeddedArchive
) -> None:
    process = await started(cli, "copy", large, archive.url, *SLOW, "--json")
    await until_done(cli, 1)
    begun = time.monotonic()
    process.send_signal(number)
    ran = await ended(process)
    assert time.monotonic() - begun < 10
    assert ran.code == code
    assert (ran.json["ok"], ran.json["error"]) == (False, "interrupted")
    summary = ran.json["summary"]
    assert summary["discovered"] == sum(summary["counts"].values()) > 0
    again = await cli("copy", large, archive.url)
    assert (again.code, again.out.startswith(ALL)) == (0, True), again.err


async def test_what_a_signal_leaves_says_how_to_go_on(cli: Cli, large: Path, archive: EmbeddedArchive) -> None:
    process = await started(cli, "copy", large, archive.url, *SLOW)
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert ran.code == 130
    assert ran.err.splitlines()[-3] == "stopping; Ctrl-C again ends at once"
    assert ran.err.splitlines()[-2].endswith("the same command again goes on from there")
    assert ran.err.splitlines()[-1] == "error: interrupted"


async def test_killed_it_goes_on(cli: Cli, large: Path, archive: EmbeddedArchive) -> None:
    process = await started(cli, "copy", large, archive.url, *SLOW)
    await until_done(cli, 2)
    process.kill()
    await process.communicate()
    assert (await shown(cli))["running"] is False
    ran = await cli("jobs", "resume", "copy")
    assert (ran.code, ran.out.startswith(ALL)) == (0, True), ran.err


async def test_after_its_time_it_stops(cli: Cli, large: Path, archive: EmbeddedArchive) -> None:
    arguments = ("copy", large, archive.url, *SLOW, "--max-duration", "0.02")
    ran = await cli(*arguments)
    assert (ran.code, errors(ran)) == (8, ["error: --max-duration is over"])
    assert "the same command again goes on from there" in ran.err
    ran = await cli(*arguments, "--json")
    assert (ran.code, ran.json["error"]) == (8, "--max-duration is over")


async def test_a_probe_estimates(
    cli: Cli, large: Path, archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_run, "_PROBED", 3.0)
    ran = await cli.here("copy", large, archive.url, *SLOW, "--probe")
    assert ran.code == 0, ran.err
    assert "a minute; left: " in ran.out
    ran = await cli.here("copy", large, archive.url, *SLOW, "--probe", "--json")
    assert ran.json["summary"]["instances_a_minute"] > 0
    monkeypatch.setattr(job_run, "_PROBED", 60.0)
    ran = await cli.here("copy", large, archive.url, "--probe")
    assert (ran.code, ran.out.startswith(ALL)) == (0, True), ran.err


async def test_every_so_often_until_it_is_stopped(cli: Cli, folder: Path, archive: EmbeddedArchive) -> None:
    process = await cli.start("copy", folder, archive.url, "--every", "0.02", "--new")  # anew once, not each time
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"15 instances: 15 done; ")
    (folder / "late.dcm").write_bytes(small_dicom(uid(9), uid(9, 1), uid(9, 1, 1)))
    async with asyncio.timeout(30):
        while b"16 done" not in await process.stdout.readline():
            pass
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130


async def test_a_closed_window_is_waited_for_and_said_once(cli: Cli, folder: Path, archive: EmbeddedArchive) -> None:
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    later = days[(datetime.now(UTC) + timedelta(days=3)).weekday()]
    process = await cli.start("copy", folder, archive.url, "--window", f"{later} 10:00-11:00 UTC")
    async with asyncio.timeout(30):
        while (await cli.here("jobs", "set", "copy", "--at-once", "3")).code:
            await asyncio.sleep(0.05)
    await asyncio.sleep(2.5)
    assert not (await shown(cli))["counts"]
    assert (await cli.here("jobs", "set", "copy", "--window", "")).code == 0
    ran = await ended(process)
    assert (ran.code, ran.out.startswith("15 instances: 15 done; ")) == (0, True), ran.err
    assert ran.err.count("waiting: the window opens ") == 1


# --- what there is ----------------------------------------------------------------------------------------------------


async def test_several_jobs_of_a_name_are_told_apart(cli: Cli, folder: Path, tmp_path: Path) -> None:
    assert "no jobs yet" in (await cli.here("jobs", "list")).err
    for name in ("one", "two"):
        assert (await cli.here("copy", folder, tmp_path / name)).code == 0
    ran = await cli.here("jobs", "show", "copy")
    assert ran.code == 2
    assert "job: 2 have that in their names: copy-folder-folder-" in ran.error_line
    assert (await cli.here("jobs", "pause", "copy")).code == 2
    rows = [line.split("\t") for line in (await cli.here("jobs", "list")).out.splitlines()]
    assert [row[1:5] for row in rows] == [["complete", "15", "15", "0"]] * 2
    (tmp_path / "state" / "old.ledger").write_text("not one")
    rows = [line.split("\t") for line in (await cli.here("jobs", "list")).out.splitlines()]
    assert [row[1] for row in rows if row[0] == "old"] != ["complete"]


async def test_what_is_told_to_jobs_of_a_name_is_told_to_the_one_that_runs(
    cli: Cli, folder: Path, large: Path, archive: EmbeddedArchive, tmp_path: Path
) -> None:
    assert (await cli.here("copy", folder, tmp_path / "out")).code == 0
    process = await started(cli, "copy", large, archive.url, "--max-rate", "2k")
    assert (await cli.here("jobs", "show", "copy")).code == 2
    assert (await cli.here("jobs", "stop", "copy")).code == 0
    assert (await ended(process)).code == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("old", "{out}"), "SOURCE: write old: for the archive of that name; a folder would be ./old"),
        (("{in}", "old"), "TARGET: write old: for the archive of that name; a folder would be ./old"),
        (("odl:", "{out}"), "did you mean old?"),
    ],
)
async def test_an_archive_without_its_colon_is_no_folder(
    cli: Cli, folder: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    cli.environment["POSTDICOM_CONFIG"] = str(tmp_path / "profiles.toml")
    added = await cli.here("profiles", "add", "old", "--url", "http://127.0.0.1:1", "--no-password")
    assert added.code == 0, added.err
    places = {"in": str(folder), "out": str(tmp_path / "out")}
    ran = await cli.here("copy", *(one.format(**places) for one in words))
    assert (ran.code, ran.error_line.endswith(says)) == (2, True)
    assert not (tmp_path / "old").exists()


async def test_a_report_is_written_in_each_form(cli: Cli, folder: Path, tmp_path: Path) -> None:
    assert (await cli.here("copy", folder, tmp_path / "out")).code == 0
    files = [tmp_path / f"report.{ending}" for ending in ("html", "jsonl", "csv")]
    ran = await cli.here("jobs", "report", "copy", *(word for file in files for word in ("--to", file)))
    assert ran.code == 0
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert len(files[2].read_text().splitlines()) >= 15
    assert json.loads(files[1].read_text().splitlines()[0])
    ran = await cli.here("jobs", "report", "copy", "--to", tmp_path / "report.pdf")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


async def test_parts_go_and_come_back(cli: Cli, large: Path, archive: EmbeddedArchive, tmp_path: Path) -> None:
    ran = await cli("copy", large, archive.url, *SLOW, "--max-duration", "0.03")
    assert ran.code == 8
    ran = await cli.here("jobs", "partition", "copy-folder", "2", "--to", tmp_path / "parts")
    assert ran.code == 0, ran.err
    parts = ran.out.splitlines()
    assert len(parts) == 2
    assert (await cli.here("copy", large, archive.url)).code == 7
    for part in parts:
        ran = await cli("jobs", "resume", part)
        assert ran.code == 0, ran.err
    ran = await cli.here("jobs", "merge", "copy-folder", *parts)
    assert (ran.code, "all parts are back; 80 instances: 80 done" in ran.err) == (0, True), ran.err
    assert (await cli("copy", large, archive.url)).code == 0


# --- the two streams --------------------------------------------------------------------------------------------------


async def on_a_terminal(cli: Cli, *arguments: str | Path, **env: str) -> tuple[int, str]:
    """Run with a terminal as standard output and error; return the code and what was drawn."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postdicom_async.cli", *map(str, arguments)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **cli.environment, **env},
        cwd=cli.folder,
    )
    os.close(theirs)
    drawn = b""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.run_in_executor(None, os.read, ours, 65536)
        except OSError:
            break
        if not data:
            break
        drawn += data
    os.close(ours)
    return await process.wait(), drawn.decode()


async def test_on_a_terminal_it_is_drawn_in_place(cli: Cli, large: Path, archive: EmbeddedArchive) -> None:
    arguments = ("copy", large, archive.url, *SLOW, "--max-duration", "0.05")
    code, drawn = await on_a_terminal(cli, *arguments)
    assert code == 8
    assert "\x1b[" in drawn
    assert "Copy" in drawn
    assert "Traceback" not in drawn
    code, plain = await on_a_terminal(cli, *arguments, NO_COLOR="1")
    assert code == 8
    assert "\x1b[3" not in plain  # a colour
    code, listed = await on_a_terminal(cli, "jobs", "list")
    assert (code, "FAILED" in listed, "stopped (moving)" in listed) == (0, True, True)
    code, silent = await on_a_terminal(cli, *arguments, "--quiet")
    assert (code, silent) == (8, "error: --max-duration is over\r\n")


async def test_elsewhere_a_line_now_and_then(cli: Cli, large: Path, archive: EmbeddedArchive) -> None:
    ran = await cli("copy", large, archive.url, *SLOW, "--max-duration", "0.12")
    assert ran.code == 8
    assert "\x1b" not in ran.err
    assert 1 <= sum("Copy folder to " in line and " of 80" in line for line in ran.err.splitlines()) <= 2, ran.err


async def test_quiet_is_silent(cli: Cli, folder: Path, archive: EmbeddedArchive) -> None:
    ran = await cli("copy", folder, archive.url, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


async def test_nobody_reads(cli: Cli, folder: Path, archive: EmbeddedArchive) -> None:
    assert (await cli.here("copy", folder, archive.url)).code == 0
    for arguments in (
        ("jobs", "list"),
        ("jobs", "show", "copy"),
        ("jobs", "watch", "copy"),
        ("copy", folder, archive.url),
        ("copy", folder, archive.url, "--dry-run"),
    ):
        ours, theirs = os.pipe()
        os.close(ours)
        with os.fdopen(theirs, "wb") as nobody:
            process = await cli.start(*arguments, stdout=nobody)
        ran = await ended(process)
        assert ran.code == 0, (arguments, ran.err)
        assert not errors(ran)


# --- nothing private --------------------------------------------------------------------------------------------------


async def test_nothing_private_is_told_or_kept(cli: Cli, tmp_path: Path, state: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    below = folder / CANARIES["path"]
    below.mkdir()
    for number in range(3):
        data = small_dicom(
            uid(1),
            uid(1, 1),
            uid(1, 1, number + 1),
            patient_name=CANARIES["patient_name"],
            patient_id=CANARIES["patient_id"],
        )
        (below / f"{number}.dcm").write_bytes(data)
    (below / "notes.txt").write_text("nothing")
    cli.environment["POSTDICOM_PASSWORD"] = CANARIES["password"]
    texts = []
    for reply in (
        None,
        Reply(503, {}, CANARIES["server_reason"].encode()),
        Reply(400, {}, CANARIES["server_reason"].encode()),
    ):
        async with (
            EmbeddedArchive(username="demo", password=CANARIES["password"]) as archive,
            FaultyServer(reply or Reply(404)) as faulty,
        ):
            url = archive.url.replace("://", "://demo@") if reply is None else faulty.url
            for arguments in (
                ("copy", folder, f"{url}?PatientID={CANARIES['patient_id']}&PatientName={CANARIES['patient_name']}"),
                ("copy", folder, url, "--dry-run"),
                ("copy", folder, url),
                ("verify", folder, url, "--level", "bytes"),
                ("sync", folder, url, "--delete", "all"),
                ("jobs", "list"),
                ("jobs", "list", "--json"),
            ):
                ran = await cli.here(
                    *arguments,
                    *(("--patience", "0") if arguments[0] != "jobs" and "--dry-run" not in arguments else ()),
                )
                texts.append(ran.out + ran.err)
    for job in state.glob("*.ledger"):
        texts.append(job.name)
        for ending in ("html", "jsonl", "csv"):
            report = tmp_path / f"report.{ending}"
            texts.append((await cli.here("jobs", "report", job, "--to", report)).err.replace(str(tmp_path), ""))
            texts.append(report.read_text())
        texts.append((await cli.here("jobs", "show", job, "--json")).out)
        texts.extend(
            file.read_bytes().decode("latin-1") for file in (job, job.with_name(f"{job.name}-wal")) if file.exists()
        )
    said = "\n".join(texts)
    for name in ("password", "patient_name", "patient_id", "path", "server_reason"):
        assert CANARIES[name] not in said, name


def test_what_was_under_way_when_a_job_ended_is_told_as_pending() -> None:
    summary = small(counts={State.RUNNING: Count(2), State.DONE: Count(1), State.PENDING: Count(3)})
    assert job_run.counts_text(summary).startswith("6 instances: 3 pending, 2 running, 1 done")
    assert job_run.counts_text(summary, runs=False).startswith("6 instances: 5 pending, 1 done")
    assert job_run.counts_text(small(counts={State.RUNNING: Count(2)}), runs=False) == "2 instances: 2 pending"
