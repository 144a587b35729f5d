"""The command as a process of its own, as a user runs it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pytest

from postdicom_async.cli.main import main
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.warm import WARM, start_warm

TIMEOUT = 30.0
NO_KEYRING = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}


@dataclass(frozen=True)
class Ran:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def told(self) -> Any:
        """What the document says, beside that all is well."""
        return told(self.out)

    @property
    def error_line(self) -> str:
        """The one line that says what went wrong; fails if there is more, or a traceback."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0]


def told(out: str) -> Any:
    """Return the answer or the items of a document of a command that ended well."""
    document = json.loads(out)
    assert (document.pop("ok"), document.pop("error")) == (True, None)
    return document["answer"] if "answer" in document else document["items"]


class Cli:
    """Runs the command with the arguments given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}

    def use(self, archive: Any) -> None:
        """Work with this archive from now on."""
        user, password = archive.auth
        self.environment |= {
            "POSTDICOM_URL": archive.url,
            "POSTDICOM_USERNAME": user,
            "POSTDICOM_PASSWORD": password,
        }

    def use_cloud(self, archive: Any, user: str | None = None) -> None:
        """Work with the Cloud API of this archive from now on."""
        self.environment |= {
            "POSTDICOM_ROUTER_URL": archive.router_url,
            "POSTDICOM_API_KEY": archive.cloud_api_key,
            "POSTDICOM_ACCOUNT_KEY": archive.cloud_account_key,
            "POSTDICOM_CLOUD_USER": user or archive.cloud_user_uuid,
        }

    async def start(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        code: str | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        preexec: Callable[[], None] | None = None,
        cold: bool = False,
    ) -> asyncio.subprocess.Process:
        environment = {**os.environ, **NO_KEYRING, **self.environment, **(env or {})}
        # A warm start costs a twentieth. What changes how Python itself starts, or what it is given, wants a cold one.
        plain = (
            not cold and code is None and preexec is None and (stdin, stdout) == (subprocess.DEVNULL, subprocess.PIPE)
        )
        if WARM and plain and not any(name.startswith("PYTHON") for name in {**self.environment, **(env or {})}):
            return cast(
                "asyncio.subprocess.Process",
                await start_warm("postdicom_async.cli", *map(str, arguments), env=environment, folder=self.folder),
            )
        program = ["-m", "postdicom_async.cli"] if code is None else ["-c", code]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            *map(str, arguments),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=self.folder,
            preexec_fn=preexec,
        )

    async def __call__(self, *arguments: str | Path, **options: Any) -> Ran:
        return await ended(await self.start(*arguments, **options))

    async def here(self, *arguments: str | Path) -> Ran:
        """Run the command in this process, in a thread: a start costs half a second, and most cases need none."""
        out, err = io.StringIO(), io.StringIO()
        handlers = list(logging.getLogger().handlers)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            patch.setattr(sys, "stdin", None)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            for name, value in {**NO_KEYRING, **self.environment}.items():
                patch.setenv(name, value)
            code = await asyncio.to_thread(main, list(map(str, arguments)))
        logging.getLogger().handlers[:] = handlers
        return Ran(code, out.getvalue(), err.getvalue())


async def ended(process: asyncio.subprocess.Process) -> Ran:
    """Wait for the end of the process."""
    async with asyncio.timeout(TIMEOUT):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ran(process.returncode, (out or b"").decode(), err.decode())


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
async def cli_with_archive(cli: Cli, embedded_archive: Any) -> Cli:
    cli.use(embedded_archive)
    return cli


@pytest.fixture
async def cloud_archive(tmp_path: Path) -> AsyncIterator[Any]:
    """Run an archive whose account has two institutions, two users and a group."""
    emulator = pytest.importorskip("postdicom_async.emulator")
    from tests.cloud.conftest import COLLEAGUE, GROUP, INSTITUTION, OTHER, USER

    archive = emulator.EmbeddedArchive(
        tmp_path / "archive",
        options=emulator.ArchiveOptions(
            institutions={INSTITUTION: "North", OTHER: "South"},
            users={USER: "Some Body", COLLEAGUE: "Other Body"},
            user_groups={GROUP: "Readers"},
        ),
    )
    async with archive:
        yield archive
        assert not set(archive.cloud.deviations), "what was sent is what the vendor's library sends"


@pytest.fixture
def cloud_cli(cli: Cli, cloud_archive: Any) -> Cli:
    cli.use_cloud(cloud_archive, user="some body")
    return cli


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    """Six instances of one study in two series, and a file that is not DICOM."""
    folder = tmp_path / "study"
    folder.mkdir()
    for name, content in study_files(6, series=2).items():
        (folder / f"{name}.dcm").write_bytes(content)
    (folder / "notes.txt").write_text("not DICOM")
    return folder


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    path = tmp_path / "one.dcm"
    path.write_bytes(small_dicom(uid(9), uid(9, 1), uid(9, 1, 1)))
    return path
