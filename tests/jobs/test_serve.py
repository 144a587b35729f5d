"""The live page over a socket: who may come in, what is told, what is carried to the job."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from postdicom_async import UsageError
from postdicom_async.errors import ConnectionFailed, LedgerUnusable
from postdicom_async.jobs.pages.serve import LivePage
from postdicom_async.jobs.pages.serve_app import Pages
from postdicom_async.jobs.pages.serve_auth import bearer_of
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import Count, ItemLine, ReasonLine, SeriesLine, StudyLine, Summary
from tests.jobs.summaries import HOSTILE, FakeReader, hostile, small
from tests.support.plain_http import NO_AUTHORITIES

ROUTES = ("/", "/events", "/studies", "/studies/1.2", "/studies/1.2/1.2.1", "/items?state=failed", "/metrics",
          "/style.css", "/live.js", "/nothing", "/../etc")  # fmt: skip
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS")
BEARER = "a-token-of-a-monitoring-system"


def ledger() -> FakeReader:
    counts = {State.DONE: Count(250, 250_000), State.FAILED: Count(1, 1000)}
    items = [ItemLine("1.2", "1.2.1", f"1.2.1.{at}", State.DONE, 0, 1, 1000) for at in range(250)]
    items.append(ItemLine("1.2", "1.2.2", "1.2.2.1", State.FAILED, Reason.REFUSED, 3, 1000))
    return FakeReader(
        small(counts=counts, months=(), reasons=(ReasonLine(State.FAILED, Reason.REFUSED, 1, ("1.2.2.1",)),)),
        [StudyLine("1.2", 202401, "listed", counts), StudyLine("", 0, "listed", {State.EXCLUDED: Count(3)})],
        [SeriesLine("1.2.1", {State.DONE: Count(250)}), SeriesLine("1.2.2", {State.FAILED: Count(1)})],
        items,
    )


class Job:
    """The process that runs a job, as far as it can be asked."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.answer: Mapping[str, Any] | Exception = {"ok": True}
        self.status: Mapping[str, Any] = {"ok": True, "paused": False, "open": True, "max_rate": "off", "at_once": 0}

    async def ask(self, message: dict[str, Any]) -> Mapping[str, Any]:
        if message == {"do": "status"}:
            return self.status
        self.orders.append(message)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@asynccontextmanager
async def served(reader: FakeReader | None = None, **more: Any) -> AsyncIterator[tuple[LivePage, httpx.AsyncClient]]:
    """Serve a page and come in by its address."""
    async with LivePage(lambda: reader or ledger(), **more) as page, visitor(page) as client:
        answer = await client.get(page.address)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        yield page, client


def visitor(page: LivePage, **more: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=page.url, verify=NO_AUTHORITIES, trust_env=False, **more)


def proof_in(text: str) -> str:
    found = re.search(r'name="proof" value="([^"]+)"', text)
    assert found
    return found[1]


async def test_who_comes_at_once_is_not_turned_away() -> None:
    async with LivePage(ledger) as page:
        address = urlsplit(page.url)
        assert address.hostname
        assert address.port
        socket.create_connection((address.hostname, address.port)).close()  # before the server has had a turn


# --- who may come in -------------------------------------------------------------------------------------------------


async def test_the_token_opens_once_and_leaves_the_address() -> None:
    async with LivePage(ledger) as page, visitor(page) as first, visitor(page) as second:
        address = page.address
        answer = await first.get(address)
        cookie = answer.headers["set-cookie"]

        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert (await first.get("/")).status_code == 200
        assert (await second.get(address)).status_code == 401
        assert "set-cookie" not in (await second.get(address)).headers
        assert page.address == page.url
        token = address.partition("token=")[2]
        assert token not in cookie
        assert token not in (await first.get("/")).text


@pytest.mark.parametrize("token", ["", "x", "é", "%00", "a" * 5000])
async def test_another_token_opens_nothing_and_spends_nothing(token: str) -> None:
    async with LivePage(ledger) as page, visitor(page) as client:
        assert (await client.get(f"/open?token={token}")).status_code == 401
        assert (await client.head("/open", params={"token": page.address.partition("=")[2]})).status_code == 401
        assert (await client.get(page.address)).status_code == 303


def test_every_route_is_tried_here() -> None:
    class Looking(Pages):
        def __init__(self) -> None:
            self._ask = None
            self._access = self._cookie = None  # type: ignore[assignment]

    made: Any = Looking().app()
    paths = {route.path for route in made._app.routes} - {"/open"}
    asked = {"/items" if one.startswith("/items") else one for one in ROUTES}
    assert paths == {one.replace("1.2/1.2.1", "{study}/{series}").replace("1.2", "{study}") for one in asked} - {
        "/nothing", "/../etc",
    }  # fmt: skip


