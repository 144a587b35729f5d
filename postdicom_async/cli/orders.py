"""``postdicom orders``: PostDICOM's patient orders."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from postdicom_async.cli.connection import Account
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.options import Common
from postdicom_async.cli.vendor import (
    AsJson,
    Yes,
    confirmed,
    detail,
    option,
    raw_columns,
    require_one,
    run_call,
    show_columns,
    show_order,
    show_orders,
    tell_done,
    tell_made,
    write_answers,
)

if TYPE_CHECKING:
    from postdicom_async import PostDicom, VendorAnswer

__all__ = [
    "Modality",
    "Order",
    "OrderDetails",
    "PatientId",
    "PatientName",
    "ToGroup",
    "ToUser",
    "Wanted",
    "assign",
    "create",
    "delete",
    "search",
    "show",
    "tags",
]

_Institution: TypeAlias = Annotated[str, option("institution-uuid", "The institution the order belongs to.", "UUID")]
Order: TypeAlias = Annotated[str, option("patient-order-uuid", "The order.", "UUID")]
ToUser: TypeAlias = Annotated[str | None, option("user-uuid", "The user to assign it to.", "UUID")]
ToGroup: TypeAlias = Annotated[str | None, option("user-group-uuid", "The group to assign it to.", "UUID")]
PatientName: TypeAlias = Annotated[str, option("patient-name", "The patient's name, as DOE^JANE.")]
PatientId: TypeAlias = Annotated[str, option("patient-id", "The patient's ID.")]
Modality: TypeAlias = Annotated[str, option("modality", "The modality, such as CT.", "CODE")]


@dataclass(frozen=True)
class Wanted:
    """What orders are searched by."""

    institution_uuids: Annotated[
        list[str] | None, option("institution-uuids", "Of this institution. Give it once for each.", "UUID")
    ] = None
    patient_name: Annotated[str | None, option("patient-name", "The patient's name, or a part of it.")] = None
    patient_id: Annotated[str | None, option("patient-id", "The patient's ID.")] = None
    other_patient_id: Annotated[str | None, option("other-patient-id", "Another ID of the patient.")] = None
    accession_number: Annotated[str | None, option("accession-number", "The accession number.")] = None
    modalities: Annotated[
        list[str] | None, option("modalities", "Of this modality. Give it once for each.", "CODE")
    ] = None
    study_date_from: Annotated[str | None, option("study-date-from", "Of this day or later.", "YYYY-MM-DD")] = None
    study_date_to: Annotated[str | None, option("study-date-to", "Of this day or before.", "YYYY-MM-DD")] = None
    patient_birthdate_from: Annotated[
        str | None, option("patient-birthdate-from", "Patients born on this day or later.", "YYYY-MM-DD")
    ] = None
    patient_birthdate_to: Annotated[
        str | None, option("patient-birthdate-to", "Patients born on this day or before.", "YYYY-MM-DD")
    ] = None


@dataclass(frozen=True)
class NewOrder:
    """What an order must be made of."""

    institution_uuid: Annotated[str, option("institution-uuid", "The institution it is for.", "UUID")]
    patient_name: PatientName
    patient_id: PatientId
    patient_birthdate: Annotated[str, option("patient-birthdate", "The patient's day of birth.", "YYYY-MM-DD")]
    modality: Modality


@dataclass(frozen=True)
class OrderDetails:
    """What an order may have besides."""

    other_patient_id: Annotated[str | None, detail("other-patient-id", "The patient's other ID.")] = None
    patient_sex: Annotated[str | None, detail("patient-sex", "M, F or O.", "LETTER")] = None
    study_description: Annotated[str | None, detail("study-description", "The study's description.")] = None
    accession_number: Annotated[str | None, detail("accession-number", "The accession number.")] = None
    patient_complaints: Annotated[str | None, detail("patient-complaints", "The patient's complaints.")] = None
    order_scheduled_datetime: Annotated[
        str | None,
        detail("order-scheduled-datetime", "'YYYY-MM-DD HH:MM', local.", "TIME"),
    ] = None
    requested_procedure_id: Annotated[str | None, detail("requested-procedure-id", "The procedure's ID.")] = None
    requested_procedure_description: Annotated[
        str | None, detail("requested-procedure-description", "The procedure in words.")
    ] = None
    requesting_physician: Annotated[str | None, detail("requesting-physician", "Who asks for it.")] = None
    referring_physicians_name: Annotated[str | None, detail("referring-physicians-name", "Who refers the patient.")] = (
        None
    )
    scheduled_equipment_uuid: Annotated[
        str | None, detail("scheduled-equipment-uuid", "The equipment to use.", "UUID")
    ] = None


def search(wanted: Wanted, account: Account, common: Common, as_json: AsJson = False) -> int:
    """Find patient orders.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    archive = account.postdicom()
    return show_orders(archive, archive.orders.search(**asdict(wanted)), as_json=as_json, quiet=common.quiet)


