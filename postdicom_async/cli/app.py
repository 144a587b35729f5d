"""The commands put together. Importing this needs typer; the commands import the rest when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from postdicom_async.cli import folders, orders, share
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
    "help), 130 interrupted. Results go to standard output, everything else to standard error."
)


def _group() -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app: typer.Typer = _group()

for _command in (demo, serve, scan, upload, search, download, doctor):
    app.command(epilog=_EPILOG)(grouped(_command))

_GROUPS = {
    "orders": ("PostDICOM's patient orders: search, show, create, delete, assign, tags.", (
        orders.search, orders.show, orders.create, orders.delete, orders.assign, orders.tags,
    )),
    "folders": ("PostDICOM's folders of orders: search, create, add-order, share.", (
        folders.search, folders.create, folders.add_order, folders.share,
    )),
    "share": ("Links to PostDICOM's patient orders: orders, link.", (share.orders, share.link)),
}  # fmt: skip

for _name, (_help, _commands) in _GROUPS.items():
    _sub = _group()
    for _operation in _commands:
        _sub.command(_operation.__name__.replace("_", "-"), epilog=_EPILOG)(grouped(_operation))
    app.add_typer(_sub, name=_name, help=_help, epilog=_EPILOG)


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
        raise typer.Exit(2)
