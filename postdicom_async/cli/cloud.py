"""``postdicom cloud``: every operation of the Cloud API as a command, by its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postdicom_async.cli import (
    cloud_account,
    cloud_folder_shares,
    cloud_folders,
    cloud_groups,
    cloud_orders,
    cloud_share,
    cloud_upload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["COMMANDS", "GROUPS", "HELP"]

HELP: Final = (
    "PostDICOM's Cloud API: account, upload, documents, orders, folders and more. Its keys come from POSTDICOM_API_KEY "
    "and POSTDICOM_ACCOUNT_KEY, else from a keyring (service postdicom-async, entries api-key@ROUTER and "
    "account-key@ROUTER, the router as https://host), else from a prompt."
)

COMMANDS: Final[Mapping[str, Callable[..., int]]] = {
    "account": cloud_account.account,
    "upload": cloud_upload.upload,
    "documents": cloud_upload.documents,
}

GROUPS: Final[Mapping[str, tuple[str, Mapping[str, Callable[..., int]]]]] = {
    "orders": ("Patient orders: search, in-folder, show, create, create-from-json, delete, assign, unassign.", {
        "search": cloud_orders.search,
        "in-folder": cloud_orders.in_folder,
        "show": cloud_orders.show,
        "create": cloud_orders.create,
        "create-from-json": cloud_orders.create_from_json,
        "delete": cloud_orders.delete,
        "assign": cloud_orders.assign,
        "unassign": cloud_orders.unassign,
    }),
    "folders": ("Folders of orders: search, contents, create, update, delete, add-order, remove-orders, share.", {
        "search": cloud_folders.search,
        "contents": cloud_folders.contents,
        "create": cloud_folders.create,
        "update": cloud_folders.update,
        "delete": cloud_folders.delete,
        "add-order": cloud_folders.add_order,
        "remove-orders": cloud_folders.remove_orders,
        "share": cloud_folder_shares.share,
        "share-by-email": cloud_folder_shares.share_by_email,
        "share-to-upload": cloud_folder_shares.share_to_upload,
        "share-to-upload-by-email": cloud_folder_shares.share_to_upload_by_email,
        "share-with": cloud_folder_shares.share_with,
    }),
    "share": ("Patient orders shared: link, email.", {"link": cloud_share.link, "email": cloud_share.email}),
    "view": ("Addresses that open the viewer: order, patient, folder.", {
        "order": cloud_share.order,
        "patient": cloud_share.patient,
        "folder": cloud_share.folder,
    }),
    "groups": ("Groups of connected orders: create, add-orders, remove-orders.", {
        "create": cloud_groups.create,
        "add-orders": cloud_groups.add_orders,
        "remove-orders": cloud_groups.remove_orders,
    }),
    "flags": ("Flags of orders: list, set.", {"list": cloud_groups.flags, "set": cloud_groups.set_flag}),
    "users": ("Users, user groups and contacts of the account: list, groups, contacts.", {
        "list": cloud_account.users,
        "groups": cloud_account.user_groups,
        "contacts": cloud_account.contacts,
    }),
    "nodes": ("DICOM nodes of the account: list.", {"list": cloud_account.nodes}),
}  # fmt: skip
