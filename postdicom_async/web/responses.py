"""Responses and helpers for Starlette, and what is built on it, such as FastAPI.

A browser may leave at any moment, and a download from the archive must then end too: every response here closes what it
sends, however it ends. Starlette leaves it to the server to say that a client has gone: servers of ASGI 2.4 say it only
to who sends something, which may be never while an archive is silent, so these responses listen for it themselves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from postdicom_async.errors import PostdicomError, UsageError
from postdicom_async.web.statuses import answer_to

try:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
except ImportError:
    raise UsageError("this needs the extra 'web': pip install \"postdicom-async[web]\"") from None

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

_T = TypeVar("_T")
_UNAUTHORIZED = 401
_CLIENT_CLOSED_REQUEST = 499  # nobody reads it; it is for logs
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ -]")


# --- one archive for the life of the process -------------------------------------------------------------------------


def archive_lifespan(
    make: Callable[[], AbstractAsyncContextManager[Any]],
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return a lifespan that opens an archive with the server and closes it when the server stops.

    ::

        app = FastAPI(lifespan=archive_lifespan(lambda: PostDicom(url, username, password)))

    The archive is made when the server starts, so that settings are read then; `the_archive` gives it to a request. For
    more than one, write a lifespan that enters each and yields them by name: ``yield {"archive": one, "other": two}``.
    """

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[dict[str, Any]]:
        async with make() as archive:
            yield {"archive": archive}

    return lifespan


def the_archive(request: Request) -> Any:
    """Return the archive of `archive_lifespan`; a dependency: ``Annotated[DicomWeb, Depends(the_archive)]``.

    Raises:
        RuntimeError: the application has another lifespan, or none was begun. No client can mend that: it becomes 500.
    """
    archive = getattr(request.state, "archive", None)
    if archive is None:
        raise RuntimeError("the application has no archive: give it lifespan=archive_lifespan(...)")
    return archive


# --- errors ----------------------------------------------------------------------------------------------------------


def answer_errors(app: Starlette, statuses: Mapping[type[PostdicomError], int] | None = None) -> None:
    """Let an application answer every error of this library with its status, as JSON.

    Args:
        app: of FastAPI or Starlette.
        statuses: what differs from `STATUSES`, such as ``{AuthenticationFailed: 401}``. A 401 has a
            ``WWW-Authenticate`` of the scheme that the browser used.
    """

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, PostdicomError)  # noqa: S101 - registered for it alone
        told = answer_to(error, statuses=statuses or {})
        wanted = {"WWW-Authenticate": _challenge(request)} if told.status == _UNAUTHORIZED else {}
        return JSONResponse(told.body, told.status, {**told.headers, **wanted})

    app.add_exception_handler(PostdicomError, answer)


def _challenge(request: Request) -> str:
    """Return the ``WWW-Authenticate`` that a 401 must have (RFC 9110 section 15.5.2)."""
    basic = request.headers.get("authorization", "").lower().startswith("basic ")
    return 'Basic realm="archive", charset="UTF-8"' if basic else "Bearer"


# --- streams ---------------------------------------------------------------------------------------------------------


async def zip_response(request: Request, zipped: AsyncGenerator[bytes, None], filename: str) -> Response:
    """Return a response that streams a ZIP archive, to be saved under a name.

    The beginning is fetched first, so that an error that shows at once (unknown study, wrong password) is raised here
    and can still become a status. If it breaks off later, so does the answer: a browser never takes a part for the
    whole. A slow browser slows the download down; one that leaves ends it.

    Args:
        request: whom it is for.
        zipped: of `study_as_zip`, `series_as_zip` or `as_zip`.
        filename: what the browser is to call it.

    Raises:
        PostdicomError: as `as_zip` does.
        HTTPException: 499, the client has gone; nobody gets it.
    """
    try:
        first = await while_connected(request, anext(zipped))
    except BaseException:
        await zipped.aclose()
        raise
    headers = {"Content-Disposition": _as_file(filename), "Cache-Control": "no-store"}
    return _Closing(_after(first, zipped), headers, "application/zip")


def events_response(events: AsyncGenerator[str, None]) -> Response:
    """Return a response with server-sent events, such as those of `sse`; a browser that leaves ends them."""
    # The last one is for nginx, which else collects answers before it passes them on.
    return _Closing(events, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, "text/event-stream")


async def while_connected(request: Request, work: Awaitable[_T]) -> _T:
    """Await work for this client only: it is cancelled when the client disconnects.

    Nothing else may read the request meanwhile, so the body must have been read (FastAPI has, for everything but
    ``request.stream()``).

    Raises:
        HTTPException: 499, the client has gone; nobody gets it.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(_CLIENT_CLOSED_REQUEST)
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Closing(StreamingResponse):
    """A stream that is closed however its response ends."""

    def __init__(self, content: AsyncGenerator[Any, None], headers: dict[str, str], media_type: str) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # To a server of this version Starlette listens for the client's leaving while the stream waits.
        older = {**scope, "asgi": {**scope.get("asgi", {}), "spec_version": "2.3"}}
        async with aclosing(self._content):
            await super().__call__(older, receive, send)


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def _as_file(filename: str) -> str:
    """Return a Content-Disposition: any name, in a header that may hold ASCII alone (RFC 6266)."""
    plain = _NOT_PLAIN.sub("_", filename)
    exact = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'attachment; filename="{plain}"{exact}'
