"""``postdicom cloud folders``: folders of patient orders over the Cloud API, but for sharing them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from postdicom_async.cli.cloud_connection import CloudAccount, CloudInstitution
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.folders import FolderUuid, FolderUuids, NewFolder, WantedFolders
from postdicom_async.cli.options import Common
from postdicom_async.cli.orders import Order
from postdicom_async.cli.share import OrderUuids
from postdicom_async.cli.vendor import (
    AsJson,
    Yes,
    confirmed,
    folder_columns,
    option,
    order_columns,
    run_call,
    show_columns,
    show_folders,
    tell_done,
    tell_made,
    write_answer,
)

__all__ = ["add_order", "contents", "create", "delete", "remove_orders", "search", "update"]


def search(wanted: WantedFolders, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Find folders.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    api = account.cloud()
    return show_folders(api, api.folders.search(**asdict(wanted)), as_json=as_json, quiet=common.quiet)


def contents(
    account: CloudAccount,
    common: Common,
    folder_uuid: Annotated[str | None, option("folder-uuid", "The folder. Without it, the root.", "UUID")] = None,
    as_json: AsJson = False,
) -> int:
    """Show the folders and the patient orders in a folder."""
    found = run_call(account.cloud(), lambda api: api.folders.contents(folder_uuid))
    if as_json:
        write_answer(found)
        return Exit.OK
    show_columns(folder_columns(found.folders), ("folder", "folders"), quiet=common.quiet, none="no folders")
    return show_columns(order_columns(found.orders), ("order", "orders"), quiet=common.quiet, none="no orders")


def create(new: NewFolder, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Make a folder, and write its UUID.

    If no answer comes, the folder may have been made or not: search before doing it again.
    """
    made = run_call(account.cloud(), lambda api: api.folders.create(**asdict(new)))
    return tell_made(made, made.folder_uuid, "folder made", as_json=as_json, quiet=common.quiet)


def update(
    folder_uuid: FolderUuid,
    account: CloudAccount,
    common: Common,
    name: Annotated[str | None, option("name", "Its new name.")] = None,
    description: Annotated[str | None, option("description", "Its new description.")] = None,
    as_json: AsJson = False,
) -> int:
    """Change a folder's name, its description or both."""
    answer = run_call(account.cloud(), lambda api: api.folders.update(folder_uuid, name=name, description=description))
    return tell_done(answer, "folder changed", as_json=as_json, quiet=common.quiet)


def delete(
    folder_uuid: FolderUuid, account: CloudAccount, common: Common, yes: Yes = False, as_json: AsJson = False
) -> int:
    """Delete a folder.

    Asks first. Without a terminal to ask on, it wants --yes.
    """
    api = account.cloud()
    if not yes and not confirmed(f"Delete folder {folder_uuid}?"):
        return Exit.ITEMS_FAILED
    answer = run_call(api, lambda api: api.folders.delete(folder_uuid))
    return tell_done(answer, "folder deleted", as_json=as_json, quiet=common.quiet)


def add_order(
    patient_order_uuid: Order,
    folder_uuids: FolderUuids,
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: AsJson = False,
) -> int:
    """Put a patient order of an institution into folders."""
    answer = run_call(
        account.cloud(),
        lambda api: api.folders.add_order(patient_order_uuid, folder_uuids, institution_uuid=institution_uuid),
    )
    return tell_done(answer, "order added", as_json=as_json, quiet=common.quiet)


def remove_orders(
    folder_uuid: FolderUuid,
    patient_order_uuids: OrderUuids,
    account: CloudAccount,
    common: Common,
    as_json: AsJson = False,
) -> int:
    """Take patient orders out of a folder."""
    answer = run_call(account.cloud(), lambda api: api.folders.remove_orders(folder_uuid, patient_order_uuids))
    return tell_done(answer, "orders removed", as_json=as_json, quiet=common.quiet)
