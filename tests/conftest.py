"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.canaries import CanaryWatch, canary_watch
from tests.support.large import examples
from tests.support.orthanc import OrthancServer, missing_parts
from tests.support.processes import ended_processes, for_all_tests

REQUIRE_ORTHANC = "POSTDICOM_REQUIRE_ORTHANC"
OUTSIDE_SETTINGS = {
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "SSL_CERT_DIR", "SSL_CERT_FILE", "SSLKEYLOGFILE",
}  # fmt: skip

# httpcore looks for this package at every lock, and where it is missing through the whole path each time.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment] # what the import system keeps of a missing one

# Hypothesis, for tests that run everywhere and always the same.
settings.register_profile(
    "suite",
    max_examples=examples(100),
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave httpx's transport to the large tests, where what is tested lies above the transport."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if params.get("transport_name") == "httpx" and item.get_closest_marker("above_the_transport"):
            item.add_marker(pytest.mark.large)


def pytest_collection_finish() -> None:
    """Let Python's collector pass over what pytest holds: it would look at a million objects of it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After the tests of a file, let it pass over what was imported meanwhile, too."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    return result


@pytest.fixture(autouse=True)
def no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep proxies, certificates and credentials of the machine out of the tests."""
    for name in list(os.environ):
        own = name.startswith("POSTDICOM_") and name != REQUIRE_ORTHANC
        if own or name.upper() in OUTSIDE_SETTINGS:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _ended_processes() -> Iterator[None]:
    """End what the test started and left running, as one does that fails. The first to be set up is the last to end."""
    with ended_processes():
        yield


@pytest.fixture(name="canary_watch")
def _canary_watch() -> Iterator[CanaryWatch]:
    """Fail the test if it logs, prints or feeds one of the canaries."""
    with canary_watch() as watch:
        yield watch


@pytest.fixture(params=["aiohttp", "httpx"])
def transport_name(request: pytest.FixtureRequest) -> str:
    """Run the test once on the library's own transport, once on httpx's, which a caller may pass."""
    name: str = request.param
    return name


@pytest.fixture
async def embedded_archive(tmp_path: Path) -> AsyncIterator[Any]:
    """Run the package's own archive on a loopback port."""
    emulator = pytest.importorskip("postdicom_async.emulator")
    async with emulator.EmbeddedArchive(tmp_path / "archive", username="demo", password="demo") as archive:
        yield archive


@pytest.fixture(scope="session")
def orthanc_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """Run one Orthanc for all tests that want it."""
    if reason := missing_parts():
        if os.environ.get(REQUIRE_ORTHANC) == "1":
            pytest.fail(f"{reason}, and {REQUIRE_ORTHANC} is set")
        pytest.skip(reason)
    server = OrthancServer(tmp_path_factory.mktemp("orthanc"))
    with for_all_tests():  # a test that asks for it late is not the only one to want it
        server.start()
    yield server
    server.stop()


@pytest.fixture
def orthanc(orthanc_process: OrthancServer) -> OrthancServer:
    """Give the test a running Orthanc with nothing in it."""
    orthanc_process.wipe()
    return orthanc_process
