"""What the pages tell somebody to type is what the command takes; the pages to begin with are run as they stand."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import DicomWeb
from postdicom_async.emulator import EmbeddedArchive
from tests.cli.commands import all_commands
from tests.cli.conftest import Cli
from tests.docs.pages import DOCS, Block, blocks_of, commands_in
from tests.docs.pages import SHOWN as PAGES
from tests.support.dicom_files import small_dicom, study_files, uid

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its documentation")

SHOWN = [(block, words) for block in blocks_of("sh", "console", "ini") for words in commands_in(block)]
FIRST = "docs/start/command-line.md"
WHOLE = "docs/archives/index.md"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run commands in a folder of the test's own, with jobs and profiles in it."""
    made = Cli(tmp_path)
    made.environment |= {name: str(tmp_path / name.lower()) for name in ("POSTDICOM_STATE", "POSTDICOM_CONFIG")}
    return made


def test_there_are_examples() -> None:
    assert len(SHOWN) >= 60
    assert {block.page for block, _ in SHOWN} >= {"README.md", FIRST, WHOLE}


def test_no_command_hides_in_a_block_that_is_not_read() -> None:
    fences = {word for path in PAGES for word in re.findall(r"^ *```([\w{][^\s]*)", path.read_text(), re.M)}
    assert {word for word in fences if word[0] != "{"} <= {
        "sh",
        "console",
        "ini",
        "python",
        "text",
        "toml",
        "json",
        "js",
    }
    assert not [str(block) for block in blocks_of("text") if re.search(r"^(?:\$ )?postdicom \w", block.text, re.M)]


def parse(words: list[str]) -> None:
    """Let the command's own parser read a line; it raises what it has to say."""
    if words[:1] == ["--version"] or "--help" in words:
        named = [word for word in words if word[0] != "-"]
        assert not named or any(list(known[: len(named)]) == named for known in all_commands())
        return
    command = next((known for known in all_commands() if tuple(words[: len(known)]) == known), None)
    assert command, f"no such command: {' '.join(words)}"
    all_commands()[command].make_context("postdicom", words[len(command) :])


