"""A real Orthanc for the tests, with its own port, storage and user; removed afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.faulty_server import unused_port
from tests.support.plain_http import NO_AUTHORITIES

__all__ = ["OrthancServer", "missing_parts"]

PROGRAM = "Orthanc"
PROGRAM_FOLDERS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START = 30.0
STOP = 10.0


def _program() -> str | None:
    return shutil.which(PROGRAM) or shutil.which(PROGRAM, path=PROGRAM_FOLDERS)


def missing_parts() -> str:
    """Return what is missing to start Orthanc here; empty if nothing."""
    if _program() is None:
        return "the program Orthanc is not installed"
    return "" if PLUGIN.exists() else f"Orthanc's DICOMweb plugin is not at {PLUGIN}"


class OrthancServer:
    """One running Orthanc.

    Attributes:
        url: of its DICOMweb.
        rest_url: of its own REST API.
        log_file: what it wrote.
    """

    def __init__(
        self,
        folder: Path,
        *,
        username: str = "tester",
        password: str = "tester-secret",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.username, self.password = folder, username, password
        self.port = unused_port()
        self.rest_url = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.rest_url}/dicom-web"
        self.log_file = folder / "orthanc.log"
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers; also after `stop`, with what was stored before."""
        program = _program()
        assert program is not None, missing_parts()
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=2))
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def client(self, **settings: Any) -> httpx.Client:
        """Open a plain HTTP client with the right credentials."""
        auth = (self.username, self.password)
        return httpx.Client(auth=auth, verify=NO_AUTHORITIES, trust_env=False, **{"timeout": 30.0, **settings})

    def wipe(self) -> None:
        """Delete every patient."""
        with self.client(base_url=self.rest_url) as client:
            for patient in client.get("/patients").raise_for_status().json():
                client.delete(f"/patients/{patient}").raise_for_status()

    def instance_uids(self) -> set[str]:
        """List the SOP Instance UIDs stored, as its own REST API knows them."""
        with self.client(base_url=self.rest_url) as client:
            listing = client.get("/instances", params={"expand": ""}).raise_for_status().json()
        return {str(each["MainDicomTags"]["SOPInstanceUID"]) for each in listing}

    def file(self, sop_instance_uid: str) -> bytes:
        """Read one stored file over its own REST API, byte for byte as stored."""
        with self.client(base_url=self.rest_url) as client:
            found = client.post("/tools/lookup", content=sop_instance_uid).raise_for_status().json()
            return client.get(f"/instances/{found[0]['ID']}/file").raise_for_status().content

    def _configuration(self) -> dict[str, Any]:
        storage = str(self.folder / "storage")
        return {
            "Name": "tests",
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "Plugins": [str(PLUGIN)],
            "HttpServerEnabled": True,
            "HttpPort": self.port,
            "HttpBindAddresses": ["127.0.0.1"],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.username: self.password},
            "HttpThreadsCount": 50,
            "KeepAlive": True,
            "DicomServerEnabled": False,
            "OverwriteInstances": False,
            "StoreDicom": True,
            "StorageCompression": False,
            "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False},
            **self._settings,
        }

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START
        with self.client(timeout=2.0) as client:
            while not _answers(client, f"{self.url}/studies?limit=1"):
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Orthanc did not start:\n{self._last_words()}")
                time.sleep(0.05)

    def _last_words(self) -> str:
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return os.linesep.join(text.splitlines()[-20:])


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
