"""Environment, keyring, prompt: in this order, quietly, and never for ever."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import termios
import time
from pathlib import Path

import pytest

from postdicom_async import UsageError
from postdicom_async.cli.connection import asking
from postdicom_async.profiles import secrets
from postdicom_async.profiles.model import Profile
from postdicom_async.profiles.secrets import credentials_of
from tests.cli.conftest import Cli

URL = "https://one.example/dicom-web"
BACKEND = """
import sys, time
from keyring.backend import KeyringBackend

class Stored(KeyringBackend):
    priority = 9
    def set_password(self, service, username, password): ...
    def delete_password(self, service, username): ...
    def get_password(self, service, username):
        return STORED.get(username) if service == "postdicom-async" else None

STORED = {
    "me": "of an older version",
    "me@https://one.example": "of the first",
    "me@https://two.example:8443": "of the second",
    "me@http://[::1]:8042": "of this machine",
}

class Broken(Stored):
    def get_password(self, service, username):
        print("SECRET", file=sys.stderr)
        raise RuntimeError("SECRET")

class Hanging(Stored):
    def get_password(self, service, username):
        time.sleep(60)

class Asking(Stored):
    def get_password(self, service, username):
        import getpass
        return getpass.getpass("master password: ")
"""


def find_credentials(username: str | None, url: str) -> object:
    """Look as a command does that is given no profile."""
    return credentials_of(Profile("", url=url, username=username or ""), ask=asking())


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keyring")
    (tmp_path / "backends_of_the_tests.py").write_text(BACKEND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_keyring(backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "backends_of_the_tests.Stored")
    assert find_credentials("me", URL) == ("me", "of the first")
    monkeypatch.setenv("POSTDICOM_PASSWORD", "from the environment")
    assert find_credentials("me", URL) == ("me", "from the environment")
    assert find_credentials(None, URL) is None


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://one.example", "of the first"),
        ("https://ONE.example:443/dicom-web?x=1", "of the first"),
        ("https://two.example:8443/pacs", "of the second"),
        ("http://[::1]:8042/dicom-web", "of this machine"),
        ("http://one.example", None),
        ("https://one.example:8443", None),
        ("https://two.example", None),
        ("https://one.example.evil.example", None),
        ("https://three.example", None),
        ("ftp://one.example", None),
        ("one.example", None),
        ("https://one.example:port", None),
        ("", None),
    ],
)
def test_each_host_has_an_entry_of_its_own(
    backend: None, monkeypatch: pytest.MonkeyPatch, url: str, stored: str | None
) -> None:
    """The entry that named the user alone is never read: it would give one archive's password to another."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "backends_of_the_tests.Stored")
    monkeypatch.setattr("sys.stdin", None)
    if stored is not None:
        assert find_credentials("me", url) == ("me", stored)
        return
    with pytest.raises(UsageError, match="no password"):
        find_credentials("me", url)
    with pytest.raises(UsageError, match="no password"):
        find_credentials("somebody", url)


def test_a_missing_password_names_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "find_spec", lambda _name: None)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match=r"keyring set postdicom-async somebody@https://one\.example\)"):
        find_credentials("somebody", "https://one.example/dicom-web")


async def test_the_command_asks_for_the_entry_of_its_archive(
    backend: None, cli_with_archive: Cli, tmp_path: Path
) -> None:
    """The archive that the command speaks to has no entry, so nothing is sent."""
    environment = cli_with_archive.environment
    del environment["POSTDICOM_PASSWORD"]
    environment |= {
        "PYTHONPATH": str(tmp_path),
        "PYTHON_KEYRING_BACKEND": "backends_of_the_tests.Stored",
        "POSTDICOM_USERNAME": "me",
    }
    ran = await cli_with_archive("search", "studies")
    assert ran.code == 2
    assert "no password" in ran.error_line


@pytest.mark.parametrize("name", ["Broken", "Hanging", "Asking"])
def test_keyring_that_does_not_work(
    backend: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"backends_of_the_tests.{name}")
    monkeypatch.setattr(secrets, "_PATIENCE", 2.0)
    monkeypatch.setattr("sys.stdin", None)
    started = time.monotonic()
    with pytest.raises(UsageError, match="POSTDICOM_PASSWORD"):
        find_credentials("me", URL)
    assert time.monotonic() - started < 10
    assert capfd.readouterr() == ("", "")


def test_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "find_spec", lambda _name: None)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError):
        find_credentials("me", URL)


def test_user_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDICOM_TOKEN", "token")
    assert find_credentials("", URL) == "token"
    with pytest.raises(UsageError):
        find_credentials("me", URL)


async def test_without_a_terminal(cli_with_archive: Cli) -> None:
    del cli_with_archive.environment["POSTDICOM_PASSWORD"]
    ran = await cli_with_archive("search", "studies")
    assert (ran.code, ran.out) == (2, "")
    assert "no password" in ran.error_line


async def test_prompt_does_not_echo(cli_with_archive: Cli, one_file: Path) -> None:
    del cli_with_archive.environment["POSTDICOM_PASSWORD"]
    terminal, other_end = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(other_end, termios.TIOCSCTTY, 0)

    process = await cli_with_archive.start("upload", one_file, stdin=other_end, preexec=own_terminal)
    os.close(other_end)
    seen = await asyncio.to_thread(_read_until, terminal, b"Password of demo: ")
    await asyncio.sleep(0.1)
    os.write(terminal, b"demo\n")
    out, err = await process.communicate()
    os.set_blocking(terminal, False)
    with contextlib.suppress(OSError):
        seen += os.read(terminal, 1000)
    os.close(terminal)
    assert process.returncode == 0, err
    assert out.startswith(b"1 stored")
    assert seen.replace(b"Password of demo: ", b"").strip() == b""


def _read_until(descriptor: int, words: bytes) -> bytes:
    seen = b""
    while words not in seen:
        seen += os.read(descriptor, 1000)
    return seen