@pytest.mark.parametrize("page", sorted({block.page for block, _ in SHOWN}))
def test_every_line_parses(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for block, words in SHOWN:
        if block.page == page:
            try:
                parse(words)
            except Exception as error:
                wrong[f"{block} {' '.join(words)}"] = getattr(error, "message", str(error))
    assert not wrong


@pytest.mark.parametrize("name", ["SECURITY.md", "CONTRIBUTING.md"])
def test_commands_that_a_sentence_names_exist(name: str) -> None:
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    named = re.findall(r"`postdicom ([^`]*)`", text)
    assert named or name != "SECURITY.md"
    first = {words[0] for words in all_commands()} | {"--version"}
    assert [line for line in named if line.split()[0] not in first] == []
    for line in named:
        if len(line.split()) > 2:
            parse(shlex.split(line))


def test_a_line_that_does_not_parse_is_seen() -> None:
    for line in ("postdicom copy a:", "postdicom search studys", "postdicom copy a: b: --fast", "postdicom fly"):
        ((*words,),) = commands_in(Block("page.md", 1, "sh", f"{line}  # so\n"))
        with pytest.raises(Exception, match=r"Missing|none of|No such|no such"):
            parse(words)


def test_commands_are_found_in_lines() -> None:
    text = (
        'A=b postdicom scan x | sort > y && /opt/bin/postdicom jobs list # postdicom z\npip install "postdicom-async"\n'
    )
    assert list(commands_in(Block("page.md", 1, "sh", text))) == [["scan", "x"], ["jobs", "list"]]


# --- run as they stand ------------------------------------------------------------------------------------------------


def lines_of(page: str) -> list[str]:
    text = "".join(block.text for block in blocks_of("sh") if block.page == page)
    return [line for line in text.replace("\\\n", " ").splitlines() if line and line[0] != "#"]


async def run_line(cli: Cli, line: str, addresses: Mapping[str, str]) -> Any:
    """Run a line of a page, or take its variables over; None for one that has no command of ours, or never ends."""
    for shown, here in addresses.items():
        line = line.replace(shown, here)
    words = shlex.split(line, comments=True)
    if words[0] == "export":
        cli.environment |= {name: value for name, _, value in (word.partition("=") for word in words[1:])}
        return None
    return await cli(*words[1:]) if words[0] == "postdicom" and words[1] != "serve" else None


@pytest.mark.large  # ``nox -s docs`` runs it, too
async def test_the_first_page_works(cli: Cli, tmp_path: Path) -> None:
    """Its lines, in their order, beside the two archives that it has its reader start."""
    served = [words for block, words in SHOWN if block.page == FIRST and words[0] == "serve"]
    assert [words[:2] for words in served] == [["serve", "--port"]] * 2
    async with (
        EmbeddedArchive(username="demo", password="secret") as old,
        EmbeddedArchive(username="demo", password="secret2") as new,
    ):
        addresses = {
            f"http://127.0.0.1:{words[2]}": archive.url for words, archive in zip(served, (old, new), strict=True)
        }
        ran = [await run_line(cli, line, addresses) for line in lines_of(FIRST)]
        assert {one.code for one in ran if one} == {0}, [one.err for one in ran if one and one.code]
        assert sum(1 for one in ran if one) >= 10
        held = [sorted(one.path.read_bytes() for one in archive.store.instances()) for archive in (old, new)]
        assert held[0] == held[1] != []
    assert len(list((tmp_path / "received").rglob("*.dcm"))) > 1
    assert "</html>" in (tmp_path / "report.html").read_text()


async def test_the_first_commands_of_whole_archives_move_one(cli: Cli, tmp_path: Path) -> None:
    """As they stand there, in that order, on two archives; the copy is killed once, and its line run again."""
    block = next(block for block in blocks_of("sh") if block.page == WHOLE)
    commands = [words for line in block.text.splitlines() if (words := shlex.split(line, comments=True))]
    commands = [words[1:] for words in commands if words[0] == "postdicom"]
    assert 5 < len(commands) < 12
    files = {name: data for study in range(1, 9) for name, data in study_files(10, study=study, series=2).items()}
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
            if words[:3] == ["copy", "old:", "new:"] and "--dry-run" not in words:
                killed = await cli.start(*here)
                await asyncio.sleep(0.7)  # wherever that is
                with suppress(ProcessLookupError):
                    killed.kill()
                await killed.communicate()
            ran = await cli(*here, *asked)
            assert ran.code == (3 if words[:2] == ["jobs", "set"] else 0), (words, ran.err)  # it does not run any more
        assert sorted(one.path.read_bytes() for one in new.store.instances()) == sorted(files.values())
    assert len((tmp_path / "items.csv").read_text().splitlines()) == 1 + len(files)
    assert "</html>" in (tmp_path / "report.html").read_text()


MARKED = re.compile(r"^<!-- runs -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_blocks_that_say_so_are_found() -> None:
    assert MARKED.findall("<!-- runs -->\n```sh\npostdicom scan x\n```\n") == ["postdicom scan x\n"]


async def test_what_says_that_it_runs_does(cli: Cli, tmp_path: Path) -> None:
    """On an archive with one study, beside a folder ``to-send`` with another."""
    there = [
        small_dicom("1.2.840.113619.2.1", uid(9, 1), uid(9, 1, number), patient_name="DOE^JANE") for number in (1, 2)
    ]
    (tmp_path / "to-send").mkdir()
    for name, data in study_files(4, series=2).items():
        (tmp_path / "to-send" / f"{name}.dcm").write_bytes(data)
    pages = {block.page for block in blocks_of("sh")}
    for text in (text for page in sorted(pages) for text in MARKED.findall((DOCS.parent / page).read_text())):
        async with EmbeddedArchive() as embedded:
            cli.use(embedded)
            async with DicomWeb(embedded.url, auth=embedded.auth) as client:
                await client.upload(there)
            user = (embedded.auth or ("", ""))[0]
            same = {"https://archive.example/dicom-web": embedded.url, "USERNAME=me": f"USERNAME={user}"}
            for line in text.replace("\\\n", " ").splitlines():
                ran = await run_line(cli, line, same) if line and line[0] != "#" else None
                assert ran is None or ran.code == 0, (line, ran.err)
