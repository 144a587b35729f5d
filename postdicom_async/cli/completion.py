"""``postdicom completion``: the scripts that complete words in a shell, and the answers that they ask for.

A script calls `postdicom` with `main.COMPLETE` set to its shell, and with the words up to the cursor; `answer` prints
one candidate a line. It reads the table of commands, the options of the one command that is named, and of this machine
the names of profiles and jobs; it speaks to no archive and completes no UID. An answer without a candidate lets the
shell complete files; `_NO_FILES` alone says that no file would be right either.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.options import Common
from postdicom_async.cli.table import COMMANDS, known_as

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_BASH = r"""
_postdicom() {
    local IFS=$'\n'
    COMPREPLY=($(_COMPLETE_POSTDICOM=bash "${1/#\~/$HOME}" "${COMP_LINE:0:COMP_POINT}" "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null))
    if [[ ${COMPREPLY[0]} == '!' ]]; then
        COMPREPLY=()
        compopt +o default
    fi
}
complete -o default -F _postdicom postdicom
"""  # noqa: E501
_ZSH = r"""#compdef postdicom
_postdicom() {
    local -a found
    found=("${(@f)$(_COMPLETE_POSTDICOM=zsh ${(Q)words[1]} "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ $found[1] == '!' ]]; then
        return 1
    elif [[ -z $found[1] ]]; then
        _files
    else
        _describe postdicom found
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _postdicom "$@"
else
    compdef _postdicom postdicom
fi
"""
_FISH = r"""
function __postdicom_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found (env _COMPLETE_POSTDICOM=fish $words "$current" 2>/dev/null)
    if test (count $found) -eq 0
        __fish_complete_path "$current"
    else if test "$found[1]" != '!'
        printf '%s\n' $found
    end
end
complete -c postdicom -f -a '(__postdicom_complete)'
"""


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")], common: Common) -> int:
    """Write the script that completes words in bash, zsh or fish.

    Bash: eval "$(postdicom completion bash)" in ~/.bashrc.
    Zsh: the same with zsh in ~/.zshrc, behind compinit.
    Fish: postdicom completion fish > ~/.config/fish/completions/postdicom.fish

    It completes commands, options, their values, files, and the names of your profiles and jobs. It speaks to no
    archive.
    """
    del common
    output.write(_SCRIPTS[shell].strip("\n"))
    return Exit.OK


# --- what a script asks for -------------------------------------------------------------------------------------------


_NO_FILES = "!"


class Candidate(NamedTuple):
    """A word that fits, and what it means."""

    word: str
    text: str = ""


def answer(shell: str, arguments: Sequence[str]) -> int:
    """Write what completes the last of the words; an error completes nothing, and disturbs no prompt."""
    with suppress(Exception):
        begun = ""  # of the word, what the shell takes for words of their own
        words = list(arguments)
        if shell == "bash":
            line, last = arguments
            words = words_of(line)[1:]
            begun = words[-1].removesuffix("" if last in ("=", ":") else last)
        found = candidates(words[:-1], words[-1])
        if found == []:
            output.write(_NO_FILES)
        for one in found or ():
            output.write(_LINES.get(shell, _line)(Candidate(one.word.removeprefix(begun), one.text)))
    return Exit.OK


def _line(one: Candidate) -> str:
    return one.word


def _zsh_line(one: Candidate) -> str:
    word = one.word.replace(":", r"\:")
    return f"{word}:{one.text}" if one.text else word


def _fish_line(one: Candidate) -> str:
    return f"{one.word}\t{one.text}" if one.text else one.word


_LINES = {"zsh": _zsh_line, "fish": _fish_line}


def words_of(line: str) -> list[str]:
    """Return the words of a command line up to the cursor; the last one is begun, and may be empty."""
    end = "\0"
    for quote in ("", "'", '"'):
        with suppress(ValueError):
            words = shlex.split(f"{line}{end}{quote}")
            return [*words[:-1], words[-1].removesuffix(end)]
    return [*line.split(), ""]


def candidates(before: Sequence[str], begun: str) -> list[Candidate] | None:
    """Return the words that begin so, after the words before; None where only files can be meant."""
    group, path = COMMANDS, list[str]()
    for index, word in enumerate(before):
        known = known_as(word, group.commands.keys() | group.groups.keys())
        path.append(known)
        if known in group.commands:
            return _of_command(path, before[index + 1 :], begun)
        if known not in group.groups:
            return []
        group = group.groups[known]
    if begun.startswith("-"):
        return _beginning(begun, map(Candidate, ("--help", *(() if before else ("--version",)))))
    names = [*group.commands, *group.groups]
    return _beginning(begun, (Candidate(name, _title(group.groups.get(name))) for name in names))


def _title(group: Any) -> str:
    return group.text.partition("\n")[0] if group else ""


def _beginning(begun: str, found: Iterator[Candidate]) -> list[Candidate]:
    return [one for one in found if one.word.startswith(begun)]


def _of_command(path: list[str], given: Sequence[str], begun: str) -> list[Candidate] | None:
    from typer.main import get_command

    from postdicom_async.cli.app import app

    command: Any = get_command(app(path))
    for word in path:
        command = command.commands[word]
    options = {name: one for one in command.params for name in one.opts if name.startswith("-")}
    left, waiting, ended = [one for one in command.params if one.param_type_name == "argument"], None, False
    for word in given:
        if waiting is not None:
            waiting = None
        elif word == "--" and not ended:
            ended = True
        elif word.startswith("-") and len(word) > 1 and not ended:
            option = options.get(word)
            waiting = option if option is not None and not option.is_flag else None
        elif left and left[0].nargs == 1:
            left.pop(0)
    if waiting is not None:
        return _values(waiting, path, begun)
    name, equals, value = begun.partition("=")
    if not ended and equals and name in options:
        found = _values(options[name], path, value)
        return found and [Candidate(f"{name}={one.word}", one.text) for one in found]
    if not ended and begun.startswith("-"):
        shown = (one for one in command.params if one.opts[0].startswith("-") and not one.hidden)
        longest = (Candidate(max(one.opts, key=len), _first_sentence(one.help or "")) for one in shown)
        return _beginning(begun, iter([*longest, Candidate("--help", "Show the help.")]))
    return _values(left[0], path, begun) if left else []


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".")


# --- values -----------------------------------------------------------------------------------------------------------


_FILES = re.compile(r"\b(FILE|DIR|FOLDER|PATH)\b")
_CHOICE = re.compile(r"[a-z][a-z-]*(\|[a-z][a-z-]*)*")


def _values(parameter: Any, path: list[str], begun: str) -> list[Candidate] | None:
    """Return the values that an option or argument may have; None if they are files."""
    metavar = parameter.metavar or ""
    if _CHOICE.fullmatch(metavar):
        return _beginning(begun, map(Candidate, metavar.split("|")))
    if parameter.name == "profile" or (path[0] == "profiles" and metavar == "NAME" and path[-1] != "add"):
        return _beginning(begun, map(Candidate, _profiles()))
    if metavar in ("SOURCE", "TARGET"):
        return _beginning(begun, (Candidate(f"{name}:") for name in _profiles())) or None
    if metavar == "JOB":
        return _beginning(begun, map(Candidate, _jobs())) or None
    if metavar == "COMMAND|TOPIC":
        return _beginning(begun, map(Candidate, ("connection", "exit-codes", "variables", *PANEL_WORDS)))
    return None if _FILES.search(metavar) else []


PANEL_WORDS = (*COMMANDS.commands, *COMMANDS.groups)
"""The words that follow `postdicom`."""


def _profiles() -> list[str]:
    from postdicom_async import profiles

    return profiles.profile_names()


def _jobs() -> list[str]:
    from postdicom_async.jobs import every_job

    return [path.stem for path in every_job()]
