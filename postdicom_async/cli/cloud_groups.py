"""``postdicom cloud groups`` and ``flags``: how patient orders are connected and marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async.cli import output
from postdicom_async.cli.cloud_connection import CloudAccount, CloudInstitution
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.options import Common
from postdicom_async.cli.orders import Order
from postdicom_async.cli.share import OrderUuids
from postdicom_async.cli.vendor import (
    AsJson,
    field_table,
    option,
    raw_columns,
    run_call,
    show_columns,
    tell_done,
    tell_made,
    write_answer,
)

if TYPE_CHECKING:
    from postdicom_async import VendorAnswer

__all__ = ["add_orders", "create", "flags", "remove_orders", "set_flag"]


def create(
    patient_order_uuids: OrderUuids,
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: AsJson = False,
) -> int:
    """Connect patient orders in a new group, and write its UUID."""
    made = run_call(
        account.cloud(), lambda api: api.groups.create(patient_order_uuids, institution_uuid=institution_uuid)
    )
    uuid = made.get_uuid("ConnectedGroupUuid")
    return tell_made(made, uuid, "group made", as_json=as_json, quiet=common.quiet)


def add_orders(
    connected_group_uuid: Annotated[str, option("connected-group-uuid", "The group.", "UUID")],
    patient_order_uuids: OrderUuids,
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: AsJson = False,
) -> int:
    """Add patient orders to a group."""
    answer = run_call(
        account.cloud(),
        lambda api: api.groups.add_orders(connected_group_uuid, patient_order_uuids, institution_uuid=institution_uuid),
    )
    return tell_done(answer, "orders added", as_json=as_json, quiet=common.quiet)


def remove_orders(
    patient_order_uuids: OrderUuids,
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: AsJson = False,
) -> int:
    """Take patient orders out of the group they are in."""
    answer = run_call(
        account.cloud(), lambda api: api.groups.remove_orders(patient_order_uuids, institution_uuid=institution_uuid)
    )
    return tell_done(answer, "orders removed", as_json=as_json, quiet=common.quiet)


# --- flags ----------------------------------------------------------------------------------------------------------


def flags(account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """List the flags that patient orders can have, by their groups."""
    found = run_call(account.cloud(), lambda api: api.flags.dictionary())
    rows = _flags_in(found)
    if rows and not as_json:
        return show_columns(raw_columns(rows), ("flag", "flags"), quiet=common.quiet)
    if as_json or not found.raw:
        write_answer(found, as_json=as_json)
    else:
        output.write(field_table(found.raw.items()))
    return Exit.OK


def _flags_in(found: VendorAnswer) -> list[dict[str, Any]]:
    """Return each flag with the fields of its group, whatever they are called; nothing where that is no such list."""
    return [
        {**{name: value for name, value in group.items() if not isinstance(value, list)}, **flag}
        for group in _objects_in(found.raw)
        for flag in _objects_in(group) or [{}]
    ]


def _objects_in(holder: Mapping[str, Any]) -> list[dict[str, Any]]:
    lists = [value for value in holder.values() if isinstance(value, list)]
    return [item for item in lists[0] if isinstance(item, dict)] if lists else []


def set_flag(
    patient_order_uuid: Order,
    group_id: Annotated[int, typer.Option("--group-id", metavar="N", help="The group of flags, as flags list has it.")],
    flag_id: Annotated[int, typer.Option("--flag-id", metavar="N", help="The flag in it.")],
    account: CloudAccount,
    common: Common,
    as_json: AsJson = False,
) -> int:
    """Set a flag on a patient order."""
    answer = run_call(
        account.cloud(), lambda api: api.flags.set(patient_order_uuid, group_id=group_id, flag_id=flag_id)
    )
    return tell_done(answer, "flag set", as_json=as_json, quiet=common.quiet)
