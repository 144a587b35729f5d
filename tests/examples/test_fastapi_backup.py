"""The FastAPI example that runs a job, for real: begun, watched, paused, gone on with by another process, reported."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from postdicom_async import DicomWeb
from postdicom_async.emulator import EmbeddedArchive
from tests.examples.running import Backend, running_backend
from tests.support.dicom_files import study_files
from tests.support.plain_http import NO_AUTHORITIES

pytest.importorskip("fastapi")

FILES = {name: data for study in (1, 2, 3) for name, data in study_files(5, study=study, series=2).items()}


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive(tmp_path / "archive") as running:
        for name, data in FILES.items():
            (tmp_path / name).write_bytes(data)
            await running.add([tmp_path / name])
        yield running


@asynccontextmanager
async def backend(archive: EmbeddedArchive, tmp_path: Path, **environment: str) -> AsyncIterator[Backend]:
    places = {"BACKUP_TO": str(tmp_path / "backup"), "POSTDICOM_STATE": str(tmp_path / "state")}
    async with running_backend(
        archive.url, tmp_path / "log", name="fastapi_backup", **{**places, **environment}
    ) as running:
        yield running


def browser() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False, timeout=60)


async def events(client: httpx.AsyncClient, url: str) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    async with client.stream("GET", url) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind = ""
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


def held(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*.dcm"))


async def test_it_is_begun_watched_and_reported(archive: EmbeddedArchive, tmp_path: Path) -> None:
    async with backend(archive, tmp_path) as running, browser() as client:
        assert (await client.get(f"{running.url}/backup/report")).status_code == 404
        begun = await client.post(f"{running.url}/backup")
        assert begun.status_code == 202
        seen = [one async for one in events(client, f"{running.url}/backup/events")]
        page = await client.get(f"{running.url}/backup/report")
    assert [kind for kind, _ in seen[-2:]] == ["progress", "ended"]
    assert seen[-1][1] == {"problem": ""}
    assert (seen[-2][1]["phase"], seen[-2][1]["counts"]) == ("complete", {"done": 15})
    assert all(sum(one["counts"].values()) == one["discovered"] for kind, one in seen if kind == "progress")
    assert page.text.startswith("<!DOCTYPE html>")
    assert held(tmp_path / "backup") == sorted(FILES.values())


async def test_into_another_archive_as_a_part_of_the_whole_backend(archive: EmbeddedArchive, tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path / "other", username="other", password="cnry-s3cret") as other:
        to = {"BACKUP_TO": other.url, "BACKUP_USERNAME": "other", "BACKUP_PASSWORD": "cnry-s3cret"}
        environment = {**to, "POSTDICOM_STATE": str(tmp_path / "state")}
        async with (
            running_backend(archive.url, tmp_path / "log", **environment) as running,
            browser() as client,
        ):
            assert (await client.get(f"{running.url}/backup/report")).status_code == 404
            await client.post(f"{running.url}/backup")
            seen = [one async for one in events(client, f"{running.url}/backup/events")]
            assert (await client.get(f"{running.url}/studies")).status_code == 200
        async with DicomWeb(other.url, auth=("other", "cnry-s3cret")) as held_there:
            assert len(await held_there.search_for_instances().all()) == 15
    assert seen[-1] == ("ended", {"problem": ""})
    assert seen[-2][1]["counts"] == {"done": 15}
    assert "cnry-s3cret" not in (tmp_path / "log").read_text()


async def test_paused_it_waits_and_another_server_goes_on(archive: EmbeddedArchive, tmp_path: Path) -> None:
    async with backend(archive, tmp_path) as running, browser() as client:
        await client.post(f"{running.url}/backup")
        assert (await client.post(f"{running.url}/backup/pause")).json()["paused"] is True
        assert (await client.post(f"{running.url}/backup")).status_code == 409
        async with aclosing(events(client, f"{running.url}/backup/events")) as each:
            kind, first = await anext(each)
        assert (kind, first["paused"]) == ("progress", True)
        assert sum(first["counts"].values()) == first["discovered"]
    async with backend(archive, tmp_path) as running, browser() as client:
        await client.post(f"{running.url}/backup")
        assert (await client.post(f"{running.url}/backup/resume")).json()["paused"] is False
        seen = [one async for one in events(client, f"{running.url}/backup/events")]
    assert seen[-2][1]["counts"] == {"done": 15}
    assert held(tmp_path / "backup") == sorted(FILES.values())


async def test_what_keeps_it_from_beginning_is_told(archive: EmbeddedArchive, tmp_path: Path) -> None:
    wrong = {"POSTDICOM_PASSWORD": "cnry-wr0ng"}
    async with backend(archive, tmp_path, **wrong) as running, browser() as client:
        refused = await client.post(f"{running.url}/backup")
        assert (await client.get(f"{running.url}/backup/report")).status_code == 404
    assert refused.status_code == 502
    assert refused.json()["detail"]
    assert "cnry-wr0ng" not in (tmp_path / "log").read_text() + refused.text
