"""Identities of Google, Azure and AWS, by their own libraries, against what stands in for their endpoints.

The endpoints run in the event loop of the test: a library that blocked it would wait for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import pickle
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import botocore.auth
import botocore.credentials
import google.auth.credentials
import pytest
from botocore.awsrequest import AWSRequest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from postdicom_async import AuthenticationFailed, DicomWeb, Settings, UsageError, tokens
from postdicom_async.tokens import in_threads
from tests.faults.archive import MemoryArchive
from tests.faults.clients import FAST, settings
from tests.support.bodies import json_reply
from tests.support.canaries import CanaryWatch, canary_watch
from tests.support.dicom_files import study_files
from tests.support.faulty_server import FaultyServer, Reply, Request

EMPTY = json_reply([])
GOOGLE, AZURE = "cnry.google.token", "e30.e30.cnry-azure-signature"  # the second a JWT, which azure-identity looks into
FILTERS = {"PatientName": "CNRYNAME*"}
ACCOUNT = "cnry-account-of-somebody"
AWS_SECRET, AWS_SESSION = "cnry/Secret+Access/Key1", "cnry-session-token=="


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide identities that whoever runs the tests may have."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def watch() -> Iterator[CanaryWatch]:
    canaries = {
        "google": GOOGLE,
        "azure": AZURE,
        "aws secret": AWS_SECRET,
        "aws session": AWS_SESSION,
        "name": "CNRYNAME",
        "username": "cnry-user",
        "password": "cnry-password",
    }
    with canary_watch(canaries) as watch:
        yield watch


async def search(archive: DicomWeb) -> list[Any]:
    return await archive.search_for_studies(FILTERS, limit=1).all()


async def many(url: str, auth: Any, using: Settings = FAST) -> None:
    async with DicomWeb(url, auth=auth, settings=using) as archive:
        assert await asyncio.gather(*(search(archive) for _ in range(20))) == [[]] * 20


def takes(token: str) -> Any:
    return lambda request: EMPTY if request.header("authorization") == f"Bearer {token}" else Reply(401)


# --- Google -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service_account() -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "client_email": "pacs@hospital.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": key.private_bytes(*form).decode(),
    }


def name_account(service_account: dict[str, str], url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "account.json"
    file.write_text(json.dumps({**service_account, "token_uri": f"{url}/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


async def test_google_default_credentials(
    service_account: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: CanaryWatch
) -> None:
    asked: list[dict[str, list[str]]] = []

    def endpoint(request: Request) -> Reply:
        asked.append(parse_qs(request.body.decode()))
        return json_reply({"access_token": GOOGLE, "token_type": "Bearer", "expires_in": 3600})

    async with FaultyServer(endpoint) as server, FaultyServer(takes(GOOGLE)) as archive:
        name_account(service_account, server.url, tmp_path, monkeypatch)
        auth = tokens.google()
        watch.feed(auth)
        await many(archive.url, auth)
        await many(archive.url, auth)  # another client
        ends_in = auth.keeper()._ends_at - time.monotonic()
    assert len(asked) == 1
    assert asked[0]["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert 3000 < ends_in <= 3600  # so it is replaced early


@pytest.mark.parametrize(
    ("reply", "temporary"),
    [(json_reply({"error": "invalid_grant", "error_description": ACCOUNT}, 400), False), (Reply(503), True)],
)
async def test_google_refuses_or_fails(
    service_account: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    watch: CanaryWatch,
    reply: Reply,
    temporary: bool,
) -> None:
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    async with FaultyServer(lambda _: reply) as server, FaultyServer([]) as archive:
        name_account(service_account, server.url, tmp_path, monkeypatch)
        with pytest.raises(AuthenticationFailed, match=r"google gave no credentials \(RefreshError\)") as caught:
            await many(archive.url, tokens.google(), settings(max_attempts=2))
        watch.feed(caught.value)
        assert ACCOUNT not in f"{caught.value} {vars(caught.value)}"
    assert (caught.value.temporary, caught.value.__context__) == (temporary, None)


async def test_an_identity_of_google_that_is_passed(watch: CanaryWatch) -> None:
    """It may not say when its token ends."""

    class Identity(google.auth.credentials.Credentials):
        refreshed = 0

        def refresh(self, request: Any) -> None:
            self.refreshed += 1
            self.token, self.expiry = GOOGLE, None

    identity = Identity()  # type: ignore[no-untyped-call]
    async with FaultyServer(takes(GOOGLE)) as archive:
        await many(archive.url, tokens.google(identity))
    assert identity.refreshed == 1


async def test_google_knows_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    async with FaultyServer([]) as archive:
        with pytest.raises(AuthenticationFailed, match="DefaultCredentialsError") as caught:
            await many(archive.url, tokens.google())
    assert not caught.value.temporary


# --- Azure ------------------------------------------------------------------------------------------------------------


async def test_azure_managed_identity(monkeypatch: pytest.MonkeyPatch, watch: CanaryWatch) -> None:
    """As an app service has it: DefaultAzureCredential finds the endpoint in the environment."""

    def endpoint(request: Request) -> Reply:
        query = dict(parse_qsl(urlsplit(request.target).query))
        if query["resource"] != "https://dicom.healthcareapis.azure.com" or request.header("x-identity-header") != "h":
            return Reply(400)
        told = {"access_token": AZURE, "expires_on": str(int(time.time()) + 7200), "token_type": "Bearer"}
        return json_reply({**told, "resource": query["resource"]})

    async with FaultyServer(endpoint) as server, FaultyServer(takes(AZURE)) as archive:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        auth = tokens.azure()
        watch.feed(auth)
        await many(archive.url, auth)
        await many(archive.url, auth)
        assert auth.keeper()._ends_at > time.monotonic() + 3000
    assert len(server.requests) == 1


async def test_azure_refuses(watch: CanaryWatch) -> None:
    from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

    class Credential:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def get_token(self, scope: str) -> Any:
            assert scope == "https://pacs.example/.default"
            raise self.error

    async with FaultyServer([]) as archive:
        for error, temporary in (
            (ClientAuthenticationError(ACCOUNT), False),
            (ServiceRequestError(ACCOUNT), True),
        ):
            auth = tokens.azure(Credential(error), scope="https://pacs.example/.default")
            with pytest.raises(AuthenticationFailed, match=type(error).__name__) as caught:
                await many(archive.url, auth, settings(max_attempts=2))
            watch.feed(caught.value)
            assert ACCOUNT not in f"{caught.value} {vars(caught.value)}"
            assert caught.value.temporary is temporary


# --- AWS --------------------------------------------------------------------------------------------------------------


def aws_archive(archive: Any, *, payloads: list[str] | None = None) -> Any:
    """Let botocore sign each request once more, as it came, and compare."""

    def checked(request: Request) -> Reply:
        given = request.header("authorization")
        signed = dict(part.split("=", 1) for part in given.removeprefix("AWS4-HMAC-SHA256 ").split(", "))
        names = signed["SignedHeaders"].split(";")
        assert {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"} <= set(names)
        body_hash = request.header("x-amz-content-sha256")
        if payloads is not None:
            payloads.append(body_hash)
        if body_hash not in {request.sha256, "UNSIGNED-PAYLOAD"}:
            return Reply(403, body=b"the body is another")
        headers = {name: request.header(name) for name in names}
        again = AWSRequest(request.method, f"https://{request.header('host')}{request.target}", headers=headers)
        again.context["timestamp"] = request.header("x-amz-date")
        keys = botocore.credentials.Credentials("AKIDEXAMPLE", AWS_SECRET, AWS_SESSION)
        signer = botocore.auth.SigV4Auth(keys, "medical-imaging", "us-east-1")
        wanted = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
        if signed["Signature"] != wanted or not abs(_seconds_since(request.header("x-amz-date"))) < 300:
            return Reply(403, body=b"another signature")
        reply: Reply = archive(request)
        return reply

    return checked


def _seconds_since(stamp: str) -> float:
    return (datetime.now(UTC) - datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)).total_seconds()


def name_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", AWS_SESSION)


@pytest.fixture
def quiet_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the signer of the stand-in, which is not ours, from writing what it signs to the log."""
    monkeypatch.setattr(botocore.auth.logger, "debug", lambda *_: None)


