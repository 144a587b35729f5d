"""Folders of patient orders (``CloudApi.folders``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TypeVar
from uuid import UUID

from postdicom_async.cloud.caller import CloudFacade
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.paging import Results
from postdicom_async.vendor.answers import Folder, ShareLink, VendorAnswer
from postdicom_async.vendor.values import is_given

_Answer = TypeVar("_Answer", bound=VendorAnswer)


@public_face
class CloudFolders(CloudFacade):
    """Operations on folders. Every method raises as those of `CloudOrders` do."""

    async def create(
        self, name: str, *, description: str | None = None, parent_folder_uuid: UUID | str | None = None
    ) -> Folder:
        """Create a folder, at the root without a parent (JavaScript library: ``CreateFolder``, ``…WithDescription``).

        A name such as ``"a/b"`` makes nested folders (documented).
        """
        return await self._caller.call("folders.create", Folder, locals())

    def search(
        self,
        *,
        name: str | None = None,
        parent_folder_uuid: UUID | str | None = None,
        with_orders: bool = False,
    ) -> Results[Folder]:
        """Find the folders inside a folder, or at the root (JavaScript library: ``GetFolderList``).

        Orders that lie in the parent itself are in ``contents(parent_folder_uuid)``.
        """
        return self._caller.search("folders.search", Folder, "FolderUuid", locals(), path=("Folder", "SubFolderList"))

    async def contents(self, folder_uuid: UUID | str | None = None) -> Folder:
        """Return what is in a folder, or at the root (JavaScript library: ``GetFolderList``)."""
        given = {"parent_folder_uuid": folder_uuid, "with_orders": True}
        return await self._caller.call("folders.search", Folder, given)

    async def update(
        self, folder_uuid: UUID | str, *, name: str | None = None, description: str | None = None
    ) -> VendorAnswer:
        """Change a folder's name, its description or both (JavaScript library: ``UpdateFolderWithJSON``).

        None or empty text leaves the old value.

        Raises:
            UsageError: neither is given.
        """
        if not is_given(name) and not is_given(description):
            raise UsageError("give a new name, a new description or both", argument="name", operation="update folder")
        return await self._caller.call("folders.update", VendorAnswer, locals())

    async def delete(self, folder_uuid: UUID | str) -> VendorAnswer:
        """Delete a folder (JavaScript library: ``DeleteFolder``)."""
        return await self._caller.call("folders.delete", VendorAnswer, locals())

    async def add_order(
        self,
        patient_order_uuid: UUID | str,
        folder_uuids: Sequence[UUID | str],
        *,
        institution_uuid: UUID | str | None = None,
    ) -> VendorAnswer:
        """Put an order of an institution into folders (JavaScript library: ``AddOrderToFolder``)."""
        return await self._caller.call("folders.add_order", VendorAnswer, locals())

    async def remove_orders(self, folder_uuid: UUID | str, patient_order_uuids: Sequence[UUID | str]) -> VendorAnswer:
        """Take orders out of a folder (JavaScript library: ``RemoveOrderFromFolder``)."""
        return await self._caller.call("folders.remove_orders", VendorAnswer, locals())

    # --- sharing -------------------------------------------------------------------------------------------------

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
        """Share a folder by a link (JavaScript library: ``ShareFolderWithURL``); ``expires`` must be given here.

        Without a password, anyone with the link can view it.
        """
        return await self._caller.call("folders.share", ShareLink, locals())

    async def share_by_email(
        self,
        folder_uuid: UUID | str,
        email: str,
        *,
        expires: date | str,
        password_email: str | None = None,
        password: str | None = None,
        title: str | None = None,
        description: str | None = None,
        downloadable: bool = False,
    ) -> VendorAnswer:
        """Send a link to a folder by e-mail (JavaScript library: ``ShareFolderWithEmail``).

        The password goes to ``password_email`` if that is given, else to the same address (documented).
        """
        return await self._caller.call("folders.share_by_email", VendorAnswer, locals())

    async def share_to_upload(
        self,
        folder_uuid: UUID | str,
        *,
        expires: date | str,
        institution_uuid: UUID | str | None = None,
        password: str | None = None,
        title: str | None = None,
        description: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Return a link for uploading images into a folder; they will belong to the institution.

        JavaScript library: ``ShareFolderToUploadWithUrl``, which requires the institution; the documentation has
        none, see ``CloudWire.upload_share_has_institution``.
        """
        return await self._share_to_upload("folders.share_to_upload", ShareLink, locals())

    async def share_to_upload_by_email(
        self,
        folder_uuid: UUID | str,
        email: str,
        *,
        expires: date | str,
        institution_uuid: UUID | str | None = None,
        password_email: str | None = None,
        password: str | None = None,
        title: str | None = None,
        description: str | None = None,
        downloadable: bool = False,
    ) -> VendorAnswer:
        """Send such a link by e-mail (JavaScript library: ``ShareFolderToUploadWithEmail``)."""
        return await self._share_to_upload("folders.share_to_upload_by_email", VendorAnswer, locals())

    async def _share_to_upload(self, name: str, kind: type[_Answer], given: dict[str, object]) -> _Answer:
        """Make the call, with an institution where the operation takes one."""
        if self._caller.wire.upload_share_has_institution:
            return await self._caller.call(name, kind, given)
        operation = self._caller.operation(name)
        if given.pop("institution_uuid") is not None:
            message = "CloudWire(upload_share_has_institution=False) leaves it out; give None"
            raise UsageError(message, argument="institution_uuid", operation="share folder to upload")
        without = tuple(one for one in operation.parameters if one.argument != "institution_uuid")
        return await self._caller.call(replace(operation, parameters=without), kind, given)

    async def share_with_users(
        self,
        folder_uuid: UUID | str,
        user_uuids: Sequence[UUID | str],
        *,
        expires: date | str,
        downloadable: bool | None = None,
    ) -> VendorAnswer:
        """Share a folder with users of the account (JavaScript library: ``ShareFolderWithAccountUser``).

        ``downloadable`` is documented but missing in the public copy of that library; None leaves it out.
        """
        return await self._caller.call("folders.share_with_users", VendorAnswer, locals())

    async def share_with_groups(
        self,
        folder_uuid: UUID | str,
        user_group_uuids: Sequence[UUID | str],
        *,
        expires: date | str,
        downloadable: bool | None = None,
    ) -> VendorAnswer:
        """Share a folder with user groups of the account (JavaScript library: ``ShareFolderWithAccountUserGroup``).

        ``downloadable`` as in `share_with_users`.
        """
        return await self._caller.call("folders.share_with_groups", VendorAnswer, locals())