async def test_nobody_comes_in_without_a_session() -> None:
    async with LivePage(ledger, ask=Job().ask, control=True) as page, visitor(page) as client:
        for path, method, cookie in product((*ROUTES, "/control"), METHODS, ("", "wrong")):
            headers = {"Cookie": f"postdicom-job-{page.url.rpartition(':')[2]}={cookie}"} if cookie else {}
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 401, (path, method, cookie)
            assert "Orthanc" not in answer.text


async def test_a_name_that_is_not_ours_is_refused() -> None:
    hosts = ("evil.example", "evil.example:PORT", "127.0.0.1:1", "localhost.evil.example:PORT", "")
    async with served(ask=Job().ask, control=True) as (page, client):
        for path, host, method in product((*ROUTES, "/open", "/control"), hosts, ("GET", "POST")):
            headers = {"Host": host.replace("PORT", page.url.rpartition(":")[2])}
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code in {400, 421}, (path, host, method)
            assert "Orthanc" not in answer.text


async def test_a_page_of_another_site_is_refused() -> None:
    origins = ("http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1", "junk:[//", "")
    async with served(ask=Job().ask, control=True) as (_, client):
        for path, origin, method in product((*ROUTES, "/open", "/control"), origins, ("GET", "POST")):
            answer = await client.request(method, path, headers={"Origin": origin})
            assert answer.status_code == 403, (path, origin, method)


async def test_the_names_it_goes_by() -> None:
    async with served(names=["jobs.example"]) as (page, client):
        port = page.url.rpartition(":")[2]
        for host in (f"localhost:{port}", f"LOCALHOST:{port}", "jobs.example", f"jobs.example:{port}"):
            assert (await client.get("/", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/studies", "/metrics", "/live.js", "/nothing"])
async def test_every_answer_is_kept_in_bounds(path: str) -> None:
    async with served() as (page, client), visitor(page) as outside:
        for answer in (await client.get(path), await outside.get(path)):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "server" not in answer.headers


# --- what is shown ---------------------------------------------------------------------------------------------------


async def test_from_the_job_down_to_an_instance() -> None:
    async with served() as (_, client):
        job = (await client.get("/")).text
        assert "Orthanc" in job
        assert 'href="/items?state=failed&amp;reason=8"' in job
        assert "1.2.2.1" in (await client.get("/items?state=failed&reason=8")).text
        assert "nothing here" in (await client.get("/items?state=failed&reason=9")).text
        studies = (await client.get("/studies")).text
        assert 'href="/studies/1.2"' in studies
        assert 'href="/studies/-"' in studies
        assert 'href="/studies/1.2"' not in (await client.get("/studies?state=excluded")).text
        assert 'href="/studies/1.2/1.2.1"' in (await client.get("/studies/1.2")).text
        seen: list[str] = []
        place = "/studies/1.2/1.2.1"
        while place:
            text = (await client.get(place)).text
            seen += re.findall(r"<code>(1\.2\.1\.\d+)</code>", text)
            later = re.search(r'href="([^"]+)">Later', text)
            place = later[1] if later else ""
        assert seen == [f"1.2.1.{at}" for at in range(250)]


@pytest.mark.parametrize("path", ["/studies?page=x", "/studies?state=x", "/items", "/items?state=done&reason=-1"])
async def test_what_makes_no_sense_is_said(path: str) -> None:
    async with served() as (_, client):
        answer = await client.get(path)
        assert answer.status_code == 400
        assert "That did not work" in answer.text


async def test_hostile_texts_stay_texts() -> None:
    reader = FakeReader(hostile(), [StudyLine(HOSTILE, 1, HOSTILE, {})], [SeriesLine(HOSTILE, {})],
                        [ItemLine(HOSTILE, HOSTILE, HOSTILE, State.FAILED, 0, 1, 1)])  # fmt: skip
    job = Job()
    job.status = {"ok": True, "paused": False, "open": True, "max_rate": HOSTILE, "at_once": HOSTILE}
    async with served(reader, ask=job.ask, control=True) as (_, client):
        for path in ("/", "/studies", "/studies/1", "/items?state=failed"):
            text = (await client.get(path)).text
            assert re.findall(r"<script[^>]*>", text) == (['<script src="/live.js" defer>'] if path == "/" else [])
            assert "<img" not in text
            assert "&lt;script" in text


async def events(client: httpx.AsyncClient) -> AsyncIterator[tuple[str, Any]]:
    async with client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])


async def test_what_changes_is_sent_and_nothing_else() -> None:
    reader = ledger()
    reader.told = small(done=30, left=70)
    async with served(reader) as (_, client):
        told = events(client)
        async with asyncio.timeout(30):
            name, first = await anext(told)
            reader.told = small(done=31, left=69)
            _, second = await anext(told)
        await told.aclose()  # type: ignore[attr-defined]
    assert name == "parts"
    assert {"pace", "top", "totals", "dates", "notes"} <= set(first)
    assert ">30<" in first["totals"]
    assert ">31<" in second["totals"]
    assert "notes" not in second
    assert "verification" not in second


