"""The options that say which archive, as whom and how; and the client they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import typer

from postdicom_async import UsageError, profiles
from postdicom_async.cli.assumed import PANEL, Assumed
from postdicom_async.cli.options import typed_options
from postdicom_async.cli.password import asking
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from postdicom_async import DicomWeb, PostDicom, Settings

__all__ = ["Account", "Connection", "DialectName", "Named", "Road"]


class DialectName(StrEnum):
    """The families of servers whose URL shapes the library knows."""

    DICOMWEB = "dicomweb"
    POSTDICOM = "postdicom"


_ProfileName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--profile",
        envvar="POSTDICOM_PROFILE",
        metavar="NAME",
        help="A named archive (postdicom profiles list). Options given here win over what it says.",
        rich_help_panel=PANEL,
    ),
]
_Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="POSTDICOM_URL",
        metavar="URL",
        help="Address of the DICOMweb service, such as https://archive.example/dicom-web.",
        rich_help_panel=PANEL,
    ),
]
_Username: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--username",
        "-u",
        envvar="POSTDICOM_USERNAME",
        metavar="NAME",
        help="User name. The password comes from POSTDICOM_PASSWORD, else a keyring (service postdicom-async, entry "
        "NAME@https://host), else a prompt; a bearer token from POSTDICOM_TOKEN. Without either, requests are "
        "anonymous.",
        rich_help_panel=PANEL,
    ),
]
_Dialect: TypeAlias = Annotated[
    DialectName,
    typer.Option(
        "--dialect",
        envvar="POSTDICOM_DIALECT",
        help="URL shapes of the archive: PS3.18's, or PostDICOM's own.",
        rich_help_panel=PANEL,
    ),
]
_CaFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        parser=given_path,
        help="PEM file of authorities to trust besides the system's.",
        rich_help_panel=PANEL,
    ),
]
_ClientCert: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--client-cert",
        metavar="FILE",
        parser=given_path,
        help="PEM file of the client certificate; may hold its key too. The key's password, if it has one, comes from "
        "POSTDICOM_KEY_PASSWORD.",
        rich_help_panel=PANEL,
    ),
]
_ClientKey: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--client-key",
        metavar="FILE",
        parser=given_path,
        help="PEM file of the client key.",
        rich_help_panel=PANEL,
    ),
]
_Proxy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--proxy",
        envvar="POSTDICOM_PROXY",
        metavar="URL",
        help="Proxy, such as http://proxy.example:3128. The system's proxy settings are not used by themselves.",
        rich_help_panel=PANEL,
    ),
]
_AllowHttp: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-http",
        help="Send credentials over http:// to another machine. Whoever listens on the way can read them.",
        rich_help_panel=PANEL,
    ),
]
_EnvironmentProxy: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--environment-proxy",
        help="Use the proxies that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name.",
        rich_help_panel=PANEL,
    ),
]
_Connections: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--connections",
        min=1,
        metavar="N",
        help="How many requests, and so connections, are under way at most. Without it 16, of which 6 may store and 4 "
        "retrieve.",
        rich_help_panel=PANEL,
    ),
]
_Deadline: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        min=0.001,
        metavar="SECONDS",
        help="How long each search, download or upload may take in all, repeats and waits included. Without it there "
        "is no limit but that of silence.",
        rich_help_panel=PANEL,
    ),
]
_Attempts: TypeAlias = Annotated[
    int,
    typer.Option(
        "--attempts",
        min=1,
        metavar="N",
        help="How often a request that may be repeated is made at most.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Named:
    """A named archive, if one is named."""

    profile: _ProfileName = None
    typed: frozenset[str] = typed_options()

    def found(self, option: str, address: str | None) -> profiles.Profile | None:
        """Return the profile; None if there is none, or an address on the command line outranks it.

        The command line outranks the environment. Of an address and a profile of one rank neither does: the
        credentials of one archive would go to the other.

        Raises:
            UsageError: there is no such profile, or it is not the archive at the address.
        """
        if not self.profile:
            return None
        is_typed, address_is_typed = "profile" in self.typed, option in self.typed
        if address and address_is_typed > is_typed:
            return None
        found = profiles.load_profile(self.profile)
        if address and address_is_typed == is_typed and not profiles.is_at(found, address):
            words = f"--{option.replace('_', '-')} and --profile" if is_typed else "POSTDICOM_PROFILE and an address"
            raise UsageError(f"{words} are both given, and name two archives; leave one out")
        return found


@dataclass(frozen=True)
class Road(Named):
    """How whatever service is reached."""

    ca_file: _CaFile = None
    client_cert: _ClientCert = None
    client_key: _ClientKey = None
    proxy: _Proxy = None
    environment_proxy: _EnvironmentProxy = False
    connections: _Connections = None
    allow_http: _AllowHttp = False
    attempts: _Attempts = 5
    deadline: _Deadline = None

    def by_road(self, profile: profiles.Profile) -> profiles.Profile:
        """Return a profile with these options in the place of what it says.

        Raises:
            UsageError: an option names a file that is not there.
        """
        for name in ("ca_file", "client_cert", "client_key"):
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise UsageError(f"--{name.replace('_', '-')}: there is no such file")
        given: dict[str, Any] = {"ca_file": self.ca_file or profile.ca_file}
        if self.client_cert is not None or self.client_key is not None:
            given |= {"client_cert": self.client_cert, "client_key": self.client_key}
        if self.proxy and ("proxy" in self.typed or not profile.proxy):
            given["proxy"] = self.proxy
        if self.connections is not None:
            given |= {"connections": self.connections, "parallel_stores": None, "parallel_retrieves": None}
        return replace(
            profile,
            environment_proxy=self.environment_proxy or profile.environment_proxy,
            allow_http=self.allow_http or profile.allow_http,
            **given,
        )

    def settings(self, profile: profiles.Profile) -> Settings:
        """Return the library's settings for a profile that `by_road` returned.

        Raises:
            UsageError: the profile names a file that is not there.
        """
        from postdicom_async import Retry, Timeouts

        retry, timeouts = Retry(max_attempts=self.attempts), Timeouts(deadline=self.deadline)
        return replace(profiles.settings_of(profile), timeouts=timeouts, retry=retry)


@dataclass(frozen=True)
class _Login(Named):
    """Which archive, and as whom."""

    url: _Url = None
    username: _Username = None
    assumed: Assumed = None


@dataclass(frozen=True)
class Account(Road, _Login):  # the fields of the last base come first, in the help too
    """One archive, as the command line names it, for commands that speak to PostDICOM only."""

    def postdicom(self) -> PostDicom:
        """Return PostDICOM's client, not yet open; asks for a password if there is none and somebody to ask.

        Raises:
            UsageError: an option is missing or wrong.
        """
        from postdicom_async import PostDicom

        profile = self.archive(DialectName.POSTDICOM)
        if profile.kind != DialectName.POSTDICOM.value:
            raise UsageError(f"profile {profile.name} is of kind {profile.kind}; PostDICOM's operations need postdicom")
        client = self.client_of(profile)
        if not isinstance(client, PostDicom):
            raise UsageError("PostDICOM asks for a user name: give --username or set POSTDICOM_USERNAME")
        return client

    def archive(self, kind: DialectName, *, is_given: bool = False) -> profiles.Profile:
        """Return which archive this is, secrets apart: that of the profile, changed by what else is given.

        Without a profile it has no name, and is of this kind; with one only where the kind ``is_given`` too.

        Raises:
            UsageError: there is no address, no such profile, or not for this.
        """
        found = self.found("url", self.url)
        if found is None:
            if not self.url:
                raise UsageError("no address: give --url or set POSTDICOM_URL, or give --profile")
            return self.by_road(profiles.Profile("", kind=kind.value, url=self.url, username=self.username or ""))
        if found.kind == "cloud":
            raise UsageError(f"profile {found.name} is of the Cloud API; postdicom cloud takes it")
        username = self.username if self.username and "username" in self.typed else found.username
        return self.by_road(replace(found, username=username, kind=kind.value if is_given else found.kind))

    def client_of(self, profile: profiles.Profile) -> DicomWeb:
        """Return the client for what `archive` returned."""
        assumed = profiles.with_fields(self.assumed, *profiles.assumptions_of(profile))
        settings = self.settings(profile)
        return cast("DicomWeb", profiles.client_of(profile, settings=settings, assumed=assumed, ask=asking()))


@dataclass(frozen=True)
class Connection(Account):
    """One archive of any family."""

    dialect: _Dialect = DialectName.DICOMWEB

    def client(self) -> DicomWeb:
        """Return the client, not yet open; asks for a password if there is none and somebody to ask.

        Raises:
            UsageError: an option is missing or wrong.
        """
        return self.client_of(self._archive())

    def assumptions(self) -> tuple[Any, ...]:
        """Return what is assumed of the archive: its dialect, and for PostDICOM how its operations are written."""
        return profiles.with_fields(self.assumed, *profiles.assumptions_of(self._archive()))

    def _archive(self) -> profiles.Profile:
        return self.archive(self.dialect, is_given="dialect" in self.typed)
