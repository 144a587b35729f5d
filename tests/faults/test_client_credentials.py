"""Client credentials against token endpoints that work, refuse, fail and lie, on real sockets."""

from __future__ import annotations

import asyncio
import copy
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import AuthenticationFailed, ClientCredentials, DicomWeb, PostDicom, Status, Tls, UsageError
from postdicom_async.events import AttemptFailed, CredentialsRefreshed, RequestEnded
from postdicom_async.http import credentials
from postdicom_async.sync import DICOMwebClient
from tests.faults.archive import MemoryArchive
from tests.faults.clients import FAST, files_below, settings
from tests.support.bodies import json_reply
from tests.support.canaries import canary_watch
from tests.support.certificates import Authority
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port
from tests.support.token_endpoint import TokenEndpoint, embedded_archive_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

EMPTY = json_reply([])
SECRET = "cnry-Client/s3cret+77:%"


def client_of(server: FaultyServer, secret: str = "s3cret", **more: Any) -> ClientCredentials:
    return ClientCredentials(f"{server.url}/token", "me", secret, **more)


async def search(archive: DicomWeb) -> list[Any]:
    return await archive.search_for_studies(limit=1).all()


# --- the request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_auth", ["basic", "post"])
async def test_the_request_is_that_of_the_standard(client_auth: Any, connect: Connect) -> None:
    """RFC 6749 sections 2.3.1 and 4.4.2; characters that mean something in a header or a form arrive as they are."""
    endpoint = TokenEndpoint(client=("my client:ä", SECRET))
    async with FaultyServer(endpoint) as tokens, FaultyServer(endpoint.guard(lambda _: EMPTY)) as server:
        auth = ClientCredentials(
            f"{tokens.url}/realms/pacs/token?p=policy%201",
            "my client:ä",
            SECRET,
            scope=["dicom.read", "dicom.write"],
            audience="https://archive.example",
            client_auth=client_auth,
            parameters={"resource": "urn:pacs"},
        )
        async with connect(server.url, auth=auth) as archive:
            assert await search(archive) == []
    (request,) = tokens.requests
    assert (request.method, request.target) == ("POST", "/realms/pacs/token?p=policy%201")
    assert request.header("content-type") == "application/x-www-form-urlencoded"
    assert request.header("accept") == "application/json"
    in_header = {"in": "header"} if client_auth == "basic" else {}
    assert endpoint.asked == [
        {
            "grant_type": "client_credentials",
            "scope": "dicom.read dicom.write",
            "audience": "https://archive.example",
            "resource": "urn:pacs",
            "client_id": "my client:ä",
            "client_secret": SECRET,
            **in_header,
        }
    ]
    assert server.requests[0].header("authorization") == "Bearer cnry-token-1"


async def test_fifty_requests_make_one_token_request(connect: Connect) -> None:
    """The first fifty; fifty whose token was refused; and copies of a client for the users of a web backend."""
    endpoint = TokenEndpoint()
    async with FaultyServer(endpoint) as tokens, FaultyServer(endpoint.guard(lambda _: EMPTY)) as server:
        auth = client_of(tokens)
        async with connect(server.url, auth=auth) as archive:
            await asyncio.gather(*(search(archive) for _ in range(50)))
            assert endpoint.issued == 1
            copies = [archive.with_options(auth=auth) for _ in range(50)]
            await asyncio.gather(*map(search, copies))
            assert endpoint.issued == 1
            endpoint._left = 0
            await asyncio.gather(*(search(archive) for _ in range(50)))
        assert endpoint.issued == 2
        async with connect(server.url, auth=auth) as archive:  # another client, the same token
            await search(archive)
        assert endpoint.issued == len(endpoint.asked) == 2


