"""The keys of the Cloud API: environment, keyring, prompt; in no argument and in no output."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import asking
from postdicom_async.emulator.cloud.oddities import Drop, HttpAnswer
from postdicom_async.profiles import secrets
from postdicom_async.profiles.model import Profile
from postdicom_async.profiles.secrets import keys_of
from tests.cli.commands import all_commands
from tests.cli.conftest import Cli
from tests.cli.test_cloud_operations import answering
from tests.cli.test_password import _read_until
from tests.support.faulty_server import unused_port

WRONG = "1f0e5b6a-3c1d-4e57-9a10-99999999f001"
KEYS = ("POSTDICOM_API_KEY", "POSTDICOM_ACCOUNT_KEY")
ROUTER = "https://router.example/wssShellService/"
BACKEND = """
from keyring.backend import KeyringBackend

class Stored(KeyringBackend):
    priority = 9
    def set_password(self, service, username, password): ...
    def delete_password(self, service, username): ...
    def get_password(self, service, username):
        return STORED.get(username) if service == "postdicom-async" else None

STORED = {
    "api-key": "of an older version",
    "account-key": "of an older version",
    "api-key@https://router.example": "first",
    "account-key@https://router.example": "second",
}
"""


def find_cloud_keys(router_url: str) -> tuple[str, str]:
    """Look as a command does that is given no profile."""
    return keys_of(Profile("", kind="cloud", router_url=router_url), ask=asking())


def test_no_command_takes_a_key() -> None:
    options = {option for command in all_commands().values() for param in command.params for option in param.opts}
    assert "--router-url" in options
    files = {"--client-key", "--scheduler-key"}  # where a key is, and not the key
    assert not [option for option in options if "key" in option and option not in files]
    assert not [param for command in all_commands().values() for param in command.params if set(_variables(param))]


def _variables(param: Any) -> list[str]:
    """Return the variables of keys and passwords that an option reads; its value could be shown in its help."""
    given = param.envvar or []
    return [name for name in ([given] if isinstance(given, str) else given) if "KEY" in name or "PASSWORD" in name]


def test_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keyring")
    (tmp_path / "backends_of_the_tests.py").write_text(BACKEND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "backends_of_the_tests.Stored")
    monkeypatch.setenv("POSTDICOM_ACCOUNT_KEY", "from the environment")
    assert find_cloud_keys(ROUTER) == ("first", "from the environment")
    monkeypatch.delenv("POSTDICOM_ACCOUNT_KEY")
    assert find_cloud_keys(ROUTER) == ("first", "second")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match=r"keyring set postdicom-async api-key@https://other\.example\)"):
        find_cloud_keys("https://other.example/wssShellService/")


@pytest.mark.parametrize("missing", KEYS)
def test_nobody_to_ask(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(secrets, "find_spec", lambda _name: None)
    monkeypatch.setattr("sys.stdin", None)
    for name in KEYS:
        monkeypatch.setenv(name, "" if name == missing else "there")
    with pytest.raises(UsageError, match=f"no (API|account) key: set {missing}"):
        find_cloud_keys(ROUTER)


@pytest.mark.parametrize("name", KEYS)
async def test_missing_or_wrong(cloud_cli: Cli, cloud_archive: Any, name: str) -> None:
    what = "API key" if "API" in name else "account key"
    for value, code, words in (
        ("", 2, f"no {what}: set {name}"),
        ("not-a-key-0815", 2, f"the {what}: not a UUID"),
        (WRONG, 4, "check the API key, the account key and the router's address"),
        (WRONG.replace("-4e57-", "-8e57-"), 2, f"the {what}: a UUID, but not one that the service gives out"),
    ):
        cloud_cli.environment[name] = value
        ran = await cloud_cli.here("cloud", "account")
        assert (ran.code, ran.out) == (code, "")
        assert words in ran.error_line
        assert not value or value not in ran.err
    assert not cloud_archive.cloud.frames


@pytest.mark.parametrize(
    ("router", "code", "words"),
    [
        ("http://192.0.2.1/", 2, "--router-url: the keys would travel unencrypted"),
        ("http://192.0.2.1/", 2, "--allow-http"),
        ("http://127.0.0.1:{port}/", 5, "refused"),
    ],
)
async def test_routers_that_cannot_be_used(cli: Cli, router: str, code: int, words: str) -> None:
    cli.environment |= dict.fromkeys(KEYS, WRONG)
    ran = await cli.here("cloud", "account", "--attempts", "1", "--router-url", router.format(port=unused_port()))
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.error_line


async def test_an_upload_with_wrong_keys(cloud_cli: Cli, one_file: Path) -> None:
    cloud_cli.environment["POSTDICOM_ACCOUNT_KEY"] = WRONG
    ran = await cloud_cli.here("cloud", "upload", one_file, "--json")
    assert ran.code == 4
    assert ran.json["ok"] is False
    assert ran.json["items"] == ran.json["patient_order_uuids"] == []
    assert WRONG not in ran.out + ran.err


async def test_files_of_certificates_are_checked(cloud_cli: Cli) -> None:
    for option in ("--ca-file", "--client-cert", "--client-key"):
        ran = await cloud_cli.here("cloud", "account", option, "missing.pem")
        assert ran.code == 2
        assert f"{option}: there is no such file" in ran.error_line


async def test_answers_that_repeat_the_keys(cloud_cli: Cli, cloud_archive: Any) -> None:
    keys = cloud_archive.cloud_api_key, cloud_archive.cloud_account_key.upper()
    told = {"NodeList": [{"Key": keys[0], "Deep": {keys[1]: [keys[1]]}}]}
    cloud_archive.cloud.oddities.envelope = answering(told)
    for words in (["nodes", "list"], ["nodes", "list", "--json"], ["flags", "list"], ["flags", "list", "--json"]):
        ran = await cloud_cli.here("cloud", *words)
        assert ran.code == 0
        assert "***" in ran.out
        assert not [key for key in keys if key.lower() in (ran.out + ran.err).lower()]


@pytest.mark.parametrize("way", ["unknown key", "no socket", "dropped"])
async def test_not_where_an_error_came_from(cloud_cli: Cli, cloud_archive: Any, way: str) -> None:
    """Every address holds the API key; a traceback shows none."""
    oddities = cloud_archive.cloud.oddities
    if way == "unknown key":
        cloud_cli.environment["POSTDICOM_API_KEY"] = WRONG
    elif way == "no socket":
        address = {"ResponseCode": 1, "ResponseMessage": f"ws://127.0.0.1:{unused_port()}"}
        oddities.http["socket"] = [HttpAnswer(200, json.dumps(address))]
    else:
        oddities.drops.append(Drop("before", (17, 34)))
    ran = await cloud_cli.here("cloud", "users", "list", "--attempts", "1", "--debug")
    assert ran.code in {4, 5}
    assert "Traceback" in ran.err
    assert not [name for name in KEYS if cloud_cli.environment[name] in ran.err]


def test_only_this_run_conceals(capsys: pytest.CaptureFixture[str]) -> None:
    output.conceal("1f0e5b6a-secret")
    output.write("a 1F0E5B6A-SECRET")
    output.prepare()
    output.write("a 1f0e5b6a-secret")
    assert capsys.readouterr().out == "a ***\na 1f0e5b6a-secret\n"


async def test_prompts_do_not_echo(cloud_cli: Cli, cloud_archive: Any) -> None:
    for name in KEYS:
        del cloud_cli.environment[name]
    terminal, other_end = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(other_end, termios.TIOCSCTTY, 0)

    process = await cloud_cli.start("cloud", "users", "list", stdin=other_end, preexec=own_terminal)
    os.close(other_end)
    seen = b""
    for words, key in ((b"API key: ", cloud_archive.cloud_api_key), (b"ccount key: ", cloud_archive.cloud_account_key)):
        seen += await asyncio.to_thread(_read_until, terminal, words)
        await asyncio.sleep(0.1)
        os.write(terminal, key.encode() + b"\n")
    out, err = await process.communicate()
    os.set_blocking(terminal, False)
    with contextlib.suppress(OSError):
        seen += os.read(terminal, 1000)
    os.close(terminal)
    assert process.returncode == 0, err
    assert b"Some Body" in out
    assert b"".join(seen.split()) == b"APIkey:Accountkey:"


async def test_in_no_help(cloud_cli: Cli, cloud_archive: Any) -> None:
    """The help shows variables' names, and never what they hold."""
    shown = await cloud_cli("cloud", "upload", "--help", stdin=subprocess.DEVNULL)
    assert shown.code == 0
    assert "POSTDICOM_API_KEY" in shown.out
    assert cloud_archive.cloud_api_key not in shown.out
