"""``postdicom serve``: the embedded archive, to try clients on."""

from __future__ import annotations

import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias
from uuid import uuid4

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import AllowedHosts, Common
from postdicom_async.cli.paths import given_path, require_writable

if TYPE_CHECKING:
    from postdicom_async.emulator import EmbeddedArchive


_Data: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        parser=given_path,
        help="Where the archive keeps its files. Without it they are gone when it ends.",
    ),
]
_Username: TypeAlias = Annotated[str, typer.Option("--username", "-u", metavar="NAME", help="The one user it knows.")]
_Origins: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin",
        metavar="ORIGIN",
        help="Let pages of this origin use it in a browser, such as http://localhost:3000. May be repeated.",
    ),
]


def serve(
    common: Common,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="The port; 0 for a free one.")
    ] = 8042,
    data: _Data = None,
    username: _Username = "demo",
    allow_origin: _Origins = None,
    allow_host: AllowedHosts = None,
) -> int:
    """Run a DICOMweb archive on this machine until Ctrl-C.

    It is made for demonstrations and tests, and listens on the loopback address only. It speaks the URL shapes of
    PS3.18 and of PostDICOM, and PostDICOM's Cloud API. The password is POSTDICOM_PASSWORD, else a new one, written
    once to standard error, as are the Cloud API's keys, which are always new. A bearer token in POSTDICOM_TOKEN lets
    the user in as well.
    """
    archive_class = embedded_archive()
    if data is not None:
        require_writable(data, "--data")
    given = os.environ.get("POSTDICOM_PASSWORD")
    password = given or secrets.token_urlsafe(12)
    from postdicom_async.emulator import ArchiveOptions

    keys = str(uuid4()), str(uuid4())
    token = os.environ.get("POSTDICOM_TOKEN")
    archive = archive_class(
        data,
        username=username,
        password=password,
        port=port,
        options=ArchiveOptions(
            cloud_keys=keys,
            allow_origin=allow_origin or (),
            allow_host=allow_host or (),
            tokens={token: username} if token else {},
        ),
    )
    if not given:  # told only now: options that are refused are refused before any secret is shown
        output.note(f"password: {password}")
    try:
        run_async(lambda: _serve(archive, username, quiet=common.quiet))
    except Interrupted:
        if not common.quiet:
            output.note("stopped")
    return Exit.OK


async def _serve(archive: EmbeddedArchive, username: str, *, quiet: bool) -> None:
    async with archive:
        output.write(f"{archive.url}  user {output.clean(username)}")
        output.write(f"{archive.router_url}  router of the Cloud API")
        output.note(f"API key: {archive.cloud_api_key}")
        output.note(f"account key: {archive.cloud_account_key}")
        if not quiet:
            output.note("Ctrl-C stops it")
        await archive.serve_forever()


_NEEDED = ("multipart", "starlette", "uvicorn")


def embedded_archive() -> type[EmbeddedArchive]:
    """Return the class of the embedded archive.

    Raises:
        UsageError: the extra ``server`` is not installed.
    """
    if not all(map(find_spec, _NEEDED)):
        raise UsageError('this needs the embedded archive: pip install "postdicom-async[cli,server]"')
    from postdicom_async.emulator import EmbeddedArchive

    return EmbeddedArchive
