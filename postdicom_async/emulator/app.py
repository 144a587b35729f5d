"""The routes of the archive, and what they are put into: pages of other origins, the gate, how errors look."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from postdicom_async.emulator.answers import refusal
from postdicom_async.emulator.context import ArchiveContext, ArchiveOptions
from postdicom_async.emulator.dicomweb.qido import Search
from postdicom_async.emulator.dicomweb.stow import Stow
from postdicom_async.emulator.dicomweb.wado import Wado
from postdicom_async.emulator.gate import Gate
from postdicom_async.emulator.operations.faults import Faults
from postdicom_async.emulator.operations.routes import vendor_routes
from postdicom_async.emulator.pages.routes import share_routes
from postdicom_async.emulator.store.archive import ArchiveStore
from postdicom_async.emulator.store.header import UnreadableHeader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from starlette.requests import Request
__all__ = ["build_app", "close_context", "create_app", "open_context", "routes_of"]

Handler: TypeAlias = "Callable[[Request], Awaitable[Response]]"
RouteRow: TypeAlias = tuple[str, str, Handler]

_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"


def routes_of(context: ArchiveContext) -> list[RouteRow]:
    """Return method, path and handler of everything but PostDICOM's own operations.

    The vendor's shapes come first: in ``/studies/series/instances`` the word ``series`` is no Study Instance UID.
    """
    return [
        *share_routes(context),
        *_vendor_shapes(context),
        *_standard_shapes(context),
    ]


def _vendor_shapes(context: ArchiveContext) -> list[RouteRow]:
    stow, find, wado = Stow(context), Search(context), Wado(context)
    return [
        ("POST", "/", stow.store),
        ("GET", "/studies/series", find.series),
        ("GET", "/studies/series/instances", find.instances),
        ("GET", "/studies/series/instances/{instance}", wado.retrieve),
        ("GET", "/studies/series/{series}", wado.retrieve),
    ]


def _standard_shapes(context: ArchiveContext) -> list[RouteRow]:
    stow, find, wado = Stow(context), Search(context), Wado(context)
    of_a_level: list[RouteRow] = []
    for level in (_STUDY, _SERIES, _INSTANCE):
        of_a_level += [
            ("GET", level, wado.retrieve),
            ("DELETE", level, wado.delete),
            ("GET", f"{level}/metadata", wado.metadata),
            ("GET", f"{level}/rendered", wado.rendered),
            ("GET", f"{level}/thumbnail", wado.rendered),
        ]
    return [
        ("POST", "/studies", stow.store),
        ("POST", _STUDY, stow.store),
        ("GET", "/studies", find.studies),
        ("GET", "/series", find.series),
        ("GET", "/instances", find.instances),
        ("GET", f"{_STUDY}/series", find.series),
        ("GET", f"{_STUDY}/instances", find.instances),
        ("GET", f"{_SERIES}/instances", find.instances),
        *of_a_level,
        ("GET", f"{_INSTANCE}/frames/{{numbers}}", wado.frames),
        ("GET", f"{_INSTANCE}/frames/{{numbers}}/rendered", wado.rendered),
        ("GET", f"{_INSTANCE}/frames/{{numbers}}/thumbnail", wado.rendered),
        ("GET", f"{_INSTANCE}/bulkdata/{{path:path}}", wado.bulk_data),
    ]


def open_context(
    folder: Path, options: ArchiveOptions, faults: Faults | None = None, *, durable: bool = True
) -> ArchiveContext:
    """Open the archive in a folder, made if need be; `close_context` closes it."""
    return ArchiveContext(
        ArchiveStore(folder, durable=durable), options, ThreadPoolExecutor(8, "archive"), faults or Faults()
    )


def close_context(context: ArchiveContext) -> None:
    """Let the threads finish what they do and close the index; blocks."""
    context.executor.shutdown(wait=True)
    context.store.close()


def create_app(folder: Path, options: ArchiveOptions | None = None) -> Starlette:
    """Return the archive as an ASGI application, to be served or mounted anywhere.

    Its lifespan closes it. An application that mounts it, whose parts have no lifespan of their own, calls
    ``app.state.close()`` instead.
    """
    context = open_context(folder, options or ArchiveOptions())

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        close_context(context)

    app = build_app(context, lifespan)
    app.state.close = lambda: close_context(context)
    return app


def build_app(
    context: ArchiveContext, lifespan: Callable[[Starlette], object] | None = None, more: Iterable[RouteRow] = ()
) -> Starlette:
    """Return the application over an open archive; ``more`` are routes that go before the archive's own."""
    operations = [*more, *vendor_routes(context)]  # reading and changing by GET: no HEAD may do the same
    table = [*operations, *routes_of(context)]
    table += [("HEAD", path, _head_of(handler)) for method, path, handler in routes_of(context) if method == "GET"]
    routes = [Route(path, handler, methods=[method]) for method, path, handler in table]
    for route, (method, _, _) in zip(routes, table, strict=True):
        if method == "GET":
            (route.methods or set()).discard("HEAD")  # Starlette's gift; it would read a study to throw it away
    app = Starlette(
        routes=routes,
        lifespan=lifespan,  # type: ignore[arg-type]
        middleware=[*_cross_origin(context.options.allow_origin), Middleware(Gate, context=context)],
        exception_handlers={
            HTTPException: _on_refusal,  # type: ignore[dict-item]
            UnreadableHeader: _on_damage,  # type: ignore[dict-item]
            OSError: _on_disk,  # type: ignore[dict-item]
            Exception: _on_bug,
        },
    )
    app.router.redirect_slashes = False
    return app


def _head_of(handler: Handler) -> Handler:
    """Return the handler of HEAD for one of GET: status and headers are the same, and no body is ever read."""

    async def head(request: Request) -> Response:
        answer = await handler(request)
        if isinstance(answer, StreamingResponse):
            bare = Response(status_code=answer.status_code)
            bare.raw_headers = answer.raw_headers
            return bare
        answer.body = b""
        return answer

    return head


def _cross_origin(allowed: tuple[str, ...]) -> list[Middleware]:
    """Return what lets pages of other origins use the archive (Fetch standard, CORS); a preflight has no password."""
    if not allowed:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=allowed,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["*"],  # the vendor's operations have a header each
            allow_credentials="*" not in allowed,
            expose_headers=["Content-Disposition", "Content-Location", "Retry-After", "Warning", "X-Error-Reason"],
        )
    ]


async def _on_refusal(_request: Request, error: HTTPException) -> Response:
    return refusal(error.status_code, error.detail, error.headers)


async def _on_damage(_request: Request, error: UnreadableHeader) -> Response:
    return refusal(500, f"the stored file cannot be read: {error}")


async def _on_disk(_request: Request, error: OSError) -> Response:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return refusal(507, "the disk of the archive is full; deleting something makes room")
    return refusal(500, f"the archive failed: {type(error).__name__}")


async def _on_bug(_request: Request, error: Exception) -> Response:
    return refusal(500, f"the archive failed: {type(error).__name__}")
