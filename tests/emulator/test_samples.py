from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from postdicom_async.emulator.samples import (
    PATIENTS,
    ct_like_study,
    pydicom_test_files,
    write_benchmark_series,
    write_samples,
)
from postdicom_async.emulator.store.attributes import is_uid

if TYPE_CHECKING:
    from pathlib import Path


def test_samples_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, again, other = (
        write_samples(tmp_path / name, seed=seed, series=2, slices=2, size=64)
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )

    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in again]
    assert not {path.read_bytes() for path in one} & {path.read_bytes() for path in other}


def test_samples_hold_the_studies_they_promise(tmp_path: Path) -> None:
    paths = write_samples(tmp_path, slices=4, size=64)

    instances = [dcmread(path) for path in paths]
    assert {str(ds.PatientName) for ds in instances} == {patient.name for patient in PATIENTS}
    assert {ds.SpecificCharacterSet for ds in instances} == {"ISO_IR 192", "ISO_IR 100"}
    assert len({ds.SOPInstanceUID for ds in instances}) == len(paths) == 3 * 4 + 1 + 4 * 2
    assert len({ds.StudyInstanceUID for ds in instances}) == 6
    assert max(ds.get("NumberOfFrames", 1) for ds in instances) == 12
    for ds in instances:
        assert all(is_uid(uid) for uid in (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID))
        assert len(ds.PixelData) == 2 * ds.Rows * ds.Columns * ds.get("NumberOfFrames", 1)


def test_a_ct_like_slice_has_the_usual_geometry() -> None:
    ds = next(ct_like_study(slices=1))

    assert (ds.Rows, ds.Columns, ds.BitsAllocated, ds.Modality) == (512, 512, 16, "CT")
    assert len(set(ds.PixelData)) > 20


@pytest.mark.parametrize("size", [2_000, 50_000, 500_000, 33_000_000, 40_000_000])
def test_benchmark_instances_have_exactly_the_size(tmp_path: Path, size: int) -> None:
    (path,) = write_benchmark_series(tmp_path, 1, size)

    ds = dcmread(path)
    assert path.stat().st_size == size
    assert len(ds.PixelData) == 2 * ds.Rows * ds.Columns


@pytest.mark.parametrize("size", [500, 50_001])
def test_impossible_sizes_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match="must be even"):
        write_benchmark_series(tmp_path, 1, size)


def test_pydicoms_files_are_found_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)

    paths = pydicom_test_files()

    assert len(paths) > 50
    assert {"CT_small.dcm", "MR_small.dcm"} <= {path.name for path in paths}


@pytest.mark.parametrize("missing", ["multipart", "starlette", "uvicorn"])
def test_without_the_extra_one_line_says_so(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "try:\n    from postdicom_async.emulator import EmbeddedArchive\n"
        "except ImportError as error:\n    print(error.name.partition('.')[0], error.__suppress_context__, error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    hint = 'the embedded archive needs the extra "server": pip install "postdicom-async[server]"'
    assert ran.stdout == f"{missing} True {hint}\n"


def test_another_module_that_is_missing_is_named_as_it_is() -> None:
    program = "import sys; sys.modules['sqlite3'] = None\nimport postdicom_async.emulator"
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "sqlite3" in ran.stderr.splitlines()[-1]
