"""The options that say which account of the Cloud API, as whom and how; and the client they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async import UsageError, profiles
from postdicom_async.cli import output
from postdicom_async.cli.assumed import PANEL, Assumed
from postdicom_async.cli.connection import Named, Road
from postdicom_async.cli.password import asking
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
class _Login(Named):
    """In whose name, and where."""

    user: _User = None
    router_url: _RouterUrl = None
    assumed: Assumed = None


@dataclass(frozen=True)
class CloudAccount(Road, _Login):  # the fields of the last base come first, in the help too
    """One account of the Cloud API, as the command line names it."""

    def archive(self) -> profiles.Profile:
        """Return which account this is, keys apart; without ``--profile`` it has no name.

        Raises:
            UsageError: there is no such profile, or not of the Cloud API.
        """
        found = self.found("router_url", self.router_url)
        if found is None:
            found = profiles.Profile("", kind="cloud", router_url=self.router_url or "", username=self.user or "")
        elif found.kind != "cloud":
            raise UsageError(f"profile {found.name} is of kind {found.kind}; the Cloud API needs kind cloud")
        elif self.user and "user" in self.typed:
            found = replace(found, username=self.user)
        return self.by_road(found)

    def cloud(self) -> CloudApi:
        """Return its client, not yet open; asks for keys that are missing if there is somebody to ask.

        Raises:
            UsageError: an option or a key is missing or wrong.
        """
        profile = self.archive()
        assumed = profiles.with_fields(self.assumed, *profiles.assumptions_of(profile))
        profile = replace(profile, router_url=profile.router_url or assumed[0].router_url)
        settings, keys = self.settings(profile), profiles.keys_of(profile, ask=asking())
        client = profiles.cloud_client(profile, keys, settings, assumed[0])
        output.conceal(*keys)
        return client
