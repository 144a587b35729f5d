"""``postdicom jobs partition`` and ``merge`` as a user runs them."""

from __future__ import annotations

from pathlib import Path

from postdicom_async.emulator import EmbeddedArchive
from tests.cli.conftest import Cli
from tests.support.dicom_files import study_files


async def test_a_job_is_split_its_parts_run_and_are_joined(
    cli: Cli, embedded_archive: EmbeddedArchive, tmp_path: Path
) -> None:
    cli.environment["POSTDICOM_STATE"] = str(tmp_path / "state")
    folder = tmp_path / "in"
    folder.mkdir()
    for study in (1, 2, 3):
        for name, data in study_files(2, study=study).items():
            (folder / f"{name}.dcm").write_bytes(data)
    assert embedded_archive.auth is not None
    user, password = embedded_archive.auth
    cli.environment["POSTDICOM_PASSWORD"] = password
    copied = await cli.here("copy", folder, embedded_archive.url.replace("://", f"://{user}@"))
    assert copied.code == 0, copied.err
    split = await cli.here("jobs", "partition", "copy", "2", "--to", tmp_path / "parts")
    assert split.code == 0, split.err
    parts = split.out.splitlines()
    assert [Path(part).is_file() for part in parts] == [True, True]
    out = await cli.here("jobs", "resume", "copy")
    assert (out.code, "parts of this job are out" in out.err) == (7, True), out.err
    for part in parts:
        ran = await cli.here("jobs", "resume", part)
        assert ran.code == 0, ran.err
    one = await cli.here("jobs", "merge", "copy", parts[1])
    assert (one.code, "1 parts are still out" in one.err) == (0, True), one.err
    twice = await cli.here("jobs", "merge", "copy", parts[1])
    assert (twice.code, "back already" in twice.err) == (7, True), twice.err
    rest = await cli.here("jobs", "merge", "copy", parts[0])
    assert (rest.code, "all parts are back" in rest.err) == (0, True), rest.err
    again = await cli.here("jobs", "resume", "copy")
    assert again.code == 0, again.err
    unknown = await cli.here("jobs", "partition", "nothing", "2", "--to", tmp_path / "more")
    assert (unknown.code, unknown.err.count("\n")) == (3, 1), unknown.err
