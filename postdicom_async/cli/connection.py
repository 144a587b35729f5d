"""Connection options: which archive, which user, how; the clients made from them, and prompts for secrets.

The command line outranks the profile, and that the environment, field by field. A secret is never an option:
see `postdicom_async.profiles.secrets` for its sources.
"""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import typer

from postdicom_async import UsageError, profiles
from postdicom_async.cli import output
from postdicom_async.cli.options import PANEL, Assumed, typed_options
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from postdicom_async import CloudApi, DicomWeb, PostDicom, Settings


class DialectName(StrEnum):
    """The families of servers whose URL shapes the library knows."""

    DICOMWEB = "dicomweb"
    POSTDICOM = "postdicom"


def _option(*names: str, text: str, metavar: str | None = None, env: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, metavar=metavar, envvar=env, help=text, rich_help_panel=PANEL, **more)


def _file(name: str, text: str) -> Any:
    return _option(name, text=text, metavar="FILE", parser=given_path)


@dataclass(frozen=True)
class ProfileOption:
    """A named archive, if one is named."""

    COMES_LATE: ClassVar[bool] = True  # in the help: a command begins with its own options

    profile: Annotated[
        str | None,
        _option(
            "--profile",
            text="A named archive (postdicom profiles list). Options given here win over what it says.",
            metavar="NAME",
            env="POSTDICOM_PROFILE",
        ),
    ] = None
    typed: frozenset[str] = typed_options()

    def load_named(self, option: str, address: str | None) -> profiles.Profile | None:
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
class NetworkOptions(ProfileOption):
    """Network options for every service."""

    ca_file: Annotated[Path | None, _file("--ca-file", "PEM file of authorities to trust besides the system's.")] = None
    client_cert: Annotated[
        Path | None,
        _file(
            "--client-cert",
            "PEM file of the client certificate; may hold its key too. The key's password, if it has one, comes from "
            "POSTDICOM_KEY_PASSWORD.",
        ),
    ] = None
    client_key: Annotated[Path | None, _file("--client-key", "PEM file of the client key.")] = None
    proxy: Annotated[
        str | None,
        _option(
            "--proxy",
            text="Proxy, such as http://proxy.example:3128. The system's proxy settings are not used by themselves.",
            metavar="URL",
            env="POSTDICOM_PROXY",
        ),
    ] = None
    environment_proxy: Annotated[
        bool,
        _option(
            "--environment-proxy", text="Use the proxies that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name."
        ),
    ] = False
    connections: Annotated[
        int | None,
        _option(
            "--connections",
            text="The most requests, and so connections, at once. Without it 16, of which 6 may store and 4 retrieve.",
            metavar="N",
            min=1,
        ),
    ] = None
    allow_http: Annotated[
        bool,
        _option(
            "--allow-http",
            text="Send credentials over http:// to another machine. Whoever listens on the way can read them.",
        ),
    ] = False
    attempts: Annotated[
        int,
        _option("--attempts", text="The most times that a request is made, if it may be repeated.", metavar="N", min=1),
    ] = 5
    deadline: Annotated[
        float | None,
        _option(
            "--deadline",
            text="How long each search, download or upload may take in all, repeats and waits included. Without it "
            "only the time without any answer is limited.",
            metavar="SECONDS",
            min=0.001,
        ),
    ] = None

    def apply_to(self, profile: profiles.Profile) -> profiles.Profile:
        """Return the profile overridden by these options.

        Raises:
            UsageError: an option names a file that is not there.
        """
        for name in ("ca_file", "client_cert", "client_key"):
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise UsageError(f"--{name.replace('_', '-')}: there is no such file")
        given: dict[str, Any] = {"ca_file": self.ca_file or profile.ca_file}
        # A pair: the profile's key does not fit another certificate.
        if self.client_cert is not None or self.client_key is not None:
            given |= {"client_cert": self.client_cert, "client_key": self.client_key}
        # From the environment it is weaker than the profile, which is about this archive.
        if self.proxy and ("proxy" in self.typed or not profile.proxy):
            given["proxy"] = self.proxy
        # The profile's limits for stores and retrieves refer to its own total.
        if self.connections is not None:
            given |= {"connections": self.connections, "parallel_stores": None, "parallel_retrieves": None}
        return replace(
            profile,
            environment_proxy=self.environment_proxy or profile.environment_proxy,
            allow_http=self.allow_http or profile.allow_http,
            **given,
        )

    def settings(self, profile: profiles.Profile) -> Settings:
        """Return the library's settings for a profile that `apply_to` returned.

        Raises:
            UsageError: the profile names a file that is not there.
        """
        from postdicom_async import Retry, Timeouts

        retry, timeouts = Retry(max_attempts=self.attempts), Timeouts(deadline=self.deadline)
        return replace(profiles.settings_of(profile), timeouts=timeouts, retry=retry)


