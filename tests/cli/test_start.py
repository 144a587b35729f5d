from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import postdicom_async
import postdicom_async.cli
from tests.cli.commands import all_commands
from tests.cli.conftest import Cli

CLI_FOLDER = Path(postdicom_async.cli.__file__).parent
PUBLIC = ("postdicom_async.cli", "postdicom_async.emulator")
"""Beside the package itself; and of these what they export themselves."""
PUBLIC_PACKAGES = ("postdicom_async.jobs", "postdicom_async.profiles")
TABLES = ("postdicom_async.vendor.fields", "postdicom_async.postdicom.operations", "postdicom_async.cloud.operations")
"""What the options of the vendor's commands are made of."""
SHARED = (
    *("postdicom_async.disk.files", "postdicom_async.disk.private_files", "postdicom_async.dicom.layout"),
    *("postdicom_async.dicom.anonymize.identities", "postdicom_async.dicom.anonymize.rules"),
    "postdicom_async.csv_lines",
)
"""What only one place may know: how a file becomes durable, what a layout may say, the words of two reasons, what a
spreadsheet takes for a formula."""
COMMANDS = (
    *("demo", "serve", "upload", "search", "download", "copy", "sync", "verify", "doctor"),
    *("jobs", "orders", "folders", "share", "cloud", "profiles"),
)
WITHOUT = "import sys; sys.modules[{!r}] = None; from postdicom_async.cli.main import run; run()"


def test_every_public_name_is_there() -> None:
    missing = [name for name in postdicom_async.__all__ if not hasattr(postdicom_async, name)]
    assert not missing
    assert not hasattr(postdicom_async, "NoSuchName")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from postdicom_async.cli.app import app; app(); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydicom", "httpx", "aiohttp", "uvloop", "starlette", "keyring"} & set(loaded)


def test_command_uses_public_names_only() -> None:
    for file in CLI_FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("postdicom_async."):
                known = PUBLIC_PACKAGES + TABLES + SHARED
                assert module.startswith(PUBLIC) or module in known, f"{file.name}: {module}"


async def test_version_and_help(cli: Cli) -> None:
    version = await cli("--version")
    assert (version.code, version.out) == (0, f"postdicom-async {postdicom_async.__version__}\n")
    bare = await cli()
    assert bare.code == 2
    assert all(command in bare.out for command in COMMANDS)


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_option_is_documented(words: tuple[str, ...]) -> None:
    made = all_commands()[words]
    assert made.help
    assert made.epilog
    assert not [option.name for option in made.params if not option.help]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "No such command"),
        (["upload"], "PATH"),
        (["search", "patients"], "patients"),
        (["download", "study", "1.2"], "--to"),
        (["upload", ".", "--url", "http://127.0.0.1:1", "--password", "x"], "set POSTDICOM_PASSWORD"),
        (["upload", ".", "--concurency", "4"], "no such option: --concurency; give --connections"),
        (["upload", ".", "--conections", "4"], "--connections"),
        (["serach", "studies"], "search"),
        (
            ["search", "studies", "--url", "http://127.0.0.1:1", "-o", "pages"],
            "-o: give FIELD=VALUE; fields are ",
        ),
        (["search", "studies", "--url", "http://127.0.0.1:1", "-o", "page=true"], "pages"),
        (["search", "studies", "--url", "http://127.0.0.1:1", "-o", "pages=maybe"], "pages: give true or false"),
        (["upload", "."], "no address: give --url or set POSTDICOM_URL"),
        (["search", "studies", "-f", "PatientName"], "--filter: give KEY=VALUE"),
        (["search", "studies", "--series", "1.2"], "--series"),
        (["download", "series", "1.2", "--to", "x"], "study and series"),
    ],
)
async def test_usage_errors_are_one_line(cli: Cli, arguments: list[str], words: str) -> None:
    ran = await cli.here(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.error_line


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["upload", ""], "PATH"),
        (["upload", "there", ""], "PATH"),
        (["download", "study", "1.2", "--to", ""], "--to"),
        (["demo", "--keep", ""], "--keep"),
        (["serve", "--data", ""], "--data"),
        (["search", "studies", "--ca-file", ""], "--ca-file"),
        (["search", "studies", "--client-cert", ""], "--client-cert"),
        (["search", "studies", "--client-key="], "--client-key"),
    ],
)
async def test_an_empty_path_is_not_the_current_folder(cli: Cli, arguments: list[str], name: str) -> None:
    (cli.folder / "there").touch()
    ran = await cli.here(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert name in ran.error_line
    assert "the path is empty" in ran.error_line


@pytest.mark.parametrize(
    ("uids", "name"),
    [
        (["study", "abc"], "UID of the study: "),
        (["series", "1.2", "abc"], "UID of the series: "),
        (["instance", "1.2", "1.3", "abc"], "UID of the instance: "),
    ],
)
async def test_uids_that_are_arguments_are_not_called_options(cli: Cli, uids: list[str], name: str) -> None:
    to = cli.folder / "made" / "to"
    ran = await cli.here("download", *uids, "--to", to, "--url", "http://127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error_line.startswith(f"error: {name}not a DICOM UID")


async def test_missing_extras_are_named(cli: Cli) -> None:
    ran = await cli("demo", code=WITHOUT.format("typer"))
    assert (ran.code, ran.out) == (2, "")
    assert 'pip install "postdicom-async[cli]"' in ran.error_line
    assert (await cli("--version", code=WITHOUT.format("typer"))).code == 0
    ran = await cli("demo", code=WITHOUT.format("starlette"))
    assert (ran.code, ran.out) == (2, "")
    assert 'pip install "postdicom-async[cli,server]"' in ran.error_line


BUG = """
import postdicom_async.cli.search as search
def broken(filters):
    raise RuntimeError("DOE^JANE")
search.parse_filters = broken
from postdicom_async.cli.main import run
run()
"""


async def test_a_bug_is_one_line_without_its_text(cli: Cli) -> None:
    ran = await cli("search", "studies", code=BUG)
    assert ran.code == 1
    assert "unexpected RuntimeError" in ran.error_line
    assert "DOE" not in ran.error_line


async def test_debug_logs_each_request(cli_with_archive: Cli) -> None:
    cli = cli_with_archive
    ran = await cli.here("search", "studies", "-f", "PatientName=Nobody*", "--debug")
    assert ran.code == 0
    (line,) = [line for line in ran.err.splitlines() if "search for studies" in line]
    assert " DEBUG postdicom_async.http search for studies: 200, attempt 1, " in line
    assert "Nobody" not in ran.err
    assert "DEBUG" not in (await cli.here("search", "studies")).err


async def test_debug_shows_where_a_bug_is(cli: Cli) -> None:
    process = await cli.start("search", "studies", "--debug", code=BUG)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" in err
    assert b"broken" in err
