"""What a browser sends, into the archive: form files, a thousand of them, and a request's own stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, UploadFile

from postdicom_async import DicomWeb
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.web import answer_errors, archive_lifespan, events_response, sse, the_archive, while_connected
from tests.support.dicom_files import small_dicom, uid
from tests.web.serving import browser, served

Archive = Annotated[DicomWeb, Depends(the_archive)]
ONE = small_dicom(uid(1), uid(1, 1), uid(1, 1, 1))
OTHER = small_dicom(uid(1), uid(1, 1), uid(1, 1, 2))
LARGE = small_dicom(uid(2), uid(2, 1), uid(2, 1, 1), pixel_bytes=3 << 20)  # more than a form keeps in memory


class Backend:
    """A backend that takes files, and what its archive holds."""

    def __init__(self, embedded: EmbeddedArchive) -> None:
        self.embedded = embedded
        self.ended = asyncio.Queue[dict[str, int]]()
        self.app = FastAPI(lifespan=archive_lifespan(lambda: DicomWeb(embedded.url, auth=embedded.auth)))
        answer_errors(self.app)
        self.app.post("/files")(self.files)
        self.app.post("/events")(self.events)
        self.app.put("/file")(self.file)

    async def files(self, files: list[UploadFile], request: Request, archive: Archive) -> dict[str, int]:
        return _counts(await while_connected(request, archive.upload(files)))

    async def events(self, files: list[UploadFile], archive: Archive) -> Any:
        return events_response(sse(lambda tell: archive.upload(files, progress=tell)))

    async def file(self, request: Request, archive: Archive) -> dict[str, int]:
        counts = _counts(await archive.upload([request.stream()]))
        self.ended.put_nowait(counts)
        return counts

    async def holds(self) -> int:
        async with DicomWeb(self.embedded.url, auth=self.embedded.auth) as archive:
            return len([one async for one in archive.search_for_instances().raw])


def _counts(report: Any) -> dict[str, int]:
    return {status.value: number for status, number in report.counts.items()}


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with EmbeddedArchive() as embedded:
        yield Backend(embedded)


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.dcm", content)) for number, content in enumerate(contents)]


async def test_files_of_a_form(backend: Backend) -> None:
    async with served(backend.app) as url, browser() as client:
        answer = await client.post(f"{url}/files", files=form(ONE, LARGE, b"no DICOM", ONE[:-100]))
    assert answer.json() == {"stored": 2, "not DICOM": 1, "unreadable": 1}
    assert await backend.holds() == 2


async def test_a_thousand_files(backend: Backend) -> None:
    first = uid(3, 1, 1000)
    base = small_dicom(uid(3), uid(3, 1), first, pixel_bytes=2)
    each = [base.replace(first.encode(), uid(3, 1, 1000 + number).encode()) for number in range(1000)]
    async with served(backend.app) as url, browser() as client:
        answer = await client.post(f"{url}/files", files=form(*each))
        over = await client.post(f"{url}/files", files=form(*[b""] * 1001))
    assert answer.json() == {"stored": 1000}
    assert over.status_code == 400  # the limit of forms in Starlette: it is said, nothing is dropped
    assert "1000" in over.text
    assert await backend.holds() == 1000


async def test_files_outlive_the_answer_s_head(backend: Backend) -> None:
    async with served(backend.app) as url, browser() as client:
        answer = await client.post(f"{url}/events", files=form(ONE, LARGE))
    assert answer.text.endswith('event: ended\ndata: {"problem": "", "counts": {"stored": 2}}\n\n')


async def test_a_request_s_own_stream(backend: Backend) -> None:
    async with served(backend.app) as url, browser() as client:
        assert (await client.put(f"{url}/file", content=LARGE)).json() == {"stored": 1}
        assert (await client.put(f"{url}/file", content=b"")).json() == {"not DICOM": 1}


async def test_a_stream_that_breaks_off_is_not_stored(backend: Backend) -> None:
    async with served(backend.app) as url:
        _, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        head = f"PUT /file HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LARGE)}\r\n\r\n"
        writer.write(head.encode() + LARGE[: 2 << 20])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(10):
            assert await backend.ended.get() == {"unreadable": 1}
    assert await backend.holds() == 0


async def test_a_form_that_breaks_off_stores_nothing(backend: Backend) -> None:
    async with served(backend.app) as url, browser() as client:
        _, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.dcm"\r\n\r\n'
        head = b"POST /files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        writer.write(head + b"Content-Length: 9999999\r\n\r\n" + part + ONE + b"\r\n" + part + LARGE[: 2 << 20])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await client.post(f"{url}/files", files=form(OTHER))).json() == {"stored": 1}  # it still serves
    assert await backend.holds() == 1
