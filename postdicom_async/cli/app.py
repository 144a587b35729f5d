"""The commands put together. Importing this needs typer; the commands import the rest when they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from postdicom_async.cli import cloud, folders, orders, share
from postdicom_async.cli.demo import demo
from postdicom_async.cli.doctor import doctor
from postdicom_async.cli.download import download
from postdicom_async.cli.options import grouped
from postdicom_async.cli.scan import scan
from postdicom_async.cli.search import search
from postdicom_async.cli.serve import serve
from postdicom_async.cli.upload import upload

__all__ = ["app"]

_EPILOG = (
    "Exit codes: 0 all done, 1 some items failed, 2 usage, 3 not found, 4 authentication, 5 temporary (a repeat may "
    "help), 8 no space left, 9 nothing to do (with --error-if-nothing), 130 interrupted, 143 terminated. Results go to "
    "standard output, everything else to standard error."
)


def _group() -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _fill(group: typer.Typer, commands: Mapping[str, Callable[..., int]]) -> None:
    for name, command in commands.items():
        group.command(name, epilog=_EPILOG)(grouped(command))


def _add_groups(parent: typer.Typer, groups: Mapping[str, tuple[str, Mapping[str, Callable[..., int]]]]) -> None:
    for name, (text, commands) in groups.items():
        group = _group()
        _fill(group, commands)
        parent.add_typer(group, name=name, help=text, epilog=_EPILOG)


_COMMANDS: Mapping[str, Callable[..., int]] = {
    "demo": demo,
    "serve": serve,
    "scan": scan,
    "upload": upload,
    "search": search,
    "download": download,
    "doctor": doctor,
}

_GROUPS: Mapping[str, tuple[str, Mapping[str, Callable[..., int]]]] = {
    "orders": ("PostDICOM's patient orders: search, show, create, delete, assign, tags.", {
        "search": orders.search,
        "show": orders.show,
        "create": orders.create,
        "delete": orders.delete,
        "assign": orders.assign,
        "tags": orders.tags,
    }),
    "folders": ("PostDICOM's folders of orders: search, create, add-order, share.", {
        "search": folders.search,
        "create": folders.create,
        "add-order": folders.add_order,
        "share": folders.share,
    }),
    "share": ("Links to PostDICOM's patient orders: orders, link.", {"orders": share.orders, "link": share.link}),
}  # fmt: skip

app: typer.Typer = _group()
_fill(app, _COMMANDS)
_add_groups(app, _GROUPS)

_cloud = _group()
_fill(_cloud, cloud.COMMANDS)
_add_groups(_cloud, cloud.GROUPS)
app.add_typer(_cloud, name="cloud", help=cloud.HELP, epilog=_EPILOG)


@app.callback(invoke_without_command=True, epilog=_EPILOG)
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
