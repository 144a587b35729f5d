"""``postdicom folders``: PostDICOM's folders of patient orders."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, TypeAlias

import typer

from postdicom_async.cli.connection import Account
from postdicom_async.cli.options import Common
from postdicom_async.cli.orders import Order
from postdicom_async.cli.password import find_share_password
from postdicom_async.cli.share import Downloadable, WithPassword
from postdicom_async.cli.vendor import AsJson, option, run_call, show_folders, tell_done, tell_link, tell_made

__all__ = [
    "FolderUuid",
    "FolderUuids",
    "NewFolder",
    "Shown",
    "WantedFolders",
    "add_order",
    "create",
    "search",
    "share",
]

FolderUuid: TypeAlias = Annotated[str, option("folder-uuid", "The folder.", "UUID")]
FolderUuids: TypeAlias = Annotated[list[str], option("folder-uuids", "The folder. Give it once for each.", "UUID")]


@dataclass(frozen=True)
class WantedFolders:
    """What folders are searched by."""

    name: Annotated[str | None, option("name", "The folder's name, or a part of it.")] = None
    parent_folder_uuid: Annotated[
        str | None, option("parent-folder-uuid", "Folders in this one. Without it, at the root.", "UUID")
    ] = None
    with_orders: Annotated[bool, typer.Option("--with-orders", help="Their orders too.")] = False


@dataclass(frozen=True)
class NewFolder:
    """What a folder is made of."""

    name: Annotated[str, option("name", "Its name. The service takes a/b for two folders, one in the other.")]
    description: Annotated[str | None, option("description", "What it is for.")] = None
    parent_folder_uuid: Annotated[
        str | None, option("parent-folder-uuid", "The folder to make it in. Without it, at the root.", "UUID")
    ] = None


@dataclass(frozen=True)
class Shown:
    """What those see of a shared folder who may look, and what they may do."""

    title: Annotated[str | None, option("title", "The title that is shown.")] = None
    description: Annotated[str | None, option("description", "What is shown below it.")] = None
    downloadable: Downloadable = False


def search(wanted: WantedFolders, account: Account, common: Common, as_json: AsJson = False) -> int:
    """Find folders.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    archive = account.postdicom()
    return show_folders(archive, archive.folders.search(**asdict(wanted)), as_json=as_json, quiet=common.quiet)


def create(new: NewFolder, account: Account, common: Common, as_json: AsJson = False) -> int:
    """Make a folder, and write its UUID.

    If no answer comes, the folder may have been made or not: search before doing it again.
    """
    made = run_call(account.postdicom(), lambda client: client.folders.create(**asdict(new)))
    return tell_made(made, made.folder_uuid, "folder made", as_json=as_json, quiet=common.quiet)


def add_order(
    patient_order_uuid: Order,
    folder_uuids: FolderUuids,
    account: Account,
    common: Common,
    as_json: AsJson = False,
) -> int:
    """Put a patient order into folders."""
    answer = run_call(account.postdicom(), lambda client: client.folders.add_order(patient_order_uuid, folder_uuids))
    return tell_done(answer, "order added", as_json=as_json, quiet=common.quiet)


def share(
    folder_uuid: FolderUuid,
    shown: Shown,
    account: Account,
    common: Common,
    expires: Annotated[str | None, option("expires", "The last day. Without it, for ever.", "YYYY-MM-DD")] = None,
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
        lambda client: client.folders.share(folder_uuid, password=password, expires=expires, **asdict(shown)),
    )
    return tell_link(link, protected=password is not None, as_json=as_json, quiet=common.quiet)
