"""``postdicom orders``: PostDICOM's patient orders."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import Account
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.search import write_json
from postdicom_async.cli.vendor import (
    AsJson,
    detail,
    document,
    field_table,
    option,
    order_columns,
    run_call,
    show_columns,
    tell_done,
    tell_made,
)

if TYPE_CHECKING:
    from postdicom_async import TagContent, VendorAnswer

__all__ = ["assign", "create", "delete", "search", "show", "tags"]

_Institution: TypeAlias = Annotated[str, option("institution-uuid", "The institution the order belongs to.", "UUID")]
_Order: TypeAlias = Annotated[str, option("patient-order-uuid", "The order.", "UUID")]


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
    """What an order is made of."""

    institution_uuid: Annotated[str, option("institution-uuid", "The institution it is for.", "UUID")]
    patient_name: Annotated[str, option("patient-name", "The patient's name, as DOE^JANE.")]
    patient_id: Annotated[str, option("patient-id", "The patient's ID.")]
    patient_birthdate: Annotated[str, option("patient-birthdate", "The patient's day of birth.", "YYYY-MM-DD")]
    modality: Annotated[str, option("modality", "The modality, such as CT.", "CODE")]
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
    if as_json:
        return run_async(lambda: write_json(archive, archive.orders.search(**asdict(wanted)), quiet=common.quiet))
    orders = run_call(archive, lambda client: client.orders.search(**asdict(wanted)).all())
    return show_columns(order_columns(orders), ("order", "orders"), quiet=common.quiet)


def show(
    institution_uuid: _Institution,
    patient_order_uuid: _Order,
    account: Account,
    _common: Common,
    as_json: AsJson = False,
) -> int:
    """Show everything the service tells about a patient order."""
    found = run_call(account.postdicom(), lambda client: client.orders.properties(institution_uuid, patient_order_uuid))
    if as_json or not found.raw:
        output.write(output.json_text(document(found)))
    else:
        output.write(field_table(found.raw.items()))
    return Exit.OK


def create(order: NewOrder, account: Account, common: Common, as_json: AsJson = False) -> int:
    """Make a patient order, and write its UUID.

    If no answer comes, the order may have been made or not: search before doing it again.
    """
    made = run_call(account.postdicom(), lambda client: client.orders.create(**asdict(order)))
    return tell_made(made, made.patient_order_uuid, "order made", as_json=as_json, quiet=common.quiet)


def delete(
    institution_uuid: _Institution,
    patient_order_uuid: _Order,
    account: Account,
    common: Common,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Delete a patient order and its images, for good.

    Asks first. Without a terminal to ask on, it wants --yes.
    """
    archive = account.postdicom()
    if not yes and not _confirmed(patient_order_uuid):
        output.error("nothing was deleted")
        return Exit.ITEMS_FAILED
    answer = run_call(archive, lambda client: client.orders.delete(institution_uuid, patient_order_uuid))
    return tell_done(answer, "order deleted", as_json=as_json, quiet=common.quiet)


def _confirmed(uuid: str) -> bool:
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("deleting asks first: run this in a terminal, or give --yes")
    sys.stderr.write(f"Delete patient order {output.clean(uuid)} and its images for good? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def assign(
    patient_order_uuid: _Order,
    account: Account,
    common: Common,
    user_uuid: Annotated[str | None, option("user-uuid", "The user to assign it to.", "UUID")] = None,
    user_group_uuid: Annotated[str | None, option("user-group-uuid", "The group to assign it to.", "UUID")] = None,
    as_json: AsJson = False,
) -> int:
    """Assign a patient order to a user or to a user group."""
    if (user_uuid is None) is (user_group_uuid is None):
        raise UsageError("give --user-uuid or --user-group-uuid, one of them")
    archive = account.postdicom()

    async def work() -> VendorAnswer:
        async with archive:
            if user_uuid is not None:
                return await archive.orders.assign_to_user(patient_order_uuid, user_uuid)
            return await archive.orders.assign_to_group(patient_order_uuid, user_group_uuid or "")

    return tell_done(run_async(work), "order assigned", as_json=as_json, quiet=common.quiet)


def tags(
    institution_uuid: _Institution,
    patient_order_uuid: _Order,
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
        output.write(output.json_text([document(one) for one in found]))
        return Exit.OK
    return show_columns(_tag_columns(found), ("tag", "tags"), quiet=common.quiet)


def _tag_columns(found: list[TagContent]) -> dict[str, list[str]]:
    """Return the fields of what came as columns, whatever they are called."""
    items = [item for one in found for item in one.items if isinstance(item, dict)]
    names = list(dict.fromkeys(name for item in items for name in item))
    return {name: [_text(item.get(name)) for item in items] for name in names}


def _text(value: object) -> str:
    return "" if value is None else str(value)
