"""A web backend that copies a PostDICOM account into a folder, and shows the progress.

::

    pip install "postdicom-async[cli,examples]"
    export POSTDICOM_URL=https://... POSTDICOM_USERNAME=... POSTDICOM_PASSWORD=... BACKUP_TO=/srv/backup
    uvicorn fastapi_backup:app --timeout-graceful-shutdown 5

``POST /backup`` starts a backup, or resumes the one from before a restart of this server. ``GET /backup/events`` are
server-sent events, for an ``EventSource`` in the page. ``POST /backup/pause`` and ``/backup/resume`` do what they say,
``GET /backup/report`` is a page to hand over. There is one job; its target folder is set by the server's administrator.

Everyone who can reach this can start and pause it: put your own sign-in in front, for example with
``FastAPI(dependencies=[Depends(signed_in)])``.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from postdicom_async import PostDicom, PostdicomError, jobs

TOLD_EVERY = 1.0  # seconds


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Stop the job cleanly with the server; it is resumed by the next request."""
    app.state.job = None
    app.state.beginning = asyncio.Lock()
    yield
    if app.state.job is not None:
        await app.state.job.stop()


app = FastAPI(title="Backup", lifespan=lifespan)


def the_job(request: Request) -> jobs.Job:
    """Return the job that was started."""
    job: jobs.Job | None = request.app.state.job
    if job is None:
        raise HTTPException(404, "no backup was begun")
    return job


Backup = Annotated[jobs.Job, Depends(the_job)]


@app.post("/backup", status_code=202)
async def begin(request: Request) -> dict[str, Any]:
    """Start the job, or resume it."""
    state = request.app.state
    async with state.beginning:  # two clicks must start only one job
        if state.job is not None and state.job.is_running:
            raise HTTPException(409, "it runs already")
        account = (os.environ[f"POSTDICOM_{name}"] for name in ("URL", "USERNAME", "PASSWORD"))
        try:
            state.job = await jobs.copy(PostDicom(*account), Path(os.environ["BACKUP_TO"]))
        except PostdicomError as error:  # for example, another process runs this job; the text is safe to show
            raise HTTPException(409, str(error)) from None
    return await told(state.job)


@app.get("/backup/events", response_class=StreamingResponse)
async def events(job: Backup) -> StreamingResponse:
    """Stream the progress whenever it changes, until the job has ended."""
    return StreamingResponse(changes(job), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def changes(job: jobs.Job) -> AsyncGenerator[str, None]:
    """Yield server-sent events: ``progress``, and last ``ended`` with the error, empty on success."""
    before: dict[str, Any] = {}
    is_running = True
    while is_running:
        is_running = job.is_running  # checked before the summary is read, so that the last change is sent
        if (now := await told(job)) != before:
            yield event("progress", now)
            before = now
        if is_running:
            await asyncio.sleep(TOLD_EVERY)
    problem = ""
    try:
        await job.wait()
    except PostdicomError as error:
        problem = str(error)
    yield event("ended", {"problem": problem})


def event(kind: str, content: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n"


async def told(job: jobs.Job) -> dict[str, Any]:
    """Return the progress. The ledger is a file, so it is read in a thread, without blocking other clients."""
    summary = await asyncio.to_thread(job.summary)
    return {
        "phase": summary.facts.phase,
        "paused": job.pace.paused,
        "discovered": summary.discovered,
        "counts": {state.name.lower(): count.instances for state, count in summary.counts.items()},
    }


@app.post("/backup/pause")
async def pause(job: Backup) -> dict[str, Any]:
    """Pause the job."""
    job.pause()
    return await told(job)


@app.post("/backup/resume")
async def resume(job: Backup) -> dict[str, Any]:
    """Go on."""
    job.resume()
    return await told(job)


@app.get("/backup/report", response_class=HTMLResponse)
async def report(job: Backup) -> HTMLResponse:
    """Return a report page; it is self-contained and can be saved."""
    return HTMLResponse(await asyncio.to_thread(page_of, job.path))


def page_of(ledger: Path) -> str:
    """Return the report of a ledger."""
    with tempfile.TemporaryDirectory() as folder, closing(jobs.LedgerReader(ledger)) as reader:
        page = Path(folder) / "report.html"
        jobs.write_report(page, reader)
        return page.read_text(encoding="utf-8")
