"""What the synchronous client raises: caught as ours and as those of requests, and telling nothing private."""

from __future__ import annotations

import copy
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from typing import Any

import pytest
import requests
from pydicom import Dataset, dcmread

import postdicom_async.errors
from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    NotFound,
    PostdicomError,
    ProtocolError,
    RateLimited,
    ServerError,
    UsageError,
)
from postdicom_async.settings import Retry, Settings
from postdicom_async.sync import DICOMwebClient, HTTPError
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import unused_port
from tests.sync.raw_server import RawServer, answer, raw_server

ONCE = Settings(retry=Retry(max_attempts=1))
Serve = Callable[[RawServer, socket.socket], None]


def answering(data: bytes) -> Serve:
    return lambda server, connection: server.send(connection, data)


STATUSES: list[tuple[str, type[PostdicomError]]] = [
    ("400 Bad Request", ServerError),
    ("401 Unauthorized", AuthenticationFailed),
    ("403 Forbidden", AuthenticationFailed),
    ("404 Not Found", NotFound),
    ("406 Not Acceptable", ServerError),
    ("409 Conflict", ServerError),
    ("429 Too Many Requests", RateLimited),
    ("500 Internal Server Error", ServerError),
    ("599 Odd", ServerError),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_a_status(status: str, kind: type[PostdicomError]) -> None:
    with raw_server(answering(answer(status))) as server, DICOMwebClient(server.url, settings=ONCE) as client:
        for call in (
            client.search_for_studies,
            lambda: client.iter_study("1.2.3"),
            lambda: client.delete_study("1.2.3"),
        ):
            with pytest.raises(requests.HTTPError) as caught:
                call()
            error: Any = caught.value
            assert [one for one in (kind, HTTPError, requests.RequestException) if not isinstance(error, one)] == []
            assert error.response.status_code == error.status == int(status[:3])
            assert error.response.reason == ("" if status == "599 Odd" else status[4:])
            assert not error.response.ok
            assert not error.response
            assert (error.request, error.errno, error.response.content) == (None, None, b"")


def test_no_connection_and_a_broken_one() -> None:
    with DICOMwebClient(f"http://127.0.0.1:{unused_port()}", settings=ONCE) as client:
        with pytest.raises(requests.ConnectionError) as caught:
            client.search_for_studies()
        assert isinstance(caught.value, ConnectionFailed)
        assert caught.value.temporary
    with raw_server(lambda *_: None) as server, DICOMwebClient(server.url, settings=ONCE) as client:
        with pytest.raises(requests.ConnectionError) as caught:
            client.delete_study("1.2.3")
        assert isinstance(caught.value, ConnectionFailed)
        assert caught.value.may_have_arrived


def test_an_answer_that_is_none() -> None:
    page = answering(answer("200 OK", b"<html>", "text/html"))
    with raw_server(page) as server, DICOMwebClient(server.url, settings=ONCE) as client:
        for call in (client.search_for_studies, lambda: client.retrieve_study("1.2.3")):
            with pytest.raises(requests.RequestException) as caught:
                call()
            error: Any = caught.value
            assert [isinstance(error, one) for one in (ProtocolError, requests.HTTPError)] == [True, False]


def multipart(*parts: bytes) -> bytes:
    body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts) + b"--b--"
    return answer("200 OK", body, "multipart/related; boundary=b")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (multipart(small_dicom(), small_dicom()), "2 instances"),
        (multipart(small_dicom(instance=uid(9))), "another instance"),
        (multipart(b"no DICOM"), "cannot read"),
    ],
)
def test_another_instance_than_asked_for(data: bytes, words: str) -> None:
    with raw_server(answering(data)) as server, DICOMwebClient(server.url) as client:
        with pytest.raises(requests.RequestException, match=words) as caught:
            client.retrieve_instance(uid(1), uid(1, 1), uid(1, 1, 1))
        assert type(caught.value).__name__ == "ProtocolError"


def test_answers_with_nothing_in_them() -> None:
    with raw_server(answering(answer("204 No Content"))) as server, DICOMwebClient(server.url) as client:
        assert client.retrieve_series_metadata("1.2", "1.3") == []
        assert client.store_instances([dcmread(BytesIO(small_dicom()))]) == Dataset()
        with pytest.raises(requests.RequestException, match="no metadata"):
            client.retrieve_instance_metadata("1.2", "1.3", "1.4")


def test_answers_to_a_store() -> None:
    xml = (
        b'<NativeDicomModel><DicomAttribute tag="00081190" vr="UR"><Value number="1">http://a</Value></DicomAttribute>'
    )
    datasets = [dcmread(BytesIO(small_dicom()))]
    with raw_server(answering(answer("202 Accepted", xml + b"</NativeDicomModel>", "application/dicom+xml"))) as server:
        assert DICOMwebClient(server.url).store_instances(datasets).RetrieveURL == "http://a"
    unreadable = answer("200 OK", b"stored, I think", "application/dicom+json")
    with raw_server(answering(unreadable)) as server, pytest.raises(requests.RequestException, match="cannot be read"):
        DICOMwebClient(server.url).store_instances(datasets)
    with raw_server(answering(answer("409 Conflict"))) as server, pytest.raises(requests.HTTPError, match="409"):
        DICOMwebClient(server.url).store_instances(datasets, uid(1))


