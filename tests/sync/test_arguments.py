"""What the synchronous client is made with: sessions, headers, proxies, certificates, time-outs, retries."""

from __future__ import annotations

import asyncio
import base64
import pickle
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import requests.auth
from pydicom.dataset import Dataset

from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.settings import Retry, Settings, Timeouts
from postdicom_async.sync import DICOMwebClient, HttpSession, load_json_dataset
from postdicom_async.sync import session_utils as utils
from postdicom_async.sync.session_utils import auth_of, proxy_of
from tests.support.certificates import Authority
from tests.sync.raw_server import RawServer, answer, raw_server

URL = "https://archive.example/dicom-web"
BASIC = b"Basic " + base64.b64encode(b"user:secret")


def nothing(server: RawServer, connection: socket.socket) -> None:
    server.send(connection, answer("204 No Content"))


def head_with(**arguments: Any) -> list[bytes]:
    """Return the lines of the head of a request that a client with those arguments makes."""
    with raw_server(nothing) as server, DICOMwebClient(server.url, **arguments) as client:
        assert client.search_for_studies() == []
        return server.heads[0].split(b"\r\n")


class Signature(requests.auth.AuthBase):
    """Signs what it sees of a request."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["X-Signature"] = f"{request.method} {request.path_url}"
        return request


def session_with(**attributes: Any) -> requests.Session:
    session = requests.Session()
    for name, value in attributes.items():
        setattr(session, name, value)
    return session


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"session": utils.create_session_from_user_pass("user", "secret")}, b"Authorization: " + BASIC),
        ({"session": session_with(auth=("user", "secret"))}, b"Authorization: " + BASIC),
        ({"session": session_with(auth=requests.auth.HTTPBasicAuth("user", "secret"))}, b"Authorization: " + BASIC),
        ({"session": session_with(auth=Signature())}, b"X-Signature: GET /studies"),
        ({"auth": Signature()}, b"X-Signature: GET /studies"),
        ({"auth": "a-token"}, b"Authorization: Bearer a-token"),
        ({"headers": {"Authorization": "Bearer a-token"}}, b"Authorization: Bearer a-token"),
        ({"headers": {"Authorization": BASIC.decode()}}, b"Authorization: " + BASIC),
        ({"headers": {"authorization": "Odd words"}}, b"Authorization: Odd words"),
        ({"headers": {"Authorization": "Basic odd"}}, b"Authorization: Basic odd"),
        ({"headers": {"X-Api-Key": "a-key"}, "auth": ("user", "secret")}, b"X-Api-Key: a-key"),
        ({"session": session_with(headers={"User-Agent": "a-program/1"})}, b"User-Agent: a-program/1"),
        ({"session": requests.Session()}, b"User-Agent: postdicom-async"),
        ({"settings": Settings(headers={"X-One": "1"}), "headers": {"X-Two": "2"}}, b"X-One: 1"),
        ({"settings": Settings(headers={"user-agent": "a-program/1"})}, b"user-agent: a-program/1"),
    ],
)
def test_who_asks(arguments: dict[str, Any], line: bytes) -> None:
    lines = head_with(**arguments)
    assert line.lower() in [each.lower() for each in lines]
    names = [each.partition(b":")[0].lower() for each in lines if each]
    assert len(names) == len(set(names))


def test_digest_authentication() -> None:
    auth = utils.create_session_from_auth(requests.auth.HTTPDigestAuth("user", "secret"))
    assert isinstance(auth_of(auth), httpx.DigestAuth)


def test_credentials_of_google() -> None:
    credentials = pytest.importorskip("google.auth.credentials")

    class Identity(credentials.Credentials):  # type: ignore[misc, name-defined]
        def refresh(self, _request: Any) -> None:
            self.token = "of-google"

    session = utils.create_session_from_gcp_credentials(Identity())
    assert b"Authorization: Bearer of-google" in head_with(session=session)
    authorized = session_with(credentials=Identity())
    assert b"Authorization: Bearer of-google" in head_with(session=authorized)


class Odd(requests.Session):
    """Sends requests in its own way."""

    def request(self, *args: Any, **options: Any) -> Any:
        return super().request(*args, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"callback": print}, "callback: .*on_event"),
        ({"session": Odd()}, "session: .*own way"),
        ({"session": session_with(params={"key": "value"})}, "session: .*additional_params"),
        ({"session": session_with(cookies={"a": "b"})}, "session: cookies"),
        ({"session": session_with(hooks={"response": [print]})}, "session: hooks"),
        ({"qido_url_prefix": ""}, "qido_url_prefix"),
        ({"wado_url_prefix": "a?b"}, "wado_url_prefix"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"proxies": "http://proxy:1"}, "proxies"),
        ({"proxies": {"https": "nonsense"}}, "proxy"),
        ({"headers": {"Host": "elsewhere"}}, "headers"),
        ({"headers": {"Bad name": "x"}}, "headers"),
        ({"headers": {"X-A": "new\nline"}}, "headers"),
        ({"headers": {"X-A": 5}}, "headers"),
        ({"settings": Settings(), "timeout": -1}, "timeouts"),
        ({"settings": 5}, "settings"),
        ({"dialect": "morse"}, "dialect"),
        ({"auth": 5}, "auth"),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        DICOMwebClient(URL, **arguments)
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize("url", ["", "archive", "ftp://archive", "https://user:secret@archive/"])
def test_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        DICOMwebClient(url)


def test_headers_and_credentials_do_not_travel_in_the_open() -> None:
    for arguments in ({"headers": {"X-Api-Key": "k"}}, {"auth": ("u", "p")}):
        with pytest.raises(UsageError, match="unencrypted"):
            DICOMwebClient("http://archive.example", **arguments)
    with pytest.raises(UsageError, match="headers"):
        Settings(headers=[("a", "b")])  # type: ignore[arg-type]


# --- settings ---------------------------------------------------------------------------------------------------------


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path).ca_file
    session = utils.add_certs_to_session(utils.create_session(), str(authority))
    assert DICOMwebClient(URL, session).settings.tls.ca_file == authority
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    assert DICOMwebClient(URL).settings.tls.ca_file == authority
    assert DICOMwebClient(URL, session_with(trust_env=False)).settings.tls.ca_file is None
    assert DICOMwebClient(URL, session_with(verify=False)).settings.tls.accept_any_certificate
    with pytest.raises(LocalFileError):
        utils.add_certs_to_session(HttpSession(), cert=str(tmp_path / "none.pem"))


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = "http://proxy.example:3128"
    assert DICOMwebClient(URL, proxies={"https": proxy}).settings.proxy == proxy
    assert DICOMwebClient(URL, session_with(proxies={"all": proxy})).settings.proxy == proxy
    assert DICOMwebClient(URL, proxies={"http": proxy}).settings.proxy is None
    assert proxy_of({"https://archive.example": "a", "https": "b"}, URL) == "a"
    assert DICOMwebClient(URL).settings.use_environment_proxies
    assert not DICOMwebClient(URL, session_with(trust_env=False)).settings.use_environment_proxies
    assert not DICOMwebClient(URL, settings=Settings()).settings.use_environment_proxies


def test_time_outs() -> None:
    assert DICOMwebClient(URL).settings.timeouts == Timeouts()
    both = DICOMwebClient(URL, timeout=(5, 90)).settings.timeouts
    assert (both.connect, both.answer, both.search_answer, both.idle_read) == (5, 90, 90, 90)
    assert DICOMwebClient(URL, timeout=20).settings.timeouts.connect == 20


def busy(server: RawServer, connection: socket.socket) -> None:
    server.send(connection, answer("503 Busy"))


def test_retries() -> None:
    """A 503 is repeated as often as was set last, also after the first call."""
    settings = Settings(retry=Retry(base=0.001))
    with raw_server(busy) as server, DICOMwebClient(server.url, settings=settings) as client:

        def requests_made() -> int:
            before = len(server.heads)
            with pytest.raises(requests.HTTPError, match="503"):
                client.search_for_studies()
            return len(server.heads) - before

        assert requests_made() == 5
        client.set_http_retry_params(max_attempts=2, wait_exponential_multiplier=1)
        assert requests_made() == 2
        client.set_http_retry_params(retry=False)
        assert requests_made() == 1
        assert client.settings.retry.max_attempts == 1
        client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=1, retriable_error_codes=(503, 500))
        assert requests_made() == 3
        with pytest.raises(UsageError, match="404 is never repeated"):
            client.set_http_retry_params(retriable_error_codes=(404,))


# --- arguments of calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.retrieve_study(None),
        lambda client: client.retrieve_series("1.2", None),
        lambda client: client.retrieve_instance("1.2", "1.3", "no uid"),
        lambda client: client.retrieve_instance_frames("1.2", "1.3", "1.4", []),
        lambda client: client.retrieve_instance_frames("1.2", "1.3", "1.4", [0]),
        lambda client: client.retrieve_instance_frames("1.2", "1.3", "1.4", ["1"]),
        lambda client: client.retrieve_bulkdata("https://elsewhere.example/x"),
        lambda client: client.retrieve_bulkdata("/x", byte_range=(5, 2)),
        lambda client: client.retrieve_bulkdata("/x", byte_range=()),
        lambda client: client.search_for_studies(limit=0),
        lambda client: client.search_for_studies(offset=-1),
        lambda client: client.search_for_studies(fuzzymatching="yes"),
        lambda client: client.search_for_studies(search_filters=["PatientID"]),
        lambda client: client.search_for_studies(search_filters={"NoSuchThing": "x"}),
        lambda client: client.search_for_studies(additional_params=["a"]),
        lambda client: client.search_for_studies(additional_params={"a&b": "c"}),
        lambda client: client.search_for_studies(additional_params={"limit": "many"}),
        lambda client: client.store_instances([Dataset()]),
        lambda _: load_json_dataset({"error": "no"}),
        lambda _: create_from_nothing(),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(call: Any) -> None:
    with DICOMwebClient(URL) as client, pytest.raises(UsageError):
        call(client)


def create_from_nothing() -> DICOMwebClient:
    return DICOMwebClient(URL, dialect=5)  # type: ignore[arg-type]


def test_lists_in_filters_and_parameters() -> None:
    with raw_server(nothing) as server, DICOMwebClient(server.url) as client:
        client.search_for_series(
            search_filters={"StudyInstanceUID": ("1.2", "1.3"), "Modality": ["CT", "MR"], "PatientWeight": 70.5},
            additional_params={"extra": [1, 2], "fuzzymatching": "true", "Modality": "SM"},
            fuzzymatching=False,
        )
        target = server.heads[0].split()[1].decode()
    assert (
        target == "/series?extra=1&extra=2&fuzzymatching=true&Modality=SM&StudyInstanceUID=1.2,1.3&PatientWeight=70.5"
    )


def test_a_list_of_other_values_than_uids_is_a_search_for_each() -> None:
    with raw_server(nothing) as server, DICOMwebClient(server.url) as client:
        client.search_for_series(search_filters={"Modality": {"CT"}, "PatientID": ("1", "2")}, offset=3)
        targets = [head.split()[1].decode() for head in server.heads]
    assert targets == [f"/series?Modality=CT&PatientID={one}&limit=1000&offset=0" for one in (1, 2)]


def test_permissive_uids() -> None:
    with raw_server(nothing) as server, DICOMwebClient(server.url, permissive_uid=True) as client:
        assert client.retrieve_series_metadata("any-thing_1", "1.02") == []
        assert server.heads[0].split()[1] == b"/studies/any-thing_1/series/1.02/metadata"
        for wrong in ("", "a/b", 5):
            with pytest.raises(UsageError, match="permissively"):
                client.retrieve_study_metadata(wrong)  # type: ignore[arg-type]


def test_the_shapes_of_postdicom() -> None:
    with raw_server(nothing) as server, DICOMwebClient(server.url, dialect="postdicom") as client:
        client.search_for_series("1.2", search_filters={"Modality": "CT"})
        with pytest.raises(UsageError, match="study_instance_uid"):
            client.search_for_series()
        assert server.heads[0].split()[1] == b"/studies/series?0020000D=1.2&00080060=CT"


def test_json_to_a_data_set(caplog: pytest.LogCaptureFixture) -> None:
    dataset = load_json_dataset({"00100020": {"vr": "LO", "Value": ["P-1"]}, "00280010": {"vr": "US", "Value": ["x"]}})
    assert dataset.PatientID == "P-1"
    assert "Rows" not in dataset
    assert "00280010 has a value that cannot be read" in caplog.text


def test_a_client_shows_its_server_and_cannot_be_pickled() -> None:
    assert repr(DICOMwebClient(URL, auth=("user", "secret"))) == "<DICOMwebClient https://archive.example>"
    with pytest.raises(TypeError, match="one in each process"):
        pickle.dumps(DICOMwebClient(URL))


async def test_it_may_be_called_where_an_event_loop_runs() -> None:
    with raw_server(nothing) as server, DICOMwebClient(server.url) as client:
        assert client.search_for_studies() == []
        assert await asyncio.to_thread(client.search_for_studies) == []