async def test_there_is_an_end_to_how_many_look_on() -> None:
    async with served() as (_, client), AsyncExitStack() as stack:
        streams = []
        for _number in range(16):
            answer = await stack.enter_async_context(client.stream("GET", "/events"))
            streams.append(answer.aiter_lines())  # one that nobody holds is closed
            assert await anext(streams[-1]) == "event: parts"
        assert (await client.get("/events")).status_code == 503
        await stack.aclose()
        async with asyncio.timeout(30):
            while True:
                async with client.stream("GET", "/events") as answer:
                    if answer.status_code == 200:
                        break
                await asyncio.sleep(0.1)


async def test_a_ledger_that_breaks_is_told() -> None:
    class Broken(FakeReader):
        broken = False

        def summary(self) -> Summary:
            if self.broken:
                raise LedgerUnusable("the ledger is damaged")
            return super().summary()

    reader = Broken(small())
    async with served(reader) as (_, client):
        told = events(client)
        await anext(told)
        reader.broken = True
        async with asyncio.timeout(30):
            assert await anext(told) == ("problem", "the ledger is damaged")
        await told.aclose()  # type: ignore[attr-defined]
        answer = await client.get("/metrics")
        assert answer.status_code == 500
        assert "the ledger is damaged" in answer.text


async def test_it_ends_while_somebody_looks() -> None:
    reader = ledger()
    page = LivePage(lambda: reader)
    async with asyncio.timeout(30), httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as client:
        async with page:
            await client.get(page.address)
            client.base_url = httpx.URL(page.url)
            told = events(client)
            await anext(told)
        assert [one async for one in told] == []
    assert reader.closed == 1


# --- what is carried to the job --------------------------------------------------------------------------------------

ORDERS = [
    ({"do": "pause"}, {"do": "pause"}),
    ({"do": "resume"}, {"do": "resume"}),
    ({"do": "retry"}, {"do": "retry"}),
    ({"do": "retry", "reason": "65537"}, {"do": "retry", "reasons": [65537]}),
    ({"do": "set", "max_rate": " 40M ", "at_once": ""}, {"do": "set", "max_rate": "40M"}),
    ({"do": "set", "max_rate": "", "at_once": "6"}, {"do": "set", "at_once": 6}),
]


@pytest.mark.parametrize(("form", "order"), ORDERS)
async def test_orders_reach_the_job(form: dict[str, str], order: dict[str, Any]) -> None:
    job = Job()
    async with served(ask=job.ask, control=True) as (page, client):
        form = form | {"proof": proof_in((await client.get("/")).text)}
        headers = {"Origin": page.url, "Accept": "application/json"}
        answer = await client.post("/control", data=form, headers=headers)
        assert answer.json()["ok"] is True
        assert answer.json()["message"]
        assert job.orders == [order]
        without_script = await client.post("/control", data=form, headers={"Origin": page.url})
        assert without_script.status_code == 200
        assert "Back to the job" in without_script.text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"ok": False, "error": "max_rate: no"}, "max_rate: no"),
        (ConnectionFailed("no job runs"), "no job runs"),
        ({}, "the job refused"),
    ],
)
async def test_what_the_job_refuses_is_said(answer: Any, words: str) -> None:
    job = Job()
    job.answer = answer
    async with served(ask=job.ask, control=True) as (page, client):
        form = {"do": "pause", "proof": proof_in((await client.get("/")).text)}
        headers = {"Origin": page.url, "Accept": "application/json"}
        told = (await client.post("/control", data=form, headers=headers)).json()
        assert told == {"ok": False, "message": words}


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"do": "stop"},
        {"do": "delete"},
        {"do": "set"},
        {"do": "set", "at_once": "x"},
        {"do": "retry", "reason": "x"},
    ],
)
async def test_what_is_no_order_does_not_reach_it(form: dict[str, str]) -> None:
    job = Job()
    async with served(ask=job.ask, control=True) as (page, client):
        form = form | {"proof": proof_in((await client.get("/")).text)}
        answer = await client.post("/control", data=form, headers={"Origin": page.url})
        assert answer.status_code == 409
        assert job.orders == []