async def test_a_token_is_replaced_early_while_requests_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of the test's: nobody waits for the new token, and no request is refused."""
    now = 1000.0
    monkeypatch.setattr(credentials, "monotonic", lambda: now)
    endpoint, gate = TokenEndpoint(lifetime=300), asyncio.Event()
    gate.set()
    good: set[str] = set()
    told: list[Any] = []

    async def slow_endpoint(request: Request) -> Reply:
        await gate.wait()
        reply = await endpoint(request)
        good.add(f"Bearer {endpoint.token}")
        return reply

    def answer(request: Request) -> Reply:
        return EMPTY if request.header("authorization") in good else Reply(401)

    async with FaultyServer(slow_endpoint) as tokens, FaultyServer(answer) as server:
        auth, using = client_of(tokens, early=100), replace(FAST, on_event=told.append)
        async with DicomWeb(server.url, auth=auth, settings=using) as archive:
            await search(archive)
            now += 199
            await search(archive)
            assert len(endpoint.asked) == 1
            now += 2
            gate.clear()
            for _ in range(3):
                await search(archive)
            assert endpoint.issued == 1
            gate.set()
            await another_token(auth, "cnry-token-1")
            await search(archive)
    seen = [one.header("authorization") for one in server.requests]
    assert seen == ["Bearer cnry-token-1"] * 5 + ["Bearer cnry-token-2"]
    assert (endpoint.issued, len(tokens.requests)) == (2, 2)
    assert [one for one in told if isinstance(one, CredentialsRefreshed)] == [CredentialsRefreshed()]


async def another_token(auth: ClientCredentials, than: str) -> None:
    """Wait for the task that asks early."""
    while auth.keeper().value == than:
        await asyncio.sleep(0.001)


async def test_an_endpoint_that_is_down_does_not_matter_while_the_token_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(credentials, "monotonic", lambda: now)
    endpoint = TokenEndpoint(lifetime=300)
    async with FaultyServer(endpoint) as tokens, FaultyServer(endpoint.guard(lambda _: EMPTY)) as server:
        auth = client_of(tokens, early=100)
        async with DicomWeb(server.url, auth=auth, settings=FAST) as archive:
            await search(archive)
            now += 210
            endpoint.script = [Reply(503)]
            for _ in range(3):
                await search(archive)
            while not auth.keeper()._failures:
                await asyncio.sleep(0.001)
            await search(archive)
            assert len(endpoint.asked) == 2  # and not again at once
            now += 20
            await search(archive)
            await another_token(auth, "cnry-token-1")
            assert (len(endpoint.asked), endpoint.issued) == (3, 2)
            now += 1000  # past the end of it: nobody uses it, whatever an archive would say
            await search(archive)
    assert (endpoint.issued, endpoint.refused) == (3, 0)


@pytest.mark.parametrize("lifetime", [None, "soon", 0, -5, True, "1e400", [], "3600"])
async def test_a_lifetime_that_says_nothing(lifetime: object, connect: Connect) -> None:
    """It is used until it is refused; one that is text is a number all the same."""
    endpoint = TokenEndpoint(lifetime=lifetime, uses=3)
    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer(endpoint.guard(lambda _: EMPTY)) as server,
        connect(server.url, auth=client_of(tokens)) as archive,
    ):
        for _ in range(7):
            await search(archive)
    assert (endpoint.issued, endpoint.refused) == (3, 2)


# --- refusals and failures --------------------------------------------------------------------------------------------


def oauth(status: int, code: Any, **more: Any) -> Reply:
    return json_reply({"error": code, "error_description": f"secret {SECRET} of CNRYNAME", **more}, status)


