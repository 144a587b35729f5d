"""The smaller groups of operations: shares, view links, order groups, flags, DICOM nodes and users of the account."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING
from uuid import UUID

from postdicom_async.cloud.caller import CloudFacade
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.vendor.answers import ShareLink, User, VendorAnswer
from postdicom_async.vendor.values import is_given

if TYPE_CHECKING:
    from pydicom.valuerep import PersonName


@public_face
class CloudShares(CloudFacade):
    """Operations that share orders. Every method raises as those of `CloudOrders` do."""

    async def create_link(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str | None = None,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Create a link to orders (JavaScript library: ``CreateQuickShareLink``, ``…WithExpireDate``).

        Anyone with the link can view them, for ever if ``expires`` is None.

        Raises:
            UsageError: a password is given: the Cloud API has none for such links, and dropping it silently would open
                to everybody what was meant to be protected. Share by e-mail, or share a folder, instead.
        """
        if is_given(password):
            message = "the Cloud API has no password for links to orders; use share_by_email or folders.share"
            raise UsageError(message, argument="password", operation="create share link")
        _require_day("create share link", expires)
        given = {"patient_order_uuids": patient_order_uuids, "expires": expires, "downloadable": downloadable}
        return await self._caller.call("shares.create_link", ShareLink, given)

    async def share_orders(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str | None = None,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Do what `create_link` does: the two operations of the DICOMweb API are one here."""
        return await self.create_link(
            patient_order_uuids, expires=expires, password=password, downloadable=downloadable
        )

    async def share_by_email(
        self,
        patient_order_uuids: Sequence[UUID | str],
        email: str,
        *,
        password_email: str | None = None,
        expires: date | str | None = None,
        downloadable: bool = False,
    ) -> VendorAnswer:
        """Send a link to orders by e-mail (JavaScript library: ``SharePatientOrder``, ``…WithExpireDate``).

        The service makes a password; it goes to ``password_email`` if that is given, else to the same address
        (documented).
        """
        _require_day("share patient orders by e-mail", expires)
        return await self._caller.call("shares.share_by_email", VendorAnswer, locals())


def _require_day(title: str, expires: object) -> None:
    """Refuse empty text: read as no date, it would leave the link open for ever."""
    if expires is not None and not is_given(expires):
        raise UsageError("must be given", argument="expires", operation=title)


@public_face
class CloudView(CloudFacade):
    """Links for viewing images. Each works only from the IP address that asked for it (documented).

    Every method raises as those of `CloudOrders` do.
    """

    async def order(self, patient_order_uuid: UUID | str) -> ShareLink:
        """Return a link to an order (JavaScript library: ``GetViewUrl``)."""
        return await self._caller.call("view.order", ShareLink, locals())

    async def patient(
        self, patient_name: str | PersonName, *, patient_birthdate: date | str | None = None
    ) -> ShareLink:
        """Return a link to a patient (JavaScript library: ``GetViewUrlWithPatientName``, ``…AndBirthDate``)."""
        return await self._caller.call("view.patient", ShareLink, locals())

    async def folder(self, folder_uuid: UUID | str) -> ShareLink:
        """Return a link to a folder (JavaScript library: ``GetFolderViewUrl``)."""
        return await self._caller.call("view.folder", ShareLink, locals())


@public_face
class CloudGroups(CloudFacade):
    """Operations on order groups. Every method raises as those of `CloudOrders` do.

    The orders belong to one institution: the user's only one, unless it is given.
    """

    async def create(
        self, patient_order_uuids: Sequence[UUID | str], *, institution_uuid: UUID | str | None = None
    ) -> VendorAnswer:
        """Connect orders (JavaScript library: ``CreateOrderGroup``)."""
        return await self._caller.call("groups.create", VendorAnswer, locals())

    async def add_orders(
        self,
        connected_group_uuid: UUID | str,
        patient_order_uuids: Sequence[UUID | str],
        *,
        institution_uuid: UUID | str | None = None,
    ) -> VendorAnswer:
        """Add orders to a group (JavaScript library: ``AddOrdersToOrderGroup``)."""
        return await self._caller.call("groups.add_orders", VendorAnswer, locals())

    async def remove_orders(
        self, patient_order_uuids: Sequence[UUID | str], *, institution_uuid: UUID | str | None = None
    ) -> VendorAnswer:
        """Take orders out of the group they are in (JavaScript library: ``RemoveOrdersFromGroup``)."""
        return await self._caller.call("groups.remove_orders", VendorAnswer, locals())


@public_face
class CloudFlags(CloudFacade):
    """Operations on flags. Every method raises as those of `CloudOrders` do."""

    async def dictionary(self) -> VendorAnswer:
        """Return the account's flag groups and flags (JavaScript library: ``GetAccountFlagDictionary``).

        Its fields are not known; they are in ``raw``.
        """
        return await self._caller.call("flags.dictionary", VendorAnswer, locals())

    async def set(self, patient_order_uuid: UUID | str, *, group_id: int | str, flag_id: int | str) -> VendorAnswer:
        """Set a flag on an order (JavaScript library: ``SetFlagToPatientOrder``); ids are those of the dictionary.

        They are documented as texts; that library takes and sends whole numbers, see ``CloudWire.flag_ids_as_text``.
        """
        return await self._caller.call("flags.set", VendorAnswer, locals())


@public_face
class CloudNodes(CloudFacade):
    """Operations on DICOM nodes."""

    async def all(self) -> list[VendorAnswer]:
        """Return the account's DICOM nodes (JavaScript library: ``GetDicomNodeList``); their fields are in ``raw``."""
        return await self._caller.listed("nodes.all", VendorAnswer)


@public_face
class CloudUsers(CloudFacade):
    """Operations on users. All fields of the listed objects are in ``raw``; few are known."""

    async def all(self) -> list[User]:
        """Return the account's users (JavaScript library: ``GetUserList``)."""
        return await self._caller.listed("users.all", User)

    async def groups(self) -> list[VendorAnswer]:
        """Return its user groups (JavaScript library: ``GetUserGroupList``)."""
        return await self._caller.listed("users.groups", VendorAnswer)

    async def contacts(self) -> list[VendorAnswer]:
        """Return its contacts (JavaScript library: ``GetContactList``)."""
        return await self._caller.listed("users.contacts", VendorAnswer)
