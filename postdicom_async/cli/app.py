"""The commands put together. Importing this needs typer; the commands import the rest when they run."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from postdicom_async.cli.options import grouped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_EPILOG = (
    "Exit codes: 0 all done, 1 some items failed, 2 usage, 3 not found, 4 authentication, 5 temporary (a repeat may "
    "help), 6 differs, 7 the job runs already or its ledger is unusable, 8 a limit is reached (space, time), 9 "
    "nothing to do (with --error-if-nothing), 130 interrupted, 143 terminated. Results go to standard output, "
    "everything else to standard error."
)


def app(words: Sequence[str] | None = None) -> typer.Typer:
    """Return the command with all its subcommands, or only with those that ``words`` name.

    Building one takes a millisecond, importing it more, and there are dozens.
    """
    made = _filled(COMMANDS, words)
    made.callback(invoke_without_command=True, epilog=_EPILOG)(_start)
    return made


def _filled(group: CommandGroup, words: Sequence[str] | None) -> typer.Typer:
    """Return a group with the commands that ``words`` name in it.

    If they name none, with all names but empty groups.
    """
    commands, groups = dict(group.commands), dict(group.groups)
    named, *rest = [*_behind_dashes(words or ()), ""]
    if named in commands:
        commands, groups = {named: commands[named]}, {}
    elif named in groups:
        commands, groups = {}, {named: groups[named]}
    elif words is not None:
        groups = {name: CommandGroup(one.text, {}) for name, one in groups.items()}
    made = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, place in commands.items():
        module, _, function = place.partition(".")
        command = attrgetter(function)(import_module(f"postdicom_async.cli.{module}"))
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


# --- the table of commands ---------------------------------------------------------------------------------------


class CommandGroup(NamedTuple):
    """Commands under one word.

    Attributes:
        text: what the help says of it.
        commands: by name, ``module.function`` in this folder; for PostDICOM's operations followed by the API:
            ``module.function.cloud``.
        groups: its subgroups, by name.
    """

    text: str
    commands: Mapping[str, str]
    groups: Mapping[str, CommandGroup] = MappingProxyType({})


def _of_vendor(title: str, module: str, api: str, *words: str) -> CommandGroup:
    """Return a group of commands of one of PostDICOM's APIs; a function is called as its word is."""
    places = {word: f"{module}.{word.replace('-', '_')}.{api}" for word in words}
    return CommandGroup(f"{title}: {', '.join(words)}.", places)


_CLOUD: Final = CommandGroup(
    "PostDICOM's Cloud API: account, upload, documents, orders, folders and more. Its keys come from POSTDICOM_API_KEY "
    "and POSTDICOM_ACCOUNT_KEY, else from a keyring (service postdicom-async, entries api-key@ROUTER and "
    "account-key@ROUTER, the router as https://host), else from a prompt.",
    {"account": "cloud.account.cloud", "upload": "upload.cloud_upload", "documents": "upload.documents"},
    {
        "orders": _of_vendor(
            "Patient orders", "orders", "cloud",
            "search", "in-folder", "show", "create", "create-from-json", "delete", "assign", "unassign",
        ),
        "folders": _of_vendor(
            "Folders of orders", "folders", "cloud",
            "search", "contents", "create", "update", "delete", "add-order", "remove-orders", "share",
            "share-by-email", "share-to-upload", "share-to-upload-by-email", "share-with",
        ),
        "share": CommandGroup("Patient orders shared: link, email.", {
            "link": "share.link_without_password.cloud",
            "email": "share.email.cloud",
        }),
        "view": CommandGroup("Addresses that open the viewer: order, patient, folder.", {
            "order": "share.view_order.cloud",
            "patient": "share.view_patient.cloud",
            "folder": "share.view_folder.cloud",
        }),
        "groups": CommandGroup("Groups of connected orders: create, add-orders, remove-orders.", {
            "create": "cloud.create_group.cloud",
            "add-orders": "cloud.add_orders.cloud",
            "remove-orders": "cloud.remove_orders.cloud",
        }),
        "flags": CommandGroup("Flags of orders: list, set.", {
            "list": "cloud.flags.cloud",
            "set": "cloud.set_flag.cloud",
        }),
        "users": CommandGroup("Users, user groups and contacts of the account: list, groups, contacts.", {
            "list": "cloud.users.cloud",
            "groups": "cloud.user_groups.cloud",
            "contacts": "cloud.contacts.cloud",
        }),
        "nodes": CommandGroup("DICOM nodes of the account: list.", {"list": "cloud.nodes.cloud"}),
    },
)  # fmt: skip

COMMANDS: Final = CommandGroup(
    "",
    {
        "demo": "demo.demo",
        "serve": "serve.serve",
        "scan": "scan.scan",
        "upload": "upload.upload",
        "search": "search.search",
        "download": "download.download",
        "copy": "copy.copy",
        "sync": "copy.sync",
        "verify": "copy.verify",
        "doctor": "doctor.doctor",
    },
    {
        "jobs": CommandGroup(
            "Whole archives on their way: list, show, watch, serve, report, resume, retry, pause and more.", {
            "list": "jobs.list_",
            "show": "jobs.show",
            "resume": "jobs.resume",
            "retry": "jobs.retry",
            "pause": "jobs.pause",
            "continue": "jobs.unpause",
            "stop": "jobs.stop",
            "set": "jobs.set_",
            "report": "jobs.report",
            "partition": "jobs.partition",
            "merge": "jobs.merge",
            "watch": "jobs.watch",
            "serve": "jobs.serve",
        }),
        "orders": _of_vendor(
            "PostDICOM's patient orders", "orders", "dicomweb",
            "search", "show", "create", "delete", "assign", "tags",
        ),
        "folders": _of_vendor(
            "PostDICOM's folders of orders", "folders", "dicomweb", "search", "create", "add-order", "share"
        ),
        "share": _of_vendor("Links to PostDICOM's patient orders", "share", "dicomweb", "orders", "link"),
        "cloud": _CLOUD,
        "profiles": CommandGroup(
            "Named archives, for --profile NAME, and as ends of jobs: add, list, show, test, remove.", {
            "add": "profiles.add",
            "list": "profiles.list_profiles",
            "show": "profiles.show",
            "test": "profiles.test",
            "remove": "profiles.remove",
        }),
    },
)  # fmt: skip
"""The commands and groups of ``postdicom`` itself."""