REFUSALS = {
    "wrong secret": (oauth(401, "invalid_client"), "invalid_client: check client_id, client_secret"),
    "scope": (oauth(400, "invalid_scope"), "invalid_scope: check scope"),
    "grant": (oauth(400, "unauthorized_client"), "unauthorized_client: this client may not"),
    "code of its own": (oauth(400, "cnryname_is_unknown"), "status 400; check the client"),
    "no code": (oauth(403, {"cnryname": 1}), "status 403; check the client"),
    "no JSON": (Reply(400, body=b"CNRYNAME"), "status 400; check the client"),
    "nowhere": (Reply(404), "status 404; check token_url"),
    "redirect": (Reply(302, {"Location": "/elsewhere"}), "redirect, which is not followed; check token_url"),
    "not a bearer": (json_reply({"access_token": "cnryname", "token_type": "mac"}), r"no bearer token \(token_type\)"),
    "no kind": (json_reply({"access_token": "cnryname", "token_type": 1}), r"no bearer token \(token_type\)"),
    "two lines": (json_reply({"access_token": "cnryname\r\nX: 1"}), "no access_token that can be sent"),
    "no token": (json_reply({"token_type": "bearer"}), "no access_token that can be sent"),
    "a page": (Reply(200, {"Content-Type": "text/html"}, b"<p>CNRYNAME log in"), "not a JSON object"),
    "a list": (json_reply(["cnryname"]), "not a JSON object"),
    "deep": (Reply(200, body=b"[" * 100_000), "not a JSON object"),
    "too much": (Reply(200, body=b" " * 300_000 + b"{}"), "no token: "),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_is_final_and_says_what_to_check(case: str, connect: Connect) -> None:
    """Of the endpoint's own words nothing shows but a code of the standard."""
    reply, words = REFUSALS[case]
    endpoint = TokenEndpoint()
    endpoint.script = [reply]
    with canary_watch({"secret": SECRET, "name": "CNRYNAME"}) as watch:
        async with (
            FaultyServer(endpoint) as tokens,
            FaultyServer([]) as server,
            connect(server.url, auth=client_of(tokens, SECRET)) as archive,
        ):
            with pytest.raises(AuthenticationFailed, match=words) as caught:
                await search(archive)
        watch.feed(caught.value)
        watch.feed(vars(caught.value))
    assert not caught.value.temporary
    assert len(tokens.requests) == 1
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


FAILURES = {
    "503": [Reply(503)],
    "500 with a code": [oauth(500, "server_error")],
    "told to wait": [Reply(429, {"Retry-After": "0"})],
    "temporarily": [oauth(400, "temporarily_unavailable")],
    "drops": [Reply(drop_after_request=True)],
    "is cut": [Reply(200, body=b'{"access_token": "x"}', cut_after=5, reset=True)],
}


@pytest.mark.parametrize("case", FAILURES)
async def test_an_endpoint_that_fails_is_asked_again(case: str, connect: Connect) -> None:
    endpoint = TokenEndpoint()
    endpoint.script = list(FAILURES[case])
    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer(endpoint.guard(lambda _: EMPTY)) as server,
        connect(server.url, auth=client_of(tokens)) as archive,
    ):
        assert await search(archive) == []
    assert (len(tokens.requests), endpoint.issued) == (2, 1)


@pytest.mark.parametrize("case", FAILURES)
async def test_an_endpoint_that_stays_down_is_a_problem_that_may_pass(case: str, connect: Connect) -> None:
    endpoint = TokenEndpoint()
    endpoint.script = [*FAILURES[case] * 3]
    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer([]) as server,
        connect(server.url, auth=client_of(tokens)) as archive,
    ):
        with pytest.raises(AuthenticationFailed) as caught:
            await search(archive)
    assert (caught.value.temporary, caught.value.attempts, len(tokens.requests)) == (True, 3, 3)


async def test_nobody_listens(connect: Connect) -> None:
    auth = ClientCredentials(f"http://127.0.0.1:{unused_port()}/token", "me", SECRET)
    async with FaultyServer([]) as server, connect(server.url, settings(max_attempts=2), auth=auth) as archive:
        with pytest.raises(
            AuthenticationFailed, match=r"no token: the connection was refused; is the token endp"
        ) as one:
            await search(archive)
        assert (one.value.temporary, one.value.attempts) == (True, 2)


