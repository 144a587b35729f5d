"""What an application's own tests put in the place of an archive, as the README says it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import respx

from postdicom_async import DicomWeb, NotFound, UsageError
from tests.support.dicom_files import small_dicom

URL = "https://archive.example/dicom-web"
STUDY = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}


@respx.mock
async def test_respx_works_on_httpx_s_own_transport() -> None:
    found = respx.get(url__startswith=f"{URL}/studies").respond(200, json=[STUDY])
    async with DicomWeb(URL, transport=httpx.AsyncHTTPTransport(), auth=("user", "password")) as archive:
        (study,) = await archive.search_for_studies({"PatientName": "DOE*"}, limit=1).all()
    assert study.StudyInstanceUID == "1.2.3"
    assert found.called
    assert "DOE" in str(found.calls.last.request.url)


@respx.mock
async def test_respx_sees_what_is_sent() -> None:
    refused = respx.post(f"{URL}/studies").respond(404)
    async with DicomWeb(URL, transport=httpx.AsyncHTTPTransport()) as archive:
        with pytest.raises(NotFound):
            await archive.upload(small_dicom())
    assert small_dicom() in refused.calls.last.request.content


async def test_a_function_is_enough() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[STUDY])

    async with DicomWeb(URL, transport=httpx.MockTransport(handler)) as archive:
        assert archive.transport_name == "custom"
        (study,) = await archive.search_for_studies().all()
    assert study.StudyInstanceUID == "1.2.3"


async def test_a_router_of_respx_alone() -> None:
    router = respx.Router()
    router.get(url__startswith=f"{URL}/studies").respond(200, json=[STUDY])
    async with DicomWeb(URL, transport=httpx.MockTransport(router.async_handler)) as archive:
        assert len(await archive.search_for_studies().all()) == 1


def test_without_a_transport_no_mock_would_see_a_request() -> None:
    assert DicomWeb(URL).transport_name == "aiohttp"
    assert DicomWeb(URL, transport=httpx.AsyncHTTPTransport()).transport_name == "custom"


def test_results_say_how_they_are_read() -> None:
    found: Any = DicomWeb("https://archive.example").search_for_studies()
    with pytest.raises(UsageError, match="async for"):
        list(found)


async def test_never_opened_and_closed_are_told_apart() -> None:
    archive = DicomWeb("https://archive.example", transport=httpx.MockTransport(lambda _: httpx.Response(204)))
    with pytest.raises(UsageError, match="not open; use it inside 'async with'"):
        await archive.search_for_studies().all()
    async with archive:
        copied = archive.with_options(fsync=False)
    for closed in (archive, copied):
        with pytest.raises(UsageError, match="closed: its 'async with' has ended"):
            await closed.search_for_studies().all()
    async with archive:
        assert await archive.search_for_studies().all() == []
