"""``postdicom jobs watch`` and ``jobs serve`` as a user runs them."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.states import State
from tests.cli.conftest import Cli, ended
from tests.support.dicom_files import study_files
from tests.support.plain_http import NO_AUTHORITIES


@pytest.fixture
async def job(cli: Cli, embedded_archive: EmbeddedArchive, tmp_path: Path) -> Cli:
    """Copy a folder of five instances, in a state folder of the test's own."""
    cli.environment["POSTDICOM_STATE"] = str(tmp_path / "state")
    folder = tmp_path / "in"
    folder.mkdir()
    for number, data in enumerate(study_files(5).values()):
        (folder / f"{number}.dcm").write_bytes(data)
    assert embedded_archive.auth is not None
    user, password = embedded_archive.auth
    cli.environment["POSTDICOM_PASSWORD"] = password
    ran = await cli.here("copy", folder, embedded_archive.url.replace("://", f"://{user}@"))
    assert ran.code == 0, ran.err
    return cli


async def test_a_job_that_has_ended_is_shown_once(job: Cli) -> None:
    ran = await job("jobs", "watch", "copy")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("\n") == 1
    assert "5 of 5" in ran.out
    assert "\x1b" not in ran.out


async def test_a_job_that_was_killed_is_said_to_be_stopped(job: Cli, tmp_path: Path) -> None:
    (path,) = (tmp_path / "state").rglob("*.ledger")
    async with await Ledger.open(path) as ledger:
        ledger.put("phase", "moving")
        await ledger.reset([State.DONE])
    ran = await job("jobs", "watch", "copy")
    assert ran.code == 0
    assert ran.out.rstrip().endswith("0 of 5, stopped")


async def test_it_is_served_until_it_is_stopped(job: Cli, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-a-monitoring-system")
    token.chmod(0o600)
    process = await job.start("jobs", "serve", "copy", "--control", "--metrics-token-file", token)
    assert process.stdout is not None
    address = (await process.stdout.readline()).decode().strip()
    url, _, _ = address.partition("/open?")
    async with httpx.AsyncClient(base_url=url, verify=NO_AUTHORITIES, trust_env=False, follow_redirects=True) as client:
        assert (await client.get("/")).status_code == 401
        told = await client.get("/metrics", headers={"Authorization": "Bearer a-token-of-a-monitoring-system"})
        assert 'postdicom_job_items{state="done"} 5' in told.text
        text = (await client.get(address)).text
        assert "None failed" in text
        assert "does not run now" in text
        assert "Pause" in text
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert ran.code == 0
    assert "the job was not touched" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs", "serve", "nothing"), "there is none of that name"),
        (("jobs", "watch", "nothing"), "there is none of that name"),
        (("jobs", "serve", "copy", "--metrics-token-file", "open-to-all"), "chmod 600"),
        (("jobs", "serve", "copy", "--metrics-token-file", "missing"), "the token file: does not exist"),
    ],
)
async def test_a_mistake_is_one_clear_line(job: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "open-to-all").write_text("a-token-of-a-monitoring-system")
    (tmp_path / "open-to-all").chmod(0o644)
    ran = await job(*arguments)
    assert ran.code != 0
    assert words in ran.error_line