async def test_a_silent_endpoint(connect: Connect) -> None:
    using = settings(max_attempts=1, answer=0.2, search_answer=0.2, connect=0.2)
    async with (
        FaultyServer(Reply(delay_before=60)) as tokens,
        FaultyServer([]) as server,
        connect(server.url, using, auth=client_of(tokens)) as archive,
    ):
        with pytest.raises(AuthenticationFailed, match="the token endpoint did not answer in time") as caught:
            await search(archive)
    assert caught.value.temporary


async def test_a_wrong_secret_shows_nothing(connect: Connect, capfd: Any) -> None:
    """In no exception, frame, log or repr; the token of an archive's answer is masked too."""
    endpoint = TokenEndpoint(client=("me", "another"))
    canaries = {"secret": SECRET, "token": "cnry-token-1"}
    with canary_watch(canaries) as watch:
        async with FaultyServer(endpoint) as tokens:
            auth = client_of(tokens, SECRET)
            watch.feed(auth)
            async with FaultyServer([]) as server, connect(server.url, auth=auth) as archive:
                watch.feed(archive)
                with pytest.raises(AuthenticationFailed, match="invalid_client") as caught:
                    await search(archive)
            watch.feed(caught.value)
            endpoint.client = ("me", SECRET)

            def echo(request: Request) -> Reply:
                return Reply(403, {"X-Error-Reason": f"not with {request.header('authorization')}"})

            async with FaultyServer(echo) as server, connect(server.url, auth=auth) as archive:
                with pytest.raises(AuthenticationFailed, match="may not") as caught:
                    await search(archive)
                watch.feed(caught.value)
                watch.feed(archive._session._credentials)
                watch.feed(auth.keeper())


# --- the way there ----------------------------------------------------------------------------------------------------


async def test_the_authorities_of_the_archive_count_for_the_endpoint(tmp_path: Path) -> None:
    authority, endpoint = Authority(tmp_path / "ca"), TokenEndpoint()
    using = replace(FAST, tls=Tls(ca_file=authority.ca_file))
    context = authority.server("127.0.0.1")
    async with (
        FaultyServer(endpoint, ssl_context=context) as tokens,
        FaultyServer(endpoint.guard(lambda _: EMPTY)) as one,
    ):
        async with DicomWeb(one.url, auth=client_of(tokens), settings=using) as archive:
            assert await search(archive) == []
        async with DicomWeb(one.url, auth=client_of(tokens), settings=FAST) as archive:
            with pytest.raises(AuthenticationFailed, match="could not be verified") as caught:
                await search(archive)
        assert not caught.value.temporary
        async with DicomWeb(one.url, auth=client_of(tokens, settings=using), settings=FAST) as archive:
            assert await search(archive) == []
        careless = replace(FAST, tls=Tls(accept_any_certificate=True))
        async with DicomWeb(one.url, auth=client_of(tokens), settings=careless) as archive:
            with pytest.raises(AuthenticationFailed, match="could not be verified"):
                await search(archive)
    assert endpoint.issued == 2


async def test_the_proxy_of_the_archive_counts_for_the_endpoint() -> None:
    """Requests to ``http://`` go to a proxy whole, so one server can be proxy, archive and endpoint."""
    endpoint = TokenEndpoint()
    archived = endpoint.guard(lambda _: EMPTY)

    async def proxy(request: Request) -> Reply:
        return await endpoint(request) if request.method == "POST" else archived(request)

    async with FaultyServer(proxy) as server:
        auth = ClientCredentials("http://tokens.localhost:1/token", "me", "s3cret")
        using = replace(FAST, proxy=server.url)
        async with DicomWeb("http://archive.localhost:1", auth=auth, settings=using) as archive:
            assert await search(archive) == []
    assert server.requests[0].target == "http://tokens.localhost:1/token"