@dataclass(frozen=True)
class _ArchiveLogin(ProfileOption):
    """Which archive, and which user."""

    url: Annotated[
        str | None,
        _option(
            "--url",
            text="Address of the DICOMweb service, such as https://archive.example/dicom-web.",
            metavar="URL",
            env="POSTDICOM_URL",
        ),
    ] = None
    username: Annotated[
        str | None,
        _option(
            "--username",
            "-u",
            text="User name. The password comes from POSTDICOM_PASSWORD, a keyring or a prompt. A bearer token comes "
            "from POSTDICOM_TOKEN.",
            metavar="NAME",
            env="POSTDICOM_USERNAME",
        ),
    ] = None
    token_url: Annotated[
        str | None,
        _option(
            "--token-url",
            text="Token endpoint of an identity provider, for a client instead of a user (client credentials).",
            metavar="URL",
            env="POSTDICOM_TOKEN_URL",
        ),
    ] = None
    client_id: Annotated[
        str | None,
        _option(
            "--client-id",
            text="The client. Its secret comes from POSTDICOM_CLIENT_SECRET, else a keyring (entry ID@https://host of "
            "the token endpoint), else a prompt.",
            metavar="ID",
            env="POSTDICOM_CLIENT_ID",
        ),
    ] = None
    scope: Annotated[
        str | None, _option("--scope", text="What the client's tokens are for.", metavar="TEXT", env="POSTDICOM_SCOPE")
    ] = None
    assumed: Assumed = None

    def as_whom(self, found: profiles.Profile | None) -> dict[str, Any]:
        """Return user or client: what is typed wins over the profile's, and both over the environment's.

        Raises:
            UsageError: the profile's secret would go to another token endpoint.
        """
        client = ("token_url", "client_id", "scope")
        typed = self.typed & {"username", *client}
        if found is not None and "token_url" in typed and found.token_url not in {"", self.token_url}:
            raise UsageError("--token-url is not that of the profile, whose secret would go there; leave one out")
        names = [name for name in ("username", *client) if found is None or name in typed]
        given = {name: getattr(self, name) or "" for name in names}
        if given.get("username") and not typed & set(client):
            return given | dict.fromkeys((*client, "audience", "client_auth"), "") | {"client_secret_file": None}
        return given if "username" in typed or not typed else given | {"username": ""}


@dataclass(frozen=True)
class _DicomwebOptions(NetworkOptions, _ArchiveLogin):  # the fields of the last base come first, in the help too
    """One archive that speaks DICOMweb, as the command line names it."""

    def archive(self, kind: DialectName, *, is_given: bool = False) -> profiles.Profile:
        """Return the archive without its secrets: the profile, overridden by the options.

        Without a profile it has no name, and is of this kind; with one only where the kind ``is_given`` too.

        Raises:
            UsageError: there is no address or no such profile, or it is of another kind.
        """
        found = self.load_named("url", self.url)
        if found is None:
            if not self.url:
                raise UsageError("no address: give --url or set POSTDICOM_URL, or give --profile")
            return self.apply_to(profiles.Profile("", kind=kind.value, url=self.url, **self.as_whom(None)))
        if found.kind == "cloud":
            raise UsageError(f"profile {found.name} is of the Cloud API; postdicom cloud takes it")
        kind_of_it = kind.value if is_given else found.kind
        return self.apply_to(replace(found, kind=kind_of_it, **self.as_whom(found)))

    def client_of(self, profile: profiles.Profile) -> DicomWeb:
        """Return the client for what `archive` returned."""
        assumed = profiles.with_fields(self.assumed, *profiles.assumptions_of(profile))
        settings = self.settings(profile)
        return cast("DicomWeb", profiles.client_of(profile, settings=settings, assumed=assumed, ask=asking()))


