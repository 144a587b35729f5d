"""Passwords and patients' names show nowhere: not in logs at DEBUG, not in errors, not in reprs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from postdicom_async import OutcomeUnknown, PostDicom, PostdicomError, UsageError
from tests.faults.clients import settings
from tests.postdicom.forms import FORMS, ONE, TWO, Form
from tests.support.canaries import CANARIES, CanaryWatch, frames_that_left
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port
from tests.unit.test_face import own_members

pytestmark = pytest.mark.above_the_transport

SECRET = CANARIES["token"]  # the share's; the account's own is another
ACCOUNT = (CANARIES["username"], CANARIES["password"])
NAME = CANARIES["patient_name"]
LATER = "2999-12-31"
JSON = {"Content-Type": "application/json"}
Connect = Callable[..., PostDicom]
QUICK = settings(max_attempts=1)

CALLS: dict[str, Callable[[PostDicom], Any]] = {
    "create link": lambda a: a.shares.create_link([ONE], expires=LATER, password=SECRET),
    "share orders": lambda a: a.shares.share_orders([ONE], expires=LATER, password=SECRET),
    "share folder": lambda a: a.folders.share(ONE, password=SECRET, title=NAME, description=CANARIES["query"]),
    "create folder": lambda a: a.folders.create(NAME, description=CANARIES["header"]),
    "search folders": lambda a: a.folders.search(name=NAME).all(),
    "create order": lambda a: a.orders.create(
        institution_uuid=ONE,
        patient_name=NAME,
        patient_id=CANARIES["patient_id"],
        patient_birthdate="1899-12-31",
        modality="CT",
        accession_number=CANARIES["accession"],
        patient_complaints=CANARIES["query"],
    ),
    "search orders": lambda a: a.orders.search(
        patient_name=f"{NAME}*", patient_id=CANARIES["patient_id"], accession_number=CANARIES["accession"]
    ).all(),
    "tags": lambda a: a.orders.tag_content(ONE, TWO, tags=[CANARIES["query"]]),
}  # fmt: skip


ORDER = "99999999-2222-3333-4444-555555555555"


def everything_back(request: Request) -> Reply:
    """Answer with all that was sent."""
    return Reply(200, JSON, json.dumps({"Result": ORDER, "Found": [dict(request.headers)]}).encode())


def in_words(request: Request) -> str:
    """Return all that was sent, in the ways a service may repeat it: decoded, as it came, and in parts."""
    text = next(value for name, value in request.headers if name.lower().endswith("parameters"))
    sent = {key: value for key, value in json.loads(text).items() if value}
    parts = ", ".join(part for value in sent.values() if "^" in value for part in value.split("^"))
    return f"bad: {parts} {text} {sent} {json.dumps(text)} {' '.join(sent.values())}"


def reason_header(request: Request) -> Reply:
    return Reply(400, {"X-Error-Reason": in_words(request).encode("ascii", "ignore").decode()})


def reason_text(request: Request) -> Reply:
    return Reply(422, {"Content-Type": "text/plain"}, in_words(request).encode())


def reason_json(request: Request) -> Reply:
    return Reply(500, JSON, json.dumps({"Message": in_words(request)}).encode())


def no_in_200(request: Request) -> Reply:
    return Reply(200, JSON, json.dumps({"Success": False, "Message": in_words(request)}).encode())


FAILURES: dict[str, Any] = {
    "400, reason in a header": reason_header,
    "422, reason in text": reason_text,
    "500, reason in JSON": reason_json,
    "no in 200": no_in_200,
    "401": Reply(401, {"WWW-Authenticate": f'Basic realm="{ACCOUNT[1]}"'}, " ".join(ACCOUNT).encode()),
    "302": Reply(302, {"Location": f"/x?{CANARIES['query']}"}),
    "503": Reply(503),
    "page": Reply(200, {"Content-Type": "text/html"}, f"<html>{NAME}{SECRET}".encode()),
    "cut": Reply(200, JSON, f'[{{"PatientName": "{NAME}"'.encode(), declared_length=999, cut_after=30),
    "dropped": Reply(drop_after_request=True, reset=True),
    "no HTTP": Reply(raw=f"{SECRET}\r\n{NAME}\r\n\r\n".encode()),
    "packed": Reply(200, {**JSON, "Content-Encoding": "gzip"}, NAME.encode()),
    "too large": Reply(200, JSON, f'["{NAME}"]'.encode() * 9, declared_length=65 << 20, stall_after=1000),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_success(call: Callable[[PostDicom], Any], connect: Connect, canary_watch: CanaryWatch) -> None:
    logging.getLogger("httpcore").setLevel(logging.DEBUG)
    async with FaultyServer(everything_back) as server, connect(server.url, *ACCOUNT) as archive:
        found = await call(archive)
        canary_watch.feed(archive)
        canary_watch.feed(archive.orders)
        canary_watch.feed(archive.settings)
    canary_watch.feed(found)
    assert len(server.requests) == 1
    assert found


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_failures(
    call: Callable[[PostDicom], Any], failing: Any, connect: Connect, canary_watch: CanaryWatch
) -> None:
    quick = settings(idle_read=0.1, max_attempts=2)
    async with (
        FaultyServer(failing) as server,
        connect(server.url, *ACCOUNT, settings=quick) as archive,
    ):
        with pytest.raises(PostdicomError) as caught:
            await call(archive)
    assert server.requests
    canary_watch.feed(caught.value)
    assert not frames_that_left(caught.value)
    assert "quillfeather" not in str(caught.value).lower()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_connection(call: Callable[[PostDicom], Any], connect: Connect, canary_watch: CanaryWatch) -> None:
    address = f"http://127.0.0.1:{unused_port()}/{CANARIES['path']}"
    async with connect(address, *ACCOUNT) as archive:
        with pytest.raises(PostdicomError) as caught:
            await call(archive)
    assert not isinstance(caught.value, OutcomeUnknown)
    canary_watch.feed(caught.value)
    assert not frames_that_left(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: a.shares.create_link([NAME], expires=LATER, password=SECRET),
        lambda a: a.shares.create_link([ONE], expires=SECRET, password=SECRET),
        lambda a: a.shares.create_link([ONE], expires=LATER, password=SECRET * 600),
        lambda a: a.shares.create_link([ONE], expires=LATER, password=SECRET + "\ud800"),
        lambda a: a.shares.create_link([ONE], expires=LATER, password=SECRET.encode()),
        lambda a: a.folders.create(NAME, parent_folder_uuid=SECRET),
        lambda a: a.orders.search(patient_name=NAME, study_date_from=NAME),
        lambda a: a.orders.search(institution_uuids=[ONE] * 2, patient_name=NAME * 999),
    ],
)
async def test_mistakes(call: Callable[[PostDicom], Any], canary_watch: CanaryWatch) -> None:
    async with PostDicom("http://127.0.0.1:1", *ACCOUNT) as archive:
        with pytest.raises(UsageError) as caught:
            await call(archive)
    canary_watch.feed(caught.value)
    assert not frames_that_left(caught.value)


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_tracebacks_of_every_operation(form: Form, connect: Connect) -> None:
    """Refused, and in a session that is not open: the frames that hold arguments stay in the package."""
    async with FaultyServer(reason_header) as server, connect(server.url, *ACCOUNT, settings=QUICK) as archive:
        with pytest.raises(PostdicomError) as refused:
            await form.call(archive)
    with pytest.raises(UsageError) as closed:
        await form.call(connect(server.url, *ACCOUNT))
    for error in (refused.value, closed.value):
        assert not frames_that_left(error)
        assert error.origin


def test_every_operation_has_a_form() -> None:
    archive = PostDicom("http://127.0.0.1:1", *ACCOUNT)
    written = {
        f"{noun}.{name}"
        for noun in ("orders", "folders", "shares")
        for name in own_members(type(getattr(archive, noun)))
        if not name.startswith("_")
    }
    assert len({form.path for form in FORMS}) == len(written) == 13
