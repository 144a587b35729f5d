"""A web backend that copies a PostDICOM account into a folder or another archive, and shows the progress.

::

    pip install "postdicom-async[cli,examples]"
    export POSTDICOM_URL=https://... POSTDICOM_USERNAME=... POSTDICOM_PASSWORD=... BACKUP_TO=/srv/backup
    uvicorn fastapi_backup:app --timeout-graceful-shutdown 5

``BACKUP_TO`` may also be the address of a DICOMweb archive, with ``BACKUP_USERNAME`` and ``BACKUP_PASSWORD``.

``POST /backup`` starts a backup, or resumes the one from before a restart of this server. ``GET /backup/events`` are
server-sent events, for an ``EventSource`` in the page. ``POST /backup/pause`` and ``/backup/resume`` do what they say,
``GET /backup/report`` is a page to hand over. There is one job, in one process (``--workers 1``); its target is set by
the server's administrator.

Everyone who can reach this can start and pause it: put your own sign-in in front, for example with
``FastAPI(dependencies=[Depends(signed_in)])``.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from postdicom_async import DicomWeb, PostDicom, jobs
from postdicom_async.web import answer_errors, events_response, progress_events, sse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Stop the job cleanly with the server; it is resumed by the next request."""
    app.state.job = None
    app.state.beginning = asyncio.Lock()
    yield
    if app.state.job is not None:
        await app.state.job.stop()


def the_job(request: Request) -> jobs.Job:
    """Return the job that was started."""
    job: jobs.Job | None = request.app.state.job
    if job is None:
        raise HTTPException(404, "no backup was begun")
    return job


Backup = Annotated[jobs.Job, Depends(the_job)]
router = APIRouter(prefix="/backup", tags=["backup"])


@router.post("", status_code=202)
async def begin(request: Request) -> dict[str, Any]:
    """Start the job, or resume it. Another process may run it already: that is 409 by itself."""
    state = request.app.state
    async with state.beginning:  # two clicks must start only one job
        if state.job is not None and state.job.is_running:
            raise HTTPException(409, "it runs already")
        account = (os.environ[f"POSTDICOM_{name}"] for name in ("URL", "USERNAME", "PASSWORD"))
        state.job = await jobs.copy(PostDicom(*account), target())
    return await told(state.job)


def target() -> Path | DicomWeb:
    """Return what is copied to."""
    to = os.environ["BACKUP_TO"]
    if not to.startswith(("http://", "https://")):
        return Path(to)
    return DicomWeb(to, auth=(os.environ["BACKUP_USERNAME"], os.environ["BACKUP_PASSWORD"]))


@router.get("/events")
async def events(job: Backup) -> Response:
    """Stream the progress whenever it changes, until the job has ended."""
    return events_response(sse(job))


async def told(job: jobs.Job) -> dict[str, Any]:
    """Return the progress."""
    return (await anext(progress_events(job))).content


@router.post("/pause")
async def pause(job: Backup) -> dict[str, Any]:
    """Pause the job."""
    job.pause()
    return await told(job)


@router.post("/resume")
async def resume(job: Backup) -> dict[str, Any]:
    """Go on."""
    job.resume()
    return await told(job)


@router.get("/report", response_class=HTMLResponse)
async def report(job: Backup) -> HTMLResponse:
    """Return a report page; it is self-contained and can be saved."""
    return HTMLResponse(await asyncio.to_thread(page_of, job.path))


def page_of(ledger: Path) -> str:
    """Return the report of a ledger."""
    with tempfile.TemporaryDirectory() as folder, closing(jobs.LedgerReader(ledger)) as reader:
        page = Path(folder) / "report.html"
        jobs.write_report(page, reader)
        return page.read_text(encoding="utf-8")


app = FastAPI(title="Backup", lifespan=lifespan)
app.include_router(router)
answer_errors(app)