def show(
    institution_uuid: _Institution,
    patient_order_uuid: Order,
    account: Account,
    _common: Common,
    as_json: AsJson = False,
) -> int:
    """Show everything the service tells about a patient order."""
    found = run_call(account.postdicom(), lambda client: client.orders.properties(institution_uuid, patient_order_uuid))
    return show_order(found, as_json=as_json)


def create(order: NewOrder, details: OrderDetails, account: Account, common: Common, as_json: AsJson = False) -> int:
    """Make a patient order, and write its UUID.

    If no answer comes, the order may have been made or not: search before doing it again.
    """
    made = run_call(account.postdicom(), lambda client: client.orders.create(**asdict(order), **asdict(details)))
    return tell_made(made, made.patient_order_uuid, "order made", as_json=as_json, quiet=common.quiet)


def delete(
    institution_uuid: _Institution,
    patient_order_uuid: Order,
    account: Account,
    common: Common,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Delete a patient order and its images, for good.

    Asks first. Without a terminal to ask on, it wants --yes.
    """
    archive = account.postdicom()
    if not yes and not confirmed(f"Delete patient order {patient_order_uuid} and its images for good?"):
        return Exit.ITEMS_FAILED
    answer = run_call(archive, lambda client: client.orders.delete(institution_uuid, patient_order_uuid))
    return tell_done(answer, "order deleted", as_json=as_json, quiet=common.quiet)


def assign(
    patient_order_uuid: Order,
    account: Account,
    common: Common,
    user_uuid: ToUser = None,
    user_group_uuid: ToGroup = None,
    as_json: AsJson = False,
) -> int:
    """Assign a patient order to a user or to a user group."""
    require_one(user_uuid=user_uuid, user_group_uuid=user_group_uuid)

    async def work(archive: PostDicom) -> VendorAnswer:
        if user_uuid:
            return await archive.orders.assign_to_user(patient_order_uuid, user_uuid)
        return await archive.orders.assign_to_group(patient_order_uuid, user_group_uuid or "")

    answer = run_call(account.postdicom(), work)
    return tell_done(answer, "order assigned", as_json=as_json, quiet=common.quiet)


def tags(
    institution_uuid: _Institution,
    patient_order_uuid: Order,
    account: Account,
    common: Common,
    series_uuid: Annotated[str | None, option("series-uuid", "Only of this series.", "UUID")] = None,
    tags: Annotated[
        list[str] | None, option("tags", "A tag such as 00100010. Give it once for each; none means all.", "TAG")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show the content of DICOM tags of a patient order, for accounts that may.

    With --json, one array of the service's answers: one, unless the list of tags is too long for one request.
    """
    found = run_call(
        account.postdicom(),
        lambda client: client.orders.tag_content(
            institution_uuid, patient_order_uuid, series_uuid=series_uuid, tags=tags
        ),
    )
    if as_json:
        write_answers(found)
        return Exit.OK
    items = [item for one in found for item in one.items]
    return show_columns(raw_columns(items), ("tag", "tags"), quiet=common.quiet)
