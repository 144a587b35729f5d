"""Commands, options, exit codes and variables, as the command itself knows them. Markdown is returned."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import typer.main
from from_docstrings import stacked
from rich.text import Text

import postdicom_async
from postdicom_async.cli.app import app
from postdicom_async.cli.exits import MEANINGS, Exit
from postdicom_async.cli.helping import VARIABLES

PACKAGE = Path(postdicom_async.__file__).parent
DOCS = Path(__file__).resolve().parents[1]

Words = tuple[str, ...]


@cache
def _tree() -> Any:
    return typer.main.get_command(app())


@cache
def all_commands() -> dict[Words, Any]:
    """Return commands by their words; what is hidden from the help is left out."""
    found: dict[Words, Any] = {}

    def walk(command: Any, words: Words) -> None:
        below = getattr(command, "commands", None)
        if below is None:
            found[words] = command
        for name, one in (below or {}).items():
            if not getattr(one, "hidden", False):
                walk(one, (*words, name))

    walk(_tree(), ())
    return found


def group_of(words: Words) -> Any:
    """Return the group that these words name."""
    command = _tree()
    for word in words:
        command = command.commands[word]
    return command


# --- texts ------------------------------------------------------------------------------------------------------------

_CODE = re.compile(
    r"(?<![\w-])(`[^`]+`|--[a-z][a-z-]*|POSTDICOM_[A-Z_]+|https?://[^\s,;()]*\w|[A-Z]+=[A-Z]*(?=[\s;,.]))"
)
_SPECIAL = re.compile(r"([\\`*_<>\[\]|#$])")


def prose(text: str) -> str:
    """Return text of the help as Markdown: options and variables are code, the rest means itself."""
    plain = Text.from_markup(text).plain
    parts = _CODE.split(plain)
    return "".join(f"`{part.strip('`')}`" if at % 2 else _SPECIAL.sub(r"\\\1", part) for at, part in enumerate(parts))


def anchor(words: Words) -> str:
    """Return the anchor of a command's heading."""
    return "-".join(("postdicom", *words))


def title(command: Any) -> str:
    """Return the first sentence of a command's help."""
    first = " ".join((command.help or "").split("\n\n")[0].split())
    return re.split(r"(?<=\w[.]) ", first)[0]


# --- options ----------------------------------------------------------------------------------------------------------


def _context(words: Words) -> Any:
    command = all_commands()[words]
    return command.make_context(" ".join(("postdicom", *words)), [], resilient_parsing=True)


def options_of(words: Words) -> list[Any]:
    """Return the options and arguments that the help of a command shows."""
    return [one for one in all_commands()[words].params if not getattr(one, "hidden", False)]


def _described(one: Any, context: Any) -> tuple[str, str]:
    """Return how an option is written, and a sentence or more about it."""
    written, _, rest = one.get_help_record(context)[0], None, one.get_help_record(context)[1]
    found = re.fullmatch(r"(.*?)(?:\s+\[([^\[\]]*)\])?", rest, re.DOTALL)
    text, extra = (found[1], found[2] or "") if found and one.help else (rest, "")
    said = [prose(one.help or text)]
    for part in filter(None, extra.split("; ")):
        name, _, value = part.partition(": ")
        if name == "env var":
            said.append(f"Variable: `{value}`.")
        elif name == "default":
            said.append(f"Default: `{value}`.")
        elif name == "required":
            said.append("Must be given.")
        else:
            said.append(f"Range: `{part.replace('x', 'value ', 1) if part.startswith('x') else part}`.")
    if one.param_type_name == "argument":
        written = one.metavar or one.name.upper()
    elif one.multiple:
        said.append("May be repeated." if "repeat" not in said[0] and "once for each" not in said[0] else "")
    return written, " ".join(filter(None, said))


def _panel(one: Any) -> str | None:
    return getattr(one, "rich_help_panel", None)


def _entries(described: list[tuple[str, str]]) -> str:
    return "".join(f":::{{option}} {written}\n{text}\n:::\n\n" for written, text in described)


def _long(one: Any) -> str:
    return str(next((name for name in one.opts if name.startswith("--")), one.opts[0]))


def panels() -> dict[str, dict[str, list[tuple[tuple[str, str], Words]]]]:
    """Return by panel and option what is said about the options that commands share, and by which commands."""
    found: dict[str, dict[str, list[tuple[tuple[str, str], Words]]]] = {}
    for words in all_commands():
        context = _context(words)
        for one in options_of(words):
            if name := _panel(one):
                found.setdefault(name, {}).setdefault(_long(one), []).append((_described(one, context), words))
    return found


def slug(panel: str) -> str:
    """Return the anchor of a panel."""
    return re.sub(r"\W+", "-", panel.lower()).strip("-") + "-options"


