"""Every snippet of the page on tokens runs: against a token endpoint, and an archive that notes who asked."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

import httpx
import pytest

from postdicom_async import DicomWeb
from tests.docs.pages import blocks_of
from tests.faults.archive import MemoryArchive
from tests.faults.test_cloud_identities import (
    AWS_SECRET,
    name_account,
    name_keys,
    nothing_of_this_machine,
    service_account,
)
from tests.support.bodies import json_reply
from tests.support.dicom_files import small_dicom
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.support.token_endpoint import TokenEndpoint

__all__ = ["nothing_of_this_machine", "service_account"]

PAGE = "docs/howto/tokens.md"
BLOCKS = [block for block in blocks_of("python") if block.page == PAGE]
GIVEN_BY = {
    "ClientCredentials(": "Bearer cnry-token-1",
    "tokens.google(": "Bearer google",
    "tokens.azure(": "Bearer azure",
    "tokens.aws(": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/",
    "token_file": "Bearer of-a-file",
    "HTTPBearer": "Bearer of-ann",
    "Token(": "Bearer eyJhbGciOi",
}
"""What a block shows, and how the header begins that an archive then sees."""

SEARCH = "await archive.search_for_studies(limit=1).all()"
AFTERWARDS = {
    "keycloak =": f"async with DicomWeb(URL, auth=keycloak) as archive:\n    {SEARCH}\n",
    "entra =": f"async with DicomWeb(URL, auth=entra) as archive:\n    {SEARCH}\n",
    "HTTPBearer": "await a_browser(app)\n",
    "def from_the_broker": f"async with archive:\n    {SEARCH}\n",
}
"""What uses a thing that a block only makes."""


def test_every_way_is_shown() -> None:
    shown = "\n".join(block.text for block in BLOCKS)
    assert not [what for what in (*GIVEN_BY, *AFTERWARDS) if what not in shown]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
async def test_a_snippet_runs(
    block: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service_account: dict[str, str]
) -> None:
    endpoint, holds, seen = TokenEndpoint(), MemoryArchive(), list[str]()

    def archive(request: Request) -> Reply:
        seen.append(request.header("authorization"))
        return json_reply([]) if request.method == "GET" else holds(request)

    def of_a_cloud(request: Request) -> Reply:
        whose = "azure" if request.header("x-identity-header") else "google"
        return json_reply({"access_token": whose, "expires_in": 3600, "expires_on": "4102444800"})

    async def token(request: Request) -> Reply:
        reply = await endpoint(request)
        endpoint.client = (endpoint.asked[-1]["client_id"], "of the page")
        return await endpoint(request) if reply.status == 401 else reply

    async with FaultyServer(archive) as server, FaultyServer(token) as tokens, FaultyServer(of_a_cloud) as cloud:
        name_account(service_account, cloud.url, tmp_path, monkeypatch)
        name_keys(monkeypatch)
        for name, value in {
            "PACS_CLIENT_SECRET": "of the page",
            "AZURE_CLIENT_SECRET": "of the page",
            "IDENTITY_ENDPOINT": f"{cloud.url}/msi",
            "IDENTITY_HEADER": "h",
        }.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "token").write_text("of-a-file\n")
        (tmp_path / "one.dcm").write_bytes(small_dicom())
        code = "".join(one.text for one in BLOCKS[:1] if "import os" not in block.text and one is not block)
        code = code.partition("async with")[0] + block.text
        code += "".join(more for what, more in AFTERWARDS.items() if what in block.text)
        code = re.sub(r'"https://[^"]+/token"', repr(tokens.url), code)
        code = re.sub(r'https://(archive|healthcare|workspace|dicom-medical)[^/"]*(/dicom-web)?', server.url, code)
        code = code.replace("/var/run/secrets/tokens/dicomweb", str(tmp_path / "token")).replace(
            "to-send/", str(tmp_path)
        )
        monkeypatch.setenv("POSTDICOM_URL", server.url)
        await run(code, {"DicomWeb": DicomWeb, "URL": server.url, "a_browser": a_browser})
    (wanted,) = {begin for what, begin in GIVEN_BY.items() if what in block.text}
    assert seen
    assert all(one.startswith(wanted) for one in seen)
    assert AWS_SECRET not in " ".join(seen)


async def a_browser(app: Any) -> None:
    """Ask the page's backend, once without a token."""
    async with app.router.lifespan_context(app) as state:

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://backend") as browser:
            url, token = "/studies?patient_id=7", {"Authorization": "Bearer of-ann"}
            answers = await browser.get(url), await browser.get(url, headers=token)
    assert [answer.status_code for answer in answers] == [401, 200]
    assert answers[0].headers["www-authenticate"] == "Bearer"


async def run(code: str, given: dict[str, Any]) -> None:
    """Run code with ``await`` at its top level."""
    compiled = compile(code, PAGE, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(compiled, CodeType)
    waiting = eval(compiled, given)
    if inspect.iscoroutine(waiting):
        await waiting
