"""One client for the users of a web backend: each request in the name of its own user, on shared connections."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from postdicom_async import AuthenticationFailed, DicomWeb, PostDicom, ServerError, UsageError
from tests.faults.clients import FAST, settings, transport_of
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from tests.faults.clients import Connect

USERS = ("ann", "bob")


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:pw-of-{user}".encode()).decode()


class Archive:
    """Answers a search for a patient's ID with that ID, and notes who asked for whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, request: Request) -> Reply:
        _, _, query = request.target.partition("?")
        patient = dict(one.split("=", 1) for one in query.split("&")).get("PatientID", "")
        self.asked.append((request.header("authorization"), patient))
        await asyncio.sleep(0.002)
        return json_reply([dicom_json(StudyInstanceUID=uid(1), PatientID=patient)])


def auth_of(kind: str, user: str) -> Any:
    """Return a user's credentials in one of the ways there are, all of which send the same header."""
    if kind == "httpx.Auth":
        return httpx.BasicAuth(user, f"pw-of-{user}")
    return (user, f"pw-of-{user}")


@pytest.mark.parametrize("kind", ["pair", "httpx.Auth"])
async def test_two_users_at_once_never_mix(kind: str, connect: Connect) -> None:
    archive = Archive()
    async with FaultyServer(archive) as server, connect(server.url, settings(connections=8)) as client:
        of_user = {user: client.with_options(auth=auth_of(kind, user)) for user in USERS}

        async def search(user: str, number: int) -> None:
            (study,) = await of_user[user].search_for_studies({"PatientID": f"{user}-{number}"}, limit=1).all()
            assert study.PatientID == f"{user}-{number}"

        await asyncio.gather(*(search(user, number) for number in range(100) for user in USERS))
        await client.search_for_studies({"PatientID": "nobody"}, limit=1).all()
    assert sorted(archive.asked) == sorted(
        [(basic(user), f"{user}-{number}") for number in range(100) for user in USERS] + [("", "nobody")]
    )
    assert server.connections <= 8, "the pool is shared"


async def test_each_user_s_token_is_refreshed_for_that_user_alone(connect: Connect) -> None:
    given: dict[str, list[str]] = {user: [] for user in USERS}
    valid = {user: f"{user}-1" for user in USERS}

    def source(user: str) -> Any:
        async def token() -> str:
            await asyncio.sleep(0.01)
            given[user].append(f"{user}-{len(given[user]) + 1}")
            return given[user][-1]

        return token

    def answer(request: Request) -> Reply:
        user = request.header("authorization").removeprefix("Bearer ").partition("-")[0]
        return json_reply([]) if request.header("authorization") == f"Bearer {valid[user]}" else Reply(401)

    async with FaultyServer(answer) as server, connect(server.url) as client:
        of_user = {user: client.with_options(auth=source(user)) for user in USERS}
        for expired in range(2):
            searches = [one.search_for_studies(limit=1).all() for one in of_user.values() for _ in range(20)]
            await asyncio.gather(*searches)
            valid["bob"] = f"bob-{expired + 2}"
    assert given == {"ann": ["ann-1"], "bob": ["bob-1", "bob-2"]}


async def test_a_user_s_words_are_masked_as_that_user_s(connect: Connect) -> None:
    """A server that repeats whom it refused, in words that would else be shown."""

    def answer(request: Request) -> Reply:
        token = request.header("authorization").removeprefix("Bearer ")
        return Reply(400, {"Content-Type": "text/plain"}, f"invalid value {token}".encode())

    async with FaultyServer(answer) as server, connect(server.url, auth="request") as client:
        for one, token in ((client, "request"), (client.with_options(auth="server"), "server")):
            with pytest.raises(ServerError) as caught:
                await one.retrieve_study_metadata(uid(1)).all()
            assert caught.value.reason is not None
            assert token not in caught.value.reason
            assert "[sent value]" in caught.value.reason


async def test_a_copy_keeps_its_user_and_other_options(connect: Connect) -> None:
    archive = Archive()
    async with FaultyServer(archive) as server, connect(server.url, auth=("ann", "pw-of-ann")) as client:
        bob = client.with_options(auth=("bob", "pw-of-bob"))
        await bob.with_options(fsync=True).search_for_studies(limit=1).all()
        await bob.with_options(auth=None).search_for_studies(limit=1).all()
        await client.with_options(fsync=True).search_for_studies(limit=1).all()
    assert [who for who, _ in archive.asked] == [basic("bob"), "", basic("ann")]


async def test_every_request_of_a_call_is_the_copy_s(connect: Connect) -> None:
    """An upload looks, sends, asks and retrieves: all in one name."""
    who: set[str] = set()

    def answer(request: Request) -> Reply:
        who.add(request.header("authorization"))
        return Reply(200) if request.method == "POST" else Reply(404)

    async with FaultyServer(answer) as server, connect(server.url, auth=("ann", "pw-of-ann")) as client:
        bob = client.with_options(auth=("bob", "pw-of-bob"), retry=settings(max_attempts=1).retry)
        await bob.upload(small_dicom(), existing="skip")
    assert len(server.requests) > 2
    assert who == {basic("bob")}


async def test_the_vendor_s_operations_too(transport_name: str) -> None:
    who: list[str] = []

    def answer(request: Request) -> Reply:
        who.append(request.header("authorization"))
        return Reply(200, {"Content-Type": "application/json"}, b"[]")

    async with FaultyServer(answer) as server:
        transport = transport_of(transport_name, FAST)
        async with PostDicom(server.url, "ann", "pw-of-ann", settings=FAST, transport=transport) as account:
            bob = account.with_options(auth=("bob", "pw-of-bob"))
            await bob.search_for_studies(limit=1).all()
            await bob.folders.search(name="letters").all()
            await account.folders.search(name="letters").all()
    assert who == [basic("bob"), basic("bob"), basic("ann")]


async def test_credentials_that_would_travel_in_the_open_are_refused() -> None:
    client = DicomWeb("http://archive.example/dicom-web")
    with pytest.raises(UsageError, match="unencrypted"):
        client.with_options(auth=("ann", "pw"))
    with pytest.raises(UsageError, match="auth"):
        client.with_options(auth=12)  # type: ignore[arg-type]  # on purpose
    assert client.with_options(auth=None).settings == client.settings


async def test_a_wrong_user_harms_no_other(connect: Connect) -> None:
    def answer(request: Request) -> Reply:
        return json_reply([]) if request.header("authorization") == basic("ann") else Reply(401)

    async with FaultyServer(answer) as server, connect(server.url, auth=("ann", "pw-of-ann")) as client:
        with pytest.raises(AuthenticationFailed):
            await client.with_options(auth=("bob", "pw-of-bob")).search_for_studies().all()
        assert await client.search_for_studies(limit=1).all() == []
