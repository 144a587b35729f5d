"""A pytest fixture: ``pytest_plugins = ["postdicom_async.emulator.pytest_fixtures"]`` in a ``conftest.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from postdicom_async.emulator.server import EmbeddedArchive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["embedded_archive"]


@pytest_asyncio.fixture
async def embedded_archive() -> AsyncIterator[EmbeddedArchive]:
    """Give a running, empty archive with user name and password ``demo``, gone after the test."""
    async with EmbeddedArchive() as archive:
        yield archive
