"""Words completed by the shells themselves, from the scripts that the command writes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from select import select

import pytest

from postdicom_async.cli.completion import candidates, words_of
from tests.cli.conftest import Cli
from tests.unit.test_cold_start import modules_after

HEAVY = {"httpx", "aiohttp", "pydicom", "numpy", "uvloop", "keyring", "sqlite3", "rich"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two archives and two jobs of this user, and a folder on the path with the command in it."""
    file = tmp_path / "profiles.toml"
    file.write_text('[hospital]\nurl = "https://a.example/d"\n[hostel]\nurl = "https://b.example/d"\n')
    jobs = tmp_path / "jobs"
    jobs.mkdir(mode=0o700)
    for name in ("copy-old-new-0a1b2c3d", "copy-old-old-00000000"):
        (jobs / f"{name}.ledger").touch()
    program = tmp_path / "bin" / "postdicom"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m postdicom_async.cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "images one").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("POSTDICOM_CONFIG", str(file))
    monkeypatch.setenv("POSTDICOM_STATE", str(jobs))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


# An interactive bash splits its line into words at = and : as well, as is done here for it.
BASH = r"""
source <(postdicom completion bash)
compopt() { echo "no files"; }
while IFS= read -r COMP_LINE; do
    COMP_POINT=${#COMP_LINE}
    read -ra COMP_WORDS <<< "${COMP_LINE//=/ = }"
    [[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    COMPREPLY=()
    _postdicom postdicom
    (IFS=,; echo "${COMPREPLY[*]}")
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.usefixtures("here")
def test_in_bash() -> None:
    asked = {
        "postdicom jo": "jobs",
        "postdicom upload --ex": "--existing",
        "postdicom upload --existing ": "skip,send",
        "postdicom upload --existing=s": "skip,send",
        "postdicom order assign --user": "--user-uuid,--user-group-uuid,--username",
        "postdicom search st": "studies",
        "postdicom search studies --profile ho": "hospital,hostel",
        "postdicom copy hosp": "hospital:",
        "postdicom profile test hos": "hospital,hostel",
        "postdicom job show copy-old-n": "copy-old-new-0a1b2c3d",
        "postdicom download study ": "no files\n",
        "postdicom upload im": "",
        "postdicom bogus ": "no files\n",
    }
    ran = subprocess.run(
        ["bash", "--norc", "-c", BASH],
        input="\n".join(asked) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout == "".join(f"{reply}\n" for reply in asked.values())
    assert not ran.stderr


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="bash is not installed")
def test_at_the_prompt_of_bash(here: Path) -> None:
    """Files where files are meant, although the script answers nothing; and nothing typed twice behind = and :."""
    ours, theirs = os.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=here,
        env={**os.environ, "PS1": "READY> ", "TERM": "dumb", "INPUTRC": "/dev/null"},
        start_new_session=True,
    )
    os.close(theirs)

    def type_in(text: str, until: str) -> None:
        os.write(ours, text.encode())
        seen = ""
        while until not in seen:
            assert select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 4096).decode()

    try:
        type_in("", "READY> ")
        type_in("source <(postdicom completion bash)\n", "READY> ")
        type_in("postdicom scan im\t", r"images\ one/")
        type_in(" --js\t", "--json ")
        type_in("\x15postdicom copy hosp\t", "hospital: ")
        type_in("im\t", r"images\ one/")
        type_in("\x15postdicom upload --existing=sk\t", "--existing=skip ")
        type_in("\x15exit\n", "exit")
        assert shell.wait(30) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.usefixtures("here")
def test_in_fish() -> None:
    program = (
        "postdicom completion fish | source; complete -C 'postdicom upload --existing '; complete -C 'postdicom pro'"
    )
    lines = run("fish", "--no-config", "-c", program).splitlines()
    assert lines == ["send", "skip", "profiles\tNamed archives: add, list, show, test, remove."]
    assert run("fish", "--no-config", "-c", "postdicom completion fish | source; complete -C 'postdicom scan im'") == (
        "images one/\n"
    )


ZSH = r"""
autoload -Uz compinit && compinit -u -d ./zcompdump
source <(postdicom completion zsh)
_describe() { print -rl -- "${(@P)2}"; }
_files() { print files; }
words=(postdicom copy hosp); CURRENT=3; _postdicom
words=(postdicom search studies --profile=host); CURRENT=4; _postdicom
words=(postdicom upload im); CURRENT=3; _postdicom
words=(postdicom download study ''); CURRENT=4; _postdicom || print none
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.usefixtures("here")
def test_in_zsh() -> None:
    assert run("zsh", "-f", "-c", ZSH).splitlines() == [r"hospital\:", "--profile=hostel", "files", "none"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_script_is_what_the_shell_can_read(cli: Cli, tmp_path: Path, shell: str) -> None:
    ran = await cli.here("completion", shell)
    assert ran.code == 0
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(ran.out)
        run(shell, "-n", str(tmp_path / "script"))
    assert (await cli.here("completion", "tcsh")).code == 2


# --- what is answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("postdicom ", ["postdicom", ""]),
        ("postdicom up", ["postdicom", "up"]),
        ("postdicom upload 'a b", ["postdicom", "upload", "a b"]),
        ('postdicom upload "a b', ["postdicom", "upload", "a b"]),
        ("postdicom upload a\\ b ", ["postdicom", "upload", "a b", ""]),
    ],
)
def test_words_of_a_line(line: str, words: list[str]) -> None:
    assert words_of(line) == words


def words_for(line: str) -> list[str] | None:
    *before, begun = line.split(" ")
    found = candidates(before, begun)
    return found if found is None else [one.word for one in found]


def test_options_behind_arguments_and_values() -> None:
    assert words_for("--vers") == ["--version"]
    assert words_for("cloud orders un") == ["unassign"]
    assert words_for("cloud orders --") == ["--help"]
    assert words_for("upload a b --existing") == ["--existing"]
    assert words_for("upload --report --existing --send") == ["--send-truncated"]  # the report is a file of that name
    assert words_for("upload --quiet a --report ") is None
    assert words_for("download -- ser") == ["series"]
    assert words_for("download -- --") == []
    assert words_for("upload --connections ") == []
    assert words_for("search studies --study 1.2") == []


def test_options_that_the_help_leaves_out_are_completed() -> None:
    assert words_for("search studies --ca") == ["--ca-file"]


def test_little_is_imported() -> None:
    code = "from postdicom_async.cli.completion import candidates; candidates([], 'up'); candidates(['upload'], '--e')"
    assert not modules_after(code) & HEAVY
