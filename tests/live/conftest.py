"""The archives the suite runs against, and a client for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from postdicom_async import DicomWeb, Limits, Settings
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.emulator.samples import write_samples
from tests.faults.clients import transport_of
from tests.support.orthanc import OrthancServer

SETTINGS = Settings(limits=Limits(page_size=7, batch_instances=5), fsync=False)
EMBEDDED, VENDOR, ORTHANC = "embedded", "embedded, vendor's shapes", "orthanc"


@dataclass(frozen=True)
class Server:
    """An archive that runs."""

    name: str
    url: str
    auth: tuple[str, str]
    dialect: str = "dicomweb"

    def client(self, transport: str = "", settings: Settings = SETTINGS) -> DicomWeb:
        """Make a client, on httpx's own transport if that is named."""
        chosen = transport_of(transport, settings) if transport == "httpx" else None
        return DicomWeb(self.url, auth=self.auth, settings=settings, transport=chosen, dialect=self.dialect)


async def _serve(name: str, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    if name == ORTHANC:
        orthanc: OrthancServer = request.getfixturevalue("orthanc")
        yield Server(name, orthanc.url, (orthanc.username, orthanc.password))
        return
    async with EmbeddedArchive(username="demo", password="demo") as archive:
        yield Server(name, archive.url, ("demo", "demo"), "postdicom" if name == VENDOR else "dicomweb")


@pytest.fixture(params=[EMBEDDED, ORTHANC])
async def archive_server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """Run the test against the embedded archive and against Orthanc."""
    async for server in _serve(request.param, request):
        yield server


@pytest.fixture(params=[EMBEDDED, VENDOR, ORTHANC])
async def any_server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """Run the test also in the vendor's URL shapes."""
    async for server in _serve(request.param, request):
        yield server


@pytest.fixture
async def embedded_server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """Run the test against the embedded archive alone."""
    async for server in _serve(EMBEDDED, request):
        yield server


@pytest.fixture
async def archive(archive_server: Server) -> AsyncIterator[DicomWeb]:
    """Give an open client with small pages and batches."""
    async with archive_server.client() as client:
        yield client


@pytest.fixture
async def any_archive(any_server: Server) -> AsyncIterator[DicomWeb]:
    """Give an open client, also in the vendor's URL shapes."""
    async with any_server.client() as client:
        yield client


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the sample studies, small, once: a CT of 3 x 4, a multi-frame, four patients with foreign names."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, slices=4, size=64)
    return folder
