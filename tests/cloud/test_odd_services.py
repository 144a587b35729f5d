"""Services that are slower, stricter or stranger than the one the vendor's library shows."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from postdicom_async import CloudApi, CloudWire, ConnectionFailed, PostdicomError, Status, UsageError
from postdicom_async.emulator.cloud.oddities import Drop
from tests.cloud.conftest import INSTITUTION, Account
from tests.cloud.cutting import CuttingProxy
from tests.cloud.files import PART, dicom_of_size, held_by, study_in
from tests.cloud.forms import ONE
from tests.cloud.service import (
    ACCOUNT,
    SESSION,
    USER,
    CloudService,
    Received,
    echo,
    envelope_frame,
    refusal,
    success,
    uuid,
)
from tests.faults.clients import settings
from tests.support.dicom_files import small_dicom, uid

CHECK, FILE_PART, ADD_ORDER = (23, 2), (23, 3), (17, 8)


# --- connections ----------------------------------------------------------------------------------------------------


async def test_closing_has_an_end_when_nobody_reads(tmp_path: Path) -> None:
    """What is sent last, and the closing itself, wait for a service that takes nothing any more."""
    (tmp_path / "large.dcm").write_bytes(dicom_of_size(60 * PART))
    async with CloudService() as service, CuttingProxy(service.url, stall_after=3_000_000, pause=0.001) as proxy:
        service.url = proxy.url
        async with asyncio.timeout(20):
            async with service.client(settings=settings(idle_write=60)) as api:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await api.upload(tmp_path)


async def test_a_service_at_work_need_not_answer_pings() -> None:
    async with CloudService(echo) as service, service.client(settings=settings(answer=123)) as api:
        main = api._connection._main
        assert main is not None
        assert main._connection.ping_timeout == 123


async def test_the_origin_can_be_told() -> None:
    seen: list[str | None] = []

    class Noting(CloudService):
        async def _serve(self, connection: ServerConnection) -> None:
            assert connection.request is not None
            seen.append(connection.request.headers.get("Origin"))
            await super()._serve(connection)

    async with Noting(echo) as service:
        async with service.client():
            pass
        async with service.client(wire=CloudWire(origin="https://viewer.example")):
            pass
    assert seen == [None, "https://viewer.example"]


async def test_requests_under_way_survive_that_the_session_is_given_up() -> None:
    """A socket for parts that is refused says nothing of what others do on the main socket."""
    answered = asyncio.Event()

    class Stubborn(CloudService):
        async def _reply(self, connection: ServerConnection, request: Received) -> None:
            if request.key == (3, 2):
                await connection.send(refusal(request))
            else:
                asyncio.get_running_loop().create_task(super()._reply(connection, request))

    async def answer(request: Received) -> bytes:
        if request.key == (17, 2):
            await answered.wait()
        return success(request)

    async with Stubborn(answer) as service, service.client() as api:
        creating = asyncio.create_task(api.folders.create("X"))
        report = await api.upload(small_dicom())
        assert report.counts == {Status.STORED: 1}
        assert len(service.asked) == 6
        answered.set()
        assert (await creating).raw
        for _ in range(2):
            service.drop()
            await api.upload(small_dicom(), existing="send")
        assert len(service.asked) == 12, "no registration is tried in vain again"


@pytest.mark.parametrize("status", [403, 429, 503])
async def test_a_service_that_allows_one_socket_for_parts(tmp_path: Path, status: int) -> None:
    study_in(tmp_path, 12)

    class OneLane(CloudService):
        def admit(self, connection: ServerConnection, _request: Request) -> Response | None:
            return None if self.sockets < 2 else connection.respond(HTTPStatus(status), "too many\n")

    async with OneLane() as service, service.client() as api:
        report = await api.upload(tmp_path, sockets=4)
    assert report.counts == {Status.STORED: 12}
    assert {part.socket for part in service.sent(23) if part.key == FILE_PART} == {2}


# --- order and repeats ----------------------------------------------------------------------------------------------


async def test_with_one_socket_parts_come_in_the_order_of_the_vendors_library(account: Account, tmp_path: Path) -> None:
    for number in range(1, 5):
        (tmp_path / f"{number}.dcm").write_bytes(dicom_of_size(3 * PART + number, number))
    account.server.cloud.oddities.latency = 0.002
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=1)
    assert report.ok
    sent = [part.parameters for part in account.server.cloud.sent(FILE_PART)]
    order = [(part["FileIndex"], part["CurrentFilePartIndex"]) for part in sent]
    assert order == [(file, part) for file in range(4) for part in range(4)]


async def test_repeats_are_earned_back(account: Account, tmp_path: Path) -> None:
    """A connection that breaks now and then costs no file, however many there are."""
    files = study_in(tmp_path, 90)
    for nth in range(8, 100, 8):
        account.server.cloud.oddities.drops.append(Drop("after", FILE_PART, nth))
    async with account.another() as api:
        api = CloudApi(
            account.server.cloud_api_key,
            account.server.cloud_account_key,
            user=USER_OF_THE_ARCHIVE,
            router_url=account.server.router_url,
            settings=settings(budget=4),
        )
        async with api:
            report = await api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=1)
    assert report.counts == {Status.STORED: 90}
    assert held_by(account.server) == files


USER_OF_THE_ARCHIVE = "5a1c0000-0000-4000-8000-000000000101"


async def test_all_sockets_at_once(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path, 130)
    cloud = account.server.cloud
    cloud.oddities.latency = 0.02

    async def drop() -> None:
        while len(cloud.sent(FILE_PART)) < 64:
            await asyncio.sleep(0.002)
        cloud.drop_sockets()

    dropping = asyncio.create_task(drop())
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=64)
    await dropping
    assert report.counts == {Status.STORED: 130}
    assert held_by(account.server) == files


async def test_a_service_that_never_answers_is_given_up(tmp_path: Path) -> None:
    study_in(tmp_path, 40)

    def answer(request: Received) -> bytes | None:
        return None if request.key == FILE_PART else success(request)

    quick = settings(answer=0.05, max_attempts=1)
    async with CloudService(answer) as service, service.client(settings=quick) as api:
        with pytest.raises(ConnectionFailed, match="upload: the service did not answer in time") as caught:
            await api.upload(tmp_path, sockets=2)
    report: Any = caught.value.report
    assert 6 <= len(report.outcomes) < 20
    parts = [one for one in service.sent(23) if one.key == FILE_PART]
    assert report.counts[Status.UNCONFIRMED] == len(parts)
    assert 6 <= len(parts) < 9
    rest = [one for one in report.outcomes if one.status is not Status.UNCONFIRMED]
    assert all(one.status is Status.FAILED and one.reason.startswith("not sent: ") for one in rest)


# --- what is there already, and folders -----------------------------------------------------------------------------


@pytest.mark.parametrize(("told", "present"), [("true", True), (1, True), ("True", True), (0, False), (None, False)])
async def test_yes_in_any_spelling(told: Any, present: bool) -> None:
    def answer(request: Received) -> bytes:
        order = {"PatientOrder": {"PatientOrderUuid": ONE}} if request.key == CHECK else {}
        return success(request, FileIfExist=told, **order)

    async with CloudService(answer) as service, service.client() as api:
        report = await api.upload(small_dicom())
    assert report.counts == {Status.PRESENT if present else Status.STORED: 1}
    assert report.patient_order_uuids == ((ONE,) if present else ()), "an order of other files holds none of these"


async def test_an_order_that_cannot_be_put_into_the_folder_at_once(account: Account, tmp_path: Path) -> None:
    study_in(tmp_path, 5)
    await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    folder = str((await account.api.folders.create("New")).folder_uuid)
    account.server.cloud.oddities.refused[ADD_ORDER] = 1
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, folder_uuid=folder)
    assert report.counts == {Status.PRESENT: 5}
    assert len((await account.api.folders.contents(folder)).orders) == 1


async def test_a_lost_file_whose_order_is_not_told_goes_into_the_folder_all_the_same() -> None:
    parts = 0

    def answer(request: Received) -> bytes | None:
        nonlocal parts
        parts += request.key == FILE_PART
        if request.key == FILE_PART and parts == 1:
            return None
        return success(request, FileIfExist=parts > 0) if request.key == CHECK else success(request)

    async with CloudService(answer) as service, service.client(settings=settings(answer=0.1)) as api:
        report = await api.upload(small_dicom(), folder_uuid=ONE)
    assert report.counts == {Status.STORED: 1}
    assert parts == 2


# --- what it says ---------------------------------------------------------------------------------------------------


async def test_ids_of_sessions_and_the_users_name_do_not_show() -> None:
    def answer(request: Received) -> bytes:
        if request.key == (23, 1):
            told = {"ResponseCode": 1, "ResponseMessage": {}, "SessionUniqueUuid": uuid(77)}
            return envelope_frame(request, told)
        words = f"{SESSION} {uuid(77)} of Somebody Somewhere (somebody@example.org) is blocked"
        return success(request) if request.key == CHECK else refusal(request, words)

    async with CloudService(answer) as service, service.client() as api:
        report = await api.upload(small_dicom())
        assert report.failures[0].reason == "[sent value] [sent value] of [sent value] ([sent value]) is blocked"
        with pytest.raises(PostdicomError) as caught:
            await api.folders.create("X")
    assert caught.value.reason == "[sent value] [sent value] of [sent value] ([sent value]) is blocked"


HALF = "\ud800"


@pytest.mark.parametrize(
    "user",
    [
        {"UserUuid": f"{USER}{HALF}"},
        {"UserUuid": "x" * 300},
        {"UserUuid": None},
        {"UserUuid": 5},
        {"FullName": HALF},
        {"FullName": 5, "UserName": []},
        {"InstitutionList": None},
        {"InstitutionList": [{"InstitutionUuid": HALF}]},
        {"InstitutionList": [None, 5, {}]},
    ],
)
async def test_accounts_that_are_odd(user: dict[str, Any]) -> None:
    async with CloudService() as service:
        service.account = {"UserList": [{**ACCOUNT["UserList"][0], **user}]}
        async with service.client() as api:
            for call in (api.folders.create("X"), api.upload(small_dicom())):
                with suppress(PostdicomError):
                    assert await call


@pytest.mark.parametrize("users", [None, {}, [], "x", [None], [[]]])
async def test_accounts_without_users(users: Any) -> None:
    async with CloudService() as service:
        service.account = {"UserList": users}
        async with service.client() as api:
            assert api.account.users == []
            with pytest.raises(UsageError, match="user: the account has 0"):
                await api.folders.create("X")


@pytest.mark.parametrize(
    "told", ["ws://127.0.0.1:1/?a=b", "ws://a b.example", "ws://u:p@127.0.0.1:1", f"ws://{HALF}", "ws://.a.."]
)
async def test_addresses_that_cannot_be_used(told: str) -> None:
    service = CloudService()
    service.url = told
    with pytest.raises(PostdicomError) as caught:
        await service.client(settings=settings(max_attempts=1, allow_http_credentials=True)).__aenter__()
    assert not isinstance(caught.value, UsageError)


# --- sources --------------------------------------------------------------------------------------------------------


async def test_a_slow_source_keeps_nobody_waiting() -> None:
    """What is given one by one is sent as it comes, and a failure does not wait for the next one."""
    released, first_is_there = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield small_dicom()
        assert first_is_there.wait(20), "the first is sent before the second is there"
        yield small_dicom(instance=uid(1, 1, 2))
        released.wait(20)

    class Leaving(CloudService):
        def admit(self, connection: ServerConnection, _request: Request) -> Response | None:
            return connection.respond(HTTPStatus(503), "gone\n") if first_is_there.is_set() else None

    def leave() -> None:
        first_is_there.set()
        service.drop()

    def answer(request: Received) -> bytes:
        if request.key == FILE_PART:
            asyncio.get_running_loop().call_later(0.05, leave)
        return success(request)

    async with Leaving(answer) as service, service.client(settings=settings(max_attempts=1)) as api:
        async with asyncio.timeout(10):
            with pytest.raises(PostdicomError) as caught:
                await api.upload(slowly(), existing="send", sockets=1)
        released.set()
    report: Any = caught.value.report
    assert report.counts == {Status.STORED: 1, Status.FAILED: 1}
    assert report.failures[0].reason.startswith("not sent: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
async def test_a_file_that_becomes_a_pipe(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(small_dicom())

    async def sources() -> Any:
        yield path
        path.unlink()
        os.mkfifo(path)

    account.server.cloud.oddities.latency = 0.05
    async with asyncio.timeout(10):
        report = await account.api.upload(sources(), institution_uuid=INSTITUTION)
    (outcome,) = report.outcomes
    assert outcome.status in {Status.UNREADABLE, Status.STORED}


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"part_bytes": -1}, "part_bytes"),
        ({"part_bytes": 0}, "part_bytes"),
        ({"part_bytes": 1.5}, "part_bytes"),
        ({"part_bytes": True}, "part_bytes"),
        ({"response_types": 5}, "response_types"),
        ({"response_types": frozenset()}, "response_types"),
        ({"response_types": frozenset({"4"})}, "response_types"),
        ({"other_order_fields": None}, "other_order_fields"),
        ({"router_url": ""}, "router_url"),
    ],
)
def test_what_is_assumed_must_make_sense(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=rf"wire.*{name}"):
        CloudWire(**arguments)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"settings": 5}, "settings"),
        ({"settings": {}}, "settings"),
        ({"wire": []}, "wire"),
        ({"router_url": 0}, "router_url"),
    ],
)
def test_clients_of_the_wrong_kind(options: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: give"):
        CloudService().client(**options)


CALLS: list[tuple[Any, str]] = [
    (lambda a: a.folders.update(ONE, name=5), "name: give text"),
    (lambda a: a.folders.update(ONE, name=" "), "name: the text is blank"),
    (lambda a: a.folders.update(ONE, description=b"x"), "description: give text"),
    (lambda a: a.folders.update(ONE, description=HALF), "description: "),
    (lambda a: a.folders.update(ONE, description=""), "name: give a new name, a new description or both"),
    (lambda a: a.shares.create_link([ONE], expires=""), "expires: must be given"),
    (lambda a: a.shares.create_link([ONE], expires=0), "expires: give a date"),
    (lambda a: a.shares.create_link([ONE], expires=[]), "expires: give a date"),
    (lambda a: a.shares.create_link([ONE], password=0), "password: the Cloud API has no password"),
    (lambda a: a.shares.share_by_email([ONE], "a@example.org", expires=""), "expires: must be given"),
    (lambda a: a.orders.search(study_date_from=0).all(), "study_date_from: give a date"),
    (lambda a: a.orders.search(patient_birthdate_to=[]).all(), "patient_birthdate_to: give a date"),
    (lambda a: a.orders.create_from_json(5), "fields: give a mapping"),
    (lambda a: a.orders.create_from_json([]), "fields: give a mapping"),
    (lambda a: a.flags.set(ONE, group_id=10**5000, flag_id=1), "group_id: the number is too large"),
    (lambda a: a.upload(b"", existing=[]), "existing: give 'skip' or 'send'"),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
async def test_arguments_of_the_wrong_kind(call: Any, message: str) -> None:
    async with CloudService() as service, service.client() as api:
        with pytest.raises(UsageError) as caught:
            await call(api)
        assert message in str(caught.value)
        assert not service.sent()
