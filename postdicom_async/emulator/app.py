"""The routes of the archive and the middleware around them: CORS, the access gate, error responses."""

from __future__ import annotations

import base64
import binascii
import errno
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from postdicom_async.emulator.answers import RouteHandler, RouteRow, places_of, refusal, slow_down
from postdicom_async.emulator.cloud.bring_up import REGION_PATH, ROUTER_PATH, bring_up_routes
from postdicom_async.emulator.cloud.listener import CloudListener
from postdicom_async.emulator.context import ArchiveContext, ArchiveOptions
from postdicom_async.emulator.dicomweb.qido import answer_search
from postdicom_async.emulator.dicomweb.stow import Stow
from postdicom_async.emulator.dicomweb.wado import Wado
from postdicom_async.emulator.doors import is_known_host
from postdicom_async.emulator.operations.actions import operation_routes
from postdicom_async.emulator.pages.routes import share_routes
from postdicom_async.emulator.store.archive import ArchiveStore
from postdicom_async.emulator.store.attributes import EntityLevel
from postdicom_async.emulator.store.files import UnreadableHeader
from postdicom_async.emulator.vendor.shares import SHARE_PATH

_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"
_logger = logging.getLogger("postdicom_async.emulator")
_BASIC = 'Basic realm="embedded archive", charset="UTF-8"'
_BEARER = 'Bearer realm="embedded archive"'


def _dicomweb_routes(context: ArchiveContext) -> list[RouteRow]:
    """Return method, path and handler of both URL shapes.

    The vendor's come first: in ``/studies/series/instances`` the word ``series`` is not a Study Instance UID.
    """
    stow, wado = Stow(context), Wado(context)
    studies, series, instances = (partial(answer_search, context, level) for level in EntityLevel)
    rows: list[RouteRow] = [
        ("POST", "/", stow.store),
        ("GET", "/studies/series", series),
        ("GET", "/studies/series/instances", instances),
        ("GET", "/studies/series/instances/{instance}", wado.retrieve),
        ("GET", "/studies/series/{series}", wado.retrieve),
        ("POST", "/studies", stow.store),
        ("POST", _STUDY, stow.store),
        ("GET", "/studies", studies),
        ("GET", "/series", series),
        ("GET", "/instances", instances),
        ("GET", f"{_STUDY}/series", series),
        ("GET", f"{_STUDY}/instances", instances),
        ("GET", f"{_SERIES}/instances", instances),
        ("GET", f"{_INSTANCE}/frames/{{numbers}}", wado.frames),
        ("GET", f"{_INSTANCE}/bulkdata/{{path:path}}", wado.bulk_data),
    ]
    for level in (_STUDY, _SERIES, _INSTANCE):
        rows += [("GET", level, wado.retrieve), ("DELETE", level, wado.delete)]
        rows += [("GET", f"{level}/metadata", wado.metadata)]
    for level in (_STUDY, _SERIES, _INSTANCE, f"{_INSTANCE}/frames/{{numbers}}"):
        rows += [("GET", f"{level}/rendered", wado.rendered), ("GET", f"{level}/thumbnail", wado.rendered)]
    return rows


def create_app(
    folder: Path,
    options: ArchiveOptions = ArchiveOptions(),  # noqa: B008 - it never changes
    *,
    username: str | None = "demo",
    password: str | None = "demo",  # noqa: S107 - a demonstration's
) -> Starlette:
    """Return the archive as an ASGI application, to be served or mounted anywhere; without the Cloud API.

    Its lifespan closes it. An application that mounts it, whose parts have no lifespan of their own, calls
    ``app.state.close()`` instead. Any ``Host`` is accepted unless ``options.allow_host`` names some.
    """
    account = None if username is None else (username, password or "")
    context = ArchiveContext(ArchiveStore(folder), options, account, options.allow_host or None, options.tokens)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        context.close()

    app = build_app(context, lifespan)
    app.state.close = context.close
    return app


def build_app(
    context: ArchiveContext,
    lifespan: Callable[[Starlette], object] | None = None,
    listener: CloudListener | None = None,
) -> Starlette:
    """Return the application over an open archive; with a listener it speaks the Cloud API."""
    readable = [*share_routes(context), *_dicomweb_routes(context)]
    # The vendor's operations change data by GET, so their HEAD must not run them.
    table = [*operation_routes(context), *readable]
    table += [("HEAD", path, _head_of(handler)) for method, path, handler in readable if method == "GET"]
    if listener:
        table = [*bring_up_routes(listener.cloud), *table]
    routes: list[BaseRoute] = [WebSocketRoute("/{path:path}", listener.serve)] if listener else []
    for method, path, handler in table:
        route = Route(path, handler, methods=[method])
        if method == "GET":
            (route.methods or set()).discard("HEAD")  # added by Starlette; it would read a whole study and discard it
        routes.append(route)
    app = Starlette(
        routes=routes,
        lifespan=lifespan,  # type: ignore[arg-type]  # Starlette's type of it cannot be named
        middleware=[*_cross_origin(context.options.allow_origin), Middleware(FrontGate, context=context)],
        exception_handlers={
            HTTPException: _on_error,
            UnreadableHeader: _on_error,
            OSError: _on_error,
        },
    )
    app.router.redirect_slashes = False  # the gate strips slashes; a redirect would cost a request
    return app


