"""Responses of a backend, for real: Starlette and FastAPI under uvicorn, a browser in front, an archive behind."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasic, HTTPBasicCredentials, HTTPBearer
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from postdicom_async import AuthenticationFailed, DicomWeb, NotFound, RateLimited
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.web import (
    answer_errors,
    archive_lifespan,
    events_response,
    study_as_zip,
    the_archive,
    while_connected,
    zip_response,
)
from tests.support.dicom_files import study_files, uid
from tests.web.serving import browser, served

FILES = study_files(3, study=1, series=1)
NoteServer = Callable[[Any], Any]


@pytest.fixture
async def archive() -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive() as running:
        async with DicomWeb(running.url, auth=running.auth) as own:
            await own.upload(list(FILES.values()))
        yield running


def of_asgi(version: str, app: Any) -> Any:
    """Let a server say that it speaks a version of ASGI: from 2.4 on, who does not send hears nothing of a leaving."""

    async def told(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "asgi": {**scope["asgi"], "spec_version": version}}, receive, send)

    return told


async def gone(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()


# --- the archive of the application ----------------------------------------------------------------------------------


async def test_a_backend_in_ten_lines(archive: EmbeddedArchive) -> None:
    app = FastAPI(lifespan=archive_lifespan(lambda: DicomWeb(archive.url, auth=archive.auth)))
    answer_errors(app)

    @app.get("/studies/{study}.zip")
    async def study(study: str, request: Request, own: Annotated[DicomWeb, Depends(the_archive)]) -> Response:
        return await zip_response(request, study_as_zip(own, study), f"{study}.zip")

    async with served(app) as url, browser() as client:
        found = await client.get(f"{url}/studies/{uid(1)}.zip")
        unknown = await client.get(f"{url}/studies/{uid(9)}.zip")
        malformed = await client.get(f"{url}/studies/x.zip")
    with zipfile.ZipFile(io.BytesIO(found.content)) as zipped:
        assert sorted(zipped.read(name) for name in zipped.namelist()) == sorted(FILES.values())
    assert found.headers["content-type"] == "application/zip"
    assert found.headers["content-disposition"] == f'attachment; filename="{uid(1)}.zip"'
    assert found.headers["cache-control"] == "no-store"
    assert [unknown.status_code, malformed.status_code] == [404, 422]
    assert unknown.json()["temporary"] is False


async def test_the_archive_is_closed_with_the_server() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        seen.append("opened")
        yield "it"
        seen.append("closed")

    async def ask(request: Request) -> Response:
        return JSONResponse(the_archive(request))

    app = Starlette(routes=[Route("/", ask)], lifespan=archive_lifespan(opened))
    async with served(app) as url, browser() as client:
        assert (await client.get(url)).json() == "it"
        assert seen == ["opened"]
    assert seen == ["opened", "closed"]


def test_without_the_lifespan_it_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="lifespan=archive_lifespan"):
        the_archive(Request({"type": "http", "state": {}}))


SEEN: list[tuple[DicomWeb, DicomWeb]] = []


def of_user(
    user: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())], shared: Annotated[DicomWeb, Depends(the_archive)]
) -> DicomWeb:
    own = shared.with_options(auth=(user.username, user.password))
    SEEN.append((shared, own))
    return own


async def test_credentials_of_each_user_on_one_pool(archive: EmbeddedArchive) -> None:
    archive_of_all = archive_lifespan(lambda: DicomWeb(archive.url))
    app = FastAPI(lifespan=archive_of_all)
    answer_errors(app, {AuthenticationFailed: 401})

    @app.get("/studies")
    async def studies(own: Annotated[DicomWeb, Depends(of_user)]) -> int:
        return len(await own.search_for_studies().all())

    async with served(app) as url, browser() as client:
        answers = await asyncio.gather(
            *(client.get(f"{url}/studies", auth=("demo", word)) for word in ["demo", "wrong"] * 5)
        )
    assert [answer.status_code for answer in answers] == [200, 401] * 5
    assert answers[1].headers["www-authenticate"].startswith("Basic realm=")
    assert [answer.text for answer in answers[::2]] == ["1"] * 5
    assert len({archive for archive, _ in SEEN}) == 1
    assert len({own for _, own in SEEN}) == 10


async def test_tokens_of_each_user() -> None:
    app = FastAPI(lifespan=archive_lifespan(lambda: DicomWeb(tokens.url)))
    answer_errors(app, {AuthenticationFailed: 401})

    @app.get("/studies")
    async def studies(
        user: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
        shared: Annotated[DicomWeb, Depends(the_archive)],
    ) -> int:
        return len(await shared.with_options(auth=user.credentials).search_for_studies().all())

    async with EmbeddedArchive(tokens={"a-token": "alice"}) as tokens, served(app) as url, browser() as client:
        known, unknown = [
            await client.get(f"{url}/studies", headers={"Authorization": f"Bearer {token}"})
            for token in ("a-token", "b-token")
        ]
        assert (known.status_code, unknown.status_code) == (200, 401)
        assert unknown.headers["www-authenticate"] == "Bearer"
        assert tokens.requests_by_user == {"alice": 1}


async def test_every_name_fits_into_the_header() -> None:
    async def named(request: Request) -> Response:
        async def zipped() -> AsyncGenerator[bytes, None]:
            yield b"x"

        return await zip_response(request, zipped(), 'Łukasz "CT"\r\nX: 1.zip')

    async with served(Starlette(routes=[Route("/", named)])) as url, browser() as client:
        told = (await client.get(url)).headers["content-disposition"]
    assert told == (
        "attachment; filename=\"_ukasz _CT___X_ 1.zip\"; filename*=UTF-8''%C5%81ukasz%20%22CT%22%0D%0AX%3A%201.zip"
    )


async def test_errors_of_other_kinds_are_left_alone() -> None:
    async def ask(request: Request) -> Response:
        raise {"/later": RateLimited("wait", retry_after=7.5), "/none": NotFound("none")}[request.url.path]

    app = Starlette(routes=[Route("/later", ask), Route("/none", ask)])
    answer_errors(app)
    async with served(app) as url, browser() as client:
        later, none, other = [await client.get(url + path) for path in ("/later", "/none", "/other")]
    assert (later.status_code, later.headers["retry-after"]) == (503, "8")
    assert none.json() == {"detail": "none", "temporary": False}
    assert (other.status_code, other.text) == (404, "Not Found")


# --- browsers that leave ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.0", "2.4"])
@pytest.mark.parametrize("kind", ["zip", "events"])
async def test_a_browser_that_leaves_a_silent_stream_ends_it(version: str, kind: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def silent() -> AsyncGenerator[Any, None]:
        try:
            yield b"x" if kind == "zip" else "x"
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def ask(request: Request) -> Response:
        return await zip_response(request, silent(), "x.zip") if kind == "zip" else events_response(silent())

    app = Starlette(routes=[Route("/", ask)])
    async with served(of_asgi(version, app)) as url, browser() as client:
        async with client.stream("GET", url) as answer:
            assert answer.status_code == 200
            await gone(begun)
        await gone(ended)


async def test_a_browser_that_leaves_before_the_first_byte_ends_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def silent() -> AsyncGenerator[bytes, None]:
        try:
            begun.set()
            await asyncio.Event().wait()
            yield b""
        finally:
            ended.set()

    async def ask(request: Request) -> Response:
        return await zip_response(request, silent(), "x.zip")

    async with served(Starlette(routes=[Route("/", ask)])) as url, browser() as client:
        asking = asyncio.create_task(client.get(url))
        await gone(begun)
        asking.cancel()
        await gone(ended)
        await asyncio.gather(asking, return_exceptions=True)


async def test_work_goes_on_while_the_browser_is_there_and_ends_with_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def quick() -> str:
        return "done"

    async def failing() -> str:
        raise NotFound("none")

    async def ask(request: Request) -> Response:
        work = {"/quick": quick, "/failing": failing, "/endless": endless}[request.url.path]
        return JSONResponse(await while_connected(request, work()))

    app = Starlette(routes=[Route(path, ask) for path in ("/quick", "/failing", "/endless")])
    answer_errors(app)
    async with served(app) as url, browser() as client:
        assert (await client.get(f"{url}/quick")).json() == "done"
        assert (await client.get(f"{url}/failing")).status_code == 404
        asking = asyncio.create_task(client.get(f"{url}/endless"))
        await gone(begun)
        asking.cancel()
        await gone(ended)
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_stream_that_breaks_off_breaks_the_answer() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"x" * 100_000
        raise NotFound("it went away")

    async def ask(request: Request) -> Response:
        return await zip_response(request, broken(), "x.zip")

    app = Starlette(routes=[Route("/", ask)])
    answer_errors(app)
    async with served(app) as url, browser() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(url)
