"""The README and the command say the same."""

from __future__ import annotations

import asyncio
import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest

import postdicom_async
from postdicom_async import DicomWeb
from postdicom_async.cli.connection import ConnectionOptions
from postdicom_async.cli.exits import Exit
from postdicom_async.emulator import EmbeddedArchive
from tests.cli.commands import all_commands
from tests.cli.conftest import Cli
from tests.support.dicom_files import study_files

ROOT = Path(postdicom_async.__file__).parents[1]
README = ROOT / "README.md"
VARIABLES = {
    "POSTDICOM_URL", "POSTDICOM_USERNAME", "POSTDICOM_PASSWORD", "POSTDICOM_TOKEN", "POSTDICOM_DIALECT",
    "POSTDICOM_PROXY", "POSTDICOM_KEY_PASSWORD", "POSTDICOM_SHARE_PASSWORD", "POSTDICOM_API_KEY",
    "POSTDICOM_ACCOUNT_KEY", "POSTDICOM_ROUTER_URL", "POSTDICOM_CLOUD_USER", "POSTDICOM_ANONYMIZE_SECRET",
    "POSTDICOM_PROFILE", "POSTDICOM_CONFIG", "POSTDICOM_STATE", "POSTDICOM_PASSWORD_NAME",
    "POSTDICOM_ANONYMIZE_PATIENTS", "POSTDICOM_TOKEN_URL", "POSTDICOM_CLIENT_ID", "POSTDICOM_SCOPE",
    "POSTDICOM_CLIENT_SECRET",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not README.is_file(), reason="installed without its README")


OTHERS = ("pip ", "dask ", "while :; do dask ", "export ", "#")  # what else stands in its shell examples


def section(title: str = "From the command line") -> str:
    """Return what the README says about the command, or another of its sections."""
    text = README.read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def lines() -> list[str]:
    """Return the command lines in its shell examples, each on one line."""
    text = section() + section("Whole archives")  # with "Named archives"
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [line for line in blocks.splitlines() if line and not line.startswith(OTHERS)]


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_is_there(words: tuple[str, ...]) -> None:
    group, name = words[0], words[-1]
    rows = [row for row in section().splitlines() if row.startswith(f"| `postdicom {group}")]
    assert rows
    assert any(name in re.split(r"[ |\\`]+", row) for row in rows)


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_option_is_there(words: tuple[str, ...]) -> None:
    known = {"--help", "--json", "--quiet", "--debug"} | {f"--{name}" for name in ("url", "username", "dialect")}
    own = {option for param in all_commands()[words].params for option in param.opts if option.startswith("--")}
    text = section()
    missing = {option for option in own - known if f"{option}`" not in text and f"{option} " not in text}
    assert not missing


def test_every_exit_code_is_there() -> None:
    codes = {int(row.split("|")[1]) for row in section().splitlines() if re.match(r"\| \d+ \|", row)}
    assert codes == set(map(int, Exit))


def test_every_variable_is_there() -> None:
    text = section()
    assert set(re.findall(r"POSTDICOM_[A-Z_]+", text)) == VARIABLES
    folders = [ROOT / "postdicom_async" / name for name in ("cli", "jobs", "profiles")]
    source = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    assert set(re.findall(r"POSTDICOM_[A-Z_]*[A-Z]", source)) == VARIABLES
    assert ConnectionOptions.__dataclass_fields__


def test_every_library_name_of_the_doctor_is_there() -> None:
    assert "diagnose" in README.read_text(encoding="utf-8")


def test_there_are_examples() -> None:
    assert len(lines()) >= 25
    assert all(line.startswith("postdicom ") for line in lines())


@pytest.mark.parametrize("line", lines())
async def test_every_example_parses(cli: Cli, line: str) -> None:
    """As far as the help of the command, which is shown only when its words are understood."""
    words = shlex.split(line.partition("#")[0])[1:]
    command = next(known for known in all_commands() if tuple(words[: len(known)]) == known)
    parser = all_commands()[command]
    context = parser.make_context("postdicom", words[len(command) :])
    assert context.params
    ran = await cli.here(*command, "--help")
    assert ran.code == 0
    assert "Usage: postdicom" in ran.out


async def test_the_first_commands_of_whole_archives_move_one(cli: Cli, tmp_path: Path) -> None:
    """As they stand there, in that order, on two archives; the copy is killed once, and its line run again."""
    block = re.findall(r"```sh\n(.*?)```", section("Whole archives"), re.DOTALL)[0]
    commands = [shlex.split(line.partition("#")[0])[1:] for line in block.splitlines() if line.startswith("postdicom ")]
    assert len(commands) < 10
    files = {name: data for study in range(1, 9) for name, data in study_files(10, study=study, series=2).items()}
    cli.environment |= {name: str(tmp_path / name.lower()) for name in ("POSTDICOM_STATE", "POSTDICOM_CONFIG")}
    cli.environment |= {"POSTDICOM_PASSWORD_OLD": "first", "POSTDICOM_PASSWORD_NEW": "second"}
    async with (
        EmbeddedArchive(username="alice", password="first") as old,
        EmbeddedArchive(username="alice", password="second") as new,
    ):
        async with DicomWeb(old.url, auth=("alice", "first")) as client:
            await client.upload(list(files.values()))
        addresses = {"https://old.example/dicom-web": old.url, "https://new.example/dicom-web": new.url}
        for words in commands:
            here = [addresses.get(word, word) for word in words]
            asked = ["--no-password"] if words[:2] == ["profiles", "add"] else []  # what a terminal would be asked for
            if words == ["copy", "old:", "new:"]:
                killed = await cli.start(*words)
                await asyncio.sleep(0.7)  # wherever that is
                with suppress(ProcessLookupError):
                    killed.kill()
                await killed.communicate()
            ran = await cli(*here, *asked)
            assert ran.code == (3 if words[:2] == ["jobs", "set"] else 0), (words, ran.err)  # it does not run any more
        assert sorted(one.path.read_bytes() for one in new.store.instances()) == sorted(files.values())
    assert len((tmp_path / "items.csv").read_text().splitlines()) == 1 + len(files)
    assert "</html>" in (tmp_path / "report.html").read_text()
