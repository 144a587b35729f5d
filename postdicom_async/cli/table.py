"""The table of commands: their words, where each one's function is, and the panel of the help that shows it.

It imports nothing, so that completing a word costs no more than reading it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Mapping


class CommandGroup(NamedTuple):
    """Commands under one word.

    Attributes:
        text: what the help says of it: a first line for the list of commands, and more behind an empty line.
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
    "The Cloud API: account, upload, documents, orders and more.\n\n"
    "PostDICOM's Cloud API. Its keys come from POSTDICOM_API_KEY and POSTDICOM_ACCOUNT_KEY, else from a keyring "
    "(service postdicom-async, entries api-key@ROUTER and account-key@ROUTER, the router as https://host), else from a "
    "prompt.",
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
        "share": CommandGroup("Patient orders shared: link, email, upload.", {
            "link": "share.link_without_password.cloud",
            "email": "share.email.cloud",
            "upload": "share_upload.cloud_upload_and_share",
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
        "upload": "upload.upload",
        "download": "download.download",
        "copy": "copy.copy",
        "sync": "copy.sync",
        "verify": "copy.verify",
        "search": "search.search",
        "wait": "waiting.wait",
        "scan": "scan.scan",
        "get-tags": "tags.get_tags",
        "demo": "demo.demo",
        "serve": "serve.serve",
        "doctor": "doctor.doctor",
        "completion": "completion.completion",
        "man": "manual.man",
        "help": "helping.help_",
    },
    {
        "jobs": CommandGroup(
            "Whole archives on their way: list, show, watch, resume and more.", {
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
            "Patient orders", "orders", "dicomweb",
            "search", "show", "create", "delete", "assign", "tags",
        ),
        "folders": _of_vendor(
            "Folders of orders", "folders", "dicomweb", "search", "create", "add-order", "share"
        ),
        "share": CommandGroup("Links to patient orders: orders, link, upload.", {
            "orders": "share.orders.dicomweb",
            "link": "share.link.dicomweb",
            "upload": "share_upload.upload_and_share",
        }),
        "cloud": _CLOUD,
        "profiles": CommandGroup(
            "Named archives: add, list, show, test, remove.\n\nFor --profile NAME, and as ends of jobs (NAME:).", {
            "add": "profiles.add",
            "list": "profiles.list_profiles",
            "show": "profiles.show",
            "test": "profiles.test",
            "remove": "profiles.remove",
        }),
    },
)  # fmt: skip
"""The commands and groups of ``postdicom`` itself."""

PANELS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("upload", "download", "copy", "sync", "verify", "jobs"), "Move"),
    **dict.fromkeys(("search", "wait", "scan", "get-tags"), "Find"),
    **dict.fromkeys(("orders", "folders", "share", "cloud"), "PostDICOM"),
    **dict.fromkeys(("demo", "serve", "doctor", "profiles", "completion", "man", "help"), "Tools"),
}
"""Where the help shows a command of ``postdicom`` itself."""

_OTHER_NUMBER: Final[Mapping[str, str]] = {
    "job": "jobs",
    "order": "orders",
    "folder": "folders",
    "shares": "share",
    "profile": "profiles",
    "group": "groups",
    "flag": "flags",
    "user": "users",
    "node": "nodes",
    "contact": "contacts",
    "document": "documents",
    "links": "link",
}


def known_as(word: str, known: Container[str]) -> str:
    """Return the command meant by a word: a noun is known in the singular and in the plural."""
    other = _OTHER_NUMBER.get(word, word)
    return other if word not in known and other in known else word
