"""A token endpoint (RFC 6749 section 4.4) on a real socket, and archives that take only tokens it has just given."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import pytest

from postdicom_async.emulator import EmbeddedArchive, app, server
from tests.support.bodies import json_reply
from tests.support.faulty_server import FaultyServer, Reply, Request

__all__ = ["TokenEndpoint", "embedded_archive_for"]


class TokenEndpoint:
    """Gives a client token 1, token 2, ...; an archive takes each for a number of requests.

    Attributes:
        uses: requests for which an archive takes a token.
        lifetime: what answers say in ``expires_in``; None for nothing.
        script: replies that come first, one for each request; None for a token.
        asked: the forms that were sent, decoded, with ``client_id`` and ``client_secret`` wherever they stood.
        issued: how many tokens were given.
        refused: how many requests an archive refused.
    """

    def __init__(
        self, *, uses: int = 1_000_000, lifetime: object = 3600, client: tuple[str, str] = ("me", "s3cret")
    ) -> None:
        self.uses = uses
        self.lifetime = lifetime
        self.client = client
        self.script: list[Reply | None] = []
        self.more: dict[str, Any] = {"token_type": "Bearer"}
        self.asked: list[dict[str, str]] = []
        self.issued = 0
        self.refused = 0
        self._left = 0

    async def __call__(self, request: Request) -> Reply:
        """Answer a request for a token."""
        form = dict(parse_qsl(request.body.decode()))
        scheme, _, given = request.header("authorization").partition(" ")
        if scheme == "Basic":
            user, _, secret = base64.b64decode(given).decode().partition(":")
            form |= {"client_id": unquote_plus(user), "client_secret": unquote_plus(secret), "in": "header"}
        self.asked.append(form)
        scripted = self.script.pop(0) if self.script else None
        if scripted is not None:
            return scripted
        if (form.get("client_id"), form.get("client_secret")) != self.client:
            return json_reply({"error": "invalid_client", "error_description": f"no client {form}"}, 401)
        self.issued += 1
        self._left = self.uses
        told = {"access_token": self.token, **self.more}
        return json_reply(told if self.lifetime is None else {**told, "expires_in": self.lifetime})

    @property
    def token(self) -> str:
        """The last token given."""
        return f"cnry-token-{self.issued}"

    def takes(self, authorization: str) -> bool:
        """Whether an archive takes the header of a request."""
        if authorization == f"Bearer {self.token}" and self._left > 0:
            self._left -= 1
            return True
        self.refused += 1
        return False

    def guard(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Return the handler of an archive that takes these tokens."""
        return lambda request: answer(request) if self.takes(request.header("authorization")) else Reply(401)


@asynccontextmanager
async def embedded_archive_for(endpoint: TokenEndpoint) -> AsyncIterator[tuple[EmbeddedArchive, FaultyServer]]:
    """Run an embedded archive that takes the tokens of an endpoint, and the endpoint."""
    build = app.build_app

    def guarded(*args: Any, **more: Any) -> Any:
        inner = build(*args, **more)

        async def gate(scope: Any, receive: Any, send: Any) -> None:
            headers = dict(scope.get("headers", ()))
            if scope["type"] != "http" or endpoint.takes(headers.get(b"authorization", b"").decode()):
                await inner(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        return gate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "build_app", guarded)
        async with EmbeddedArchive(username=None, password=None) as archive, FaultyServer(endpoint) as tokens:
            yield archive, tokens
