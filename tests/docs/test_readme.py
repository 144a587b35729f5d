"""The README is short and works as it stands there; so do the pages on installing and on schedules."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import DicomWeb
from postdicom_async.cli.table import COMMANDS
from postdicom_async.emulator import EmbeddedArchive, archive_in_thread
from postdicom_async.emulator.samples import write_samples
from tests.cli.commands import all_commands
from tests.cli.conftest import Cli
from tests.faults.catalogue import FAULTS

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
SCHEDULES = PROJECT / "docs" / "archives" / "schedules.md"
STUDY = "2.25.67144370672622299390012371189995633518"  # of the sample patient, in 2021

pytestmark = pytest.mark.skipif(not README.is_file(), reason="installed without its README")


def block(heading: str, language: str) -> str:
    """Return the first block of code under a heading of the README."""
    section = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return str(re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[0])


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run commands in a folder of the test's own, with jobs and profiles in it."""
    made = Cli(tmp_path)
    made.environment |= {name: str(tmp_path / name.lower()) for name in ("POSTDICOM_STATE", "POSTDICOM_CONFIG")}
    return made


def samples(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Write the sample patient's studies, with small pictures; return all files, and those of the study of 2021."""
    files = write_samples(folder, series=2, slices=2, size=16, patients=False)
    whole = {path: path.read_bytes() for path in files}
    return sorted(whole.values()), sorted(data for data in whole.values() if STUDY.encode() in data)


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 180


@pytest.mark.parametrize("page", ["README.md", "docs/trust/index.md", "tests/README.md"])
def test_the_number_of_faults_is_that_of_the_catalogue(page: str) -> None:
    numbers = {name.split()[0] for name in FAULTS}
    said = re.findall(r"(\d+) faults,? in (\d+) forms", (PROJECT / page).read_text(encoding="utf-8"))
    assert said
    assert set(said) == {(str(len(numbers)), str(len(FAULTS)))}


def test_it_names_every_command() -> None:
    section = README.read_text(encoding="utf-8").partition("| to | commands |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(.+?)`", section)) == {*COMMANDS.commands, *COMMANDS.groups}


async def test_its_ten_lines_of_shell(cli: Cli, tmp_path: Path) -> None:
    """In their order, on two archives."""
    lines = block("From the command line", "sh").splitlines()
    assert len(lines) == 10
    files, study = samples(tmp_path / "to-send")
    cli.environment |= {"POSTDICOM_PASSWORD_OLD": "first", "POSTDICOM_PASSWORD_NEW": "second"}
    said = ""
    async with (
        EmbeddedArchive(username="alice", password="first") as old,
        EmbeddedArchive(username="alice", password="second") as new,
    ):
        addresses = {"https://old.example/dicom-web": old.url, "https://new.example/dicom-web": new.url}
        for line in lines:
            words = [addresses.get(word, word) for word in shlex.split(line, comments=True)[1:]]
            asked = ["--no-password"] if words[:2] == ["profiles", "add"] else []  # what a terminal would be asked for
            ran = await cli(*words, *asked)
            assert ran.code == 0, (words, ran.err)
            said += ran.out + ran.err
        assert sorted(one.path.read_bytes() for one in new.store.instances()) == files
    assert sorted(path.read_bytes() for path in (tmp_path / "received").rglob("*.dcm")) == study
    for expected in ("5 stored", "Phantom^Ada", "4 saved", "5 done", "5 retrieved and compared"):
        assert expected in said
    assert len((tmp_path / "items.csv").read_text().splitlines()) == 1 + len(files)
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = samples(tmp_path / "to-send")
    program = block("From Python", "python")
    monkeypatch.chdir(tmp_path)
    with archive_in_thread() as embedded:
        user, password = embedded.auth or ("", "")
        for shown, here in (
            ("https://archive.example/dicom-web", embedded.url), ('"user"', repr(user)), ('"password"', repr(password))
        ):  # fmt: skip
            assert program.count(shown) == 1
            program = program.replace(shown, here)
        exec(compile(program, "README.md", "exec"), {})
    assert sorted(path.read_bytes() for path in (tmp_path / "received").rglob("*.dcm")) == files


