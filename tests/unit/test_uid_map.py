"""The private file that says which UIDs became which others."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postdicom_async import Anonymization, LocalFileError, UidMap, UsageError
from postdicom_async.disk.anonymized import anonymized_now
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.results import InstanceUids
from tests.support.anonymizing import usable
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, study_files, uid

SECRET = "a secret of the tests"
REMAP = Anonymization(remap_uids=True, secret=SECRET)


def pair(number: int, study: int = 1) -> tuple[InstanceUids, InstanceUids]:
    old = InstanceUids(uid(study), uid(study, 1), uid(study, 1, number))
    return old, REMAP.uids_after(old)


def lines_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["kind", "old", "new"]
    return lines


def test_what_was_sent_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "uids.csv"
    before = os.umask(0)
    try:
        with UidMap(path) as uids:
            rules = Anonymization(remap_uids=True, secret=SECRET, uid_map=uids)
            for data in study_files(3).values():
                assert isinstance(anonymized_now(usable(data), rules), Usable)
                assert lines_of(path)[-1][2] == rules.new_uid(lines_of(path)[-1][1])
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    olds = [("study", uid(1)), ("series", uid(1, 1)), *(("instance", uid(1, 1, n)) for n in (1, 2, 3))]
    assert lines_of(path) == [[kind, old, REMAP.new_uid(old)] for kind, old in olds]


def test_nothing_else_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "uids.csv"
    data = small_dicom(patient_name=CANARIES["patient_name"], patient_id=CANARIES["patient_id"])
    with UidMap(path) as uids:
        rules = Anonymization(remap_uids=True, secret=CANARIES["password"], uid_map=uids, patient_ids="keyed")
        anonymized_now(usable(data), rules)
        watch = CanaryWatch()
        watch.feed(uids)
        watch.feed(rules)
    watch.feed_text(path.read_bytes())
    watch.assert_clean()
    assert re.fullmatch(rb"kind,old,new\n((study|series|instance),[\d.]+,2\.25\.\d+\n){3}", path.read_bytes())


def test_an_older_one_is_gone_on_with_and_what_was_cut_off_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    path = tmp_path / "uids.csv"
    with UidMap(path) as uids:
        uids.record(*pair(1))
        uids.record(*pair(2))
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        with UidMap(path) as uids:
            uids.record(*pair(3))
        kept = [line for line in whole.splitlines(keepends=True) if whole.index(line) + len(line) <= end]
        assert path.read_bytes().startswith(b"".join(kept) or b"kind,old,new\n")
        assert [["instance", *(one.sop_instance_uid for one in pair(3))]] == lines_of(path)[-1:]
        assert all(line[2] == REMAP.new_uid(line[1]) for line in lines_of(path)), f"cut at {end}"


def test_a_process_that_is_killed_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "uids.csv"
    program = (
        "import os, signal, sys\n"
        "from postdicom_async import UidMap\n"
        "from tests.unit.test_uid_map import pair\n"
        "uids = UidMap(sys.argv[1])\n"
        "for n in range(1, 51):\n"
        "    uids.record(*pair(n))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert ran.returncode == -9
    assert [line[1] for line in lines_of(path)[2:]] == [uid(1, 1, n) for n in range(1, 51)]
    with UidMap(path) as uids:
        uids.record(*pair(51))
    assert lines_of(path)[-1][1] == uid(1, 1, 51)


def test_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each returns when its lines are durable, and one sync may do for several."""
    path = tmp_path / "uids.csv"
    synced: list[int] = []
    sync, lock = os.fsync, threading.Lock()

    def noted(file: int) -> None:
        size = os.fstat(file).st_size
        sync(file)
        with lock:
            synced.append(size)

    with UidMap(path) as uids:
        monkeypatch.setattr(os, "fsync", noted)

        def record(number: int) -> bool:
            uids.record(*pair(number))
            text = path.read_bytes()
            end = text.index(f",{uid(1, 1, number)},".encode())
            return max(synced) > end

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(record, range(1, 201)))
    assert sorted(line[1] for line in lines_of(path)[2:]) == sorted(uid(1, 1, n) for n in range(1, 201))


def test_memory_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    with UidMap(tmp_path / "uids.csv") as uids:
        tracemalloc.start()
        try:
            for number in range(6_000):  # 18,000 pairs
                old = InstanceUids(uid(number), uid(number, 1), uid(number, 1, 1))
                uids.record(old, InstanceUids(*(f"2.25.{number}" for _ in range(3))))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 6 << 20


def test_a_disk_that_is_full_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "uids.csv"
    write = os.write
    with UidMap(path) as uids:
        rules = Anonymization(remap_uids=True, secret=SECRET, uid_map=uids)

        def half(file: int, data: bytes) -> int:
            if len(data) < 40:
                raise OSError(28, "No space left on device")
            return write(file, data[: len(data) // 2])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            result = anonymized_now(usable(small_dicom()), rules)
        assert isinstance(result, Unusable)
        assert result.reason == "cannot be anonymised: the map of UIDs: the disk is full"
        assert lines_of(path) == [], "no half line"
        assert isinstance(anonymized_now(usable(small_dicom()), rules), Usable)
    assert len(lines_of(path)) == 3


def test_a_sync_that_fails_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_file: int) -> None:
        raise OSError(5, "Input/output error")

    with UidMap(tmp_path / "uids.csv") as uids:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            for _ in range(2):
                with pytest.raises(LocalFileError, match="the map of UIDs: the disk failed"):
                    uids.record(*pair(1))
        uids.record(*pair(1))


def test_another_process_or_this_one_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "uids.csv"
    program = "import sys; from postdicom_async import UidMap; UidMap(sys.argv[1])"
    with UidMap(path):
        with pytest.raises(LocalFileError, match="the map of UIDs: this process has it open already: close it, or use"):
            UidMap(path)
        ran = subprocess.run(
            [sys.executable, "-c", program, str(path)], check=False, capture_output=True, text=True, timeout=60
        )
    assert ran.stderr.endswith("the map of UIDs: another process writes it\n")
    with UidMap(path) as uids:
        uids.close()
        with pytest.raises(LocalFileError, match="closed"):
            uids.record(*pair(1))


def test_what_is_not_a_private_map_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / CANARIES["path"]
    watch = CanaryWatch()
    path.write_bytes(b"kind,old,new\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others can read it; run chmod 600") as caught:
        UidMap(path)
    watch.feed(caught.value)
    path.chmod(0o600)
    for content in (b"something else\n", b"kind,other\n", b"x"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="there is another file in its place") as caught:
            UidMap(path)
        watch.feed(caught.value)
        assert path.read_bytes() == content
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(LocalFileError, match="a symbolic link is in the way"):
        UidMap(link)
    with pytest.raises(LocalFileError, match="does not exist") as gone:
        UidMap(tmp_path / "none" / CANARIES["path"])
    watch.feed(gone.value)
    watch.assert_clean()
