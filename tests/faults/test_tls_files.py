"""Files of certificates and keys that cannot be used: told apart, before anything is sent, and without a prompt."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from postdicom_async import DicomWeb, Settings, Tls, UsageError
from tests.support.certificates import Authority

PASSWORD = "open sesame, please"
WRONG = "not the password"
SECONDS = 30.0


class Files:
    """A client's files, and what may be wrong with them."""

    def __init__(self, folder: Path) -> None:
        ours, other = Authority(folder / "ours"), Authority(folder / "other")
        self.ca = ours.ca_file
        self.certificate, self.locked = ours.client_files(PASSWORD.encode())
        traditional = serialization.PrivateFormat.TraditionalOpenSSL
        self.other_certificate, self.old_locked = other.client_files(PASSWORD.encode(), traditional)
        self.open_certificate, self.open_key = Authority(folder / "open").client_files()
        self.nothing = folder / "nothing.pem"
        self.text = self.made(folder / "text.pem", b"no PEM")
        self.empty = self.made(folder / "empty.pem", b"")
        whole = self.certificate.read_bytes()
        self.damaged = self.made(folder / "damaged.pem", re.sub(rb"\n[^-\n]{64}\n", b"\nAAAA\n", whole, count=3))
        self.damaged_key = self.made(
            folder / "damaged.key", re.sub(rb"\n[^-\n]{64}\n", b"\nAAAA\n", self.open_key.read_bytes(), count=3)
        )
        self.both = self.made(folder / "both.pem", whole + self.locked.read_bytes())
        self.both_old = self.made(
            folder / "old.pem", self.other_certificate.read_bytes() + self.old_locked.read_bytes()
        )
        self.utf16 = self.made(folder / "utf16.pem", whole.decode().encode("utf-16"))
        self.folder = folder / "ours"

    @staticmethod
    def made(path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


# What is given, by the names of `Files`; the argument that the message names, and what it says of it.
MISTAKES: dict[str, tuple[dict[str, str], str, str]] = {
    "encrypted, no password": ({"certificate": "certificate", "key": "locked"}, "tls.key_password", "is encrypted"),
    "encrypted, in one file": ({"certificate": "both"}, "tls.key_password", "is encrypted"),
    "encrypted as of old": ({"certificate": "other_certificate", "key": "old_locked"}, "tls.key_password", "encrypted"),
    "encrypted as of old, in one file": ({"certificate": "both_old"}, "tls.key_password", "is encrypted"),
    "wrong password": (
        {"certificate": "certificate", "key": "locked", "key_password": WRONG},
        "tls.key_password",
        "does not open the key",
    ),
    "wrong password, as of old": (
        {"certificate": "both_old", "key_password": WRONG},
        "tls.key_password",
        "does not open the key",
    ),
    "empty password": (
        {"certificate": "certificate", "key": "locked", "key_password": ""},
        "tls.key_password",
        "does not open the key",
    ),
    "endless password": (
        {"certificate": "certificate", "key": "locked", "key_password": WRONG * 1000},
        "tls.key_password",
        "does not open the key",
    ),
    "a password of no bytes": (
        {"certificate": "certificate", "key": "locked", "key_password": "\udc80"},
        "tls.key_password",
        "does not open the key",
    ),
    "foreign key": ({"certificate": "certificate", "key": "open_key"}, "tls.key", "is not the key of the certificate"),
    "foreign encrypted key": (
        {"certificate": "other_certificate", "key": "locked", "key_password": PASSWORD},
        "tls.key",
        "is not the key of the certificate",
    ),
    "missing certificate": ({"certificate": "nothing", "key": "open_key"}, "tls.certificate", "no such file"),
    "missing key": ({"certificate": "certificate", "key": "nothing"}, "tls.key", "no such file"),
    "missing authority": ({"ca_file": "nothing"}, "tls.ca_file", "no such file"),
    "a folder": ({"certificate": "folder"}, "tls.certificate", "is not a file"),
    "a folder of authorities": ({"ca_file": "folder"}, "tls.ca_file", "is not a file"),
    "certificate not PEM": ({"certificate": "text", "key": "open_key"}, "tls.certificate", "holds no certificate"),
    "certificate empty": ({"certificate": "empty", "key": "open_key"}, "tls.certificate", "holds no certificate"),
    "certificate in UTF-16": ({"certificate": "utf16", "key": "locked"}, "tls.certificate", "holds no certificate"),
    "key not PEM": ({"certificate": "open_certificate", "key": "text"}, "tls.key", "holds no private key"),
    "two certificates": ({"certificate": "certificate", "key": "certificate"}, "tls.key", "holds no private key"),
    "two keys": ({"certificate": "open_key", "key": "open_key"}, "tls.certificate", "holds no certificate"),
    "authority not PEM": ({"ca_file": "text"}, "tls.ca_file", "holds no certificate"),
    "authority damaged": ({"ca_file": "damaged"}, "tls.ca_file", "is damaged"),
    "certificate damaged": ({"certificate": "damaged", "key": "open_key"}, "tls.certificate", "is damaged"),
    "key damaged": ({"certificate": "open_certificate", "key": "damaged_key"}, "tls.key", "is damaged"),
    "certificate without a key": ({"certificate": "certificate"}, "tls.key", "give the file of the private key"),
    "key without a certificate": ({"key": "open_key"}, "tls.key", "give tls.certificate too"),
}


def tls_of(files: Files, given: dict[str, str]) -> Tls:
    values: dict[str, Any] = {
        name: value if name == "key_password" else getattr(files, value) for name, value in given.items()
    }
    return Tls(**values)


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_has_its_own_line(case: str, files: Files) -> None:
    given, argument, words = MISTAKES[case]
    with pytest.raises(UsageError) as caught:
        DicomWeb("https://archive.example", settings=Settings(tls=tls_of(files, given)))
    message = str(caught.value)
    assert message.startswith(f"{argument}: ")
    assert words in message
    assert len(message.splitlines()) == 1
    assert WRONG not in message
    assert PASSWORD not in message
    assert caught.value.__context__ is None
    paths = re.findall(r"/\S+", message)
    assert {path.rstrip(";") for path in paths} <= {str(getattr(files, name, "")) for name in given.values()}


@pytest.mark.parametrize(
    "given",
    [
        {"certificate": "certificate", "key": "locked", "key_password": PASSWORD},
        {"certificate": "both", "key_password": PASSWORD},
        {"certificate": "both_old", "key_password": PASSWORD},
        {"certificate": "open_certificate", "key": "open_key"},
        {"certificate": "open_certificate", "key": "open_key", "key_password": "that is not needed"},
        {"ca_file": "ca"},
        {"ca_file": "both_old"},
    ],
    ids=lambda given: "+".join(given.values()),
)
def test_what_can_be_used(given: dict[str, str], files: Files) -> None:
    DicomWeb("https://archive.example", settings=Settings(tls=tls_of(files, given)))


def test_a_path_may_be_a_text(files: Files) -> None:
    as_text: Any = str(files.ca)
    assert Tls(ca_file=as_text) == Tls(ca_file=files.ca)


@pytest.mark.parametrize(
    "given",
    [{"ca_file": 5}, {"key": ""}, {"certificate": b"x"}, {"key_password": b"x"}, {"accept_any_certificate": "false"}],
    ids=str,
)
def test_values_of_another_kind(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^tls.{next(iter(given))}: "):
        Tls(**given)


def test_a_pipe_is_not_waited_for(tmp_path: Path, files: Files) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=r"^tls\.key: .* is not a file"):
        DicomWeb("https://archive.example", settings=Settings(tls=Tls(certificate=files.certificate, key=pipe)))


# --- nothing asks on the terminal -----------------------------------------------------------------------------------

EVERY_MISTAKE = """
import asyncio, sys
from postdicom_async import DicomWeb, Settings, Tls, UsageError
from postdicom_async.http.tls import tls_context
from postdicom_async.http.aiohttp_transport import AiohttpTransport

async def main(given):
    certificate, key, password = given
    tls = Tls(certificate=certificate, key=key or None, key_password=password or None)
    makers = [
        lambda: DicomWeb("https://archive.example", settings=Settings(tls=tls)),
        lambda: AiohttpTransport(Settings(tls=tls)),
        lambda: tls_context(tls),
    ]
    for make in makers:
        try:
            make()
        except UsageError as error:
            print(error)

words = sys.argv[1:]
for start in range(0, len(words), 3):
    asyncio.run(main(words[start:start + 3]))
print("done")
"""


def on_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command on a terminal of its own, at which nobody types; return its exit code and all that was shown."""
    ours, theirs = pty.openpty()

    def take_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_the_terminal, env=environment
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    shown, until = b"", time.monotonic() + SECONDS
    try:
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                shown += os.read(ours, 65536)
            time.sleep(0.01)
        assert process.poll() is not None, f"it waits for somebody: {shown!r}"
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                shown += piece
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return process.returncode, shown.decode()


def locked_keys(files: Files) -> list[str]:
    return [
        *(str(files.certificate), str(files.locked), ""),
        *(str(files.certificate), str(files.locked), WRONG),
        *(str(files.both), "", ""),
        *(str(files.other_certificate), str(files.old_locked), ""),
        *(str(files.both_old), "", ""),
        *(str(files.both_old), "", WRONG),
    ]


def test_nothing_asks_on_the_terminal(files: Files) -> None:
    command = [sys.executable, "-c", EVERY_MISTAKE, *locked_keys(files)]
    code, shown = on_a_terminal(command, dict(os.environ))
    assert (code, shown.split()[-1]) == (0, "done")
    assert "pass phrase" not in shown.lower()
    lines = shown.strip().splitlines()[:-1]
    assert len(lines) >= 6 * 3
    assert [line for line in lines if not line.startswith("tls.key_password: ")] == []


def test_nothing_waits_for_a_terminal_that_is_not_there(files: Files) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", EVERY_MISTAKE, *locked_keys(files)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        start_new_session=True,
        check=True,
        text=True,
    )
    assert ran.stdout.split()[-1] == "done"
    assert ran.stderr == ""


@pytest.mark.parametrize("password", [None, WRONG])
def test_the_command_does_not_ask_either(password: str | None, files: Files) -> None:
    pytest.importorskip("typer")
    environment = dict(os.environ) | {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    if password is not None:
        environment["POSTDICOM_KEY_PASSWORD"] = password
    words = ["search", "studies", "--url", "https://127.0.0.1:1"]
    words += ["--client-cert", str(files.certificate), "--client-key", str(files.locked)]
    code, shown = on_a_terminal([sys.executable, "-m", "postdicom_async.cli", *words], environment)
    assert code == 2
    assert len(shown.strip().splitlines()) == 1
    assert shown.startswith("error: POSTDICOM_KEY_PASSWORD: ")
    assert WRONG not in shown
