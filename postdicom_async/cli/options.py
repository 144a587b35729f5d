"""Options in groups: a dataclass holds what several commands share, and a command takes it as one argument."""

from __future__ import annotations

import inspect
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_args, get_type_hints

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from collections.abc import Callable


_Level = TypeVar("_Level", bound=StrEnum)
_LEVELS = (("patient", "patients"), ("study", "studies"), ("series",), ("instance", "instances"))

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
ErrorIfNothing: TypeAlias = Annotated[
    bool, typer.Option("--error-if-nothing", help="Exit with 9, and say so, if there was nothing to do.")
]
AllowedHosts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A name besides localhost that it is reached by, such as a proxy's. May be repeated.",
    ),
]


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and no summary, only results and errors.")
    ] = False
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Log each request, and show where an error came from, which may hold patient data.",
        ),
    ] = False


_TYPED = "typed"


def typed_options() -> Any:
    """Return a field that is not an option: it holds the names of the options given on the command line itself."""
    return field(default=frozenset(), metadata={_TYPED: True})


def level_of(kind: type[_Level]) -> Callable[[str], _Level]:
    """Return a parser for a level of ``kind``, singular or plural."""

    def level(text: str) -> _Level:
        for names in _LEVELS:
            for member in kind:
                if text.lower() in names and member in names:
                    return member
        raise typer.BadParameter(f"{text!r} is none of {', '.join(kind)}")

    return level


def grouped(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command's option groups to typer as single options.

    A parameter whose type is a dataclass becomes one option per field; the command receives the dataclass. Its
    ``PANEL`` is their heading in the help. Connection options come behind the command's own, and last those common to
    all commands.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    connection: list[inspect.Parameter] = []
    last: list[inspect.Parameter] = []
    for one in inspect.signature(command).parameters.values():
        kind = hints[one.name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups[one.name] = kind
            where = last if kind is Common else connection if getattr(kind, "COMES_LATE", False) else parameters
            where.extend(_parameters_of(kind))
        else:
            parameters.append(one.replace(annotation=_with_choices(kind), kind=inspect.Parameter.KEYWORD_ONLY))

    parameters.append(parameter("context", typer.Context))

    def call(context: typer.Context, **values: Any) -> int:
        output.speak_of({one.name: _option_of(one) for one in context.command.params if one.opts[0].startswith("-")})
        typed = frozenset(name for name in values if _is_typed(context, name))
        for name, kind in groups.items():
            taken = {one.name: typed if one.metadata.get(_TYPED) else values.pop(one.name) for one in fields(kind)}
            values[name] = kind(**taken)
        return command(**values)

    call.__name__, call.__doc__ = command.__name__, _unwrapped(command.__doc__ or "")
    call.__annotations__ = {}
    call.__signature__ = inspect.Signature(parameters + last + connection)  # type: ignore[attr-defined]
    return call


def parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """Return a parameter that typer makes an option of; without a default it must be given."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option_of(made: Any) -> str:
    """Return the option of a parameter that is called as it is, else its first."""
    alike = f"--{made.name.replace('_', '-')}"
    return alike if alike in made.opts else str(made.opts[0])


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@cache  # dozens of commands share a few groups, and reading one takes a millisecond
def _parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    panel = getattr(group, "PANEL", None)
    return [
        parameter(
            one.name,
            _with_choices(_in_panel(hints[one.name], panel)),
            inspect.Parameter.empty if one.default is MISSING else one.default,
        )
        for one in fields(group)
        if not one.metadata.get(_TYPED)
    ]


def _in_panel(hint: Any, panel: str | None) -> Any:
    """Return an option in a panel of the help of its own, unless it says itself where it is shown."""
    info = hint.__metadata__[0]
    if panel is None or info.rich_help_panel is not None or isinstance(info, typer.models.ArgumentInfo):
        return hint
    info = copy(info)
    info.rich_help_panel = panel
    return Annotated[hint.__origin__, info]


def _with_choices(hint: Any) -> Any:
    """Return an option with its values as its metavar, if it has a few: typer keeps them where its versions differ.

    A flag takes no value, so the help needs no room for one.
    """
    kinds = [kind for kind in (get_args(hint.__origin__) or (hint.__origin__,)) if isinstance(kind, type)]
    info = hint.__metadata__[0]
    chosen = [kind for kind in kinds if issubclass(kind, StrEnum)]
    if not (chosen or bool in kinds) or info.metavar:
        return hint
    info = copy(info)
    info.metavar = "|".join(chosen[0]) if chosen else ""
    return Annotated[hint.__origin__, info]


def _unwrapped(text: str) -> str:
    """Return a docstring with its paragraphs as one line each: the help wraps them anew."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


PANEL = "Connection"
"""The heading of the connection options in the help."""

Assumed: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="FIELD=VALUE",
        help="Change what is assumed of the archive, such as pages=false; doctor lists the fields. Give it once for "
        "each.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Reporting:
    """Where a transfer writes its outcomes."""

    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            parser=given_path,
            help="Append one JSON line for each file or instance as it ends, to a file that only you can read. --json "
            "then holds counts and what needs attention, and memory stays flat however many there are.",
        ),
    ] = None
    report_paths: Annotated[
        bool, typer.Option("--report-paths", help="Write the files' paths to it too; they may name patients.")
    ] = False

    def checked(self) -> Reporting:
        """Return it.

        Raises:
            UsageError: one option needs another.
        """
        if self.report_paths and self.report is None:
            raise UsageError("--report-paths: give --report too")
        return self
