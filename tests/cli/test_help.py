"""What the help shows, and the manual page: everything is reachable, and what is shared is shown once."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from postdicom_async.cli.exits import MEANINGS, Exit
from postdicom_async.cli.helping import TOPICS, VARIABLES
from postdicom_async.cli.manual import manual_page
from postdicom_async.cli.table import COMMANDS, PANELS
from tests.cli.commands import all_commands
from tests.cli.conftest import Cli

SHARED = ("--ca-file", "--client-key", "--proxy", "--connections", "--deadline")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


async def test_the_help_fits_a_screen_in_groups(cli: Cli) -> None:
    ran = await cli.here("--help")
    lines = ran.out.rstrip().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    titles = [found[1] for line in lines if (found := re.match(r"╭─ (.+?) ─", line))]
    assert titles == ["Move", "Find", "PostDICOM", "Tools"]
    words = [line.split()[1] for line in lines if line.startswith("│")]
    assert words == [word for word in PANELS if word in COMMANDS.commands or word in COMMANDS.groups]
    assert set(words) == {*COMMANDS.commands, *COMMANDS.groups}  # no line of the list is continued on the next


async def test_a_command_begins_with_its_own_options_and_shows_the_connection_in_short(cli: Cli) -> None:
    ran = await cli.here("upload", "--help")
    assert ran.out.index("--existing") < ran.out.index("--anonymize") < ran.out.index("--url")
    assert not [option for option in SHARED if option in ran.out]
    text = " ".join(ran.out.split())
    assert "postdicom help connection" in text
    assert "postdicom help exit-codes" in text
    assert "4 authentication" not in ran.out


@pytest.mark.parametrize("command", ["search", "download", "upload", "verify"])
async def test_nothing_of_the_help_is_cut_and_flags_take_no_room(cli: Cli, command: str) -> None:
    text = (await cli.here(command, "--help")).out
    options = text[text.index("─ Options") :]
    assert not [line for line in options.splitlines() if "<bool>" in line or "…" in line]


async def test_the_help_says_what_wins_what_is_required_and_what_is_always_the_same(cli: Cli) -> None:
    async def text(*words: str) -> str:
        return " ".join((await cli.here(*words)).out.replace("│", " ").split())

    assert "The command line outranks the profile, and the profile the environment." in await text("help", "connection")
    assert "{instance} is required" in await text("download", "--help")
    assert "always the same instances" in await text("verify", "--help")
    assert "only results and errors" in await text("demo", "--help")


async def test_options_that_the_help_leaves_out_are_still_taken(cli: Cli) -> None:
    assert (await cli.here("upload", "--help")).code == 0
    ran = await cli.here("search", "studies", "--url", "http://127.0.0.1:1", "--ca-file", "missing.pem")
    assert (ran.code, ran.error_line) == (2, "error: --ca-file: there is no such file")


@pytest.mark.parametrize("topic", TOPICS)
async def test_topics(cli: Cli, topic: str) -> None:
    ran = await cli.here("help", topic)
    wanted = {
        "connection": (*SHARED, "--url", "--user", "POSTDICOM_PASSWORD"),
        "exit-codes": tuple(map(str, map(int, Exit))),
        "variables": tuple(", ".join(VARIABLES).split(", ")),
    }
    assert ran.code == 0
    assert not [word for word in wanted[topic] if word not in ran.out]
    assert set(MEANINGS) == set(Exit)


async def test_help_explains_commands(cli: Cli) -> None:
    assert (await cli.here("help", "search")).out == (await cli.here("search", "--help")).out
    assert "unassign" in (await cli.here("help", "cloud", "orders")).out
    assert "Move" in (await cli.here("help")).out
    wrong = await cli.here("help", "bogus")
    assert (wrong.code, wrong.out) == (2, "")
    assert "No such command 'bogus'" in wrong.error_line
    assert (await cli.here("help", "exit-codes", "more")).code == 2


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (["order", "search"], ["orders", "search"]),
        (["job", "list"], ["jobs", "list"]),
        (["profile", "add"], ["profiles", "add"]),
        (["folder", "share"], ["folders", "share"]),
        (["shares", "links"], ["share", "link"]),
        (["cloud", "user", "contact"], ["cloud", "users", "contacts"]),
    ],
)
async def test_singular_and_plural(cli: Cli, said: list[str], meant: list[str]) -> None:
    ran, other = await cli.here(*said, "--help"), await cli.here(*meant, "--help")
    assert ran.code == 0
    assert ran.out.splitlines()[3:] == other.out.splitlines()[3:]  # all but the usage, which repeats what was said
    wrong = await cli.here(*said, "--bogus")
    assert (wrong.code, "--bogus" in wrong.error_line) == (2, True)


def test_the_manual_page_has_every_command_and_option() -> None:
    text = manual_page().replace(r"\-", "-")
    for words, command in all_commands().items():
        assert f".SS postdicom {' '.join(words)}" in text
        missing = [name for one in command.params for name in one.opts if name[0] == "-" and name not in text]
        assert not missing
    assert text.count(r"\fB--ca-file FILE") == 2  # of every connection, and of `profiles add`
    assert not [line for line in text.splitlines() if line.startswith("'")]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
async def test_the_manual_page_is_set_without_a_warning(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "postdicom.1"
    page.write_text((await cli.here("man")).out)
    # The characters of a terminal are struck twice for bold; -P-cbou sets them once.
    ran = subprocess.run(["groff", "-man", "-ww", "-Tascii", "-P-cbou", page], capture_output=True, check=True)
    assert not ran.stderr
    assert b"EXIT STATUS" in ran.stdout
