"""A web backend that hands studies of a PostDICOM account to browsers, and makes links to share.

::

    pip install "postdicom-async[examples]"
    export POSTDICOM_URL=https://... POSTDICOM_USERNAME=... POSTDICOM_PASSWORD=...
    uvicorn fastapi_backend:app

``GET /studies/{study_instance_uid}`` streams a study as a ZIP archive: nothing is stored, memory does not grow with the
study, and a slow browser slows the download down. When the browser disconnects, the download ends. ``POST /shares``
makes a link to patient orders.

Everyone who can reach this can get every study: put your own sign-in in front, for example with
``FastAPI(dependencies=[Depends(signed_in)])``.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from datetime import date
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, SecretStr

from postdicom_async import (
    Limits,
    NotFound,
    OutcomeUnknown,
    PostDicom,
    PostdicomError,
    RateLimited,
    Settings,
    UsageError,
)

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from postdicom_async import Part, Parts

T = TypeVar("T")
CLIENT_CLOSED_REQUEST = 499


# --- one session for the life of the process -------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the session when the server starts and close it when it stops."""
    # Every browser being served holds one connection, slow ones for long.
    settings = Settings(limits=Limits(connections=64))
    url, username, password = (os.environ[f"POSTDICOM_{name}"] for name in ("URL", "USERNAME", "PASSWORD"))
    async with PostDicom(url, username, password, settings=settings) as archive:
        app.state.archive = archive
        yield


def the_archive(request: Request) -> PostDicom:
    """Return the session."""
    archive: PostDicom = request.app.state.archive
    return archive


Archive = Annotated[PostDicom, Depends(the_archive)]
app = FastAPI(title="Studies", lifespan=lifespan)


# --- errors ----------------------------------------------------------------------------------------------------------

STATUSES: tuple[tuple[type[PostdicomError], int], ...] = (
    (UsageError, 422),
    (NotFound, 404),
    (RateLimited, 503),
    (OutcomeUnknown, 504),  # it may have been done: the client must check before it repeats the request
    (PostdicomError, 502),  # our account, our network or the service: nothing the browser can fix
)


@app.exception_handler(PostdicomError)
async def explain(_request: Request, error: PostdicomError) -> JSONResponse:
    """Answer with a status by who has to act. The text is safe to show: no names, addresses or passwords."""
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    headers = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else None
    return JSONResponse({"detail": str(error)}, status, headers)


# --- studies ---------------------------------------------------------------------------------------------------------


@app.get("/studies/{study_instance_uid}", response_class=StreamingResponse)
async def study(study_instance_uid: str, request: Request, archive: Archive) -> StreamingResponse:
    """Stream a study as a ZIP archive."""
    parts = archive.iter_study(study_instance_uid)
    # Most errors show before the first instance, while the status can still be chosen.
    first = await while_connected(request, anext(parts, None))
    if first is None:
        raise HTTPException(404, "the study holds nothing")
    return StudyResponse(first, parts, f"{study_instance_uid}.zip")


class StudyResponse(StreamingResponse):
    """Parts as a ZIP archive. However it ends, the download ends with it."""

    def __init__(self, first: Part, parts: Parts, filename: str) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"}
        self._zipped = zipped(first, parts)
        super().__init__(self._zipped, headers=headers, media_type="application/zip")
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. If the study breaks off, so does the answer, so that a browser never takes a part for the whole."""
        async with self._parts, aclosing(self._zipped):
            await super().__call__(scope, receive, send)


async def zipped(first: Part, parts: Parts) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a ZIP archive with one file for each part; images are packed already, so nothing is."""
    outbox = Outbox()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as archive:
        number = 0
        part: Part | None = first
        while part is not None:
            number += 1
            with archive.open(f"{number:06}.dcm", "w", force_zip64=True) as entry:
                async for chunk in part:
                    entry.write(chunk)
                    yield outbox.take()
            part = await anext(parts, None)
    yield outbox.take()


class Outbox(io.RawIOBase):
    """A buffer for `zipfile`, emptied as it is filled."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        """Say so to `zipfile`."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Keep bytes until they are taken."""
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return the bytes written since the last call."""
        taken, self._written = b"".join(self._written), []
        return taken


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await work for this client only; it is cancelled when the client disconnects."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(disconnect(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(CLIENT_CLOSED_REQUEST)
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def disconnect(request: Request) -> None:
    """Wait until the browser is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- links -----------------------------------------------------------------------------------------------------------


class ShareRequest(BaseModel):
    """What to share, until when, and with which password."""

    patient_order_uuids: list[UUID]
    expires: date
    password: SecretStr | None = None
    downloadable: bool = False


class Shared(BaseModel):
    """The address of the share."""

    url: str


@app.post("/shares", status_code=201)
async def share(wanted: ShareRequest, archive: Archive) -> Shared:
    """Make a link to patient orders."""
    link = await archive.shares.create_link(
        wanted.patient_order_uuids,
        expires=wanted.expires,
        password=wanted.password.get_secret_value() if wanted.password else None,
        downloadable=wanted.downloadable,
    )
    if link.url is None:
        raise HTTPException(502, "the service gave no link")
    return Shared(url=link.url)
