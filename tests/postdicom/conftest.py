"""Clients on each transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postdicom_async import PostDicom
from tests.faults.clients import FAST, transport_of


@pytest.fixture
def connect(transport_name: str) -> Callable[..., PostDicom]:
    """Give a function that makes a client on the transport under test."""

    def make(url: str, username: str = "demo", password: str = "demo", **options: Any) -> PostDicom:
        chosen = options.pop("settings", FAST)
        transport = transport_of(transport_name, chosen)
        return PostDicom(url, username, password, settings=chosen, transport=transport, **options)

    return make
