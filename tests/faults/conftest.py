"""Fixtures of the fault tests: a client on each transport, and checks on what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import DicomWeb
from postdicom_async.dicomweb import confirm
from tests.faults.clients import FAST, Connect, transport_of
from tests.faults.odd_archives import ODD, OddArchive, make_odd


@pytest.fixture
def connect(transport_name: str) -> Connect:
    """Give a function that makes a client on the transport under test."""

    def make(url: str, settings: Any = FAST, **arguments: Any) -> DicomWeb:
        return DicomWeb(url, settings=settings, transport=transport_of(transport_name, settings), **arguments)

    return make


@pytest.fixture(params=ODD)
def odd_archive(request: pytest.FixtureRequest) -> OddArchive:
    """Give one odd archive after the other, with three studies in each."""
    return make_odd(request.param)


@pytest.fixture(autouse=True)
def no_waiting_for_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for what was stored as often as ever, but without seconds in between."""
    monkeypatch.setattr(confirm, "_LOOK_AFTER", (0.0, 0.01, 0.01))


def open_descriptors() -> int:
    """Count them; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


@pytest.fixture
def no_leaks() -> Iterator[Callable[[], None]]:
    """Compare open descriptors before the test and after it, and give the same check for tasks."""
    before = open_descriptors()
    loose = {"tasks": 0}

    def tasks_are_done() -> None:
        current = asyncio.current_task()
        loose["tasks"] = sum(task is not current for task in asyncio.all_tasks())
        assert not loose["tasks"], "tasks are left"

    yield tasks_are_done
    if before:
        # The loop's own descriptors, and those of the executor, may come and go.
        assert open_descriptors() <= before + 4
