"""The commands put together. Importing this needs typer; the commands import the rest when they run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from postdicom_async.cli.commands import COMMANDS, Group
from postdicom_async.cli.options import grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app"]

_EPILOG = (
    "Exit codes: 0 all done, 1 some items failed, 2 usage, 3 not found, 4 authentication, 5 temporary (a repeat may "
    "help), 6 differs, 7 the job runs already or its ledger is unusable, 8 a limit is reached (space, time), 9 "
    "nothing to do (with --error-if-nothing), 130 interrupted, 143 terminated. Results go to standard output, "
    "everything else to standard error."
)


def app(words: Sequence[str] | None = None) -> typer.Typer:
    """Return the command with all its commands, or with those alone that ``words`` name.

    Making one takes a millisecond, importing it more, and there are dozens.
    """
    made = _filled(COMMANDS, words)
    made.callback(invoke_without_command=True, epilog=_EPILOG)(_start)
    return made


def _filled(group: Group, words: Sequence[str] | None) -> typer.Typer:
    """Return a group with what ``words`` name in it; where they name nothing there, with all names but empty groups."""
    commands, groups = dict(group.commands), dict(group.groups)
    named, *rest = [*_behind_dashes(words or ()), ""]
    if named in commands:
        commands, groups = {named: commands[named]}, {}
    elif named in groups:
        commands, groups = {}, {named: groups[named]}
    elif words is not None:
        groups = {name: Group(one.text, {}) for name, one in groups.items()}
    made = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, place in commands.items():
        module, _, function = place.partition(".")
        command = getattr(import_module(f"postdicom_async.cli.{module}"), function)
        made.command(name, epilog=_EPILOG)(grouped(command))
    for name, one in groups.items():
        made.add_typer(_filled(one, None if words is None else rest), name=name, help=one.text, epilog=_EPILOG)
    return made


def _behind_dashes(words: Sequence[str]) -> Sequence[str]:
    return words[1:] if words[:1] == ["--"] else words


def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Move DICOM in and out of PostDICOM and any DICOMweb archive.

    Start with: postdicom demo
    """
    from postdicom_async import __version__
    from postdicom_async.cli import output

    if version:
        output.write(f"postdicom-async {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        if text := context.get_help():
            output.write(text)
        output.error("give a command, such as: postdicom demo")
        raise typer.Exit(2)
