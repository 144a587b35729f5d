"""Fixtures for pytest (extra ``pytest``), each a running, empty archive with user name and password ``demo``.

Import the one you use in a ``conftest.py``::

    from postdicom_async.emulator.pytest_fixtures import embedded_archive_in_thread  # for def test_…
    from postdicom_async.emulator.pytest_fixtures import embedded_archive  # for async def test_…

A plain ``def test_…``, such as one with Starlette's or FastAPI's ``TestClient``, blocks the event loop that it would
share with `embedded_archive`: no answer would ever come, so it fails at once. `embedded_archive_in_thread` has a loop
of its own.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from postdicom_async.emulator.server import EmbeddedArchive, archive_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["embedded_archive", "embedded_archive_in_thread"]


@pytest.fixture
def embedded_archive_in_thread() -> Iterator[EmbeddedArchive]:
    """Give an archive that runs in a thread, to tests with or without an event loop; gone after the test."""
    with archive_in_thread() as archive:
        yield archive


if TYPE_CHECKING or find_spec("pytest_asyncio"):
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def embedded_archive(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedArchive]:
        """Give an archive that runs on the test's own event loop, to ``async def`` tests; gone after the test.

        Another test fails at once, since it would wait for ever.
        """
        test = getattr(request.function, "hypothesis", None)  # which has a plain function around the test
        if not inspect.iscoroutinefunction(getattr(test, "inner_test", request.function)):
            pytest.fail("this test is no 'async def': use embedded_archive_in_thread", pytrace=False)
        async with EmbeddedArchive() as archive:
            yield archive

else:

    @pytest.fixture
    def embedded_archive() -> None:
        """Say what is missing."""
        pytest.fail("embedded_archive needs pytest-asyncio, which comes with the extra 'pytest' of postdicom-async")