async def test_a_transport_that_was_passed_is_used_and_left_open(connect: Connect) -> None:
    endpoint = TokenEndpoint(uses=1)
    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer(endpoint.guard(lambda _: EMPTY)) as server,
        connect(server.url, auth=client_of(tokens)) as archive,
    ):
        for _ in range(3):
            assert await search(archive) == []
    assert endpoint.issued == 3


async def test_settings_that_are_for_the_archive_alone(connect: Connect) -> None:
    """A hook that counts the archive's requests does not see those for tokens."""
    endpoint, counted = TokenEndpoint(), 0
    told: list[Any] = []

    async def before() -> None:
        nonlocal counted
        counted += 1

    endpoint.script = [Reply(503)]
    using = replace(
        FAST,
        before_request=before,
        on_event=told.append,
        chunked_upload=True,
        headers={"X-Api-Key": "cnry-key-of-the-archive"},
    )
    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer(endpoint.guard(lambda _: EMPTY)) as server,
        connect(server.url, using, auth=client_of(tokens)) as archive,
    ):
        await search(archive)
    assert counted == 2
    assert [one.operation for one in told if isinstance(one, AttemptFailed)] == ["search for studies"]
    assert {one.operation for one in told if isinstance(one, RequestEnded)} == {"search for studies"}
    assert tokens.requests[0].framing == "content-length"
    assert {request.header("x-api-key") for request in server.requests} == {"cnry-key-of-the-archive"}
    assert {request.header("x-api-key") for request in tokens.requests} == {""}


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"token_url": "http://login.example/token"}, "token_url: the secret would travel unencrypted"),
        ({"token_url": "login.example/token"}, "token_url: give an absolute address"),
        ({"token_url": "https://me:pw@login.example/token"}, "token_url: leave user and password out"),
        ({"token_url": "https://login.example/token?a b"}, "token_url: the address holds a space"),
        ({"token_url": None}, "token_url: give an address"),
        ({"client_id": ""}, "client_id: give text"),
        ({"client_secret": None}, "client_secret: give text"),
        ({"client_secret": "\udc80"}, "client_secret: give text"),
        ({"audience": 3}, "audience: give text"),
        ({"client_auth": "jwt"}, "client_auth: give basic or post"),
        ({"early": -1}, "early: give seconds"),
        ({"early": float("inf")}, "early: give seconds"),
        ({"parameters": {"client_secret": "x"}}, "parameters: client_secret is set by itself"),
        ({"parameters": {"resource": 1}}, "parameters: give text"),
        ({"settings": "none"}, r"settings: give Settings"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: dict[str, Any], words: str) -> None:
    given = {"token_url": "https://login.example/token", "client_id": "me", "client_secret": SECRET} | arguments
    with pytest.raises(UsageError, match=words) as caught:
        ClientCredentials(**given)
    assert SECRET not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_it_shows_no_secret_and_leaves_the_process_in_no_pickle() -> None:
    auth = ClientCredentials("https://login.example/t/token", "me", SECRET)
    assert repr(auth) == "<ClientCredentials https://login.example>"
    with pytest.raises(TypeError, match="is not pickled") as caught:
        pickle.dumps(auth)
    assert SECRET not in str(caught.value)
    assert copy.copy(auth) is copy.deepcopy(auth) is auth


def test_event_loops_in_turn() -> None:
    """A token of one event loop is of no use to a lock in another: each has its own."""
    endpoint = TokenEndpoint()
    auth: list[ClientCredentials] = []

    async def once() -> None:
        async with FaultyServer(endpoint) as tokens, FaultyServer(endpoint.guard(lambda _: EMPTY)) as server:
            auth[:] = auth or [client_of(tokens)]
            auth[0]._origin = tokens.url
            async with DicomWeb(server.url, auth=auth[0], settings=FAST) as archive:
                await search(archive)

    asyncio.run(once())
    asyncio.run(once())
    assert endpoint.issued == 2


# --- transfers --------------------------------------------------------------------------------------------------------


