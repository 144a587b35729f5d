"""The options that say which archive, as whom and how; and the client they make."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from postdicom_async import UsageError
from postdicom_async.cli.assumed import PANEL, Assumed, with_fields
from postdicom_async.cli.password import find_credentials
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from postdicom_async import DicomWeb, PostDicom, Settings

__all__ = ["Account", "Connection", "DialectName", "Road"]


class DialectName(StrEnum):
    """The families of servers whose URL shapes the library knows."""

    DICOMWEB = "dicomweb"
    POSTDICOM = "postdicom"


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
class Road:
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

    def settings(self) -> Settings:
        """Return the library's settings.

        Raises:
            UsageError: an option names a file that is not there.
        """
        from postdicom_async import Limits, Retry, Settings, Timeouts, Tls

        files = {"--ca-file": self.ca_file, "--client-cert": self.client_cert, "--client-key": self.client_key}
        for option, file in files.items():
            _require_file(option, file)
        tls = Tls(
            ca_file=self.ca_file,
            certificate=self.client_cert,
            key=self.client_key,
            key_password=environ.get("POSTDICOM_KEY_PASSWORD") or None,
        )
        n = self.connections
        return Settings(
            timeouts=Timeouts(deadline=self.deadline),
            retry=Retry(max_attempts=self.attempts),
            limits=Limits() if n is None else Limits(connections=n, parallel_stores=n, parallel_retrieves=n),
            tls=tls,
            proxy=self.proxy or None,
            use_environment_proxies=self.environment_proxy,
            allow_http_credentials=self.allow_http,
        )


@dataclass(frozen=True)
class _Login:
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
        from postdicom_async import POSTDICOM, PostDicom, Wire

        url, settings = self._url(), self.settings()
        dialect, wire = with_fields(self.assumed, POSTDICOM, Wire())
        credentials = find_credentials(self.username, url)
        if not isinstance(credentials, tuple):
            raise UsageError("PostDICOM asks for a user name: give --username or set POSTDICOM_USERNAME")
        return PostDicom(url, *credentials, settings=settings, dialect=dialect, wire=wire)

    def _url(self) -> str:
        if not self.url:
            raise UsageError("no address: give --url or set POSTDICOM_URL")
        return self.url


@dataclass(frozen=True)
class Connection(Account):
    """One archive of any family."""

    dialect: _Dialect = DialectName.DICOMWEB

    def client(self) -> DicomWeb:
        """Return the client, not yet open; asks for a password if there is none and somebody to ask.

        Raises:
            UsageError: an option is missing or wrong.
        """
        from postdicom_async import DicomWeb, PostDicom

        url, settings = self._url(), self.settings()
        dialect, *wire = self.assumptions()
        auth = find_credentials(self.username, url)
        if wire and isinstance(auth, tuple):
            return PostDicom(url, *auth, settings=settings, dialect=dialect, wire=wire[0])
        return DicomWeb(url, auth=auth, settings=settings, dialect=dialect)

    def assumptions(self) -> tuple[Any, ...]:
        """Return what is assumed of the archive: its dialect, and for PostDICOM how its operations are written."""
        from postdicom_async import DICOMWEB, POSTDICOM, Wire

        bases = (POSTDICOM, Wire()) if self.dialect is DialectName.POSTDICOM else (DICOMWEB,)
        return with_fields(self.assumed, *bases)


def _require_file(option: str, file: Path | None) -> None:
    if file is not None and not file.is_file():
        raise UsageError(f"{option}: there is no such file")
