"""The embedded archive with an account of several institutions, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from postdicom_async import CloudApi, DicomWeb, PostDicom
from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.faults.clients import FAST

INSTITUTION = "5a1c0000-0000-4000-8000-000000000001"
OTHER = "5a1c0000-0000-4000-8000-000000000002"
USER = "5a1c0000-0000-4000-8000-000000000101"
COLLEAGUE = "5a1c0000-0000-4000-8000-000000000102"
GROUP = "5a1c0000-0000-4000-8000-000000000201"


@dataclass(frozen=True)
class Account:
    """A running archive, and a client of its Cloud API."""

    server: EmbeddedArchive
    api: CloudApi

    def dicomweb(self) -> DicomWeb:
        """Return a client of the same archive's DICOMweb API."""
        return DicomWeb(self.server.url, auth=self.server.auth, settings=FAST)

    def postdicom(self) -> PostDicom:
        """Return a client of the vendor's operations in its DICOMweb API."""
        return PostDicom(self.server.url, *(self.server.auth or ("", "")), settings=FAST)

    def another(self, user: str = USER) -> CloudApi:
        """Return another client, not yet open."""
        return client_of(self.server, user=user)


def client_of(server: EmbeddedArchive, **options: object) -> CloudApi:
    """Return a client, not yet open."""
    given = {"user": USER, "router_url": server.router_url, "settings": FAST, **options}
    return CloudApi(server.cloud_api_key, server.cloud_account_key, **given)  # type: ignore[arg-type]


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    server = EmbeddedArchive(
        options=ArchiveOptions(
            institutions={INSTITUTION: "North", OTHER: "South"},
            users={USER: "Some Body", COLLEAGUE: "Other Body"},
            user_groups={GROUP: "Readers"},
        )
    )
    async with server, client_of(server) as api:
        cloud = server.cloud
        yield Account(server, api)
        assert not set(cloud.deviations), "what was sent is what the vendor's library sends"
