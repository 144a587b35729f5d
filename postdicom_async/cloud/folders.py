"""Folders of patient orders (``CloudApi.folders``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.json_parameters import NEW_FOLDER_FIELDS, folder_json
from postdicom_async.cloud.messages import Name
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.paging import Results
from postdicom_async.postdicom.answers import Folder, ShareLink, VendorAnswer

__all__ = ["CloudFolders"]

_ANYWHERE = {
    Name.SHARE_FOLDER_TO_UPLOAD: Name.SHARE_FOLDER_TO_UPLOAD_ANYWHERE,
    Name.SHARE_FOLDER_TO_UPLOAD_BY_EMAIL: Name.SHARE_FOLDER_TO_UPLOAD_ANYWHERE_BY_EMAIL,
}


@public_face
class CloudFolders:
    """Operations on folders. Every method raises as those of `CloudOrders` do."""

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller

    async def create(
        self, name: str, *, description: str | None = None, parent_folder_uuid: UUID | str | None = None
    ) -> Folder:
        """Create a folder, at the root without a parent (JavaScript library: ``CreateFolder``, ``…WithDescription``).

        A name such as ``"a/b"`` makes nested folders (documented).
        """
        return await self._caller.call(
            Name.CREATE_FOLDER, Folder, name=name, description=description, parent_folder_uuid=parent_folder_uuid
        )

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
        return self._caller.search(
            Name.SEARCH_FOLDERS,
            Folder,
            "FolderUuid",
            path=("Folder", "SubFolderList"),
            name=name,
            parent_folder_uuid=parent_folder_uuid,
            with_orders=with_orders,
        )

    async def contents(self, folder_uuid: UUID | str | None = None) -> Folder:
        """Return what is in a folder, or at the root (JavaScript library: ``GetFolderList``)."""
        return await self._caller.call(Name.SEARCH_FOLDERS, Folder, parent_folder_uuid=folder_uuid, with_orders=True)

    async def update(
        self, folder_uuid: UUID | str, *, name: str | None = None, description: str | None = None
    ) -> VendorAnswer:
        """Change a folder's name, its description or both (JavaScript library: ``UpdateFolderWithJSON``).

        None and empty text leave what there is.

        Raises:
            UsageError: neither is given.
        """
        values = self._caller.checked(NEW_FOLDER_FIELDS, {"name": name, "description": description})
        if not values:
            raise UsageError("give a new name, a new description or both", argument="name", operation="update folder")
        return await self._caller.call_with_json(
            Name.UPDATE_FOLDER, VendorAnswer, folder_json(values), values, folder_uuid=folder_uuid
        )

    async def delete(self, folder_uuid: UUID | str) -> VendorAnswer:
        """Delete a folder (JavaScript library: ``DeleteFolder``)."""
        return await self._caller.call(Name.DELETE_FOLDER, VendorAnswer, folder_uuid=folder_uuid)

    async def add_order(
        self,
        patient_order_uuid: UUID | str,
        folder_uuids: Sequence[UUID | str],
        *,
        institution_uuid: UUID | str | None = None,
    ) -> VendorAnswer:
        """Put an order of an institution into folders (JavaScript library: ``AddOrderToFolder``)."""
        return await self._caller.call(
            Name.ADD_ORDER_TO_FOLDER,
            VendorAnswer,
            institution_uuid=institution_uuid,
            patient_order_uuid=patient_order_uuid,
            folder_uuids=folder_uuids,
        )

    async def remove_orders(self, folder_uuid: UUID | str, patient_order_uuids: Sequence[UUID | str]) -> VendorAnswer:
        """Take orders out of a folder (JavaScript library: ``RemoveOrderFromFolder``)."""
        return await self._caller.call(
            Name.REMOVE_ORDERS_FROM_FOLDER,
            VendorAnswer,
            folder_uuid=folder_uuid,
            patient_order_uuids=patient_order_uuids,
        )

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

        Without a password whoever has the link may look.
        """
        return await self._caller.call(
            Name.SHARE_FOLDER,
            ShareLink,
            folder_uuid=folder_uuid,
            password=password,
            title=title,
            description=description,
            expires=expires,
            downloadable=downloadable,
        )

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
        return await self._caller.call(
            Name.SHARE_FOLDER_BY_EMAIL,
            VendorAnswer,
            folder_uuid=folder_uuid,
            email=email,
            password_email=password_email,
            password=password,
            title=title,
            description=description,
            expires=expires,
            downloadable=downloadable,
        )

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
        """Return a link by which images can be uploaded into a folder, to belong to the institution.

        JavaScript library: ``ShareFolderToUploadWithUrl``, which must have the institution; it is documented without,
        see ``CloudWire.upload_share_has_institution``.
        """
        name, institution = self._to_upload(Name.SHARE_FOLDER_TO_UPLOAD, institution_uuid)
        return await self._caller.call(
            name,
            ShareLink,
            folder_uuid=folder_uuid,
            password=password,
            title=title,
            description=description,
            expires=expires,
            downloadable=downloadable,
            **institution,
        )

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
        name, institution = self._to_upload(Name.SHARE_FOLDER_TO_UPLOAD_BY_EMAIL, institution_uuid)
        return await self._caller.call(
            name,
            VendorAnswer,
            folder_uuid=folder_uuid,
            email=email,
            password_email=password_email,
            password=password,
            title=title,
            description=description,
            expires=expires,
            downloadable=downloadable,
            **institution,
        )

    def _to_upload(self, name: Name, institution_uuid: UUID | str | None) -> tuple[Name, dict[str, object]]:
        """Return the operation that shares to upload, and the institution where it takes one."""
        if self._caller.wire.upload_share_has_institution:
            return name, {"institution_uuid": institution_uuid}
        if institution_uuid is not None:
            message = "CloudWire(upload_share_has_institution=False) leaves it out; give None"
            raise UsageError(message, argument="institution_uuid", operation="share folder to upload")
        return _ANYWHERE[name], {}

    async def share_with_users(
        self,
        folder_uuid: UUID | str,
        user_uuids: Sequence[UUID | str],
        *,
        expires: date | str,
        downloadable: bool | None = None,
    ) -> VendorAnswer:
        """Share a folder with users of the account (JavaScript library: ``ShareFolderWithAccountUser``).

        Whether they may download is documented and not in the public copy of that library; None says nothing of it.
        """
        return await self._caller.call(
            Name.SHARE_FOLDER_WITH_USERS,
            VendorAnswer,
            folder_uuid=folder_uuid,
            user_uuids=user_uuids,
            expires=expires,
            downloadable=downloadable,
        )

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
        return await self._caller.call(
            Name.SHARE_FOLDER_WITH_GROUPS,
            VendorAnswer,
            folder_uuid=folder_uuid,
            user_group_uuids=user_group_uuids,
            expires=expires,
            downloadable=downloadable,
        )
