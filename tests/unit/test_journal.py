"""The file of a report: lines that are whole or absent, whatever the path is and whoever else writes to it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from postdicom_async.disk.journal import Journal
from postdicom_async.errors import LocalFileError
from postdicom_async.results import InstanceUids, Outcome, Status

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="paths are other things here")


def outcome(number: int) -> Outcome:
    return Outcome("where", Status.SAVED, InstanceUids("1.1", "1.2", f"1.3.{number}"), 7)


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "a folder is in the way"),
    "link to nowhere": (lambda path: path.symlink_to(path.parent / "none" / "there"), "does not exist"),
    "link to itself": (lambda path: path.symlink_to(path), "a symbolic link is in the way"),
    "pipe": (os.mkfifo, "nobody reads the pipe"),
    "below a file": (below_a_file, "not a folder is in the way"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_written_is_told_at_once(kind: str, tmp_path: Path) -> None:
    make, words = ODD[kind]
    path = tmp_path / "sub" / "report"
    path.parent.mkdir()
    make(path)
    with pytest.raises(LocalFileError, match=rf"^the report cannot be written: .*{words}$") as caught:
        Journal(path)
    assert caught.value.__context__ is None


def test_whoever_reads_a_pipe_gets_every_line_and_may_leave(tmp_path: Path) -> None:
    """More than a pipe holds; when its reader has gone nothing waits."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)

    def reader() -> None:
        with os.fdopen(reading, "rb") as file:
            read.extend(file.readline() for _ in range(5000))

    journal = Journal(path)  # before anybody reads: a pipe that nobody writes to is at its end
    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    for number in range(5000):
        journal.write(outcome(number))
    assert journal.problem is None
    thread.join(20)
    assert [json.loads(line)["sop_instance_uid"] for line in read] == [f"1.3.{number}" for number in range(5000)]
    journal.write(outcome(1))
    problem: LocalFileError | None = journal.problem
    assert problem is not None
    journal.close()


def test_two_runs_on_one_file(tmp_path: Path) -> None:
    def run(first: int) -> None:
        journal = Journal(tmp_path / "report")
        for number in range(first, first + 2000):
            journal.write(outcome(number))
        journal.close()
        assert journal.problem is None

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert sorted(int(line["sop_instance_uid"][4:]) for line in lines) == list(range(4000))


def test_a_line_that_was_cut_is_closed_by_the_next_run(tmp_path: Path) -> None:
    report = tmp_path / "report"
    for _ in range(2):
        journal = Journal(report)
        journal.write(outcome(1))
        journal.close()
    whole = report.read_bytes()
    report.write_bytes(whole[:-9])
    Journal(report).close()
    assert report.read_bytes() == whole[:-9] + b"\n"


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, bytes(data)[:7]))
    journal = Journal(tmp_path / "report")
    journal.write(outcome(1))
    journal.write(outcome(2))
    journal.close()
    assert [json.loads(line)["bytes"] for line in (tmp_path / "report").read_text().splitlines()] == [7, 7]
