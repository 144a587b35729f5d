"""``postdicom folders`` and ``postdicom cloud folders``: PostDICOM's folders of patient orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from postdicom_async.cli.exits import Exit
from postdicom_async.cli.vendor import (
    OperationCall,
    Yes,
    folder_columns,
    order_columns,
    show_columns,
    show_folders,
    tell_done,
    tell_link,
    tell_made,
    vendor_command,
    write_answer,
)

if TYPE_CHECKING:
    from postdicom_async import Folder


@vendor_command("folders.search", lists=True)
def search(call: OperationCall) -> int:
    """Find folders.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    return show_folders(call)


@vendor_command()
def contents(
    call: OperationCall,
    folder_uuid: Annotated[
        str | None, typer.Option("--folder-uuid", metavar="UUID", help="The folder. Without it, the root.")
    ] = None,
) -> int:
    """Show the folders and the patient orders in a folder."""
    found: Folder = call.run_method(call.client.folders.contents, folder_uuid=folder_uuid)
    if call.as_json:
        write_answer(found)
        return Exit.OK
    show_columns(folder_columns(found.folders), ("folder", "folders"), quiet=call.quiet, none="no folders")
    return show_columns(order_columns(found.orders), ("order", "orders"), quiet=call.quiet, none="no orders")


@vendor_command("folders.create")
def create(call: OperationCall) -> int:
    """Make a folder, and write its UUID.

    If no answer comes, the folder may or may not have been created: search before you repeat this.
    """
    made: Folder = call.run()
    return tell_made(call, made, made.folder_uuid, "folder made")


@vendor_command("folders.update")
def update(call: OperationCall) -> int:
    """Change a folder's name, its description or both."""
    return tell_done(call, "folder changed")


@vendor_command("folders.delete")
def delete(call: OperationCall, yes: Yes = False) -> int:
    """Delete a folder.

    Asks first. Without a terminal to ask on, it wants --yes.
    """
    if not yes and not call.is_confirmed(f"Delete folder {call.given['folder_uuid']}?"):
        return Exit.ITEMS_FAILED
    return tell_done(call, "folder deleted")


@vendor_command("folders.add_order", cloud="Put a patient order of an institution into folders.")
def add_order(call: OperationCall) -> int:
    """Put a patient order into folders."""
    return tell_done(call, "order added")


@vendor_command("folders.remove_orders")
def remove_orders(call: OperationCall) -> int:
    """Take patient orders out of a folder."""
    return tell_done(call, "orders removed")


# --- shared ---------------------------------------------------------------------------------------------------------


@vendor_command("folders.share")
def share(call: OperationCall) -> int:
    """Share a folder by a link, and write its address.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password. Without either, whoever has the
    address may look.
    """
    return tell_link(call)


@vendor_command("folders.share_by_email")
def share_by_email(call: OperationCall) -> int:
    """Send a link to a folder by e-mail.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password; the service sends it too.
    """
    return tell_done(call, "link sent")


@vendor_command("folders.share_to_upload")
def share_to_upload(call: OperationCall) -> int:
    """Make a link by which images can be uploaded into a folder, and write its address.

    The images will belong to the institution. The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with
    --with-password. Without either, whoever has the address may upload.
    """
    return tell_link(call, "without a password: whoever has the address may upload")


@vendor_command("folders.share_to_upload_by_email")
def share_to_upload_by_email(call: OperationCall) -> int:
    """Send a link by which images can be uploaded into a folder by e-mail.

    The images will belong to the institution. The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with
    --with-password; the service sends it too.
    """
    return tell_done(call, "link sent")


@vendor_command("folders.share_with_users", "folders.share_with_groups", without=("downloadable",))
def share_with(call: OperationCall) -> int:
    """Share a folder with users or with user groups of the account."""
    return tell_done(call, "folder shared")