def test_the_words_that_wsidicom_looks_for_are_shown() -> None:
    """It mends a search by what the archive complains about: see ``_search_for_instances`` in its web client."""
    words = [
        "SOPClassUID is not a supported instance",
        "unknown/unsupported QIDO attribute: AvailableTransferSyntaxUID",
    ]
    for text in words:
        with raw_server(answering(answer("400 Bad Request", text.encode(), "text/plain"))) as server:
            with DICOMwebClient(server.url, settings=ONCE) as client, pytest.raises(requests.HTTPError) as caught:
                client.search_for_instances()
            assert caught.value.response is not None
            assert text in caught.value.response.text
            assert type(caught.value.response.text) is str, "nothing else of what was said comes with it"


def test_errors_can_be_copied_and_sent_to_other_processes() -> None:
    data = answer("404 Not Found", b"no such study", "text/plain")
    with raw_server(answering(data)) as server, pytest.raises(NotFound) as caught:
        DICOMwebClient(server.url).retrieve_study("1.2.3")
    for other in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert isinstance(other, requests.HTTPError)
        assert isinstance(other, NotFound)
        assert str(other) == str(caught.value)
        assert other.response is not None
        assert other.response.status_code == HTTPStatus.NOT_FOUND
        assert type(other) is type(caught.value)


def test_without_requests() -> None:
    """In a process that cannot import it: the same errors, which are no errors of requests then."""
    script = """
import sys
sys.modules["requests"] = None
from postdicom_async import NotFound
from postdicom_async.sync import DICOMwebClient, HTTPError
from postdicom_async.sync.session_utils import create_session_from_user_pass
with DICOMwebClient(sys.argv[1], create_session_from_user_pass("u", "p")) as client:
    try:
        client.retrieve_study("1.2.3")
    except HTTPError as error:
        print(isinstance(error, NotFound), error.response.status_code, error.response)
"""
    with raw_server(answering(answer("404 Not Found"))) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, server.url], capture_output=True, text=True, timeout=60
        )
    assert (done.stdout, done.stderr) == ("True 404 <Response [404]>\n", "")


def test_importing_it_needs_neither_requests_nor_pydicom() -> None:
    script = "import sys; from postdicom_async.sync import DICOMwebClient; DICOMwebClient('https://a'); "
    script += "print({'requests', 'pydicom', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_every_kind_of_error_has_its_form() -> None:
    from postdicom_async.sync.failures import in_requests_terms

    kinds = [getattr(postdicom_async.errors, name) for name in postdicom_async.errors.__all__]
    for kind in kinds:
        if issubclass(kind, UsageError | postdicom_async.errors.TransferError | postdicom_async.errors.LocalFileError):
            continue
        given: Any = kind("words", operation="doing", attempts=3)
        new: Any = in_requests_terms(given)
        assert in_requests_terms(new) is new
        assert isinstance(new, kind)
        assert isinstance(new, requests.RequestException)
        assert str(new) == "doing: words (3 attempts)"


# --- nothing private --------------------------------------------------------------------------------------------------


def test_nothing_private_is_in_an_error(canary_watch: CanaryWatch) -> None:
    words = f"no {CANARIES['patient_name']} ({CANARIES['patient_id']}), {CANARIES['server_reason']}"
    data = answer("400 Bad Request", words.encode(), "text/plain")
    with raw_server(answering(data)) as server:
        client = DICOMwebClient(
            f"{server.url}/{CANARIES['path']}",
            auth=(CANARIES["username"], CANARIES["password"]),
            headers={"X-Api-Key": CANARIES["header"]},
            settings=ONCE,
        )
        filters = {"PatientName": CANARIES["patient_name"], "PatientID": CANARIES["patient_id"]}
        additional = {"note": CANARIES["query"]}
        calls: list[Callable[[], object]] = [
            lambda: client.search_for_studies(search_filters=filters, additional_params=additional),
            lambda: client.iter_study("1.2.3", additional_params=additional),
            lambda: client.retrieve_instance_metadata("1.2.3", "1.2.4", "1.2.5", additional),
            lambda: client.retrieve_instance_rendered("1.2.3", "1.2.4", "1.2.5", params=additional),
            lambda: client.delete_study("1.2.3", additional),
            lambda: client.search_for_studies(search_filters={"NoSuchThing": CANARIES["patient_name"]}),
            lambda: client.store_instances([CANARIES["patient_name"]]),  # type: ignore[list-item]
        ]
        for call in calls:
            with pytest.raises(PostdicomError) as caught:
                call()
            canary_watch.feed(caught.value)
            canary_watch.feed(getattr(caught.value, "response", None))
            canary_watch.feed(pickle.dumps(caught.value).decode("latin-1"))
        assert CANARIES["header"].encode() in server.heads[0]
        canary_watch.feed(client)
        client.close()


def test_nothing_private_is_in_an_error_of_an_iterator(canary_watch: CanaryWatch) -> None:
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + CANARIES["patient_name"].encode() + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\nConnection: close\r\n\r\n"
    with raw_server(answering(head + part + b"--b--")) as server, DICOMwebClient(server.url) as client:
        with pytest.raises(ProtocolError) as caught:
            client.retrieve_study("1.2.3")
        canary_watch.feed(caught.value)
    with raw_server(answering(head + part)) as server, DICOMwebClient(server.url, settings=ONCE) as client:
        with pytest.raises(ProtocolError) as caught:
            list(client.iter_study("1.2.3"))
        canary_watch.feed(caught.value)
