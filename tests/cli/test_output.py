"""What is pure: text for people, progress, tables."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest
from pydicom.dataset import Dataset

from postdicom_async import BytesMoved, ServerError, Totals, UsageError
from postdicom_async.cli import output, progress
from postdicom_async.cli.exits import Exit, code_of, code_of_all
from postdicom_async.cli.progress import Progress, RecentPace, counts_text, fraction_of
from postdicom_async.cli.search import SearchLevel, search_tables, value_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Święty^Łukasz 山田", "Święty^Łukasz 山田"),
        ("a\x1b[31mb\x9bc", "a\ufffd[31mb\ufffdc"),
        ("a\nb\tc\u2028d", "a b c d"),
        ("\u202eabc\u200b", "\ufffdabc\ufffd"),
        ("\udc80", "\ufffd"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert output.clean(text) == shown


_HASTY = """
import signal
from postdicom_async.cli import output
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)  # interrupts a write that waits for the reader, which ends it short
output.prepare()
output.write("x" * 1_000_000)
signal.setitimer(signal.ITIMER_REAL, 0)
output.close()
"""


def test_nothing_is_lost_where_python_buffers_nothing() -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", _HASTY]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        time.sleep(0.5)
        assert process.stdout is not None
        assert len(process.stdout.read()) == 1_000_001
    assert process.returncode == 0


def test_numbers_for_people() -> None:
    assert [output.size_text(n) for n in (0, 999, 1000, 999_949, 999_950, 2.5e12, 1e16)] == [
        "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "2.5 TB", "10000.0 TB",
    ]  # fmt: skip
    assert [output.time_text(s) for s in (0.04, 59.94, 61, 3661)] == ["0.0 s", "59.9 s", "1:01", "1:01:01"]
    assert output.rate_text(5_000_000, 2) == "2.5 MB/s"
    assert output.rate_text(5, 0) == ""


def test_library_words_become_options() -> None:
    advice = "leave user and password out of the address and give them as auth=(user, password)"
    output.speak_of({"url": "--url", "window": "--window"})
    assert output.in_options(UsageError(advice, argument="url")) == (
        "--url: leave user and password out of the address and give them as --username and POSTDICOM_PASSWORD"
    )
    assert output.in_options(UsageError("no such day", argument="windows")) == "--window: no such day"
    assert output.in_options(UsageError("no", argument="expires", operation="share")) == "share: expires: no"
    assert output.in_options(UsageError("give tls.key too", argument="tls.certificate")) == (
        "--client-cert: give --client-key too"
    )
    output.speak_of({})
    assert output.in_options("nothing to change") == "nothing to change"


def test_codes() -> None:
    assert code_of(ServerError("x")) is Exit.ITEMS_FAILED
    assert code_of(ServerError("x", temporary=True)) is Exit.TEMPORARY
    assert code_of_all([Exit.OK, Exit.OK]) is Exit.OK
    assert code_of_all([Exit.NOT_FOUND, Exit.NOT_FOUND]) is Exit.NOT_FOUND
    assert code_of_all([Exit.OK, Exit.NOT_FOUND]) is Exit.ITEMS_FAILED


def test_pace_by_bytes_and_by_instances() -> None:
    pace = RecentPace()
    assert (pace.bytes_per_second, pace.seconds_left) == (0.0, None)
    pace.note(100.0, Totals(0, 10, 0, 1000))
    pace.note(102.0, Totals(4, 10, 200, 1000))
    assert (pace.bytes_per_second, pace.seconds_left) == (100.0, 8.0)
    pace.note(104.0, Totals(5, 10, 400, None))
    assert pace.seconds_left == pytest.approx(4.0)
    for moment in range(106, 130):
        pace.note(float(moment), Totals(5, 10, 400, None))
    assert pace.bytes_per_second == 0
    assert pace.seconds_left is None


def test_how_far() -> None:
    assert fraction_of(Totals(1, None, 5, None)) is None
    assert fraction_of(Totals(1, 4, 5, None)) == 0.25
    assert fraction_of(Totals(1, 4, 500, 1000)) == 0.5
    assert counts_text(Totals(1, 4, 500, 2000)) == "1/4 instances, 500 B of 2.0 kB"
    assert counts_text(Totals(1, None, 500, None)) == "1 instances, 500 B"


async def test_lines_elsewhere(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress._Lines, "interval", 0.05)
    async with Progress("Upload", quiet=False) as shown:
        shown(BytesMoved(Totals(1, 4, 500, 2000)))
        await asyncio.sleep(0.08)
    err = capsys.readouterr().err
    assert err.startswith("Upload: 1/4 instances, 500 B of 2.0 kB, ")
    assert "left" in err
    async with Progress("Upload", quiet=True) as shown:
        shown(BytesMoved(Totals(1, 4, 500, 2000)))
    assert capsys.readouterr().err == ""


async def test_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    async with Progress("Upload", quiet=False) as shown:
        shown(BytesMoved(Totals(1, 4, 500, 2000)))
        await asyncio.sleep(0.3)
    err = capsys.readouterr().err
    assert "1/4 instances, 500 B of 2.0 kB" in err
    assert "━" in err
    assert err.count("\x1b[?25l") == err.count("\x1b[?25h") == 1
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress._view("x", quiet=False), progress._Lines)


def test_narrow_terminals_have_a_table_for_the_uids(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Dataset()
    study.PatientName, study.PatientID, study.StudyInstanceUID = "Święty^Łukasz", "1", "1.2." + "3" * 60
    monkeypatch.setattr(output, "width", lambda: 200)
    (wide,) = search_tables(SearchLevel.STUDIES, [study], ["PatientSex"])
    assert [str(column.header) for column in wide.columns] == ["Patient", "ID", "Study Instance UID", "PatientSex"]
    monkeypatch.setattr(output, "width", lambda: 80)
    narrow = search_tables(SearchLevel.STUDIES, [study])
    assert [[str(column.header) for column in each.columns] for each in narrow] == [
        ["#", "Patient", "ID"],
        ["#", "Study Instance UID"],
    ]
    assert study.StudyInstanceUID in output.render(narrow)


def test_values() -> None:
    item = Dataset()
    item.CodeMeaning = "Chest"
    dataset = Dataset()
    dataset.ModalitiesInStudy = ["CT", "SR"]
    dataset.StudyDate = "20240131"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.AnatomicRegionSequence = [item]
    shown = {
        "ModalitiesInStudy": "CT, SR",
        "StudyDate": "2024-01-31",
        "00080020": "2024-01-31",
        "SOPClassUID": "CT Image",
        "AnatomicRegionSequence": "(sequence)",
        "AnatomicRegionSequence.CodeMeaning": "Chest",
        "PatientName": "",
    }
    assert {attribute: value_text(dataset, attribute) for attribute in shown} == shown
