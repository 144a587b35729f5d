"""A service without a network: keeps what it is asked and answers what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from postdicom_async import PostDicom
from tests.faults.clients import FAST

__all__ = ["NOTHING", "Service", "as_json"]

Answering = Callable[[httpx.Request], httpx.Response]
FOUND = {"PatientOrderUuid": "11111111-2222-3333-4444-555555555555", "Success": True}
NOTHING = {"Result": FOUND["PatientOrderUuid"], "Found": list[object]()}
"""Answers whatever is asked: the UUID of what was made, nothing found."""


def as_json(value: object) -> Answering:
    """Answer every request with this."""
    return lambda _request: httpx.Response(200, json=value)


class Service:
    """The service.

    Attributes:
        requests: what it was asked.

    """

    def __init__(self, answer: Answering | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer or as_json({**NOTHING, "Found": [FOUND]})

    def client(self, **options: Any) -> PostDicom:
        """Return a client of it, which may be used without entering it twice."""
        options = {"settings": FAST, **options}
        return PostDicom("https://service.example/dicomweb/", "demo", "demo", transport=self.transport, **options)

    @property
    def transport(self) -> httpx.MockTransport:
        """What carries requests to it."""
        return httpx.MockTransport(self._handle)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request)

    def parameters(self, index: int = -1) -> dict[str, Any]:
        """Return what a request meant, decoded as any JSON parser would."""
        (text,) = [value for name, value in self.requests[index].headers.items() if name.endswith("parameters")]
        found: dict[str, Any] = json.loads(text)
        return found
