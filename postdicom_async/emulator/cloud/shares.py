"""Shares and views over the Cloud API: links to the same pages as on the DICOMweb side. Methods block.

Each method takes the fields of a general request and returns those of the answer. No mail is sent:
`Cloud.mails` remembers it.
"""

from __future__ import annotations

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.state import Cloud, FolderShare, ShareMail
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.account import require
from postdicom_async.emulator.vendor.parameters import Given


class ShareRequests:
    """What general requests share."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._account = cloud.vendor

    def view(self, given: Given) -> Json:
        """Return the address of a page with one order, or with those of a patient."""
        if "PatientOrderUuid" in given:
            return self._account.share(given, [given.text("PatientOrderUuid")])
        name, born = given.text("PatientName"), given.day("BirthDate")
        if not name:
            raise Refusal(400, "PatientOrderUuid or PatientName must be given")
        found = [
            order.uuid
            for order in self._account.orders.all()
            if order.fields.get("PatientName") == name
            and (born is None or order.fields.get("PatientBirthdate") == born.isoformat())
        ]
        if not found:
            raise Refusal(404, "no order of such a patient")
        return self._account.share(given, found)

    def folder_view(self, given: Given) -> Json:
        """Return the address of a page with what is in a folder."""
        return self._account.share(given, folder=given.text("FolderUuid"))

    def orders_by_link(self, given: Given) -> Json:
        """Share orders by a link."""
        if not given.items("OrderUuidList"):
            raise Refusal(400, "OrderUuidList is empty")
        return self._account.share(given, given.items("OrderUuidList"))

    def orders_by_mail(self, given: Given) -> Json:
        """Share orders by a link in a mail."""
        return self._mail(given, self.orders_by_link(given), 36 if "ExpireDate" in given else 20)

    def folder_by_link(self, given: Given) -> Json:
        """Share a folder by a link, to look at or to upload into."""
        if "InstitutionUuid" in given:
            require(given.text("InstitutionUuid"), self._account.options.institutions, "institution")
        return self._account.share(given, folder=given.text("FolderUuid"))

    def folder_by_mail(self, given: Given) -> Json:
        """Share a folder by a link in a mail."""
        return self._mail(given, self.folder_by_link(given), 16 if "InstitutionUuid" in given else 14)

    def folder_inside(self, given: Given) -> Json:
        """Share a folder with users or groups of the account."""
        folder = self._account.folders.one(given.text("FolderUuid"))
        users, groups = given.items("SharedUserUuidList"), given.items("SharedUserGroupUuidList")
        for uuid in users:
            require(uuid, self._account.options.users, "user")
        for uuid in groups:
            require(uuid, self._account.options.user_groups, "user group")
        self._cloud.folder_shares.append(FolderShare(folder.uuid, tuple(users), tuple(groups), given.day("ExpireDate")))
        return {}

    def _mail(self, given: Given, made: Json, management_type: int) -> Json:
        email = given.text("Email")
        password_email = given.text("EmailForSendingSharePassword") or email
        mail = ShareMail(management_type, email, password_email, made["Result"], given.text("SharePassword"))
        self._cloud.mails.append(mail)
        return {}
