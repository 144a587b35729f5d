"""``postdicom cloud account``, ``users`` and ``nodes``: who and what belongs to an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postdicom_async.cli import output
from postdicom_async.cli.cloud_connection import CloudAccount
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.options import Common
from postdicom_async.cli.vendor import AsJson, raw_columns, run_call, show_columns, write_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postdicom_async import Account, CloudApi, User, VendorAnswer

__all__ = ["account", "contacts", "nodes", "user_groups", "users"]


# --- the account ----------------------------------------------------------------------------------------------------


def account(account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Show the users of the account, and the institutions each may work in.

    With --json, one object in the service's own names, without anything else that it tells of the account.
    """

    async def work(api: CloudApi) -> Account:
        return api.account

    known = run_call(account.cloud(), work).users
    if as_json:
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
    if not common.quiet:
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


# --- lists ----------------------------------------------------------------------------------------------------------


def users(account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """List the users of the account."""
    found = run_call(account.cloud(), lambda api: api.users.all())
    if as_json:
        return _list(found, ("user", "users"), as_json=True, quiet=common.quiet)
    return show_columns(_user_columns(found), ("user", "users"), quiet=common.quiet)


def user_groups(account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """List the user groups of the account."""
    found = run_call(account.cloud(), lambda api: api.users.groups())
    return _list(found, ("user group", "user groups"), as_json=as_json, quiet=common.quiet)


def contacts(account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """List the contacts of the account."""
    found = run_call(account.cloud(), lambda api: api.users.contacts())
    return _list(found, ("contact", "contacts"), as_json=as_json, quiet=common.quiet)


def nodes(account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """List the DICOM nodes of the account."""
    found = run_call(account.cloud(), lambda api: api.nodes.all())
    return _list(found, ("node", "nodes"), as_json=as_json, quiet=common.quiet)


def _list(found: Sequence[VendorAnswer], what: tuple[str, str], *, as_json: bool, quiet: bool) -> int:
    if as_json:
        write_answers(found)
        return Exit.OK
    return show_columns(raw_columns(one.raw for one in found), what, quiet=quiet)