def test_every_extra_has_a_line() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`.+?`) \|", (PROJECT / "docs" / "start" / "install.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(extras)


def test_every_room_is_in_the_picture() -> None:
    text = (PROJECT / "docs" / "internals" / "index.md").read_text(encoding="utf-8")
    picture = text.partition("```text\npostdicom_async/\n")[2].partition("```")[0]
    rooms = {path.parent.name for path in (PROJECT / "postdicom_async").glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/ ", picture, re.MULTILINE)) == rooms


# --- schedules --------------------------------------------------------------------------------------------------------


def units() -> dict[str, str]:
    """Return the units of systemd that the page shows, by their names."""
    text = SCHEDULES.read_text(encoding="utf-8")
    names = re.findall(r"`/etc/systemd/system/([\w.-]+)`", text)
    return dict(zip(names, re.findall(r"```ini\n(.*?)```", text, re.DOTALL), strict=True))


def parsed(line: str) -> Any:
    """Return what the command takes a line for."""
    words = shlex.split(line.partition("/postdicom ")[2].partition(" >")[0])
    return all_commands()[(words[0],)].make_context("postdicom", words[1:])


def test_the_lines_of_cron_and_systemd_parse() -> None:
    lines = re.findall(r"^0 20 .*$", SCHEDULES.read_text(encoding="utf-8"), re.MULTILINE)
    lines += re.findall(r"^ExecStart=/opt/.*$", "".join(units().values()), re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        given = parsed(line).params
        assert (given["source"], given["max_duration"]) == ("old:", 600)
        assert "--quiet" not in line  # or the log of a good night is empty
        assert "%" not in line  # means something else to cron and systemd


def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    made = units()
    assert sorted(made) == ["postdicom-copy.service", "postdicom-copy.timer", "postdicom-failed.service"]
    for name, text in made.items():
        reader = configparser.RawConfigParser(strict=False)
        reader.optionxform = str  # type: ignore[assignment,method-assign]  # as systemd, which tells cases apart
        reader.read_string(text)
        (tmp_path / name).write_text(text.replace("/opt/postdicom/bin/postdicom", "/bin/true"))
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    found = subprocess.run(
        [program, "verify", *(str(tmp_path / name) for name in made)], capture_output=True, text=True, check=False
    )
    assert (found.returncode, [line for line in found.stderr.splitlines() if "postdicom-copy" in line]) == (0, [])


async def test_the_service_copies(cli: Cli, tmp_path: Path) -> None:
    """With the profiles that the page has its reader make, and passwords by the names that the unit gives them."""
    text = SCHEDULES.read_text(encoding="utf-8")
    made = re.findall(r"/opt/postdicom/bin/postdicom (profiles .*)", text)
    assert [line.split()[:3] for line in made] == [
        ["profiles", "add", "old"],
        ["profiles", "add", "new"],
        ["profiles", "test", "old"],
    ]
    unit = units()["postdicom-copy.service"]
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    for name in re.findall(r"LoadCredential=([\w.]+):", unit):
        (credentials / name).write_text(f"{name} secret\n")
        (credentials / name).chmod(0o400)
    (start,) = re.findall(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)
    (shown,) = re.findall(r"/opt/postdicom/bin/postdicom (jobs show .*)", text)
    files, _ = samples(tmp_path / "to-send")
    async with (
        EmbeddedArchive(username="alice", password="old.password secret") as old,
        EmbeddedArchive(username="alice", password="new.password secret") as new,
    ):
        async with DicomWeb(old.url, auth=("alice", "old.password secret")) as client:
            await client.upload(tmp_path / "to-send")
        addresses = {"https://old.example/dicom-web": old.url, "https://new.example/dicom-web": new.url}
        for line in (*made, start, shown):
            words = [addresses.get(word, word) for word in shlex.split(line)]
            ran = await cli(*words, env={"CREDENTIALS_DIRECTORY": str(credentials)})
            assert ran.code == 0, (line, ran.err)
        assert sorted(one.path.read_bytes() for one in new.store.instances()) == files
