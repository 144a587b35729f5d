"""The thirteen operations as methods: ``PostDicom.orders``, ``PostDicom.folders``, ``PostDicom.shares``.

Signatures are written out, for editors and type checkers; a test compares them with the table in ``operations.py``. A
method passes on all its arguments, as its ``locals()``: a parameter that the table lacks is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from postdicom_async.face import public_face
from postdicom_async.paging import Results
from postdicom_async.postdicom.caller import Caller
from postdicom_async.vendor.answers import Folder, PatientOrder, ShareLink, TagContent, VendorAnswer

if TYPE_CHECKING:
    from pydicom.valuerep import PersonName


@public_face
class Orders:
    """Operations on patient orders. A patient order is the service's record of one study of one patient.

    Every method raises `UsageError` before anything is sent when an argument is missing or malformed, and
    `OutcomeUnknown` when a change was sent and not answered.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self,
        *,
        institution_uuid: UUID | str,
        patient_name: str | PersonName,
        patient_id: str,
        patient_birthdate: date | str,
        modality: str,
        other_patient_id: str | None = None,
        patient_sex: str | None = None,
        study_description: str | None = None,
        accession_number: str | None = None,
        patient_complaints: str | None = None,
        order_scheduled_datetime: datetime | str | None = None,
        requested_procedure_id: str | None = None,
        requested_procedure_description: str | None = None,
        requesting_physician: str | PersonName | None = None,
        referring_physicians_name: str | PersonName | None = None,
        scheduled_equipment_uuid: UUID | str | None = None,
    ) -> PatientOrder:
        """Create an order (documented: ``createpatientorder``).

        Dates are `date` or ``YYYY-MM-DD``, the scheduled time is `datetime` or ``YYYY-MM-DD HH:MM`` in the account's
        local time, sex is ``M``, ``F`` or ``O``.
        """
        return await self._caller.call("orders.create", PatientOrder, locals())

    def search(
        self,
        *,
        institution_uuids: Sequence[UUID | str] | None = None,
        patient_name: str | PersonName | None = None,
        patient_id: str | None = None,
        other_patient_id: str | None = None,
        accession_number: str | None = None,
        modalities: Sequence[str] | None = None,
        study_date_from: date | str | None = None,
        study_date_to: date | str | None = None,
        patient_birthdate_from: date | str | None = None,
        patient_birthdate_to: date | str | None = None,
    ) -> Results[PatientOrder]:
        """Find orders (documented: ``getpatientorderlist``): ``async for``, ``.all()`` or ``.first()``.

        Long lists are sent in several requests; an order found several times is returned once.
        """
        return self._caller.search("orders.search", PatientOrder, "PatientOrderUuid", locals())

    async def properties(self, institution_uuid: UUID | str, patient_order_uuid: UUID | str) -> PatientOrder:
        """Return an order's properties (documented: ``getpatientorderproperties``)."""
        return await self._caller.call("orders.properties", PatientOrder, locals())

    async def delete(self, institution_uuid: UUID | str, patient_order_uuid: UUID | str) -> VendorAnswer:
        """Delete an order and its images for good (documented: ``deleteorder``)."""
        return await self._caller.call("orders.delete", VendorAnswer, locals())

    async def assign_to_user(self, patient_order_uuid: UUID | str, user_uuid: UUID | str) -> VendorAnswer:
        """Assign an order to a user (documented: ``assignordertouser``)."""
        return await self._caller.call("orders.assign_to_user", VendorAnswer, locals())

    async def assign_to_group(self, patient_order_uuid: UUID | str, user_group_uuid: UUID | str) -> VendorAnswer:
        """Assign an order to a user group (documented: ``assignordertousergroup``)."""
        return await self._caller.call("orders.assign_to_group", VendorAnswer, locals())

    async def tag_content(
        self,
        institution_uuid: UUID | str,
        patient_order_uuid: UUID | str,
        *,
        series_uuid: UUID | str | None = None,
        tags: Sequence[str] | None = None,
    ) -> list[TagContent]:
        """Return the content of DICOM tags (documented: ``getdicomtagcontent``), if the account is allowed to.

        One answer for each request: several only if ``tags`` is too long for one.
        """
        return await self._caller.read_in_parts("orders.tag_content", TagContent, locals())


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
        """Find folders by name or part of it (documented: ``searchfolder``), with their orders on request."""
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
        """Share a folder by a link (documented: ``sharefolderwithurl``); without a password it is open to anyone."""
        return await self._caller.call("folders.share", ShareLink, locals())


@public_face
class Shares:
    """Operations that share orders. Every method raises as those of `Orders` do."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create_link(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Create a link to orders (documented: ``createsharelink``); without a password it is open to anyone."""
        return await self._caller.call("shares.create_link", ShareLink, locals())

    async def share_orders(
        self,
        patient_order_uuids: Sequence[UUID | str],
        *,
        expires: date | str,
        password: str | None = None,
        downloadable: bool = False,
    ) -> ShareLink:
        """Share orders by a link (documented: ``sharepatientorderwithurl``)."""
        return await self._caller.call("shares.share_orders", ShareLink, locals())
