"""``postdicom folders``: PostDICOM's folders of patient orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from postdicom_async.cli.connection import Account
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.password import find_share_password
from postdicom_async.cli.search import write_json
from postdicom_async.cli.share import Downloadable, WithPassword
from postdicom_async.cli.vendor import (
    AsJson,
    folder_columns,
    option,
    order_columns,
    run_call,
    show_columns,
    tell_done,
    tell_link,
    tell_made,
)

if TYPE_CHECKING:
    from postdicom_async import Folder, PostDicom, Results

__all__ = ["add_order", "create", "search", "share"]


def search(
    account: Account,
    common: Common,
    name: Annotated[str | None, option("name", "The folder's name, or a part of it.")] = None,
    parent_folder_uuid: Annotated[
        str | None, option("parent-folder-uuid", "Folders in this one. Without it, at the root.", "UUID")
    ] = None,
    with_orders: Annotated[bool, typer.Option("--with-orders", help="Their orders too.")] = False,
    as_json: AsJson = False,
) -> int:
    """Find folders.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    archive = account.postdicom()

    def results(client: PostDicom) -> Results[Folder]:
        return client.folders.search(name=name, parent_folder_uuid=parent_folder_uuid, with_orders=with_orders)

    if as_json:
        return run_async(lambda: write_json(archive, results(archive), quiet=common.quiet))
    folders = run_call(archive, lambda client: results(client).all())
    code = show_columns(folder_columns(folders), ("folder", "folders"), quiet=common.quiet)
    held = [(folder.folder_name or "", order) for folder in folders for order in folder.orders]
    if held:
        columns = {"Folder": [folder for folder, _ in held], **order_columns([order for _, order in held])}
        code = show_columns(columns, ("order", "orders"), quiet=common.quiet)
    return code


def create(
    account: Account,
    common: Common,
    name: Annotated[str, option("name", "Its name. The service takes a/b for two folders, one in the other.")],
    description: Annotated[str | None, option("description", "What it is for.")] = None,
    parent_folder_uuid: Annotated[
        str | None, option("parent-folder-uuid", "The folder to make it in. Without it, at the root.", "UUID")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Make a folder, and write its UUID.

    If no answer comes, the folder may have been made or not: search before doing it again.
    """
    made = run_call(
        account.postdicom(),
        lambda client: client.folders.create(name, description=description, parent_folder_uuid=parent_folder_uuid),
    )
    return tell_made(made, made.folder_uuid, "folder made", as_json=as_json, quiet=common.quiet)


def add_order(
    account: Account,
    common: Common,
    patient_order_uuid: Annotated[str, option("patient-order-uuid", "The order.", "UUID")],
    folder_uuids: Annotated[list[str], option("folder-uuids", "The folder. Give it once for each.", "UUID")],
    as_json: AsJson = False,
) -> int:
    """Put a patient order into folders."""
    answer = run_call(account.postdicom(), lambda client: client.folders.add_order(patient_order_uuid, folder_uuids))
    return tell_done(answer, "order added", as_json=as_json, quiet=common.quiet)


def share(
    account: Account,
    common: Common,
    folder_uuid: Annotated[str, option("folder-uuid", "The folder.", "UUID")],
    title: Annotated[str | None, option("title", "The title that is shown.")] = None,
    description: Annotated[str | None, option("description", "What is shown below it.")] = None,
    expires: Annotated[str | None, option("expires", "The last day. Without it, for ever.", "YYYY-MM-DD")] = None,
    downloadable: Downloadable = False,
    with_password: WithPassword = False,
    as_json: AsJson = False,
) -> int:
    """Share a folder by a link, and write its address.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password. Without either, whoever has the
    address may look.
    """
    archive = account.postdicom()
    password = find_share_password(wanted=with_password)
    link = run_call(
        archive,
        lambda client: client.folders.share(
            folder_uuid,
            password=password,
            title=title,
            description=description,
            expires=expires,
            downloadable=downloadable,
        ),
    )
    return tell_link(link, protected=password is not None, as_json=as_json, quiet=common.quiet)
