"""Folders of patient orders (``PostDicom.folders``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from postdicom_async.face import public_face
from postdicom_async.paging import Results
from postdicom_async.postdicom.caller import Caller
from postdicom_async.vendor.answers import Folder, ShareLink, VendorAnswer

__all__ = ["Folders"]


@public_face
class Folders:
    """Operations on folders. Every method raises as those of `Orders` do."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self, name: str, *, description: str | None = None, parent_folder_uuid: UUID | str | None = None
    ) -> Folder:
        """Create a folder (documented: ``createfolder``), at the root without a parent."""
        return await self._caller.call("folders.create", Folder, locals())

    def search(
        self,
        *,
        name: str | None = None,
        parent_folder_uuid: UUID | str | None = None,
        with_orders: bool = False,
    ) -> Results[Folder]:
        """Find folders by their name or a part of it (documented: ``searchfolder``), with their orders if asked for."""
        return self._caller.search("folders.search", Folder, "FolderUuid", locals())

    async def add_order(self, patient_order_uuid: UUID | str, folder_uuids: Sequence[UUID | str]) -> VendorAnswer:
        """Put an order into folders (documented: ``addordertofolder``)."""
        return await self._caller.call("folders.add_order", VendorAnswer, locals())

    async def share(
        self,
        folder_uuid: UUID | str,
        *,
        password: str | None = None,
        title: str | None = None,
        description: str | None = None,
        expires: date | str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Share a folder by a link (documented: ``sharefolderwithurl``); without a password whoever has it may look."""
        return await self._caller.call("folders.share", ShareLink, locals())
