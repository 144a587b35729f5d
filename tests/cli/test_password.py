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
from postdicom_async.cli import password
from tests.cli.conftest import Cli

BACKEND = """
import sys, time
from keyring.backend import KeyringBackend

class Stored(KeyringBackend):
    priority = 9
    def set_password(self, service, username, password): ...
    def delete_password(self, service, username): ...
    def get_password(self, service, username):
        return "from the keyring" if (service, username) == ("postdicom-async", "me") else None

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


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keyring")
    (tmp_path / "backends_of_the_tests.py").write_text(BACKEND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_keyring(backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "backends_of_the_tests.Stored")
    assert password.find_credentials("me") == ("me", "from the keyring")
    monkeypatch.setenv("POSTDICOM_PASSWORD", "from the environment")
    assert password.find_credentials("me") == ("me", "from the environment")
    assert password.find_credentials(None) is None


@pytest.mark.parametrize("name", ["Broken", "Hanging", "Asking"])
def test_keyring_that_does_not_work(
    backend: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"backends_of_the_tests.{name}")
    monkeypatch.setattr(password, "_KEYRING_PATIENCE", 2.0)
    monkeypatch.setattr("sys.stdin", None)
    started = time.monotonic()
    with pytest.raises(UsageError, match="POSTDICOM_PASSWORD"):
        password.find_credentials("me")
    assert time.monotonic() - started < 10
    assert capfd.readouterr() == ("", "")


def test_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password, "find_spec", lambda _name: None)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError):
        password.find_credentials("me")


def test_user_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDICOM_TOKEN", "token")
    assert password.find_credentials("") == "token"
    with pytest.raises(UsageError):
        password.find_credentials("me")


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
