"""``postdicom cloud account``, ``users``, ``nodes``, ``groups`` and ``flags``: what only the Cloud API has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.forms import OutputForm, write_list
from postdicom_async.cli.vendor import (
    OperationCall,
    field_table,
    raw_columns,
    show_columns,
    tell_done,
    tell_made,
    vendor_command,
    write_answer,
    write_answers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postdicom_async import User, VendorAnswer


# --- the account ----------------------------------------------------------------------------------------------------


@vendor_command()
def account(call: OperationCall) -> int:
    """Show the users of the account, and the institutions each may work in.

    With --json, one object with the service's own names, without its other data about the account.
    """

    async def read() -> Sequence[User]:
        users: Sequence[User] = call.client.account.users  # known as soon as the client is open
        return users

    known: Sequence[User] = call.run_method(read)
    if call.as_json:
        output.write_document({"answer": {"UserList": [_user_fields(user) for user in known]}})
        return Exit.OK
    rows = [
        (user, institution.institution_name, institution.identity)
        for user in known
        for institution in user.institutions
    ]
    rows += [(user, None, "") for user in known if not user.institutions]
    columns = {
        **_user_columns([user for user, _, _ in rows]),
        "Institution": [name or "" for _, name, _ in rows],
        "Institution UUID": [uuid for _, _, uuid in rows],
    }
    code = show_columns(columns, ("", ""), quiet=True)
    if not call.quiet:
        output.note(f"{len(known)} user{'' if len(known) == 1 else 's'}")
    return code


def _user_fields(user: User) -> dict[str, Any]:
    return {
        "UserUuid": user.identity or None,
        "UserName": user.user_name,
        "FullName": user.full_name,
        "InstitutionList": [
            {"InstitutionUuid": one.identity or None, "InstitutionName": one.institution_name}
            for one in user.institutions
        ],
    }


def _user_columns(users: Sequence[User]) -> dict[str, list[str]]:
    return {
        "User": [user.full_name or "" for user in users],
        "User name": [user.user_name or "" for user in users],
        "User UUID": [user.identity for user in users],
    }


@vendor_command("users.all", lists=True)
def users(call: OperationCall) -> int:
    """List the users of the account."""
    if call.form is not OutputForm.TABLE:
        return _list(call, ("user", "users"))
    return show_columns(_user_columns(call.run()), ("user", "users"), quiet=call.quiet)


@vendor_command("users.groups", lists=True)
def user_groups(call: OperationCall) -> int:
    """List the user groups of the account."""
    return _list(call, ("user group", "user groups"))


@vendor_command("users.contacts", lists=True)
def contacts(call: OperationCall) -> int:
    """List the contacts of the account."""
    return _list(call, ("contact", "contacts"))


@vendor_command("nodes.all", lists=True)
def nodes(call: OperationCall) -> int:
    """List the DICOM nodes of the account."""
    return _list(call, ("node", "nodes"))


def _list(call: OperationCall, what: tuple[str, str]) -> int:
    found: Sequence[VendorAnswer] = call.run()
    if call.as_json:
        write_answers(found)
        return Exit.OK
    if call.form is not OutputForm.TABLE:
        write_list(call.form, [one.raw for one in found])
        return Exit.OK
    return show_columns(raw_columns(one.raw for one in found), what, quiet=call.quiet)


# --- how orders are connected and marked ----------------------------------------------------------------------------


@vendor_command("groups.create")
def create_group(call: OperationCall) -> int:
    """Put patient orders into a new group, and write its UUID."""
    made: VendorAnswer = call.run()
    return tell_made(call, made, made.get_uuid("ConnectedGroupUuid"), "group made")


@vendor_command("groups.add_orders")
def add_orders(call: OperationCall) -> int:
    """Add patient orders to a group."""
    return tell_done(call, "orders added")


@vendor_command("groups.remove_orders")
def remove_orders(call: OperationCall) -> int:
    """Take patient orders out of the group they are in."""
    return tell_done(call, "orders removed")


@vendor_command("flags.dictionary")
def flags(call: OperationCall) -> int:
    """List the flags that patient orders can have, by their groups."""
    found: VendorAnswer = call.run()
    # Each flag with the fields of its group, whatever their names; nothing if the answer has another form.
    rows = [
        {**{name: value for name, value in group.items() if not isinstance(value, list)}, **flag}
        for group in _objects_in(found.raw)
        for flag in _objects_in(group) or [{}]
    ]
    if rows and not call.as_json:
        return show_columns(raw_columns(rows), ("flag", "flags"), quiet=call.quiet)
    if call.as_json or not found.raw:
        write_answer(found, as_json=call.as_json)
    else:
        output.write(field_table(found.raw.items()))
    return Exit.OK


def _objects_in(holder: Mapping[str, Any]) -> list[dict[str, Any]]:
    lists = [value for value in holder.values() if isinstance(value, list)]
    return [item for item in lists[0] if isinstance(item, dict)] if lists else []


@vendor_command("flags.set")
def set_flag(call: OperationCall) -> int:
    """Set a flag on a patient order."""
    return tell_done(call, "flag set")