async def test_tokens_that_expire_during_a_long_upload_and_download(tmp_path: Path) -> None:
    """An embedded archive takes each token for four requests; nothing is lost, and each new token is asked for once."""
    endpoint = TokenEndpoint(uses=4)
    files = study_files(60, pixel_bytes=20_000)
    using = settings(batch_instances=2, parallel_stores=3, max_attempts=5)
    async with (
        embedded_archive_for(endpoint) as (embedded, tokens),
        DicomWeb(embedded.url, auth=client_of(tokens), settings=using) as archive,
    ):
        report = await archive.upload(list(files.values()))
        assert [one.status for one in report.outcomes] == [Status.STORED] * len(files)
        uploading = endpoint.issued
        assert uploading >= 30 / 4
        for file in report.outcomes:
            assert file.uids is not None
            await archive.download_instance(*file.uids, to=tmp_path)
    assert sorted(files_below(tmp_path).values())[-len(files) :] == sorted(files.values())
    assert endpoint.issued - uploading >= 60 / 4
    assert len(tokens.requests) == endpoint.issued  # no token was asked for in vain


async def test_a_token_that_expires_while_a_study_comes_from_several_connections(
    tmp_path: Path, connect: Connect
) -> None:
    """An answer breaks again and again, and each time what is asked for next meets a token that has ended."""
    files = list(study_files(40, pixel_bytes=5000).values())
    endpoint, archive = TokenEndpoint(uses=2), MemoryArchive(files)
    guarded = endpoint.guard(archive)
    cuts = iter(range(6))

    def cut_now_and_then(request: Request) -> Any:
        reply = guarded(request)
        is_large = isinstance(reply, Reply) and isinstance(reply.body, bytes) and len(reply.body) > 50_000
        return replace(reply, cut_after=40_000, reset=True) if is_large and next(cuts, None) is not None else reply

    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer(cut_now_and_then) as server,
        connect(server.url, settings(max_attempts=20), auth=client_of(tokens)) as client,
    ):
        report = await client.download_study(uid(1), to=tmp_path)
    assert report.ok
    assert sorted(files_below(tmp_path).values())[-len(files) :] == sorted(files)
    assert endpoint.issued >= 3
    assert len(tokens.requests) == endpoint.issued


# --- other clients ----------------------------------------------------------------------------------------------------


async def test_postdicom_s_own_client_in_the_name_of_a_client() -> None:
    """Its constructor takes user and password, as the vendor's service does; a copy takes anything."""
    endpoint = TokenEndpoint()
    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer(endpoint.guard(lambda _: EMPTY)) as server,
        PostDicom(server.url, "user", "password", settings=FAST) as archive,
    ):
        assert await search(archive.with_options(auth=client_of(tokens))) == []
    assert (endpoint.issued, endpoint.refused) == (1, 0)


def test_the_synchronous_client() -> None:
    """Its event loop is in another thread, where it has a token of its own."""
    endpoint = TokenEndpoint(uses=2)

    async def serve(work: Callable[[str, str], None]) -> None:
        async with FaultyServer(endpoint) as tokens, FaultyServer(endpoint.guard(lambda _: EMPTY)) as server:
            await asyncio.to_thread(work, server.url, f"{tokens.url}/token")

    def work(url: str, token_url: str) -> None:
        auth = ClientCredentials(token_url, "me", "s3cret")
        with DICOMwebClient(url, auth=auth) as client:
            assert [client.search_for_studies(limit=1) for _ in range(5)] == [[]] * 5

    asyncio.run(serve(work))
    assert (endpoint.issued, endpoint.refused) == (3, 2)


@pytest.mark.parametrize("scope", [3, ["a", 3], None])
def test_a_scope_is_text(scope: Any) -> None:
    with pytest.raises(UsageError) as caught:
        ClientCredentials("https://login.example/token", "me", "s3cret", scope=scope)
    assert caught.value.argument == "scope"
