"""Jobs from a folder to a folder: everything that lies there is accounted for, and nothing private leaves the index."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from postdicom_async import LocalFileError, jobs
from postdicom_async.jobs.states import Reason, State
from tests.jobs.folders import files_below, written
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, study_files, uid


async def test_everything_in_a_folder_is_accounted_for(tmp_path: Path, canary_watch: CanaryWatch) -> None:
    root, to, ledger = tmp_path / CANARIES["path"], tmp_path / "to", tmp_path / "one.ledger"
    name, number = CANARIES["patient_name"], CANARIES["patient_id"]
    files = study_files(20, series=2) | study_files(10, study=2)
    private = small_dicom(uid(3), uid(3, 1), uid(3, 1, 1), patient_name=name, patient_id=number)
    written(root, {f"{name}/{n}": data for n, data in enumerate(files.values())})
    written(root, {f"{number}": private, "copy": private, "text": b"text", "empty": b""})
    written(root, {"cut": private[:-30], "other": private[:-2] + b"xx"})
    summary = await (await jobs.copy(root, to, job=ledger)).wait()
    assert {state: count.instances for state, count in summary.counts.items() if count.instances} == {
        State.DONE: 31,
        State.EXCLUDED: 3,
        State.FAILED: 2,
    }
    assert summary.discovered == len(files_below(root))
    reasons = {(line.state, line.reason): line.instances for line in summary.reasons if line.reason}
    assert reasons == {
        (State.EXCLUDED, Reason.NOT_DICOM): 2,
        (State.EXCLUDED, Reason.DUPLICATE_FILE): 1,
        (State.FAILED, Reason.UNREADABLE): 1,
        (State.FAILED, Reason.OTHER_CONTENT): 1,
    }
    assert {Path(path).stem: data for path, data in files_below(to).items()} == files | {uid(3, 1, 1): private}
    canary_watch.feed(summary)
    for file in tmp_path.iterdir():
        if file.is_file() and file.suffix not in {".source", ".private"}:
            canary_watch.feed_text(file.read_bytes(), file.name)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir() if file.is_file()} == {0o600}
    (root / "cut").write_bytes(small_dicom(uid(3), uid(3, 1), uid(3, 1, 2)))
    (root / "other").unlink()
    again = await (await jobs.copy(root, to, job=ledger)).wait()
    assert again.of(State.DONE).instances == 32
    assert again.of(State.FAILED).instances == 0
    assert again.of(State.EXCLUDED).instances == 5, "two of them are no more at the source"
    assert again.discovered == len(files_below(root)) + 2


@pytest.mark.skipif(sys.platform == "win32", reason="the call that fails here is one of POSIX systems")
async def test_a_full_disk_ends_a_job_that_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, to = tmp_path / "root", tmp_path / "to"
    files = {name: data for study in range(1, 5) for name, data in study_files(15, study=study).items()}
    written(root, files)
    real = os.writev
    written_files = 0

    def full(descriptor: int, pieces: object) -> int:
        nonlocal written_files
        written_files += 1
        if written_files > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, pieces)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(LocalFileError, match="the folder: the disk is full") as caught:
            await (await jobs.copy(root, to)).wait()
        assert caught.value.disk_full
    below = files_below(to)
    assert 0 < len(below) <= 20
    assert all(files[Path(path).stem] == data for path, data in below.items())
    summary = await (await jobs.copy(root, to)).wait()
    assert summary.of(State.DONE).instances + summary.of(State.PRESENT).instances == 60
    assert {Path(path).stem: data for path, data in files_below(to).items()} == files