@pytest.mark.usefixtures("quiet_signer")
@pytest.mark.parametrize("payload", ["signed", "unsigned"])
async def test_aws_signatures(
    payload: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, watch: CanaryWatch
) -> None:
    """Searches with signs that mean something, uploads small and streamed, and a download."""
    name_keys(monkeypatch)
    files = [*study_files(3).values(), *study_files(2, study=2, pixel_bytes=700_000).values()]
    holds, payloads = MemoryArchive(), list[str]()
    async with FaultyServer(aws_archive(holds, payloads=payloads)) as server:
        auth = tokens.aws("us-east-1", payload=payload)
        watch.feed(auth)
        async with DicomWeb(f"{server.url}", auth=auth, settings=settings(batch_instances=2)) as archive:
            filters = {"PatientName": "CNRYNAME^J*", "StudyDate": "20240101-20241231"}
            assert await archive.search_for_studies(filters, fields=["PatientID", "StudyDate"]).all() == []
            report = await archive.upload(files)
            assert report.ok
            (study, *_) = {one.uids.study_instance_uid for one in report.outcomes if one.uids is not None}
            assert (await archive.download_study(study, to=tmp_path / "in")).ok
    assert sorted(holds.stored.values()) == sorted(files)
    sent = [one for one in payloads if one != hashlib.sha256().hexdigest()]
    assert sent
    assert (set(sent) == {"UNSIGNED-PAYLOAD"}) == (payload == "unsigned")


