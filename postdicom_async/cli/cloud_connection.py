"""The options that say which account of the Cloud API, as whom and how; and the client they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async.cli import output
from postdicom_async.cli.assumed import PANEL, Assumed, with_fields
from postdicom_async.cli.connection import Road
from postdicom_async.cli.password import find_cloud_keys
from postdicom_async.cli.vendor import option

if TYPE_CHECKING:
    from postdicom_async import CloudApi

__all__ = ["CloudAccount", "CloudInstitution", "InstitutionOfOrder"]

CloudInstitution: TypeAlias = Annotated[
    str | None,
    option("institution-uuid", "The institution, by UUID or name. Not needed if the user has only one.", "UUID|NAME"),
]
InstitutionOfOrder: TypeAlias = Annotated[
    str, option("institution-uuid", "The institution the order belongs to, by UUID or name.", "UUID|NAME")
]

_User: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--user",
        envvar="POSTDICOM_CLOUD_USER",
        metavar="UUID|NAME",
        help="The user in whose name everything is done. Not needed if the account has only one. The keys come from "
        "POSTDICOM_API_KEY and POSTDICOM_ACCOUNT_KEY, else a keyring, else a prompt.",
        rich_help_panel=PANEL,
    ),
]
_RouterUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--router-url",
        envvar="POSTDICOM_ROUTER_URL",
        metavar="URL",
        help="Where the Cloud API is looked for. Without it, at PostDICOM's public router.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class _Login:
    """In whose name, and where."""

    user: _User = None
    router_url: _RouterUrl = None
    assumed: Assumed = None


@dataclass(frozen=True)
class CloudAccount(Road, _Login):  # the fields of the last base come first, in the help too
    """One account of the Cloud API, as the command line names it."""

    def cloud(self) -> CloudApi:
        """Return its client, not yet open; asks for keys that are missing if there is somebody to ask.

        Raises:
            UsageError: an option or a key is missing or wrong.
        """
        from postdicom_async import CloudApi, CloudWire

        settings, (wire,) = self.settings(), with_fields(self.assumed, CloudWire())
        router_url = self.router_url or None
        keys = find_cloud_keys(router_url or wire.router_url)
        client = CloudApi(*keys, user=self.user or None, router_url=router_url, settings=settings, wire=wire)
        output.conceal(*keys)
        return client
