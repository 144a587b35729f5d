"""Every command by its words, and which function it is: names alone, so that only what is called for is imported."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMANDS", "Group"]


class Group(NamedTuple):
    """Commands under one word.

    Attributes:
        text: what the help says of it.
        commands: by their words, where they are: ``module.function`` in this folder.
        groups: further groups in it, by their words.
    """

    text: str
    commands: Mapping[str, str]
    groups: Mapping[str, Group] = MappingProxyType({})


_CLOUD: Final = Group(
    "PostDICOM's Cloud API: account, upload, documents, orders, folders and more. Its keys come from POSTDICOM_API_KEY "
    "and POSTDICOM_ACCOUNT_KEY, else from a keyring (service postdicom-async, entries api-key@ROUTER and "
    "account-key@ROUTER, the router as https://host), else from a prompt.",
    {
        "account": "cloud_account.account",
        "upload": "cloud_upload.upload",
        "documents": "cloud_upload.documents",
    },
    {
        "orders": Group(
            "Patient orders: search, in-folder, show, create, create-from-json, delete, assign, unassign.", {
            "search": "cloud_orders.search",
            "in-folder": "cloud_orders.in_folder",
            "show": "cloud_orders.show",
            "create": "cloud_orders.create",
            "create-from-json": "cloud_orders.create_from_json",
            "delete": "cloud_orders.delete",
            "assign": "cloud_orders.assign",
            "unassign": "cloud_orders.unassign",
        }),
        "folders": Group(
            "Folders of orders: search, contents, create, update, delete, add-order, remove-orders, share.", {
            "search": "cloud_folders.search",
            "contents": "cloud_folders.contents",
            "create": "cloud_folders.create",
            "update": "cloud_folders.update",
            "delete": "cloud_folders.delete",
            "add-order": "cloud_folders.add_order",
            "remove-orders": "cloud_folders.remove_orders",
            "share": "cloud_folder_shares.share",
            "share-by-email": "cloud_folder_shares.share_by_email",
            "share-to-upload": "cloud_folder_shares.share_to_upload",
            "share-to-upload-by-email": "cloud_folder_shares.share_to_upload_by_email",
            "share-with": "cloud_folder_shares.share_with",
        }),
        "share": Group("Patient orders shared: link, email.", {
            "link": "cloud_share.link",
            "email": "cloud_share.email",
        }),
        "view": Group("Addresses that open the viewer: order, patient, folder.", {
            "order": "cloud_share.order",
            "patient": "cloud_share.patient",
            "folder": "cloud_share.folder",
        }),
        "groups": Group("Groups of connected orders: create, add-orders, remove-orders.", {
            "create": "cloud_groups.create",
            "add-orders": "cloud_groups.add_orders",
            "remove-orders": "cloud_groups.remove_orders",
        }),
        "flags": Group("Flags of orders: list, set.", {"list": "cloud_groups.flags", "set": "cloud_groups.set_flag"}),
        "users": Group("Users, user groups and contacts of the account: list, groups, contacts.", {
            "list": "cloud_account.users",
            "groups": "cloud_account.user_groups",
            "contacts": "cloud_account.contacts",
        }),
        "nodes": Group("DICOM nodes of the account: list.", {"list": "cloud_account.nodes"}),
    },
)  # fmt: skip

COMMANDS: Final = Group(
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
        "jobs": Group("Whole archives on their way: list, show, watch, serve, report, resume, retry, pause and more.", {
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
            "watch": "job_watch.watch",
            "serve": "job_watch.serve",
        }),
        "orders": Group("PostDICOM's patient orders: search, show, create, delete, assign, tags.", {
            "search": "orders.search",
            "show": "orders.show",
            "create": "orders.create",
            "delete": "orders.delete",
            "assign": "orders.assign",
            "tags": "orders.tags",
        }),
        "folders": Group("PostDICOM's folders of orders: search, create, add-order, share.", {
            "search": "folders.search",
            "create": "folders.create",
            "add-order": "folders.add_order",
            "share": "folders.share",
        }),
        "share": Group("Links to PostDICOM's patient orders: orders, link.", {
            "orders": "share.orders",
            "link": "share.link",
        }),
        "cloud": _CLOUD,
        "profiles": Group("Named archives, for --profile NAME, and as ends of jobs: add, list, show, test, remove.", {
            "add": "profiles.add",
            "list": "profiles.list_profiles",
            "show": "profiles.show",
            "test": "profiles.test",
            "remove": "profiles.remove",
        }),
    },
)  # fmt: skip
"""What the command ``postdicom`` itself takes."""