def shared_options() -> str:
    """Return each panel of options that several commands have, once."""
    made = []
    for panel, options in panels().items():
        made.append(f"({slug(panel)})=\n\n## {panel}\n\n:::{{program}} {slug(panel)}\n:::\n\n")
        for entries in options.values():
            texts: dict[tuple[str, str], list[Words]] = {}
            for described, words in entries:
                texts.setdefault(described, []).append(words)
            written = max(texts, key=lambda one: len(texts[one]))
            variants = [one for one in texts if one[1] != written[1]]
            more = "".join(f"\n\nFor {_named(texts[one])}: {one[1]}" for one in variants if one[1] not in written[1])
            made.append(_entries([(written[0], written[1] + more)]))
    return "".join(made)


def _named(commands: list[Words]) -> str:
    if len(commands) > 3:
        groups = sorted({words[0] for words in commands})
        return ", ".join(f"`postdicom {group}` …" for group in groups)
    return ", ".join(f"`postdicom {' '.join(words)}`" for words in commands)


# --- commands ---------------------------------------------------------------------------------------------------------


@cache
def examples() -> dict[Words, list[str]]:
    """Return lines of the other pages' shell examples, by the command that they call."""
    found: dict[Words, list[str]] = {}
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            rest = line.removeprefix("$ ").strip()
            words = tuple(rest.split()[1:])
            if not rest.startswith("postdicom ") or "--help" in words:
                continue
            for length in range(len(words), 0, -1):
                if words[:length] in all_commands():
                    lines = found.setdefault(words[:length], [])
                    shown = re.sub(r"\s{2,}#.*", "", rest)
                    lines.extend([shown] if shown not in lines else [])
                    break
    return found


def _one_command(words: Words, level: int) -> str:
    command, context = all_commands()[words], _context(words)
    name = " ".join(("postdicom", *words))
    pieces = [one.metavar or one.name.upper() for one in options_of(words) if one.param_type_name == "argument"]
    made = [f"({anchor(words)})=\n\n{'#' * level} {name}\n\n"]
    made.append(prose(command.help or "") + "\n\n")
    made.append(f"```text\n{' '.join((name, '[OPTIONS]', *pieces))}\n```\n\n")
    if lines := examples().get(words):
        shown = "\n".join(sorted(lines, key=len)[:3])
        made.append(f"```sh\n{shown}\n```\n\n")
    made.append(f":::{{program}} {name}\n:::\n\n")
    own = [one for one in options_of(words) if not _panel(one)]
    made.append(_entries([_described(one, context) for one in own]))
    shared: dict[str, list[str]] = {}
    for one in options_of(words):
        if panel := _panel(one):
            shared.setdefault(panel, []).append(_long(one))
    for panel, names in shared.items():
        listed = ", ".join(f"`{one}`" for one in names)
        made.append(f"[{panel}](#{slug(panel)}): {listed}\n\n")
    return "".join(made)


def commands(*group: str) -> str:
    """Return the commands of a group, or with no word those that belong to none."""
    made = []
    if not group:
        return "".join(_one_command(words, 2) for words in all_commands() if len(words) == 1)
    made.append(f"({anchor(group)})=\n\n## postdicom {' '.join(group)}\n\n{prose(group_of(group).help or '')}\n\n")
    below = [words for words in all_commands() if words[: len(group)] == group]
    made.extend(_one_command(words, 3) for words in below if len(words) == len(group) + 1)
    deeper = dict.fromkeys(words[: len(group) + 1] for words in below if len(words) > len(group) + 1)
    made.extend(commands(*one) for one in deeper)
    return "".join(made)


def overview() -> str:
    """Return a table of all commands with the first sentence of each."""
    rows = ["| command | what it does |", "|---|---|"]
    for words, command in all_commands().items():
        rows.append(f"| [`postdicom {' '.join(words)}`](#{anchor(words)}) | {prose(title(command))} |")
    return stacked(rows)


# --- exit codes and variables -----------------------------------------------------------------------------------------


def exit_codes() -> str:
    """Return the table of exit codes."""
    rows = ["| code | name | meaning |", "|--:|---|---|"]
    return "\n".join([*rows, *(f"| {code} | `{code.name}` | {prose(MEANINGS[code])} |" for code in Exit)])


def named_in_source() -> set[str]:
    """Return every variable that the package's source names."""
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    return set(re.findall(r"POSTDICOM_[A-Z_]*[A-Z]", source))


def environment() -> str:
    """Return the table of variables.

    Raises:
        ValueError: the source names one that is explained nowhere, or does not name one that is.
    """
    texts = {name: text for names, text in VARIABLES.items() for name in names.split(", ")}
    if wrong := texts.keys() ^ named_in_source():
        raise ValueError(f"variables explained or named alone: {', '.join(sorted(wrong))}")
    options: dict[str, set[str]] = {}
    for words in all_commands():
        for one in options_of(words):
            options.setdefault(one.envvar or "", set()).add(f"`{_long(one)}`")
    rows = ["| variable | holds |", "|---|---|"]
    for name, text in texts.items():
        given = f"The option {', '.join(sorted(options[name]))}." if name in options else prose(text)
        rows.append(f"| `{name}` | {given} |")
    return stacked(rows)
