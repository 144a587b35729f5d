"""Users, user groups and contacts of the account (``CloudApi.users``)."""

from __future__ import annotations

from postdicom_async.cloud.account import User
from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.messages import Name
from postdicom_async.face import public_face
from postdicom_async.vendor.answers import VendorAnswer

__all__ = ["CloudUsers"]


@public_face
class CloudUsers:
    """Operations on users. The fields of what they list are in ``raw``; few are known."""

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller

    async def all(self) -> list[User]:
        """Return the account's users (JavaScript library: ``GetUserList``)."""
        return await self._caller.listed(Name.LIST_USERS, User)

    async def groups(self) -> list[VendorAnswer]:
        """Return its user groups (JavaScript library: ``GetUserGroupList``)."""
        return await self._caller.listed(Name.LIST_USER_GROUPS, VendorAnswer)

    async def contacts(self) -> list[VendorAnswer]:
        """Return its contacts (JavaScript library: ``GetContactList``)."""
        return await self._caller.listed(Name.LIST_CONTACTS, VendorAnswer)