def _head_of(handler: RouteHandler) -> RouteHandler:
    """Return a HEAD handler for a GET handler: status and headers are the same, and no file is read."""

    async def head(request: Request) -> Response:
        answer = await handler(request)
        if isinstance(answer, StreamingResponse):
            bare = Response(status_code=answer.status_code)
            bare.raw_headers = answer.raw_headers
            return bare
        answer.body = b""
        return answer

    return head


def _cross_origin(allowed: Collection[str]) -> list[Middleware]:
    """Let pages of other origins use the archive (CORS); a preflight request carries no password."""
    if not allowed:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=allowed,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["*"],  # each of the vendor's operations has a header of its own
            allow_credentials="*" not in allowed,
            expose_headers=["Content-Disposition", "Content-Location", "Retry-After", "Warning", "X-Error-Reason"],
        )
    ]


async def _on_error(_request: object, error: Exception) -> Response:
    """Answer with a reason that reveals nothing of the request or the stored data."""
    if isinstance(error, HTTPException):
        return refusal(error.status_code, error.detail, error.headers)
    if isinstance(error, UnreadableHeader):
        return refusal(500, f"the stored file cannot be read: {error}")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return refusal(507, "the disk of the archive is full; deleting something makes room")
    _logger.error("a request failed: %s at %s", type(error).__name__, places_of(error))  # the archive's own mistake
    return refusal(500, f"the archive failed: {type(error).__name__}")


class FrontGate:
    """In front of the routes: strips slashes around the path, and requires a known host and the password.

    Shares, and services with keys of their own, need no password.
    """

    def __init__(self, app: ASGIApp, context: ArchiveContext) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; `CloudListener` makes the same checks for WebSockets."""
        if scope["type"] == "lifespan":  # nobody asks anything, and what fails is for whoever starts the archive
            await self._app(scope, receive, send)
            return
        app = self._app
        if scope["type"] == "http":
            root = scope.get("root_path", "")
            inner = scope["path"].removeprefix(root).strip("/")
            scope = {**scope, "path": f"{root}/{inner}"}
            app = self._refused(Request(scope), f"/{inner}") or app
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        answer: Response | None = None
        try:
            await app(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 - Starlette would hand it to uvicorn, which logs its text
            answer = await _on_error(scope, error)
        if answer is None:
            return
        if has_begun or scope["type"] != "http":
            # Too late to say it, or a WebSocket, which has no answer: the connection is cut. By an error that holds
            # nothing, raised out here because within the handler it would carry the first one along.
            raise RuntimeError("an answer broke off")
        await answer(scope, receive, send)

    def _refused(self, request: Request, path: str) -> Response | None:
        """Return the refusal of a request that is not let in, else None."""
        context = self._context
        if not is_known_host(request.headers.get("host", ""), context.hosts):
            return refusal(421, "the archive is not known by the name in Host; allow_host names others")
        is_open = context.account is None and not self._takes_tokens
        if is_open or path.startswith(f"{SHARE_PATH}/") or path in {ROUTER_PATH, REGION_PATH}:
            return None
        given = request.headers.get("authorization", "")
        if not given:  # browsers and curl send a first request without credentials; that is not a guess
            return refusal(401, "a user name and a password are wanted", self._challenge)
        address = request.client.host if request.client else ""
        wait = context.password_guesses.begin(address)
        if wait:
            return slow_down(wait)
        scheme, _, secret = given.partition(" ")
        if scheme.lower() == "bearer" and self._takes_tokens:
            user, wrong = _user_of_token(secret.strip(), context.tokens), "the token is unknown, or has ended"
        else:
            user, wrong = _user_of_account(scheme, secret, context.account), "the user name or the password is wrong"
        if user is None:
            return refusal(401, wrong, self._challenge)
        context.password_guesses.right(address)
        context.served[user] += 1
        return None

    @property
    def _takes_tokens(self) -> bool:
        """Whether there are tokens, or were: the last that is taken away must not open the archive to all."""
        return bool(self._context.tokens or self._context.options.tokens)

    @property
    def _challenge(self) -> dict[str, str]:
        ways = [_BASIC] if self._context.account is not None else []
        return {"WWW-Authenticate": ", ".join([*ways, _BEARER] if self._takes_tokens else ways)}


def _user_of_token(token: str, tokens: Mapping[str, str]) -> str | None:
    given = token.encode()
    found = [user for known, user in tokens.items() if hmac.compare_digest(given, known.encode())]
    return found[0] if found else None


def _user_of_account(scheme: str, secret: str, account: tuple[str, str] | None) -> str | None:
    try:
        credentials = base64.b64decode(secret.strip(), validate=True)
    except (binascii.Error, ValueError):
        credentials = b""
    if account is None or scheme.lower() != "basic":
        return None
    return account[0] if hmac.compare_digest(credentials, ":".join(account).encode()) else None
