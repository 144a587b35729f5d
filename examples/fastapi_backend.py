"""A web backend of a PostDICOM account: browsers search it, fetch from it, send to it, share from it, and back it up.

::

    pip install "postdicom-async[cli,examples]"
    export POSTDICOM_URL=https://... POSTDICOM_USERNAME=... POSTDICOM_PASSWORD=... BACKUP_TO=/srv/backup
    uvicorn fastapi_backend:app --timeout-graceful-shutdown 5

==================================  ==================================================================================
``GET /studies?patient_name=DOE*``  finds studies
``GET /studies/UID``                streams a study as a ZIP archive
``POST /studies``                   stores the files of a form
``POST /studies/events``            the same, with its progress as server-sent events
``POST /second-opinions``           stores the files of a form, puts them into a new folder and shares it by a link
``POST /shares``                    makes a link to patient orders
``POST /backup`` and below          a job that copies everything: see ``fastapi_backup.py``
==================================  ==================================================================================

Nothing is stored here on the way out, memory does not grow with a study, and a slow browser slows the download down.
When a browser disconnects, its transfer ends.

Everyone who can reach this can do all of it: put your own sign-in in front, for example with
``FastAPI(dependencies=[Depends(signed_in)])``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Annotated, Any
from uuid import UUID

import fastapi_backup
from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, SecretStr

from postdicom_async import Limits, PostDicom, Settings, UploadReport
from postdicom_async.web import (
    answer_errors,
    events_response,
    sse,
    status_of,
    study_as_zip,
    the_archive,
    while_connected,
    zip_response,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open one session for the life of the process; stop the backup before it is closed."""
    # Every browser being served holds one connection, slow ones for long.
    settings = Settings(limits=Limits(connections=64))
    account = (os.environ[f"POSTDICOM_{name}"] for name in ("URL", "USERNAME", "PASSWORD"))
    async with PostDicom(*account, settings=settings) as archive, fastapi_backup.lifespan(app):
        yield {"archive": archive}


app = FastAPI(title="Studies", lifespan=lifespan)
app.include_router(fastapi_backup.router)
answer_errors(app)
Archive = Annotated[PostDicom, Depends(the_archive)]


# --- studies ---------------------------------------------------------------------------------------------------------

SHOWN = ("StudyInstanceUID", "PatientName", "StudyDate", "ModalitiesInStudy", "NumberOfStudyRelatedInstances")


@app.get("/studies")
async def studies(
    archive: Archive, patient_name: str = "*", study_date: str = "", limit: int = 100
) -> list[dict[str, str]]:
    """Find studies; a date is ``20240131``, a range has a dash."""
    filters = {"PatientName": patient_name, **({"StudyDate": study_date} if study_date else {})}
    found = archive.search_for_studies(filters, limit=limit)
    return [{name: str(study.get(name, "")) for name in SHOWN} async for study in found]


@app.get("/studies/{study_instance_uid}")
async def study(study_instance_uid: str, request: Request, archive: Archive) -> Response:
    """Stream a study as a ZIP archive."""
    return await zip_response(request, study_as_zip(archive, study_instance_uid), f"{study_instance_uid}.zip")


@app.post("/studies")
async def upload(files: list[UploadFile], request: Request, archive: Archive) -> dict[str, Any]:
    """Store files. If the browser leaves, the upload ends."""
    return told(await while_connected(request, archive.upload(files)), files)


@app.post("/studies/events")
async def upload_watched(files: list[UploadFile], archive: Archive) -> Response:
    """Store files, and tell the progress while it goes on."""
    return events_response(sse(lambda tell: archive.upload(files, progress=tell)))


def told(report: UploadReport, files: list[UploadFile]) -> dict[str, Any]:
    """Return an upload's report as JSON: how many files ended how, and what needs attention."""
    each = zip(files, report.outcomes, strict=True)  # one outcome for each file, in their order
    return {
        "ok": report.ok,
        "counts": {status.value: number for status, number in report.counts.items()},
        "failures": [
            {"file": file.filename, "status": outcome.status.value, "reason": outcome.reason}
            for file, outcome in each
            if not outcome.ok
        ],
    }


# --- links -----------------------------------------------------------------------------------------------------------


@app.post("/second-opinions", status_code=201)
async def second_opinion(
    files: list[UploadFile],
    folder: Annotated[str, Form()],
    expires: Annotated[date, Form()],
    response: Response,
    archive: Archive,
    password: Annotated[SecretStr | None, Form()] = None,
) -> dict[str, Any]:
    """Store files, put their orders into a new folder and share it. If it ends early, the answer says what exists."""
    shared = await archive.upload_and_share(
        files, folder=folder, expires=expires, password=password.get_secret_value() if password else None
    )
    if shared.problem is not None:
        response.status_code = status_of(shared.problem)
    return {
        "url": shared.url,
        "folder_uuid": shared.folder_uuid,
        "patient_order_uuids": shared.patient_order_uuids,
        "failed_step": shared.step,
        "problem": str(shared.problem or ""),
        **told(shared.report, files),
    }


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
