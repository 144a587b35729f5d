from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from postdicom_async.emulator.pytest_fixtures import embedded_archive  # noqa: F401 - a fixture
from tests.emulator.support import client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from postdicom_async.emulator import EmbeddedArchive


@pytest_asyncio.fixture
async def client(embedded_archive: EmbeddedArchive) -> AsyncIterator[httpx.AsyncClient]:  # noqa: F811
    async with client_of(embedded_archive) as client:
        yield client
