"""What stands in front of the routes: tolerance for slashes, the host, and the account's password."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING

from postdicom_async.emulator.answers import refusal, slow_down
from postdicom_async.emulator.cloud.bring_up import REGION_PATH, ROUTER_PATH
from postdicom_async.emulator.hosts import is_known_host
from postdicom_async.emulator.operations.actions import SHARE_PATH

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from postdicom_async.emulator.context import ArchiveContext

__all__ = ["Gate"]

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="embedded archive", charset="UTF-8"'}


class Gate:
    """Takes slashes off the end of the path; no password is asked of shares and of what has keys of its own."""

    def __init__(self, app: ASGIApp, context: ArchiveContext) -> None:
        self._app = app
        self._hosts = context.options.hosts
        self._guesses = context.password_guesses
        username, password = context.options.username, context.options.password
        self._wanted = None if username is None else f"{username}:{password or ''}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        app = self._app
        if scope["type"] == "http":
            scope = {**scope, "path": _without_extra_slashes(scope)}
            app = self._refused(scope) or app
        await app(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        """Return the refusal of a request that goes no further."""
        if not is_known_host(_header(scope, b"host"), self._hosts):
            return refusal(421, "the archive is not known by the name in Host; allow_host names others")
        inner = scope["path"].removeprefix(scope.get("root_path", ""))
        is_open = inner.startswith(f"{SHARE_PATH}/") or inner in {ROUTER_PATH, REGION_PATH}
        given = _header(scope, b"authorization")
        if is_open or self._wanted is None:
            return None
        if not given:
            return refusal(401, "a user name and a password are wanted", _CHALLENGE)
        address = (scope.get("client") or ("",))[0]
        wait = self._guesses.begin(address)
        if wait:
            return slow_down(wait)
        if not self._is_right(given):
            return refusal(401, "the user name or the password is wrong", _CHALLENGE)
        self._guesses.right(address)
        return None

    def _is_right(self, given: str) -> bool:
        scheme, _, token = given.partition(" ")
        try:
            credentials = base64.b64decode(token.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(credentials, self._wanted or b"")


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _without_extra_slashes(scope: Scope) -> str:
    root, path = scope.get("root_path", ""), scope["path"]
    inner = path.removeprefix(root) if root else path
    return f"{root}/{inner.strip('/')}"
