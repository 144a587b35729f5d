"""``postdicom help``: the help of a command, and what all commands share: connection, exit codes, variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import CloudOptions, ConnectionOptions
from postdicom_async.cli.exits import MEANINGS, Exit
from postdicom_async.cli.options import Common, grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def help_(
    common: Common,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND|TOPIC", help="A command, or connection, exit-codes or variables."),
    ] = None,
) -> int:
    """Explain a command, connection, exit-codes or variables."""
    del common
    if not words:
        return _help_of([])
    if (tell := TOPICS.get(words[0])) is None:
        return _help_of(words)
    if len(words) > 1:
        raise UsageError(f"help {words[0]} takes no more words")
    tell()
    return Exit.OK


def _help_of(words: list[str]) -> int:
    from postdicom_async.cli.app import app

    app(words)(args=[*words, "--help"], prog_name="postdicom", standalone_mode=False)
    return Exit.OK


VARIABLES: Mapping[str, str] = {
    "POSTDICOM_URL, POSTDICOM_USERNAME, POSTDICOM_DIALECT, POSTDICOM_PROXY": "The options of these names.",
    "POSTDICOM_PROFILE": "--profile.",
    "POSTDICOM_CONFIG": "The file of named archives.",
    "POSTDICOM_PASSWORD": "The password; else it comes from a keyring (service postdicom-async, entry "
    "USER@https://host:port, the port only where it is not the usual one) or a prompt.",
    "POSTDICOM_PASSWORD_NAME": "The password of the named archive NAME, in capitals.",
    "POSTDICOM_TOKEN": "A bearer token instead of user and password.",
    "POSTDICOM_TOKEN_URL, POSTDICOM_CLIENT_ID, POSTDICOM_SCOPE": "The options of these names, for tokens.",
    "POSTDICOM_CLIENT_SECRET": "The secret of the client of --client-id; else it comes from a keyring or a prompt.",
    "POSTDICOM_KEY_PASSWORD": "The password of the client key.",
    "POSTDICOM_API_KEY, POSTDICOM_ACCOUNT_KEY": "The keys of the Cloud API; else they come from a keyring or prompts.",
    "POSTDICOM_ROUTER_URL, POSTDICOM_CLOUD_USER": "--router-url and --user of postdicom cloud.",
    "POSTDICOM_SHARE_PASSWORD": "The password of a link; else --with-password asks for one, else the link has none.",
    "POSTDICOM_ANONYMIZE_SECRET": "What new UIDs and IDs are derived from; without it they are others each time.",
    "POSTDICOM_ANONYMIZE_PATIENTS": "On a worker of a job: the file of --anonymize-patients there.",
    "POSTDICOM_STATE": "The folder of the ledgers of jobs; else your state folder.",
}
"""The variables of the environment that commands read, and what they hold."""


def _tell_variables() -> None:
    output.write("No password or key is ever an argument, which every user of the machine could read.")
    _write_list(VARIABLES)


def _tell_exit_codes() -> None:
    output.write(
        "The same failure has the same code in every command, and every code but 0 comes with one line on standard "
        "error that says why. Treat any other code as a failure."
    )
    _write_list({str(int(code)): text for code, text in MEANINGS.items()})


def _write_list(rows: Mapping[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in rows.items():
        table.add_row(Text(name.replace(", ", "\n"), style="bold"), Text(text))
    output.write(output.render([Text(), table]))


@dataclass(frozen=True)
class AllConnectionOptions(CloudOptions, ConnectionOptions):  # type: ignore[misc]  # no client is made of it
    """Every connection option of any command."""


def connection_help(connection: AllConnectionOptions) -> int:
    """Say which archive, as whom and how.

    These are options of every command that speaks to an archive. The command line outranks the profile, and the
    profile the environment. --user and --router-url are for postdicom cloud, which takes neither --url nor --username;
    commands that speak to PostDICOM only take no --dialect.

    No password or key is an option: they come from POSTDICOM_PASSWORD (with --profile NAME from
    POSTDICOM_PASSWORD_NAME), POSTDICOM_TOKEN, POSTDICOM_API_KEY and POSTDICOM_ACCOUNT_KEY, else from a keyring (service
    postdicom-async, entry USER@https://host, api-key@https://host or account-key@https://host), else from a prompt.
    Without a user name and a token, requests are anonymous. See also: postdicom help variables.
    """
    del connection
    return Exit.OK


def _tell_connection() -> None:
    made = typer.Typer(add_completion=False, rich_markup_mode="rich")
    made.command(epilog="Exit codes: postdicom help exit-codes.")(grouped(connection_help))
    made(args=["--help"], prog_name="postdicom COMMAND", standalone_mode=False)


TOPICS: Mapping[str, Callable[[], None]] = {
    "connection": _tell_connection,
    "exit-codes": _tell_exit_codes,
    "variables": _tell_variables,
}
"""What `postdicom help` explains besides commands."""