@pytest.mark.usefixtures("quiet_signer")
async def test_aws_keys_of_a_container_are_fetched_in_a_thread_and_again(
    monkeypatch: pytest.MonkeyPatch, watch: CanaryWatch
) -> None:
    """The first are about to end, so that they are fetched again for the next request; the second last."""
    asked = 0

    def endpoint(_: Request) -> Reply:
        nonlocal asked
        asked += 1
        ends = datetime.now(UTC) + timedelta(minutes=2 if asked == 1 else 600)
        keys = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": AWS_SECRET, "Token": AWS_SESSION}
        return json_reply({**keys, "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ")})

    async with FaultyServer(endpoint) as server, FaultyServer(aws_archive(lambda _: EMPTY)) as archive:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
        auth = tokens.aws("us-east-1")
        async with DicomWeb(archive.url, auth=auth, settings=FAST) as client:
            await search(client)
        await many(archive.url, auth)
    assert asked == 2


async def test_aws_without_keys_and_with_keys_that_cannot_be_fetched(
    monkeypatch: pytest.MonkeyPatch, watch: CanaryWatch
) -> None:
    async with FaultyServer([]) as archive:
        with pytest.raises(AuthenticationFailed, match="aws gave no credentials") as caught:
            await many(archive.url, tokens.aws("us-east-1"))
        assert not caught.value.temporary
        attempts = 0

        class Failing:
            def refresh_needed(self) -> bool:
                return True

            def get_frozen_credentials(self) -> Any:
                nonlocal attempts
                attempts += 1
                raise TimeoutError(ACCOUNT)

        async with DicomWeb(archive.url, auth=tokens.aws("us-east-1", credentials=Failing()), settings=FAST) as client:
            with pytest.raises(AuthenticationFailed, match="TimeoutError") as caught:
                await search(client)
        watch.feed(caught.value)
        assert ACCOUNT not in f"{caught.value} {vars(caught.value)}"
    assert (caught.value.temporary, caught.value.attempts, attempts) == (True, 3, 3)


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{"region": ""}, {"region": "us east"}, {"region": "x", "service": None}, {"region": "x", "payload": "none"}],
)
def test_arguments_of_aws(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give "):
        tokens.aws(**arguments)


@pytest.mark.parametrize("extra", ["google", "azure", "aws"])
def test_an_extra_that_is_missing(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> None:
        if "." in name:  # whose parent is not there
            raise ModuleNotFoundError(name)

    monkeypatch.setattr(in_threads, "find_spec", find)
    make: Any = {"google": tokens.google, "azure": tokens.azure, "aws": lambda: tokens.aws("us-east-1")}[extra]
    with pytest.raises(UsageError, match=rf"pip install \"postdicom-async\[{extra}\]\""):
        make()


def test_nothing_of_them_is_pickled() -> None:
    for auth in (tokens.google(), tokens.azure()):
        with pytest.raises(TypeError, match="is not pickled"):
            pickle.dumps(auth)


def test_signatures_are_for_asynchronous_clients() -> None:
    import httpx

    with pytest.raises(RuntimeError, match="asynchronous"):
        next(tokens.aws("us-east-1").sync_auth_flow(httpx.Request("GET", "https://h")))
