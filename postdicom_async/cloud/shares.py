"""Links and e-mails that share patient orders (``CloudApi.shares``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.messages import Name
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.postdicom.answers import ShareLink, VendorAnswer
from postdicom_async.postdicom.values import is_given

__all__ = ["CloudShares"]


@public_face
class CloudShares:
    """Operations that share orders. Every method raises as those of `CloudOrders` do."""

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller

    async def create_link(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str | None = None,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Create a link to orders (JavaScript library: ``CreateQuickShareLink``, ``…WithExpireDate``).

        Whoever has it may look, for ever if ``expires`` is None.

        Raises:
            UsageError: a password is given: the Cloud API has none for such links, and leaving it out would open to
                everybody what was to be protected. Share by e-mail, or share a folder, instead.
        """
        if is_given(password):
            message = "the Cloud API has no password for links to orders; use share_by_email or folders.share"
            raise UsageError(message, argument="password", operation="create share link")
        until: dict[str, object] = {} if expires is None else {"expires": expires}
        return await self._caller.call(
            Name.CREATE_SHARE_LINK_UNTIL if until else Name.CREATE_SHARE_LINK,
            ShareLink,
            patient_order_uuids=patient_order_uuids,
            downloadable=downloadable,
            **until,
        )

    async def share_orders(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str | None = None,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """As `create_link`: what are two operations of the DICOMweb API is one here."""
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
        until: dict[str, object] = {} if expires is None else {"expires": expires}
        return await self._caller.call(
            Name.SHARE_ORDERS_BY_EMAIL_UNTIL if until else Name.SHARE_ORDERS_BY_EMAIL,
            VendorAnswer,
            patient_order_uuids=patient_order_uuids,
            email=email,
            password_email=password_email,
            downloadable=downloadable,
            **until,
        )