@dataclass(frozen=True)
class PostdicomOptions(_DicomwebOptions):
    """One archive, for commands that speak to PostDICOM only."""

    def client(self) -> PostDicom:
        """Return PostDICOM's client, not yet open; prompts for a missing password on a terminal.

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

    def identity(self) -> tuple[str, ...]:
        """Return what tells this account from others, once the client could be made."""
        profile = self.archive(DialectName.POSTDICOM)
        return "dicomweb", profiles.address_of(profile), profile.username


@dataclass(frozen=True)
class ConnectionOptions(_DicomwebOptions):
    """One archive of any family."""

    dialect: Annotated[
        DialectName,
        _option("--dialect", text="URL shapes of the archive: PS3.18's, or PostDICOM's own.", env="POSTDICOM_DIALECT"),
    ] = DialectName.DICOMWEB

    def client(self) -> DicomWeb:
        """Return the client, not yet open; prompts for a missing password on a terminal.

        Raises:
            UsageError: an option is missing or wrong.
        """
        return self.client_of(self._archive())

    def assumptions(self) -> tuple[Any, ...]:
        """Return what is assumed of the archive: its dialect, and for PostDICOM how its operations are written."""
        return profiles.with_fields(self.assumed, *profiles.assumptions_of(self._archive()))

    def _archive(self) -> profiles.Profile:
        return self.archive(self.dialect, is_given="dialect" in self.typed)


@dataclass(frozen=True)
class _CloudLogin(ProfileOption):
    """The user to act for, and the institution and folder."""

    user: Annotated[
        str | None,
        _option(
            "--user",
            text="The user in whose name everything is done. Not needed if the account has only one. The keys come "
            "from POSTDICOM_API_KEY and POSTDICOM_ACCOUNT_KEY, else a keyring, else a prompt.",
            metavar="UUID|NAME",
            env="POSTDICOM_CLOUD_USER",
        ),
    ] = None
    router_url: Annotated[
        str | None,
        _option(
            "--router-url",
            text="Where the Cloud API is looked for. Without it, at PostDICOM's public router.",
            metavar="URL",
            env="POSTDICOM_ROUTER_URL",
        ),
    ] = None
    assumed: Assumed = None


@dataclass(frozen=True)
class CloudOptions(NetworkOptions, _CloudLogin):  # the fields of the last base come first, in the help too
    """One account of the Cloud API, as the command line names it."""

    def archive(self) -> profiles.Profile:
        """Return the account without its keys; without ``--profile`` it has no name.

        Raises:
            UsageError: there is no such profile, or it is not for the Cloud API.
        """
        found = self.load_named("router_url", self.router_url)
        if found is None:
            found = profiles.Profile("", kind="cloud", router_url=self.router_url or "", username=self.user or "")
        elif found.kind != "cloud":
            raise UsageError(f"profile {found.name} is of kind {found.kind}; the Cloud API needs kind cloud")
        elif self.user and "user" in self.typed:
            found = replace(found, username=self.user)
        return self.apply_to(found)

    def client(self) -> CloudApi:
        """Return its client, not yet open; prompts for missing keys on a terminal.

        Raises:
            UsageError: an option or a key is missing or wrong.
        """
        profile, wire = self._found
        client = profiles.cloud_client(profile, self._keys, self.settings(profile), wire)
        output.conceal(*self._keys)  # every request contains them, and an answer may echo the request
        return client

    def identity(self) -> tuple[str, ...]:
        """Return what tells this account from others, once the client could be made. **Secret**: its key is in it."""
        profile, _ = self._found
        return "cloud", profiles.address_of(profile), profile.username, self._keys[1]

    @cached_property
    def _found(self) -> tuple[profiles.Profile, Any]:
        """The account with its router, and how the API is assumed to be written."""
        profile = self.archive()
        (wire,) = profiles.with_fields(self.assumed, *profiles.assumptions_of(profile))
        return replace(profile, router_url=profile.router_url or wire.router_url), wire

    @cached_property
    def _keys(self) -> tuple[str, str]:
        """The keys, asked for once."""
        return profiles.keys_of(self._found[0], ask=asking())


# --- secrets that are asked for ---------------------------------------------------------------------------------------


def asking() -> profiles.Ask | None:
    """Return a function that prompts for a secret; None without a terminal."""
    return (lambda prompt: _ask(output.clean(prompt))) if _somebody_is_there() else None


def _somebody_is_there() -> bool:
    return bool(sys.stdin and sys.stdin.isatty())


def _ask(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # getpass would echo the input
            return getpass.getpass(prompt)
    except (EOFError, getpass.GetPassWarning):
        return ""


def find_share_password(*, wanted: bool) -> str | None:
    """Return the password for a share: POSTDICOM_SHARE_PASSWORD, else one typed twice if ``wanted``, else None.

    Raises:
        UsageError: the variable is empty, there is no terminal, or the input was empty or differed.
    """
    found = os.environ.get("POSTDICOM_SHARE_PASSWORD")
    if found == "":
        # Most likely another variable that was not set. Without a password the link would be open to everybody.
        raise UsageError("POSTDICOM_SHARE_PASSWORD is empty; unset it for a link without a password")
    if found is not None or not wanted:
        return found
    if not _somebody_is_there():
        raise UsageError("--with-password: set POSTDICOM_SHARE_PASSWORD, or run this in a terminal")
    password = _ask("Password of the link: ")
    if not password or _ask("Once more: ") != password:
        raise UsageError("--with-password: no password was given, or not the same twice")
    return password
