"""Shares and views over the Cloud API: links to the same pages that DICOMweb's side makes. Methods block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.orders import require
from postdicom_async.emulator.cloud.state import FolderShare, Mail
from postdicom_async.emulator.operations.actions import SHARE_PATH
from postdicom_async.emulator.vendor.folders import Folders
from postdicom_async.emulator.vendor.orders import Orders
from postdicom_async.emulator.vendor.shares import Shares

if TYPE_CHECKING:
    from postdicom_async.emulator.cloud.parameters import Parameters
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["CloudShares"]


class CloudShares:
    """What general requests share; each takes the parameters and returns the fields of the answer."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._options = cloud.context.options
        self._orders = Orders(cloud.context.store, self._options.institution_uuid)
        self._folders = Folders(cloud.context.store)
        self._shares = Shares(cloud.context.store)

    def view(self, given: Parameters) -> dict[str, Any]:
        """Return the address of a page with one order, or with those of a patient."""
        if "PatientOrderUuid" in given:
            return self._link([self._orders.one(given.text("PatientOrderUuid")).uuid])
        name, born = given.text("PatientName"), given.day("BirthDate")
        if not name:
            raise Refusal(400, "PatientOrderUuid or PatientName must be given")
        found = [
            order.uuid
            for order in self._orders.all()
            if order.fields.get("PatientName") == name
            and (born is None or order.fields.get("PatientBirthdate") == born.isoformat())
        ]
        if not found:
            raise Refusal(404, "no order of such a patient")
        return self._link(found)

    def folder_view(self, given: Parameters) -> dict[str, Any]:
        """Return the address of a page with what is in a folder."""
        return self._link([], self._folders.one(given.text("FolderUuid")).uuid)

    def orders_by_link(self, given: Parameters) -> dict[str, Any]:
        """Share orders by a link."""
        orders = given.items("OrderUuidList")
        if not orders:
            raise Refusal(400, "OrderUuidList is empty")
        self._orders.require(orders)
        return self._link(orders, given=given)

    def orders_by_mail(self, given: Parameters) -> dict[str, Any]:
        """Share orders by a link in a mail."""
        return self._mail(given, self.orders_by_link(given), 36 if "ExpireDate" in given else 20)

    def folder_by_link(self, given: Parameters) -> dict[str, Any]:
        """Share a folder by a link, to look at or to upload into."""
        if "InstitutionUuid" in given:
            require(given.text("InstitutionUuid"), self._options.institutions, "institution")
        return self._link([], self._folders.one(given.text("FolderUuid")).uuid, given)

    def folder_by_mail(self, given: Parameters) -> dict[str, Any]:
        """Share a folder by a link in a mail."""
        return self._mail(given, self.folder_by_link(given), 16 if "InstitutionUuid" in given else 14)

    def folder_inside(self, given: Parameters) -> dict[str, Any]:
        """Share a folder with users or groups of the account."""
        folder = self._folders.one(given.text("FolderUuid"))
        users, groups = given.items("SharedUserUuidList"), given.items("SharedUserGroupUuidList")
        for uuid in users:
            require(uuid, self._options.users, "user")
        for uuid in groups:
            require(uuid, self._options.user_groups, "user group")
        share = FolderShare(folder.uuid, tuple(users), tuple(groups), given.day("ExpireDate"))
        self._cloud.folder_shares.append(share)
        return {}

    def _mail(self, given: Parameters, made: dict[str, Any], management_type: int) -> dict[str, Any]:
        email = given.text("Email")
        password_email = given.text("EmailForSendingSharePassword") or email
        mail = Mail(management_type, email, password_email, made["Result"], given.text("SharePassword"))
        self._cloud.mails.append(mail)
        return {}

    def _link(self, orders: list[str], folder: str = "", given: Parameters | None = None) -> dict[str, Any]:
        token = self._shares.create(
            order_uuids=orders,
            folder_uuid=folder,
            title=given.text("ShareTitle") if given else "",
            description=given.text("ShareDescription") if given else "",
            password=given.text("SharePassword") if given else "",
            expires=given.day("ExpireDate") if given else None,
            downloadable=given.flag("UserCanDownloadStudies") if given else False,
        )
        return {"Result": f"{self._cloud.base_url}{SHARE_PATH}/{token}"}
