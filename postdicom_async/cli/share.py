"""``postdicom share``: links to patient orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async.cli.connection import Account
from postdicom_async.cli.options import Common
from postdicom_async.cli.password import find_share_password
from postdicom_async.cli.vendor import AsJson, option, run_call, tell_link

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from postdicom_async import PostDicom, ShareLink

__all__ = ["Downloadable", "OrderUuids", "WithPassword", "link", "orders"]

OrderUuids: TypeAlias = Annotated[list[str], option("patient-order-uuids", "The order. Give it once for each.", "UUID")]
Downloadable: TypeAlias = Annotated[bool, typer.Option("--downloadable", help="Whoever looks may download too.")]
WithPassword: TypeAlias = Annotated[
    bool,
    typer.Option("--with-password", help="Ask for a password for the link, if POSTDICOM_SHARE_PASSWORD holds none."),
]


@dataclass(frozen=True)
class Shared:
    """What is shared, and until when."""

    patient_order_uuids: OrderUuids
    expires: Annotated[str, option("expires", "The last day of the link.", "YYYY-MM-DD")]
    downloadable: Downloadable = False
    with_password: WithPassword = False


def orders(shared: Shared, account: Account, common: Common, as_json: AsJson = False) -> int:
    """Share patient orders by a link (sharepatientorderwithurl), and write its address.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password. Without either, whoever has the
    address may look.
    """
    return _share(shared, account, lambda client: client.shares.share_orders, as_json=as_json, quiet=common.quiet)


def link(shared: Shared, account: Account, common: Common, as_json: AsJson = False) -> int:
    """Create a link to patient orders (createsharelink), and write its address.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password. Without either, whoever has the
    address may look.
    """
    return _share(shared, account, lambda client: client.shares.create_link, as_json=as_json, quiet=common.quiet)


def _share(
    shared: Shared,
    account: Account,
    operation: Callable[[PostDicom], Callable[..., Coroutine[Any, Any, ShareLink]]],
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    archive = account.postdicom()
    password = find_share_password(wanted=shared.with_password)
    made = run_call(
        archive,
        lambda client: operation(client)(
            shared.patient_order_uuids,
            expires=shared.expires,
            password=password,
            downloadable=shared.downloadable,
        ),
    )
    return tell_link(made, protected=password is not None, as_json=as_json, quiet=quiet)