@pytest.mark.parametrize("proof", ["", "wrong", None])
@pytest.mark.parametrize("origin", ["own", "other", None])
async def test_orders_from_elsewhere_do_not_reach_it(proof: str | None, origin: str | None) -> None:
    """With the cookie, as a browser would send it, but not from the page that this server gave."""
    job = Job()
    async with served(ask=job.ask, control=True) as (page, client):
        form = {"do": "pause"}
        if proof is not None or origin != "own":  # the right proof does not help a page of another site
            form["proof"] = proof_in((await client.get("/")).text) if origin != "own" else str(proof)
        headers = {"Origin": page.url if origin == "own" else "http://evil.example"} if origin else {}
        assert (await client.post("/control", data=form, headers=headers)).status_code == 403
        huge = await client.post("/control", content=b"proof=" + b"x" * 100_000, headers={"Origin": page.url})
        assert huge.status_code == 403
        assert job.orders == []


async def test_without_control_there_is_none() -> None:
    job = Job()
    async with served(ask=job.ask) as (page, client):
        text = (await client.get("/")).text
        assert "<form" not in text
        assert "The job" in text  # what it says of itself is shown all the same
        assert (await client.post("/control", data={"do": "pause"}, headers={"Origin": page.url})).status_code == 404
    assert job.orders == []
    with pytest.raises(UsageError, match="control"):
        LivePage(ledger, control=True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"ok": True, "paused": True}, "is paused"),
        ({"ok": True, "open": False, "next_change": "2026-11-30T20:00:00+01:00"}, "until 30 Nov 2026, 19:00 UTC"),
        ({"ok": True, "open": False}, "until it is changed"),
        ({"ok": True, "open": True, "max_rate": "40M", "at_once": 6}, "40 MB/s, 6 at once"),
        ({"ok": False}, "does not run now"),
    ],
)
async def test_what_the_job_says_of_itself(status: dict[str, Any], words: str) -> None:
    job = Job()
    job.status = status
    async with served(ask=job.ask) as (_, client):
        assert words in (await client.get("/")).text.replace("\N{NO-BREAK SPACE}", " ")


# --- metrics ---------------------------------------------------------------------------------------------------------


def token_file(tmp_path: Path, text: str = BEARER + "\n", mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


async def test_metrics_for_who_has_the_token(tmp_path: Path) -> None:
    async with served(token_file=token_file(tmp_path)) as (page, client), visitor(page) as outside:
        for given in ("", "Bearer wrong", f"Basic {BEARER}", f"Bearer {BEARER}x", BEARER, "Bearer \u00e9"):
            assert (await outside.get("/metrics", headers=[(b"Authorization", given.encode())])).status_code == 401
        told = await outside.get("/metrics", headers={"Authorization": f"bearer {BEARER}"})
        assert told.status_code == 200
        assert told.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await outside.get("/", headers={"Authorization": f"Bearer {BEARER}"})).status_code == 401
        assert (await client.get("/metrics")).status_code == 200
        found = parse(told.text)
    assert found['postdicom_job_items{state="done"}'] == 250
    assert found['postdicom_job_items{state="pending"}'] == 0
    assert found['postdicom_job_reasons{state="failed",reason_code="8",reason="the target refused it"}'] == 1
    assert found["postdicom_job_adds_up"] == 1
    assert sum(value for name, value in found.items() if name.startswith("postdicom_job_items{")) == 251


async def test_metrics_of_hostile_names() -> None:
    async with served(FakeReader(hostile())) as (_, client):
        assert parse((await client.get("/metrics")).text)["postdicom_job_adds_up"] == 1


def parse(text: str) -> dict[str, float]:
    """Read Prometheus' text form, strictly."""
    found: dict[str, float] = {}
    declared: set[str] = set()
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# "):
            kind, name, _ = line[2:].split(" ", 2)
            assert kind in {"HELP", "TYPE"}
            if kind == "TYPE":
                assert name not in declared
                declared.add(name)
            continue
        label = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
        sample = re.fullmatch(rf"([a-z_]+)((?:\{{{label}(?:,{label})*\}})?) (-?[0-9.]+)", line)
        assert sample, line
        assert sample[1] in declared
        assert sample[1] + sample[2] not in found
        found[sample[1] + sample[2]] = float(sample[3])
    return found


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (BEARER, 0o640, "chmod 600"),
        (BEARER, 0o604, "chmod 600"),
        ("short", 0o600, "16 or more"),
        ("two words of more than sixteen", 0o600, "16 or more"),
        ("", 0o600, "16 or more"),
    ],
)
def test_a_token_file_that_is_none(tmp_path: Path, text: str, mode: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bearer_of(token_file(tmp_path, text, mode))


async def test_an_address_that_cannot_be_had() -> None:
    reader = ledger()
    async with LivePage(ledger) as page:
        with pytest.raises(UsageError, match="cannot listen on"):
            async with LivePage(lambda: reader, port=int(page.url.rpartition(":")[2])):
                pass
    assert reader.closed == 1
    with pytest.raises(UsageError, match="cannot listen on"):
        async with LivePage(ledger, port=70_000):
            pass
