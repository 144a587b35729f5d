"""The package as its users see it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import postdicom_async
from postdicom_async import errors, results, settings

PROJECT = Path(inspect.getfile(postdicom_async)).parents[1]
EXTRAS = {"typer", "rich", "starlette", "uvicorn", "keyring", "uvloop", "dicomweb_client"}
DEPENDENCIES = "httpx, pydicom, anyio, asyncio, multipart"
INNER_RESULTS = {"ListingCheck", "OnProgress"}


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd="/").stdout


def test_all_is_sorted_complete_and_there() -> None:
    names = postdicom_async.__all__
    assert len(names) == len(set(names))
    constants = [name for name in names if name.isupper()]
    classes = [name for name in names if name[0].isupper() and not name.isupper()]
    assert names == [*sorted(constants), *sorted(classes), *sorted(set(names) - {*constants, *classes})]
    assert all(getattr(postdicom_async, name) is not None for name in names)


def test_every_error_result_and_setting_can_be_imported_from_the_top() -> None:
    names = set(postdicom_async.__all__)
    assert set(errors.__all__) <= names
    assert set(results.__all__) - INNER_RESULTS <= names
    assert set(settings.__all__) <= names


def test_everything_lists_itself() -> None:
    assert set(postdicom_async.__all__) <= set(dir(postdicom_async))
    assert postdicom_async.__version__ == version("postdicom-async")


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        getattr(postdicom_async, "NoSuchName")  # noqa: B009 - mypy knows that it is not there


def test_importing_is_light() -> None:
    bare = set(run("import postdicom_async, sys; print(*sys.modules)").split())
    assert not bare & {*EXTRAS, "httpx", "pydicom"}
    loaded = set(run("from postdicom_async import DicomWeb, PostDicom; import sys; print(*sys.modules)").split())
    theirs = set(run(f"import {DEPENDENCIES}, sys; print(*sys.modules)").split())
    assert not (loaded - theirs) & {*EXTRAS, "numpy", "PIL", "sqlite3"}


def test_importing_takes_little_time() -> None:
    """Against what its own dependencies take, on the same machine at the same time."""
    code = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"
    ours = min(float(run(code.format("postdicom_async.dicomweb.client"))) for _ in range(2))
    theirs = min(float(run(code.format(DEPENDENCIES))) for _ in range(2))
    assert ours < 3 * theirs + 0.5


@pytest.mark.parametrize("module", ["postdicom_async.emulator", "postdicom_async.cli.main"])
def test_the_extras_are_modules_of_their_own(module: str) -> None:
    assert find_spec(module) is not None


def test_the_errors_form_one_tree() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.PostdicomError)
        assert kind.__doc__
    assert issubclass(results.IncompleteDownload, errors.TransferError)
    assert issubclass(errors.UsageError, ValueError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.ServerError("it failed"), "it failed"),
        (errors.ServerError("it failed", operation="search"), "search: it failed"),
        (
            errors.ServerError("it failed", operation="search", status=500, reason="disk", attempts=3),
            "search: it failed (status 500; server says: disk; 3 attempts)",
        ),
        (errors.ServerError("it failed", attempts=1), "it failed"),
    ],
)
def test_an_error_is_one_line(error: errors.PostdicomError, text: str) -> None:
    assert str(error) == text


def test_reports_tell_failures_from_other_files() -> None:
    status = results.Status
    outcomes = tuple(results.Outcome(f"/QUILLFEATHER/{one}", one) for one in status)
    report = results.UploadReport(outcomes, Counter(status), 10, 1.0)
    assert not report.ok
    assert {one.status for one in report.failures} == {
        status.FAILED,
        status.UNCONFIRMED,
        status.UNREADABLE,
        status.MISSING,
        status.REFUSED,
    }
    assert report.counts == dict.fromkeys(status, 1)
    assert "QUILLFEATHER" not in repr(report) + repr(outcomes)
    acceptable = tuple(one for one in outcomes if one not in report.failures)
    good = results.UploadReport(acceptable, Counter(one.status for one in acceptable), 10, 1.0)
    good.raise_for_failures()
    with pytest.raises(errors.TransferError) as caught:
        report.raise_for_failures()
    assert caught.value.report is report
    assert "QUILLFEATHER" not in str(caught.value)


README_NAMES = ["postdicom-async", "postdicom_async", "DicomWeb", "upload", "download_study", "postdicom demo"]


@pytest.mark.xfail(
    len((PROJECT / "README.md").read_text(encoding="utf-8")) < 1000,
    reason="the README is still to be written",
    strict=True,
)
@pytest.mark.parametrize("name", README_NAMES)
def test_the_readme_mentions(name: str) -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(text) > 1000
    assert name in text


@pytest.mark.large  # ``nox -s types`` reads that file, too
def test_a_user_of_the_api_is_typed(tmp_path: Path) -> None:
    """The file beside this one is written as a user would; mypy --strict has nothing to say about it."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "--config-file", os.devnull]
    usage = Path(__file__).with_name("typed_usage.py")
    found = subprocess.run(
        [*command, "--follow-imports=silent", str(usage)], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    assert found.returncode == 0, found.stdout + found.stderr
