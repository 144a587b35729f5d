"""``postdicom man``: the manual page of all commands, made from what the parser knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from postdicom_async import __version__
from postdicom_async.cli import output
from postdicom_async.cli.exits import MEANINGS, Exit
from postdicom_async.cli.helping import VARIABLES, connection_help
from postdicom_async.cli.options import PANEL, Common, grouped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def man(common: Common) -> int:
    """Write the manual page.

    Read it with: postdicom man | man -l -
    Install it with: postdicom man > ~/.local/share/man/man1/postdicom.1
    """
    del common
    output.write(manual_page())
    return Exit.OK


def manual_page() -> str:
    """Return ``postdicom.1`` in roff: every command and option, exit codes, variables."""
    from typer.main import get_command

    from postdicom_async.cli.app import app

    root: Any = get_command(app())
    lines = [
        f'.TH POSTDICOM 1 "" "postdicom-async {_escaped(__version__)}" "User Commands"',
        ".SH NAME",
        _escaped("postdicom - move DICOM in and out of PostDICOM and any DICOMweb archive"),
        ".SH SYNOPSIS",
        _escaped("postdicom COMMAND [OPTIONS] [ARGS]..."),
        ".SH DESCRIPTION",
        *_paragraphs("Results go to standard output, everything else to standard error. Start with: postdicom demo"),
        ".SH COMMANDS",
        *_commands(root, ()),
        ".SH CONNECTION OPTIONS",
        *_paragraphs(str(grouped(connection_help).__doc__)),
        *_options(one for one in _connection_parameters()),
        ".SH COMMON OPTIONS",
        *_options(one for one in root.commands["scan"].params if one.name in _COMMON),
        *_item("-h, --help", "Show the help of a command and leave."),
        ".SH EXIT STATUS",
        *(line for code, text in MEANINGS.items() for line in _item(str(int(code)), text)),
        ".SH ENVIRONMENT",
        *(line for name, text in VARIABLES.items() for line in _item(name, text)),
    ]
    return "\n".join(lines)


_COMMON = frozenset(Common.__dataclass_fields__)


def _connection_parameters() -> list[Any]:
    import typer
    from typer.main import get_command

    made = typer.Typer(add_completion=False)
    made.command()(grouped(connection_help))
    return [one for one in get_command(made).params if _is_shared(one)]


def _is_shared(parameter: Any) -> bool:
    return getattr(parameter, "rich_help_panel", None) == PANEL


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[str]:
    names = group.list_commands(_NoParent()) if not words else list(group.commands)
    for name in names:
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
            continue
        own = [one for one in command.params if one.name not in _COMMON and not _is_shared(one)]
        arguments = [one for one in own if one.param_type_name == "argument"]
        yield ".SS " + _escaped(" ".join(("postdicom", *words, name, *(_metavar(one) for one in arguments))))
        yield from _paragraphs(command.help or "")
        yield from _options(own)


class _NoParent:
    parent = None


def _options(parameters: Iterable[Any]) -> Iterator[str]:
    for one in parameters:
        flag = one.param_type_name == "option" and one.is_flag
        names = ", ".join(sorted(one.opts, key=len)) if one.param_type_name == "option" else ""
        yield from _item(" ".join(filter(None, (names, "" if flag else _metavar(one)))), one.help or "")


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


# --- roff -------------------------------------------------------------------------------------------------------------


def _item(term: str, text: str) -> list[str]:
    return [".TP", rf"\fB{_escaped(term)}\fR", _escaped(text)]


def _paragraphs(text: str) -> list[str]:
    return [line for paragraph in text.split("\n\n") if paragraph for line in (".PP", _escaped(paragraph))]


def _escaped(text: str) -> str:
    """Return text that roff sets as it is."""
    plain = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", plain)
