"""``postdicom cloud orders``: patient orders over the Cloud API."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async import UsageError
from postdicom_async.cli.cloud_connection import CloudAccount, CloudInstitution, InstitutionOfOrder
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.folders import FolderUuid
from postdicom_async.cli.options import Common
from postdicom_async.cli.orders import Modality, Order, OrderDetails, PatientId, PatientName, ToGroup, ToUser, Wanted
from postdicom_async.cli.paths import given_path, require_readable, words_of
from postdicom_async.cli.vendor import (
    AsJson,
    Yes,
    confirmed,
    option,
    require_one,
    run_call,
    show_order,
    show_orders,
    tell_done,
    tell_made,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postdicom_async import CloudApi, VendorAnswer

__all__ = ["assign", "create", "create_from_json", "delete", "in_folder", "search", "show", "unassign"]

_FromUser: TypeAlias = Annotated[str | None, option("user-uuid", "The user to take it from.", "UUID")]
_FromGroup: TypeAlias = Annotated[str | None, option("user-group-uuid", "The group to take it from.", "UUID")]


@dataclass(frozen=True)
class NewOrder:
    """What an order must be made of, and where it belongs."""

    patient_name: PatientName
    patient_id: PatientId
    modality: Modality
    institution_uuid: CloudInstitution = None
    patient_birthdate: Annotated[
        str | None, option("patient-birthdate", "The patient's day of birth.", "YYYY-MM-DD")
    ] = None


# --- finding --------------------------------------------------------------------------------------------------------


def search(wanted: Wanted, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Find patient orders, by study dates or by birth dates but not by both.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    api = account.cloud()
    return show_orders(api, api.orders.search(**asdict(wanted)), as_json=as_json, quiet=common.quiet)


def in_folder(folder_uuid: FolderUuid, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Find the patient orders in a folder.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    api = account.cloud()
    return show_orders(api, api.orders.search_in_folder(folder_uuid), as_json=as_json, quiet=common.quiet)


def show(
    institution_uuid: InstitutionOfOrder,
    patient_order_uuid: Order,
    account: CloudAccount,
    _common: Common,
    as_json: AsJson = False,
) -> int:
    """Show everything the service tells about a patient order."""
    found = run_call(account.cloud(), lambda api: api.orders.properties(institution_uuid, patient_order_uuid))
    return show_order(found, as_json=as_json)


# --- making and deleting --------------------------------------------------------------------------------------------


def create(
    order: NewOrder, details: OrderDetails, account: CloudAccount, common: Common, as_json: AsJson = False
) -> int:
    """Make a patient order, and write its UUID.

    If no answer comes, the order may have been made or not: search before doing it again.
    """
    made = run_call(account.cloud(), lambda api: api.orders.create(**asdict(order), **asdict(details)))
    return tell_made(made, made.patient_order_uuid, "order made", as_json=as_json, quiet=common.quiet)


def create_from_json(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            parser=given_path,
            help="One JSON object of the service's own field names, such as PatientName, PatientID, OrderModality.",
        ),
    ],
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: AsJson = False,
) -> int:
    """Make a patient order from a file with the service's own field names, and write its UUID.

    If no answer comes, the order may have been made or not: search before doing it again.
    """
    fields = _fields_in(file)
    made = run_call(account.cloud(), lambda api: api.orders.create_from_json(fields, institution_uuid=institution_uuid))
    return tell_made(made, made.patient_order_uuid, "order made", as_json=as_json, quiet=common.quiet)


def _fields_in(file: Path) -> Mapping[str, object]:
    require_readable([file])
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        problem = words_of(error)
    except (ValueError, RecursionError):
        problem = "not JSON"
    else:
        if isinstance(found, dict):
            return found
        problem = "give one JSON object"
    raise UsageError(f"{file}: {problem}")


def delete(
    institution_uuid: InstitutionOfOrder,
    patient_order_uuid: Order,
    account: CloudAccount,
    common: Common,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Move a patient order to the recycle bin.

    Asks first. Without a terminal to ask on, it wants --yes.
    """
    api = account.cloud()
    if not yes and not confirmed(f"Move patient order {patient_order_uuid} to the recycle bin?"):
        return Exit.ITEMS_FAILED
    answer = run_call(api, lambda api: api.orders.delete(institution_uuid, patient_order_uuid))
    return tell_done(answer, "order deleted", as_json=as_json, quiet=common.quiet)


# --- who sees it ----------------------------------------------------------------------------------------------------


def assign(
    patient_order_uuid: Order,
    account: CloudAccount,
    common: Common,
    user_uuid: ToUser = None,
    user_group_uuid: ToGroup = None,
    institution_uuid: Annotated[
        str | None, option("institution-uuid", "The institution to assign it to, by UUID or name.", "UUID|NAME")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Assign a patient order to a user, to a user group or to an institution."""
    require_one(user_uuid=user_uuid, user_group_uuid=user_group_uuid, institution_uuid=institution_uuid)

    async def work(api: CloudApi) -> VendorAnswer:
        if user_uuid:
            return await api.orders.assign_to_user(patient_order_uuid, user_uuid)
        if user_group_uuid:
            return await api.orders.assign_to_group(patient_order_uuid, user_group_uuid)
        return await api.orders.assign_to_institution(patient_order_uuid, institution_uuid or "")

    answer = run_call(account.cloud(), work)
    return tell_done(answer, "order assigned", as_json=as_json, quiet=common.quiet)


def unassign(
    patient_order_uuid: Order,
    account: CloudAccount,
    common: Common,
    user_uuid: _FromUser = None,
    user_group_uuid: _FromGroup = None,
    as_json: AsJson = False,
) -> int:
    """Take a patient order from a user or from a user group."""
    require_one(user_uuid=user_uuid, user_group_uuid=user_group_uuid)

    async def work(api: CloudApi) -> VendorAnswer:
        if user_uuid:
            return await api.orders.unassign_from_user(patient_order_uuid, user_uuid)
        return await api.orders.unassign_from_group(patient_order_uuid, user_group_uuid or "")

    answer = run_call(account.cloud(), work)
    return tell_done(answer, "order unassigned", as_json=as_json, quiet=common.quiet)
