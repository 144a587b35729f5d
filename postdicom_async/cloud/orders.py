"""Patient orders (``CloudApi.orders``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from postdicom_async.cloud.caller import CloudFacade
from postdicom_async.cloud.operations import CREATE_ORDER_FROM_JSON, CREATE_ORDER_WITH_JSON, ORDER_FIELDS
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.paging import Results
from postdicom_async.vendor.answers import PatientOrder, VendorAnswer
from postdicom_async.vendor.values import is_given

if TYPE_CHECKING:
    from pydicom.valuerep import PersonName

_FOUND = ("SearchResultList",)


@public_face
class CloudOrders(CloudFacade):
    """Operations on patient orders. A patient order is the service's record of one study of one patient.

    Every method raises `UsageError` before anything is sent when an argument is missing or malformed, and
    `OutcomeUnknown` when a change was sent and not answered. UUIDs are of version 1 to 5
    (JavaScript library). ``institution_uuid`` may be the institution's name too.
    """

    async def create(
        self,
        *,
        institution_uuid: UUID | str | None = None,
        patient_name: str | PersonName,
        patient_id: str,
        patient_birthdate: date | str | None = None,
        modality: str,
        other_patient_id: str | None = None,
        patient_sex: str | None = None,
        study_description: str | None = None,
        accession_number: str | None = None,
        patient_complaints: str | None = None,
        order_scheduled_datetime: datetime | date | str | None = None,
        requested_procedure_id: str | None = None,
        requested_procedure_description: str | None = None,
        requesting_physician: str | PersonName | None = None,
        referring_physicians_name: str | PersonName | None = None,
        scheduled_equipment_uuid: UUID | str | None = None,
    ) -> PatientOrder:
        """Create an order (JavaScript library: the three ``CreateOrderWith…Parameters``, or ``CreateOrderWithJSON``).

        The last is used where the others do not suffice: without a scheduled time, or with a requesting physician.
        Where the service then expects the patient's complaints is assumed, see ``CloudWire.other_order_fields``.

        Dates are `date` or ``YYYY-MM-DD``, the scheduled time is `datetime` or ``YYYY-MM-DD HH:MM`` in the account's
        local time, or the day alone (`date` or ``YYYY-MM-DD``, see ``CloudWire.after_date_alone``), sex is ``M``, ``F``
        or ``O``.
        """
        given = {**locals()}
        # The script's other functions require a scheduled time and have no field for a requesting physician.
        in_json = not is_given(order_scheduled_datetime) or is_given(requesting_physician)
        return await self._caller.call(CREATE_ORDER_WITH_JSON if in_json else "orders.create", PatientOrder, given)

    async def create_from_json(
        self, fields: Mapping[str, object], *, institution_uuid: UUID | str | None = None
    ) -> PatientOrder:
        """Create an order from the service's own field names (JavaScript library: ``CreateOrderWithJSON``).

        Args:
            fields: documented names such as ``PatientName``, ``PatientID``, ``PatientsBirthDate``,
                ``PerformedDatetime``, ``OrderModality``, ``OrderAccessionNumber`` (1 to 16 characters), ``Priority``.
            institution_uuid: where; the user's only institution without it.

        Raises:
            UsageError: a name is not one of them; it would be dropped silently.
        """
        if not isinstance(fields, Mapping):
            raise UsageError("give a mapping of the service's field names to values", argument="fields")
        known = {parameter.argument for parameter in ORDER_FIELDS}
        unknown = sorted(str(name) for name in fields if name not in known)
        if unknown:
            raise UsageError(f"{', '.join(unknown)}: no such field of an order; give {', '.join(sorted(known))}")
        given = {**fields, "institution_uuid": institution_uuid}
        return await self._caller.call(CREATE_ORDER_FROM_JSON, PatientOrder, given)

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
        """Find orders (JavaScript library: ``GetPatientOrderList…``): ``async for``, ``.all()`` or ``.first()``.

        Study dates and birth dates cannot be given together: the API has one search for each.
        """
        if any(map(is_given, (study_date_from, study_date_to))) and any(
            map(is_given, (patient_birthdate_from, patient_birthdate_to))
        ):
            raise UsageError(
                "the Cloud API searches by study dates or by birth dates, not by both", argument="study_date_from"
            )
        return self._caller.search("orders.search", PatientOrder, "PatientOrderUuid", locals(), path=_FOUND)

    def search_in_folder(self, folder_uuid: UUID | str) -> Results[PatientOrder]:
        """Find the orders in a folder (JavaScript library: ``GetPatientOrderListInFolder``)."""
        return self._caller.search("orders.search_in_folder", PatientOrder, "PatientOrderUuid", locals(), path=_FOUND)

    async def properties(self, institution_uuid: UUID | str, patient_order_uuid: UUID | str) -> PatientOrder:
        """Return an order's properties (JavaScript library: ``GetPatientOrderProperties``)."""
        return await self._caller.call("orders.properties", PatientOrder, locals())

    async def delete(self, institution_uuid: UUID | str, patient_order_uuid: UUID | str) -> VendorAnswer:
        """Move an order to the recycle bin (JavaScript library: ``DeleteOrder``)."""
        return await self._caller.call("orders.delete", VendorAnswer, locals())

    async def assign_to_user(self, patient_order_uuid: UUID | str, user_uuid: UUID | str) -> VendorAnswer:
        """Assign an order to a user (JavaScript library: ``AssignPatientOrderToUser``)."""
        return await self._caller.call("orders.assign_to_user", VendorAnswer, locals())

    async def unassign_from_user(self, patient_order_uuid: UUID | str, user_uuid: UUID | str) -> VendorAnswer:
        """Take an order from a user (JavaScript library: ``UnassignPatientOrderFromUser``)."""
        return await self._caller.call("orders.unassign_from_user", VendorAnswer, locals())

    async def assign_to_group(self, patient_order_uuid: UUID | str, user_group_uuid: UUID | str) -> VendorAnswer:
        """Assign an order to a user group (JavaScript library: ``AssignPatientOrderToUserGroup``)."""
        return await self._caller.call("orders.assign_to_group", VendorAnswer, locals())

    async def unassign_from_group(self, patient_order_uuid: UUID | str, user_group_uuid: UUID | str) -> VendorAnswer:
        """Take an order from a user group (JavaScript library: ``UnassignPatientOrderFromUserGroup``)."""
        return await self._caller.call("orders.unassign_from_group", VendorAnswer, locals())

    async def assign_to_institution(self, patient_order_uuid: UUID | str, institution_uuid: UUID | str) -> VendorAnswer:
        """Assign an order to an institution (JavaScript library: ``AssignPatientOrderToLocation``)."""
        return await self._caller.call("orders.assign_to_institution", VendorAnswer, locals())
