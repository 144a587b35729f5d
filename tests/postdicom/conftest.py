"""Hypothesis for tests that run everywhere and always the same; clients on each transport."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from postdicom_async import PostDicom
from tests.faults.clients import FAST, transport_of

_TLS = ssl.create_default_context()

settings.register_profile(
    "operations",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile("operations")


@pytest.fixture
def connect(transport_name: str) -> Callable[..., PostDicom]:
    """Give a function that makes a client on the transport under test."""

    def make(url: str, username: str = "demo", password: str = "demo", **options: Any) -> PostDicom:
        chosen = options.pop("settings", FAST)
        # One context for all: making one takes longer than a test.
        shared = {"context": _TLS} if transport_name == "httpx" else {}
        transport = transport_of(transport_name, chosen, **shared)
        return PostDicom(url, username, password, settings=chosen, transport=transport, **options)

    return make
