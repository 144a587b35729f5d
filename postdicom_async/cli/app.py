"""The commands put together. Importing this needs typer; the commands import the rest when they run."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from postdicom_async.cli.options import PANEL, grouped
from postdicom_async.cli.table import COMMANDS, PANELS, CommandGroup, known_as

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_ROOT_EPILOG = "Exit codes: postdicom help exit-codes. --version shows the version."
_EPILOG = "Exit codes: postdicom help exit-codes. Results go to standard output, everything else to standard error."
_CONNECTED = f"All connection options: postdicom help connection. {_EPILOG}"
_SHOWN: Final = frozenset({"profile", "url", "username", "dialect", "user", "router_url"})
"""The connection options in the help of every command; `postdicom help connection` has all."""


class _Command(TyperCommand):
    """A command whose help leaves out connection options that are seldom needed: they are alike in all commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        of_connection: list[Any] = [one for one in self.params if getattr(one, "rich_help_panel", None) == PANEL]
        rest = [one for one in of_connection if one.name not in _SHOWN]
        self.epilog = _CONNECTED if rest else _EPILOG
        _take_no_value(self.get_params(ctx))
        with _hidden(rest):
            super().format_help(ctx, formatter)


def _take_no_value(options: Sequence[Any]) -> None:
    """Leave no room in the help for a value of ``--help``, which typer makes itself."""
    for one in options:
        if one.name == "help":
            one.metavar = ""


@contextmanager
def _hidden(options: Sequence[Any]) -> Iterator[None]:
    for one in options:
        one.hidden = True
    try:
        yield
    finally:
        for one in options:
            one.hidden = False


class _Group(TyperGroup):
    """Commands that are known in the singular and in the plural."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; that of ``postdicom`` itself fits a screen."""
        _take_no_value(self.get_params(ctx))
        with _hidden([] if ctx.parent else self.get_params(ctx)):
            super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of the help."""
        names = super().list_commands(ctx)
        return names if ctx.parent else [name for name in PANELS if name in names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a word."""
        return super().get_command(ctx, known_as(cmd_name, self.commands))


def app(words: Sequence[str] | None = None) -> typer.Typer:
    """Return the command with all its subcommands, or only with those that ``words`` name.

    Building one takes a millisecond, importing it more, and there are dozens.
    """
    made = _filled(COMMANDS, words, PANELS)
    made.callback(invoke_without_command=True, epilog=_ROOT_EPILOG)(_start)
    return made


def _filled(
    group: CommandGroup, words: Sequence[str] | None, panels: Mapping[str, str] = MappingProxyType({})
) -> typer.Typer:
    """Return a group with the commands that ``words`` name in it; ``panels`` are their headings in its help.

    If they name none, with all names but empty groups.
    """
    commands, groups = dict(group.commands), dict(group.groups)
    first, *rest = [*_behind_dashes(words or ()), ""]
    named = known_as(first, commands.keys() | groups.keys())
    if named in commands:
        commands, groups = {named: commands[named]}, {}
    elif named in groups:
        commands, groups = {}, {named: groups[named]}
    elif words is not None:
        groups = {name: CommandGroup(one.text, {}) for name, one in groups.items()}
    made = typer.Typer(
        cls=_Group,
        add_completion=False,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, place in commands.items():
        module, _, function = place.partition(".")
        command = grouped(attrgetter(function)(import_module(f"postdicom_async.cli.{module}")))
        made.command(name, cls=_Command, epilog=_EPILOG, rich_help_panel=panels.get(name))(command)
    for name, one in groups.items():
        below = _filled(one, None if words is None else rest)
        made.add_typer(below, name=name, help=one.text, epilog=_EPILOG, rich_help_panel=panels.get(name))
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
